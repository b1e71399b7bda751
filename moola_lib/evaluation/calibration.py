"""Is a claimed probability the share of hits? Tables for the start hit claimed by a posterior."""

import numpy as np
import pandas as pd

from moola_lib.evaluation.decoding import TOLERANCE_BARS
from moola_lib.evaluation.intervals import wilson_interval
from moola_lib.evaluation.metrics import Prediction, start_claims
from moola_lib.evaluation.posteriors import best_start_then_end, end_marginal, start_marginal


def predict_from_span(span):
    """Return the answers that a distribution over (start, end) leads to, the oracle's or a model's.

    Parameters
    ----------
    span : ndarray (n, K, K)
        Probability of each (start, end); see `posteriors.full_span` for the oracle's.

    Returns
    -------
    Prediction
        `start`, `end`, `start_probability`, `inside_probability`.
    """
    start, end = best_start_then_end(span, TOLERANCE_BARS)
    starts, ends = start_marginal(span), end_marginal(span)
    inside = np.cumsum(starts, axis=1) - np.cumsum(ends, axis=1) + ends  # begun by a bar, less ended before it
    return Prediction(start=start, end=end, start_probability=starts, inside_probability=np.clip(inside, 0, 1))


def reliability_table(windows, prediction, *, n_bins=5):
    """Return claimed against realised hits of the start, in bins of about equal size.

    Parameters
    ----------
    windows : LabelledWindows
    prediction : Prediction
        With `start` and `start_probability`.
    n_bins : int
        Few: with 35 windows a bin, a share of one half is known to ±0.16.

    Returns
    -------
    DataFrame
        Per bin: `from` and `to` (claims), `n`, `claimed` (mean), `realised` (share
        of hits) with `low` and `high` of its 95% interval.
    """
    has = windows.has_expansion
    claimed, is_hit = (values[has] for values in start_claims(windows, prediction))
    rows = []
    for part in np.array_split(np.argsort(claimed, kind="stable"), n_bins):
        if len(part):
            low, high = wilson_interval(is_hit[part].sum(), len(part))
            ends = claimed[part[0]], claimed[part[-1]]
            rows.append((*ends, len(part), claimed[part].mean(), is_hit[part].mean(), low, high))
    return pd.DataFrame(rows, columns=["from", "to", "n", "claimed", "realised", "low", "high"])
