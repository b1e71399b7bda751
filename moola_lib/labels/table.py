"""The label table: reading both layouts, listing every violation, the audit."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.files import replace_atomically
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.bars import PRICES, Bars, clean_bars

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
LEGACY_FIRST_STAMP = "2000-01-03"


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


def load_labels(path):
    """Read a label table in either layout.

    Parameters
    ----------
    path : str or Path
        Parquet. The current layout has `window_start`; the older one has
        `features`, an object array of 105 [open, high, low, close] per row.

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
        raise UserError(f"{path} does not exist; give a parquet file with labels")
    try:
        frame = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error
    if frame.empty:
        raise UserError(f"{path} holds no labels")
    bars = None
    if "window_start" not in frame.columns and "features" in frame.columns:
        frame, bars = _read_older_layout(frame, path)
    return Labels(check_labels(frame, source=str(path)), bars)


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
    wrong = []
    for name in ("expansion_start", "expansion_end", *SOFT_EDGES):
        numbers = pd.to_numeric(table[name], errors="coerce")
        is_text = (numbers.isna() & table[name].notna()) | (numbers % 1 != 0) & numbers.notna()
        wrong += [f"row {row + 1}: {name} = {table[name][row]!r} is not a whole bar" for row in np.flatnonzero(is_text)]
        table[name] = numbers.where(~is_text).astype("Int64")
    is_known = table["label"].isin(LABELS)
    wrong += [
        f"row {row + 1}: label = {table['label'][row]!r} is not one of {', '.join(LABELS)}"
        for row in np.flatnonzero(~is_known)
    ]
    start, end = table["expansion_start"], table["expansion_end"]
    has_span = start.notna() & end.notna()
    is_none = table["label"] == "none"
    in_order = ((start >= 0) & (start <= end) & (end < window_bars)).fillna(False)
    for row in np.flatnonzero(~is_none & is_known & ~(has_span & in_order)):
        wrong.append(f"row {row + 1}: span {_show(start[row])}..{_show(end[row])} is not within 0..{window_bars - 1}")
    for row in np.flatnonzero(is_none & (start.notna() | end.notna())):
        wrong.append(f"row {row + 1}: label is none but a span {_show(start[row])}..{_show(end[row])} is given")
    for row in np.flatnonzero(table["symbol"].isna()):
        wrong.append(f"row {row + 1}: symbol is empty")
    for row in np.flatnonzero(table["window_start"].isna()):
        wrong.append(f"row {row + 1}: window_start is empty")
    for row in np.flatnonzero(table.duplicated(["window_id", "expansion_start"])):
        key = f"{table['window_id'][row]}, {_show(start[row])}"
        wrong.append(f"row {row + 1}: the key (window_id, expansion_start) = ({key}) occurs twice")
    for window_id, group in table[table["window_id"].duplicated(keep=False)].groupby("window_id"):
        if group["window_start"].nunique() > 1:
            wrong.append(f"window {window_id}: {group['window_start'].nunique()} different window_start")
        if (group["label"] == "none").any():
            wrong.append(f"window {window_id}: a row says none, another row gives it an expansion or none again")
    if wrong:
        raise UserError(f"{source} breaks the rules of a label table in {len(wrong)} place(s): " + "; ".join(wrong))
    table["window_id"] = table["window_id"].astype(str)
    for name, kind in OPTIONAL.items():
        if kind in ("str", "float64"):
            table[name] = table[name].astype(kind)
    return table[[*REQUIRED, *OPTIONAL]]


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


