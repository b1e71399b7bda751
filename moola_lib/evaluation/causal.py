"""What could have been known at the time: every bar judged from the bars up to it, and alarms with their latency."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from moola_lib.errors import UserError
from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.evaluation.metrics import Prediction, metric_functions
from moola_lib.windows.masks import cut_after

NEVER = -1
QUANTILES = {"latency_q25": 0.25, "latency_median": 0.5, "latency_q75": 0.75}
MEANINGS = {
    "causal_ap": "average precision of bars inside, pooled",
    "hit_share": "alarm while an expansion runs (share)",
    "false_share": "alarm before the start (share of windows)",
    "late_share": "alarm after the end (share)",
    "missed_share": "no alarm (share)",
    "latency_q25": "bars from start to alarm, lower quartile",
    "latency_median": "bars from start to alarm, median",
    "latency_q75": "bars from start to alarm, upper quartile",
}


@dataclass(frozen=True)
class CausalScores:
    """Answers about each bar from the bars up to it.

    Attributes
    ----------
    inside : ndarray (n, K), float64
        P(bar t is inside | bars up to t).
    started : ndarray (n, K), float64
        P(an expansion has started by bar t | bars up to t).
    """

    inside: np.ndarray
    started: np.ndarray

    def take(self, rows):
        """Return the scores of the windows at `rows` (indices or bool mask)."""
        return CausalScores(self.inside[rows], self.started[rows])


def causal_scores(answer, x, *, stride=1, batch_size=512):
    """Show a model each window bar by bar.

    Parameters
    ----------
    answer : callable
        Takes x (batch, K, F), a float32 Tensor whose bars after some t are 0,
        and returns a dict of arrays or CPU Tensors: `inside_probability` (batch, K),
        and one of `span_probability` (batch, K, K; start by end) and
        `start_probability` (batch, K), which need not sum to 1. With neither,
        the highest causal P(inside) so far stands for "has started".
    x : ndarray or Tensor (n, K, F), float32
    stride : int
        Ask at every stride-th bar; the bars between keep the last answer.
    batch_size : int

    Returns
    -------
    CausalScores
    """
    x = torch.as_tensor(x)
    n, n_bars = x.shape[:2]
    inside, started = np.empty((n, n_bars)), np.empty((n, n_bars))
    has_start = True
    for t in range(0, n_bars, stride):
        kept = slice(t, min(t + stride, n_bars))
        for first in range(0, n, batch_size):
            rows = slice(first, min(first + batch_size, n))
            outputs = answer(cut_after(x[rows], t))
            inside[rows, kept] = _column(outputs["inside_probability"], t)[:, None]
            start = _started(outputs, t)
            has_start = start is not None
            if has_start:
                started[rows, kept] = start[:, None]
    if not has_start:
        started = np.maximum.accumulate(inside, axis=1)
    return CausalScores(inside, started)


def first_alarms(scores, threshold):
    """Return the first bar at which P(started) reaches the threshold, (n,) int64; -1 where it never does.

    The threshold is one number, or one for each window: that of its fold.
    """
    is_on = scores.started >= np.reshape(threshold, (-1, 1))
    return np.where(is_on.any(axis=1), is_on.argmax(axis=1), NEVER)


def alarm_threshold(windows, scores, most_false_frac):
    """Return the lowest threshold with false alarms in at most a share of windows; choose it on training windows.

    Parameters
    ----------
    windows : LabelledWindows
    scores : CausalScores
    most_false_frac : float
        Of all windows, in [0, 1). An alarm is false before the first start; in a
        window without an expansion any alarm is.

    Raises
    ------
    UserError
        There are no windows, or the share is not in [0, 1).
    """
    if len(windows) == 0 or not 0 <= most_false_frac < 1:
        raise UserError(
            f"a threshold with false alarms in {most_false_frac:g} of {len(windows)} windows cannot be chosen; "
            "give training windows and a share in [0, 1)"
        )
    bars = np.arange(scores.started.shape[1])
    is_early = bars < np.where(windows.has_expansion, windows.start, len(bars))[:, None]
    # a window raises a false alarm at any threshold up to its highest early score
    highest = np.sort(np.where(is_early, scores.started, -np.inf).max(axis=1))[::-1]
    allowed = int(most_false_frac * len(windows) + 1e-9)
    return float(np.nextafter(highest[allowed], np.inf))


def score_causal(windows, scores, threshold, *, is_valid=None, n_bootstrap=1000, seed=17):
    """Score causal answers: average precision of bars inside, and what alarms are worth.

    Parameters
    ----------
    windows : LabelledWindows
        Early is before the first expansion of a window; a hit is inside any.
    scores : CausalScores
    threshold : float or ndarray (n,)
        From `alarm_threshold` on training windows, those of the window's fold.
    is_valid : ndarray (n, K), bool, optional
        Bars that count in the average precision.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        `figure`, `meaning`, `value`, `low` and `high` (95%, by days), `n`.
        Latency is counted over alarms from the start on; NaN where there is none.
    """
    alarm, has = first_alarms(scores, threshold), windows.has_expansion
    is_raised = alarm != NEVER
    is_early = is_raised & (~has | (alarm < windows.start))
    first, last = windows.spans[..., 0], windows.spans[..., 1]
    has_begun = (first >= 0) & (first <= alarm[:, None])
    is_hit = is_raised & (has_begun & (alarm[:, None] <= last)).any(axis=1)
    answered = Prediction(inside_probability=scores.inside)
    figures = metric_functions(windows, answered, is_valid=is_valid)
    shares = {
        "hit_share": (is_hit, has),
        "false_share": (is_early, np.ones(len(windows), bool)),
        "late_share": (is_raised & ~is_early & ~is_hit, has),
        "missed_share": (~is_raised & has, has),
    }
    found = {"causal_ap": (figures["inside_ap"], len(windows))}
    found |= {name: (_share(part, whole), int(whole.sum())) for name, (part, whole) in shares.items()}
    is_timed = is_raised & ~is_early
    latency = np.where(is_timed, alarm - np.where(has_begun, first, 0).max(axis=1), 0)  # since the last start before it
    found |= {name: (_quantile(latency, is_timed, q), int(is_timed.sum())) for name, q in QUANTILES.items()}
    weights, ones = day_block_weights(windows.day, n_bootstrap=n_bootstrap, seed=seed), np.ones((1, len(windows)))
    rows = [
        (name, MEANINGS[name], float(figure(ones)[0]), *interval(figure(weights)), n)
        for name, (figure, n) in found.items()
    ]
    return pd.DataFrame(rows, columns=["figure", "meaning", "value", "low", "high", "n"])


def _started(outputs, t):
    """Return P(started by t), (batch,) float64, or None where the model has no starts."""
    if "span_probability" in outputs:
        return np.asarray(outputs["span_probability"], np.float64)[:, : t + 1].sum(axis=(1, 2))
    if "start_probability" in outputs:
        return np.asarray(outputs["start_probability"], np.float64)[:, : t + 1].sum(axis=1)
    return None


def _column(values, t):
    return np.asarray(values, np.float64)[:, t]


def _share(part, whole):
    """Return the weighted share as a function of weights (NaN for 0 / 0)."""

    def figure(weights):
        top, bottom = weights @ part.astype(np.float64), weights @ whole.astype(np.float64)
        return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)

    return figure


def _quantile(values, is_counted, q):
    """Return the weighted quantile (the least value with a share q at or below it) as a function of weights."""
    order = np.flatnonzero(is_counted)
    order = order[np.argsort(values[order], kind="stable")]

    def figure(weights):
        total = np.cumsum(weights[:, order], axis=1)
        if total.shape[1] == 0:
            return np.full(len(weights), np.nan)
        at = (total >= q * total[:, -1:]).argmax(axis=1)
        return np.where(total[:, -1] > 0, values[order][at].astype(np.float64), np.nan)

    return figure
