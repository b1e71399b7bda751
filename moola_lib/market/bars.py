"""Load one-minute bars, drop what cannot be a bar, and say what was dropped."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.files import fingerprint, replace_atomically

PRICES = ["open", "high", "low", "close"]
COLUMNS = [*PRICES, "volume"]
STAMPS = ["ts", "ts_event"]
COMPRESSED = {b"\x28\xb5\x2f\xfd": "zstandard, perhaps Databento's DBN"}
MAX_INDEX_PRICE = 1e6  # Databento's raw files hold prices times 1e9
MIN_INDEX_PRICE = 10.0  # the features' epsilon is absolute and assumes index-sized prices


@dataclass(frozen=True)
class Bars:
    """One series of one-minute bars.

    Attributes
    ----------
    frame : DataFrame
        Index `ts`: UTC, the START of each bar, strictly increasing. Columns
        `open high low close` (points) and `volume` (contracts), float64, and
        `symbol`; `instrument_id` (int64) where the vendor gives it.
    report : DataFrame
        One row per fact of the import (`fact`, `value`): rows in, each reason
        for dropping with its count and first example, rows out, range.
    """

    frame: pd.DataFrame
    report: pd.DataFrame

    def __len__(self):
        return len(self.frame)

    @property
    def symbol(self):
        """The series' symbol."""
        return str(self.frame["symbol"].iloc[0])

    @property
    def fingerprint(self):
        """16 hexadecimal digits that change when any stamp, price or volume does."""
        stamps = self.frame.index.as_unit("ns").asi8
        return fingerprint(stamps, self.frame[COLUMNS].to_numpy(np.float64))


def load_bars(path, *, tz=None, stamp=None, symbol=None, scale=1.0, drop_budget=0.005):
    """Read bars from parquet or CSV in our layout or Databento's.

    Parameters
    ----------
    path : str or Path
        A `.parquet` or CSV file with the stamp as index or as a column `ts` or
        `ts_event`, and the columns open, high, low, close, volume; symbol and
        instrument_id are optional.
    tz : str, optional
        Zone of naive stamps, for example "America/Chicago". Stamps that carry a
        zone need none.
    stamp : {"start", "end"}, optional
        What the stamps mark. Default "start"; "end" moves them back one minute.
    symbol : str, optional
        Which symbol to read where the file holds several; the name to give
        where it holds none.
    scale : float
        Factor for prices that are not index-sized (for example 10000 for a
        currency pair).
    drop_budget : float
        Share of rows (fraction) that may be dropped before the file is refused.

    Returns
    -------
    Bars

    Raises
    ------
    UserError
        The file is missing, empty, of another format, lacks a column, has text
        in a price, unsorted or naive stamps, several symbols, another bar
        length, or more bad rows than the budget.
    """
    path = Path(path)
    frame = _read_table(path)
    if frame.empty:
        raise UserError(f"{path} holds no rows; give a file with one-minute bars")
    frame = _index_by_stamp(frame, path, tz, stamp)
    frame = _choose_symbol(frame, path, symbol)
    frame = _check_numbers(frame, path)
    frame[PRICES] = frame[PRICES] * scale
    return clean_bars(frame, source=path.name, drop_budget=drop_budget)


