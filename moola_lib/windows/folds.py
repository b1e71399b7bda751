"""Cross-validation folds that share no trading day and no bar."""

from dataclasses import dataclass

import numpy as np

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS


@dataclass(frozen=True)
class Fold:
    """Rows of the labelled windows for one fold.

    Attributes
    ----------
    train, test : ndarray, int64
        Rows into the labelled windows.
    n_purged : int
        Windows too near to the test block to train on.
    """

    train: np.ndarray
    test: np.ndarray
    n_purged: int


def grouped_folds(place, day, *, n_folds=5, purge_bars=WINDOW_BARS, window_bars=WINDOW_BARS):
    """Cut labelled windows into folds: contiguous blocks of trading days.

    Windows of one day, and windows that share bars, stay together. A training
    window closer than `purge_bars` to a test window is left out.

    Parameters
    ----------
    place : ndarray (n,), int64
        First bars, increasing.
    day : ndarray (n,), datetime64[D]
    n_folds : int
    purge_bars, window_bars : int

    Returns
    -------
    list of Fold

    Raises
    ------
    UserError
        There are fewer groups of days than folds.
    """
    place, day = np.asarray(place), np.asarray(day)
    if np.any(np.diff(place) < 0):
        raise ValueError("windows must be in time order")
    overlaps = place[1:] < place[:-1] + window_bars
    group = np.cumsum(np.r_[True, ~(overlaps | (day[1:] == day[:-1]))]) - 1
    n_groups = group[-1] + 1
    if n_groups < n_folds:
        raise UserError(
            f"{len(place)} windows lie on {n_groups} separate trading days, fewer than {n_folds} folds; "
            "label more days or use fewer folds"
        )
    # the middle of each group, as a share of all windows, decides its block
    counts = np.bincount(group)
    middle = (np.cumsum(counts) - counts / 2) / len(place)
    block_of_group = np.minimum((middle * n_folds).astype(int), n_folds - 1)
    block_of_group = _fill_blocks(block_of_group, n_folds)
    block = block_of_group[group]
    folds = []
    for k in range(n_folds):
        test, train = np.flatnonzero(block == k), np.flatnonzero(block != k)
        low, high = place[test].min() - purge_bars, place[test].max() + window_bars + purge_bars
        is_near = (place[train] + window_bars > low) & (place[train] < high)
        fold = Fold(train[~is_near], test, int(is_near.sum()))
        check_disjoint(place[fold.train], place[fold.test], day[fold.train], day[fold.test], window_bars)
        folds.append(fold)
    return folds


def last_days_fold(place, day, *, test_frac=0.25, purge_bars=WINDOW_BARS, window_bars=WINDOW_BARS):
    """Hold out the latest days as a single test block.

    Parameters
    ----------
    place : ndarray (n,), int64
        First bars, increasing.
    day : ndarray (n,), datetime64[D]
    test_frac : float
        Share of windows wanted in the test block; whole days are taken.
    purge_bars, window_bars : int

    Returns
    -------
    Fold

    Raises
    ------
    UserError
        All windows lie on one day.
    """
    days = np.unique(day)
    if len(days) < 2:
        raise UserError(f"all {len(place)} windows lie on {days[0]}; at least two trading days are needed")
    for count in range(1, len(days)):
        is_test = np.isin(day, days[-count:])
        if is_test.sum() >= test_frac * len(place):
            break
    test = np.flatnonzero(is_test)
    is_near = place + window_bars > place[test].min() - purge_bars
    train = np.flatnonzero(~is_test & ~is_near)
    check_disjoint(place[train], place[test], day[train], day[test], window_bars)
    return Fold(train, test, int((is_near & ~is_test).sum()))


def check_disjoint(train_place, test_place, train_day, test_day, window_bars=WINDOW_BARS):
    """Raise AssertionError if training and test windows share a bar or a trading day."""
    distance = np.abs(np.subtract.outer(train_place, test_place))
    if distance.size and distance.min() < window_bars:
        raise AssertionError("a training and a test window share bars")
    if len(np.intersect1d(train_day, test_day)):
        raise AssertionError("training and test windows share a trading day")


def _fill_blocks(block_of_group, n_folds):
    """Return the blocks with none empty, still in order (few, uneven groups may skip one)."""
    if len(np.unique(block_of_group)) == n_folds:
        return block_of_group
    return np.arange(len(block_of_group)) * n_folds // len(block_of_group)
