"""Which bars are hidden from a masked autoencoder: functions of uniform noise. True = hidden."""

import torch

from moola_lib.errors import UserError


def single_mask(noise, ratio):
    """Hide single bars, each independently with probability `ratio`.

    Parameters
    ----------
    noise : Tensor (batch, time), float32
        Uniform in [0, 1).
    ratio : float
        Expected fraction hidden, in (0, 1).

    Returns
    -------
    Tensor (batch, time), bool. Every window has at least one hidden bar.
    """
    # the smallest draw is always hidden: a window without hidden bars has no loss
    return noise < (noise.amin(dim=1, keepdim=True) + 1e-7).clamp(min=ratio)


def span_mask(noise, ratio, mean_bars=10):
    """Hide spans of bars of geometric length, about a fraction `ratio` in all.

    Each bar's state (hidden or not) is a two-state Markov chain whose hidden
    runs have mean `mean_bars` and whose stationary share is `ratio`, as in
    mvts_transformer (Zerveas et al. 2021). Differs: all features of a bar are
    hidden together.

    Parameters
    ----------
    noise : Tensor (batch, time), float32
        Uniform in [0, 1).
    ratio : float
        Expected fraction hidden, in (0, 1).
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
    time = noise.shape[1]
    leave = 1 / mean_bars
    enter = leave * ratio / (1 - ratio)
    # A draw below both rates flips the state, one between them sets it to what the likelier change leads to, others
    # keep it: a bar's state is the last one set, flipped as often as was drawn since. No loop over bars is needed.
    is_flipped, is_set = noise < min(leave, enter), noise < max(leave, enter)
    is_flipped[:, 0], is_set[:, 0] = False, True
    value = torch.full_like(is_set, enter > leave)
    value[:, 0] = noise[:, 0] < ratio
    bars = torch.arange(time, device=noise.device)
    last_set = torch.where(is_set & ~is_flipped, bars, 0).cummax(dim=1).values
    n_flips = is_flipped.cumsum(dim=1)
    mask = value.gather(1, last_set) ^ ((n_flips - n_flips.gather(1, last_set)) % 2 == 1)
    # where nothing is hidden, the first bar's draw is uniform above the ratio: it says which bar is
    lonely = ((noise[:, :1] - ratio) / (1 - ratio) * time).long().clamp(0, time - 1)
    return mask | (~mask.any(dim=1, keepdim=True) & (bars == lonely))


def exact_mask(noise, ratio, span_bars):
    """Hide runs of exactly `span_bars` bars, none at an edge and no two touching: a question of known difficulty.

    Every run has a visible bar on both sides. A window gets as many runs as
    come nearest to `ratio`, at least one; each placing is equally likely.

    Parameters
    ----------
    noise : Tensor (batch, time), float32
        Uniform in [0, 1).
    ratio : float
        Fraction to hide, in (0, 1).
    span_bars : int

    Returns
    -------
    Tensor (batch, time), bool

    Raises
    ------
    UserError
        The window is too short for one run between visible bars.
    """
    time = noise.shape[1]
    if span_bars > time - 2:
        raise UserError(f"a span of {span_bars} bars does not fit between visible bars of a window of {time}")
    most = (time - 1) // (span_bars + 1)  # runs with a visible bar before each and one at the end
    n_runs = min(max(round(ratio * time / span_bars), 1), most)
    n_gaps = time - n_runs * span_bars - 1  # places between two neighbouring visible bars
    gaps = noise[:, :n_gaps].argsort(dim=1)[:, :n_runs].sort(dim=1).values
    run, bar = torch.arange(n_runs, device=noise.device), torch.arange(span_bars, device=noise.device)
    hidden = (gaps + 1 + run * span_bars).unsqueeze(-1) + bar
    mask = torch.zeros_like(noise, dtype=torch.bool)
    return mask.scatter(1, hidden.flatten(1), True)


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
