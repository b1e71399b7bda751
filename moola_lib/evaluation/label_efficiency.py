"""What a number of labels is worth: the same arms on thinned-out training windows."""

import numpy as np
import pandas as pd

from moola_lib.evaluation.baselines import answer_baseline
from moola_lib.evaluation.cross_validation import assemble
from moola_lib.evaluation.intervals import day_block_weights, interval, verdict
from moola_lib.evaluation.metrics import METRICS, metric_functions

HAND_FEATURES = "logistic regression"


def label_efficiency(
    windows, subsets, results, inputs, *, metric="hit3_start", decoder="segment", n_bootstrap=1000, seed=17
):
    """Score every arm by its number of labels, beside a baseline on hand features.

    Parameters
    ----------
    windows : LabelledWindows
    subsets : list of (int, Fold)
        From `windows.subset_folds`: all have the same test windows.
    results : dict of str to list of FoldResult
        For each arm, what it gave on each subset.
    inputs : WindowInputs
        Of all windows.
    metric : str
        A key of METRICS.
    decoder : str
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        `arm`, `n_labels`, `value` (mean over draws), `low`, `high` (95%, by test
        days, of that mean: the spread between draws is in `sd_of_draws`), `n_draws`.
    """
    test = windows.take(subsets[0][1].test)
    weights = day_block_weights(test.day, n_bootstrap=n_bootstrap, seed=seed)
    rows = []
    for name, by_size in _figures(windows, test, subsets, results, inputs, metric, decoder).items():
        for size, draws in by_size.items():
            values = [float(draw(np.ones((1, len(test))))[0]) for draw in draws]
            low, high = interval(np.mean([draw(weights) for draw in draws], axis=0))
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
            rows.append((name, size, float(np.mean(values)), low, high, spread, len(values)))
    return pd.DataFrame(rows, columns=["arm", "n_labels", "value", "low", "high", "sd_of_draws", "n_draws"])


def label_gains(
    windows, subsets, results, inputs, arm, others, *, metric="hit3_start", decoder="segment", n_bootstrap=1000, seed=17
):
    """Compare one arm with others at each number of labels, on the same draws and test windows.

    Parameters
    ----------
    windows, subsets, results, inputs, metric, decoder, n_bootstrap, seed
        As for `label_efficiency`.
    arm : str
    others : sequence of str
        Keys of `results`, or HAND_FEATURES.

    Returns
    -------
    DataFrame
        `n_labels`, `against`, `difference` (positive: `arm` is better), `low`, `high` (95%, paired, by test days,
        of the mean over draws), `n_days` that were resampled, and `verdict`.
    """
    test = windows.take(subsets[0][1].test)
    weights = day_block_weights(test.day, n_bootstrap=n_bootstrap, seed=seed)
    figures = _figures(windows, test, subsets, results, inputs, metric, decoder)
    sign = 1 if METRICS[metric].is_higher_better else -1
    rows = []
    for size in figures[arm]:
        for other in others:
            pairs = list(zip(figures[arm][size], figures[other][size], strict=True))
            gain, resampled = (
                sign * np.mean([ours(each) - theirs(each) for ours, theirs in pairs], axis=0)
                for each in (np.ones((1, len(test))), weights)
            )
            low, high = interval(resampled)
            rows.append((size, other, float(gain[0]), low, high, len(np.unique(test.day)), verdict(low, high)))
    return pd.DataFrame(rows, columns=["n_labels", "against", "difference", "low", "high", "n_days", "verdict"])


def _figures(windows, test, subsets, results, inputs, metric, decoder):
    """Return {arm: {number of labels: [a draw's metric, a function of weights]}}, the hand features among them."""
    answers = {
        name: [
            assemble([result], [fold], len(windows), decoder=decoder)[0].take(fold.test)
            for result, (_, fold) in zip(given, subsets, strict=True)
        ]
        for name, given in results.items()
    }
    answers[HAND_FEATURES] = [
        answer_baseline(HAND_FEATURES, windows.take(fold.train), test, inputs) for _, fold in subsets
    ]
    found = {}
    for name, given in answers.items():
        for (size, _), answer in zip(subsets, given, strict=True):
            found.setdefault(name, {}).setdefault(size, []).append(metric_functions(test, answer)[metric])
    return found
