"""True range and average true range, compiled."""

import numba
import numpy as np

ATR_BARS = 10


@numba.njit(cache=True)
def true_range(high, low, close, starts):
    """Return max(H-L, |H-C₋₁|, |L-C₋₁|) per bar, in points.

    Parameters
    ----------
    high, low, close : ndarray (n_bars,), float64
    starts : ndarray (n_segments,), int64
        Segment starts; a segment's first bar has no previous close and gets NaN.

    Returns
    -------
    ndarray (n_bars,), float64
    """
    n = len(close)
    out = np.empty(n)
    for k in range(len(starts)):
        first = starts[k]
        last = starts[k + 1] if k + 1 < len(starts) else n
        out[first] = np.nan
        for t in range(first + 1, last):
            out[t] = max(high[t] - low[t], abs(high[t] - close[t - 1]), abs(low[t] - close[t - 1]))
    return out


@numba.njit(cache=True)
def average_true_range(high, low, close, starts, n_atr=ATR_BARS):
    """Return the simple mean of the last `n_atr` true ranges, current bar included, in points.

    It expands while it warms up inside each segment; a segment's first bar
    has no true range and gets NaN.

    Parameters
    ----------
    high, low, close : ndarray (n_bars,), float64
    starts : ndarray (n_segments,), int64
    n_atr : int

    Returns
    -------
    ndarray (n_bars,), float64
    """
    ranges = true_range(high, low, close, starts)
    n = len(close)
    out = np.empty(n)
    for k in range(len(starts)):
        first = starts[k]
        last = starts[k + 1] if k + 1 < len(starts) else n
        out[first] = np.nan
        for t in range(first + 1, last):
            oldest = max(first + 1, t - n_atr + 1)
            total = 0.0
            for j in range(oldest, t + 1):
                total += ranges[j]
            out[t] = total / (t - oldest + 1)
    return out
