"""The label table: reading it in any format, listing every violation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.files import replace_atomically
from moola_lib.labels.older import find_stamps, read_older
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.bars import Bars

CLASSES = ("consolidation", "retracement")  # class indices 0 and 1
LABELS = (*CLASSES, "none")
INNER_BARS = (30, 74)  # past, inner part and future of a labelled window: 30 + 45 + 30 bars
REQUIRED = ["window_id", "symbol", "window_start", "expansion_start", "expansion_end", "label"]
SOFT_EDGES = ["start_low", "start_high", "end_low", "end_high"]
OPTIONAL = {
    "annotator": "str",
    "labelled_at": "datetime64[ns, UTC]",
    "quality": "str",
    "source": "str",
    **dict.fromkeys(SOFT_EDGES, "Int64"),
    "seconds": "float64",
    "mode": "str",
    "tool_version": "str",
}


@dataclass(frozen=True)
class Labels:
    """A checked label table.

    Attributes
    ----------
    table : DataFrame
        Columns of the label table (spec section 4), one row per expansion.
    bars : Bars or None
        The windows' own bars, for the older layout that carries no stamps:
        each window is a segment of its own, a day apart.
    """

    table: pd.DataFrame
    bars: Bars | None = None

    @property
    def is_proposed(self):
        """True where any label was made by a rule, not by a person."""
        return bool(self.table["source"].fillna("").str.startswith("proposal").any())

    @property
    def n_windows(self):
        """Number of windows."""
        return self.table["window_id"].nunique()


def load_labels(path, frame=None, *, symbol=None):
    """Read a label table.

    Parameters
    ----------
    path : str or Path
        Parquet, or CSV (`.csv`) or Label Studio JSON (`.json`), see
        `labels.exchange`. The current layout has `window_start`; the older one,
        in parquet only, has `features`, an object array of 105 [open, high,
        low, close] per row.
    frame : DataFrame, optional
        Bars indexed by UTC `ts`, for JSON whose regions are times and that holds no bars.
    symbol : str, optional
        For JSON that names none.

    Returns
    -------
    Labels

    Raises
    ------
    UserError
        The file cannot be read, or rows violate the table's rules (all listed).
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give a file with labels (.parquet, .csv or .json)")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the file in it that holds the labels")
    from moola_lib.labels.exchange import read_frame  # it writes and reads tables as they are here

    table, own = read_frame(path, frame, symbol=symbol), None
    if table.empty:
        raise UserError(f"{path} holds no labels")
    if "window_start" not in table.columns and "features" in table.columns:
        table, own = read_older(table, source=str(path))
    return Labels(check_labels(table, source=str(path)), own)


def stamp_labels(labels, frame):
    """Give labels of the older layout the stamps of the bars that they were drawn on.

    Parameters
    ----------
    labels : Labels
        With `bars` of their own.
    frame : DataFrame
        Bars of one symbol indexed by UTC `ts`.

    Returns
    -------
    Labels
        Without bars of their own, under the symbol of `frame`.

    Raises
    ------
    UserError
        A window is not in the bars.
    """
    table = labels.table
    stamps = find_stamps(labels.bars.frame, frame)[table["window_start"]].array
    lost = table.loc[stamps.isna(), "window_id"].unique()
    if len(lost):
        raise UserError(
            f"{len(lost)} of {labels.n_windows} windows of the older layout are not in the bars (the first is "
            f"{lost[0]}); give the bars they were cut from, at the same prices"
        )
    return Labels(check_labels(table.assign(window_start=stamps, symbol=str(frame["symbol"].iloc[0]))))


def save_labels(table, path):
    """Write a checked table as parquet, atomically."""
    with replace_atomically(path) as temporary:
        table.to_parquet(temporary, index=False)


def check_labels(frame, *, source="the label table", window_bars=WINDOW_BARS):
    """Return the table with every column of the layout, typed; refuse violations.

    Raises
    ------
    UserError
        Names every violating row with its value.
    """
    table, wrong = _check(frame, source, window_bars)
    if wrong:
        raise UserError(
            f"{source} breaks the rules of a label table in {len(wrong)} place(s): "
            + "; ".join(f"{where}: {what}" for where, what in wrong)
        )
    return table


