"""Read the rows of a vendor's file; its layout is recognised by content, never by the file's name.

Nothing is chosen, dropped or moved in time here: `Rows` is what the file says,
in numbers, with what it leaves unsaid left open.
"""

import contextlib
import csv
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from moola_lib.errors import UserError
from moola_lib.market.databento import read_dbn
from moola_lib.market.rows import (
    COMPACT_STAMP,
    EPOCH,
    ISO_STAMP,
    NUMBERS,
    Rows,
    gather_rows,
    is_day,
    is_stamp,
    parse_offset,
    read_symbols,
    stamp_type,
)

STAMPS = ["ts", "ts_event", "datetime", "timestamp", "date", "time", ""]  # "" is pandas' unnamed index
EXTRAS = ["symbol", "instrument_id", "rtype"]
WORDS = pa.dictionary(pa.int32(), pa.string())  # one word, not one for every bar
HEAD_BYTES = 1 << 16
COMPRESSIONS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}
OFFICE_ENTRY = re.compile(rb"PK\x03\x04.{26}(?:\[Content_Types\]\.xml|xl/|docProps/)", re.DOTALL)
OLD_OFFICE = b"\xd0\xcf\x11\xe0"
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
SEMICOLONS = "NinjaTrader or HistData (semicolons, no header)"
LAYOUTS = [  # the first whose columns are all there names the file in the report
    ("Databento", {"ts_event", "rtype"}),
    ("Moola", {"ts"}),
    ("Yahoo", {"datetime", "adj close"}),
    ("Yahoo", {"datetime", "dividends"}),
    ("Yahoo", {"datetime", "capital gains"}),
    ("tvDatafeed", {"datetime", "symbol"}),
    ("FirstRate", {"timestamp"}),
]


@dataclass
class _Sheet:
    """How a text file is written: its encoding, its columns, and its first row."""

    encoding: str
    delimiter: str
    names: list
    n_header_lines: int
    first: list
    layout: str
    symbol: str = ""


def read_rows(path):
    """Read a parquet, CSV (plain, gzip, zstandard; any Unicode) or DBN file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Rows

    Raises
    ------
    UserError
        The file is missing, empty, damaged, of another format or of another
        kind (trades, bars of another length), lacks a column, has text in a
        price, or stamps that cannot be read.
    """
    with _recognise(path) as (kind, compression, head):
        if kind == "parquet":
            return _read_parquet(path)
        if kind == "DBN":
            return _read_dbn(path, compression)
        return _read_csv(path, compression, _look_at_text(head, path))


def find_symbols(path):
    """Return the names of a file's symbols without its bars, where the format allows that (DBN does not).

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of str
        Sorted, as `read_rows` gives them; empty where the file has none.

    Raises
    ------
    UserError
        The file is missing, empty, damaged or of another format.
    """
    with _recognise(path) as (kind, compression, head):
        if kind == "DBN":
            return sorted(_read_dbn(path, compression).symbols)
        if kind == "parquet":
            file, names = _open_parquet(path)
            if "symbol" not in names:
                return []
            column = _read_parquet_columns(path, file, names, ["symbol"])["symbol"]
        else:
            sheet = _look_at_text(head, path)
            if sheet.symbol or "symbol" not in sheet.names or not sheet.first:
                return [sheet.symbol] if sheet.symbol else []
            column = _read_csv_columns(path, compression, sheet, {"symbol": WORDS})["symbol"]
        return sorted(read_symbols(column, path)[0])


@contextlib.contextmanager
def _recognise(path):
    """Yield what a file is by its content, its compression and its first bytes; make a sentence of its damage."""
    kind, compression = "CSV", None
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the path of a file with bars")
        if not path.exists():
            raise UserError(f"{path} does not exist; give the path of a file with bars")
        with open(path, "rb") as stream:
            head = stream.read(4)
        if not head:
            raise UserError(f"{path} is empty; give a file with one-minute bars")
        compression = next((name for start, name in COMPRESSIONS.items() if head.startswith(start)), None)
        if head == b"PAR1":
            kind = "parquet"
        else:
            kind = compression or kind
            with pa.input_stream(str(path), compression=compression) as stream:
                head = stream.read(HEAD_BYTES)
            kind = "DBN" if head.startswith(b"DBN") else "CSV"
        yield kind, compression, head
    except PermissionError as error:
        raise UserError(f"{path} may not be read; change its permissions, or give a copy that you may read") from error
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if compression and "Truncated compressed stream" in str(error):
            raise UserError(
                f"{path} is cut: its {compression} compression ends too early; download or export it again"
            ) from error
        raise UserError(f"{path} cannot be read as {kind}: {_in_one_line(error)}; export it again") from error


def _in_one_line(error):
    """Return an error's text as one line of at most 200 characters."""
    return " ".join(str(error).split())[:200].rstrip(" .")


