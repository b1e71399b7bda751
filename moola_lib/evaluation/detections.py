"""What detections over a series are worth: held against labels, counted by session, part of the day and volatility."""

import numpy as np
import pandas as pd

from moola_lib.evaluation.intervals import day_block_weights, interval, say_interval
from moola_lib.evaluation.metrics import TOLERANCE_BARS
from moola_lib.market.ranges import average_true_range
from moola_lib.market.segments import ZONE, trade_dates

PARTS = {"night": (18, 3), "London": (3, 9), "New York": (9, 18)}  # hours in New York, from and to
REGIMES = ("calm", "usual", "lively")  # thirds of ATR over price


def match_starts(found, labelled, tolerance_bars=TOLERANCE_BARS):
    """Pair detected starts with labelled ones, nearest first, each used once.

    Parameters
    ----------
    found, labelled : ndarray (n,), (m,), int64
        Positions in the series, each increasing.
    tolerance_bars : int

    Returns
    -------
    ndarray (n,), int64
        For each detection the row of its label; -1 without one.
    """
    found, labelled = np.asarray(found, np.int64), np.asarray(labelled, np.int64)
    pairs = []
    for row, start in enumerate(found):
        low, high = np.searchsorted(labelled, [start - tolerance_bars, start + tolerance_bars + 1])
        pairs += [(abs(start - labelled[k]), row, k) for k in range(low, high)]
    matched, is_used = np.full(len(found), -1), np.zeros(len(labelled), bool)
    for _, row, k in sorted(pairs):
        if matched[row] < 0 and not is_used[k]:
            matched[row], is_used[k] = k, True
    return matched


def score_detections(frame, starts, found, labelled=None, *, seen=None, looked=None, n_bootstrap=1000, seed=17):
    """Count detections by session, and hold them against labels where there are any; overall and by regime.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`, with `high`, `low`, `close`.
    starts : ndarray (n_segments,), int64
    found : ndarray (n,), int64
        Positions of detected starts, increasing.
    labelled : ndarray (m,), int64, optional
        Positions of labelled starts.
    seen : ndarray (n_bars,), bool, optional
        Bars that were scanned; default all. Others count for nothing.
    looked : ndarray (n_bars,), bool, optional
        Bars at which a labeller would have marked a start; default all. A
        detection elsewhere is neither right nor wrong, unless it is at a label.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        One row per group (`group` is all, a key of PARTS or one of REGIMES):
        `n_found`, `per_session` with `low` and `high` (95%, whole trading days
        resampled); with labels `n_labelled`, `n_judged` (detections that labels
        tell of), `precision` and `recall` with `_low` and `_high`, and
        `false_per_session`, the false ones per looked-at bar times the group's
        bars in a session.
    """
    seen = np.ones(len(frame), bool) if seen is None else seen
    looked = seen if looked is None else seen & looked
    days = trade_dates(frame.index)
    session, which = np.unique(days[seen], return_inverse=True)
    of_day = np.full(len(frame), -1)
    of_day[seen] = which
    found = np.asarray(found, np.int64)
    found = found[seen[found]]
    if labelled is not None:
        labelled = np.asarray(labelled, np.int64)
        labelled = labelled[seen[labelled]]
        is_right, is_judged, is_reached = judge_starts(found, labelled, looked)
    weights = day_block_weights(session, n_bootstrap=n_bootstrap, seed=seed)

    def by_day(at, is_counted):
        return np.bincount(of_day[at[is_counted]], minlength=len(session))

    rows = []
    for group, is_in in bar_groups(frame, starts).items():
        own = is_in[found]
        counts = by_day(found, own)
        row = {"group": group, "n_found": int(own.sum()), "per_session": counts.mean()}
        row["low"], row["high"] = interval(weights @ counts / len(session))
        if labelled is not None:
            wanted = by_day(labelled, is_in[labelled])
            judged, right = by_day(found, own & is_judged), by_day(found, own & is_right)
            row |= {"n_labelled": int(wanted.sum()), "n_judged": int(judged.sum())}
            row |= _share("precision", right, judged, weights)
            row |= _share("recall", by_day(labelled, is_in[labelled] & is_reached), wanted, weights)
            n_looked, a_session = (is_in & looked).sum(), (is_in & seen).sum() / len(session)
            row["false_per_session"] = (judged - right).sum() * a_session / n_looked if n_looked else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def judge_starts(found, labelled, looked):
    """Hold detected starts against labelled ones.

    Parameters
    ----------
    found, labelled : ndarray (n,), (m,), int64
        Positions in the series, each increasing.
    looked : ndarray (n_bars,), bool
        As in `score_detections`.

    Returns
    -------
    is_right, is_judged : ndarray (n,), bool
        At a label of its own; right, or wrong at a bar that was looked at.
    is_reached : ndarray (m,), bool
        Labels that a detection is at.
    """
    matched = match_starts(found, labelled)
    is_right = matched >= 0
    return is_right, is_right | looked[found], np.isin(np.arange(len(labelled)), matched[is_right])


def _share(name, hits, of, weights):
    """Return a share of daily counts with its interval, NaN where there is nothing to count."""
    value = hits.sum() / of.sum() if of.any() else np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = interval((weights @ hits) / (weights @ of))
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def say_detections(table):
    """Return a `score_detections` as text, its intervals in one column each.

    Parameters
    ----------
    table : DataFrame
    """
    said = {"bars": table["group"], "detections": table["n_found"]}
    figures = {"a session": ("per_session", "low", "high")}
    figures |= {name: (name, f"{name}_low", f"{name}_high") for name in ("precision", "recall") if name in table}
    for heading, columns in figures.items():
        said[heading] = [say_interval(*row) for row in table[list(columns)].itertuples(index=False)]
    if "false_per_session" in table:
        said |= {"labelled": table["n_labelled"], "false a session": table["false_per_session"].map(say_interval)}
    return pd.DataFrame(said)


def bar_groups(frame, starts):
    """Return the groups of bars that figures are told by.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`, with `high`, `low`, `close`.
    starts : ndarray (n_segments,), int64

    Returns
    -------
    dict of str to ndarray (n_bars,), bool
        all, the PARTS of the day, and the REGIMES of volatility.
    """
    hour = frame.index.tz_convert(ZONE).hour.to_numpy()
    groups = {"all": np.ones(len(frame), bool)}
    for name, (first, last) in PARTS.items():
        groups[name] = (hour >= first) & (hour < last) if first < last else (hour >= first) | (hour < last)
    high, low, close = (frame[name].to_numpy(np.float64) for name in ("high", "low", "close"))
    size = average_true_range(high, low, close, starts) / close
    borders = np.nanquantile(size, [1 / 3, 2 / 3])
    third = np.where(np.isnan(size), -1, np.searchsorted(borders, size, side="right"))
    return groups | {name: third == k for k, name in enumerate(REGIMES)}
