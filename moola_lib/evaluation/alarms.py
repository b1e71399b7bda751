"""False alarms on ordinary tape: what a method that finds expansions says where nobody marked one."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.learning.calibrate import find_evidence

RECALLS = tuple(np.round(np.arange(0.1, 1.01, 0.1), 1).tolist())


@dataclass(frozen=True)
class FalseAlarms:
    """Alarms on ordinary sessions at the threshold that a recall asks for.

    Attributes
    ----------
    threshold : float
        Alarm where the score is at least this.
    recall : float
        Share of labelled windows that alarm.
    per_session : float
        Alarms in an ordinary session, mean.
    low, high : float
        95% interval of it, whole sessions resampled.
    n_labelled, n_sessions : int
    """

    threshold: float
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

    Parameters
    ----------
    labelled : ndarray (n,)
        Scores of windows with an expansion, each from a fit that did not train on
        it; higher is more of an alarm. For example log-odds of the null cell.
    ordinary : ndarray (m,)
        Scores of windows of unlabelled sessions, chosen without a look at them.
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
    labelled, ordinary, session = np.asarray(labelled), np.asarray(ordinary), np.asarray(session)
    for scores, name in ((labelled, "labelled"), (ordinary, "ordinary")):
        if len(scores) == 0 or np.isnan(scores).any():
            raise UserError(
                f"{int(np.isnan(scores).sum())} of {len(scores)} alarm scores of {name} windows are NaN; "
                "give at least one, and none that is NaN"
            )
    # the highest threshold that still reaches the recall
    n_wanted = max(int(np.ceil(recall * len(labelled) - 1e-9)), 1)
    threshold = np.sort(labelled)[len(labelled) - n_wanted]
    is_alarm = ordinary >= threshold
    if place is not None:
        is_alarm = _first_of_each(is_alarm, np.asarray(place), window_bars)
    sessions, which = np.unique(session, return_inverse=True)
    counts = np.bincount(which, weights=is_alarm, minlength=len(sessions))
    weights = day_block_weights(sessions, n_bootstrap=n_bootstrap, seed=seed)
    low, high = interval(weights @ counts / len(sessions))
    reached = float((labelled >= threshold).mean())
    return FalseAlarms(float(threshold), reached, float(counts.mean()), low, high, len(labelled), len(sessions))


def alarm_curve(labelled, ordinary, session, place=None, *, recalls=RECALLS, **options):
    """Return false alarms per session by recall.

    Parameters
    ----------
    labelled, ordinary, session, place : ndarray
        As in `false_alarms`, which takes the further options.
    recalls : sequence of float

    Returns
    -------
    DataFrame
        The attributes of FalseAlarms, one row per recall asked for.
    """
    found = [false_alarms(labelled, ordinary, session, place, recall=recall, **options) for recall in recalls]
    return pd.DataFrame([vars(each) for each in found])


def alarms_of_model(model, gather, labelled, places, session, *, has_expansion=None, recalls=RECALLS, **options):
    """Return false alarms per session of a segment posterior, by recall.

    A window's score is the evidence of all its spans: on ordinary tape few bars
    look like a start, an end or the inside of an expansion. Windows that step by
    the range of starts ask about every bar once.

    Parameters
    ----------
    model : Module with `segment_head`
    gather : WindowGatherer
    labelled : ndarray (n,), int64
        Places of windows with an expansion that the model was not trained on.
    places, session : ndarray (m,)
        Windows of unlabelled sessions, all that fit at a step, and their session.
    has_expansion : ndarray (m,), bool, optional
        Whether a bar of an expansion lies in the window: known on simulated markets alone.
    recalls : sequence of float
    **options
        Of `false_alarms`.

    Returns
    -------
    DataFrame
        As `alarm_curve`. Nobody looked at these sessions, so their expansions count
        as false alarms too. Where the truth is known, `true_per_session`,
        `true_low` and `true_high` count alarms on windows without any.
    """
    known, ordinary = (find_evidence(model, gather, each).cpu().numpy() for each in (labelled, places))
    table = alarm_curve(known, ordinary, session, places, recalls=recalls, **options)
    if has_expansion is None:
        return table
    silent = np.where(has_expansion, -np.inf, ordinary)
    true = alarm_curve(known, silent, session, places, recalls=recalls, **options)
    return table.assign(**{f"true_{name}": true[name] for name in ("per_session", "low", "high")})


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
