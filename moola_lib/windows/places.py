"""Where windows lie in a series: their first bars, inside segments, with their labels."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.labels.table import CLASSES
from moola_lib.labels.targets import WINDOW_BARS, expansion_targets
from moola_lib.market.segments import trade_dates


@dataclass(frozen=True)
class LabelledWindows:
    """Labelled windows placed on a series, in time order.

    Attributes
    ----------
    window_id : ndarray (n,), str
    place : ndarray (n,), int64
        Position of bar 0 in the series.
    day : ndarray (n,), datetime64[D]
        Trade date of bar 0.
    has_expansion : ndarray (n,), bool
    start, end : ndarray (n,), int64
        Span of the first expansion in bars; -1 where there is none.
    spans : ndarray (n, m, 2), int64
        Every expansion of a window by its start, padded with -1.
    state : ndarray (n,), int64
        0 consolidation, 1 retracement; 2 none. Of several, before the first.
    """

    window_id: np.ndarray
    place: np.ndarray
    day: np.ndarray
    has_expansion: np.ndarray
    start: np.ndarray
    end: np.ndarray
    spans: np.ndarray
    state: np.ndarray

    def __len__(self):
        return len(self.place)

    def take(self, rows):
        """Return the windows at `rows` (indices or bool mask)."""
        return LabelledWindows(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    def targets(self):
        """Return targets as a dict of arrays.

        `pointers` (n, 2) float32 centre and length, `inside` (n, K) float32,
        `countdown` (n, K) float32 in bars, `type` (n,) int64,
        `has_expansion` (n,) bool. Windows without an expansion hold zeros.
        """
        has = self.has_expansion
        known = expansion_targets(np.where(has, self.start, 0), np.where(has, self.end, 0))
        pointers = np.stack([known.centre, known.length], axis=1).astype(np.float32)
        return {
            "pointers": np.where(has[:, None], pointers, np.float32(0)),
            "inside": np.where(has[:, None], known.mask, np.float32(0)),
            "countdown": np.where(has[:, None], known.countdown, np.float32(0)),
            "type": self.state,
            "has_expansion": has,
        }


def window_places(starts, n_bars, *, stride=1, window_bars=WINDOW_BARS):
    """Return every place where a window fits inside a segment.

    Parameters
    ----------
    starts : ndarray (n_segments,), int64
        First bar of each segment.
    n_bars : int
    stride : int
        Step between windows of one segment, in bars.
    window_bars : int

    Returns
    -------
    places : ndarray (n_windows,), int64
    n_lost : int
        Places at stride 1 that a segment edge costs.

    Raises
    ------
    UserError
        No window fits anywhere.
    """
    ends = np.append(starts[1:], n_bars)
    places = [np.arange(first, last - window_bars + 1, stride) for first, last in zip(starts, ends, strict=True)]
    places = np.concatenate(places) if places else np.empty(0, np.int64)
    if len(places) == 0:
        raise UserError(
            f"no window of {window_bars} bars fits: the longest of {len(starts)} segments has "
            f"{int((ends - starts).max())} bars ({n_bars:,} bars in all); give a longer series"
        )
    fitting = np.maximum(ends - starts - window_bars + 1, 0).sum()
    n_lost = max(n_bars - window_bars + 1, 0) - int(fitting)
    return places.astype(np.int64), n_lost


def place_labels(table, frame, starts, *, window_bars=WINDOW_BARS):
    """Find the labelled windows in a series.

    Parameters
    ----------
    table : DataFrame
        Checked label table.
    frame : DataFrame
        Bars indexed by UTC `ts`, one symbol.
    starts : ndarray (n_segments,), int64
    window_bars : int

    Returns
    -------
    windows : LabelledWindows
    lost : DataFrame
        `window_id`, `reason` of windows that could not be placed.

    Raises
    ------
    UserError
        The labels belong to another symbol, or none can be placed.
    """
    symbol = str(frame["symbol"].iloc[0])
    others = sorted(set(table["symbol"].astype(str)) - {symbol})
    if others:
        raise UserError(
            f"the labels are for {', '.join(others)}, the bars are {symbol}; give the bars they were made on"
        )
    rows, lost = [], []
    segment = np.searchsorted(starts, np.arange(len(frame)), side="right")
    # which of several expansions is the first is a matter of bars, not of rows
    for window_id, group in table.sort_values("expansion_start", kind="stable").groupby("window_id", sort=False):
        stamp = group["window_start"].iloc[0]
        place = int(frame.index.searchsorted(stamp))
        if place >= len(frame) or frame.index[place] != stamp:
            lost.append((window_id, f"no bar at {stamp}"))
        elif place + window_bars > len(frame):
            lost.append((window_id, "the series ends inside the window"))
        elif segment[place] != segment[place + window_bars - 1]:
            lost.append((window_id, "a gap or roll lies inside the window"))
        else:
            rows.append((window_id, place, group))
    lost = pd.DataFrame(lost, columns=["window_id", "reason"])
    if not rows:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in lost["reason"].value_counts().head(3).items())
        raise UserError(f"none of the {len(lost)} labelled windows lies in the bars ({reasons})")
    rows.sort(key=lambda row: (row[1], row[0]))
    width = max(len(group) for _, _, group in rows)
    spans = np.full((len(rows), width, 2), -1, np.int64)
    state = np.empty(len(rows), np.int64)
    codes = {name: code for code, name in enumerate((*CLASSES, "none"))}
    for row, (_, _, group) in enumerate(rows):
        state[row] = codes[group["label"].iloc[0]]
        found = group.loc[group["label"] != "none", ["expansion_start", "expansion_end"]].to_numpy(np.int64)
        spans[row, : len(found)] = found
    place = np.array([row[1] for row in rows])
    windows = LabelledWindows(
        window_id=np.array([row[0] for row in rows]),
        place=place,
        day=trade_dates(frame.index[place]),
        has_expansion=spans[:, 0, 0] >= 0,
        start=spans[:, 0, 0],
        end=spans[:, 0, 1],
        spans=spans,
        state=state,
    )
    return windows, lost
