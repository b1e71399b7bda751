"""The rows of one file as plain arrays, whatever its vendor: what it says, with what it leaves unsaid left open."""

import datetime
import re
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moola_lib.errors import UserError
from moola_lib.market.databento import FIXED_PRICE_SCALE, MINUTE_RTYPE, RTYPE_NAMES, UNDEFINED_PRICE

PRICES = ["open", "high", "low", "close"]
NUMBERS = [*PRICES, "volume"]
DAY = re.compile(r"\d{4}-\d\d-\d\d|\d{8}")
COMPACT_STAMP = re.compile(r"\d{8} \d{6}")
EPOCH = re.compile(r"\d{9,19}")
EPOCH_FACTORS = {9: 10**9, 10: 10**9, 12: 10**6, 13: 10**6, 15: 1000, 16: 1000, 18: 1, 19: 1}  # digits: to ns
ISO_STAMP = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?P<offset>Z|[+-]\d\d(?::?\d\d)?)?")


@dataclass
class Rows:
    """The rows of one file, as its vendor wrote them.

    Attributes
    ----------
    layout : str
        Name for the report.
    stamps : ndarray (n_rows,), int64
        Nanoseconds since 1970: UTC where the stamps carry a zone, wall time elsewhere.
    numbers : dict of str to ndarray (n_rows,), float64
        open, high, low, close, volume; NaN where the file gives none.
    zone : str
        How the stamps carry their zone, in words; "" where they do not.
    offset : timedelta or None
        From UTC, of the first stamp that carries one.
    mark : {"start", "end", None}
        What the layout's stamps mark by custom; None where that differs.
    is_mark_certain : bool
        The vendor documents the mark.
    is_ours : bool
        The stamps' column is `ts`, the start of a bar unless stated otherwise.
    symbols : list of str
        Names found; empty where the file has none.
    codes : ndarray (n_rows,), int, or None
        Position in `symbols` of each row's; None where all rows are of one.
    instrument_id : ndarray (n_rows,), int64, or None
    left_out : list of str
        Columns that are not read.
    """

    layout: str
    stamps: np.ndarray
    numbers: dict
    zone: str = ""
    offset: datetime.timedelta | None = None
    mark: str | None = "start"
    is_mark_certain: bool = False
    is_ours: bool = False
    symbols: list = field(default_factory=list)
    codes: np.ndarray | None = None
    instrument_id: np.ndarray | None = None
    left_out: list = field(default_factory=list)

    def __len__(self):
        return len(self.stamps)


def is_day(text):
    """Tell whether a text is a date without a time of day: ISO 8601, or yyyyMMdd."""
    return bool(DAY.fullmatch(text))


def is_stamp(text):
    """Tell whether a text is a stamp that is read: ISO 8601, or yyyyMMdd HHmmss."""
    return bool(COMPACT_STAMP.fullmatch(text) or ISO_STAMP.fullmatch(text))


def stamp_type(text, path):
    """Return the Arrow type that stamps like this one are read as."""
    if not text:
        raise UserError(f"{path}: row 1 has no stamp; mend the file")
    if EPOCH.fullmatch(text):
        return pa.int64()
    if not is_stamp(text):
        raise UserError(
            f"{path}: the stamps cannot be read as times (row 1: {text[:40]!r}); "
            "write them as 2024-01-31 09:30:00, with an offset where known"
        )
    iso = ISO_STAMP.fullmatch(text)
    return pa.timestamp("ns", "UTC" if iso and iso["offset"] else None)


def parse_offset(text):
    """Return an offset such as Z, -05:00 or +0530 as a timedelta."""
    if text == "Z":
        return datetime.timedelta(0)
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = datetime.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -offset if text[0] == "-" else offset


def gather_rows(columns, stamp, path, layout, is_fixed_point):
    """Turn Arrow columns into `Rows`, letting go of each as it is done.

    Parameters
    ----------
    columns : dict of str to ChunkedArray
        The stamp's column, open, high, low, close, volume; perhaps symbol,
        instrument_id and rtype; `time` beside a stamp's column of days. Emptied.
    stamp : str
        Name of the stamp's column.
    path : Path
        Named in errors.
    layout : str
    is_fixed_point : bool
        Prices are whole numbers of 1e-9.

    Returns
    -------
    Rows

    Raises
    ------
    UserError
        A hole, a text or a record of another kind, with its row.
    """
    if "rtype" in columns:
        _check_rtype(columns.pop("rtype"), path)
    if "time" in columns and stamp != "time":
        parts = [columns.pop(name).cast(pa.string()) for name in (stamp, "time")]
        columns[stamp] = pc.binary_join_element_wise(*parts, " ")
        del parts
    stamps, zone, offset = _read_stamps(columns.pop(stamp), path)
    numbers = {}
    for name in NUMBERS:
        values = _read_floats(columns.pop(name), path, name)
        if is_fixed_point and name != "volume":
            values = np.where(values >= UNDEFINED_PRICE, np.nan, values) / FIXED_PRICE_SCALE
        numbers[name] = values
    rows = Rows(layout, stamps, numbers, zone=zone, offset=offset)
    rows.is_mark_certain, rows.is_ours = layout == "Databento", layout == "Moola"
    if layout == "Databento":
        rows.layout = f"Databento, {'raw' if is_fixed_point else 'readable'} prices"
    if "symbol" in columns:
        rows.symbols, rows.codes = read_symbols(columns.pop("symbol"), path)
    if "instrument_id" in columns:
        ids = columns.pop("instrument_id")
        _refuse_missing(ids, path, "instrument_id", "mend it, or leave the column out")
        rows.instrument_id = ids.cast(pa.int64()).to_numpy()
    return rows


