"""A series of bars under a model's watch: what it finds on days that it was not trained on, and what is known there."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.labels.table import INNER_BARS
from moola_lib.learning.causal_scan import scan_causally
from moola_lib.learning.scan import scan
from moola_lib.market.segments import trade_dates


@dataclass(frozen=True)
class Series:
    """Bars that a model is tried on, and the expansions in them as far as they are known.

    Attributes
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    table : FeatureTable
        Of the features that the model reads.
    labelled : ndarray (m,), int64, or None
        Positions of known starts.
    looked : ndarray (n_bars,), bool, or None
        Bars at which a start would be known; None for all, as where they were planted.
    """

    frame: pd.DataFrame
    table: object
    labelled: np.ndarray | None = None
    looked: np.ndarray | None = None

    def cut(self, first, last):
        """Return the series of the whole segments that bars `first` to `last` (inclusive) lie in."""
        starts = self.table.starts
        low = int(starts[np.searchsorted(starts, first, side="right") - 1])
        high = int(np.append(starts, len(self.frame))[np.searchsorted(starts, last, side="right")])
        known, looked = self.labelled, self.looked
        return Series(
            self.frame.iloc[low:high],
            self.table.cut(low, high),
            None if known is None else known[(known >= low) & (known < high)] - low,
            None if looked is None else looked[low:high],
        )


@dataclass(frozen=True)
class Watch:
    """What a model found in a series, on days that it was not trained on.

    Attributes
    ----------
    series : Series
    seen : ndarray (n_bars,), bool
        Bars of those days.
    n_left_out : int
        Days that it was trained on.
    first, last : ndarray (n,), int64
        Positions of the detections' bars, inclusive, in time order.
    detections : DataFrame (n) or None
        All that the scan says of them.
    """

    series: Series
    seen: np.ndarray
    n_left_out: int
    first: np.ndarray
    last: np.ndarray
    detections: pd.DataFrame | None = None

    @property
    def labelled(self):
        """Known starts on the days that were watched, (m,) int64; None where none are known."""
        known = self.series.labelled
        return None if known is None else known[self.seen[known]]

    @property
    def looked(self):
        """Watched bars at which a start would be known, (n_bars,) bool."""
        return self.seen if self.series.looked is None else self.seen & self.series.looked


def label_series(frame, table, windows):
    """Return a series whose expansions are known inside labelled windows.

    Parameters
    ----------
    frame : DataFrame
    table : FeatureTable
    windows : LabelledWindows
        A labeller decides about a window's inner bars: only there is a detection right or wrong.

    Returns
    -------
    Series
    """
    spans = windows.spans[..., 0]
    row, column = np.nonzero(spans >= 0)
    looked = np.zeros(len(frame), bool)
    first, last = INNER_BARS
    looked[(windows.place[:, None] + np.arange(first, last + 1)).ravel()] = True
    return Series(frame, table, np.unique(windows.place[row] + spans[row, column]), looked)


def plant_series(frame, table, planted):
    """Return a series of simulated bars, all of whose expansions are known.

    Parameters
    ----------
    frame : DataFrame
    table : FeatureTable
    planted : DataFrame
        With `start_ts`, as `market.Market.planted`.

    Returns
    -------
    Series
    """
    at = frame.index.get_indexer(planted["start_ts"])
    return Series(frame, table, np.unique(at[at >= 0]))


def watch_series(model, series, *, training_days=(), threshold, is_causal=False, stride=5, on_progress=None):
    """Scan a series and keep the detections of days that the model was not trained on.

    Parameters
    ----------
    model : Module with `segment_head`
    series : Series
    training_days : array_like of datetime64[D]
        Trade dates, left out.
    threshold : float
        Least confidence of a detection.
    is_causal : bool
        See `scan_causally`.
    stride, on_progress
        As for `scan`.

    Returns
    -------
    Watch

    Raises
    ------
    UserError
        The model was trained on every day, or cannot scan these bars.
    """
    days = trade_dates(series.frame.index)
    is_trained = np.isin(days, np.asarray(list(training_days), "datetime64[D]"))
    if is_trained.all():
        raise UserError("the model was trained on every day of these bars; give bars that it has not seen")
    run = scan_causally if is_causal else scan
    found = run(model, series.table, stride=stride, threshold=threshold, on_progress=on_progress).detections
    found = found[~is_trained[found["start"].to_numpy()]].reset_index(drop=True)
    first, last = (found[name].to_numpy(np.int64) for name in ("start", "end"))
    return Watch(series, ~is_trained, len(np.unique(days[is_trained])), first, last, found)
