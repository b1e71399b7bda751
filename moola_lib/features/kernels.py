"""The compiled pass of `relativity11`: state restarted at each segment.

A segment may be filled in one call or in several: the `extend_` functions take
what was known before (a few bars and a state) and go on from there, so that the
batch and the stream are the same code.
"""

import numba
import numpy as np
from numba import types

from moola_lib.market.ranges import ATR_BARS

EPSILON = 1e-6  # points; below one tick of any index future
ATR_FLOOR = 1e-8  # points; stands for an ATR of 0
RANGE_EMA_ALPHA = 2 / 21
PER_SWING_SCALE = 1 / 105  # per bar
UNSEEN = 3.0  # primary: bars since a swing that never was
PRIMARY, LEGACY = 0, 1
LEGACY_CLOSE_ATR = 1.2
LEGACY_WICK_ATR = 0.5
LEGACY_WICK_BARS = 5
HISTORY_BARS = 19  # earlier bars a row of any set may read: ten for true ranges, 19 for trailing scores
SESSION_BARS = 1440  # bars filled at a time: a day, whose scratch stays in the second cache

# What a segment's bars so far leave behind, as places in one float64 array. Extremes,
# candidate and swings of a down leg are negated prices; `_AT` counts bars in the segment.
SEEN, EMA, LEG, EXTREME, EXTREME_AT, CANDIDATE, CANDIDATE_AT = range(7)
SWING_HIGH, SWING_HIGH_AT, SWING_LOW, SWING_LOW_AT = range(7, 11)
N_STATE = 11

# The C library's copy does not first read the memory that it is about to overwrite, which single stores do.
_copy_bytes = types.ExternalFunction("memcpy", types.voidptr(types.voidptr, types.voidptr, types.size_t))


@numba.njit(cache=True, inline="always")
def clip(value, low, high):
    """Return `value`, or the bound it lies beyond."""
    return min(max(value, low), high)


@numba.njit(cache=True, nogil=True)
def are_finite(open_, high, low, close):
    """Tell whether every price is finite; done for a segment, it warms the cache for the pass that follows."""
    n_wrong = 0
    for series in (open_, high, low, close):
        for t in range(len(series)):
            n_wrong += not abs(series[t]) < np.inf  # false for NaN as well
    return n_wrong == 0


@numba.njit(cache=True, nogil=True)
def reset_state(state):
    """Forget every bar: the next one begins a segment.

    Parameters
    ----------
    state : ndarray (N_STATE,), float64
        Written.
    """
    state[:] = 0.0
    state[CANDIDATE] = -np.inf
    state[SWING_HIGH] = state[SWING_LOW] = np.nan


@numba.njit(cache=True, nogil=True)
def relativity11(open_, high, low, close, starts, rule, k, with_consol, values, is_flip):
    """Fill the eleven columns of `relativity11`, and `consol_proxy` as a twelfth if asked.

    Parameters
    ----------
    open_, high, low, close : ndarray (n_bars,), float64
        Points.
    starts : ndarray (n_segments,), int64
        First bar of each segment.
    rule : int
        PRIMARY or LEGACY zigzag.
    k : float
        Retracement of the close, in ATRs, that confirms a primary swing.
    with_consol : bool
    values : ndarray (n_bars, 11 or 12), float32
        Written; contiguous, as are all arrays here.
    is_flip : ndarray (n_bars,), bool
        Written: True where a swing is confirmed.

    Returns
    -------
    bool
        Whether every price is finite; if not, the rows mean nothing.
    """
    state = np.empty(N_STATE)
    is_finite = True
    for segment in range(len(starts)):
        first = starts[segment]
        last = starts[segment + 1] if segment + 1 < len(starts) else len(close)
        reset_state(state)
        o, h, l, c = open_[first:last], high[first:last], low[first:last], close[first:last]
        rows, flips = values[first:last], is_flip[first:last]
        is_finite &= extend_relativity11(o, h, l, c, 0, state, rule, k, with_consol, rows, flips)
    return is_finite