def _look_at_text(head, path):
    """Tell how a text file is written, from its first lines."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")
    if encoding != "utf-16" and b"\0" in head:
        raise UserError(f"{path} cannot be read as CSV: it is {_name_binary(head)}")
    text = head[: len(head) // 2 * 2].decode(encoding, errors="replace")
    lines = re.split(r"\r\n|\r|\n", text)
    n_blank_lines = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    lines = [line for line in lines if line.strip()][:5]
    if not lines:
        raise UserError(f"{path} cannot be read as CSV: it holds blank lines only")
    delimiter = max(",;\t", key=lines[0].count)
    try:
        cells = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as CSV: {_in_one_line(error)}") from error
    names = [name.lower() for name in cells[0]]
    if set(names) & {*NUMBERS, "price"}:
        sheet = _Sheet(encoding, delimiter, names, n_blank_lines + 1, (cells[1:] or [[]])[0], _name_layout(names))
        if [row[0].lower() for row in cells[:2]] == ["price", "ticker"]:  # yfinance names columns in three lines
            tickers = {ticker for ticker in cells[1][1:] if ticker}
            if len(tickers) != 1:
                raise UserError(f"{path} holds {len(tickers)} tickers side by side; export one at a time")
            sheet.names, sheet.layout = ["datetime", *names[1:]], "Yahoo"
            sheet.n_header_lines += 2
            sheet.first, sheet.symbol = (cells[3:] or [[]])[0], tickers.pop()
        return sheet
    if not (is_stamp(cells[0][0]) or EPOCH.fullmatch(cells[0][0])):
        found = ", ".join(cells[0][:8])[:100]
        raise UserError(f"{path} lacks the columns {', '.join(NUMBERS)}: its first line is {found!r}")
    if len(names) == 3:
        raise UserError(
            f"{path} holds trades (stamp, price, size; first: {', '.join(cells[0])}), not bars; give one-minute bars"
        )
    if len(names) != 6:
        raise UserError(
            f"{path} has no header, and {len(names)} fields a row instead of stamp, open, high, low, close, volume; "
            "give it a first line that names its columns"
        )
    is_compact = delimiter == ";" and COMPACT_STAMP.fullmatch(cells[0][0])
    layout = SEMICOLONS if is_compact else "no header (stamp, open, high, low, close, volume)"
    return _Sheet(encoding, delimiter, ["ts", *NUMBERS], 0, cells[0], layout)


def _name_binary(head):
    """Say what bytes are that are no text, and what to do with them."""
    if OFFICE_ENTRY.search(head) or head.startswith(OLD_OFFICE):
        return "an Excel workbook; save it as CSV"
    return "a zip archive; unpack it" if head.startswith(b"PK") else "binary data, neither parquet nor DBN"


def _name_layout(names):
    """Return the name of the layout with these columns."""
    return next((name for name, columns in LAYOUTS if columns <= set(names)), "named columns")


def _choose_columns(names, path):
    """Return the stamp's column and all columns to read; refuse a file that lacks one, or has it twice.

    `time` is read beside `date`, which may be the day alone.
    """
    missing = [name for name in NUMBERS if name not in names]
    if len(missing) >= 4 and {"price"} & set(names) and {"size", "qty", "quantity", "amount", "volume"} & set(names):
        raise UserError(f"{path} holds trades ({', '.join(names[:8])}), not bars; give one-minute bars")
    if missing:
        raise UserError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"it has {', '.join(names[:16])}"
        )
    stamp = next((name for name in STAMPS if name in names), None)
    if stamp is None:
        raise UserError(
            f"{path} has no stamp: expected a column or index named {', '.join(STAMPS[:-1])}, "
            f"found {', '.join(names[:8])}"
        )
    clock = ["time"] if stamp == "date" and "time" in names else []
    chosen = [stamp, *clock, *NUMBERS, *(name for name in EXTRAS if name in names)]
    twice = next((name for name in chosen if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path} has the column {twice or '(unnamed)'} {names.count(twice)} times; leave one")
    return stamp, chosen


def _read_csv(path, compression, sheet):
    """Read a text file whose look is known."""
    stamp, chosen = _choose_columns(sheet.names, path)
    if not sheet.first:
        raise UserError(f"{path} holds no rows; give a file with one-minute bars")
    if len(sheet.first) != len(sheet.names):
        raise UserError(
            f"{path}: row 1 has {len(sheet.first)} fields where {len(sheet.names)} are named; is the file cut?"
        )
    cells = dict(zip(sheet.names, sheet.first, strict=True))
    types = {name: pa.float64() for name in NUMBERS}
    types |= {"symbol": WORDS, "instrument_id": pa.int64(), "rtype": pa.int64()}
    if "time" in chosen and stamp != "time" and is_day(cells[stamp]):
        types |= {stamp: pa.string(), "time": pa.string()}
        cells[stamp] += f" {cells['time']}"
    else:
        chosen = [name for name in chosen if name in (stamp, *types)]
        types[stamp] = stamp_type(cells[stamp], path)
    parsers = ["%Y%m%d %H%M%S"] if COMPACT_STAMP.fullmatch(cells[stamp]) else None
    columns = _read_csv_columns(path, compression, sheet, {name: types[name] for name in chosen}, parsers)
    is_fixed_point = "rtype" in columns and not any("." in cells[name] for name in NUMBERS[:4])
    rows = gather_rows(columns, stamp, path, sheet.layout, is_fixed_point)
    pa.default_memory_pool().release_unused()  # what the reader held would otherwise stay beside the bars
    rows.left_out = [name or "(unnamed)" for name in sheet.names if name not in chosen]
    offset = (ISO_STAMP.fullmatch(cells[stamp]) or {"offset": None})["offset"]
    if offset:
        rows.offset = parse_offset(offset)
        rows.zone = "UTC" if offset == "Z" else "an offset in each"
    if sheet.symbol:
        rows.symbols = [sheet.symbol]
    if sheet.layout == SEMICOLONS:
        rows.mark = None
    return rows


def _read_csv_columns(path, compression, sheet, types, timestamp_parsers=None):
    """Return the columns of a text file that `types` names, as those Arrow types."""
    options = {
        "parse_options": pa.csv.ParseOptions(delimiter=sheet.delimiter),
        "convert_options": pa.csv.ConvertOptions(
            column_types=types, include_columns=list(types), timestamp_parsers=timestamp_parsers
        ),
    }
    # columns are named by position and content, so that a clash among those not read is no matter
    names = [name if name in types else f"{name} #{place}" for place, name in enumerate(sheet.names)]
    for use_threads in (True, False):  # one thread is slower, but its errors say the row
        reading = pa.csv.ReadOptions(
            use_threads=use_threads, column_names=names, skip_rows=sheet.n_header_lines, encoding=sheet.encoding
        )
        try:
            with pa.input_stream(str(path), compression=compression) as stream:
                table = pa.csv.read_csv(stream, read_options=reading, **options)
            break
        except pa.ArrowInvalid as error:
            if not use_threads:
                raise UserError(_explain_row(error, path, sheet)) from error
    return {name: table[name] for name in types}  # not the table: each column goes as soon as it is numbers


def _explain_row(error, path, sheet):
    """Return Arrow's complaint about a CSV row as a sentence that names row, column and value."""
    text = _in_one_line(error)
    found = re.match(
        r"In CSV column #(\d+): Row #(\d+): CSV conversion error to (\w+).*?(?:invalid value|in) '(.*)'", text
    )
    if found:
        row, name = int(found[2]) - sheet.n_header_lines, sheet.names[int(found[1])]
        if found[3] != "timestamp":
            return f"{path}: row {row}, column {name}: {found[4][:40]!r} is not a number; mend the file"
        mixed = " (some stamps carry an offset, others do not)" if "zone offset" in text else ""
        return f"{path}: row {row}: the stamp {found[4][:40]!r} cannot be read as a time{mixed}; mend the file"
    found = re.match(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+)", text)
    if found:
        row = int(found[1]) - sheet.n_header_lines
        return f"{path}: row {row} has {found[3]} fields where {found[2]} are expected; is the file cut? Mend it"
    return f"{path} cannot be read as CSV: {text}"


