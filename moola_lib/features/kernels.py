"""The compiled passes: one visit per bar, state restarted at each segment."""

import numba
import numpy as np

EPSILON = 1e-6  # points; below one tick of any index future
ATR_BARS = 10
ATR_FLOOR = 1e-8  # points; stands for an ATR of 0
RANGE_EMA_ALPHA = 2 / 21
SWING_SCALE_BARS = 105.0
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
    n = len(close)
    ring = np.zeros(ATR_BARS)
    for segment in range(len(starts)):
        first = starts[segment]
        last = starts[segment + 1] if segment + 1 < len(starts) else n
        ema = high[first] - low[first]
        leg = 0
        extreme, extreme_at = 0.0, 0
        candidate, candidate_at = np.nan, 0
        swing_high, swing_high_at = np.nan, 0
        swing_low, swing_low_at = np.nan, 0
        for t in range(first, last):
            o, h, l, c = open_[t], high[t], low[t], close[t]
            size = h - l
            flipped = False
            atr = 0.0
            if t > first:
                ema += RANGE_EMA_ALPHA * (size - ema)
                previous = close[t - 1]
                ring[(t - first - 1) % ATR_BARS] = max(size, abs(h - previous), abs(l - previous))
                count = min(t - first, ATR_BARS)
                total = 0.0
                for j in range(count):
                    total += ring[j]
                atr = total / count
            unit = atr if atr > 0.0 else ATR_FLOOR

            if t == first + 1:
                leg, extreme, extreme_at = 1, c, t
            elif t > first + 1:
                if leg > 0:
                    if h > extreme:
                        extreme, extreme_at = h, t
                    if not h <= candidate:  # also when the candidate is still empty (NaN)
                        candidate, candidate_at = h, t
                    retraced, wick_retraced = extreme - c, candidate - l
                else:
                    if l < extreme:
                        extreme, extreme_at = l, t
                    if not l >= candidate:
                        candidate, candidate_at = l, t
                    retraced, wick_retraced = c - extreme, h - candidate
                if rule == PRIMARY:
                    # the factor keeps exact ticks from flipping when prices are rescaled
                    flipped = retraced >= k * unit * (1 - 1e-9)
                else:
                    flipped = retraced >= LEGACY_CLOSE_ATR * unit or (
                        atr > 0.0 and t - candidate_at <= LEGACY_WICK_BARS and wick_retraced >= LEGACY_WICK_ATR * atr
                    )
                if flipped:
                    if leg > 0:
                        swing_high, swing_high_at = extreme, extreme_at
                        leg, extreme = -1, l
                    else:
                        swing_low, swing_low_at = extreme, extreme_at
                        leg, extreme = 1, h
                    extreme_at = t
                    candidate, candidate_at = extreme, t
            is_flip[t] = flipped

            width = max(size, EPSILON)
            body = _clip((c - o) / width, -1.0, 1.0)
            range_z = _clip(size / max(ema, EPSILON), 0.0, 3.0)
            divisor = unit * k if rule == PRIMARY else unit
            unseen = UNSEEN if rule == PRIMARY else 0.0
            since_high = since_low = unseen
            to_high = to_low = 0.0
            if not np.isnan(swing_high):
                to_high = _clip((swing_high - c) / divisor, -3.0, 3.0)
                since_high = _clip((t - swing_high_at) / SWING_SCALE_BARS, 0.0, 3.0)
            if not np.isnan(swing_low):
                to_low = _clip((c - swing_low) / divisor, -3.0, 3.0)
                since_low = _clip((t - swing_low_at) / SWING_SCALE_BARS, 0.0, 3.0)
            values[t, 0] = _clip((o - l) / width, 0.0, 1.0)
            values[t, 1] = _clip((c - l) / width, 0.0, 1.0)
            values[t, 2] = body
            values[t, 3] = _clip((h - max(o, c)) / width, 0.0, 1.0)
            values[t, 4] = _clip((min(o, c) - l) / width, 0.0, 1.0)
            values[t, 5] = range_z
            values[t, 6] = to_high
            values[t, 7] = to_low
            values[t, 8] = since_high
            values[t, 9] = since_low
            values[t, 10] = _clip(range_z * leg * body, -2.0, 2.0)
            if with_consol:
                values[t, 11] = consol_proxy(range_z, body, since_high, since_low)


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
