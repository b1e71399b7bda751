"""Windows of ordinary tape: stretches of labelled days that nobody labelled."""

from dataclasses import dataclass

import numpy as np

from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.segments import trade_dates


@dataclass(frozen=True)
class OrdinaryWindows:
    """Unlabelled windows, in time order.

    Attributes
    ----------
    place : ndarray (n,), int64
        Position of bar 0 in the series.
    day : ndarray (n,), datetime64[D]
        Trade date of all their bars.
    """

    place: np.ndarray
    day: np.ndarray

    def __len__(self):
        return len(self.place)

    def on_days(self, days):
        """Return the windows of those trade dates."""
        rows = np.isin(self.day, days)
        return OrdinaryWindows(self.place[rows], self.day[rows])


def ordinary_windows(windows, index, starts, *, days=None, n=None, seed=17, window_bars=WINDOW_BARS):
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
        At most so many, at random; default all that fit.
    seed : int
    window_bars : int

    Returns
    -------
    OrdinaryWindows
        Perhaps none: where labels fill their days, or carry bars of their own.
    """
    rng, day = np.random.default_rng(seed), trade_dates(index)
    is_free = np.isin(day, windows.day if days is None else days)
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
    if n is not None and len(places) > n:
        places = np.sort(rng.choice(places, n, replace=False))
    return OrdinaryWindows(places, day[places])


def _runs(bars, stretch):
    """Return (first bar, length) of every stretch."""
    _, at, counts = np.unique(stretch, return_index=True, return_counts=True)
    return bars[at], counts
