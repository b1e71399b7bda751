"""Labels worth a second look: those that a model which never saw them finds least likely.

A wrong label costs more than a wrong model, and a good model errs rarely; so
the labels that out-of-fold answers disagree with most are the ones to look at
first. They are a queue for the label studio, no verdict: some are the hard
windows that labels are made for.
"""

import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.evaluation.metrics import TOLERANCE_BARS, Prediction
from moola_lib.evaluation.posteriors import box_mass
from moola_lib.labels.table import LABELS

ANSWERS = tuple(field.name for field in fields(Prediction))
LEAST_PROBABILITY = 1e-6  # a model that is surer than this is not believed


def rank_suspicious(windows, prediction, *, tolerance_bars=TOLERANCE_BARS):
    """Rank labels by how unlikely out-of-fold answers find them, the most suspicious first.

    Parameters
    ----------
    windows : LabelledWindows (n)
        With several expansions in a window the likeliest of them counts.
    prediction : metrics.Prediction
        Answers for the same windows by models that were not trained on them.
        Needed is any of `start_probability` and `type_probability`, or `start`.
    tolerance_bars : int

    Returns
    -------
    DataFrame
        `window_id`, `why` (in words), `score`, and what it is made of:
        `start_nats`, -log of the probability of a start within the tolerance of
        the labelled one; `state_nats`, -log of that of the labelled state;
        `start_bars`, the distance of the answered start. The score is the sum
        of the nats that are known; where no start's probability is, bars are
        made nats by a Laplace error of the tolerance's mean size. Windows
        without an expansion are left out unless the states include none.

    Raises
    ------
    UserError
        Nothing that could disagree is given, or for another number of windows.

    Notes
    -----
    Self-confidence of Northcutt, Jiang & Chuang 2021, arXiv:1911.00068.
    """
    start_nats, start_bars = _start_evidence(windows, prediction, tolerance_bars)
    state_nats = _state_evidence(windows, prediction)
    parts = [part for part in (start_nats, state_nats) if part is not None]
    if start_nats is None and start_bars is not None:
        parts.append(start_bars / tolerance_bars)
    if not parts:
        raise UserError("the answers hold neither starts nor states; nothing can disagree with the labels")
    nothing = np.full(len(windows), np.nan)
    frame = pd.DataFrame(
        {
            "window_id": windows.window_id.astype(str),
            "score": np.nansum(parts, axis=0),
            "start_nats": nothing if start_nats is None else start_nats,
            "state_nats": nothing if state_nats is None else state_nats,
            "start_bars": nothing if start_bars is None else start_bars,
        }
    )
    frame.insert(1, "why", _say_why(windows, prediction, frame))
    is_judged = np.isfinite(parts).any(axis=0)
    return frame[is_judged].sort_values("score", ascending=False, kind="stable", ignore_index=True)


def read_predictions(path, windows):
    """Read the out-of-fold answers that notebook 04 keeps, for those of the windows that they know.

    Parameters
    ----------
    path : str or Path
        `predictions.npz`: `window_id` and any of the fields of a `Prediction`.
    windows : LabelledWindows

    Returns
    -------
    windows : LabelledWindows
        Those that were answered.
    prediction : metrics.Prediction

    Raises
    ------
    UserError
        The file cannot be read, or answers none of the windows.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        ids = arrays["window_id"].astype(str)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no answers of notebook 04 ({error}); give a run's predictions.npz") from error
    row_of = {window_id: row for row, window_id in enumerate(ids)}
    is_answered = np.isin(windows.window_id.astype(str), ids)
    if not is_answered.any():
        raise UserError(f"{path} answers none of the {len(windows)} labelled windows; give a run on these labels")
    known = windows.take(is_answered)
    rows = [row_of[window_id] for window_id in known.window_id.astype(str)]
    answered = {name: arrays[name][rows] for name in ANSWERS if name in arrays and arrays[name].ndim}
    return known, Prediction(**answered)


def _start_evidence(windows, prediction, tolerance_bars):
    """Return (nats, bars) of the labelled start that the answers like best; None where they say nothing."""
    real = windows.spans[..., 0] >= 0
    starts, has = np.maximum(windows.spans[..., 0], 0), windows.has_expansion
    nats = bars = None
    if prediction.start_probability is not None:
        _same_length(windows, prediction.start_probability, "start_probability")
        near = np.take_along_axis(box_mass(prediction.start_probability, tolerance_bars), starts, axis=1)
        best = np.where(real, near, 0.0).max(axis=1)
        nats = np.where(has, -np.log(np.clip(best, LEAST_PROBABILITY, 1)), np.nan)
    if prediction.start is not None:
        _same_length(windows, prediction.start, "start")
        apart = np.abs(np.asarray(prediction.start, np.float64)[:, None] - starts)
        bars = np.where(has, np.where(real, apart, np.inf).min(axis=1), np.nan)
    return nats, bars


def _state_evidence(windows, prediction):
    """Return -log of the probability of each labelled state, NaN where the model knows no such state; or None."""
    probability = prediction.type_probability
    if probability is None:
        return None
    _same_length(windows, probability, "type_probability")
    is_known = windows.state < probability.shape[1]
    own = np.take_along_axis(probability, np.where(is_known, windows.state, 0)[:, None], axis=1)[:, 0]
    return np.where(is_known, -np.log(np.clip(own, LEAST_PROBABILITY, 1)), np.nan)


def _say_why(windows, prediction, frame):
    """Return what disagrees, in words, for each window."""
    reasons = []
    for row, found in enumerate(frame.itertuples(index=False)):
        words = []
        if np.isfinite(found.start_bars):
            starts = windows.spans[row, windows.spans[row, :, 0] >= 0, 0]
            nearest = starts[np.abs(starts - prediction.start[row]).argmin()]
            words.append(f"labelled start {nearest}, answered {prediction.start[row]:.0f}")
        if np.isfinite(found.start_nats):
            words.append(f"{np.exp(-found.start_nats):.0%} for a start near the label")
        if np.isfinite(found.state_nats):
            state, guess = LABELS[windows.state[row]], int(np.argmax(prediction.type_probability[row]))
            says = "agrees" if LABELS[guess] == state else f"says {LABELS[guess]}"
            words.append(f"{np.exp(-found.state_nats):.0%} for {state}, the model {says}")
        reasons.append("; ".join(words))
    return reasons


def _same_length(windows, values, name):
    """Refuse answers for other windows."""
    if len(values) != len(windows):
        raise UserError(f"{name} is given for {len(values)} windows, there are {len(windows)}")
