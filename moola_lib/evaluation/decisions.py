"""The best answers to give, knowing a posterior over (start, end), and what they score: the attainable figures."""

import numpy as np
import pandas as pd

from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.evaluation.metrics import TOLERANCE_BARS, Prediction
from moola_lib.evaluation.oracle import prior
from moola_lib.evaluation.posteriors import box_mass
from moola_lib.labels.targets import COUNTDOWN_CLIP_BARS

BLOCK = 64  # windows
MEANINGS = {
    "hit3_start": "start within 3 bars (share)",
    "hit3_end": "end within 3 bars (share)",
    "joint3": "both edges within 3 bars (share)",
    "inside_f1": "F1 of bars inside, pooled",
    "countdown_mae": "countdown error (bars)",
    "type_accuracy": "state right (share)",
}


def best_start(known, tolerance_bars=TOLERANCE_BARS):
    """Return the start with the most posterior mass within the tolerance, (n,) int64."""
    return box_mass(known.start, tolerance_bars).argmax(axis=1)


def hit_probability(known, tolerance_bars=TOLERANCE_BARS):
    """Return the posterior mass within the tolerance of the best start, (n,) float64: the hit it claims."""
    return box_mass(known.start, tolerance_bars).max(axis=1)


def best_end(known, tolerance_bars=TOLERANCE_BARS):
    """Return the end with the most posterior mass within the tolerance, (n,) int64."""
    return box_mass(known.end, tolerance_bars).argmax(axis=1)


def best_span(known, tolerance_bars=TOLERANCE_BARS):
    """Return the (start, end) whose box of the tolerance holds the most posterior mass, two (n,) int64."""
    n, _, n_bars = known.span.shape
    at = np.empty(n, np.int64)
    for block in np.array_split(np.arange(n), -(-n // BLOCK)):  # a few windows at a time stay in the cache
        mass = box_mass(box_mass(known.span[block], tolerance_bars), tolerance_bars, axis=1)
        at[block] = mass.reshape(len(block), -1).argmax(axis=1)
    return known.starts[0] + at // n_bars, at % n_bars


def best_inside(known):
    """Return the bars to call inside for the highest expected pooled F1, (n, K) bool.

    The best rule is a threshold on the bars' probabilities (Lipton et al. 2014,
    arXiv:1402.1892); it is chosen on the posterior itself, never on the truth.
    """
    p = known.inside.ravel()
    order = np.argsort(-p, kind="stable")
    hits = np.cumsum(p[order])
    f1 = 2 * hits / (np.arange(1, len(p) + 1) + hits[-1])
    return known.inside >= p[order][f1.argmax()]


def best_countdown(known):
    """Return the countdown of least expected absolute error, (n, K) float64: the median start's, clipped."""
    median = (np.cumsum(known.start, axis=1) >= 0.5).argmax(axis=1)
    bars = np.arange(known.start.shape[1])
    return np.clip(median[:, None] - bars, -COUNTDOWN_CLIP_BARS, COUNTDOWN_CLIP_BARS).astype(np.float64)


def best_answer(known):
    """Return the best decision for each figure as one Prediction.

    Start and end are each the best for their own figure.

    Parameters
    ----------
    known : Posterior (n)
    """
    return Prediction(
        start=best_start(known),
        end=best_end(known),
        countdown=best_countdown(known),
        inside_probability=known.inside,
        is_inside=best_inside(known),
        type_probability=known.state,
        start_probability=known.start,
    )


def score_windows(known, start, end, state=None):
    """Score each window by the best decisions for each figure.

    Parameters
    ----------
    known : Posterior (n)
    start, end : ndarray (n,), int64
        The truth, in bars.
    state : ndarray (n,), int64, optional
        0 consolidation, 1 retracement.

    Returns
    -------
    dict of str to (ndarray (n,), ndarray (n,))
        Numerator and denominator of each figure (the keys of MEANINGS) by
        window: a figure is the ratio of their sums.
    """
    one = np.ones(len(known))
    near = TOLERANCE_BARS
    s, e = best_span(known)
    bars = np.arange(known.span.shape[2])
    truth = (bars >= start[:, None]) & (bars <= end[:, None])
    claimed = best_inside(known)
    countdown = np.clip(start[:, None] - bars, -COUNTDOWN_CLIP_BARS, COUNTDOWN_CLIP_BARS)
    found = {
        "hit3_start": (np.abs(best_start(known) - start) <= near, one),
        "hit3_end": (np.abs(best_end(known) - end) <= near, one),
        "joint3": ((np.abs(s - start) <= near) & (np.abs(e - end) <= near), one),
        "inside_f1": (2.0 * (claimed & truth).sum(axis=1), claimed.sum(axis=1) + truth.sum(axis=1)),
        "countdown_mae": (np.abs(best_countdown(known) - countdown).mean(axis=1), one),
    }
    if known.state is not None and state is not None:
        found["type_accuracy"] = (known.state.argmax(axis=1) == state, one)
    return {name: (np.asarray(a, np.float64), np.asarray(b, np.float64)) for name, (a, b) in found.items()}


def attainable_scores(known, law, days, start, end, state=None, *, n_bootstrap=1000, seed=17):
    """Return what the best decisions score, beside the best constant answers.

    Parameters
    ----------
    known : Posterior (n)
        From `oracle.posterior`.
    law : MarketLaw
        Its prior gives the constant answers.
    days : array_like (n,)
        Windows of one day are resampled together.
    start, end, state : ndarray (n,), int64
        The truth; see `score_windows`.
    n_bootstrap : int
    seed : int

    Returns
    -------
    DataFrame
        `figure`, `meaning`, `oracle` with `low` and `high` of its 95% interval,
        `constant` with `constant_low` and `constant_high`, and `n` windows.
    """
    weights = day_block_weights(days, n_bootstrap=n_bootstrap, seed=seed)
    ours = score_windows(known, start, end, state)
    blind = score_windows(prior(law, len(known)), start, end, state)
    rows = []
    for name in ours:
        row = [name, MEANINGS[name]]
        for above, below in (ours[name], blind[name]):
            row += [above.sum() / below.sum(), *interval((weights @ above) / (weights @ below))]
        rows.append((*row, len(known)))
    columns = ["figure", "meaning", "oracle", "low", "high", "constant", "constant_low", "constant_high", "n"]
    return pd.DataFrame(rows, columns=columns)


def attainable_skill(model, constant, oracle, *, least=0.05):
    """Return (model - constant) / (oracle - constant), or NaN where the two differ by less than `least`.

    Parameters
    ----------
    model, constant, oracle : float or ndarray
        The same figure on the same windows.
    least : float
        In the figure's unit.
    """
    room = np.asarray(oracle, np.float64) - constant
    return np.where(np.abs(room) < least, np.nan, (model - np.asarray(constant)) / np.where(room == 0, np.nan, room))
