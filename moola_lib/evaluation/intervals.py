"""Intervals and tests of differences. Their bootstrap is over trading days: windows of one day are not independent."""

from statistics import NormalDist

import numpy as np
import pandas as pd


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
    return drawn.astype(np.float64)[:, block]  # the days first: there are few


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


def bootstrap_p_value(differences):
    """Return the two-sided p-value that a bootstrap gives for "no difference".

    Parameters
    ----------
    differences : ndarray (n_bootstrap,)
        Paired differences of the resamples; NaN left out.

    Returns
    -------
    float
        Twice the share of resamples on the lesser side of 0, each share counted
        with one resample more, so that it is at least 2 / (n_bootstrap + 1); at
        most 1. NaN where no resample defines the difference.
    """
    values = np.asarray(differences, np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return np.nan
    lesser = min((values <= 0).sum(), (values >= 0).sum())
    return float(min(2 * (lesser + 1) / (len(values) + 1), 1.0))


def holm(p_values):
    """Return p-values adjusted for their number by Holm's step-down rule.

    Parameters
    ----------
    p_values : array_like (m,)
        NaN counts as no test and stays NaN.

    Returns
    -------
    ndarray (m,), float64
        Compared with a level α, they keep the chance of any false rejection under α.

    Notes
    -----
    Holm 1979, Scandinavian Journal of Statistics 6.
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    stepped = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def corrected_interval(differences, *, n_train, n_test, level=0.95):
    """Return mean and interval of a difference over repeated folds, corrected for shared training windows.

    Fits of repeated cross-validation share most of their training windows, so
    the naive standard error is far too small: for 10 x 5 folds by 3.7 times.

    Parameters
    ----------
    differences : array_like (J,)
        One per fold and repeat.
    n_train, n_test : float
        Windows a fold trains and tests on (means where they vary).
    level : float

    Returns
    -------
    mean, low, high : float
        Student's t with J − 1 degrees of freedom, standard error
        √((1/J + n_test/n_train) s²).

    Raises
    ------
    ValueError
        Fewer than two differences are given, or one is not finite.

    Notes
    -----
    Nadeau & Bengio 2003, Machine Learning 52.
    """
    from scipy.stats import t

    values = np.asarray(differences, np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} differences given; at least two are needed, all finite")
    error = np.sqrt((1 / len(values) + n_test / n_train) * values.var(ddof=1))
    reach = t.ppf((1 + level) / 2, len(values) - 1) * error
    mean = values.mean()
    return float(mean), float(mean - reach), float(mean + reach)


def verdict(low, high):
    """Return BETTER, WORSE or INCONCLUSIVE by the interval of a difference (positive: better)."""
    return "BETTER" if low > 0 else "WORSE" if high < 0 else "INCONCLUSIVE"


def wilson_interval(n_hits, n, level=0.95):
    """Return (low, high) of a share of independent hits.

    Parameters
    ----------
    n_hits, n : int
    level : float

    Notes
    -----
    Wilson 1927, Journal of the American Statistical Association 22: unlike the
    normal interval it holds for few hits, and stays within [0, 1].
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, room = n_hits / n, z * z / n
    middle = share + room / 2
    reach = z * np.sqrt(share * (1 - share) / n + room / (4 * n))
    return float((middle - reach) / (1 + room)), float((middle + reach) / (1 + room))


def say_interval(value, low=np.nan, high=np.nan, digits=2):
    """Return a figure as text, with its interval where it has one: 0.87 (0.76 to 0.98); – where it is missing."""
    if pd.isna(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text if pd.isna(low) else f"{text} ({low:.{digits}f} to {high:.{digits}f})"
