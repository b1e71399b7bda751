"""How well predicted expansions agree with labelled ones; every figure a function of window weights.

Written as functions of weights, a figure and its bootstrap are the same code:
ones give the figure, day-block counts give its resamples.
"""

from dataclasses import dataclass

import numpy as np

from moola_lib.evaluation.decoding import TOLERANCE_BARS
from moola_lib.evaluation.decoding import decode_spans as decode_spans  # read beside the figures
from moola_lib.evaluation.posteriors import central_interval, claimed_mass
from moola_lib.labels.table import CLASSES
from moola_lib.labels.targets import COUNTDOWN_CLIP_BARS, WINDOW_BARS

MOST_BARS = 10  # of the hit curve


@dataclass(frozen=True)
class Metric:
    """What a figure means: its unit, direction (None: neither is better), and a line for the reader."""

    unit: str
    is_higher_better: bool | None
    meaning: str


METRICS = {
    "hit3_start": Metric("share", True, "start within 3 bars"),
    "hit3_end": Metric("share", True, "end within 3 bars"),
    "joint3": Metric("share", True, "both edges within 3 bars"),
    "joint3_type": Metric("share", True, "both edges within 3 bars and the state right"),
    "hit_mean": Metric("share", True, "start within k bars, mean of k = 0…10"),
    "tiou50": Metric("share", True, "overlap of at least half of the union"),
    "tiou75": Metric("share", True, "overlap of at least three quarters of the union"),
    "centre_mae": Metric("bars", False, "distance of centres"),
    "length_mae": Metric("bars", False, "difference of lengths"),
    "onset_bias": Metric("bars", None, "start too late (+) or too early (−), mean"),
    "start_brier": Metric("squared", False, "Brier score of the hit claimed for the start"),
    "start_log_score": Metric("nats", False, "log score of the hit claimed for the start"),
    "start_brier_skill": Metric("share", True, "Brier skill of the hit claimed over claiming its rate"),
    "start_coverage": Metric("share", None, "starts inside their 80% interval"),
    "start_width": Metric("bars", None, "width of the start's 80% interval"),
    "countdown_mae": Metric("bars", False, "countdown error, clipped to 20 bars"),
    "inside_f1": Metric("share", True, "F1 of bars inside, pooled"),
    "inside_precision": Metric("share", True, "precision of bars inside, pooled"),
    "inside_recall": Metric("share", True, "recall of bars inside, pooled"),
    "inside_ap": Metric("share", True, "average precision of bars inside, pooled"),
    "type_macro_f1": Metric("share", True, "macro F1 of the state before"),
    "type_balanced_accuracy": Metric("share", True, "balanced accuracy of the state before"),
    "type_min_recall": Metric("share", True, "recall of the worse-recalled state"),
    "type_min_share": Metric("share", True, "share of predictions of the rarer-predicted state"),
    "type_recall_consolidation": Metric("share", True, "recall of consolidation"),
    "type_recall_retracement": Metric("share", True, "recall of retracement"),
    "type_share_consolidation": Metric("share", None, "share predicted as consolidation"),
    "type_share_retracement": Metric("share", None, "share predicted as retracement"),
    "type_brier": Metric("squared", False, "Brier score of the state's probability"),
    "type_log_score": Metric("nats", False, "log score of the state's probability"),
}


@dataclass(frozen=True)
class Prediction:
    """One method's answers for n windows; what it does not define is None.

    Attributes
    ----------
    start, end : ndarray (n,), float64, optional
        Decoded span in bars.
    start_probability : ndarray (n, K), float64, optional
        Of a start at each bar, given that there is one; see `posteriors.start_marginal`.
    countdown : ndarray (n, K), float64, optional
        Bars until the start.
    inside_probability : ndarray (n, K), float64, optional
    is_inside : ndarray (n, K), bool, optional
        Decision about each bar.
    type_probability : ndarray (n, n_classes), float64, optional
    """

    start: np.ndarray | None = None
    end: np.ndarray | None = None
    countdown: np.ndarray | None = None
    inside_probability: np.ndarray | None = None
    is_inside: np.ndarray | None = None
    type_probability: np.ndarray | None = None
    start_probability: np.ndarray | None = None

    def take(self, rows):
        """Return the answers for the windows at `rows` (indices or bool mask)."""
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Prediction(**{name: None if value is None else value[rows] for name, value in columns.items()})