def clean_bars(frame, *, source, drop_budget=0.005):
    """Drop rows that cannot be bars, within a budget, and report each reason.

    Parameters
    ----------
    frame : DataFrame
        Indexed by UTC `ts`, with float64 prices and volume.
    source : str
        Where the rows come from; named in errors and in the report.
    drop_budget : float
        Largest fraction of rows that may be dropped.

    Returns
    -------
    Bars

    Raises
    ------
    UserError
        The budget is exceeded, nothing is left, the stamps are unsorted, or the
        series is not one-minute bars of index-sized prices.
    """
    prices = frame[PRICES]
    top, bottom = prices[["open", "close"]].max(axis=1), prices[["open", "close"]].min(axis=1)
    reasons = {
        "missing value": frame[COLUMNS].isna().any(axis=1) | ~np.isfinite(prices).all(axis=1),
        "price not above 0": (prices <= 0).any(axis=1),
        "high below low": frame["high"] < frame["low"],
        "open or close outside low..high": (frame["high"] < top) | (frame["low"] > bottom),
    }
    is_sound = ~np.logical_or.reduce([is_bad.to_numpy() for is_bad in reasons.values()])
    is_double = np.zeros(len(frame), bool)
    is_double[is_sound] = frame.index[is_sound].duplicated()  # a bad row is no reason to drop a sound one
    reasons["duplicate stamp"] = pd.Series(is_double, index=frame.index)
    _check_order(frame, source)
    is_dropped = np.zeros(len(frame), bool)
    facts = [("source", source), ("rows in", f"{len(frame):,}")]
    for reason, is_bad in reasons.items():
        is_new = is_bad.to_numpy() & ~is_dropped
        if is_new.any():
            row = int(is_new.argmax())
            facts.append((f"dropped: {reason}", f"{is_new.sum():,} (first: row {row + 1}, {frame.index[row]})"))
        is_dropped |= is_new
    share = is_dropped.mean()
    if share > drop_budget:
        counts = "; ".join(f"{name[9:]}: {text}" for name, text in facts if name.startswith("dropped"))
        raise UserError(
            f"{source}: {is_dropped.sum():,} of {len(frame):,} rows ({share:.1%}) are not valid bars, more than the "
            f"budget of {drop_budget:.1%} ({counts}); mend the file or raise drop_budget"
        )
    clean = frame.loc[~is_dropped]
    if clean.empty:
        raise UserError(f"{source}: no valid bar is left of {len(frame):,} rows")
    _check_kind(clean, source)
    zero_volume = int((clean["volume"] == 0).sum())
    facts += [
        ("rows out", f"{len(clean):,}"),
        ("symbol", str(clean["symbol"].iloc[0])),
        ("first bar (UTC)", str(clean.index[0])),
        ("last bar (UTC)", str(clean.index[-1])),
        ("bars with volume 0 (kept)", f"{zero_volume:,}"),
    ]
    return Bars(clean, pd.DataFrame(facts, columns=["fact", "value"]))


def _read_table(path):
    """Return the file's rows as a frame, its format recognised by content."""
    if not path.exists():
        raise UserError(f"{path} does not exist; give the path of a parquet or CSV file with bars")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the path of a parquet or CSV file with bars")
    with open(path, "rb") as stream:
        head = stream.read(4)
    if not head:
        raise UserError(f"{path} is empty; give a file with one-minute bars")
    if head in COMPRESSED:
        raise UserError(
            f"{path} is compressed binary data ({COMPRESSED[head]}), which this version does not read; "
            "export it as CSV with readable stamps, or as parquet"
        )
    try:
        if head == b"PAR1":
            return pd.read_parquet(path)
        if path.suffix == ".parquet":
            raise UserError(f"{path} is not a parquet file (it does not begin with PAR1); export it again")
        return pd.read_csv(path)
    except (ValueError, OSError, UnicodeDecodeError) as error:  # arrow's and pandas' errors are ValueErrors
        raise UserError(f"{path} cannot be read as {'parquet' if head == b'PAR1' else 'CSV'}: {error}") from error


def _index_by_stamp(frame, path, tz, stamp):
    """Return the frame indexed by UTC `ts`, the start of each bar."""
    if stamp not in (None, "start", "end"):
        raise UserError(f"stamp={stamp!r} is not known; use 'start' or 'end'")
    name = next((name for name in STAMPS if name in frame.columns), None)
    if name:
        frame = frame.set_index(name)
    elif not isinstance(frame.index, pd.DatetimeIndex):
        found = ", ".join(map(str, frame.columns[:8]))
        raise UserError(
            f"{path} has no stamp: expected a column or index named ts or ts_event, found {found}; "
            "this version reads its own layout and Databento's (README, Your own bars)"
        )
    if pd.api.types.is_numeric_dtype(frame.index) and not frame.index.hasnans:
        raise UserError(
            f"{path}: the stamps are numbers (first: {frame.index[0]}), an epoch whose unit and scale of prices this "
            "version does not read; export readable stamps, such as Databento's pretty_ts"
        )
    try:
        index = _parse_stamps(frame.index)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: the stamps cannot be read as times ({error})") from error
    if index.hasnans:
        raise UserError(f"{path}: row {int(index.isna().argmax()) + 1} has no stamp; mend the file")
    if index.tz is None:
        if tz is None:
            raise UserError(
                f"{path}: the stamps carry no time zone (first: {index[0]}); say which with tz, "
                "for example America/Chicago"
            )
        try:
            index = index.tz_localize(tz)
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}: the stamps cannot be read in the zone {tz!r}: {error}") from error
    index = index.tz_convert("UTC").rename("ts")
    if stamp == "end":
        index = index - pd.Timedelta(minutes=1)
    return frame.set_axis(index)