def audit_labels(table):
    """Return one row per check of the table: `check`, `count`, `of`, `example`.

    Flags are not violations: starts or ends outside the inner part, one-bar
    expansions, several expansions in one window, stamps of labelling missing.
    """
    low, high = INNER_BARS
    spans = table[table["label"] != "none"]
    flags = {
        f"start outside the inner bars {low}..{high}": ~spans["expansion_start"].between(low, high),
        f"end outside the inner bars {low}..{high}": ~spans["expansion_end"].between(low, high),
        "expansion of a single bar": spans["expansion_start"] == spans["expansion_end"],
        "expansion longer than 30 bars": spans["expansion_end"] - spans["expansion_start"] + 1 > 30,
        "further expansion in the same window": spans.duplicated("window_id"),
        "windows sharing their first bar": spans.duplicated("window_start") & ~spans.duplicated("window_id"),
        "time of labelling missing": spans["labelled_at"].isna(),
        "made by a rule (proposal)": spans["source"].fillna("").str.startswith("proposal"),
    }
    rows = []
    for check, is_flagged in flags.items():
        is_flagged = is_flagged.fillna(False).to_numpy(bool)
        example = spans["window_id"].iloc[int(is_flagged.argmax())] if is_flagged.any() else ""
        rows.append({"check": check, "count": int(is_flagged.sum()), "of": len(spans), "example": example})
    rows.append(
        {"check": "no expansion", "count": int((table["label"] == "none").sum()), "of": len(table), "example": ""}
    )
    return pd.DataFrame(rows)


def _read_older_layout(frame, path):
    """Turn rows of 105 [O, H, L, C] into the current layout and the bars behind it, a day apart per window."""
    frame = frame.reset_index(drop=True)
    if "window_id" not in frame.columns:
        frame["window_id"] = [f"older-{row:04d}" for row in range(len(frame))]
    symbols = frame["symbol"].dropna().unique() if "symbol" in frame.columns else []
    if len(symbols) > 1:
        raise UserError(f"{path} holds labels of {len(symbols)} symbols ({', '.join(map(str, symbols))}); give one")
    symbol = str(symbols[0]) if len(symbols) else "UNKNOWN"
    prices = {}
    for row, (window_id, values) in enumerate(zip(frame["window_id"], frame["features"], strict=True)):
        bars = _read_window(values, path, row)
        if not np.array_equal(prices.setdefault(window_id, bars), bars):
            raise UserError(f"{path}: row {row + 1}: window {window_id} has other bars than in an earlier row")
    days = dict(zip(prices, pd.date_range(LEGACY_FIRST_STAMP, periods=len(prices), freq="D", tz="UTC"), strict=True))
    stamps = [pd.date_range(day, periods=WINDOW_BARS, freq="min") for day in days.values()]
    bars = pd.DataFrame(np.concatenate(list(prices.values())), columns=PRICES).assign(volume=0.0, symbol=symbol)
    bars.index = stamps[0].append(stamps[1:]).rename("ts")
    table = frame.drop(columns="features").assign(symbol=symbol, window_start=frame["window_id"].map(days))
    return table, clean_bars(bars, source=str(path), drop_budget=0.0)


def _read_window(values, path, row):
    """Return one window's prices, (105, 4) float64."""
    try:
        bars = np.stack([np.asarray(bar, np.float64) for bar in values])
    except (TypeError, ValueError):
        bars = np.empty(0)
    if bars.shape != (WINDOW_BARS, 4):
        raise UserError(
            f"{path}: row {row + 1}: `features` must hold {WINDOW_BARS} rows of [open, high, low, close]; "
            f"found {_describe_shape(values)}"
        )
    return bars


def _describe_shape(values):
    """Say what stands in the place of a window's prices."""
    try:
        widths = sorted({len(bar) for bar in values})
    except TypeError:
        return f"{type(values).__name__}"
    return f"{len(values)} rows of {' or '.join(map(str, widths)) or 'nothing'} values"


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
    try:
        return pd.to_datetime(stamps, utc=True)
    except (ValueError, TypeError) as error:
        raise UserError(f"{source}: a stamp cannot be read as a time ({error})") from error


def _show(value):
    """Return a nullable integer as text."""
    return "empty" if pd.isna(value) else str(int(value))