def take_answers(answers, rows):
    """Return every method's answers for the windows at `rows`; a list of draws stays a list.

    Parameters
    ----------
    answers : dict of str to Prediction or list of Prediction
    rows : ndarray of indices or bool mask
    """
    return {
        name: [one.take(rows) for one in answer] if isinstance(answer, list) else answer.take(rows)
        for name, answer in answers.items()
    }


def metric_functions(windows, prediction, *, is_valid=None):
    """Return every figure the prediction defines, as a function of window weights.

    A list of predictions stands for one that was drawn several times: its
    figures are the means over the draws.

    Parameters
    ----------
    windows : LabelledWindows
        The truth. A hit on any expansion of a window counts; the notes' other
        figures use the first. Windows without one are left out, but for the bars
        inside: there they can only hold false alarms.
    prediction : Prediction or list of Prediction
    is_valid : ndarray (n, K), bool, optional
        Bars that count in per-bar figures; default all.

    Returns
    -------
    dict of str to callable
        Each takes weights (n_resamples, n) and returns (n_resamples,) float64.
    """
    if isinstance(prediction, list):
        drawn = [metric_functions(windows, one, is_valid=is_valid) for one in prediction]
        return {name: _mean_of_draws([figures[name] for figures in drawn]) for name in drawn[0]}
    has = windows.has_expansion
    bars = np.arange(WINDOW_BARS)
    is_valid = np.ones((len(windows), WINDOW_BARS), bool) if is_valid is None else is_valid
    found = {}
    kind = None
    if prediction.type_probability is not None:
        kind = prediction.type_probability.argmax(axis=1)
    if prediction.start is not None:
        is_right = None if kind is None else kind == windows.state
        found |= _span_figures(windows, prediction.start.astype(float), prediction.end.astype(float), is_right)
    if prediction.start_probability is not None:
        found |= _claim_figures(windows, prediction)
    if prediction.countdown is not None:
        truth = np.clip(windows.start[:, None] - bars, -COUNTDOWN_CLIP_BARS, COUNTDOWN_CLIP_BARS)
        answer = np.clip(prediction.countdown, -COUNTDOWN_CLIP_BARS, COUNTDOWN_CLIP_BARS)
        error = (np.abs(answer - truth) * is_valid).sum(axis=1)
        found["countdown_mae"] = _ratio_of(error * has, is_valid.sum(axis=1) * has)
    truth = _inside(windows)
    if prediction.is_inside is not None:
        decided = prediction.is_inside & is_valid
        hits = (decided & truth).sum(axis=1)
        claimed = decided.sum(axis=1)
        wanted = (truth & is_valid).sum(axis=1)
        found["inside_f1"] = _ratio_of(2 * hits, claimed + wanted)
        found["inside_precision"] = _ratio_of(hits, claimed)
        found["inside_recall"] = _ratio_of(hits, wanted)
    if prediction.inside_probability is not None:
        found["inside_ap"] = _average_precision(prediction.inside_probability, truth, is_valid)
    if kind is not None:
        found |= _type_figures(prediction.type_probability, kind, windows)
    return {name: found[name] for name in METRICS if name in found}


def best_threshold(probability, truth, is_valid):
    """Return the probability threshold with the highest F1 over valid bars (fit it on training windows)."""
    p, y = probability[is_valid], truth[is_valid]
    order = np.argsort(-p, kind="stable")
    hits = np.cumsum(y[order])
    f1 = 2 * hits / (np.arange(1, len(p) + 1) + y.sum())
    # only between distinct probabilities can a threshold be put
    is_last = np.r_[np.diff(p[order]) != 0, True]
    return float(p[order][np.where(is_last, f1, -1).argmax()])


