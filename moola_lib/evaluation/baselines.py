"""What a method must beat: answers that use no learning, or next to none."""

import importlib

import numpy as np

from moola_lib.errors import UserError
from moola_lib.evaluation.metrics import Prediction, best_threshold
from moola_lib.labels.table import INNER_BARS
from moola_lib.labels.targets import WINDOW_BARS, expansion_targets
from moola_lib.market.ranges import average_true_range, true_range

ATR_MULTIPLES = np.arange(1.0, 4.01, 0.1)
# Each is called (train, test, inputs): fitted on training windows, it answers the test windows.
BASELINES = {
    "constant": "moola_lib.evaluation.baselines:constant_baseline",
    "position only": "moola_lib.evaluation.rules:position_baseline",
    "timestamp only": "moola_lib.evaluation.rules:timestamp_baseline",
    "ATR rule": "moola_lib.evaluation.rules:atr_rule",
    "change points": "moola_lib.evaluation.rules:change_point_baseline",
    "logistic regression": "moola_lib.evaluation.learned_baselines:logistic_baseline",
    "gradient boosting": "moola_lib.evaluation.learned_baselines:boosting_baseline",
    "majority": "moola_lib.evaluation.baselines:majority_baseline",
}


def answer_baseline(name, train, test, inputs):
    """Fit a baseline on training windows and answer the test windows.

    Parameters
    ----------
    name : str
        A key of BASELINES.
    train, test : LabelledWindows
    inputs : WindowInputs
        Of all these windows.

    Returns
    -------
    Prediction

    Raises
    ------
    UserError
        The name is not known, or the training windows cannot fit it.
    """
    if name not in BASELINES:
        raise UserError(f"baseline {name!r} is not known; choose one of {', '.join(BASELINES)}")
    module, _, attribute = BASELINES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)(train, test, inputs)


def constant_baseline(train, test, inputs=None):
    """Answer the training fold's medians everywhere.

    The span of median edges; per bar the median countdown and the share of
    training windows inside; per class its training share.

    Parameters
    ----------
    train, test : LabelledWindows
    inputs : WindowInputs, optional
        Not looked at.

    Returns
    -------
    Prediction
    """
    known = train.take(train.has_expansion)
    start, end = int(np.median(known.start)), int(np.median(known.end))
    targets = expansion_targets(known.start, known.end)
    inside = train.targets()["inside"].astype(np.float64)
    profile = inside.mean(axis=0)
    threshold = best_threshold(np.tile(profile, (len(train), 1)), inside > 0.5, np.ones_like(inside, bool))
    n = len(test)
    return Prediction(
        start=np.full(n, start),
        end=np.full(n, end),
        countdown=np.tile(np.median(targets.countdown, axis=0), (n, 1)),
        inside_probability=np.tile(profile, (n, 1)),
        is_inside=np.tile(profile >= threshold, (n, 1)),
    )


def majority_baseline(train, test, inputs=None):
    """Answer the training fold's majority state, with the training shares as probability.

    Parameters
    ----------
    train, test : LabelledWindows
    inputs : WindowInputs, optional
        Not looked at.

    Returns
    -------
    Prediction
    """
    state = train.state[train.has_expansion]
    shares = np.bincount(state[state < 2], minlength=2) / max(len(state), 1)
    return Prediction(type_probability=np.tile(shares, (len(test), 1)))


def coin_flip_baseline(train, test, rng):
    """Answer a random state in the training fold's proportions.

    Parameters
    ----------
    train, test : LabelledWindows
    rng : numpy Generator

    Returns
    -------
    Prediction
    """
    share = float((train.state[train.has_expansion] == 1).mean())
    is_second = rng.random(len(test)) < share
    return Prediction(type_probability=np.eye(2)[is_second.astype(int)])


def atr_baseline(train, test, frame, starts):
    """Start at the first inner bar whose true range is a multiple of the ATR before it.

    The multiple with the most training starts within 3 bars is used; the
    length is the training median. A window in which no bar qualifies gets the
    median start.

    Parameters
    ----------
    train, test : LabelledWindows
    frame : DataFrame
        The bars, whose positions the windows' places are.
    starts : ndarray (n_segments,), int64

    Returns
    -------
    Prediction
    """
    high, low, close = (frame[name].to_numpy(np.float64) for name in ("high", "low", "close"))
    ranges = true_range(high, low, close, starts)
    before = np.roll(average_true_range(high, low, close, starts), 1)
    # a segment's first bars have no range or no ATR: no bar qualifies there
    ratio = np.divide(ranges, before, out=np.zeros_like(ranges), where=(before > 0) & np.isfinite(ranges))
    known = train.take(train.has_expansion)
    fallback = int(np.median(known.start))
    length = int(np.median(known.end - known.start + 1))

    def first_bars(windows, multiple):
        inner = slice(INNER_BARS[0], INNER_BARS[1] + 1)
        bars = ratio[windows.place[:, None] + np.arange(WINDOW_BARS)][:, inner]
        is_large = bars >= multiple
        return np.where(is_large.any(axis=1), is_large.argmax(axis=1) + INNER_BARS[0], fallback)

    hits = [np.mean(np.abs(first_bars(known, multiple) - known.start) <= 3) for multiple in ATR_MULTIPLES]
    start = first_bars(test, ATR_MULTIPLES[int(np.argmax(hits))])
    end = np.minimum(start + length - 1, WINDOW_BARS - 1)
    targets = expansion_targets(start, end)
    return Prediction(
        start=start,
        end=end,
        countdown=targets.countdown.astype(np.float64),
        inside_probability=targets.mask.astype(np.float64),
        is_inside=targets.mask > 0.5,
    )
