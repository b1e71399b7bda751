"""What a window loses when it is cut out of its series: rows that are not valid, features that differ.

Most columns look back a fixed number of bars (19 at most) and are the same as
soon as that many precede them. Two memories have no end inside a segment: the
range's running mean fades by 19/21 a bar, and a swing lasts until the next.
Only the whole segment up to the window gives the same features for certain;
fewer bars give nearly the same, and `compare_cold_to_warm` says how nearly.
"""

import numpy as np
import pandas as pd

from moola_lib.features.sets import WARM_UP_BARS, describe_set
from moola_lib.features.table import build_features, fill_table
from moola_lib.market.bars import PRICES, Bars


def count_cold_rows(table, places, *, window_bars):
    """Count the rows of windows that are not valid, with the bars before them and without.

    Parameters
    ----------
    table : FeatureTable
        Of the whole series.
    places : ndarray (n_windows,), int64
        Positions of first bars.
    window_bars : int

    Returns
    -------
    DataFrame
        Indexed `warm` (in the series) and `cold` (each window on its own, as in
        the older label layout): `n_rows`, `n_not_valid`, `share_not_valid`,
        `n_windows_touched`.
    """
    is_valid = table.is_valid[np.asarray(places)[:, None] + np.arange(window_bars)]
    is_past_start = np.broadcast_to(np.arange(window_bars) >= WARM_UP_BARS, is_valid.shape)
    rows = {}
    for name, is_good in (("warm", is_valid), ("cold", is_past_start)):
        n_bad = int((~is_good).sum())
        rows[name] = (is_good.size, n_bad, n_bad / max(is_good.size, 1), int((~is_good).any(axis=1).sum()))
    columns = ["n_rows", "n_not_valid", "share_not_valid", "n_windows_touched"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def compare_cold_to_warm(bars, places, *, window_bars, n_before=0, **options):
    """Compare windows cut out with some bars before them to the same windows in their series.

    Parameters
    ----------
    bars : Bars or DataFrame
        The whole series, indexed by UTC `ts`.
    places : ndarray (n_windows,), int64
        Positions of first bars; each window lies inside a segment.
    window_bars : int
    n_before : int or None
        Bars of its segment that each window keeps before it, as far as there
        are as many; None keeps them all, and then nothing differs.
    **options
        Of `build_features`.

    Returns
    -------
    DataFrame
        One row per feature, over rows valid both ways: `feature`, `n_rows`,
        `equal_share` (to the bit), `largest_difference` (feature units; NaN without rows).
    """
    frame = bars.frame if isinstance(bars, Bars) else bars
    warm = build_features(frame, **options)
    places = np.asarray(places, np.int64)
    segment_first = warm.starts[np.searchsorted(warm.starts, places, side="right") - 1]
    first = segment_first if n_before is None else np.maximum(segment_first, places - n_before)
    pieces = [np.arange(start, place + window_bars) for start, place in zip(first, places, strict=True)]
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    rows = np.concatenate(pieces) if pieces else np.empty(0, np.int64)
    starts = np.cumsum(lengths) - lengths
    prices = [frame[name].to_numpy(np.float64)[rows] for name in PRICES]
    cold = fill_table(prices, starts, describe_set(**warm.options))
    in_window = np.arange(len(rows)) >= np.repeat(starts + lengths - window_bars, lengths)
    is_compared = in_window & cold.is_valid & warm.is_valid[rows]
    ours, theirs = cold.values[is_compared], warm.values[rows[is_compared]]
    n_rows = len(ours)
    return pd.DataFrame(
        {
            "feature": warm.names,
            "n_rows": n_rows,
            "equal_share": (ours == theirs).mean(axis=0) if n_rows else np.nan,
            "largest_difference": np.abs(ours - theirs).max(axis=0) if n_rows else np.nan,
        }
    )