def _inside(windows):
    """Return the bars inside any expansion, (n, K) bool."""
    bars = np.arange(WINDOW_BARS)
    first, last = windows.spans[..., 0, None], windows.spans[..., 1, None]
    return ((first >= 0) & (bars >= first) & (bars <= last)).any(axis=1)


def _span_figures(windows, start, end, is_right):
    """Return the figures of the edges; `is_right` tells where the state is, None where no state is answered."""
    has = windows.has_expansion
    off_start, off_end = _distances(windows, start, 0), _distances(windows, end, 1)
    joint = ((np.abs(off_start) <= TOLERANCE_BARS) & (np.abs(off_end) <= TOLERANCE_BARS)).any(axis=1)
    least = np.abs(off_start).min(axis=1)
    nearest = np.take_along_axis(off_start, np.abs(off_start).argmin(axis=1)[:, None], axis=1)[:, 0]
    tiou, off_centre, off_length = _nearest_span(windows, start, end)
    found = {
        "hit3_start": _mean_of(least <= TOLERANCE_BARS, has),
        "hit3_end": _mean_of(np.abs(off_end).min(axis=1) <= TOLERANCE_BARS, has),
        "joint3": _mean_of(joint, has),
        "hit_mean": _mean_of((least[:, None] <= np.arange(MOST_BARS + 1)).mean(axis=1), has),
        "tiou50": _mean_of(tiou >= 0.5, has),
        "tiou75": _mean_of(tiou >= 0.75, has),
        "centre_mae": _mean_of(off_centre, has),
        "length_mae": _mean_of(off_length, has),
        "onset_bias": _mean_of(np.where(has, nearest, 0.0), has),
    }
    return found if is_right is None else found | {"joint3_type": _mean_of(joint & is_right, has)}


def _nearest_span(windows, start, end):
    """Return the best overlap with any expansion, and the distances of centre and length from the nearest one's."""
    real = windows.spans[..., 0] >= 0
    first, last = windows.spans[..., 0], windows.spans[..., 1]
    start, end = start[:, None], end[:, None]
    overlap = np.maximum(np.minimum(end, last) - np.maximum(start, first) + 1, 0)
    tiou = np.where(real, overlap / (np.maximum(end, last) - np.minimum(start, first) + 1), 0.0).max(axis=1)
    off_centre = np.where(real, np.abs((start + end) - (first + last)) / 2, np.inf)
    nearest = off_centre.argmin(axis=1)[:, None]
    off_length = np.abs((end - start) - (last - first))
    has = windows.has_expansion
    off = (np.take_along_axis(each, nearest, axis=1)[:, 0] for each in (off_centre, off_length))
    return tiou, *(np.where(has, each, 0.0) for each in off)


def _distances(windows, answer, edge):
    """Return answer less each expansion's edge (0 start, 1 end), (n, m) float64; infinite where there is none."""
    real = windows.spans[..., 0] >= 0
    return np.where(real, answer[:, None] - windows.spans[..., edge], np.inf)


def _claim_figures(windows, prediction):
    """Return the figures of the start's distribution: is the hit it claims the hit it makes?"""
    has, p = windows.has_expansion, prediction.start_probability
    first, last = central_interval(p)
    real, starts = windows.spans[..., 0] >= 0, windows.spans[..., 0]
    is_covered = ((starts >= first[:, None]) & (starts <= last[:, None]) & real).any(axis=1)
    found = {
        "start_coverage": _mean_of(is_covered, has),
        "start_width": _mean_of((last - first + 1).astype(float), has),
    }
    if prediction.start is None:
        return found
    claimed, is_hit = start_claims(windows, prediction)
    brier = _mean_of((claimed - is_hit) ** 2, has)
    rate = _mean_of(is_hit, has)
    found["start_brier"] = brier
    found["start_log_score"] = _mean_of(-np.log(np.clip(np.where(is_hit, claimed, 1 - claimed), 1e-6, 1)), has)

    def skill(weights):
        share = rate(weights)
        blind = share * (1 - share)  # the Brier score of claiming the rate itself
        return 1 - np.divide(brier(weights), blind, out=np.full_like(blind, np.nan), where=blind > 0)

    return found | {"start_brier_skill": skill}


