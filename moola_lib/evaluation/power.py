"""What a number of labels can tell apart: detectable differences, labels needed, and what luck alone adds."""

import math
from statistics import NormalDist

import numpy as np
import pandas as pd

from moola_lib.errors import UserError


def labels_needed(difference, discordance, *, power=0.80, level=0.95):
    """Return how many labelled windows a paired comparison of two hit rates needs.

    Parameters
    ----------
    difference : float
        Of the two shares of hits, for example 0.12.
    discordance : float
        Share of windows that one method hits and the other misses.
    power : float
        Chance to see the difference.
    level : float
        Of the two-sided test.

    Returns
    -------
    int
        Windows, taken as independent: where several share a day, more are needed.

    Raises
    ------
    UserError
        The difference is 0, or more than the discordance allows.

    Notes
    -----
    McNemar's test; Connor 1987, Biometrics 43: n = (z₁ √ψ + z₂ √(ψ − δ²))² / δ².
    """
    size = abs(difference)
    if not 0 < size <= discordance <= 1:
        raise UserError(
            f"two methods that disagree on {discordance:.0%} of windows cannot differ by {size:.0%}; "
            "give a difference above 0 and at most the discordance"
        )
    return math.ceil(_windows_for(size, discordance, power, level) - 1e-9)


def minimal_difference(n_windows, discordance, *, power=0.80, level=0.95):
    """Return the least difference of two hit rates that n windows can tell from 0.

    Parameters
    ----------
    n_windows : int
    discordance, power, level : float
        As in `labels_needed`.

    Returns
    -------
    float
        A share; NaN where even the largest possible difference would go unseen.
    """
    if _windows_for(discordance, discordance, power, level) > n_windows:
        return math.nan
    low, high = 0.0, float(discordance)
    for _ in range(60):
        middle = (low + high) / 2
        if _windows_for(middle, discordance, power, level) > n_windows:
            low = middle
        else:
            high = middle
    return high


def power_table(n_windows, *, discordances=(0.1, 0.2, 0.3, 0.4), power=0.80, level=0.95):
    """Return the minimal detectable difference by number of windows and discordance.

    Parameters
    ----------
    n_windows : sequence of int
    discordances : sequence of float
    power, level : float

    Returns
    -------
    DataFrame
        `n_windows`, `discordance`, `difference` (NaN: none is detectable).
    """
    rows = [
        (n, discordance, minimal_difference(n, discordance, power=power, level=level))
        for discordance in discordances
        for n in n_windows
    ]
    return pd.DataFrame(rows, columns=["n_windows", "discordance", "difference"])


def luck_of_the_best(n_trials, n_windows, share=0.5):
    """Return what the best of several equally good configurations gains by chance alone.

    Parameters
    ----------
    n_trials : int
        Configurations tried, each scored on windows of its own; on the same
        windows their scores go together, and chance adds less.
    n_windows : int
    share : float
        True share of hits of every one.

    Returns
    -------
    float
        Expected largest share of hits less the true share.
    """
    from scipy.stats import binom

    below = binom.cdf(np.arange(n_windows), n_windows, share)
    return float((1 - below**n_trials).sum() / n_windows - share)


def _windows_for(size, discordance, power, level):
    """Return the windows that a difference needs, as a real number."""
    if size <= 0:
        return math.inf
    normal = NormalDist()
    spread = normal.inv_cdf((1 + level) / 2) * math.sqrt(discordance)
    spread += normal.inv_cdf(power) * math.sqrt(max(discordance - size**2, 0.0))
    return (spread / size) ** 2