def _parse_stamps(stamps):
    """Return stamps as times; texts that all carry an offset become UTC, for offsets change in spring and autumn."""
    if pd.api.types.is_string_dtype(stamps) and stamps.str.contains(r":\d\d.*(?:Z|[+-]\d\d:?\d\d)$").all():
        return pd.DatetimeIndex(pd.to_datetime(stamps, utc=True))
    return pd.DatetimeIndex(stamps)


def _choose_symbol(frame, path, symbol):
    """Return the rows of one symbol."""
    if "symbol" not in frame.columns:
        if symbol is None:
            raise UserError(f"{path} has no column symbol; name the series with symbol")
        return frame.assign(symbol=symbol)
    known = sorted(frame["symbol"].dropna().astype(str).unique())
    if symbol is not None:
        frame = frame[frame["symbol"] == symbol]
        if frame.empty:
            raise UserError(f"{path} holds no bars of {symbol!r}; it holds {', '.join(known)}")
    elif len(known) > 1:
        raise UserError(f"{path} holds {len(known)} symbols ({', '.join(known[:5])}); choose one with symbol")
    return frame


def _check_numbers(frame, path):
    """Return the frame's known columns with float64 numbers; refuse text."""
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"it has {', '.join(map(str, frame.columns))}"
        )
    kept = [*COLUMNS, "symbol", *(["instrument_id"] if "instrument_id" in frame.columns else [])]
    frame = frame[kept].copy()
    for name in COLUMNS:
        numbers = pd.to_numeric(frame[name], errors="coerce")
        is_text = (numbers.isna() & frame[name].notna()).to_numpy()
        if is_text.any():
            row = int(is_text.argmax())
            raise UserError(
                f"{path}: row {row + 1}, column {name}: {frame[name].iloc[row]!r} is not a number; mend the file"
            )
        frame[name] = numbers.astype(np.float64)
    if "instrument_id" in frame.columns and frame["instrument_id"].isna().any():
        row = int(frame["instrument_id"].isna().to_numpy().argmax())
        raise UserError(f"{path}: row {row + 1} has no instrument_id; mend it, or leave the column out")
    return frame


def _check_order(frame, source):
    """Refuse stamps that go backwards."""
    stamps = frame.index.as_unit("ns").asi8
    is_back = np.diff(stamps) < 0
    if is_back.any():
        row = int(is_back.argmax()) + 1
        raise UserError(
            f"{source}: the stamps are not sorted: row {row + 1} ({frame.index[row]}) comes before row {row} "
            f"({frame.index[row - 1]}); sort the file by time"
        )


def _check_kind(frame, source):
    """Refuse another bar length, and prices too small for the features' epsilon."""
    steps = np.diff(frame.index.as_unit("ns").asi8) / 60e9
    if len(steps) >= 10 and np.median(steps) != 1.0:
        raise UserError(f"{source}: the usual step is {np.median(steps):g} minutes; one-minute bars are needed")
    price = float(frame["close"].median())
    if price > MAX_INDEX_PRICE:
        raise UserError(
            f"{source}: prices around {price:.4g} are no index prices; are they in other units, such as 1e-9? "
            "Give the factor with the parameter scale"
        )
    if price < MIN_INDEX_PRICE:
        raise UserError(
            f"{source}: prices around {price:.4g} are not index-sized (features assume at least {MIN_INDEX_PRICE:g}); "
            "multiply them by a stated factor, the parameter scale"
        )


def save_bars(bars, path):
    """Write a series as parquet, atomically; `load_bars` reads it back unchanged."""
    with replace_atomically(path) as temporary:
        bars.frame.to_parquet(temporary)


def rebin_bars(frame, n_bins=1000):
    """Merge neighbouring bars so that about `n_bins` candles show the whole series.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    n_bins : int

    Returns
    -------
    DataFrame
        First open, highest high, lowest low, last close and total volume per
        bin, indexed by the bin's first stamp.
    """
    edges = np.unique(np.linspace(0, len(frame), min(n_bins, len(frame)) + 1).astype(np.int64))
    first, last = edges[:-1], edges[1:] - 1
    return pd.DataFrame(
        {
            "open": frame["open"].to_numpy()[first],
            "high": np.maximum.reduceat(frame["high"].to_numpy(), first),
            "low": np.minimum.reduceat(frame["low"].to_numpy(), first),
            "close": frame["close"].to_numpy()[last],
            "volume": np.add.reduceat(frame["volume"].to_numpy(), first),
        },
        index=frame.index[first],
    )
