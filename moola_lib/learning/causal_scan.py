"""Find expansions as their bars close: each bar is answered from the bars up to it, and no detection is taken back."""

import numpy as np
import torch
from torch.nn import functional

from moola_lib.learning.candidates import (
    COLUMNS,
    LOCAL_BARS,
    REACH_BARS,
    TIE,
    describe_candidates,
    frame_candidates,
    is_peak,
    sum_around,
)
from moola_lib.learning.scan import Scan, check_scannable, mass_by_start
from moola_lib.windows.gather import window_view
from moola_lib.windows.masks import cut_after
from moola_lib.windows.places import window_places


def scan_causally(model, table, *, stride=5, threshold=0.0, batch_size=256, on_progress=None):
    """Find expansions in a series, each bar answered from the bars up to it.

    Parameters
    ----------
    model, table, threshold, batch_size, on_progress
        As for `scan.scan`. A model that was trained on cut windows answers better.
    stride : int
        Ask at every stride-th bar; the bars between keep the last answer, and
        have no `start_probability`.

    Returns
    -------
    scan.Scan
        Ends, and the upper sides of their intervals, may lie after `seen_to`:
        they are expected, not seen.

    Raises
    ------
    UserError
        As for `scan.scan`.
    """
    answers, candidates, head = _ask_all(model, table, stride, threshold, batch_size, on_progress)
    return Scan(*answers, raise_alarms(candidates, threshold), bool(head.knows_none), True, stride, float(threshold))


def causal_candidates(model, table, *, stride=5, least_confidence=0.0, batch_size=256, on_progress=None):
    """Return all that `raise_alarms` may choose from, for a choice of threshold; see `scan_causally`."""
    return _ask_all(model, table, stride, least_confidence, batch_size, on_progress)[1]


def _ask_all(model, table, stride, least_confidence, batch_size, on_progress):
    """Return answers and candidates of a whole series, and the head."""
    scanner = CausalScanner(
        model,
        stride=stride,
        least_confidence=least_confidence,
        with_position=table.has_position,
        batch_size=batch_size,
    )
    window_places(table.starts, len(table), window_bars=scanner.head.window_bars)  # refuses what is too short
    is_first = np.zeros(len(table), bool)
    is_first[table.starts] = True
    answers, candidates = scanner.extend(table.values, table.is_valid, is_first, on_progress=on_progress)
    return answers, candidates, scanner.head


