"""A first rule that proposes labels from bars, so that any series can be worked on.

A surge is a directional move that is large against the average true range
before it and goes straight. The state before it is a retracement when price
had moved against the coming direction, a consolidation when its bars were
compressed; a move with neither before it goes on with what was there, and is
no expansion. Scores against proposals say how well a model agrees with this
rule, nothing more.
"""

from dataclasses import dataclass

import numba
import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.labels.table import INNER_BARS, check_labels
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.ranges import average_true_range
from moola_lib.market.segments import segment_starts


@dataclass(frozen=True)
class SurgeRule:
    """Thresholds of the rule.

    Attributes
    ----------
    min_move_atr : float
        Net move in ATRs (of the bar before the surge) it must at least make.
    min_efficiency : float
        Net move over the path travelled bar by bar, in [0, 1].
    min_bars, max_bars : int
        Length of a surge.
    state_bars : int
        Bars looked at before the surge, the shared bar excluded.
    min_counter_atr : float
        Move against the coming direction, in ATRs, that makes a retracement.
    max_compression : float
        Mean range of those bars over that of the last `usual_bars`, up to which
        they are a consolidation; where both hold, it is a retracement.
    usual_bars : int
        Bars whose range counts as the usual one, those before the surge included.
    """

    min_move_atr: float = 3.0
    min_efficiency: float = 0.6
    min_bars: int = 5
    max_bars: int = 30
    state_bars: int = 15
    min_counter_atr: float = 1.0
    max_compression: float = 1.0
    usual_bars: int = 60


DEFAULT_RULE = SurgeRule()


def find_surges(frame, rule=DEFAULT_RULE, *, max_gap_minutes=5.0):
    """Return every surge of a series, overlapping ones thinned to the best.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    rule : SurgeRule

    Returns
    -------
    DataFrame
        `start`, `end` (positions, inclusive), `direction`, `move_atr`,
        `efficiency`, `counter_atr`, `compression`, `label`, in time order;
        those with neither state before them are left out.
    """
    starts = segment_starts(frame, max_gap_minutes=max_gap_minutes)
    high, low, close = (frame[name].to_numpy(np.float64) for name in ("high", "low", "close"))
    atr = average_true_range(high, low, close, starts)
    lengths, moves, efficiencies = _score_surges(
        close, atr, starts, rule.min_bars, rule.max_bars, rule.min_move_atr, rule.min_efficiency
    )
    candidates = np.flatnonzero(lengths)
    order = candidates[np.argsort(-np.abs(moves[candidates]) * efficiencies[candidates], kind="stable")]
    is_taken = np.zeros(len(close), bool)
    chosen = []
    for start in order:
        span = slice(start, start + lengths[start])
        if not is_taken[span].any():
            is_taken[span] = True
            chosen.append(start)
    start = np.sort(np.array(chosen, dtype=np.int64))
    direction = np.sign(moves[start]).astype(int)
    segment_first = starts[np.searchsorted(starts, start, side="right") - 1]
    before = np.maximum(start - rule.state_bars, segment_first)
    counter = -direction * (close[start - 1] - close[before]) / atr[start - 1]
    compression = _compare_ranges(high - low, before, np.maximum(start - rule.usual_bars, segment_first), start)
    is_second = counter >= rule.min_counter_atr
    has_state = is_second | (compression <= rule.max_compression)
    surges = pd.DataFrame(
        {
            "start": start,
            "end": start + lengths[start] - 1,
            "direction": direction,
            "move_atr": np.abs(moves[start]),
            "efficiency": efficiencies[start],
            "counter_atr": counter,
            "compression": compression,
            "label": np.where(is_second, "retracement", "consolidation"),
        }
    )
    return surges[has_state].reset_index(drop=True)


def explain_surges(surges, rule=DEFAULT_RULE):
    """Say of each surge why the rule proposes it.

    Parameters
    ----------
    surges : DataFrame
        From `find_surges`.
    rule : SurgeRule

    Returns
    -------
    list of str
    """
    reasons = []
    for surge in surges.itertuples(index=False):
        way = "up" if surge.direction > 0 else "down"
        if surge.label == "retracement":
            state = f"{surge.counter_atr:.1f} ATR the other way"
        else:
            state = f"at {surge.compression:.2f} of the usual range"
        reasons.append(
            f"{way} {surge.move_atr:.1f} ATR in {surge.end - surge.start + 1} bars, efficiency {surge.efficiency:.2f}; "
            f"the {rule.state_bars} bars before {state}"
        )
    return reasons


