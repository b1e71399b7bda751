"""Databento's binary format, DBN: fixed-size records behind a header that names the symbols.

The header is decoded by Databento's own `databento-dbn`, an optional extra; the
records of a bar schema are plain structs and are read as such.
"""

import datetime

import numpy as np
import pandas as pd

from moola_lib.errors import UserError

FIXED_PRICE_SCALE = 1e9
UNDEFINED_PRICE = np.iinfo(np.int64).max
MINUTE_RTYPE = 33
RTYPE_NAMES = {32: "one-second bars", 34: "hourly bars", 35: "daily bars", 36: "daily bars"}
MAX_HEADER_BYTES = 1 << 28
RECORDS_PER_READ = 1 << 16
RECORD = [
    ("length", "u1"), ("rtype", "u1"), ("publisher_id", "<u2"), ("instrument_id", "<u4"), ("ts_event", "<u8"),
    ("open", "<i8"), ("high", "<i8"), ("low", "<i8"), ("close", "<i8"), ("volume", "<u8"),
]  # fmt: skip
PRICES = [name for name, kind in RECORD if kind == "<i8"]


def read_dbn(stream, path):
    """Read one-minute bars from an open DBN stream (decompressed).

    Parameters
    ----------
    stream : binary file
    path : Path
        Named in errors.

    Returns
    -------
    dict
        The fields of `vendors.Rows`: stamps (int64 ns, UTC), numbers, symbols
        by the header's mapping, instrument_id.

    Raises
    ------
    UserError
        `databento-dbn` is not installed, the header is damaged, the schema is
        another, or a record is cut or no bar.

    Notes
    -----
    https://databento.com/docs/standards-and-conventions/databento-binary-encoding
    """
    metadata = _read_header(stream, path)
    schema = str(metadata.schema) if metadata.schema is not None else "mixed records"
    if schema != "ohlcv-1m":
        raise UserError(f"{path} holds Databento's {schema}, not one-minute bars; download the schema ohlcv-1m")
    record = np.dtype(RECORD + ([("ts_out", "<u8")] if metadata.ts_out else []))
    parts = []
    while block := stream.read(RECORDS_PER_READ * record.itemsize):
        if len(block) % record.itemsize:
            raise UserError(f"{path} ends in the middle of a record; it is cut: download it again")
        records = np.frombuffer(block, record)
        _check_records(records, record, path)
        parts.append(
            {
                "ts_event": records["ts_event"].astype(np.int64),
                "instrument_id": records["instrument_id"].astype(np.int64),
                "volume": records["volume"].astype(np.float64),
                **{name: _to_points(records[name]) for name in PRICES},
            }
        )
    if not parts:
        raise UserError(f"{path} holds no rows; give a file with one-minute bars")
    columns = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    stamps, ids = columns.pop("ts_event"), columns.pop("instrument_id")
    symbols, codes = _map_symbols(ids, stamps, metadata)
    return {
        "layout": f"Databento DBN, version {metadata.version}",
        "stamps": stamps,
        "numbers": columns,
        "zone": "UTC",
        "offset": datetime.timedelta(0),
        "is_mark_certain": True,
        "symbols": symbols,
        "codes": codes,
        "instrument_id": ids,
    }


def _read_header(stream, path):
    """Return the decoded header; the stream then stands at the first record."""
    try:
        import databento_dbn
    except ImportError as error:
        raise UserError(
            f"{path} is Databento's DBN; reading it needs the package databento-dbn: pip install databento-dbn"
        ) from error
    prefix = stream.read(8)
    n_bytes = int.from_bytes(prefix[4:], "little")
    if len(prefix) < 8 or n_bytes > MAX_HEADER_BYTES:
        raise UserError(f"{path}: the DBN header is damaged; download it again")
    try:
        return databento_dbn.Metadata.decode(prefix + stream.read(n_bytes))
    except Exception as error:  # DBNError, and whatever else its Rust code makes of damaged bytes
        raise UserError(f"{path}: the DBN header is damaged ({' '.join(str(error).split())[:100]})") from error


def _check_records(records, record, path):
    """Refuse records of another kind or size than the header promises."""
    is_other = (records["rtype"] != MINUTE_RTYPE) | (records["length"] != record.itemsize // 4)
    if is_other.any():
        kind = int(records["rtype"][is_other.argmax()])
        name = RTYPE_NAMES.get(kind, "records that are no bars")
        raise UserError(f"{path} holds {name} (rtype {kind}) among its one-minute bars; download it again")
    if records["ts_event"].max() > np.iinfo(np.int64).max:
        raise UserError(f"{path}: a record has no stamp; download it again")


def _to_points(prices):
    """Return fixed-point prices as points; division, not a product with 1e-9, rounds right."""
    return np.where(prices == UNDEFINED_PRICE, np.nan, prices / FIXED_PRICE_SCALE)


def _map_symbols(ids, stamps, metadata):
    """Return symbol names and each row's position in them, by the header's dated mapping."""
    names_of = {}  # instrument id -> [(first stamp, stamp after the last, name)]
    for given, intervals in metadata.mappings.items():
        for each in intervals:
            # a request by instrument id is mapped the other way round
            name, number = (
                (given, each["symbol"]) if str(metadata.stype_out) == "instrument_id" else (each["symbol"], given)
            )
            if number.isdigit() and name:
                first, after = (pd.Timestamp(each[edge]).value for edge in ("start_date", "end_date"))
                names_of.setdefault(int(number), []).append((first, after, name))
    if not names_of:
        return [], None
    codes = np.full(len(ids), -1)
    names = {}
    groups, unique = pd.factorize(ids)
    for group, number in enumerate(unique.tolist()):
        known = names_of.get(number, [])
        rows = slice(None) if len(unique) == 1 else np.flatnonzero(groups == group)
        # an instrument that the header does not name goes by its number
        codes[rows] = names.setdefault(known[0][2] if known else str(number), len(names))
        for first, after, name in known[1:]:
            is_dated = (stamps[rows] >= first) & (stamps[rows] < after)
            codes[rows] = np.where(is_dated, names.setdefault(name, len(names)), codes[rows])
    used = np.unique(codes)
    names = list(names)
    return ([names[used[0]]], None) if len(used) == 1 else (names, codes)
