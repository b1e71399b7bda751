"""What a number of labels is worth: the same arms on thinned-out training windows."""

import numpy as np
import pandas as pd

from moola_lib.evaluation.baselines import answer_baseline
from moola_lib.evaluation.cross_validation import assemble
from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.evaluation.metrics import metric_functions

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
    sizes = [size for size, _ in subsets]
    rows = []
    for name, given in answers.items():
        figures = [metric_functions(test, answer)[metric] for answer in given]
        for size in dict.fromkeys(sizes):
            draws = [figure for figure, own in zip(figures, sizes, strict=True) if own == size]
            values = [float(draw(np.ones((1, len(test))))[0]) for draw in draws]
            low, high = interval(np.mean([draw(weights) for draw in draws], axis=0))
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
            rows.append((name, size, float(np.mean(values)), low, high, spread, len(values)))
    return pd.DataFrame(rows, columns=["arm", "n_labels", "value", "low", "high", "sd_of_draws", "n_draws"])
