"""Splits in time order, with an embargo so that no bar is shared."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.segments import trade_dates


@dataclass(frozen=True)
class Split:
    """Window places of a split in time.

    Attributes
    ----------
    train, validation, test : ndarray, int64
        Positions of first bars.
    table : DataFrame
        `part`, `n_windows`, `first_bar`, `last_bar` (UTC).
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    table: pd.DataFrame


def split_by_time(
    places, index, *, fractions=(0.70, 0.15, 0.15), dates=None, embargo_bars=WINDOW_BARS, window_bars=WINDOW_BARS
):
    """Split windows into train, validation and test by time, between sessions: no trade date lies in two parts.

    Parameters
    ----------
    places : ndarray (n_windows,), int64
        Positions of first bars, increasing.
    index : DatetimeIndex, UTC
        Stamps of the series.
    fractions : (float, float, float)
        Shares of the span of bars the windows cover; sum 1.
    dates : (str, str), optional
        Last trade date of train and of validation (inclusive), instead of fractions.
    embargo_bars : int
        Bars between the last bar of one part and the first bar of the next.
    window_bars : int

    Returns
    -------
    Split

    Raises
    ------
    UserError
        A part would be empty, or the fractions do not sum to 1.
    """
    if not (abs(sum(fractions) - 1) <= 1e-6 and min(fractions) > 0):  # a NaN is neither
        raise UserError(f"split fractions {tuple(fractions)} must be positive and sum to 1")
    places = np.sort(np.asarray(places))
    first, last = places[0], places[-1] + window_bars
    trade_date = trade_dates(index)
    if dates is None:
        wanted = first + np.round(np.cumsum(fractions[:2]) * (last - first)).astype(np.int64)
        opens = np.flatnonzero(np.r_[True, trade_date[1:] != trade_date[:-1]])
        cuts = opens[np.abs(opens - wanted[:, None]).argmin(axis=1)]  # the nearest start of a session
    else:
        cuts = np.searchsorted(trade_date, np.array(dates, "datetime64[D]"), side="right")
    edges = [(first, cuts[0]), (cuts[0] + embargo_bars, cuts[1]), (cuts[1] + embargo_bars, last)]
    parts = [places[(places >= low) & (places + window_bars <= high)] for low, high in edges]
    rows = []
    for name, part in zip(("train", "validation", "test"), parts, strict=True):
        if len(part) == 0:
            raise UserError(
                f"the {name} part of the split holds no window ({len(places)} windows in all, embargo {embargo_bars} "
                "bars); give more bars or other fractions"
            )
        rows.append((name, len(part), index[part[0]], index[part[-1] + window_bars - 1]))
    table = pd.DataFrame(rows, columns=["part", "n_windows", "first_bar", "last_bar"])
    return Split(*parts, table)


def without_days(places, index, days, *, margin_days=1, window_bars=WINDOW_BARS):
    """Return the places whose windows lie on none of the given trade dates, nor within `margin_days` of one.

    Parameters
    ----------
    places : ndarray (n,), int64
    index : DatetimeIndex, UTC
        Stamps of the series.
    days : ndarray, datetime64[D]
        Trade dates, for example of the labelled windows.
    margin_days : int
        Neighbouring trade dates (of the series) that are left out as well.

    Returns
    -------
    ndarray, int64
    """
    trade_date = trade_dates(index)
    known = np.unique(trade_date)
    is_near = np.isin(known, days)
    for _ in range(margin_days):
        is_near = is_near | np.r_[is_near[1:], False] | np.r_[False, is_near[:-1]]
    is_barred = np.isin(trade_date, known[is_near])
    return places[~(is_barred[places] | is_barred[places + window_bars - 1])]
