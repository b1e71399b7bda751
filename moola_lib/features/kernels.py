"""The compiled passes: one visit per bar, state restarted at each segment."""

import numba
import numpy as np

from moola_lib.market.ranges import ATR_BARS

EPSILON = 1e-6  # points; below one tick of any index future
ATR_FLOOR = 1e-8  # points; stands for an ATR of 0
RANGE_EMA_ALPHA = 2 / 21
PER_SWING_SCALE = 1 / 105  # per bar
UNSEEN = 3.0  # primary: bars since a swing that never was
Z_BARS = 20
Z_EPSILON = 1e-8  # points
PRIMARY, LEGACY = 0, 1
LEGACY_CLOSE_ATR = 1.2
LEGACY_WICK_ATR = 0.5
LEGACY_WICK_BARS = 5


@numba.njit(cache=True, inline="always")
def _clip(value, low, high):
    return min(max(value, low), high)


@numba.njit(cache=True)
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
        Written.
    is_flip : ndarray (n_bars,), bool
        Written: True where a swing is confirmed.
    """
    for segment in range(len(starts)):
        first = starts[segment]
        last = starts[segment + 1] if segment + 1 < len(starts) else len(close)
        o, h, l, c = open_[first:last], high[first:last], low[first:last], close[first:last]
        _fill_segment(o, h, l, c, rule, k, with_consol, values[first:last], is_flip[first:last])


@numba.njit(cache=True, error_model="numpy")  # no check for division by 0: divisors have floors
def _fill_segment(open_, high, low, close, rule, k, with_consol, values, is_flip):
    """Fill one segment's rows; prices of a down leg are negated, so that both legs follow one rule."""
    atrs = _average_true_range(high, low, close)
    ema = high[0] - low[0]
    leg = 0.0
    extreme, extreme_at = 0.0, 0
    candidate, candidate_at = -np.inf, 0
    swing_high, swing_high_at = np.nan, 0
    swing_low, swing_low_at = np.nan, 0
    unseen = UNSEEN if rule == PRIMARY else 0.0
    for t in range(len(close)):
        o, h, l, c = open_[t], high[t], low[t], close[t]
        size = h - l
        ema += RANGE_EMA_ALPHA * (size - ema)
        atr = atrs[t]
        unit = atr if atr > 0.0 else ATR_FLOOR

        flipped = False
        if t == 1:
            leg, extreme, extreme_at = 1.0, c, t
        elif t > 1:
            top, bottom = (h, l) if leg > 0 else (-l, -h)
            if top > extreme:
                extreme, extreme_at = top, t
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
                    swing_high, swing_high_at = extreme, extreme_at
                else:
                    swing_low, swing_low_at = -extreme, extreme_at
                leg, extreme, extreme_at = -leg, -bottom, t
                candidate, candidate_at = extreme, t
        is_flip[t] = flipped

        # one division each for what several columns divide by: divisions are most of a bar's arithmetic
        per_range = 1.0 / max(size, EPSILON)
        per_unit = 1.0 / (unit * k if rule == PRIMARY else unit)
        body = _clip((c - o) * per_range, -1.0, 1.0)
        range_z = _clip(size / max(ema, EPSILON), 0.0, 3.0)
        since_high = since_low = unseen
        to_high = to_low = 0.0
        if not np.isnan(swing_high):
            to_high = _clip((swing_high - c) * per_unit, -3.0, 3.0)
            since_high = _clip((t - swing_high_at) * PER_SWING_SCALE, 0.0, 3.0)
        if not np.isnan(swing_low):
            to_low = _clip((c - swing_low) * per_unit, -3.0, 3.0)
            since_low = _clip((t - swing_low_at) * PER_SWING_SCALE, 0.0, 3.0)
        values[t, 0] = _clip((o - l) * per_range, 0.0, 1.0)
        values[t, 1] = _clip((c - l) * per_range, 0.0, 1.0)
        values[t, 2] = body
        values[t, 3] = _clip((h - max(o, c)) * per_range, 0.0, 1.0)
        values[t, 4] = _clip((min(o, c) - l) * per_range, 0.0, 1.0)
        values[t, 5] = range_z
        values[t, 6] = to_high
        values[t, 7] = to_low
        values[t, 8] = since_high
        values[t, 9] = since_low
        values[t, 10] = _clip(range_z * leg * body, -2.0, 2.0)
        if with_consol:
            values[t, 11] = consol_proxy(range_z, body, since_high, since_low)


@numba.njit(cache=True, error_model="numpy")
def _average_true_range(high, low, close):
    """Return one segment's mean of the last ten true ranges, fewer while warming; bar 0 has none (0).

    A loop of its own, over bars that do not depend on each other, compiles to vector instructions.
    """
    n = len(close)
    atr = np.zeros(n)
    true_range = np.empty(n - 1)
    next_high, next_low = high[1:], low[1:]
    for t in range(n - 1):
        true_range[t] = max(next_high[t], close[t]) - min(next_low[t], close[t])
    total = 0.0
    for t in range(min(n - 1, ATR_BARS)):
        total += true_range[t]
        atr[t + 1] = total / (t + 1)
    full = atr[ATR_BARS + 1 :]
    for t in range(len(full)):
        total = 0.0
        for j in range(1, ATR_BARS + 1):
            total += true_range[t + j]
        full[t] = total / ATR_BARS
    return atr


@numba.njit(cache=True)
def consol_proxy(range_z, body, since_high, since_low):
    """Return (1 - range_z/3)(1 - |body|) times the mean bars since a swing, clipped to [0, 3]."""
    return _clip((1 - range_z / 3) * (1 - abs(body)) * (since_high + since_low) / 2, 0.0, 3.0)


@numba.njit(cache=True)
def relative_transform11(open_, high, low, close, starts, values):
    """Fill the eleven columns of the older set: log returns, candle ratios, trailing z-scores.

    Parameters
    ----------
    open_, high, low, close : ndarray (n_bars,), float64
        Points.
    starts : ndarray (n_segments,), int64
    values : ndarray (n_bars, 11), float32
        Written.
    """
    n = len(close)
    for segment in range(len(starts)):
        first = starts[segment]
        last = starts[segment + 1] if segment + 1 < len(starts) else n
        for t in range(first, last):
            oldest = max(first, t - Z_BARS + 1)
            count = t - oldest + 1
            for column, series in enumerate((open_, high, low, close)):
                values[t, column] = np.log(series[t] / series[t - 1]) if t > first else 0.0
                # deviations from the current price: a constant run then has a mean of exactly 0
                current = series[t]
                mean = 0.0
                for j in range(oldest, t + 1):
                    mean += series[j] - current
                mean /= count
                variance = 0.0
                for j in range(oldest, t + 1):
                    variance += (series[j] - current - mean) ** 2
                z = -mean / (np.sqrt(variance / count) + Z_EPSILON)
                values[t, 7 + column] = _clip(z, -10.0, 10.0) if t > first else 0.0
            width = high[t] - low[t] + Z_EPSILON
            values[t, 4] = abs(close[t] - open_[t]) / width
            values[t, 5] = (high[t] - max(open_[t], close[t])) / width
            values[t, 6] = (min(open_[t], close[t]) - low[t]) / width
