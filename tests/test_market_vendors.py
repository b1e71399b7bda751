"""Every vendor's layout gives the same bars; what a file leaves unsaid is proven by it or asked for, never guessed."""

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from vendor_files import (
    LAYOUTS,
    ZONE,
    csv_of,
    databento_pretty,
    databento_raw,
    facts,
    firstrate,
    naive,
    tvdatafeed,
    yahoo,
    zstandard,
)

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.market import load_bars, vendors
from moola_lib.market.bars import COLUMNS
from moola_lib.market.databento import UNDEFINED_PRICE
from moola_lib.market.vendors import find_symbols

ENCODINGS = {
    "plain": lambda text: text.encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "zstandard": lambda text: zstandard(text.encode()),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_vendor_gives_the_same_bars(plain_frame, tmp_path, layout, encoding):
    write, options, symbol = LAYOUTS[layout]
    path = tmp_path / "misleading.parquet"
    path.write_bytes(ENCODINGS[encoding](write(plain_frame)))
    bars = load_bars(path, **options)
    np.testing.assert_array_equal(bars.frame[COLUMNS], plain_frame[COLUMNS])
    assert (bars.frame.index == plain_frame.index).all() and bars.symbol == symbol
    assert ("instrument_id" in bars.frame) == layout.startswith("Databento")
    assert facts(bars)["rows in"] == facts(bars)["rows out"] == "40"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_symbols_are_found_where_a_file_names_them(plain_frame, tmp_path, layout, encoding):
    write, options, symbol = LAYOUTS[layout]
    path = tmp_path / "misleading.parquet"
    path.write_bytes(ENCODINGS[encoding](write(plain_frame)))
    assert find_symbols(path) == ([] if "symbol" in options else [symbol])


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_several_symbols_are_found_as_they_are_written(plain_frame, tmp_path, ending):
    names = np.repeat(["NA", "007", "B/B", "ü"], 10)
    frame = plain_frame.assign(symbol=pd.Categorical(names, ["ü", "B/B", "unused", "007", "NA"]))
    path = tmp_path / f"bars.{ending}"
    if ending == "parquet":
        frame.rename(columns={"symbol": "Symbol"}).to_parquet(path)
    else:
        frame.to_csv(path)
    assert find_symbols(path) == ["007", "B/B", "NA", "ü"]
    with pytest.raises(UserError, match="holds 4 symbols"):
        load_bars(path)
    for name in find_symbols(path):
        assert len(load_bars(path, symbol=name)) == 10


def split_stamps(frame, day, clock):
    stamps = naive(frame, ZONE)
    return {"Date": stamps.strftime(day), "Time": stamps.strftime(clock), **{c: frame[c].to_numpy() for c in COLUMNS}}


@pytest.mark.parametrize(("day", "clock"), [("%Y-%m-%d", "%H:%M:%S"), ("%Y-%m-%d", "%H:%M"), ("%Y%m%d", "%H%M%S")])
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_date_and_time_are_read_as_one_stamp(plain_frame, tmp_path, day, clock, ending):
    columns, path = pd.DataFrame(split_stamps(plain_frame, day, clock)), tmp_path / "bars"
    columns.to_parquet(path) if ending == "parquet" else columns.to_csv(path, index=False)
    bars = load_bars(path, symbol="NQ", tz=ZONE)
    assert (bars.frame.index == plain_frame.index).all()
    np.testing.assert_array_equal(bars.frame[COLUMNS], plain_frame[COLUMNS])
    assert "columns left out" not in facts(bars)


def test_dates_and_times_of_arrow_are_read_as_one_stamp(plain_frame, tmp_path):
    columns = split_stamps(plain_frame, "%Y-%m-%d", "%H:%M")
    stamps = naive(plain_frame, ZONE)
    pd.DataFrame(columns | {"Date": stamps.date, "Time": stamps.time}).to_parquet(tmp_path / "bars.parquet")
    assert (load_bars(tmp_path / "bars.parquet", symbol="NQ", tz=ZONE).frame.index == plain_frame.index).all()


def test_a_time_that_carries_its_offset_needs_no_zone(plain_frame, tmp_path):
    (tmp_path / "bars.csv").write_text(csv_of(split_stamps(plain_frame, "%Y-%m-%d", "%H:%M-05:00")))
    bars = load_bars(tmp_path / "bars.csv", symbol="NQ")
    assert (bars.frame.index == plain_frame.index).all() and facts(bars)["zone"].startswith("carried by the stamps")
    with pytest.raises(UserError, match="contradicts the stamps, which carry their own zone"):
        load_bars(tmp_path / "bars.csv", symbol="NQ", tz="Asia/Tokyo")


def test_a_date_that_is_a_whole_stamp_needs_no_time(plain_frame, tmp_path):
    columns = split_stamps(plain_frame, "%Y-%m-%d %H:%M:%S", "%H:%M")
    for path, write in ((tmp_path / "bars.csv", "to_csv"), (tmp_path / "bars.parquet", "to_parquet")):
        getattr(pd.DataFrame(columns), write)(path, index=False)
        bars = load_bars(path, symbol="NQ", tz=ZONE)
        assert (bars.frame.index == plain_frame.index).all() and facts(bars)["columns left out"] == "time"


@pytest.mark.parametrize(("spoiled", "sentence"), [
    ("25:10", r"row 8: the stamp '2024-03-05 25:10' cannot be read as a time"),
    ("", r"row 8: the stamp '2024-03-05 ' cannot be read as a time"),
    ("10:07Z", r"row 8: the stamp '2024-03-05 10:07Z' cannot be read as a time"),
])  # fmt: skip
def test_a_time_that_cannot_be_read_is_named_with_its_row(plain_frame, tmp_path, spoiled, sentence):
    columns = split_stamps(plain_frame, "%Y-%m-%d", "%H:%M")
    columns["Time"] = [*columns["Time"][:7], spoiled, *columns["Time"][8:]]
    (tmp_path / "bars.csv").write_text(csv_of(columns))
    with pytest.raises(UserError, match=sentence):
        load_bars(tmp_path / "bars.csv", symbol="NQ", tz=ZONE)


@pytest.mark.parametrize(("layout", "unsaid"), [
    ("Yahoo", ["symbol"]),
    ("FirstRate", ["symbol", "tz"]),
    ("tvDatafeed", ["tz"]),
    ("semicolons", ["symbol", "tz", "stamp"]),
    ("Databento raw", ["symbol"]),
])  # fmt: skip
def test_what_a_file_leaves_unsaid_is_asked_for_at_once(plain_frame, tmp_path, layout, unsaid):
    write, options, _ = LAYOUTS[layout]
    path = tmp_path / "bars.csv"
    path.write_text(write(plain_frame), newline="")
    with pytest.raises(UserError) as caught:
        load_bars(path)
    asked = {"symbol": "name the series with symbol", "tz": "say which with tz", "stamp": "say which with stamp"}
    assert [name for name, words in asked.items() if words in str(caught.value)] == unsaid
    for name in unsaid:
        with pytest.raises(UserError, match=asked[name]):
            load_bars(path, **{key: value for key, value in options.items() if key != name})


def test_columns_left_out_are_reported(plain_frame, tmp_path):
    (tmp_path / "bars.csv").write_text(tvdatafeed(plain_frame))
    found = facts(load_bars(tmp_path / "bars.csv", tz=ZONE))
    assert found["columns left out"] == "year_month, month" and found["layout"] == "tvDatafeed"


def test_undefined_prices_are_missing_values(plain_frame, tmp_path):
    lines = databento_raw(plain_frame).splitlines()
    cells = lines[5].split(",")
    cells[5] = str(UNDEFINED_PRICE)
    lines[5] = ",".join(cells)
    (tmp_path / "bars.csv").write_text("\n".join(lines))
    bars = load_bars(tmp_path / "bars.csv", symbol="NQ", drop_budget=0.1)
    assert facts(bars)["dropped: missing value"].startswith("1 (first: row 5") and len(bars) == 39


@pytest.mark.parametrize(("rtype", "kind"), [(32, "one-second bars"), (34, "hourly bars"), (0, "no bars")])
def test_other_databento_records_are_refused(plain_frame, tmp_path, rtype, kind):
    (tmp_path / "bars.csv").write_text(databento_pretty(plain_frame).replace(",33,", f",{rtype},"))
    with pytest.raises(UserError, match=rf"{kind} \(row 1: rtype {rtype}\)"):
        load_bars(tmp_path / "bars.csv")


def test_a_stated_end_contradicts_databento(plain_frame, tmp_path):
    (tmp_path / "bars.csv").write_text(databento_pretty(plain_frame))
    with pytest.raises(UserError, match="stamps the start of a bar; leave stamp out"):
        load_bars(tmp_path / "bars.csv", stamp="end")


@pytest.mark.parametrize("write", [yahoo, databento_pretty])
def test_a_stated_zone_must_agree_with_stamps_that_carry_one(plain_frame, tmp_path, write):
    (tmp_path / "bars.csv").write_text(write(plain_frame))
    right = ZONE if write is yahoo else "UTC"
    symbol = "NQ" if write is yahoo else None
    assert len(load_bars(tmp_path / "bars.csv", symbol=symbol, tz=right)) == 40
    with pytest.raises(UserError, match="contradicts the stamps, which carry their own zone"):
        load_bars(tmp_path / "bars.csv", symbol=symbol, tz="Asia/Tokyo")


def test_a_price_that_overflows_by_scaling_is_dropped(plain_frame, tmp_path):
    frame = plain_frame.copy()
    frame.iloc[3, 1] = 1e308
    frame.to_parquet(tmp_path / "bars.parquet")
    bars = load_bars(tmp_path / "bars.parquet", scale=2.0, drop_budget=0.05)
    assert facts(bars)["dropped: missing value"].startswith("1 (first: row 4") and len(bars) == 39


def test_blank_lines_do_not_move_the_header(plain_frame, tmp_path):
    text = firstrate(plain_frame).replace("\n", "\n\n", 3)
    (tmp_path / "bars.csv").write_text("\n\n" + text)
    assert len(load_bars(tmp_path / "bars.csv", symbol="NQ", tz=ZONE)) == 40
    (tmp_path / "bars.csv").write_text("\n\n" + text.replace("2024-03-05 10:07:00,", "2024-03-05 10:07:00,x"))
    with pytest.raises(UserError, match="row 8, column open: 'x1"):
        load_bars(tmp_path / "bars.csv", symbol="NQ", tz=ZONE)


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("absent.parquet", None, "does not exist"),
        ("empty.parquet", b"", "is empty"),
        ("text.parquet", b"open,high\n1,2\n", "lacks the columns low, close, volume; it has open, high"),
        ("cut.parquet", b"PAR1 and then nothing", "cannot be read as parquet"),
        ("binary.csv", b"\x07\x00\x81\n\x00", "binary data"),
        ("zipped.csv", b"PK\x03\x04\x00\x00", "a zip archive; unpack it"),
        ("zip.xlsx", b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "an Excel workbook; save it as CSV"),
        ("openpyxl.csv", b"PK\x03\x04" + bytes(26) + b"docProps/app.xml", "an Excel workbook; save it as CSV"),
        ("bars.zip", b"PK\x03\x04" + bytes(26) + b"xl-2024.csv", "a zip archive; unpack it"),
        ("old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", "an Excel workbook; save it as CSV"),
        ("blank.csv", b"\n\n\n\n", "cannot be read as CSV: it holds blank lines only"),
        ("prose.csv", b"Dear Sir,\nplease find", "its first line is 'Dear Sir"),
        ("times.csv", b"ts,open,high,low,close,volume,symbol\nnoon,1,1,1,1,1,A\n", "cannot be read as times"),
        ("us.csv", b"ts,open,high,low,close,volume\n01/02/2024 09:30,1,1,1,1,1\n", "write them as 2024-01-31"),
        ("epoch.csv", b"ts,open,high,low,close,volume,symbol\n16091604000,11,11,11,11,1,A\n", "no epoch"),
        ("far.csv", b"ts,open,high,low,close,volume,symbol\n2524-01-02 09:30,1,1,1,1,1,A\n", "row 1: the stamp '2524"),
        ("dbn.zst", b"\x28\xb5\x2f\xfd0000", "is cut: its zstd compression ends too early"),
        ("short.csv", b"Datetime,Open,High\n2024-01-02 09:30,1,2\n", "lacks the columns low, close, volume"),
        ("twice.csv", b"ts,open,high,low,close,volume,open\n2024-01-02 09:30,1,1,1,1,1,1\n", "column open 2 times"),
        ("cut.csv", b"ts,open,high,low,close,volume\n2024-01-02 09:30,1,1\n", "row 1 has 3 fields where 6"),
        ("header.csv", b"ts,open,high,low,close,volume\n", "holds no rows"),
        ("ticks.csv", b"time,price,size\n2024-01-02 09:30,1,2\n", "holds trades"),
        ("bare.csv", b"1315922016,5.8,1.0\n1315922024,5.83,3.0\n", "holds trades"),
        ("fields.csv", b"20240102 093000;1;2;3\n", "no header, and 4 fields"),
        ("hole.csv", b"ts,open,high,low,close,volume,symbol\n,11,11,11,11,1,A\n", "row 1"),
        ("folder", "folder", "is a folder"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, name, content, fragment):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=fragment) as caught:
        load_bars(path, tz="UTC")
    assert name in str(caught.value)


@pytest.mark.parametrize("at_open", [True, False])
def test_a_file_that_may_not_be_read_is_one_sentence(plain_frame, tmp_path, monkeypatch, capsys, at_open):
    path, output = tmp_path / "bars.parquet", tmp_path / "out.parquet"
    plain_frame.to_parquet(path)

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    if at_open:
        monkeypatch.setattr(vendors, "open", refuse, raising=False)
    else:  # its folder may not be searched
        monkeypatch.setattr(type(path), "exists", refuse)
    for read in (load_bars, vendors.find_symbols):
        with pytest.raises(UserError, match=r"bars\.parquet may not be read; change its permissions"):
            read(path)
    if at_open:
        assert main(["import", str(path), "-o", str(output)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("moola: ") and error.count("\n") == 1


@pytest.mark.parametrize("compress", [gzip.compress, lambda content: pa.Codec("zstd").compress(content, asbytes=True)])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_cut_compressed_file_is_said_to_be_cut(plain_frame, tmp_path, compress, share):
    content = compress(plain_frame.to_csv().encode())
    (tmp_path / "bars.csv.x").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"is cut: its (gzip|zstd) compression ends too early"):
        load_bars(tmp_path / "bars.csv.x")
