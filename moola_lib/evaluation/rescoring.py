"""A fitted model's answers to labelled windows: scored on days it has not seen, and again when the labels change."""

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.evaluation.cross_validation import FoldResult, assemble, cross_fit_baselines
from moola_lib.evaluation.inputs import collect_inputs
from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.evaluation.metrics import METRICS, metric_functions, take_answers
from moola_lib.evaluation.scores import score_prediction
from moola_lib.evaluation.walk_forward import FEWEST_DAYS, FIGURES, with_verdicts
from moola_lib.learning.outputs import predict_windows
from moola_lib.windows.folds import Fold, grouped_folds
from moola_lib.windows.places import LabelledWindows

N_FOLDS = 5
SIMPLEST = ("constant", "ATR rule")


def answer_windows(model, gather, places, *, inside_threshold=0.5, decoder="segment"):
    """Return a fitted model's decoded answers to windows, each seen whole.

    Parameters
    ----------
    model : Module
    gather : WindowGatherer
    places : ndarray (n,), int64
    inside_threshold : float
        As its card says; a bar is called inside from there on.
    decoder : str
        See `decoding.decode_spans`.

    Returns
    -------
    (Prediction, ndarray (n, K) bool)
        The answers, and which bars are valid.
    """
    outputs = predict_windows(model, gather, places)
    alone = FoldResult([], outputs, inside_threshold, None, {})
    everything = Fold(np.zeros(0, np.int64), np.arange(len(places)), 0)
    return assemble([alone], [everything], len(places), decoder=decoder)[0], outputs["is_valid"]


def score_new_windows(windows, answer, trained, gather, frame, *, is_valid=None, figures=FIGURES, **options):
    """Score answers to windows that a model was not trained on, beside baselines.

    Parameters
    ----------
    windows : LabelledWindows
        In time order.
    answer : Prediction
    trained : LabelledWindows or None
        What the baselines are fitted on: the windows that the model was trained
        on. None: cross-fitted on `windows` themselves, over folds of days.
    gather : WindowGatherer
    frame : DataFrame
        The bars, whose positions both windows' places are.
    is_valid : ndarray (n, K), bool, optional
    figures : sequence of str
        Keys of METRICS.
    **options
        `n_bootstrap`, `seed` of `score_prediction`.

    Returns
    -------
    DataFrame
        See `walk_forward.with_verdicts`; the constant and the ATR rule have columns
        of their own. Without a baseline where `trained` is None and the windows lie
        on too few days to fold.
    """
    baselines = _fit_baselines(windows, trained, gather, frame)
    scores = score_prediction(windows, {"": answer, **baselines}, is_valid=is_valid, **options)
    return with_verdicts(scores, len(np.unique(windows.day)), figures, beside=SIMPLEST)


def shared_rows(before, now):
    """Return the rows, in each of two sets of windows, of those with the same id at the same bars.

    Parameters
    ----------
    before, now : LabelledWindows

    Returns
    -------
    (ndarray, ndarray), int64
    """
    keys = [pd.MultiIndex.from_arrays([each.window_id, each.place]) for each in (before, now)]
    rows = keys[0].get_indexer(keys[1])
    kept = np.flatnonzero(rows >= 0)
    return rows[kept], kept


def rescore(before, now, answer, *, is_valid=None, figures=FIGURES, n_bootstrap=1000, seed=17):
    """Score the same answers against labels as they were and as they are now.

    Parameters
    ----------
    before, now : LabelledWindows (n,)
        The same windows, labelled twice.
    answer : Prediction
    is_valid : ndarray (n, K), bool, optional
    figures : sequence of str
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        `metric`, `meaning`, `as_were` and `as_now` with `_low` and `_high` (95%,
        whole days resampled), and the paired `difference` (positive: the answers
        agree better with the labels as they are now) with `_low` and `_high`. A
        single day has no intervals.

    Raises
    ------
    ValueError
        The windows are not the same.
    """
    if not np.array_equal(before.place, now.place):
        raise ValueError("the labels are of other windows; take the rows of shared_rows")
    weights, ones = day_block_weights(now.day, n_bootstrap=n_bootstrap, seed=seed), np.ones((1, len(now)))
    has_interval = len(np.unique(now.day)) >= FEWEST_DAYS
    found = [metric_functions(each, answer, is_valid=is_valid) for each in (before, now)]
    rows = []
    for metric in [name for name in figures if name in found[0] and name in found[1]]:
        row = {"metric": metric, "meaning": METRICS[metric].meaning}
        sign = 1 if METRICS[metric].is_higher_better else -1
        values = {
            name: (own[metric](ones), own[metric](weights))
            for name, own in zip(("as_were", "as_now"), found, strict=True)
        }
        values["difference"] = tuple(
            sign * (now - were) for were, now in zip(values["as_were"], values["as_now"], strict=True)
        )
        for name, (value, resampled) in values.items():
            row[name] = float(value[0])
            row[f"{name}_low"], row[f"{name}_high"] = interval(resampled) if has_interval else (np.nan, np.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def _fit_baselines(windows, trained, gather, frame):
    """Return every baseline's answers to windows; none where there is nothing to fit them on."""
    if trained is not None:
        every = _stack(trained, windows)
        is_new = np.isin(every.place, windows.place)
        folds = [Fold(np.flatnonzero(~is_new), np.flatnonzero(is_new), 0)]
    else:
        every, is_new = windows, np.ones(len(windows), bool)
        try:
            folds = grouped_folds(windows.place, windows.day, n_folds=min(N_FOLDS, max(len(np.unique(windows.day)), 2)))
        except UserError:
            return {}
    return take_answers(cross_fit_baselines(every, folds, collect_inputs(every, gather, frame)), np.flatnonzero(is_new))


def _stack(one, other):
    """Return two sets of windows as one, in time order."""
    width = max(one.spans.shape[1], other.spans.shape[1])
    columns = {}
    for name in LabelledWindows.__dataclass_fields__:
        parts = [getattr(each, name) for each in (one, other)]
        if name == "spans":
            parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=-1) for part in parts]
        columns[name] = np.concatenate(parts)
    return LabelledWindows(**columns).take(np.argsort(columns["place"], kind="stable"))
