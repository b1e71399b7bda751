"""What a method must beat: answers that use no learning, or next to none."""

import importlib

import numpy as np

from moola_lib.errors import UserError
from moola_lib.evaluation.metrics import Prediction, best_threshold
from moola_lib.labels.targets import expansion_targets

ATR_MULTIPLES = np.arange(1.0, 4.01, 0.1)
# Each is called (train, test, inputs): fitted on training windows, it answers the test windows.
BASELINES = {
    "constant": "moola_lib.evaluation.baselines:constant_baseline",
    "position only": "moola_lib.evaluation.rules:position_baseline",
    "timestamp only": "moola_lib.evaluation.rules:timestamp_baseline",
    "ATR rule": "moola_lib.evaluation.rules:atr_rule",
    "change points": "moola_lib.evaluation.rules:change_point_baseline",
    "linear segments": "moola_lib.evaluation.segment_baselines:linear_segment_baseline",
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
