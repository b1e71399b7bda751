"""Leak canaries: the same method where it must not succeed. One that sings there has seen an answer."""

from dataclasses import replace

import numpy as np
import pandas as pd

from moola_lib.evaluation.metrics import TOLERANCE_BARS, Prediction
from moola_lib.evaluation.scores import compare_predictions
from moola_lib.labels.targets import WINDOW_BARS

BY_INDEX = "position"  # a column that tells the bar's index: it stays where it is, whatever befalls the bars


def reverse_bars(inputs, rng):
    """Return windows with their bars in reverse order."""
    return _reorder(inputs, np.tile(np.arange(WINDOW_BARS)[::-1], (len(inputs), 1)), sign=-1)


def shuffle_bars(inputs, rng):
    """Return windows with their bars in an order drawn for each."""
    return _reorder(inputs, rng.permuted(np.tile(np.arange(WINDOW_BARS), (len(inputs), 1)), axis=1))


def blank_bars(inputs, rng):
    """Return windows whose bars are all alike: only their index and the stamp are left."""
    x = np.where(np.array(inputs.names) == BY_INDEX, inputs.x, np.float32(0))
    return replace(inputs, x=x, log_return=np.zeros_like(inputs.log_return), log_range=np.zeros_like(inputs.log_range))


DISTURBANCES = {"bars reversed": reverse_bars, "bars shuffled": shuffle_bars, "bars blanked": blank_bars}


def disturb(inputs, windows, name, *, seed=17):
    """Return the inputs with the bars of some windows disturbed; the others, a training fold, stay as they are.

    Parameters
    ----------
    inputs : WindowInputs
    windows : LabelledWindows
        Those to disturb, the test windows.
    name : str
        A key of DISTURBANCES.
    seed : int

    Returns
    -------
    WindowInputs
    """
    rows = np.isin(inputs.place, windows.place)
    changed = DISTURBANCES[name](inputs.take(rows), np.random.default_rng(seed))
    whole = {}
    for column in ("x", "is_valid", "log_return", "log_range"):
        whole[column] = getattr(inputs, column).copy()
        whole[column][rows] = getattr(changed, column)
    return replace(inputs, **whole)


def cross_fit_canaries(baseline, windows, folds, inputs, *, seed=17):
    """Answer disturbed test windows out of fold.

    Parameters
    ----------
    baseline : callable(train, test, inputs) -> Prediction
        A baseline, or a function that applies the model of the fold to `inputs.of(test).x`.
    windows : LabelledWindows
    folds : list of Fold
    inputs : WindowInputs
    seed : int

    Returns
    -------
    (LabelledWindows, dict of str to Prediction)
        The windows that folds test, in the folds' order, and for `as they are`
        and each of DISTURBANCES the answers.
    """
    tested = windows.take(np.concatenate([fold.test for fold in folds]))
    parts = {name: [] for name in ("as they are", *DISTURBANCES)}
    for fold in folds:
        train, test = windows.take(fold.train), windows.take(fold.test)
        for name, found in parts.items():
            shown = inputs if name == "as they are" else disturb(inputs, test, name, seed=seed)
            found.append(baseline(train, test, shown))
    return tested, {name: _join(found) for name, found in parts.items()}


def canary_table(windows, answers, constant, *, metric="hit3_start", n_bootstrap=1000, seed=17):
    """Hold answers that must not succeed against the constant.

    Parameters
    ----------
    windows : LabelledWindows
        With their true labels, whatever was done to the bars.
    answers : dict of str to Prediction
        From `cross_fit_canaries`, and the position-only and timestamp-only baselines.
    constant : Prediction
        On the same windows.
    metric : str
        A key of METRICS that all define.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        `canary`, `figure`, `value`, `constant`, `difference` with `low` and
        `high` (paired, by days; positive: better than the constant), and
        `is_leak`: the interval lies above 0.
    """
    rows = []
    for name, answer in answers.items():
        compared = compare_predictions(windows, answer, constant, n_bootstrap=n_bootstrap, seed=seed)
        row = compared.set_index("metric").loc[metric]
        rows.append(
            (name, metric, row["value"], row["other"], row["difference"], row["low"], row["high"], row["low"] > 0)
        )
    return pd.DataFrame(rows, columns=["canary", "figure", "value", "constant", "difference", "low", "high", "is_leak"])


def mirrored_share(plain, reverse):
    """Return the share of windows whose answer to reversed bars mirrors that to the bars as they are.

    Both edges within 3 bars. No leak by itself: features that look back, and a
    market that does, are not the same in reverse.

    Parameters
    ----------
    plain, reverse : Prediction
        With spans.
    """
    last = WINDOW_BARS - 1
    start, end = np.abs(last - reverse.end - plain.start), np.abs(last - reverse.start - plain.end)
    return float(np.mean((start <= TOLERANCE_BARS) & (end <= TOLERANCE_BARS)))


def future_canary(score, x, *, cuts=(20, 50, 80), seed=17):
    """Change all bars after some bar and see whether causal scores up to it change.

    Parameters
    ----------
    score : callable(x) -> CausalScores
    x : ndarray (n, K, F), float32
    cuts : tuple of int
        Last bars left alone.
    seed : int

    Returns
    -------
    DataFrame
        One row per cut: `canary`, `figure`, `value` (largest change of a score
        up to the cut), `constant` (0: nothing may change) and `is_leak`.
    """
    rng = np.random.default_rng(seed)
    plain, rows = score(x), []
    for t in cuts:
        other = np.array(x)
        other[:, t + 1 :] = rng.standard_normal(other[:, t + 1 :].shape).astype(np.float32)
        changed = score(other)
        pairs = [(plain.inside, changed.inside), (plain.started, changed.started)]
        largest = float(np.max([np.abs(a[:, : t + 1] - b[:, : t + 1]).max() for a, b in pairs]))  # NaN stays NaN
        rows.append((f"bars after {t} changed", "largest change up to it", largest, 0.0, largest != 0.0))
    return pd.DataFrame(rows, columns=["canary", "figure", "value", "constant", "is_leak"])


def _reorder(inputs, order, sign=1):
    """Return windows with their bars in another order, (n, K) int64; moves change sign in reverse."""
    row = np.arange(len(inputs))[:, None]
    x = inputs.x[row, order]
    stays = np.array(inputs.names) == BY_INDEX
    x[..., stays] = inputs.x[..., stays]
    return replace(
        inputs,
        x=x,
        is_valid=inputs.is_valid[row, order],
        log_return=sign * inputs.log_return[row, order],
        log_range=inputs.log_range[row, order],
    )


def _join(parts):
    """Return predictions one after the other."""
    columns = {name: [getattr(part, name) for part in parts] for name in Prediction.__dataclass_fields__}
    return Prediction(
        **{name: None if values[0] is None else np.concatenate(values) for name, values in columns.items()}
    )
