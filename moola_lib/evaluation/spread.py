"""Is the spread over folds one that chance allows? One too small says that the figures are wrong."""

from dataclasses import dataclass

import numpy as np

LEAST_CHANCE = 0.001


@dataclass(frozen=True)
class FoldSpread:
    """The spread of a share over folds, against that of a binomial.

    Attributes
    ----------
    mean : float
        Over all windows.
    sd : float
        Over folds (n − 1).
    expected_sd : float
        That of windows that are independent and alike; windows of one day are
        alike, and so real spreads are larger.
    chance : float
        Of a spread this small or smaller.
    is_too_small : bool
        Audit flag: `chance` is below 0.1%.
    """

    mean: float
    sd: float
    expected_sd: float
    chance: float
    is_too_small: bool


def audit_fold_spread(shares, counts, *, n_simulated=100_000, seed=17):
    """Compare the spread of a share over folds with the least that a binomial allows.

    Parameters
    ----------
    shares : array_like (n_folds,)
        Share of hits of each fold.
    counts : array_like (n_folds,), int
        Windows of each fold.
    n_simulated, seed : int
        Spreads are simulated: with 35 windows a fold, hits are too coarse for χ².

    Returns
    -------
    FoldSpread

    Raises
    ------
    ValueError
        Fewer than two folds are given, or a share is not in [0, 1].
    """
    shares, counts = np.asarray(shares, np.float64), np.asarray(counts)
    if len(shares) < 2 or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError("at least two shares in [0, 1] are needed")
    mean = float((shares * counts).sum() / counts.sum())
    sd = float(shares.std(ddof=1))
    drawn = np.random.default_rng(seed).binomial(counts, mean, size=(n_simulated, len(counts))) / counts
    spreads = drawn.std(axis=1, ddof=1)
    chance = float(((spreads <= sd + 1e-12).sum() + 1) / (n_simulated + 1))
    # all hits or none leave no room for a spread
    return FoldSpread(mean, sd, float(np.sqrt((spreads**2).mean())), chance, 0 < mean < 1 and chance < LEAST_CHANCE)
