"""`moola predict --follow`: watch a file of bars that grows, and append what a causal scan finds in the new ones."""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.features.stream import FeatureStream
from moola_lib.features.table import build_features
from moola_lib.learning.candidates import frame_candidates
from moola_lib.learning.causal_scan import CausalScanner, raise_alarms
from moola_lib.market.bars import COLUMNS, load_bars
from moola_lib.market.segments import segment_starts
from moola_lib.models.cards import check_understands
from moola_lib.runs.predicting import open_model, settle_manner
from moola_lib.runs.prediction_files import name_outputs, print_prediction, write_prediction
from moola_lib.runs.terminal import open_console, say_count


def follow_bars(
    source,
    model,
    output,
    *,
    csv=None,
    device="auto",
    reading=None,
    is_overwriting=False,
    seconds=1.0,
    n_polls=None,
    stream=None,
    **manner,
):
    """Scan the bars of a file and those that come, until interrupted.

    Parameters
    ----------
    source, model, output, csv, device, reading, is_overwriting, stream, **manner
        As for `predicting.predict_bars`; the mode is always causal.
    seconds : float
        Between looks at the file.
    n_polls : int, optional
        Looks to take; default without end.

    Returns
    -------
    Follower

    Raises
    ------
    UserError
        As for `predict_bars`; or the file has shrunk or was rewritten. What was
        written before stays.
    """
    outputs = name_outputs(output, csv, is_overwriting)
    opened = open_model(model, device)
    manner = settle_manner(opened, **{**manner, "is_causal": True})
    console = open_console(stream)
    follower = Follower(source, opened, manner, reading)
    n_looks = 0
    while n_polls is None or n_looks < n_polls:
        if n_looks:
            time.sleep(seconds)
        n_looks += 1
        n_before, n_known = len(follower.bars or ()), len(follower.detections)
        if not follower.poll():
            continue
        written = write_prediction(
            outputs, opened, manner, follower.bars, follower.starts, follower.detections, follower.answers
        )
        if n_before == 0:
            print_prediction(outputs, opened, manner, follower.bars, written, stream)
            console.print(f"following {source}; interrupt to end", markup=False, soft_wrap=True)
            continue
        for row in written.iloc[n_known:].itertuples():
            console.print(
                f"{row.seen_to_ts:%Y-%m-%d %H:%M} an expansion since {row.start_ts:%H:%M} after a {row.label}, "
                f"confidence {row.confidence:.2f}",
                markup=False,
                soft_wrap=True,
            )
    return follower


class Follower:
    """A causal scan of a file that grows.

    Parameters
    ----------
    source : str or Path
    opened : Localiser
    manner : predicting.Manner
    reading : dict, optional
        Of `load_bars`.

    Attributes
    ----------
    bars : Bars or None
        All so far.
    starts : ndarray (n_segments,), int64
    detections : DataFrame
        As of `scan_causally`.
    answers : tuple of 3 ndarray (n_bars,), float32
    """

    def __init__(self, source, opened, manner, reading=None):
        self.source, self._reading = Path(source), reading or {}
        self._manner, self._options, self._card = manner, opened.features, opened.card
        self._scanner = CausalScanner(
            opened.model,
            stride=manner.stride,
            least_confidence=manner.threshold,
            with_position="position" in opened.features["extra"],
        )
        self._stream = self._look = None
        self.bars, self.starts = None, np.empty(0, np.int64)
        self.detections = frame_candidates()
        self.answers = tuple(np.empty(0, np.float32) for _ in range(3))

    def poll(self):
        """Look at the file, and scan the bars that are new; tell whether there were any.

        Raises
        ------
        UserError
            The file cannot be read, holds fewer bars than before, or other ones.
        """
        look = _look_at(self.source)
        if look is None or look == self._look:
            return False
        bars = load_bars(self.source, **self._reading)
        n_known = 0 if self.bars is None else len(self.bars)
        if not n_known:
            check_understands(self._card, bars=bars)
        else:
            _refuse_rewritten(self.source, self.bars.frame, bars.frame)
        self._look = look
        if len(bars) == n_known:
            return False
        self.starts = segment_starts(bars.frame, max_gap_minutes=self._options["max_gap_minutes"])
        is_first = np.zeros(len(bars), bool)
        is_first[self.starts] = True
        values, is_valid = self._features(bars.frame, n_known)
        answers, candidates = self._scanner.extend(values, is_valid, is_first[n_known:])
        last_end = int(self.detections["end"].iloc[-1]) if len(self.detections) else -1
        found = raise_alarms(candidates, self._manner.threshold, last_end)
        self.detections = pd.concat([self.detections, found], ignore_index=True) if len(found) else self.detections
        self.answers = tuple(np.concatenate(pair) for pair in zip(self.answers, answers, strict=True))
        self.bars = bars
        return True

    def _features(self, frame, n_known):
        """Return values and validity of the bars from `n_known` on: the first of all at once, later ones one by one."""
        if self._stream is None:
            table = build_features(frame, **self._options)
            self._stream = FeatureStream.from_bars(frame, **self._options)
            return table.values, table.is_valid
        ids = frame["instrument_id"].iloc[n_known:] if "instrument_id" in frame else [None] * (len(frame) - n_known)
        prices = frame[["open", "high", "low", "close"]].iloc[n_known:]
        rows = [
            (self._stream.update(*row[1:], row[0], instrument_id=each), self._stream.is_valid)
            for row, each in zip(prices.itertuples(), ids, strict=True)
        ]
        values, is_valid = zip(*rows, strict=True)
        return np.stack(values), np.array(is_valid)


def _look_at(path):
    """Return what changes when a file does, or None while it is being written: a text without its last line's end."""
    try:
        status = path.stat()
        with open(path, "rb") as stream:
            head = stream.read(4)
            stream.seek(max(status.st_size - 4, 0))
            tail = stream.read(4)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file with bars") from error
    is_text = b"\0" not in head and head[:3] not in (b"PAR", b"\x1f\x8b\x08", b"\x28\xb5\x2f", b"DBN")
    is_whole = tail == b"PAR1" if head == b"PAR1" else not is_text or tail.endswith((b"\n", b"\r"))
    return (status.st_mtime_ns, status.st_size, status.st_ino) if is_whole else None


def _refuse_rewritten(path, before, now):
    """Refuse a file that no longer holds the bars it held."""
    if len(now) < len(before):
        raise UserError(
            f"{path} has shrunk from {say_count(len(before), 'bar')} to {len(now):,}; what is written stands, start "
            "again on the new file"
        )
    now = now.reindex(columns=before.columns)
    is_other = before.index != now.index[: len(before)]
    for name in (name for name in (*COLUMNS, "instrument_id") if name in before):
        is_other |= before[name].to_numpy() != now[name].to_numpy()[: len(before)]
    if is_other.any():
        row = int(is_other.argmax())
        raise UserError(
            f"{path} was rewritten: its bar at {before.index[row]} is another one now; what is written stands, start "
            "again on the new file"
        )