def start_claims(windows, prediction):
    """Return what each answer claims and whether it is so.

    Parameters
    ----------
    windows : LabelledWindows
    prediction : Prediction
        With `start` and `start_probability`.

    Returns
    -------
    claimed : ndarray (n,), float64
        Probability of a start within 3 bars of the answer.
    is_hit : ndarray (n,), bool
    """
    claimed = claimed_mass(prediction.start_probability, prediction.start, TOLERANCE_BARS)
    return claimed, (np.abs(_distances(windows, prediction.start, 0)) <= TOLERANCE_BARS).any(axis=1)


def _mean_of_draws(figures):
    """Return the mean of several figures as a function of weights."""
    return lambda weights: np.mean([figure(weights) for figure in figures], axis=0)


def _mean_of(values, is_counted):
    """Return the weighted mean of per-window values as a function of weights."""
    return _ratio_of(values * is_counted, is_counted.astype(float))


def _ratio_of(above, below):
    """Return the ratio of weighted sums as a function of weights (NaN for 0 / 0)."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)

    def figure(weights):
        top, bottom = weights @ above, weights @ below
        return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)

    return figure


def _average_precision(probability, truth, is_valid):
    """Return average precision over pooled bars as a function of weights (ties share one step)."""
    window = np.broadcast_to(np.arange(len(truth))[:, None], truth.shape)[is_valid]
    p, y = probability[is_valid], truth[is_valid]
    order = np.argsort(-p, kind="stable")
    p, y, window = p[order], y[order], window[order]
    is_last = np.r_[np.diff(p) != 0, True]

    def figure(weights):
        out = np.empty(len(weights))
        for row, weight in enumerate(weights):
            counted = weight[window]
            hits = np.cumsum(counted * y)[is_last]
            seen = np.cumsum(counted)[is_last]
            gain = np.diff(hits, prepend=0.0)
            precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
            out[row] = (precision * gain).sum() / hits[-1] if hits[-1] > 0 else np.nan
        return out

    return figure


def _type_figures(probability, kind, windows):
    """Return the figures of the state before, over windows with an expansion."""
    n_classes = len(CLASSES)
    has, state = windows.has_expansion, windows.state
    hits = [(kind == k) & (state == k) & has for k in range(n_classes)]
    claimed = [(kind == k) & has for k in range(n_classes)]
    actual = [(state == k) & has for k in range(n_classes)]
    f1 = [_ratio_of(2.0 * hits[k], claimed[k].astype(float) + actual[k]) for k in range(n_classes)]
    recall = [_ratio_of(hits[k], actual[k]) for k in range(n_classes)]
    share = [_mean_of(claimed[k].astype(float), has) for k in range(n_classes)]
    p = np.clip(probability[np.arange(len(state)), np.minimum(state, probability.shape[1] - 1)], 1e-6, 1)
    answer = np.eye(probability.shape[1])[np.minimum(state, probability.shape[1] - 1)]
    return {
        # NaN where a class is absent: its recall is not known, and neither is a mean with it
        "type_macro_f1": lambda w: np.mean([f(w) for f in f1], axis=0),
        "type_balanced_accuracy": lambda w: np.mean([f(w) for f in recall], axis=0),
        "type_min_recall": lambda w: np.min([f(w) for f in recall], axis=0),
        "type_min_share": lambda w: np.min([f(w) for f in share], axis=0),
        **{f"type_recall_{name}": recall[k] for k, name in enumerate(CLASSES)},
        **{f"type_share_{name}": share[k] for k, name in enumerate(CLASSES)},
        "type_brier": _mean_of(((probability - answer) ** 2).sum(axis=1), has),
        "type_log_score": _mean_of(-np.log(p), has),
    }
