"""Windows of ordinary tape: stretches of labelled days that nobody labelled."""

import numpy as np

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.segments import trade_dates


def ordinary_places(windows, index, starts, *, days=None, n=None, seed=17, window_bars=WINDOW_BARS):
    """Draw windows that share no bar with a labelled one, nor with each other.

    Each free stretch is filled with windows end to end from a random bar on.
    They are ordinary in that nobody labelled them; some may still hold an
    expansion, if not all were labelled.

    Parameters
    ----------
    windows : LabelledWindows
        All labelled windows of the series, test windows too.
    index : DatetimeIndex, UTC
        Stamps of the series.
    starts : ndarray (n_segments,), int64
    days : ndarray, datetime64[D], optional
        Trade dates to draw from, those of the training fold; default the days of
        `windows`. A window lies on one of them with all its bars.
    n : int, optional
        How many, at random; default all that fit.
    seed : int
    window_bars : int

    Returns
    -------
    ndarray (n,), int64
        First bars, increasing.

    Raises
    ------
    UserError
        Fewer than `n`, or none, fit.
    """
    rng = np.random.default_rng(seed)
    is_free = np.isin(trade_dates(index), windows.day if days is None else days)
    is_free[(windows.place[:, None] + np.arange(window_bars)).ravel()] = False
    # a stretch ends where a bar is taken and where a segment begins
    is_first = np.zeros(len(index), bool)
    is_first[starts] = True
    is_first |= is_free & ~np.r_[False, is_free[:-1]]
    stretch = np.cumsum(is_first)[is_free]
    bars = np.flatnonzero(is_free)
    found = [np.empty(0, np.int64)]
    for first, length in zip(*_runs(bars, stretch), strict=True):
        first += rng.integers(0, length % window_bars + 1)
        found.append(first + window_bars * np.arange(length // window_bars))
    places = np.concatenate(found)
    if len(places) == 0 or (n is not None and len(places) < n):
        raise UserError(
            f"{len(places)} ordinary windows fit beside {len(windows)} labelled ones on their days, "
            f"{'at least one is' if n is None else f'{n} are'} needed; ask for fewer, or give more days"
        )
    return places if n is None else np.sort(rng.choice(places, n, replace=False))


def _runs(bars, stretch):
    """Return (first bar, length) of every stretch."""
    _, at, counts = np.unique(stretch, return_index=True, return_counts=True)
    return bars[at], counts
