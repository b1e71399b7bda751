"""Logistic regression and gradient boosting on hand features: the baselines to fear."""

from dataclasses import replace

import numpy as np

from moola_lib.evaluation.baselines import majority_baseline
from moola_lib.evaluation.decisions import best_start
from moola_lib.evaluation.hand_features import bar_features, state_features
from moola_lib.evaluation.spans import STARTS, answer_spans, inside_threshold, length_scores, span_posterior
from moola_lib.labels.targets import WINDOW_BARS

ENDS = np.arange(STARTS[0], WINDOW_BARS)
SEED = 17


def logistic_baseline(train, test, inputs):
    """Answer by two logistic regressions, "starts here" and "ends here", and the training lengths.

    Both look at the same hand features around each bar. Their log odds and the
    log share of the length are added, and a softmax over all spans that start
    in the inner part gives a posterior, read like any other. A third regression
    tells the state from the bars before the start.

    Parameters
    ----------
    train, test : LabelledWindows
    inputs : WindowInputs

    Returns
    -------
    Prediction

    Raises
    ------
    UserError
        No training window holds an expansion.
    """
    return _learned_baseline(train, test, inputs, _logistic)


def boosting_baseline(train, test, inputs):
    """Answer as `logistic_baseline` does, with gradient boosted trees in place of the regressions."""
    return _learned_baseline(train, test, inputs, _boosting)


def _logistic():
    """Return a strongly regularised regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))


def _boosting():
    """Return shallow trees, each split among a third of the features."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=4, max_features=0.3, early_stopping=False, random_state=SEED
    )


def fit_logistic(train, inputs):
    """Fit `logistic_baseline`'s regressions; return what answers windows by a Posterior.

    Parameters
    ----------
    train : LabelledWindows
    inputs : WindowInputs

    Returns
    -------
    callable(LabelledWindows) -> oracle.Posterior
    """
    return _fit(_logistic, train, inputs)


def fit_boosting(train, inputs):
    """Fit `boosting_baseline`'s trees; see `fit_logistic`."""
    return _fit(_boosting, train, inputs)


def _learned_baseline(train, test, inputs, make):
    """Fit "starts here", "ends here" and the state on training windows; return the answers for test windows."""
    posterior = _fit(make, train, inputs)
    return answer_spans(posterior(test), inside_threshold(posterior(train), train))


def _fit(make, train, inputs):
    """Fit the edges and the state; return a callable from windows to their posterior."""
    length = length_scores(train)
    ours = bar_features(inputs.of(train))
    start = _fit_bars(make(), ours, train.spans[..., 0], STARTS)
    end = _fit_bars(make(), ours, train.spans[..., 1] + 1, ENDS + 1)
    state = _fit_state(make(), train, inputs)

    def posterior(windows):
        features = bar_features(inputs.of(windows))
        ends = np.zeros((len(features), WINDOW_BARS))
        ends[:, ENDS] = _log_odds(end, features, ENDS + 1)
        known = span_posterior(_log_odds(start, features, STARTS), ends, length)
        return replace(known, state=state(windows, best_start(known)))

    return posterior


def _fit_bars(model, features, edges, borders):
    """Fit "an edge lies on this border" on the given borders of all windows."""
    is_edge = (edges[:, None, :] == borders[:, None]).any(axis=2)
    return model.fit(features[:, borders].reshape(-1, features.shape[2]), is_edge.ravel())


def _log_odds(model, features, borders):
    """Return the model's log odds on the given borders, (n, n_borders)."""
    return model.decision_function(features[:, borders].reshape(-1, features.shape[2])).reshape(-1, len(borders))


def _fit_state(model, train, inputs):
    """Return a callable from (windows, starts) to the probability of each state; shares where only one was seen."""
    known = train.take(train.has_expansion & (train.state < 2))
    if len(np.unique(known.state)) < 2:
        return lambda windows, _: majority_baseline(train, windows).type_probability
    model.fit(state_features(inputs.of(known), known.start), known.state)
    return lambda windows, start: model.predict_proba(state_features(inputs.of(windows), start))
