"""Choose how confident a detection must be by how many false alarms a session may bring, on sessions not trained on."""

from pathlib import Path

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.evaluation.intervals import day_block_weights
from moola_lib.files import read_json, write_json
from moola_lib.learning import MODES
from moola_lib.learning.causal_scan import causal_candidates, raise_alarms
from moola_lib.learning.scan import scan
from moola_lib.market.segments import trade_dates

THRESHOLDS = tuple((1 / (1 + np.exp(-np.linspace(-5, 10, 61)))).tolist())  # even in log-odds: confidences crowd near 1


def calibrate_alarms(
    model,
    table,
    index,
    training_days,
    *,
    alarms_per_session=2.0,
    is_causal=False,
    stride=5,
    n_bootstrap=1000,
    seed=17,
    on_progress=None,
):
    """Find the threshold at which a model raises so many alarms in an ordinary session.

    Nobody looked at these sessions: every alarm counts as false, though some are
    expansions, so that the threshold is rather too high than too low.

    Parameters
    ----------
    model : Module with `segment_head`
    table : FeatureTable
    index : DatetimeIndex, UTC
        Stamps of its bars.
    training_days : array_like of datetime64[D]
        Trade dates of labels that the model was trained or calibrated on; their
        sessions are left out. Empty where none is of these bars.
    alarms_per_session : float
    is_causal : bool
        For `scan_causally`; its confidences are on another scale.
    stride, on_progress
        As for `scan`.
    n_bootstrap, seed : int
        Of the intervals; whole sessions are resampled.

    Returns
    -------
    dict
        What `store_alarms` puts into a card: the entries of `choose_threshold`,
        `sessions` (how many), `first_session`, `last_session`, `stride`, and
        `rates`, the rows of `alarm_rates`.

    Raises
    ------
    UserError
        No session is left, or the alarms cannot be that few.
    """
    day = trade_dates(index)
    sessions = np.setdiff1d(day, np.asarray(training_days, "datetime64[D]"))
    if len(sessions) == 0:
        raise UserError(
            f"the model was trained on all {len(np.unique(day))} sessions of these bars; give others to set its "
            "threshold on"
        )
    told = {"stride": stride, "on_progress": on_progress}
    if is_causal:
        candidates = causal_candidates(model, table, least_confidence=THRESHOLDS[0], **told)
    else:
        found = scan(model, table, threshold=THRESHOLDS[0], **told).detections

    def alarm_days(threshold):
        kept = raise_alarms(candidates, threshold) if is_causal else found[found["confidence"] >= threshold]
        return day[kept["start"].to_numpy(np.int64)]

    rates = alarm_rates(alarm_days, sessions, n_bootstrap=n_bootstrap, seed=seed)
    return {
        **choose_threshold(rates, alarms_per_session),
        "sessions": len(sessions),
        "first_session": str(sessions[0]),
        "last_session": str(sessions[-1]),
        "stride": stride,
        "rates": rates.to_dict("records"),
    }


def alarm_rates(alarm_days, sessions, *, thresholds=THRESHOLDS, n_bootstrap=1000, seed=17):
    """Count alarms per session by threshold.

    Parameters
    ----------
    alarm_days : callable(float) -> ndarray, datetime64[D]
        The session of every alarm at a threshold; those of other sessions are left out.
    sessions : ndarray (n,), datetime64[D]
        Increasing; those without an alarm count as well.
    thresholds : sequence of float
        Increasing.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        `threshold`, `alarms_per_session` (mean), `low` and `high` (95%, whole sessions resampled).
    """
    counts = np.empty((len(thresholds), len(sessions)))
    for row, threshold in enumerate(thresholds):
        days = alarm_days(threshold)
        days = days[np.isin(days, sessions)]
        counts[row] = np.bincount(np.searchsorted(sessions, days), minlength=len(sessions))
    resampled = day_block_weights(sessions, n_bootstrap=n_bootstrap, seed=seed) @ counts.T / len(sessions)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return pd.DataFrame({"threshold": thresholds, "alarms_per_session": counts.mean(axis=1), "low": low, "high": high})


def choose_threshold(rates, alarms_per_session):
    """Return the lowest threshold from which on no more alarms are raised.

    Parameters
    ----------
    rates : DataFrame or list of dict
        Of `alarm_rates`.
    alarms_per_session : float

    Returns
    -------
    dict
        `alarms_per_session` (asked for), `threshold`, `threshold_low` and
        `threshold_high` (95%: where the rate's own interval crosses it; None
        where it does not), and the `expected` rate with `expected_low` and `expected_high`.

    Raises
    ------
    UserError
        The number is not positive, or even the highest threshold brings more.
    """
    rates = pd.DataFrame(rates)
    if not 0 < alarms_per_session < np.inf:
        raise UserError(f"alarms_per_session = {alarms_per_session} is not allowed; give a number above 0")

    def crossing(column):
        """Return the first row from which on the column stays within the number, or None."""
        is_within = np.maximum.accumulate(rates[column].to_numpy()[::-1])[::-1] <= alarms_per_session
        return int(is_within.argmax()) if is_within.any() else None

    row = crossing("alarms_per_session")
    if row is None:
        last = rates.iloc[-1]
        raise UserError(
            f"at the highest threshold ({last['threshold']:.5f}) there are still {last['alarms_per_session']:.2f} "
            f"alarms a session, more than {alarms_per_session:g}; allow more"
        )
    edges = {name: crossing(column) for name, column in (("threshold_low", "low"), ("threshold_high", "high"))}
    return {
        "alarms_per_session": float(alarms_per_session),
        "threshold": float(rates["threshold"].iloc[row]),
        **{name: None if at is None else float(rates["threshold"].iloc[at]) for name, at in edges.items()},
        "expected": float(rates["alarms_per_session"].iloc[row]),
        "expected_low": float(rates["low"].iloc[row]),
        "expected_high": float(rates["high"].iloc[row]),
    }


def store_alarms(path, alarms, *, is_causal=False):
    """Put what `calibrate_alarms` found into the notes of a model's card.

    Parameters
    ----------
    path : str or Path
        Of the weights; the card lies beside them.
    alarms : dict
    is_causal : bool
        Each mode has a threshold of its own.
    """
    beside = Path(path).with_suffix(".json")
    card = read_json(beside)
    known = card["notes"].get("alarms", {})
    card["notes"] = {**card["notes"], "alarms": {**known, MODES[is_causal]: alarms}}
    write_json(beside, card)
