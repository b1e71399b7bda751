"""False alarms on ordinary tape: what a method that finds expansions says where nobody marked one."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.labels.targets import WINDOW_BARS

RECALLS = tuple(np.round(np.arange(0.1, 1.01, 0.1), 1).tolist())


@dataclass(frozen=True)
class FalseAlarms:
    """Alarms on ordinary sessions at the thresholds that a recall asks for.

    Attributes
    ----------
    recall : float
        Share of labelled windows that alarm.
    per_session : float
        Alarms in an ordinary session, mean.
    low, high : float
        95% interval of it, whole sessions resampled.
    n_labelled, n_sessions : int
    """

    recall: float
    per_session: float
    low: float
    high: float
    n_labelled: int
    n_sessions: int


def false_alarms(
    labelled, ordinary, session, place=None, *, recall=0.8, window_bars=WINDOW_BARS, n_bootstrap=1000, seed=17
):
    """Count alarms on ordinary sessions at the threshold at which enough labelled windows alarm.

    Each model has a threshold of its own, on the windows that it did not train
    on: evidence of two models is not on one scale. Sessions count the mean over
    models.

    Parameters
    ----------
    labelled : list of ndarray (n_k,)
        By model: scores of windows with an expansion that it was not trained on;
        higher is more of an alarm.
    ordinary : list of ndarray (m,)
        By model: scores of the same windows of unlabelled sessions, chosen without a look at them.
    session : ndarray (m,)
        Which session each ordinary window is of. A session counts by its windows.
    place : ndarray (m,), int64, optional
        First bars of the ordinary windows. Where given, an alarm at a window that
        shares bars with the last one that counted is the same alarm; else the
        windows are taken as separate.
    recall : float
        Least share of labelled windows that must alarm.
    window_bars, n_bootstrap, seed : int

    Returns
    -------
    FalseAlarms

    Raises
    ------
    UserError
        There are no scores on one side, or some are NaN.
    """
    session = np.asarray(session)
    for scores, name in ((labelled, "labelled"), (ordinary, "ordinary")):
        for own in map(np.asarray, scores):
            if len(own) == 0 or np.isnan(own).any():
                raise UserError(
                    f"{int(np.isnan(own).sum())} of {len(own)} alarm scores of {name} windows are NaN; "
                    "give at least one, and none that is NaN"
                )
    sessions, which = np.unique(session, return_inverse=True)
    counts, n_reached = np.zeros(len(sessions)), 0
    for known, heard in zip(map(np.asarray, labelled), map(np.asarray, ordinary), strict=True):
        # the highest threshold that still reaches the recall
        n_wanted = max(int(np.ceil(recall * len(known) - 1e-9)), 1)
        threshold = np.sort(known)[len(known) - n_wanted]
        is_alarm = heard >= threshold
        if place is not None:
            is_alarm = _first_of_each(is_alarm, np.asarray(place), window_bars)
        counts += np.bincount(which, weights=is_alarm, minlength=len(sessions)) / len(labelled)
        n_reached += int((known >= threshold).sum())
    n_labelled = sum(map(len, labelled))
    weights = day_block_weights(sessions, n_bootstrap=n_bootstrap, seed=seed)
    low, high = interval(weights @ counts / len(sessions))
    return FalseAlarms(n_reached / n_labelled, float(counts.mean()), low, high, n_labelled, len(sessions))


def alarm_curve(labelled, ordinary, session, place=None, *, has_expansion=None, recalls=RECALLS, **options):
    """Return false alarms per session by recall.

    Parameters
    ----------
    labelled, ordinary, session, place
        As in `false_alarms`, which takes the further options.
    has_expansion : ndarray (m,), bool, optional
        Whether a bar of an expansion lies in the ordinary window: known on
        simulated markets alone.
    recalls : sequence of float

    Returns
    -------
    DataFrame
        The attributes of FalseAlarms, one row per recall asked for. Nobody looked
        at these sessions, so their expansions count as false alarms too; where
        the truth is known, alarms on windows that hold one do not.
    """
    if has_expansion is not None:
        ordinary = [np.where(has_expansion, -np.inf, own) for own in ordinary]
    found = [false_alarms(labelled, ordinary, session, place, recall=recall, **options) for recall in recalls]
    return pd.DataFrame([vars(each) for each in found])


def holds_bars(places, first, last, *, window_bars=WINDOW_BARS):
    """Tell which windows share a bar with a span of bars, (n,) bool.

    Parameters
    ----------
    places : ndarray (n,), int64
    first, last : ndarray (m,), int64
        Positions of the spans' bars in the series, inclusive; each increasing, as
        spans that do not overlap have them.
    window_bars : int
    """
    # spans that end before the window, against those that start before its end
    return np.searchsorted(last, places) < np.searchsorted(first, places + window_bars)


def _first_of_each(is_alarm, place, window_bars):
    """Keep an alarm only where its window shares no bar with that of the last one kept."""
    kept = np.zeros(len(is_alarm), bool)
    last = -np.inf
    for row in np.argsort(place, kind="stable"):
        if is_alarm[row] and place[row] >= last + window_bars:
            kept[row], last = True, place[row]
    return kept
