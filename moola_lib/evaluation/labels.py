"""How the proposal rule compares with given labels."""

import numpy as np
import pandas as pd

from moola_lib.labels.proposals import DEFAULT_RULE, find_surges
from moola_lib.labels.targets import WINDOW_BARS


def compare_with_rule(windows, frame, rule=DEFAULT_RULE, *, min_overlap=0.5, max_gap_minutes=5.0):
    """Lay the rule's surges over the labelled windows.

    Parameters
    ----------
    windows : LabelledWindows
    frame : DataFrame
        Bars whose positions the windows' places are.
    rule : SurgeRule
    min_overlap : float
        Intersection over union that counts as found.
    max_gap_minutes : float
        Longest gap inside a segment.

    Returns
    -------
    DataFrame
        `figure` and `value`: `recall` (share of labelled expansions found),
        `precision` (share of the surges inside the windows that find one),
        `surges per window`, and `same state` (share of the windows whose first
        expansion is found in which the rule gives the labelled state).
    """
    surges = find_surges(frame, rule, max_gap_minutes=max_gap_minutes)
    start, end = surges["start"].to_numpy(), surges["end"].to_numpy()
    is_second = (surges["label"] == "retracement").to_numpy()
    n_found = n_first = n_wanted = n_right = n_surges = same_state = 0
    for row in range(len(windows)):
        first = windows.place[row]
        inside = np.flatnonzero((start >= first) & (end < first + WINDOW_BARS))
        spans = windows.spans[row][windows.spans[row, :, 0] >= 0] + first
        overlap = _overlap(spans, start[inside], end[inside]) >= min_overlap
        n_wanted += len(spans)
        n_surges += len(inside)
        n_found += int(overlap.any(axis=1).sum())
        n_first += int(overlap[:1].any())
        n_right += int(overlap.any(axis=0).sum())
        matched = overlap[:1].any(axis=0)
        same_state += int(matched.any() and is_second[inside[matched.argmax()]] == (windows.state[row] == 1))
    figures = {
        "recall": n_found / max(n_wanted, 1),
        "precision": n_right / max(n_surges, 1),
        "surges per window": n_surges / len(windows),
        "same state": same_state / max(n_first, 1),
    }
    return pd.DataFrame(figures.items(), columns=["figure", "value"])


def _overlap(spans, start, end):
    """Return intersection over union of every span with every surge, (n_spans, n_surges)."""
    low = np.maximum(spans[:, None, 0], start)
    high = np.minimum(spans[:, None, 1], end)
    union = np.maximum(spans[:, None, 1], end) - np.minimum(spans[:, None, 0], start) + 1
    return np.maximum(high - low + 1, 0) / union
