"""`relativity11` as one would write it in pandas: grouped by segment, with only the zigzag compiled."""

import numba
import numpy as np
import pandas as pd

K = 3.0


def relativity11(frame, starts):
    """Return the eleven columns of the primary set, a frame of float32."""
    segment = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(frame)))
    o, h, l, c = (frame[name] for name in ("open", "high", "low", "close"))
    size = h - l
    body_top, body_bottom = np.maximum(o, c), np.minimum(o, c)
    per_range = 1 / size.clip(lower=1e-6)
    previous = c.groupby(segment).shift()
    true_range = (np.maximum(h, previous) - np.minimum(l, previous)).where(previous.notna())
    atr = true_range.groupby(segment).rolling(10, min_periods=1).mean().droplevel(0).replace(0, 1e-8)
    ema = size.groupby(segment).ewm(alpha=2 / 21, adjust=False).mean().droplevel(0)
    leg, high, high_at, low, low_at = _zigzag(*(x.to_numpy() for x in (h, l, c, atr)), starts)
    bar = np.arange(len(frame)) - starts[segment]
    body = ((c - o) * per_range).clip(-1, 1)
    range_z = (size / ema.clip(lower=1e-6)).clip(0, 3)
    unit = (K * atr).to_numpy()
    columns = {
        "open_norm": ((o - l) * per_range).clip(0, 1),
        "close_norm": ((c - l) * per_range).clip(0, 1),
        "body_pct": body,
        "upper_wick_pct": ((h - body_top) * per_range).clip(0, 1),
        "lower_wick_pct": ((body_bottom - l) * per_range).clip(0, 1),
        "range_z": range_z,
        "dist_to_prev_SH": ((high - c) / unit).clip(-3, 3).fillna(0),
        "dist_to_prev_SL": ((c - low) / unit).clip(-3, 3).fillna(0),
        "bars_since_SH_norm": pd.Series((bar - high_at) / 105, frame.index).clip(0, 3).fillna(3),
        "bars_since_SL_norm": pd.Series((bar - low_at) / 105, frame.index).clip(0, 3).fillna(3),
        "expansion_proxy": (range_z * leg * body).clip(-2, 2),
    }
    return pd.DataFrame(columns).astype(np.float32)


@numba.njit(cache=True)
def _zigzag(high, low, close, atr, starts):
    """Return leg, swing high and its bar, swing low and its bar (NaN before the first)."""
    n = len(close)
    leg = np.zeros(n)
    found = np.full((4, n), np.nan)
    for segment in range(len(starts)):
        first = starts[segment]
        last = starts[segment + 1] if segment + 1 < len(starts) else n
        up, extreme, extreme_at = True, 0.0, 0
        swing_high = swing_high_at = swing_low = swing_low_at = np.nan
        for t in range(first + 1, last):
            if t == first + 1:
                extreme, extreme_at = close[t], 1
            else:
                if up and high[t] > extreme:
                    extreme, extreme_at = high[t], t - first
                if not up and low[t] < extreme:
                    extreme, extreme_at = low[t], t - first
                retraced = extreme - close[t] if up else close[t] - extreme
                if retraced >= K * atr[t] * (1 - 1e-9):
                    if up:
                        swing_high, swing_high_at = extreme, extreme_at
                    else:
                        swing_low, swing_low_at = extreme, extreme_at
                    up = not up
                    extreme, extreme_at = high[t] if up else low[t], t - first
            leg[t] = 1.0 if up else -1.0
            found[0, t], found[1, t], found[2, t], found[3, t] = swing_high, swing_high_at, swing_low, swing_low_at
    return leg, found[0], found[1], found[2], found[3]
