"""Which windows belong together: those that share bars, those of one trading day."""

from dataclasses import replace

import numpy as np

from moola_lib.labels.older import LEGACY_FIRST_STAMP
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.bars import PRICES

MATCH_BARS = 3  # twelve equal prices in a row are no coincidence


def joined_windows(place, day, *, window_bars=WINDOW_BARS):
    """Number the groups of windows that one fold must hold together.

    Two windows join where they share a bar or a trading day, or where both
    join a third.

    Parameters
    ----------
    place : ndarray (n,), int64
        First bars, increasing.
    day : ndarray (n,), datetime64[D]
    window_bars : int

    Returns
    -------
    ndarray (n,), int64
        Groups from 0, in the order of their first windows.
    """
    chain = np.cumsum(np.r_[True, place[1:] >= place[:-1] + window_bars])
    return _connect([(("bars", c), ("day", d)) for c, d in zip(chain.tolist(), day.tolist(), strict=True)])


def group_by_shared_bars(windows, frame, *, window_bars=WINDOW_BARS):
    """Give windows that show the same bars one day: for labels without time stamps.

    Such labels carry their own bars, and the days that `place_labels` finds are
    made up, one a window. What can still be seen is that windows were cut from
    the same stretch: they hold the same three bars in a row.

    Parameters
    ----------
    windows : LabelledWindows
    frame : DataFrame
        Bars whose positions the windows' places are.
    window_bars : int

    Returns
    -------
    windows : LabelledWindows
        With one made-up `day` a group. Neighbouring days mean nothing: an
        embargo has no sense here (`embargo_days=0`).
    sentence : str
        What was done, for the report.
    """
    prices = np.ascontiguousarray(frame[list(PRICES)].to_numpy(np.float64))
    runs = []
    for place in windows.place:
        bars = prices[place : place + window_bars]
        runs.append([bars[at : at + MATCH_BARS].tobytes() for at in range(window_bars - MATCH_BARS + 1)])
    group = _connect(runs)
    sentence = (
        f"The labels carry no time stamps: {len(windows)} windows form {group.max() + 1} groups by the bars they "
        "share, and no fold splits a group; whether two groups are of one day is not known."
    )
    return replace(windows, day=np.datetime64(LEGACY_FIRST_STAMP, "D") + group), sentence


def _connect(keys):
    """Number the connected components of rows that have a key in common, in the order of their first rows."""
    parent, owner = list(range(len(keys))), {}

    def root(row):
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for row, own in enumerate(keys):
        for key in own:
            ends = root(owner.setdefault(key, row)), root(row)
            parent[max(ends)] = min(ends)
    return np.unique([root(row) for row in range(len(keys))], return_inverse=True)[1]