@numba.njit(cache=True, nogil=True)
def extend_relativity11(open_, high, low, close, n_before, state, rule, k, with_consol, values, is_flip):
    """Fill the rows of a segment's next bars: first what depends on the bar before, then the columns.

    Parameters
    ----------
    open_, high, low, close : ndarray (n_before + n,), float64
        The new bars, after the segment's last `n_before`: all there are, or at least HISTORY_BARS.
    n_before : int
    state : ndarray (N_STATE,), float64
        After the bars before; moved on to the last bar.
    rule, k, with_consol
        As for `relativity11`.
    values : ndarray (n, 11 or 12), float32
        Written, as is `is_flip`; contiguous.
    is_flip : ndarray (n,), bool

    Returns
    -------
    bool
        Whether the new bars' prices are finite; if not, rows and state mean nothing.
    """
    n_bars = min(len(close) - n_before, SESSION_BARS)
    scratch = np.empty((8, HISTORY_BARS + n_bars))  # the path, then ATRs and true ranges
    rows = np.empty((n_bars, values.shape[1]), np.float32)  # fits the cache, where many small stores are cheap
    is_finite = True
    for t in range(n_before, len(close), SESSION_BARS):
        end = min(t + SESSION_BARS, len(close))
        at = max(0, t - HISTORY_BARS)
        atrs = _average_true_range(high[at:end], low[at:end], close[at:end], scratch[6], scratch[7])[t - at :]
        o, h, l, c = open_[t:end], high[t:end], low[t:end], close[t:end]
        first = int(state[SEEN])
        is_finite &= _follow_legs(o, h, l, c, atrs, state, rule, k, scratch, is_flip[t - n_before : end - n_before])
        _derive_columns(o, h, l, c, atrs, scratch, first, rule, k, rows)
        if with_consol:
            _derive_consol(o, h, l, c, scratch, first, rule, rows)
        _copy_bytes(values[t - n_before :].ctypes, rows.ctypes, (end - t) * values.shape[1] * values.itemsize)
    return is_finite


@numba.njit(cache=True, nogil=True)
def _follow_legs(open_, high, low, close, atrs, state, rule, k, path, is_flip):
    """Go through the bars in order: what each leaves behind depends on the one before.

    Prices of a down leg are negated, so that both legs follow one rule.

    Parameters
    ----------
    path : ndarray (6 or more, n or more), float64
        Written: by row the EMA of the range, the leg, the last swing high and its bar, the last swing low and its bar.

    Returns
    -------
    bool
        Whether every price is finite.
    """
    seen = int(state[SEEN])
    ema = state[EMA] if seen > 0 else high[0] - low[0]
    leg, extreme, extreme_at = state[LEG], state[EXTREME], int(state[EXTREME_AT])
    candidate, candidate_at = state[CANDIDATE], int(state[CANDIDATE_AT])
    swing_high, swing_high_at = state[SWING_HIGH], state[SWING_HIGH_AT]
    swing_low, swing_low_at = state[SWING_LOW], state[SWING_LOW_AT]
    bodies = 0.0
    for row in range(len(close)):
        t = seen + row
        o, h, l, c = open_[row], high[row], low[row], close[row]
        ema += RANGE_EMA_ALPHA * (h - l - ema)
        bodies += c - o
        atr = atrs[row]
        unit = _or_floor(atr)

        flipped = False
        if t == 1:
            leg, extreme, extreme_at = 1.0, c, t
        elif t > 1:
            # products (high is never below low) and a choice instead of branches, often guessed wrong
            top, bottom = max(leg * h, leg * l), min(leg * h, leg * l)
            extreme_at = t if top > extreme else extreme_at
            extreme = max(extreme, top)
            retraced = extreme - leg * c
            if rule == PRIMARY:
                # the factor keeps exact ticks from flipping when prices are rescaled
                flipped = retraced >= k * unit * (1 - 1e-9)
            else:
                if top > candidate:
                    candidate, candidate_at = top, t
                flipped = retraced >= LEGACY_CLOSE_ATR * unit or (
                    atr > 0.0 and t - candidate_at <= LEGACY_WICK_BARS and candidate - bottom >= LEGACY_WICK_ATR * atr
                )
            if flipped:
                if leg > 0:
                    swing_high, swing_high_at = extreme, float(extreme_at)
                else:
                    swing_low, swing_low_at = -extreme, float(extreme_at)
                leg, extreme, extreme_at = -leg, -bottom, t
                candidate, candidate_at = extreme, t
        is_flip[row] = flipped
        path[0, row], path[1, row] = ema, leg
        path[2, row], path[3, row] = swing_high, swing_high_at
        path[4, row], path[5, row] = swing_low, swing_low_at

    state[SEEN], state[EMA] = seen + len(close), ema
    state[LEG], state[EXTREME], state[EXTREME_AT] = leg, extreme, extreme_at
    state[CANDIDATE], state[CANDIDATE_AT] = candidate, candidate_at
    state[SWING_HIGH], state[SWING_HIGH_AT] = swing_high, swing_high_at
    state[SWING_LOW], state[SWING_LOW_AT] = swing_low, swing_low_at
    # one price that is not finite spoils these sums for good; looking at each would be one more pass over memory
    return np.isfinite(ema) and np.isfinite(bodies)


