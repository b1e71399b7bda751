"""What bars say about themselves: targets of multitask pre-training, one per bar and task, without any label."""

import numpy as np
import pandas as pd

from moola_lib.market.ranges import average_true_range

PRETEXT_TASKS = {
    "expansion": ("no", "yes"),
    "swing": ("high", "low", "neither"),
    "candle": ("bullish", "bearish", "neutral", "doji"),
}
UNKNOWN = -100  # no target: what torch's cross-entropy ignores
BEFORE_BARS = 5
EXPANSION_ATR = 2.0
EXPANSION_ATR_BARS = 14
SWING_BARS = 2  # on each side of the extremum
NEUTRAL_BODY, DOJI_BODY = 0.3, 0.1
EPSILON = 1e-6  # points; a bar without range has no body


def pretext_targets(frame, starts, is_valid):
    """Return the classes of every bar for the three tasks.

    - expansion: the bar reaches beyond the high or low of the five bars before
      by more than 2 ATR (mean of 14 true ranges, this bar's included);
    - swing: the bar's high is above, or its low below, those of the two bars on
      either side. It looks ahead: a target, never a feature. A bar that is both
      has no target;
    - candle: body / range of at least .3 either way, below .3, below .1.

    Parameters
    ----------
    frame : DataFrame
        Bars with `open high low close`, in points.
    starts : ndarray (n_segments,), int64
        First bar of each segment; nothing is compared across.
    is_valid : ndarray (n_bars,), bool
        Bars whose features count; the others have no target.

    Returns
    -------
    DataFrame (n_bars, 3), int8
        Columns as PRETEXT_TASKS; class numbers in its order, UNKNOWN where the
        bar is not valid or the segment does not hold the bars that decide.
    """
    open_, high, low, close = (frame[name].to_numpy(np.float64) for name in ("open", "high", "low", "close"))
    from_start, to_end = _distance_to_edges(starts, len(frame))
    size = high - low
    targets = {
        "expansion": _expansions(high, low, average_true_range(high, low, close, starts, EXPANSION_ATR_BARS)),
        "swing": _swings(high, low),
        "candle": _candles(np.divide(close - open_, size, out=np.zeros_like(size), where=size > EPSILON)),
    }
    is_known = {
        "expansion": from_start >= EXPANSION_ATR_BARS,
        "swing": (from_start >= SWING_BARS) & (to_end >= SWING_BARS),
        "candle": np.ones(len(frame), bool),
    }
    columns = {task: np.where(is_known[task] & is_valid, targets[task], UNKNOWN) for task in PRETEXT_TASKS}
    return pd.DataFrame(columns, index=frame.index, dtype=np.int8)


def _expansions(high, low, atr):
    """Return 1 where a bar reaches beyond the bars before it by more than 2 ATR, else 0."""
    highest, lowest = (_around(series, range(1, BEFORE_BARS + 1)) for series in (high, low))
    return (high > highest.max(axis=0) + EXPANSION_ATR * atr) | (low < lowest.min(axis=0) - EXPANSION_ATR * atr)


def _swings(high, low):
    """Return 0 for a swing high, 1 for a swing low, 2 for neither, UNKNOWN for both."""
    others = [shift for shift in range(-SWING_BARS, SWING_BARS + 1) if shift != 0]
    is_high, is_low = (high > _around(high, others)).all(axis=0), (low < _around(low, others)).all(axis=0)
    return np.select([is_high & is_low, is_high, is_low], [UNKNOWN, 0, 1], default=2)


def _candles(body):
    """Return 0 bullish, 1 bearish, 2 neutral or 3 doji of signed bodies (share of the range)."""
    return np.select([np.abs(body) < DOJI_BODY, np.abs(body) < NEUTRAL_BODY, body > 0], [3, 2, 0], default=1)


def _around(series, shifts):
    """Return the values so many bars before (negative: after) each bar, (n_shifts, n_bars)."""
    return np.stack([np.roll(series, shift) for shift in shifts])


def _distance_to_edges(starts, n_bars):
    """Return how many bars of its segment lie before and after each bar, two (n_bars,) int64."""
    bars = np.arange(n_bars)
    segment = np.searchsorted(starts, bars, side="right") - 1
    ends = np.r_[starts[1:], n_bars]
    return bars - starts[segment], ends[segment] - 1 - bars
