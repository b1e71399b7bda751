"""The tick of a series: the grid that its prices lie on."""

import numpy as np

FLOAT32_HALF_STEP = 2.0**-24  # relative; some vendors store prices in single precision
MIN_ON_TICK_SHARE = 0.999
BLOCK = 1 << 15  # prices that stay in the cache between steps
TICKS = sorted(
    {m * 10.0**e for e in range(-6, 3) for m in (1.0, 2.0, 2.5, 5.0)} | {2.0**-e for e in range(3, 9)}, reverse=True
)  # points


def find_tick(prices):
    """Return the largest step of which at least 99.9 % of prices are multiples.

    Parameters
    ----------
    prices : ndarray (n,), float64
        A sample is enough.

    Returns
    -------
    float or None
        Points, one of 1, 2, 2.5 and 5 times a power of ten from 1e-6 to 100, or
        1/8 to 1/256. None where no step passes, or only one so small that the
        rounding of single precision would hide prices that are off it.

    Notes
    -----
    A price counts as a multiple if it is one to the precision of float32, in
    which Yahoo's prices are given.
    """
    finest = 16 * FLOAT32_HALF_STEP * np.median(prices)
    for tick in TICKS:
        if tick < finest:
            return None
        if count_off_tick(prices, tick) <= (1 - MIN_ON_TICK_SHARE) * len(prices):
            return tick
    return None


def count_off_tick(prices, tick):
    """Return how many prices (ndarray (n,), float64) are no multiple of `tick`, to the precision of float32."""
    n_off = 0
    for first in range(0, len(prices), BLOCK):
        ratio = prices[first : first + BLOCK] / tick
        whole = np.rint(ratio)
        if not (ratio == whole).all():  # most blocks of most series lie on the grid exactly
            n_off += int(np.count_nonzero(np.abs(ratio - whole) > FLOAT32_HALF_STEP * ratio))
    return n_off