def _refuse_missing(column, path, name, remedy):
    """Refuse a column with a hole in it, saying in which row."""
    if column.null_count:
        row = column.is_null().index(pa.scalar(True)).as_py()
        raise UserError(f"{path}: row {row + 1} has no {name}; {remedy}")


def _read_stamps(column, path):
    """Return stamps as int64 nanoseconds, how they carry their zone, and the first's offset."""
    _refuse_missing(column, path, "stamp", "mend the file")
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        kind = stamp_type(column[0].as_py(), path)
        column = _parse_stamps(column, kind, path)
    if pa.types.is_integer(kind):
        stamps = column.cast(pa.int64()).to_numpy()
        factor = EPOCH_FACTORS.get(len(str(stamps[0])))
        if factor is None or stamps.min() < 0 or stamps.max() > np.iinfo(np.int64).max // factor:
            raise UserError(
                f"{path}: the stamps are numbers (first: {stamps[0]}) but no epoch in seconds, milli-, micro- or "
                "nanoseconds; export readable stamps"
            )
        return stamps * factor if factor > 1 else stamps, "UTC, as an epoch", datetime.timedelta(0)
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise UserError(f"{path}: the stamps cannot be read as times (they are {kind}); write them as times in UTC")
    zone = kind.tz if pa.types.is_timestamp(kind) else None
    stamps = column.cast(pa.timestamp("ns", zone)).cast(pa.int64()).to_numpy()
    return stamps, zone or "", None if zone is None else _offset_of(zone, column[0])


def _parse_stamps(column, kind, path):
    """Return texts as stamps of an Arrow type; refuse the first that is not written as the others are."""
    try:
        if COMPACT_STAMP.fullmatch(column[0].as_py()):
            return pc.strptime(column, format="%Y%m%d %H%M%S", unit="ns")
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        found = re.search(r"parse string: '(.*)' as a scalar", str(error), re.DOTALL)
        if not found:
            raise
        row, text = column.index(found[1]).as_py() + 1, found[1][:40]
        raise UserError(f"{path}: row {row}: the stamp {text!r} cannot be read as a time; mend the file") from error


def _offset_of(zone, scalar):
    """Return the offset from UTC of a zoned Arrow scalar."""
    return datetime.timedelta(0) if zone == "UTC" else scalar.cast(pa.timestamp("us", zone)).as_py().utcoffset()


def _read_floats(column, path, name):
    """Return a column as float64, NaN where it is empty; refuse text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not pa.types.is_float64(column.type):
        try:
            column = column.cast(pa.float64(), safe=False)
        except pa.ArrowException as error:
            for row, value in enumerate(column.to_pylist()):
                try:
                    float(value if value is not None else "nan")
                except (ValueError, TypeError):
                    raise UserError(
                        f"{path}: row {row + 1}, column {name}: {str(value)[:40]!r} is not a number; mend the file"
                    ) from error
            raise
    return column.to_numpy()


def read_symbols(column, path):
    """Return the names in a symbol column, and each row's position in them (None if there is one name only)."""
    if pa.types.is_null(column.type) or column.null_count == len(column):
        return [], None
    _refuse_missing(column, path, "symbol", "mend the file")
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    names = [str(name) for name in column.chunk(0).dictionary.to_pylist()]
    if len(names) == 1:
        return names, None
    codes = np.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in column.chunks])
    used = np.flatnonzero(np.bincount(codes, minlength=len(names)))
    if len(used) == 1:
        return [names[used[0]]], None
    if len(used) < len(names):  # a dictionary may name what no row has
        names, codes = [names[code] for code in used], np.searchsorted(used, codes)
    return names, codes


def _check_rtype(column, path):
    """Refuse Databento records that are no one-minute bars."""
    _refuse_missing(column, path, "rtype", "mend the file")
    is_other = pc.not_equal(column, MINUTE_RTYPE)
    if pc.any(is_other).as_py():
        row = is_other.index(pa.scalar(True)).as_py()
        kind = column[row].as_py()
        raise UserError(
            f"{path} holds {RTYPE_NAMES.get(kind, 'records that are no bars')} (row {row + 1}: rtype {kind}), "
            "not one-minute bars; export the schema ohlcv-1m"
        )
