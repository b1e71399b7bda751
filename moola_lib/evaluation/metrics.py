"""How well predicted expansions agree with labelled ones; every figure a function of window weights.

Written as functions of weights, a figure and its bootstrap are the same code:
ones give the figure, day-block counts give its resamples.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.labels.targets import COUNTDOWN_CLIP_BARS, WINDOW_BARS, span_from_pointers, start_from_countdown

TOLERANCE_BARS = 3
DECODERS = ("inside", "pointers", "countdown")


@dataclass(frozen=True)
class Metric:
    """What a figure means: its unit, direction, and a line for the reader."""

    unit: str
    is_higher_better: bool
    meaning: str


METRICS = {
    "hit3_start": Metric("share", True, "start within 3 bars"),
    "hit3_end": Metric("share", True, "end within 3 bars"),
    "joint3": Metric("share", True, "both edges within 3 bars"),
    "joint3_type": Metric("share", True, "both edges within 3 bars and the state right"),
    "tiou50": Metric("share", True, "overlap of at least half of the union"),
    "tiou75": Metric("share", True, "overlap of at least three quarters of the union"),
    "centre_mae": Metric("bars", False, "distance of centres"),
    "length_mae": Metric("bars", False, "difference of lengths"),
    "countdown_mae": Metric("bars", False, "countdown error, clipped to 20 bars"),
    "inside_f1": Metric("share", True, "F1 of bars inside, pooled"),
    "inside_precision": Metric("share", True, "precision of bars inside, pooled"),
    "inside_recall": Metric("share", True, "recall of bars inside, pooled"),
    "inside_ap": Metric("share", True, "average precision of bars inside, pooled"),
    "type_macro_f1": Metric("share", True, "macro F1 of the state before"),
    "type_balanced_accuracy": Metric("share", True, "balanced accuracy of the state before"),
    "type_min_recall": Metric("share", True, "recall of the worse-recalled state"),
    "type_min_share": Metric("share", True, "share of predictions of the rarer-predicted state"),
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

    def take(self, rows):
        """Return the answers for the windows at `rows` (indices or bool mask)."""
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Prediction(**{name: None if value is None else value[rows] for name, value in columns.items()})


def decode_spans(outputs, decoder="inside"):
    """Turn a model's outputs into spans.

    Parameters
    ----------
    outputs : dict of ndarray
        From `learning.predict.predict_windows`.
    decoder : {"inside", "pointers", "countdown"}
        `inside`: the run of bars with the largest sum of log-odds over the
        window's own mean; `pointers`: centre and length; `countdown`: the
        start the countdowns agree on, with the length of the pointers.

    Returns
    -------
    (start, end) : ndarray (n,), int64, inside the window.
    """
    needed = {
        "inside": ["inside_probability"],
        "pointers": ["centre", "length"],
        "countdown": ["countdown", "centre", "length"],
    }
    missing = [name for name in needed[decoder] if name not in outputs]
    if missing:
        raise UserError(f"decoder {decoder} needs {missing[0]}, which the model does not give; switch its head on")
    if decoder == "inside":
        p = np.clip(outputs["inside_probability"].astype(np.float64), 1e-6, 1 - 1e-6)
        mean = p.mean(axis=1, keepdims=True)
        return _best_run(np.log(p / (1 - p)) - np.log(mean / (1 - mean)))
    start, end = span_from_pointers(outputs["centre"], outputs["length"])
    if decoder == "countdown":
        extent = end - start
        start = start_from_countdown(outputs["countdown"])
        end = start + extent
    start = np.clip(np.round(start), 0, WINDOW_BARS - 1).astype(np.int64)
    end = np.clip(np.round(end), start, WINDOW_BARS - 1).astype(np.int64)
    return start, end


def metric_functions(windows, prediction, *, is_valid=None):
    """Return every figure the prediction defines, as a function of window weights.

    Parameters
    ----------
    windows : LabelledWindows
        The truth. A hit on any expansion of a window counts; the notes' other
        figures use the first. Windows without one are left out, but for the bars
        inside: there they can only hold false alarms.
    prediction : Prediction
    is_valid : ndarray (n, K), bool, optional
        Bars that count in per-bar figures; default all.

    Returns
    -------
    dict of str to callable
        Each takes weights (n_resamples, n) and returns (n_resamples,) float64.
    """
    has = windows.has_expansion
    bars = np.arange(WINDOW_BARS)
    is_valid = np.ones((len(windows), WINDOW_BARS), bool) if is_valid is None else is_valid
    found = {}
    kind = None
    if prediction.type_probability is not None:
        kind = prediction.type_probability.argmax(axis=1)
    if prediction.start is not None:
        start, end = prediction.start.astype(float), prediction.end.astype(float)
        real = windows.spans[..., 0] >= 0
        off_start = np.where(real, np.abs(start[:, None] - windows.spans[..., 0]), np.inf)
        off_end = np.where(real, np.abs(end[:, None] - windows.spans[..., 1]), np.inf)
        found["hit3_start"] = _mean_of((off_start.min(axis=1) <= TOLERANCE_BARS), has)
        found["hit3_end"] = _mean_of((off_end.min(axis=1) <= TOLERANCE_BARS), has)
        joint = ((off_start <= TOLERANCE_BARS) & (off_end <= TOLERANCE_BARS)).any(axis=1)
        found["joint3"] = _mean_of(joint, has)
        if kind is not None:
            found["joint3_type"] = _mean_of(joint & (kind == windows.state), has)
        overlap = np.minimum(end, windows.end) - np.maximum(start, windows.start) + 1
        union = np.maximum(end, windows.end) - np.minimum(start, windows.start) + 1
        tiou = np.maximum(overlap, 0) / union
        found["tiou50"] = _mean_of(tiou >= 0.5, has)
        found["tiou75"] = _mean_of(tiou >= 0.75, has)
        found["centre_mae"] = _mean_of(np.abs((start + end) - (windows.start + windows.end)) / 2, has)
        found["length_mae"] = _mean_of(np.abs((end - start) - (windows.end - windows.start)), has)
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


def score_prediction(windows, predictions, *, is_valid=None, n_bootstrap=1000, seed=17):
    """Score one method beside its baselines, with day-block intervals.

    Parameters
    ----------
    windows : LabelledWindows
    predictions : dict of str to Prediction
        The first entry is the method; the others are its baselines.
    is_valid : ndarray (n, K), bool, optional
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        One row per metric: `metric`, `meaning`, `unit`, the method's `value`,
        `low`, `high`, `n`, one column per baseline (NaN where it does not
        define the figure), `best_baseline`, `difference` to it with
        `difference_low` and `difference_high` (paired; positive = better).
    """
    answer, *_ = predictions.values()
    others = list(predictions.items())[1:]
    weights = day_block_weights(windows.day, n_bootstrap=n_bootstrap, seed=seed)
    ones = np.ones((1, len(windows)))
    own = metric_functions(windows, answer, is_valid=is_valid)
    rivals = {name: metric_functions(windows, other, is_valid=is_valid) for name, other in others}
    rows = []
    for name, figure in own.items():
        metric = METRICS[name]
        resampled = figure(weights)
        low, high = interval(resampled)
        row = {"metric": name, "meaning": metric.meaning, "unit": metric.unit, "value": float(figure(ones)[0])}
        row |= {"low": low, "high": high, "n": int(windows.has_expansion.sum())}
        levels = {rival: float(figures[name](ones)[0]) for rival, figures in rivals.items() if name in figures}
        row |= {rival: levels.get(rival, np.nan) for rival in rivals}
        sign = 1 if metric.is_higher_better else -1
        if levels:
            best = max(levels, key=lambda rival: sign * levels[rival])
            difference = sign * (resampled - rivals[best][name](weights))
            row["best_baseline"] = best
            row["difference"] = sign * (row["value"] - levels[best])
            row["difference_low"], row["difference_high"] = interval(difference)
        rows.append(row)
    return pd.DataFrame(rows)


def compare_predictions(windows, answer, other, *, is_valid=None, n_bootstrap=1000, seed=17):
    """Compare two methods on the same windows and the same resampled days.

    Parameters
    ----------
    windows : LabelledWindows
    answer, other : Prediction
    is_valid : ndarray (n, K), bool, optional
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        Per metric that both define: `metric`, `meaning`, `value`, `other`,
        `difference` (positive: `answer` is better), `low`, `high` and
        `verdict` (BETTER, WORSE or INCONCLUSIVE).
    """
    weights = day_block_weights(windows.day, n_bootstrap=n_bootstrap, seed=seed)
    ones = np.ones((1, len(windows)))
    ours = metric_functions(windows, answer, is_valid=is_valid)
    theirs = metric_functions(windows, other, is_valid=is_valid)
    rows = []
    for name in [name for name in ours if name in theirs]:
        sign = 1 if METRICS[name].is_higher_better else -1
        low, high = interval(sign * (ours[name](weights) - theirs[name](weights)))
        value, rival = float(ours[name](ones)[0]), float(theirs[name](ones)[0])
        row = {"metric": name, "meaning": METRICS[name].meaning, "value": value, "other": rival}
        row |= {"difference": sign * (value - rival), "low": low, "high": high}
        row["verdict"] = "BETTER" if low > 0 else "WORSE" if high < 0 else "INCONCLUSIVE"
        rows.append(row)
    return pd.DataFrame(rows)


def score_table(scores, baselines):
    """Return a `score_prediction` as text for a reader: interval in one column, – where nothing is defined.

    Parameters
    ----------
    scores : DataFrame
    baselines : sequence of str
        Baseline columns to show.
    """
    table = pd.DataFrame(
        {"figure": scores["meaning"], "unit": scores["unit"], "value": scores["value"].map("{:.3f}".format)}
    )
    table["95 % interval"] = [
        f"{low:.2f} to {high:.2f}" for low, high in zip(scores["low"], scores["high"], strict=True)
    ]
    for name in baselines:
        table[name] = scores[name].map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")
    edges = zip(scores["difference_low"], scores["difference_high"], strict=True)
    table["better than the best by"] = ["–" if pd.isna(low) else f"{low:.2f} to {high:.2f}" for low, high in edges]
    return table


def describe_score(row):
    """Say a row of `score_prediction` as a sentence, its verdict read from the paired interval."""
    meaning = row["meaning"][0].upper() + row["meaning"][1:]
    text = f"{meaning}: {row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
    best = row["best_baseline"]
    if not isinstance(best, str):
        return f"{text}, no baseline defines it."
    low, high = row["difference_low"], row["difference_high"]
    verdict = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
    return f"{text}, {verdict} the best baseline, {best} ({row[best]:.3g})."


def hit_curve(windows, prediction, *, most_bars=10):
    """Return the share of starts and of both edges within k bars, k = 0..most_bars, as a frame."""
    has = windows.has_expansion
    real = windows.spans[has, :, 0] >= 0
    off_start = np.where(real, np.abs(prediction.start[has, None] - windows.spans[has, :, 0]), np.inf)
    off_end = np.where(real, np.abs(prediction.end[has, None] - windows.spans[has, :, 1]), np.inf)
    rows = [
        {
            "within_bars": k,
            "start": float((off_start.min(axis=1) <= k).mean()),
            "both": float(((off_start <= k) & (off_end <= k)).any(axis=1).mean()),
        }
        for k in range(most_bars + 1)
    ]
    return pd.DataFrame(rows)


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


def _best_run(scores):
    """Return (start, end) of the run with the largest sum in each row, int64."""
    total = np.concatenate([np.zeros((len(scores), 1)), np.cumsum(scores, axis=1)], axis=1)
    lowest = np.minimum.accumulate(total[:, :-1], axis=1)
    gain = total[:, 1:] - lowest
    end = gain.argmax(axis=1)
    is_before = np.arange(scores.shape[1]) <= end[:, None]
    start = np.where(is_before, total[:, :-1], np.inf).argmin(axis=1)
    return start.astype(np.int64), end.astype(np.int64)


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
    n_classes = 2
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
        "type_macro_f1": lambda w: np.nanmean([f(w) for f in f1], axis=0),
        "type_balanced_accuracy": lambda w: np.nanmean([f(w) for f in recall], axis=0),
        "type_min_recall": lambda w: np.nanmin([f(w) for f in recall], axis=0),
        "type_min_share": lambda w: np.nanmin([f(w) for f in share], axis=0),
        "type_brier": _mean_of(((probability - answer) ** 2).sum(axis=1), has),
        "type_log_score": _mean_of(-np.log(p), has),
    }
