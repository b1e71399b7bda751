"""Which bars are hidden from a masked autoencoder. True = hidden."""

import torch

from moola_lib.errors import UserError


def single_mask(shape, ratio, generator):
    """Hide single bars, each independently with probability `ratio`.

    Parameters
    ----------
    shape : (int, int)
        (batch, time).
    ratio : float
        Expected fraction hidden, in (0, 1).
    generator : torch.Generator
        On the device of the mask.

    Returns
    -------
    Tensor (batch, time), bool. Every window has at least one hidden bar.
    """
    noise = torch.rand(shape, generator=generator, device=generator.device)
    # the smallest draw is always hidden: a window without hidden bars has no loss
    return noise < torch.maximum(noise.amin(dim=1, keepdim=True) + 1e-7, noise.new_tensor(ratio))


def span_mask(shape, ratio, generator, mean_bars=10):
    """Hide spans of bars of geometric length, about a fraction `ratio` in all.

    Each bar's state (hidden or not) is a two-state Markov chain whose hidden
    runs have mean `mean_bars` and whose stationary share is `ratio`, as in
    mvts_transformer (Zerveas et al. 2021). Differs: all features of a bar are
    hidden together.

    Parameters
    ----------
    shape : (int, int)
        (batch, time).
    ratio : float
        Expected fraction hidden, in (0, 1).
    generator : torch.Generator
    mean_bars : float
        Mean length of a hidden run, in bars, at least 1.

    Returns
    -------
    Tensor (batch, time), bool. Every window has at least one hidden bar.

    Raises
    ------
    UserError
        Runs this short cannot hide that many bars.
    """
    if mean_bars < 1 or ratio > mean_bars / (mean_bars + 1):
        raise UserError(
            f"spans of {mean_bars:g} bars cannot hide {ratio:.0%} of all bars: the visible runs between them are at "
            f"least one bar, which allows {mean_bars / (mean_bars + 1):.0%}; lower mask_ratio or raise mask_span_bars"
        )
    batch, time = shape
    noise = torch.rand((batch, time + 1), generator=generator, device=generator.device)
    leave = 1 / mean_bars
    enter = leave * ratio / (1 - ratio)
    states = [noise[:, 0] < ratio]
    for t in range(1, time):
        states.append(torch.where(states[-1], noise[:, t] >= leave, noise[:, t] < enter))
    mask = torch.stack(states, dim=1)
    lonely = (noise[:, time] * time).long().clamp(max=time - 1)
    is_empty = ~mask.any(dim=1)
    mask[is_empty, lonely[is_empty]] = True
    return mask


MASKS = {"single": single_mask, "span": span_mask}


def cut_after(x, t):
    """Return windows as they look at the close of bar t: every later bar is 0, the mask token.

    Parameters
    ----------
    x : Tensor (batch, time, feature), float32
    t : int or Tensor (batch,), int64
        Last bar that is seen.

    Returns
    -------
    Tensor (batch, time, feature), float32
        Identical for any values after bar t.
    """
    last = torch.as_tensor(t, device=x.device).reshape(-1, 1)
    is_later = torch.arange(x.shape[1], device=x.device) > last
    return x.masked_fill(is_later.unsqueeze(-1), 0.0)