def find_violations(frame, *, source="the label table", window_bars=WINDOW_BARS):
    """List what `check_labels` would refuse.

    Parameters
    ----------
    frame : DataFrame
        With the columns of a label table.
    source : str
        Its name in sentences.
    window_bars : int

    Returns
    -------
    DataFrame
        `where` (a row, from 1, or a window) and `violation`, in words.

    Raises
    ------
    UserError
        A column is missing, or stamps cannot be read: then rows cannot be judged.
    """
    return pd.DataFrame(_check(frame, source, window_bars)[1], columns=["where", "violation"])


def _check(frame, source, window_bars):
    """Return the typed table, and the violations as (where, what)."""
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise UserError(f"{source} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    table = frame.reset_index(drop=True).copy()
    for name in OPTIONAL:
        if name not in table.columns:
            table[name] = None
    _refuse_naive(table["window_start"], source)
    table["window_start"] = _to_utc(table["window_start"], source)
    table["labelled_at"] = _to_utc(table["labelled_at"], source)
    table["window_id"] = (
        table["window_id"].astype(object).where(table["window_id"].isna(), table["window_id"].astype(str))
    )
    wrong = [(f"row {row + 1}", what) for row, what in (*_read_numbers(table), *_wrong_rows(table, window_bars))]
    wrong += [(f"window {window_id}", what) for window_id, what in _wrong_windows(table)]
    table["window_id"] = table["window_id"].astype(str)
    for name, kind in OPTIONAL.items():
        if kind in ("str", "float64"):
            table[name] = table[name].astype(kind)
    return table[[*REQUIRED, *OPTIONAL]], wrong


def _read_numbers(table):
    """Turn the table's columns of numbers into numbers, in place; return (row, what) of cells that hold none."""
    wrong = []
    for name in ("expansion_start", "expansion_end", *SOFT_EDGES, "seconds"):
        numbers = pd.to_numeric(table[name], errors="coerce")
        is_text = numbers.isna() & table[name].notna()
        unit = "a number"
        if name != "seconds":
            is_text, unit = is_text | (numbers % 1 != 0) & numbers.notna(), "a whole bar"
        wrong += [(row, f"{name} = {table[name][row]!r} is not {unit}") for row in np.flatnonzero(is_text)]
        table[name] = numbers.where(~is_text).astype("float64" if name == "seconds" else "Int64")
    return wrong


def _wrong_rows(table, window_bars):
    """Return (row, what) of rows that break a rule by themselves, or share their key with an earlier one."""
    is_known = table["label"].isin(LABELS)
    wrong = [
        (row, f"label = {table['label'][row]!r} is not one of {', '.join(LABELS)}") for row in np.flatnonzero(~is_known)
    ]
    start, end = table["expansion_start"], table["expansion_end"]
    is_none = table["label"] == "none"
    in_order = ((start >= 0) & (start <= end) & (end < window_bars)).fillna(False)
    for row in np.flatnonzero(~is_none & is_known & ~in_order):
        wrong.append((row, f"span {_show(start[row])}..{_show(end[row])} is not within 0..{window_bars - 1}"))
    for row in np.flatnonzero(is_none & (start.notna() | end.notna())):
        wrong.append((row, f"label is none but a span {_show(start[row])}..{_show(end[row])} is given"))
    for edge in ("start", "end"):
        low, high = table[f"{edge}_low"], table[f"{edge}_high"]
        is_bad = (low > high).fillna(False) | (low < 0).fillna(False) | (high >= window_bars).fillna(False)
        for row in np.flatnonzero(is_bad):
            wrong.append((row, f"soft {edge} {_show(low[row])}..{_show(high[row])} is not within 0..{window_bars - 1}"))
    for name in ("window_id", "symbol", "window_start"):
        wrong += [(row, f"{name} is empty") for row in np.flatnonzero(table[name].isna())]
    for row in np.flatnonzero(table.duplicated(["window_id", "expansion_start"])):
        key = f"{table['window_id'][row]}, {_show(start[row])}"
        wrong.append((row, f"the key (window_id, expansion_start) = ({key}) occurs twice"))
    return wrong


def _wrong_windows(table):
    """Return (window_id, what) of windows whose rows contradict each other."""
    wrong = []
    for window_id, group in table[table["window_id"].duplicated(keep=False)].groupby("window_id"):
        for name in ("window_start", "symbol"):
            if group[name].nunique() > 1:
                wrong.append((window_id, f"{group[name].nunique()} different {name}"))
        if (group["label"] == "none").any():
            wrong.append((window_id, "a row says none, another row gives it an expansion or none again"))
    return wrong


def labels_from_planted(planted, *, symbol, n_windows=174, first_ts=None, seed=17):
    """Turn a simulator's plan into a label table in the proportions 81 to 93.

    Parameters
    ----------
    planted : DataFrame
        As `market.Market.planted`: positions of each expansion and its window.
    symbol : str
    n_windows : int
        Windows to label, drawn at random among the planted ones.
    first_ts : Timestamp, optional
        Only windows from this instant on are labelled.
    seed : int

    Returns
    -------
    DataFrame
        A checked label table sorted by time, source "simulated".

    Raises
    ------
    UserError
        The plan holds too few windows of a class.
    """
    if first_ts is not None:
        planted = planted[planted["window_start_ts"] >= first_ts]
    n_first = round(n_windows * 81 / 174)
    wanted = dict(zip(CLASSES, (n_first, n_windows - n_first), strict=True))
    chosen = []
    for k, (state, count) in enumerate(wanted.items()):
        rows = planted[planted["state"] == state]
        if len(rows) < count:
            raise UserError(
                f"{len(rows)} simulated windows hold a {state}, {count} are needed; simulate more sessions "
                "or ask for fewer labels (n_labels)"
            )
        chosen.append(rows.sample(count, random_state=seed + k))
    rows = pd.concat(chosen).sort_values("window_start_ts")
    minute = pd.Timedelta(minutes=1)
    table = pd.DataFrame(
        {
            "window_id": [f"{symbol}-{stamp:%Y%m%d-%H%M}" for stamp in rows["window_start_ts"]],
            "symbol": symbol,
            "window_start": rows["window_start_ts"].array,
            "expansion_start": ((rows["start_ts"] - rows["window_start_ts"]) // minute).to_numpy(),
            "expansion_end": ((rows["end_ts"] - rows["window_start_ts"]) // minute).to_numpy(),
            "label": rows["state"].to_numpy(),
            "annotator": "simulator",
            "source": "simulated",
        }
    )
    return check_labels(table, source="simulated labels")


def _refuse_naive(stamps, source):
    """Refuse a window_start without a zone: read in the wrong one, the label lands on other bars."""
    for row, stamp in enumerate(stamps):
        try:
            is_naive = not pd.isna(stamp) and pd.Timestamp(stamp).tzinfo is None
        except (ValueError, TypeError) as error:
            raise UserError(f"{source}: row {row + 1}: window_start = {stamp!r} is not a time") from error
        if is_naive:
            raise UserError(
                f"{source}: row {row + 1}: window_start = {stamp} carries no time zone; store it with one (UTC)"
            )


def _to_utc(stamps, source):
    """Return a column of stamps as UTC; naive stamps are read as UTC."""
    if not isinstance(stamps.dtype, pd.DatetimeTZDtype):
        stamps = stamps.map(str, na_action="ignore")  # texts may differ in how fine they are
    read = pd.to_datetime(stamps, utc=True, format="ISO8601", errors="coerce")
    read = read.where(read.dt.year.between(1700, 2200)).dt.as_unit("ns")  # nanoseconds hold 1678 to 2261
    for row in np.flatnonzero(read.isna() & stamps.notna()):
        raise UserError(
            f"{source}: row {row + 1}: {stamps.name} = {stamps[row]!r} is not a time like 2024-03-05T15:00Z"
        )
    return read


def _show(value):
    """Return a nullable integer as text."""
    return "empty" if pd.isna(value) else str(int(value))
