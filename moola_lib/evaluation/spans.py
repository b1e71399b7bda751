"""From scores of starts and ends to a posterior over spans, and from it to one answer per window."""

import numpy as np

from moola_lib.errors import UserError
from moola_lib.evaluation.decisions import best_countdown
from moola_lib.evaluation.metrics import TOLERANCE_BARS, Prediction, best_threshold
from moola_lib.evaluation.oracle import Posterior
from moola_lib.evaluation.posteriors import best_start_then_end
from moola_lib.labels.table import INNER_BARS
from moola_lib.labels.targets import WINDOW_BARS, expansion_targets

STARTS = np.arange(INNER_BARS[0], INNER_BARS[1] + 1)
SMOOTHING_BARS = 2.0


def known_spans(train):
    """Return the training windows that hold an expansion.

    Raises
    ------
    UserError
        None does.
    """
    known = train.take(train.has_expansion)
    if len(known) == 0:
        raise UserError(f"none of the {len(train)} training windows holds an expansion; label some, or use fewer folds")
    return known


def smooth_shares(values, size, weights=None):
    """Return log shares of 0..size-1: a normal kernel of 2 bars around each value, and one value spread evenly.

    Parameters
    ----------
    values : ndarray (n,), int64
    size : int
    weights : ndarray (m, n), float64, optional
        One row of weights for each of m answers, (m, size) instead of (size,).
    """
    kernel = np.exp(-0.5 * ((np.arange(size) - values[:, None]) / SMOOTHING_BARS) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    weights = np.ones(len(values)) if weights is None else weights
    shares = weights @ kernel + 1 / size
    return np.log(shares / shares.sum(axis=-1, keepdims=True))


def length_scores(train):
    """Return the smoothed log share of each length of 1..K bars in training windows, (K,) float64."""
    known = known_spans(train)
    return smooth_shares(known.end - known.start, WINDOW_BARS)


def span_posterior(start, end, length, state=None):
    """Return softmax(start[s] + end[e] + length[e - s]) over all spans with s in the inner part.

    Parameters
    ----------
    start : ndarray (n, n_starts), float64
        Score of each bar of the inner part as the start.
    end : ndarray (n, K), float64
    length : ndarray (K,) or (n, K), float64
        Score of 1..K bars.
    state : ndarray (n, 2), float64, optional
        Carried through.

    Returns
    -------
    oracle.Posterior
    """
    extent = np.arange(WINDOW_BARS) - STARTS[:, None]
    scores = np.where(extent >= 0, length[..., np.maximum(extent, 0)], -np.inf)
    scores = scores + start[:, :, None] + end[:, None, :]
    scores -= scores.max(axis=(1, 2), keepdims=True)
    mass = np.exp(scores, out=scores)
    mass /= mass.sum(axis=(1, 2), keepdims=True)
    return Posterior(mass, state, STARTS, np.zeros(len(mass)))


def inside_threshold(known, windows):
    """Return the probability threshold with the best pooled F1 of bars inside; fit it on training windows."""
    truth = windows.targets()["inside"] > 0.5
    return best_threshold(known.inside, truth, np.ones_like(truth))


def answer_spans(known, threshold):
    """Return the answer of a posterior: the start with the most mass within 3 bars, the end that goes with it.

    Parameters
    ----------
    known : oracle.Posterior
    threshold : float
        Probability from which a bar is called inside.

    Returns
    -------
    Prediction
    """
    start, end = best_start_then_end(known.span, TOLERANCE_BARS, int(known.starts[0]))
    return Prediction(
        start=start,
        end=end,
        countdown=best_countdown(known),
        inside_probability=known.inside,
        is_inside=known.inside >= threshold,
        type_probability=known.state,
        start_probability=known.start,
    )


def answer_points(start, end):
    """Return the answer of a rule that gives one span per window and no probabilities."""
    targets = expansion_targets(start, end)
    return Prediction(
        start=start,
        end=end,
        countdown=targets.countdown.astype(np.float64),
        inside_probability=targets.mask.astype(np.float64),
        is_inside=targets.mask > 0.5,
    )