@numba.njit(cache=True, nogil=True, error_model="numpy")  # no check for division by 0: divisors have floors
def _derive_columns(open_, high, low, close, atrs, path, first, rule, k, rows):
    """Fill the rows from the path: no bar waits for another here, and the loop compiles to vector instructions.

    These turn columns into rows best by fours; the second loop moves four numbers in one instruction.
    """
    n = len(close)
    fours = np.empty((3, SESSION_BARS, 4), np.float32)
    left, middle, right = fours[0], fours[1], fours[2]
    unseen = UNSEEN if rule == PRIMARY else 0.0
    unit_scale = k if rule == PRIMARY else 1.0
    for row in range(n):
        o, h, l, c = open_[row], high[row], low[row], close[row]
        t, size, ema, leg = first + row, h - l, path[0, row], path[1, row]
        swing_high, swing_high_at, swing_low, swing_low_at = path[2, row], path[3, row], path[4, row], path[5, row]
        # one division each for what several columns divide by: divisions are most of a bar's arithmetic
        per_range = _per_range(size)
        per_unit = 1.0 / (_or_floor(atrs[row]) * unit_scale)
        body = _body(o, c, per_range)
        range_z = _range_z(size, ema)
        left[row, 0] = clip((o - l) * per_range, 0.0, 1.0)
        left[row, 1] = clip((c - l) * per_range, 0.0, 1.0)
        left[row, 2] = body
        left[row, 3] = clip((h - max(o, c)) * per_range, 0.0, 1.0)
        middle[row, 0] = clip((min(o, c) - l) * per_range, 0.0, 1.0)
        middle[row, 1] = range_z
        middle[row, 2] = 0.0 if np.isnan(swing_high) else clip((swing_high - c) * per_unit, -3.0, 3.0)
        middle[row, 3] = 0.0 if np.isnan(swing_low) else clip((c - swing_low) * per_unit, -3.0, 3.0)
        right[row, 0] = _bars_since(t, swing_high, swing_high_at, unseen)
        right[row, 1] = _bars_since(t, swing_low, swing_low_at, unseen)
        right[row, 2] = clip(range_z * leg * body, -2.0, 2.0)
        right[row, 3] = 0.0  # makes it four
    for row in range(n):
        v0, v1, v2, v3 = left[row, 0], left[row, 1], left[row, 2], left[row, 3]
        v4, v5, v6, v7 = middle[row, 0], middle[row, 1], middle[row, 2], middle[row, 3]
        v8, v9, v10 = right[row, 0], right[row, 1], right[row, 2]
        rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3] = v0, v1, v2, v3
        rows[row, 4], rows[row, 5], rows[row, 6], rows[row, 7] = v4, v5, v6, v7
        rows[row, 8], rows[row, 9], rows[row, 10] = v8, v9, v10


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _derive_consol(open_, high, low, close, path, first, rule, rows):
    """Fill the twelfth column, a pass of its own for those who want it."""
    unseen = UNSEEN if rule == PRIMARY else 0.0
    for row in range(len(close)):
        t, size = first + row, high[row] - low[row]
        body, range_z = _body(open_[row], close[row], _per_range(size)), _range_z(size, path[0, row])
        since_high = _bars_since(t, path[2, row], path[3, row], unseen)
        since_low = _bars_since(t, path[4, row], path[5, row], unseen)
        rows[row, 11] = consol_proxy(range_z, body, since_high, since_low)


@numba.njit(cache=True, inline="always", error_model="numpy")
def _per_range(size):
    return 1.0 / max(size, EPSILON)


@numba.njit(cache=True, inline="always")
def _body(o, c, per_range):
    return clip((c - o) * per_range, -1.0, 1.0)


@numba.njit(cache=True, inline="always", error_model="numpy")
def _range_z(size, ema):
    return clip(size / max(ema, EPSILON), 0.0, 3.0)


@numba.njit(cache=True, inline="always")
def _bars_since(t, swing, swing_at, unseen):
    return unseen if np.isnan(swing) else clip((t - swing_at) * PER_SWING_SCALE, 0.0, 3.0)


@numba.njit(cache=True, inline="always")
def _or_floor(atr):
    return atr if atr > 0.0 else ATR_FLOOR


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _average_true_range(high, low, close, atr, true_range):
    """Return `atr`, filled with the mean of the last ten true ranges, fewer while warming; the first bar has none (0).

    A loop of its own, over bars that do not depend on each other, compiles to vector instructions.
    """
    n = len(close)
    atr[0] = 0.0
    next_high, next_low = high[1:], low[1:]
    for t in range(n - 1):
        true_range[t] = max(next_high[t], close[t]) - min(next_low[t], close[t])
    total = 0.0
    for t in range(min(n - 1, ATR_BARS)):
        total += true_range[t]
        atr[t + 1] = total / (t + 1)
    full = atr[ATR_BARS + 1 : n]
    for t in range(len(full)):
        total = 0.0
        for j in range(1, ATR_BARS + 1):
            total += true_range[t + j]
        full[t] = total / ATR_BARS
    return atr


@numba.njit(cache=True, nogil=True)
def consol_proxy(range_z, body, since_high, since_low):
    """Return (1 - range_z/3)(1 - |body|) times the mean bars since a swing, clipped to [0, 3]."""
    return clip((1 - range_z / 3) * (1 - abs(body)) * (since_high + since_low) / 2, 0.0, 3.0)
