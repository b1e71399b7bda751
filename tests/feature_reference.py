"""Slow, literal transcription of the feature definitions, one bar at a time: the oracle of the feature tests.

It shares no code with moola_lib.features. Prices are plain sequences of floats; segment_starts lists the index of
the first bar of each segment (the first one is 0). The sample bars that the feature tests use are made here too.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

EPSILON = 1e-6
EMA_ALPHA = 2 / 21
ATR_BARS = 10
ATR_FLOOR = 1e-8
WINDOW_BARS = 105
PRIMARY_TOLERANCE = 1 - 1e-9
LEGACY_CLOSE_ATRS = 1.2
LEGACY_WICK_ATRS = 0.5
LEGACY_CANDIDATE_BARS = 5
Z_BARS = 20
Z_EPSILON = 1e-8


def clip(value, low, high):
    return min(max(value, low), high)


def segments(n_bars, segment_starts):
    """Pairs (first bar, bar after the last) of every segment."""
    starts = [int(start) for start in segment_starts]
    return list(zip(starts, [*starts[1:], n_bars], strict=True))


def true_range(high, low, previous_close):
    return max(high - low, abs(high - previous_close), abs(low - previous_close))


@dataclass
class Swing:
    """A price and the bar (counted in the segment) it was reached at."""

    price: float
    bar: int


@dataclass
class SwingState:
    """What the zigzag knows after one bar; leg is +1, -1, or 0 at a segment's bar 0, which has no ATR either."""

    leg: int = 0
    atr: float | None = None
    swing_high: Swing | None = None
    swing_low: Swing | None = None
    confirmed: bool = False


def zigzag_states(high, low, close, zigzag="primary", k=3.0):
    """The zigzag's state after each bar of one segment."""
    if zigzag not in ("primary", "legacy"):
        raise ValueError(zigzag)
    states = [SwingState()]
    true_ranges = []
    leg = +1
    extreme = None
    candidate = None
    swing_high = None
    swing_low = None

    for t in range(1, len(close)):
        true_ranges.append(true_range(high[t], low[t], close[t - 1]))
        last = true_ranges[-ATR_BARS:]
        raw_atr = sum(last) / len(last)
        atr = ATR_FLOOR if raw_atr == 0 else raw_atr
        confirmed = False

        if t == 1:
            extreme = Swing(close[1], 1)
        else:
            # The leg's extreme, and the legacy candidate, are extended first.
            if leg == +1:
                if high[t] > extreme.price:
                    extreme = Swing(high[t], t)
                if candidate is None or high[t] > candidate.price:
                    candidate = Swing(high[t], t)
                close_retrace = extreme.price - close[t]
                wick_retrace = candidate.price - low[t]
            else:
                if low[t] < extreme.price:
                    extreme = Swing(low[t], t)
                if candidate is None or low[t] < candidate.price:
                    candidate = Swing(low[t], t)
                close_retrace = close[t] - extreme.price
                wick_retrace = high[t] - candidate.price

            # Then the bar may confirm the extreme as a swing.
            if zigzag == "primary":
                confirmed = close_retrace >= k * atr * PRIMARY_TOLERANCE
            else:
                by_close = close_retrace >= LEGACY_CLOSE_ATRS * atr
                by_wick = (
                    raw_atr != 0
                    and t - candidate.bar <= LEGACY_CANDIDATE_BARS
                    and wick_retrace >= LEGACY_WICK_ATRS * atr
                )
                confirmed = by_close or by_wick

            if confirmed and leg == +1:
                swing_high = extreme
                leg = -1
                extreme = Swing(low[t], t)
                candidate = Swing(low[t], t)
            elif confirmed:
                swing_low = extreme
                leg = +1
                extreme = Swing(high[t], t)
                candidate = Swing(high[t], t)

        states.append(SwingState(leg, atr, swing_high, swing_low, confirmed))
    return states


def swing_flips(open, high, low, close, segment_starts, zigzag="primary", k=3.0):
    """For every bar, whether it confirmed a swing."""
    open, high, low, close = as_floats(open, high, low, close)
    flips = []
    for first, end in segments(len(close), segment_starts):
        states = zigzag_states(high[first:end], low[first:end], close[first:end], zigzag, k)
        flips.extend(state.confirmed for state in states)
    return flips