def _read_dbn(path, compression):
    """Read a file in Databento's format."""
    with pa.input_stream(str(path), compression=compression) as stream:
        return Rows(**read_dbn(stream, path))


def _read_parquet(path):
    """Read a parquet file whose columns are named as a CSV file's would be."""
    file, names = _open_parquet(path)
    stamp, chosen = _choose_columns(names, path)
    columns = _read_parquet_columns(path, file, names, chosen)
    if len(columns[stamp]) == 0:
        raise UserError(f"{path} holds no rows; give a file with one-minute bars")
    if "time" in chosen and stamp != "time" and not is_day(str(columns[stamp][0])):
        chosen.remove("time")
        del columns["time"]
    is_fixed_point = "rtype" in columns and pa.types.is_integer(columns["open"].type)
    rows = gather_rows(columns, stamp, path, _name_layout(names), is_fixed_point)
    rows.left_out = [name or "(unnamed)" for name in names if name not in chosen]
    return rows


def _open_parquet(path):
    """Return an open parquet file, and the names of its columns as a CSV file would give them."""
    file = pq.ParquetFile(path)
    given = file.schema_arrow.names
    return file, ["" if re.fullmatch(r"__index_level_\d+__", name) else name.lower() for name in given]


def _read_parquet_columns(path, file, names, chosen):
    """Return the chosen columns of an open parquet file by the names of `_open_parquet`."""
    given = {name: file.schema_arrow.names[names.index(name)] for name in chosen}
    if "symbol" in chosen:  # one word, not one for every bar
        file = pq.ParquetFile(path, metadata=file.metadata, read_dictionary=[given["symbol"]])
    table = file.read(columns=list(given.values()))
    return {name: table[given[name]] for name in chosen}
