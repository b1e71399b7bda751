"""What a model detected, as proposals: rows of a label table that a person may accept or correct."""

import numpy as np
import pandas as pd

from moola_lib import __version__
from moola_lib.labels.table import INNER_BARS, OPTIONAL, REQUIRED, SOFT_EDGES, check_labels
from moola_lib.labels.targets import WINDOW_BARS

MINUTE = pd.Timedelta(minutes=1)


def stamp_bars(bars, index, seen_to):
    """Return the stamps of bars, by the clock after the last bar that was seen.

    Parameters
    ----------
    bars : ndarray (n,), int64
        Positions in the series.
    index : DatetimeIndex, UTC
    seen_to : ndarray (n,), int64
        Last position seen; -1 for all.

    Returns
    -------
    DatetimeIndex, UTC
    """
    last = np.where(seen_to < 0, len(index) - 1, seen_to)
    ahead = np.maximum(bars - last, 0)
    return index[np.minimum(bars, last)] + ahead * MINUTE


def propose_detections(
    detections,
    index,
    starts,
    *,
    symbol,
    model,
    is_causal=False,
    start_range=INNER_BARS,
    seed=17,
    window_bars=WINDOW_BARS,
):
    """Turn detections into proposed labels, a window each.

    Where in its window a detection lies is drawn at random within `start_range`,
    by a draw of its own that depends on its stamp alone.

    Parameters
    ----------
    detections : DataFrame
        As `learning.scan.Scan.detections`.
    index : DatetimeIndex, UTC
        Stamps of the series.
    starts : ndarray (n_segments,), int64
        First bars of segments; no window crosses one.
    symbol, model : str
        The model's name becomes the annotator `model:NAME`.
    is_causal : bool
        How they were found: goes into `mode`. Their windows may end after the
        series does.
    start_range : (int, int)
        The model's.
    seed, window_bars : int

    Returns
    -------
    DataFrame
        A checked label table, source "proposal:model", the 80% intervals as soft
        edges; rows in the order of `detections`.

    Raises
    ------
    UserError
        The model tells no states apart, without which there is no label.
    """
    if len(detections) == 0:
        return _no_labels()
    start, end = (detections[name].to_numpy(np.int64) for name in ("start", "end"))
    stamps = index[start]
    segment = np.searchsorted(starts, start, side="right")
    segment_end = np.append(starts, len(index))[segment]
    earliest = np.maximum.reduce([starts[segment - 1], start - start_range[1], end - window_bars + 1])
    latest = start - start_range[0]
    if not is_causal:
        latest = np.minimum(latest, segment_end - window_bars)
    minute = (stamps.as_unit("s").asi8 // 60).tolist()
    draws = [np.random.default_rng([seed, each]).random() for each in minute]
    place = earliest + (np.array(draws) * (latest - earliest + 1)).astype(np.int64)
    edges = {name: (detections[name].to_numpy(np.int64) - place).clip(0, window_bars - 1) for name in SOFT_EDGES}
    table = pd.DataFrame(
        {
            "window_id": [f"{symbol}-{stamp:%Y%m%d-%H%M}" for stamp in index[place]],
            "symbol": symbol,
            "window_start": index[place],
            "expansion_start": start - place,
            "expansion_end": end - place,
            "label": detections["state"].to_numpy(object),
            "annotator": f"model:{model}",
            "source": "proposal:model",
            "quality": [f"confidence {each:.2f}" for each in detections["confidence"]],
            # the central interval may leave out the likeliest bar
            "start_low": np.minimum(edges["start_low"], start - place),
            "start_high": np.maximum(edges["start_high"], start - place),
            "end_low": np.minimum(edges["end_low"], end - place),
            "end_high": np.maximum(edges["end_high"], end - place),
            "mode": "causal" if is_causal else "retrospective",
            "tool_version": __version__,
        }
    )
    return check_labels(table, source="the detections", window_bars=window_bars)


def _no_labels():
    """Return a label table without rows, typed as one with rows."""
    stamp = pd.DatetimeIndex([], tz="UTC")
    empty = {name: pd.Series(dtype="str") for name in (*REQUIRED, *OPTIONAL)}
    return check_labels(pd.DataFrame(empty | {"window_start": stamp, "labelled_at": stamp}))
