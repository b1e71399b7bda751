"""Time warp, an augmentation that is off by default: with few windows it adds noise, not diversity."""

import numpy as np
import torch

from moola_lib.labels.targets import expansion_targets

MAX_SHIFT_FRAC = 0.1  # of the window, at its middle


def warp_batch(batch, spans, probability, generator):
    """Stretch the first half of some windows and squeeze the second, or the reverse, with their targets.

    Parameters
    ----------
    batch : dict of Tensor
        As in `learning.batches`.
    spans : (ndarray (batch,), ndarray (batch,)) of int64
        Start and end of each window's expansion; -1 where there is none.
    probability : float
        Share of windows warped; 0 returns the batch itself.
    generator : torch.Generator (cpu)

    Returns
    -------
    dict of Tensor
        Features interpolated linearly in time; span targets made again from
        the warped span. A window whose warp would reach into invalid bars is
        treated like any other: its invalid bars are those nearest in time.
    """
    if probability <= 0:
        return batch
    x, is_valid = batch["x"], batch["is_valid"]
    size, time = is_valid.shape
    is_warped = torch.rand(size, generator=generator) < probability
    shift = (torch.rand(size, generator=generator) * 2 - 1) * MAX_SHIFT_FRAC * is_warped
    source = _source_time(shift, time).to(x.device)
    below = source.floor().long().clamp(max=time - 1)
    above = (below + 1).clamp(max=time - 1)
    share = (source - below).unsqueeze(-1)
    rows = torch.arange(size, device=x.device)[:, None]
    nearest = source.round().long().clamp(0, time - 1)
    warped = dict(batch)
    chosen = is_warped.to(x.device)[:, None]  # the others stay as they are, to the last bit
    warped["x"] = torch.where(chosen.unsqueeze(-1), x[rows, below] * (1 - share) + x[rows, above] * share, x)
    warped["is_valid"] = torch.where(chosen, is_valid[rows, nearest], is_valid)
    has = batch["has_expansion"].cpu().numpy()
    start, end = (_warp_bars(edge, source.cpu().numpy()) for edge in spans)
    end = np.maximum(start, end)
    made = expansion_targets(np.where(has, start, 0), np.where(has, end, 0), time)
    new = {
        "pointers": np.stack([made.centre, made.length], axis=1).astype(np.float32),
        "inside": made.mask,
        "countdown": made.countdown,
    }
    if "spans" in batch:
        shown = source.cpu().numpy()
        moved = [_warp_bars(edge, shown) for edge in batch["spans"].cpu().numpy().reshape(size, -1).T]
        moved = torch.as_tensor(np.stack(moved, axis=1)).reshape(batch["spans"].shape).to(x.device)
        keeps = (batch["spans"] < 0) | ~chosen.unsqueeze(-1)  # -1 marks that there is no further span
        warped["spans"] = torch.where(keeps, batch["spans"], moved)
    for name, value in new.items():
        value = torch.as_tensor(np.where(has[:, None], value, np.float32(0))).to(x.device)
        warped[name] = torch.where(chosen, value, batch[name])
    return warped


def _source_time(shift, time):
    """Return, for each new bar, the old time it shows, (batch, time); ends stay, the middle moves by `shift`."""
    t = torch.linspace(0, 1, time)
    middle = 0.5 + shift[:, None]
    return torch.where(t <= 0.5, t / 0.5 * middle, middle + (t - 0.5) / 0.5 * (1 - middle)) * (time - 1)


def _warp_bars(bars, source):
    """Return the new bar nearest to each old one."""
    return np.abs(source - bars[:, None]).argmin(axis=1)
