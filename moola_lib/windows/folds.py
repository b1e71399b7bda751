"""Cross-validation folds that share no trading day and no bar."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.labels.table import CLASSES
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.windows.groups import joined_windows

RESERVED_FRAC = 0.20


@dataclass(frozen=True)
class Fold:
    """Rows of the labelled windows for one fold.

    Attributes
    ----------
    train, test : ndarray, int64
        Rows into the labelled windows.
    n_purged : int
        Windows too near to the test block to train on, in bars.
    n_embargoed : int
        Further windows left out: on a trading day next to the test block.
    """

    train: np.ndarray
    test: np.ndarray
    n_purged: int
    n_embargoed: int = 0


def grouped_folds(
    place,
    day,
    *,
    n_folds=5,
    purge_bars=WINDOW_BARS,
    embargo_days=0,
    sessions=None,
    shift=0.0,
    window_bars=WINDOW_BARS,
):
    """Cut labelled windows into folds: contiguous blocks of trading days.

    Windows of one day, and windows that share bars, stay together. A training
    window closer than `purge_bars` to a test window is left out, and so is one
    within `embargo_days` trading days of a test window.

    Parameters
    ----------
    place : ndarray (n,), int64
        First bars, increasing: positions in the series, not ranks of windows.
    day : ndarray (n,), datetime64[D]
        Trade dates. Made-up ones (see `groups.group_by_shared_bars`) group too.
    n_folds : int
    purge_bars : int
        Bars between a training and a test window. Bars are at least a minute
        apart, so 105 bars are at least 105 minutes by the stamps; a break of an
        hour does not stand in for sixty bars, which would leave out less.
    embargo_days : int
    sessions : ndarray, datetime64[D], optional
        Trade dates of the series, by which neighbouring days are told; default
        the days of the windows themselves, which leaves out more.
    shift : float
        Moves every border by this share of a block; past the end the last block
        goes on at the beginning.
    window_bars : int

    Returns
    -------
    list of Fold

    Raises
    ------
    UserError
        There are fewer groups of days than folds, or a fold has no training window left.
    """
    place, day = np.asarray(place), np.asarray(day)
    block = cut_blocks(place, day, n_folds, f"{n_folds} folds", shift=shift, window_bars=window_bars)
    options = {"purge_bars": purge_bars, "embargo_days": embargo_days, "sessions": sessions, "window_bars": window_bars}
    return [cut_fold(place, day, block == k, f"fold {k + 1} of {n_folds}", **options) for k in range(n_folds)]


def repeated_folds(place, day, *, n_folds=5, n_repeats=10, seed=17, embargo_days=1, **options):
    """Cut labelled windows into folds several times, the borders shifted in each repeat.

    Parameters
    ----------
    place, day : ndarray (n,)
        As in `grouped_folds`, which the first repeat equals.
    n_folds, n_repeats : int
    seed : int
        Of the shifts, spread evenly over one block. With few days a block holds few
        distinct borders: repeats beyond those cut alike.
    embargo_days : int
        See `grouped_folds`, which takes the further options as well.

    Returns
    -------
    list of list of Fold
        Per repeat, a fold for each block: every window is tested once a repeat.

    Raises
    ------
    UserError
        As `grouped_folds`.
    """
    rng = np.random.default_rng(seed)
    shifts = np.r_[0.0, (np.arange(1, n_repeats) + rng.random(n_repeats - 1)) / n_repeats]
    return [grouped_folds(place, day, n_folds=n_folds, embargo_days=embargo_days, shift=s, **options) for s in shifts]


def last_days_fold(place, day, *, test_frac=0.25, **options):
    """Hold out the latest days as a single test block.

    Parameters
    ----------
    place : ndarray (n,), int64
        First bars, increasing.
    day : ndarray (n,), datetime64[D]
    test_frac : float
        Share of windows wanted in the test block; whole days are taken.
    **options
        `purge_bars`, `embargo_days`, `sessions`, `window_bars` of `grouped_folds`.

    Returns
    -------
    Fold

    Raises
    ------
    UserError
        All windows lie on one day, or none is left to train on.
    """
    place, day = np.asarray(place), np.asarray(day)
    days = np.unique(day)
    if len(days) < 2:
        raise UserError(f"all {len(place)} windows lie on {days[0]}; at least two trading days are needed")
    for count in range(1, len(days)):
        is_test = np.isin(day, days[-count:])
        if is_test.sum() >= test_frac * len(place):
            break
    return cut_fold(place, day, is_test, "the block of the last days", **options)


def reserve_last_days(day, *, day_frac=RESERVED_FRAC):
    """Set the last days aside, to be looked at once, at the very end.

    Develop on the first rows only: folds, choices and baselines never see the
    reserved ones. For the final figures, `reserved_fold` names them.

    Parameters
    ----------
    day : ndarray (n,), datetime64[D]
    day_frac : float
        Share of the labelled trading days to reserve, rounded up.

    Returns
    -------
    development, reserved : ndarray, int64
        Rows into the labelled windows.

    Raises
    ------
    UserError
        No day would be left to develop on.
    """
    day = np.asarray(day)
    days = np.unique(day)
    n_reserved = int(np.ceil(day_frac * len(days) - 1e-9))
    if n_reserved >= len(days):
        raise UserError(
            f"reserving the last {day_frac:.0%} of {len(days)} trading day{'s' * (len(days) != 1)} leaves none to "
            "develop on; label more days"
        )
    is_reserved = np.isin(day, days[len(days) - n_reserved :])
    return np.flatnonzero(~is_reserved), np.flatnonzero(is_reserved)


def reserved_fold(place, day, *, day_frac=RESERVED_FRAC, embargo_days=1, **options):
    """Return the one fold that tests on the reserved days and trains on those before them.

    Parameters
    ----------
    place, day : ndarray (n,)
        Of all labelled windows.
    day_frac : float
        As in `reserve_last_days`.
    embargo_days : int
        See `grouped_folds`; `purge_bars`, `sessions` and `window_bars` are taken as well.

    Returns
    -------
    Fold
    """
    _, reserved = reserve_last_days(day, day_frac=day_frac)
    is_test = np.isin(np.arange(len(place)), reserved)
    place, day = np.asarray(place), np.asarray(day)
    return cut_fold(place, day, is_test, "the block of reserved days", embargo_days=embargo_days, **options)


def check_classes(folds, state):
    """Refuse folds whose training windows all have one state before the expansion.

    A test block with one state is no fault: figures are pooled over the folds.

    Parameters
    ----------
    folds : list of Fold
    state : ndarray (n,), int64
        0 consolidation, 1 retracement; 2 none.

    Raises
    ------
    UserError
    """
    for k, fold in enumerate(folds, 1):
        found = np.unique(state[fold.train][state[fold.train] < len(CLASSES)])
        if len(found) == 1:
            raise UserError(
                f"fold {k} of {len(folds)} would train on {CLASSES[found[0]]} alone ({len(fold.train)} windows); "
                "use fewer folds, or label days that hold the other state"
            )


def describe_folds(folds, windows):
    """Return one row per fold: what is left to train on, what was left out and why.

    Parameters
    ----------
    folds : list of Fold
    windows : LabelledWindows

    Returns
    -------
    DataFrame
        `fold` (from 1), `training windows`, `test windows`, `purged`, `embargoed`,
        `first test day`, `last test day`, and for each state its training windows.
    """
    rows = []
    for k, fold in enumerate(folds, 1):
        days = windows.day[fold.test]
        counts = np.bincount(windows.state[fold.train], minlength=len(CLASSES))
        row = {"fold": k, "training windows": len(fold.train), "test windows": len(fold.test)}
        row |= {"purged": fold.n_purged, "embargoed": fold.n_embargoed}
        row |= {"first test day": str(days.min()), "last test day": str(days.max())}
        rows.append(row | {f"training: {name}": int(counts[c]) for c, name in enumerate(CLASSES)})
    return pd.DataFrame(rows)


def check_disjoint(train_place, test_place, train_day, test_day, window_bars=WINDOW_BARS):
    """Raise AssertionError if training and test windows share a bar or a trading day."""
    distance = np.abs(np.subtract.outer(train_place, test_place))
    if distance.size and distance.min() < window_bars:
        raise AssertionError("a training and a test window share bars")
    if len(np.intersect1d(train_day, test_day)):
        raise AssertionError("training and test windows share a trading day")


def cut_blocks(place, day, n_blocks, wanted, *, shift=0.0, window_bars=WINDOW_BARS):
    """Number contiguous blocks of about equally many windows; what belongs together stays together.

    Parameters
    ----------
    place, day : ndarray (n,)
        As in `grouped_folds`.
    n_blocks : int
    wanted : str
        What the blocks are for, in the words of the error.
    shift : float
    window_bars : int

    Returns
    -------
    ndarray (n,), int64
        Block of each window, from 0; without a shift, in time order.

    Raises
    ------
    UserError
        There are fewer groups of days than blocks.
    """
    if np.any(np.diff(place) < 0):
        raise ValueError("windows must be in time order")
    group = joined_windows(place, day, window_bars=window_bars)
    n_groups = group.max() + 1
    if n_groups < n_blocks:
        raise UserError(
            f"{len(place)} windows lie on {n_groups} separate trading days, fewer than {wanted}; "
            "label more days or use fewer folds"
        )
    # the middle of each group, as a share of all windows, decides its block
    counts = np.bincount(group)
    middle = (np.cumsum(counts) - counts / 2) / len(place)
    if len(np.unique(_blocks(middle, n_blocks, shift))) < n_blocks:  # few, uneven groups: each counts the same
        middle = (np.arange(n_groups) + 0.5) / n_groups
    return _blocks(middle, n_blocks, shift)[group]


def _blocks(middle, n_folds, shift):
    """Return the block of each group, given the middles of the groups as shares of the whole."""
    return np.floor(middle * n_folds - shift).astype(np.int64) % n_folds


def cut_fold(
    place, day, is_test, name, *, purge_bars=WINDOW_BARS, embargo_days=0, sessions=None, window_bars=WINDOW_BARS
):
    """Return the fold that tests on the given windows, and assert that it shares nothing with its training windows.

    `name` is the fold's in the error that no window is left to train on; the other
    parameters are those of `grouped_folds`.
    """
    is_near = _nearest(place, place[is_test]) < window_bars + purge_bars
    rank = np.searchsorted(np.unique(day if sessions is None else np.r_[sessions, day]), day)
    is_next = _nearest(rank, rank[is_test]) <= embargo_days
    test, train = np.flatnonzero(is_test), np.flatnonzero(~is_test & ~is_near & ~is_next)
    check_disjoint(place[train], place[test], day[train], day[test], window_bars)
    if len(train) == 0:
        raise UserError(
            f"{name} leaves no window to train on: all others are within {purge_bars} bars or {embargo_days} trading "
            "day(s) of it; label more days or use fewer folds"
        )
    return Fold(train, test, int((is_near & ~is_test).sum()), int((is_next & ~is_near & ~is_test).sum()))


def _nearest(values, others):
    """Return each value's distance to the nearest of `others` (not empty)."""
    others = np.unique(others)
    at = np.searchsorted(others, values)
    return np.minimum(
        np.abs(values - others[np.maximum(at - 1, 0)]), np.abs(values - others[np.minimum(at, len(others) - 1)])
    )


def subset_folds(fold, sizes, *, n_draws=1, seed=17):
    """Thin out a fold's training windows, to see what a number of labels is worth.

    Parameters
    ----------
    fold : Fold
    sizes : sequence of int
        Training windows wanted; sizes that the fold does not have are left out.
    n_draws : int
        Random draws of each size. Smaller draws are parts of larger ones.
    seed : int

    Returns
    -------
    list of (int, Fold)
        The size, and the fold with that many training windows, in time order.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(fold.train) for _ in range(n_draws)]
    return [
        (size, replace(fold, train=np.sort(order[:size])))
        for size in sizes
        if size <= len(fold.train)
        for order in orders
    ]
