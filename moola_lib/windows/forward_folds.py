"""Folds that only look back: train on the past, test on what comes next, and roll on."""

import numpy as np

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.windows.folds import cut_blocks, cut_fold
from moola_lib.windows.groups import joined_windows

BY = ("windows", "month")


def forward_folds(
    place,
    day,
    *,
    n_folds=3,
    by="windows",
    purge_bars=WINDOW_BARS,
    embargo_days=1,
    sessions=None,
    window_bars=WINDOW_BARS,
):
    """Cut labelled windows into blocks in time, and test on each but the first, trained on all before it.

    Windows of one day, and windows that share bars, stay in one block. Training
    windows are left out as in `grouped_folds`, and no later ones ever enter.

    Parameters
    ----------
    place : ndarray (n,), int64
        First bars, increasing.
    day : ndarray (n,), datetime64[D]
        Trade dates, which must not decrease: made-up ones have no order in time.
    n_folds : int
        The blocks are one more, with about equally many windows each. Of months it
        is not asked.
    by : {"windows", "month"}
        Or a block for each calendar month that has windows.
    purge_bars, embargo_days, sessions, window_bars
        As in `grouped_folds`.

    Returns
    -------
    list of Fold
        In time order; their training windows grow.

    Raises
    ------
    UserError
        There are too few days or months, days are out of order, or a fold has no
        training window left.

    Notes
    -----
    Tashman 2000, International Journal of Forecasting 16: evaluation on a rolling origin.
    """
    place, day = np.asarray(place), np.asarray(day)
    if by not in BY:
        raise UserError(f"by = {by!r} is not known; choose one of {', '.join(BY)}")
    if n_folds < 1:
        raise UserError(f"n_folds = {n_folds} is not allowed; give at least 1")
    if np.any(np.diff(day.astype("datetime64[D]")) < np.timedelta64(0, "D")):
        raise UserError("the windows' days are not in time order, and only time tells past from future; give stamps")
    if by == "month":
        block = _months(place, day, window_bars)
    else:
        wanted = f"the {n_folds + 1} blocks of {n_folds} forward folds"
        block = cut_blocks(place, day, n_folds + 1, wanted, window_bars=window_bars)
    options = {"purge_bars": purge_bars, "embargo_days": embargo_days, "sessions": sessions, "window_bars": window_bars}
    folds = []
    for k in range(1, block[-1] + 1):
        until = np.searchsorted(block, k, side="right")  # no window after the test block takes part
        name = f"forward fold {k} of {block[-1]}"
        folds.append(cut_fold(place[:until], day[:until], block[:until] == k, name, **options))
    return folds


def _months(place, day, window_bars):
    """Return the block of each window by calendar month, (n,) int64: that of the first window it belongs with."""
    group = joined_windows(place, day, window_bars=window_bars)
    first = np.searchsorted(group, np.arange(group[-1] + 1))
    _, month = np.unique(day[first].astype("datetime64[M]"), return_inverse=True)
    if month[-1] == 0:
        raise UserError(
            f"all {len(place)} windows lie in {day[0].astype('datetime64[M]')}; forward folds by month need labels of "
            "two months"
        )
    return month[group]
