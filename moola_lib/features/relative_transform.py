"""The compiled pass of the older set, `relative_transform11`: nothing but the last 20 bars is remembered."""

import numba
import numpy as np

from moola_lib.features.kernels import HISTORY_BARS, are_finite, clip

Z_BARS = HISTORY_BARS + 1
Z_EPSILON = 1e-8  # points
BLOCK_BARS = 512  # bars whose scratch stays in the fastest cache
SMALL_STEP = 0.02  # half the relative step up to which four terms give a log return to 3e-15


@numba.njit(cache=True, nogil=True)
def relative_transform11(open_, high, low, close, starts, values):
    """Fill the eleven columns of the older set: log returns, candle ratios, trailing z-scores.

    Parameters
    ----------
    open_, high, low, close : ndarray (n_bars,), float64
        Points, above 0.
    starts : ndarray (n_segments,), int64
    values : ndarray (n_bars, 11), float32
        Written.

    Returns
    -------
    bool
        Whether every price is finite; if not, the rows mean nothing.
    """
    is_finite = True
    for segment in range(len(starts)):
        first = starts[segment]
        last = starts[segment + 1] if segment + 1 < len(starts) else len(close)
        for t in range(first, last, BLOCK_BARS):
            end = min(t + BLOCK_BARS, last)
            at = max(first, t - HISTORY_BARS)
            o, h, l, c = open_[at:end], high[at:end], low[at:end], close[at:end]
            is_finite &= are_finite(o, h, l, c)
            extend_relative_transform11(o, h, l, c, t - at, values[t:end])
    return is_finite


@numba.njit(cache=True, nogil=True, error_model="numpy")
def extend_relative_transform11(open_, high, low, close, n_before, values):
    """Fill the rows of a segment's next bars.

    Parameters
    ----------
    open_, high, low, close : ndarray (n_before + n,), float64
        The new bars, after the segment's last `n_before`: all there are, or at least HISTORY_BARS.
    n_before : int
    values : ndarray (n, 11), float32
        Written.
    """
    n = len(close) - n_before
    column = np.empty(n, np.float32)  # filled by vector instructions, then dealt out to the rows
    for place, series in enumerate((open_, high, low, close)):
        _log_returns(series, n_before, column)
        for row in range(n):
            values[row, place] = column[row]
        _trailing_scores(series, n_before, column)
        for row in range(n):
            values[row, 7 + place] = column[row]
    open_, high, low, close = open_[n_before:], high[n_before:], low[n_before:], close[n_before:]
    for row in range(n):
        o, h, l, c = open_[row], high[row], low[row], close[row]
        per_width = 1.0 / (h - l + Z_EPSILON)
        values[row, 4] = abs(c - o) * per_width
        values[row, 5] = (h - max(o, c)) * per_width
        values[row, 6] = (min(o, c) - l) * per_width


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _log_returns(series, n_before, out):
    """Fill the new bars' log returns as 2 artanh((a - b)/(a + b)), whose series is short for everyday steps."""
    if n_before == 0:
        out[0] = 0.0
        n_before, out = 1, out[1:]
    now, last = series[n_before:], series[n_before - 1 :]
    has_large = False
    for t in range(len(now)):
        step = (now[t] - last[t]) / (now[t] + last[t])
        square = step * step
        out[t] = 2.0 * step * (1.0 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7))))
        has_large |= abs(step) > SMALL_STEP
    if has_large:
        for t in range(len(now)):
            if abs((now[t] - last[t]) / (now[t] + last[t])) > SMALL_STEP:
                out[t] = np.log(now[t] / last[t])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _trailing_scores(series, n_before, out):
    """Fill the new bars' z-scores among the last Z_BARS, fewer while warming.

    Sums are of deviations from the current price: a constant run scores exactly
    0, and no score can pass sqrt(Z_BARS - 1), so that the mean of squares less
    the squared mean loses one digit at most.
    """
    n = len(series)
    for t in range(n_before, min(HISTORY_BARS, n)):
        total = squares = 0.0
        for j in range(t):
            deviation = series[t] - series[j]
            total += deviation
            squares += deviation * deviation
        out[t - n_before] = _score(total, squares, t + 1)
    first = max(HISTORY_BARS, n_before)
    if first >= n:
        return
    oldest, now, full = series[first - HISTORY_BARS :], series[first:], out[first - n_before :]
    for t in range(len(now)):
        total = squares = 0.0
        for j in range(HISTORY_BARS):
            deviation = now[t] - oldest[t + j]
            total += deviation
            squares += deviation * deviation
        full[t] = _score(total, squares, Z_BARS)


@numba.njit(cache=True, inline="always", error_model="numpy")
def _score(total, squares, count):
    """Return the z-score of the current price from its sums of deviations."""
    mean = total / count
    variance = max(squares / count - mean * mean, 0.0)
    return clip(mean / (np.sqrt(variance) + Z_EPSILON), -10.0, 10.0)
