"""What one should know of a label table before believing a score: flags, windows to look at again, soft edges."""

import numpy as np
import pandas as pd

from moola_lib.labels.table import INNER_BARS, SOFT_EDGES
from moola_lib.labels.targets import WINDOW_BARS

LONGEST_BARS = 30  # of an expansion as the notes know it
MINUTE = pd.Timedelta(minutes=1)
LOW, HIGH = INNER_BARS
END_OUTSIDE = f"end outside the inner bars {LOW}..{HIGH}"
AGAIN = "window labelled again under another id"
ORIGIN = ("time of labelling missing", "made by a rule (proposal)")
NO_REASONS = (END_OUTSIDE, AGAIN, *ORIGIN)  # common or welcome: no reason to look at a label again


def audit_labels(table):
    """Return one row per check of the table: `check`, `count`, `of`, `example`.

    Flags are not violations: those are refused when a table is read (see
    `table.find_violations`). Counted are rows; `of` is how many could be flagged.

    Parameters
    ----------
    table : DataFrame
        Checked label table.
    """
    flags, spans = _flags(table), (table["label"] != "none").to_numpy()
    rows = []
    for check, is_flagged in flags.items():
        example = table["window_id"].iloc[int(is_flagged.argmax())] if is_flagged.any() else ""
        rows.append({"check": check, "count": int(is_flagged.sum()), "of": int(spans.sum()), "example": example})
    rows.append({"check": "no expansion", "count": int((~spans).sum()), "of": len(table), "example": ""})
    return pd.DataFrame(rows)


def list_flagged(table):
    """Return the flagged rows, those with the most flags first: a queue for the label studio.

    Parameters
    ----------
    table : DataFrame
        Checked label table.

    Returns
    -------
    DataFrame
        `window_id` and `why` (the flags in words, NO_REASONS left out), a row per window.
    """
    found = {}
    for check, is_flagged in _flags(table).items():
        if check not in NO_REASONS:
            for window_id in table["window_id"][is_flagged].unique():
                found.setdefault(window_id, []).append(check)
    order = sorted(found, key=lambda window_id: -len(found[window_id]))  # stable: ties as in the table
    return pd.DataFrame({"window_id": order, "why": ["; ".join(found[each]) for each in order]}, dtype="str")


def find_overlaps(table):
    """Return pairs of windows that share some of their bars, by their stamps.

    Parameters
    ----------
    table : DataFrame
        Checked label table.

    Returns
    -------
    DataFrame
        `window_id`, `other_id` (the later one), `symbol`, `shared_minutes`. Folds
        keep such windows together. Windows with all bars in common are one window
        labelled twice, and left out.
    """
    windows = table.drop_duplicates("window_id").sort_values("window_start", kind="stable")
    rows = []
    for symbol, group in windows.groupby("symbol"):
        stamps, ids = group["window_start"].dt.tz_convert(None).to_numpy(), group["window_id"].to_numpy()
        first, stop = np.searchsorted(stamps, stamps, "right"), np.searchsorted(stamps, stamps + WINDOW_BARS * MINUTE)
        for row in range(len(stamps)):
            for other in range(first[row], stop[row]):
                shared = WINDOW_BARS - int((stamps[other] - stamps[row]) // MINUTE)
                rows.append((ids[row], ids[other], symbol, shared))
    return pd.DataFrame(rows, columns=["window_id", "other_id", "symbol", "shared_minutes"])


def describe_soft_edges(table):
    """Return how unsure annotators said they were: one row per edge.

    Parameters
    ----------
    table : DataFrame
        Checked label table.

    Returns
    -------
    DataFrame
        `edge`, `count` (rows with an interval), `of` (rows with an expansion),
        `median_bars` and `longest_bars` of its width (high - low; NaN without any).
    """
    spans = table[table["label"] != "none"]
    rows = []
    for edge in ("start", "end"):
        width = (spans[f"{edge}_high"] - spans[f"{edge}_low"]).dropna().to_numpy(np.float64)
        median, longest = (np.median(width), width.max()) if len(width) else (np.nan, np.nan)
        row = {"edge": edge, "count": len(width), "of": len(spans)}
        rows.append(row | {"median_bars": float(median), "longest_bars": float(longest)})
    return pd.DataFrame(rows)


def _flags(table):
    """Return {check: which rows of the table are flagged}, ndarray (n,) bool each."""
    is_span = table["label"] != "none"
    start, end = table["expansion_start"], table["expansion_end"]
    windows = table.drop_duplicates("window_id")
    twice = windows.loc[windows.duplicated(["symbol", "window_start"], keep=False), "window_id"]
    sharing = find_overlaps(table)[["window_id", "other_id"]].to_numpy().ravel()
    readers = table.groupby("window_id")["annotator"].transform(lambda names: names.fillna("").nunique())
    flags = {
        f"start outside the inner bars {LOW}..{HIGH}": ~start.between(LOW, HIGH),
        END_OUTSIDE: ~end.between(LOW, HIGH),
        "expansion of a single bar": start == end,
        f"expansion longer than {LONGEST_BARS} bars": end - start + 1 > LONGEST_BARS,
        "further expansion in the same window": table[is_span].duplicated("window_id").reindex(table.index),
        "expansions of one window overlap": _overlaps_earlier(table),
        "one window id, several annotators": readers > 1,
        AGAIN: table["window_id"].isin(twice),
        "window shares bars with another": table["window_id"].isin(sharing),
        "soft edge beside its own interval": _is_beside_interval(table),
        "soft edge half given": table[SOFT_EDGES].notna().sum(axis=1) % 2 == 1,
        ORIGIN[0]: table["labelled_at"].isna(),
        ORIGIN[1]: table["source"].fillna("").str.startswith("proposal"),
    }
    return {
        check: (is_flagged.astype("boolean").fillna(False) & is_span).to_numpy(bool)
        for check, is_flagged in flags.items()
    }


def _overlaps_earlier(table):
    """Tell which expansions begin before an earlier one of their window has ended."""
    order = table.sort_values("expansion_start", kind="stable")
    last_end = order.groupby("window_id")["expansion_end"].transform(lambda ends: ends.cummax().shift())
    return (order["expansion_start"] <= last_end).reindex(table.index)


def _is_beside_interval(table):
    """Tell which rows have an edge outside the interval that is given for it."""
    beside = [
        (table[f"expansion_{edge}"] < table[f"{edge}_low"]).fillna(False)
        | (table[f"expansion_{edge}"] > table[f"{edge}_high"]).fillna(False)
        for edge in ("start", "end")
    ]
    return beside[0] | beside[1]
