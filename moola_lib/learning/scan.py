"""Find expansions in a whole series: overlapping windows, merged into one answer for every bar.

Each window's posterior is given that one expansion starts in the bars it asks
about. Where the model knows "no expansion", that is multiplied by the
probability that there is one. A start's mass is the mean over the windows that
ask about it; all else follows from the merged mass of (start, end).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from moola_lib.errors import UserError
from moola_lib.learning.candidates import (
    LOCAL_BARS,
    REACH_BARS,
    TIE,
    describe_candidates,
    drop_overlapping,
    frame_candidates,
    is_peak,
)
from moola_lib.windows.gather import WindowGatherer
from moola_lib.windows.places import window_places

BLOCK_BARS = 8192


@dataclass(frozen=True)
class Scan:
    """What a model finds in a series.

    Attributes
    ----------
    inside_probability : ndarray (n_bars,), float32
        Of every bar; NaN where no window asks about it.
    start_probability : ndarray (n_bars,), float32
        That an expansion starts there; NaN as above.
    none_probability : ndarray (n_bars,), float32
        Mean P(no expansion) of the windows that ask about the bar, at the odds
        beforehand of the model's null score (even, after `fit_null`); NaN where
        the model does not know it, too.
    detections : DataFrame
        In time order, no two overlapping: `start`, `end` and the 80% intervals
        `start_low`, `start_high`, `end_low`, `end_high` (positions in the series,
        int64, inclusive), `state` (missing where the model tells none apart) and
        `state_probability`, `confidence` (probability of a start within 3 bars),
        `none_probability`, `log_odds` (of an expansion, nats; they only rank
        where `knows_none` is False), `seen_to` (position of the bar at whose
        close it was found; -1 where windows are seen whole).
    knows_none : bool
        Whether probabilities count "no expansion" in; if not, all are given
        that every window holds an expansion.
    is_causal : bool
    stride : int
    threshold : float
        Least confidence of a detection.
    """

    inside_probability: np.ndarray
    start_probability: np.ndarray
    none_probability: np.ndarray
    detections: pd.DataFrame
    knows_none: bool
    is_causal: bool
    stride: int
    threshold: float


def scan(model, table, *, stride=5, threshold=0.0, batch_size=256, on_progress=None):
    """Find expansions in a series, each window seen whole.

    Parameters
    ----------
    model : Module with `segment_head`
        The scan runs on its device.
    table : FeatureTable
        Of the features that the model reads.
    stride : int
        Bars between windows of a segment; no window crosses a segment's start.
    threshold : float
        Least confidence of a detection.
    batch_size : int
        Windows at once.
    on_progress : callable(int, int), optional
        Told windows done, and of how many, after each batch.

    Returns
    -------
    Scan
        Equal inputs give equal scans, bit for bit (on CPU).

    Raises
    ------
    UserError
        The model has no segment posterior, no window fits, or the stride would
        leave bars out.

    Notes
    -----
    Beside the table, memory is a few numbers a bar: masses of (start, end) are
    merged block by block.
    """
    head = check_scannable(model, stride)
    device = head.null.device
    places, _ = window_places(table.starts, len(table), stride=stride, window_bars=head.window_bars)
    gather = WindowGatherer(table, device, window_bars=head.window_bars)
    segment = np.searchsorted(table.starts, np.arange(len(table)), side="right")
    model.eval()
    merged, found, n_done = _Merged(len(table), head.knows_none), [], 0
    n_lengths, n_starts = head.window_bars - head.first_start, head.last_start - head.first_start + 1
    carry = torch.zeros(2 * LOCAL_BARS + n_starts, n_lengths + head.n_states + 3, device=device)
    for first_bar in range(0, len(table) + LOCAL_BARS, BLOCK_BARS):
        base = first_bar - 2 * LOCAL_BARS  # the bar of the sums' first row
        sums = functional.pad(carry, (0, 0, 0, BLOCK_BARS))
        low, high = np.searchsorted(places, [first_bar - head.first_start, first_bar + BLOCK_BARS - head.first_start])
        for part in torch.as_tensor(places[low:high]).split(batch_size):
            columns = mass_by_start(model, gather(part)[0])
            rows = (part + (head.first_start - base)).to(device)
            for offset in range(n_starts):  # windows of a batch ask about a bar as different starts: none adds twice
                sums.index_add_(0, rows + offset, columns[:, offset])
            n_done += len(part)
            if on_progress is not None:
                on_progress(n_done, len(places))
        complete = sums[: 2 * LOCAL_BARS + BLOCK_BARS].cpu().numpy().astype(np.float64)
        mean = _Means(complete, n_lengths, base, segment)
        merged.add(mean, first_bar)
        found.append(_find_peaks(mean, threshold, head.knows_none))
        carry = sums[BLOCK_BARS:]
    detections = drop_overlapping(frame_candidates(np.concatenate(found)))
    return Scan(*merged.probabilities(), detections, bool(head.knows_none), False, stride, float(threshold))


def check_scannable(model, stride):
    """Return the model's segment head.

    Raises
    ------
    UserError
        It has none, or windows so far apart would leave bars out.
    """
    head = getattr(model, "segment_head", None)
    if head is None:
        raise UserError(
            "the model has no posterior over (start, end), which a scan merges; train one with heads: segment"
        )
    n_starts = head.last_start - head.first_start + 1
    if not 1 <= stride <= n_starts:
        raise UserError(
            f"stride {stride} is not allowed: a window asks about {n_starts} bars; give 1 to {n_starts}, such as 5"
        )
    return head


@torch.no_grad()
def read_spans(model, x):
    """Return what a model says of windows, "no expansion" counted in where it knows it.

    Parameters
    ----------
    model : Module with `segment_head`, in eval mode
    x : Tensor (batch, time, feature), float32

    Returns
    -------
    mass : Tensor (batch, n_states, n_starts, time)
        Probability of every (state, start, end).
    existence : Tensor (batch,)
        P(expansion); 1 where the model does not know "no expansion".
    log_odds : Tensor (batch,), nats
    """
    outputs = model(x)
    logits = outputs["span_logits"]
    evidence = logits.flatten(1).logsumexp(dim=1)
    log_odds = outputs["null_slope"] * (evidence - outputs["null_logit"])
    knows_none = bool(model.segment_head.knows_none)
    log_existence = functional.logsigmoid(log_odds) if knows_none else torch.zeros_like(log_odds)
    mass = (logits - (evidence - log_existence)[:, None, None, None]).exp_()
    return mass, log_existence.exp(), log_odds


def mass_by_start(model, x):
    """Return, for each start, masses by length, masses by state, P(expansion), log-odds and a 1 to count windows.

    Tensor (batch, n_starts, n_lengths + n_states + 3).
    """
    head = model.segment_head
    mass, existence, log_odds = read_spans(model, x)
    n, _, n_starts, time = mass.shape
    # row i of `mass` begins at length 0 in column first_start + i: a step of one row and one column more straightens it
    ends = functional.pad(mass.sum(dim=1), (0, n_starts))
    row = time + n_starts
    lengths = ends.as_strided((n, n_starts, time - head.first_start), (n_starts * row, row + 1, 1), head.first_start)
    states = mass.sum(dim=3).transpose(1, 2)
    alike = torch.stack([existence, log_odds, torch.ones_like(log_odds)], dim=1)[:, None].expand(-1, n_starts, -1)
    return torch.cat([lengths, states, alike], dim=2)


class _Means:
    """Means over the windows that ask, of the bars of one block and of those around it.

    Attributes
    ----------
    base : int
        Bar of the first row.
    lengths : ndarray (n_rows, n_lengths), float64
        Mass of the expansion that starts at a row and has 1, 2, … bars.
    states : ndarray (n_rows, n_states)
    existence, log_odds : ndarray (n_rows,)
    is_asked : ndarray (n_rows,), bool
    segment : ndarray (n_rows,), int
    """

    def __init__(self, sums, n_lengths, base, segment):
        count = sums[:, -1]
        self.base, self.is_asked = base, count > 0
        mean = sums[:, :-1] / np.maximum(count, 1)[:, None]
        self.lengths, self.states = mean[:, :n_lengths], mean[:, n_lengths:-2]
        self.existence, self.log_odds = mean[:, -2], mean[:, -1]
        bars = np.arange(base, base + len(sums))
        self.segment = segment[bars.clip(0, len(segment) - 1)]

    def around(self, rows, reach):
        """Return rows around each of `rows` (n, 2 * reach + 1), and whether they are of its segment."""
        near = rows[:, None] + np.arange(-reach, reach + 1)
        near = near.clip(0, len(self.segment) - 1)
        return near, self.segment[near] == self.segment[rows][:, None]


class _Merged:
    """Masses of starts and of ends by bar, filled block by block."""

    def __init__(self, n_bars, knows_none):
        self.knows_none = bool(knows_none)
        self.start, self.end, self.none = np.zeros(n_bars), np.zeros(n_bars), np.full(n_bars, np.nan, np.float32)
        self.is_asked = np.zeros(n_bars, bool)

    def add(self, mean, first_bar):
        """Take the block's own bars, from `first_bar` on."""
        n_bars = len(self.start)
        bars = np.arange(first_bar, min(first_bar + BLOCK_BARS, n_bars))
        rows = bars - mean.base
        self.is_asked[bars] = mean.is_asked[rows]
        self.none[bars] = 1 - mean.existence[rows]
        self.start[bars] = mean.lengths[rows].sum(axis=1)
        for length in range(mean.lengths.shape[1]):
            ends = bars + length
            is_there = ends < n_bars  # past the series there is no mass
            self.end[ends[is_there]] += mean.lengths[rows[is_there], length]

    def probabilities(self):
        """Return `inside`, `start` and `none` by bar, (n_bars,) float32."""
        # begun by bar t, less ended before it
        inside = np.cumsum(self.start) - np.cumsum(self.end) + self.end
        inside, start = (np.where(self.is_asked, each.clip(0, 1), np.nan) for each in (inside, self.start))
        none = np.where(self.is_asked & self.knows_none, self.none, np.nan)
        return tuple(each.astype(np.float32) for each in (inside, start, none))


def _find_peaks(mean, threshold, knows_none):
    """Return a block's candidates: bars whose box of starts holds more than any box of 3 bars before or after."""
    every = np.arange(len(mean.segment))
    near, is_own = mean.around(every, REACH_BARS)
    start = mean.states.sum(axis=1)
    box = (start[near] * is_own).sum(axis=1)
    score = box + TIE * start
    is_candidate = is_peak(score[near] * is_own) & mean.is_asked & (box >= threshold)
    rows = np.flatnonzero(is_candidate[LOCAL_BARS:-LOCAL_BARS]) + LOCAL_BARS  # the others are their own blocks'
    around, is_own = mean.around(rows, LOCAL_BARS)
    near, is_near = mean.around(rows, REACH_BARS)
    return describe_candidates(
        mean.base + rows,
        mean.lengths[around] * is_own[:, :, None],
        (mean.states[near] * is_near[:, :, None]).sum(axis=1),
        threshold=threshold,
        existence=mean.existence[rows] if knows_none else np.full(len(rows), np.nan),
        log_odds=mean.log_odds[rows],
        seen_to=np.full(len(rows), -1),
    )
