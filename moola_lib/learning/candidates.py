"""Candidates for an expansion: peaks of the start's mass, their spans, intervals and states."""

import numpy as np
import pandas as pd

from moola_lib.labels.table import CLASSES

REACH_BARS = 3  # a detection claims a start within so many bars, as the headline's hit does
LOCAL_BARS = 22  # intervals are over starts this near: what a window centred on the detection asks about
INTERVAL_MASS = 0.80
TIE = 1e-6  # of its own mass decides between bars whose boxes hold the same
EDGES = ("start", "end", "start_low", "start_high", "end_low", "end_high")  # a candidate's positions
COLUMNS = (*EDGES, "state", "state_probability", "confidence", "none_probability", "log_odds", "seen_to")


def is_peak(near):
    """Tell where the middle of the last axis is its largest value, the first of equals, and above 0."""
    middle = near.shape[-1] // 2
    return (near.argmax(axis=-1) == middle) & (near[..., middle] > 0)


def describe_candidates(peaks, local, states, *, threshold, existence, log_odds, seen_to):
    """Return the candidates at peaks that are confident enough, one row of COLUMNS each; `frame_candidates` names them.

    The start is the median of the mass within REACH_BARS of the peak. The peak
    itself is off by more: where one box holds nearly all the mass, so do its
    neighbours, and what little lies outside decides between them. The end is
    the one whose own box holds most, among expansions that start in that box.

    Parameters
    ----------
    peaks : ndarray (n,), int64
        Positions in the series.
    local : ndarray (n, 2 * LOCAL_BARS + 1, n_lengths), float64
        Masses of expansions by their start, around the peaks, and by their length.
    states : ndarray (n, n_states), float64
        Masses of starts within REACH_BARS, by the state before.
    threshold : float
        Least confidence.
    existence, log_odds : ndarray (n,)
        Of the windows that ask; `existence` is NaN where it is not known.
    seen_to : ndarray (n,), int64

    Returns
    -------
    ndarray (n_kept, len(COLUMNS)), float64
    """
    origin = peaks - LOCAL_BARS  # the bar of the first place
    starts, ends = local.sum(axis=2), _by_end(local)
    box = slice(LOCAL_BARS - REACH_BARS, LOCAL_BARS + REACH_BARS + 1)
    start = LOCAL_BARS - REACH_BARS + _median(starts[:, box])
    reached = start[:, None] + np.arange(-REACH_BARS, REACH_BARS + 1)
    confidence = np.take_along_axis(starts, reached, axis=1).sum(axis=1)
    near_ends = _by_end(local[:, box])
    boxed = sum_around(near_ends, REACH_BARS) + TIE * near_ends
    boxed[np.arange(boxed.shape[1]) + box.start < start[:, None]] = -1  # an end comes no earlier than the start
    end = np.minimum(box.start + boxed.argmax(axis=1), start + local.shape[2] - 1)  # as long as a window allows
    edges = np.stack([start, end, *central_span(starts), *central_span(ends)])
    confidence = np.minimum(confidence, 1.0)
    found = np.stack([*(origin + edges), *_likeliest(states), confidence, 1 - existence, log_odds, seen_to], axis=1)
    return found[confidence >= threshold]


def frame_candidates(rows=()):
    """Return rows of `describe_candidates` as a DataFrame, by default none: see `Scan.detections`."""
    rows = np.reshape(rows, (-1, len(COLUMNS)))
    found = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys((*EDGES, "seen_to"), np.int64))
    found["state"] = pd.array(found["state"].map(dict(enumerate(CLASSES))), dtype="str")
    return found


def drop_overlapping(candidates):
    """Keep the most confident of detections that share a bar, in time order.

    Parameters
    ----------
    candidates : DataFrame
        With `start`, `end` and `confidence`.
    """
    start, end = (candidates[name].to_numpy(np.int64) for name in ("start", "end"))
    is_taken = np.zeros(end.max() + 1 if len(end) else 0, bool)
    kept = []
    for row in np.argsort(-candidates["confidence"].to_numpy(), kind="stable"):
        span = slice(start[row], end[row] + 1)
        if not is_taken[span].any():
            is_taken[span] = True
            kept.append(row)
    order = sorted(kept, key=lambda row: start[row])
    return candidates.iloc[order].reset_index(drop=True)


def central_span(mass, share=INTERVAL_MASS):
    """Return first and last place of the central interval of unnormalised masses (n, k), two (n,) int64."""
    below = np.cumsum(mass, axis=1, dtype=np.float64)
    total, tail = below[:, -1:], (1 - share) / 2
    # a place is left out below only while the mass up to and with it is within the tail
    low, high = below > (tail + 1e-9) * total, below >= (1 - tail - 1e-9) * total
    return low.argmax(axis=1), high.argmax(axis=1)


def sum_around(mass, reach):
    """Return sums over the places within `reach` along the last axis, the shape of `mass`."""
    padded = np.pad(mass, [(0, 0)] * (mass.ndim - 1) + [(reach, reach)])
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=-1).sum(axis=-1)


def _likeliest(states):
    """Return the likeliest state's code and its probability, for masses (n, n_states); NaN where there is but one."""
    if states.shape[1] == 1:
        return np.full((2, len(states)), np.nan)
    return states.argmax(axis=1), states.max(axis=1) / states.sum(axis=1)


def _median(mass):
    """Return the first place at which half of the mass (n, k) is reached, (n,) int64."""
    below = np.cumsum(mass, axis=1)
    return (below >= below[:, -1:] / 2).argmax(axis=1)


def _by_end(lengths):
    """Return masses by end, (n, n_starts + n_lengths - 1), of those by start and length; place 0 is the first start."""
    n, n_starts, n_lengths = lengths.shape
    found = np.zeros((n, n_starts + n_lengths - 1))
    for start in range(n_starts):
        found[:, start : start + n_lengths] += lengths[:, start]
    return found
