"""Intervals from a bootstrap over trading days: windows of one day are not independent."""

import numpy as np


def day_block_weights(days, *, n_bootstrap=1000, seed=17):
    """Return how often each window is counted in each resample of whole days.

    Parameters
    ----------
    days : array_like (n,)
        Trading day of each window.
    n_bootstrap : int
    seed : int

    Returns
    -------
    ndarray (n_bootstrap, n), float64
    """
    _, block = np.unique(np.asarray(days), return_inverse=True)
    n_blocks = block.max() + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_bootstrap)
    return drawn[:, block].astype(np.float64)


def interval(values, level=0.95):
    """Return (low, high): the central percentiles of bootstrap values; NaN where none is defined.

    Parameters
    ----------
    values : ndarray (n_bootstrap,)
    level : float
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return np.nan, np.nan
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
