"""What causal scores must beat: an ATR ratio and a logistic regression that look back only."""

import numpy as np

from moola_lib.evaluation.causal import CausalScores
from moola_lib.evaluation.hand_features import FLOOR
from moola_lib.evaluation.spans import STARTS, known_spans
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.ranges import ATR_BARS

BACK_BARS = 5
WIDTHS_BARS = (3, 6, 12, 24)


def causal_atr_scores(train, test, inputs):
    """Score each bar by its true range against the ATR of the ten bars before it, squashed to [0, 1).

    Nothing is fitted; the threshold of an alarm is.

    Parameters
    ----------
    train, test : LabelledWindows
    inputs : WindowInputs

    Returns
    -------
    CausalScores
        No probabilities: only their order means something. 0 before the inner part.
    """
    ranges = np.exp(inputs.of(test).log_range)
    before = _trailing_mean(ranges, ATR_BARS)[:, :-1]
    ratio = ranges[:, 1:] / before
    inside = np.concatenate([np.zeros((len(ranges), 1)), ratio / (1 + ratio)], axis=1)
    return _from_inside(inside)


def causal_logistic_scores(train, test, inputs):
    """Score each bar by a logistic regression of "inside" on features of the bars up to it.

    Parameters
    ----------
    train, test : LabelledWindows
    inputs : WindowInputs

    Returns
    -------
    CausalScores
        Before the inner part 0.

    Raises
    ------
    UserError
        No training window holds an expansion.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known_spans(train)
    bars = np.arange(STARTS[0], WINDOW_BARS)
    ours, theirs = (_features_up_to(inputs.of(windows))[:, bars] for windows in (train, test))
    truth = train.targets()["inside"][:, bars] > 0.5
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    model.fit(ours.reshape(-1, ours.shape[2]), truth.ravel())
    inside = np.zeros((len(test), WINDOW_BARS))
    inside[:, bars] = model.predict_proba(theirs.reshape(-1, ours.shape[2]))[:, 1].reshape(len(test), -1)
    return _from_inside(inside)


def _from_inside(inside):
    """Return scores whose "has started" is the highest "inside" so far; no start lies before the inner part."""
    inside = np.where(np.arange(WINDOW_BARS) >= STARTS[0], inside, 0.0)
    return CausalScores(inside, np.maximum.accumulate(inside, axis=1))


def _features_up_to(inputs):
    """Return features of every bar from the bars up to it, (n, K, n_features) float64."""
    usual = _trailing_mean(inputs.log_range, WINDOW_BARS)
    steps = np.log(np.abs(inputs.log_return) / np.exp(usual) + FLOOR)
    others = [k for k, name in enumerate(inputs.names) if name not in ("log_return", "log_range")]
    channels = [inputs.log_range, steps, *np.moveaxis(inputs.x[..., others].astype(np.float64), 2, 0)]
    found = []
    for values in channels:
        level = _trailing_mean(values, WINDOW_BARS)
        back = [np.pad(values, ((0, 0), (k, 0)), mode="edge")[:, :WINDOW_BARS] for k in range(BACK_BARS)]
        found += [one - level for one in back]
        found += [_trailing_mean(values, width) - level for width in WIDTHS_BARS]
    return np.stack(found, axis=2)


def _trailing_mean(values, width):
    """Return the mean over the last `width` bars, those there are, (n, K)."""
    total = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
    last = np.arange(1, values.shape[1] + 1)
    first = np.maximum(last - width, 0)
    return (total[:, last] - total[:, first]) / (last - first)