def swing_columns(close, t, state, zigzag, k):
    """Columns 6 to 9 of one bar: both distances, then both ages."""
    unseen_age = 3.0 if zigzag == "primary" else 0.0
    distance_high = distance_low = 0.0
    age_high = age_low = unseen_age
    multiple = k if zigzag == "primary" else 1.0
    if state.swing_high is not None:
        distance_high = clip((state.swing_high.price - close) / (multiple * state.atr), -3, 3)
        age_high = clip((t - state.swing_high.bar) / WINDOW_BARS, 0, 3)
    if state.swing_low is not None:
        distance_low = clip((close - state.swing_low.price) / (multiple * state.atr), -3, 3)
        age_low = clip((t - state.swing_low.bar) / WINDOW_BARS, 0, 3)
    return distance_high, distance_low, age_high, age_low


def relativity11(open, high, low, close, segment_starts, zigzag="primary", k=3.0):
    """The relativity11 table, float64 [n, 11]."""
    open, high, low, close = as_floats(open, high, low, close)
    rows = []
    for first, end in segments(len(close), segment_starts):
        states = zigzag_states(high[first:end], low[first:end], close[first:end], zigzag, k)
        ema = None
        for t in range(end - first):
            o, h, l, c = open[first + t], high[first + t], low[first + t], close[first + t]
            bar_range = h - l
            ema = bar_range if t == 0 else EMA_ALPHA * bar_range + (1 - EMA_ALPHA) * ema
            rng = max(bar_range, EPSILON)
            body = clip((c - o) / rng, -1, 1)
            range_z = clip(bar_range / max(ema, EPSILON), 0, 3)
            rows.append(
                [
                    clip((o - l) / rng, 0, 1),
                    clip((c - l) / rng, 0, 1),
                    body,
                    clip((h - max(o, c)) / rng, 0, 1),
                    clip((min(o, c) - l) / rng, 0, 1),
                    range_z,
                    *swing_columns(c, t, states[t], zigzag, k),
                    clip(range_z * states[t].leg * body, -2, 2),
                ]
            )
    return np.array(rows, dtype=np.float64).reshape(-1, 11)


def consol_proxy(features):
    """The consol_proxy column of a relativity11 table, float64 [n]."""
    column = []
    for row in features:
        range_z, body, age_high, age_low = float(row[5]), float(row[2]), float(row[8]), float(row[9])
        column.append(clip((1 - range_z / 3) * (1 - abs(body)) * (age_high + age_low) / 2, 0, 3))
    return np.array(column, dtype=np.float64)


def z_score(values):
    """The last value's z-score among values (population std), clipped to +-10.

    Mean and variance are exact: in floats the mean of equal prices can miss them by enough for 1e-8 to show it.
    """
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    return clip(float(exact[-1] - mean) / (math.sqrt(variance) + Z_EPSILON), -10, 10)


def relative_transform11(open, high, low, close, segment_starts):
    """The relative_transform11 table, float64 [n, 11]."""
    open, high, low, close = as_floats(open, high, low, close)
    rows = []
    for first, end in segments(len(close), segment_starts):
        for t in range(first, end):
            if t == first:
                returns = [0.0] * 4
                scores = [0.0] * 4
            else:
                returns = [math.log(series[t] / series[t - 1]) for series in (open, high, low, close)]
                oldest = max(first, t - Z_BARS + 1)
                scores = [z_score(series[oldest : t + 1]) for series in (open, high, low, close)]
            bar_range = high[t] - low[t] + 1e-8
            body = abs(close[t] - open[t]) / bar_range
            upper_wick = (high[t] - max(open[t], close[t])) / bar_range
            lower_wick = (min(open[t], close[t]) - low[t]) / bar_range
            rows.append([*returns, body, upper_wick, lower_wick, *scores])
    return np.array(rows, dtype=np.float64).reshape(-1, 11)


def as_floats(*series):
    """Each series as a list of Python floats."""
    return [[float(value) for value in one] for one in series]