class CausalScanner:
    """A causal scan in pieces: whatever the pieces, the answers are those to the whole series.

    At bar t one window is asked, cut after t: the one whose last possible start
    is t, or, early in a segment, the segment's first. It tells whether an
    expansion has started in the last bars, and whether it still runs. Answers in
    pieces differ from those in one by rounding alone (in other batches sums are
    taken in another order).

    Parameters
    ----------
    model : Module with `segment_head`
    stride, batch_size : int
    least_confidence : float
        Candidates below it are not kept.
    with_position : bool
        The model reads `position` as its last column.
    """

    def __init__(self, model, *, stride=5, least_confidence=0.0, with_position=False, batch_size=256):
        self.head = check_scannable(model, stride)
        self._model, self._stride, self._batch_size = model.eval(), stride, batch_size
        self._least_confidence, self._with_position = least_confidence, with_position
        self.n_seen = 0  # bars
        self._segment_first = 0
        self._rows = None  # the newest rows, as many as a window has before its last bar
        self._answer = np.full(2, np.nan)  # inside and none, of the last bar asked

    def extend(self, values, is_valid, is_first, *, on_progress=None):
        """Take the next bars.

        Parameters
        ----------
        values : ndarray (n, n_features), float32
            Their features.
        is_valid, is_first : ndarray (n,), bool
            Past the warm-up; first of a segment.
        on_progress : callable(int, int), optional
            Told bars asked, and of how many, after each batch.

        Returns
        -------
        answers : tuple of 3 ndarray (n,), float32
            P(inside), P(start) and P(none) of the new bars; see `scan.Scan`.
        candidates : DataFrame
            Rows of `Scan.detections`, several for one expansion: see `raise_alarms`.
        """
        head, n = self.head, len(values)
        is_first = is_first | (np.arange(self.n_seen, self.n_seen + n) == 0)
        bars = np.arange(self.n_seen, self.n_seen + n)
        segment_first = np.maximum.accumulate(np.where(is_first, bars, self._segment_first)) if n else bars
        age = bars - segment_first
        is_asked = (age >= head.first_start) & ((age - head.first_start) % self._stride == 0)
        asked = bars[is_asked]
        place = np.maximum(asked - head.last_start, segment_first[is_asked])
        rows, oldest = self._append(values, is_valid)
        view = window_view(rows, head.window_bars)
        # room is set aside first: small arrays kept between the large ones of each batch would fragment the memory
        answered, kept, n_kept = np.empty((len(asked), 3)), np.empty((0, len(COLUMNS))), 0
        for at in range(0, len(asked), self._batch_size):
            batch = slice(at, at + self._batch_size)
            answered[batch], candidates = self._ask(view, oldest, place[batch], asked[batch])
            if n_kept + len(candidates) > len(kept):
                kept = np.concatenate([kept[:n_kept], np.empty((n_kept + 2 * len(candidates), len(COLUMNS)))])
            kept[n_kept : n_kept + len(candidates)] = candidates
            n_kept += len(candidates)
            if on_progress is not None:
                on_progress(min(at + self._batch_size, len(asked)), len(asked))
        answers = self._hold(answered, is_asked, bars, segment_first)
        self.n_seen += n
        if n:
            self._segment_first = segment_first[-1]
        return answers, frame_candidates(kept[:n_kept])

    def _append(self, values, is_valid):
        """Return rows (valid ones and a 1, others 0) from the oldest that is needed on, with room after the newest."""
        shown = np.concatenate([np.where(is_valid[:, None], values, 0), is_valid[:, None]], axis=1, dtype=np.float32)
        shown = torch.from_numpy(shown).to(self.head.null.device)
        rows = shown if self._rows is None else torch.cat([self._rows, shown])
        oldest = self.n_seen + len(values) - len(rows)
        self._rows = rows[-(self.head.window_bars - 1) :]
        return functional.pad(rows, (0, 0, 0, self.head.window_bars)), oldest

    def _ask(self, view, oldest, place, asked):
        """Return P(inside), P(start), P(none) of each asked bar, (n, 3) float64, and the candidates."""
        head = self.head
        at = torch.from_numpy(asked - place)
        x = cut_after(view.index_select(0, torch.from_numpy(place - oldest).to(view.device)), at.to(view.device))
        x, is_valid = x[..., :-1], x[..., -1:]
        if self._with_position:
            position = torch.linspace(0, 1, head.window_bars, device=x.device)[:, None]
            x = torch.cat([x, position * is_valid], dim=2)
        columns = mass_by_start(self._model, x.contiguous()).cpu().numpy().astype(np.float64)
        n_lengths = head.window_bars - head.first_start
        starts = head.first_start + np.arange(columns.shape[1])
        has_begun = starts <= (asked - place)[:, None]  # what may still come is no detection
        columns[:, :, :-3] *= has_begun[:, :, None]
        lengths, states = columns[:, :, :n_lengths], columns[:, :, n_lengths:-3]
        existence, log_odds = columns[:, 0, -3], columns[:, 0, -2]
        if not head.knows_none:
            existence = np.full(len(asked), np.nan)
        ago = (asked - place)[:, None] - starts  # bars since each start
        still_runs = np.arange(n_lengths) >= ago[:, :, None]
        inside = (lengths * still_runs).sum(axis=(1, 2))
        start = lengths.sum(axis=2)
        now = (start * (ago == 0)).sum(axis=1)
        box = sum_around(start, REACH_BARS)
        score = np.pad(box + TIE * start, [(0, 0), (REACH_BARS, REACH_BARS)])
        near = np.lib.stride_tricks.sliding_window_view(score, 2 * REACH_BARS + 1, axis=1)
        window, row = np.nonzero(is_peak(near) & has_begun & (box >= self._least_confidence))
        around = row[:, None] + np.arange(2 * LOCAL_BARS + 1)
        padded = np.pad(lengths, [(0, 0), (LOCAL_BARS, LOCAL_BARS), (0, 0)])
        candidates = describe_candidates(
            place[window] + starts[row],
            padded[window[:, None], around],
            sum_around(states.transpose(0, 2, 1), REACH_BARS)[window, :, row],
            threshold=self._least_confidence,
            existence=existence[window],
            log_odds=log_odds[window],
            seen_to=asked[window],
        )
        return np.stack([inside.clip(0, 1), now, 1 - existence], axis=1), candidates

    def _hold(self, answered, is_asked, bars, segment_first):
        """Spread the answers over all new bars: those between keep the last, within a segment."""
        known = np.vstack([self._answer, answered[:, [0, 2]]])
        row = np.cumsum(is_asked)
        last_asked = np.maximum.accumulate(np.where(is_asked, bars, -1)) if len(bars) else bars
        is_old = segment_first < last_asked  # asked since the segment began
        is_old |= (row == 0) & (segment_first == self._segment_first)
        inside, none = np.where(is_old[:, None], known[row], np.nan).T
        start = np.full(len(bars), np.nan)
        start[is_asked] = answered[:, 1]
        if len(bars):
            self._answer = np.array([inside[-1], none[-1]])
        return tuple(each.astype(np.float32) for each in (inside, start, none))


def raise_alarms(candidates, threshold, last_end=-1):
    """Return the detections that a threshold makes of candidates: at each bar, none is taken back or moved later.

    A candidate is a detection if it is confident enough and starts after the end
    of the detection before, as that end was expected when it was found.

    Parameters
    ----------
    candidates : DataFrame
        Of `CausalScanner.extend`.
    threshold : float
    last_end : int
        End of the last detection so far.

    Returns
    -------
    DataFrame
        Rows of `Scan.detections`.
    """
    confidence, start, end, seen_to = (
        candidates[name].to_numpy() for name in ("confidence", "start", "end", "seen_to")
    )
    kept = []
    rows = np.flatnonzero(confidence >= threshold)
    for row in rows[np.lexsort((start[rows], -confidence[rows], seen_to[rows]))]:
        if start[row] > last_end:
            kept.append(row)
            last_end = end[row]
    return candidates.iloc[kept].reset_index(drop=True)
