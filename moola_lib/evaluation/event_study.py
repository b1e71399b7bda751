"""What followed detected expansions, in ATR, against matched random bars: it describes and promises nothing."""

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.evaluation.intervals import day_block_weights, interval, verdict
from moola_lib.market.ranges import average_true_range
from moola_lib.market.segments import ZONE, trade_dates

HORIZONS = (5, 15, 30)
MEANINGS = {"size": "size of the move (ATR)", "onward": "move in the direction of the expansion (ATR)"}


def event_study(frame, starts, first, last, *, horizons=HORIZONS, n_controls=20, n_bootstrap=1000, seed=17):
    """Compare the moves after expansions with those after random bars of the same half hour.

    A move is close[t + h] - close[t] over the ATR at t, t the last bar of the
    expansion. Its direction is that of close[t] - close[t - k], k the length of
    the expansion; a control has the direction of its own k bars before, so that
    what any move of that length goes on to do is in both.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`, with `open`, `high`, `low`, `close`.
    starts : ndarray (n_segments,), int64
        First bars of the segments. A move does not cross a border.
    first, last : ndarray (n,), int64
        Positions of the expansions' bars, inclusive.
    horizons : sequence of int
        Bars.
    n_controls : int
        Random bars of each event: of the same half hour in New York, further
        than the longest horizon from every event. Fewer where there are no more.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        `horizon`, `figure` (`size`, `onward`), `meaning`, `events` and
        `controls` (means), `difference` with `low` and `high` (95%, whole
        trading days of the events resampled with their controls), `n_events`,
        `n_days` and `verdict`.

    Raises
    ------
    UserError
        No event has room for the longest horizon, or none has a control.
    """
    close = frame["close"].to_numpy(np.float64)
    high, low = (frame[name].to_numpy(np.float64) for name in ("high", "low"))
    atr = average_true_range(high, low, close, starts)
    first, last = np.asarray(first, np.int64), np.asarray(last, np.int64)
    reach = max(horizons)
    has_room = _has_room(last, last - first + 1, starts, len(frame), reach, atr)
    if not has_room.any():
        raise UserError(f"none of {len(last)} expansions has {reach} bars after it in its segment; give more bars")
    first, last = first[has_room], last[has_room]
    owner, drawn = _draw_controls(frame.index, first, last, starts, atr, reach, n_controls, seed)
    if len(drawn) == 0:
        raise UserError(f"no bar can stand beside the {len(last)} expansions as a control; give more bars")
    kept = np.unique(owner)
    length = last - first + 1
    days = trade_dates(frame.index[last[kept]])
    weights = day_block_weights(days, n_bootstrap=n_bootstrap, seed=seed)
    rows = []
    for horizon in horizons:
        events = _moves(close, atr, last[kept], length[kept], horizon)
        beside = _moves(close, atr, drawn, length[owner], horizon)
        for figure, meaning in MEANINGS.items():
            own = events[figure]
            others = np.bincount(owner, beside[figure], len(last))[kept] / np.bincount(owner, minlength=len(last))[kept]
            gain = own - others
            ends = interval(weights @ gain / weights.sum(axis=1))
            means = (own.mean(), others.mean(), gain.mean())
            rows.append((horizon, figure, meaning, *means, *ends, len(kept), len(np.unique(days)), verdict(*ends)))
    columns = ["horizon", "figure", "meaning", "events", "controls", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "n_events", "n_days", "verdict"])


def half_hours(index):
    """Return the half hour of the day in New York of each stamp, 0 to 47, (n,) int."""
    local = index.tz_convert(ZONE)
    return (local.hour * 2 + local.minute // 30).to_numpy()


def _moves(close, atr, at, length, horizon):
    """Return the moves after bars `at`, in ATR: their size, and along the `length` bars before."""
    move = (close[at + horizon] - close[at]) / atr[at]
    return {"size": np.abs(move), "onward": move * np.sign(close[at] - close[at - length])}


def _has_room(at, length, starts, n_bars, reach, atr):
    """Tell which bars have `length` bars before and `reach` after them in their segment, and an ATR."""
    segment = np.searchsorted(starts, at, side="right") - 1
    ends = np.append(starts[1:], n_bars)
    return (at - length >= starts[segment]) & (at + reach < ends[segment]) & np.isfinite(atr[at]) & (atr[at] > 0)


def _draw_controls(index, first, last, starts, atr, reach, n_controls, seed):
    """Return (which event, position) of the controls, both (m,) int64."""
    rng = np.random.default_rng(seed)
    half_hour = half_hours(index)
    is_free = np.ones(len(index), bool)
    for one, other in zip(first, last, strict=True):
        is_free[max(one - reach, 0) : other + reach + 1] = False
    longest = int((last - first).max()) + 1
    is_free &= _has_room(np.arange(len(index)), longest, starts, len(index), reach, atr)
    by_half_hour = {value: np.flatnonzero(is_free & (half_hour == value)) for value in np.unique(half_hour[last])}
    owner, drawn = [], []
    for event, at in enumerate(last):
        choice = by_half_hour[half_hour[at]]
        chosen = rng.choice(choice, min(n_controls, len(choice)), replace=False)
        owner.append(np.full(len(chosen), event))
        drawn.append(chosen)
    return np.concatenate(owner), np.concatenate(drawn).astype(np.int64)