def propose_labels(frame, *, n_windows=174, rule=DEFAULT_RULE, first_ts=None, seed=17, max_gap_minutes=5.0):
    """Propose labelled windows: the strongest surge of the inner bars each, no bar in two windows.

    The surge's place inside its window is drawn at random in the inner bars,
    so that position carries no information. A window in which another surge
    starts in the inner bars and scores higher (move x efficiency) is left out:
    which of several the label means would be chance.

    Parameters
    ----------
    frame : DataFrame
        Bars of one symbol indexed by UTC `ts`.
    n_windows : int
        Windows to propose, drawn at random among all that fit.
    rule : SurgeRule
    first_ts : Timestamp, optional
        Only windows from this instant on.
    seed : int

    Returns
    -------
    DataFrame
        A checked label table, source "proposal:surge", sorted by time; `quality`
        holds the reason in words.

    Raises
    ------
    UserError
        Fewer than ten windows can be proposed.
    """
    rng = np.random.default_rng(seed)
    surges = find_surges(frame, rule, max_gap_minutes=max_gap_minutes)
    score = (surges["move_atr"] * surges["efficiency"]).to_numpy()
    n = len(frame)
    starts = segment_starts(frame, max_gap_minutes=max_gap_minutes)
    segment = np.searchsorted(starts, np.arange(n), side="right")
    first = 0 if first_ts is None else int(frame.index.searchsorted(first_ts))
    is_free = np.ones(n, bool)
    is_free[:first] = False
    rows = []
    for k in rng.permutation(len(surges)):
        surge = surges.iloc[k]
        low, high = INNER_BARS
        window = int(surge["start"]) - int(rng.integers(low, high + 1))
        stop = window + WINDOW_BARS
        if window < 0 or stop > n or segment[window] != segment[stop - 1] or surge["end"] >= stop:
            continue
        inner = surges["start"].between(window + low, window + high)
        if not is_free[window:stop].all() or score[k] < score[inner].max():
            continue
        is_free[window:stop] = False
        rows.append((window, surge))
        if len(rows) == n_windows:
            break
    if len(rows) < 10:
        raise UserError(
            f"the rule finds only {len(rows)} windows with a surge in {n - first:,} bars; "
            "give more bars, or lower min_move_atr"
        )
    rows.sort(key=lambda row: row[0])
    symbol = str(frame["symbol"].iloc[0])
    table = pd.DataFrame(
        {
            "window_id": [f"{symbol}-{frame.index[window]:%Y%m%d-%H%M}" for window, _ in rows],
            "symbol": symbol,
            "window_start": [frame.index[window] for window, _ in rows],
            "expansion_start": [int(surge["start"]) - window for window, surge in rows],
            "expansion_end": [int(surge["end"]) - window for window, surge in rows],
            "label": [surge["label"] for _, surge in rows],
            "annotator": "rule",
            "source": "proposal:surge",
            "quality": explain_surges(pd.DataFrame([surge for _, surge in rows]), rule),
        }
    )
    return check_labels(table, source="proposed labels")


def _compare_ranges(ranges, near, far, stop):
    """Return the mean range of bars near..stop-1 over that of far..stop-1, per surge; 1 where those have none."""
    total = np.r_[0.0, np.cumsum(ranges)]
    here, usual = ((total[stop] - total[first]) / (stop - first) for first in (near, far))
    return np.divide(here, usual, out=np.ones(len(stop)), where=usual > 0)


@numba.njit(cache=True)
def _score_surges(close, atr, starts, min_bars, max_bars, min_move, min_efficiency):
    """Return, for each bar, the length of the best surge beginning on it (0: none), its signed move and efficiency."""
    n = len(close)
    lengths = np.zeros(n, np.int64)
    moves = np.zeros(n)
    efficiencies = np.zeros(n)
    for k in range(len(starts)):
        first = starts[k]
        last = starts[k + 1] if k + 1 < len(starts) else n
        for t in range(first + 2, last):
            unit = atr[t - 1]
            if not unit > 0:
                continue
            path, best = 0.0, 0.0
            for length in range(1, min(max_bars, last - t) + 1):
                end = t + length - 1
                path += abs(close[end] - close[end - 1])
                net = close[end] - close[t - 1]
                if length < min_bars or path == 0.0:
                    continue
                efficiency = abs(net) / path
                score = abs(net) / unit * efficiency
                if abs(net) >= min_move * unit and efficiency >= min_efficiency and score > best:
                    best = score
                    lengths[t], moves[t], efficiencies[t] = length, net / unit, efficiency
    return lengths, moves, efficiencies