TICK = 0.25


def random_walk_prices(n_bars, seed, ticks_per_step=1.2, steps=20, start=15_000.0):
    """Open, high, low and close of a random walk on ticks of 0.25, walked several steps inside each bar."""
    generator = np.random.default_rng(seed)
    walk = start + np.cumsum(generator.normal(0, ticks_per_step, (n_bars, steps))).reshape(n_bars, steps) * TICK
    walk = np.round(walk / TICK) * TICK
    close = walk[:, -1]
    open = np.concatenate([[start], close[:-1]])
    high = np.maximum(walk.max(axis=1), open)
    low = np.minimum(walk.min(axis=1), open)
    return open, high, low, close


def frame_of(open, high, low, close, gaps=None):
    """The bars as a frame, one minute apart; gaps maps a bar to the minutes between it and the bar before."""
    minutes = np.ones(len(close), dtype=np.int64)
    minutes[0] = 0
    for bar, gap in (gaps or {}).items():
        minutes[bar] = gap
    stamps = pd.Timestamp("2024-03-04 14:30", tz="UTC") + pd.to_timedelta(np.cumsum(minutes), unit="min")
    return pd.DataFrame(
        {
            "open": np.asarray(open, dtype=np.float64),
            "high": np.asarray(high, dtype=np.float64),
            "low": np.asarray(low, dtype=np.float64),
            "close": np.asarray(close, dtype=np.float64),
            "volume": np.full(len(close), 100.0),
            "symbol": "NQH4",
        },
        index=pd.DatetimeIndex(stamps, name="ts"),
    )


def sample_frame(n_bars=600, seed=17):
    """A random walk with holes, zero-range bars and runs of one price, and the first bar of each of its segments.

    The holes leave segments of many bars, of twelve and of one, and one hole of exactly 5 minutes starts no segment.
    """
    generator = np.random.default_rng(seed + 1)
    open, high, low, close = random_walk_prices(n_bars, seed)
    for bar in generator.choice(n_bars, n_bars // 20, replace=False):
        open[bar] = high[bar] = low[bar] = close[bar]
    for first, length in ((n_bars // 10, 8), (n_bars // 3, 45), (n_bars * 4 // 5, 13)):
        run = slice(first, first + length)
        open[run] = high[run] = low[run] = close[run] = close[first]
    gaps = {
        n_bars // 5: 6,
        n_bars // 4: 5,
        n_bars // 2: 61,
        n_bars // 2 + 12: 7,
        n_bars * 3 // 4: 6,
        n_bars * 3 // 4 + 1: 4000,
    }
    starts = [0] + [bar for bar, gap in gaps.items() if gap > 5]
    return frame_of(open, high, low, close, gaps), starts


def expiry_week_frame(n_bars=500, seed=17):
    """One stretch in an expiry week: a bad print at bar 100, a second contract at 201-204, 210 and 300-340.

    Every bar at which the price level changes begins a segment.
    """
    prices = np.stack(random_walk_prices(n_bars, seed))
    is_other = np.zeros(n_bars, bool)
    for first, last in ((100, 100), (201, 204), (210, 210), (300, 340)):
        is_other[first : last + 1] = True
    frame = frame_of(*(prices * np.where(is_other, 1.012, 1.0)))
    starts = [0, *(np.flatnonzero(np.diff(is_other)) + 1).tolist()]
    return frame.set_axis(frame.index + pd.Timedelta(days=8)), starts


def stepped_frame(n_bars=3000, seed=17):
    """Bars of one price each, moving by a tick at most and now and then by many; one segment.

    No bar's own range turns the legacy zigzag here, so legs last, and their candidates tie and grow old.
    """
    generator = np.random.default_rng(seed)
    steps = generator.integers(-1, 2, n_bars)
    jumps = generator.random(n_bars) < 0.1
    steps[jumps] = generator.integers(-50, 51, jumps.sum())
    close = 15_000.0 + np.cumsum(steps) * TICK
    return frame_of(close, close, close, close)


def prices_of(frame):
    """Open, high, low and close of a frame, in that order."""
    return [frame[name].to_numpy() for name in ("open", "high", "low", "close")]
