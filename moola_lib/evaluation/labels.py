"""A label table on its bars: how the rule compares with it, its classes and spans by time of day and volatility."""

import numpy as np
import pandas as pd

from moola_lib.evaluation.detections import bar_groups, match_starts
from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.evaluation.metrics import TOLERANCE_BARS
from moola_lib.labels.proposals import DEFAULT_RULE, find_surges
from moola_lib.labels.table import CLASSES, INNER_BARS, LABELS
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.segments import ZONE

OPEN_HOUR = 18  # New York
N_CHANCE, MOST_PAIRS = 50, 20_000  # other windows whose surges are laid over each window; of all windows together

COUNTED = ("labelled", "found", "surges", "right", "same", "window")  # in one window
FIGURES = {
    "recall": ("found", "labelled"),
    "precision": ("right", "surges"),
    "same state": ("same", "found"),
    "surges per window": ("surges", "window"),
}


def compare_with_rule(
    windows, frame, rule=DEFAULT_RULE, *, tolerance_bars=TOLERANCE_BARS, max_gap_minutes=5.0, n_bootstrap=1000, seed=17
):
    """Lay the rule's surges over the labelled windows.

    Parameters
    ----------
    windows : LabelledWindows
    frame : DataFrame
        Bars whose positions the windows' places are.
    rule : SurgeRule
    tolerance_bars : int
        Distance of starts that counts as found; each start is used once.
    max_gap_minutes : float
        Longest gap inside a segment.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        `figure`, `value`, `low` and `high` (95%, whole days resampled), `chance`
        (the same with the surges of other windows: their number and places in a
        window are kept, which one they lie in is not) and `n`. Figures:
        `recall` (share of labelled expansions found), `precision` (share of the
        surges that start in the inner bars of a window and find one), `same
        state` (share of those found in which the rule gives the labelled state)
        and `surges per window` (in the inner bars).
    """
    surges = find_surges(frame, rule, max_gap_minutes=max_gap_minutes)
    own = [_surges_of(place, surges) for place in windows.place]
    counts = np.array([_count(windows, row, own[row], tolerance_bars) for row in range(len(windows))])
    n_steps = min(N_CHANCE, 1 + MOST_PAIRS // len(windows))
    steps = np.unique(np.linspace(1, len(windows) - 1, n_steps).astype(int)) if len(windows) > 1 else []
    moved = [
        [_count(windows, row, own[(row + step) % len(windows)], tolerance_bars) for row in range(len(windows))]
        for step in steps
    ]
    by_chance = np.sum(moved, axis=(0, 1)) if moved else np.full(len(COUNTED), np.nan)
    weights = day_block_weights(windows.day, n_bootstrap=n_bootstrap, seed=seed)
    total, resampled = counts.sum(axis=0), weights @ counts
    rows = []
    for figure, names in FIGURES.items():
        part, whole = map(COUNTED.index, names)
        ends = interval(_ratio(resampled[:, part], resampled[:, whole]))
        chance = float(_ratio(by_chance[part], by_chance[whole]))
        rows.append((figure, float(_ratio(total[part], total[whole])), *ends, chance, int(total[whole])))
    return pd.DataFrame(rows, columns=["figure", "value", "low", "high", "chance", "n"])


def balance_by_group(windows, frame, starts):
    """Count the states by part of the day and volatility.

    Parameters
    ----------
    windows : LabelledWindows
    frame : DataFrame
        Bars indexed by UTC `ts`, with `high`, `low`, `close`.
    starts : ndarray (n_segments,), int64

    Returns
    -------
    DataFrame
        One row per group (all, those of `detections.PARTS` and REGIMES): `group`,
        `windows`, one column for each of LABELS, and `share` of its commoner
        state among the windows with an expansion. The group is that of the first
        expansion's first bar; without one, of the middle bar.
    """
    at = windows.place + np.where(windows.has_expansion, windows.start, WINDOW_BARS // 2)
    rows = []
    for group, is_in in bar_groups(frame, starts).items():
        counts = np.bincount(windows.state[is_in[at]], minlength=len(LABELS))
        known = counts[: len(CLASSES)]
        row = {"group": group, "windows": int(counts.sum())} | dict(zip(LABELS, map(int, counts), strict=True))
        rows.append(row | {"share": float(_ratio(known.max(), known.sum()))})
    return pd.DataFrame(rows)


def describe_spans(windows, frame):
    """Return one row per expansion: when it began, where in its window, how long it lasted.

    Parameters
    ----------
    windows : LabelledWindows
    frame : DataFrame
        Bars whose positions the windows' places are.

    Returns
    -------
    DataFrame
        `window_id`, `start_ts`, `session_hour` (hours since 18:00 in New York, in
        [0, 24)), `start` (bar of the window), `length` (bars), `label` (of the
        window's first expansion).
    """
    row, which = np.nonzero(windows.spans[..., 0] >= 0)
    start, end = windows.spans[row, which].T
    stamps = frame.index[windows.place[row] + start]
    local = stamps.tz_convert(ZONE)
    return pd.DataFrame(
        {
            "window_id": windows.window_id[row],
            "start_ts": stamps,
            "session_hour": (local.hour + local.minute / 60 - OPEN_HOUR) % 24,
            "start": start,
            "length": end - start + 1,
            "label": np.array(LABELS)[windows.state[row]],
        }
    )


def _surges_of(place, surges):
    """Return (starts in bars of the window, which of them are retracements) of the surges that start in a window."""
    first, stop = np.searchsorted(surges["start"].to_numpy(), [place, place + WINDOW_BARS])
    inside = surges.iloc[first:stop]
    return inside["start"].to_numpy() - place, (inside["label"] == CLASSES[1]).to_numpy()


def _count(windows, row, surges, tolerance_bars):
    """Return COUNTED for one window and the given surges, the state by the first expansion."""
    start, is_second = surges
    spans = windows.spans[row]
    labelled = np.sort(spans[spans[:, 0] >= 0, 0])
    matched = match_starts(start, labelled, tolerance_bars)
    is_right, is_inner = matched >= 0, (start >= INNER_BARS[0]) & (start <= INNER_BARS[1])
    same = is_second[is_right] == (windows.state[row] == 1)
    return len(labelled), is_right.sum(), is_inner.sum(), (is_right & is_inner).sum(), same.sum(), 1


def _ratio(part, whole):
    """Return part / whole, NaN where the whole is nothing."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
