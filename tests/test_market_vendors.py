"""Every vendor's layout gives the same bars; what a file leaves unsaid is proven by it or asked for, never guessed."""

import datetime
import gzip
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from moola_lib.errors import UserError
from moola_lib.features import FeatureTable
from moola_lib.market import load_bars
from moola_lib.market.bars import COLUMNS
from moola_lib.market.databento import PRICES, RECORD, UNDEFINED_PRICE
from moola_lib.market.stamps import localise, prove_mark, prove_zone
from moola_lib.market.vendors import find_symbols
from moola_lib.runs.tables_by_month import write_tables

ZONE = "America/New_York"


def facts(bars):
    return bars.report.set_index("fact")["value"]


def csv_of(columns, **options):
    return pd.DataFrame(columns).to_csv(index=False, **options)


def naive(frame, zone):
    return frame.index.tz_convert(zone).tz_localize(None)


def yahoo(frame):
    local = [stamp.isoformat(sep=" ") for stamp in frame.index.tz_convert(ZONE)]
    prices = {name.capitalize(): frame[name].to_numpy() for name in PRICES}
    extras = {"Adj Close": frame["close"].to_numpy(), "Volume": frame["volume"].astype(int).to_numpy()}
    return csv_of({"Datetime": local, **prices, **extras, "Dividends": 0.0, "Stock Splits": 0.0, "Capital Gains": 0.0})


def yfinance_of_today(frame):
    names = ["Close", "High", "Low", "Open", "Volume"]
    rows = frame[[name.lower() for name in names]].set_axis(frame.index.tz_convert(ZONE)).to_csv(header=False)
    return f"Price,{','.join(names)}\nTicker,{','.join(['NQ=F'] * 5)}\nDatetime,,,,,\n{rows}"


def firstrate(frame):
    stamps = naive(frame, ZONE).strftime("%Y-%m-%d %H:%M:%S")
    return csv_of({"timestamp": stamps, **{name: frame[name].to_numpy() for name in COLUMNS}})


def firstrate_without_header(frame):
    return firstrate(frame).partition("\n")[2]


def tvdatafeed(frame):
    junk = {"year_month": ["", "2024-03"] * (len(frame) // 2), "month": 3}
    columns = {"datetime": naive(frame, ZONE), "symbol": "CME_MINI:NQ1!"}
    return csv_of({**columns, **{name: frame[name].to_numpy() for name in COLUMNS}, **junk})


def semicolons(frame):
    stamps = naive(frame, ZONE).strftime("%Y%m%d %H%M%S")
    columns = {"ts": stamps, **{name: frame[name].to_numpy() for name in COLUMNS}}
    return csv_of(columns, sep=";", header=False, lineterminator="\r\n").removesuffix("\r\n")


def databento_columns(frame):
    return {"rtype": 33, "publisher_id": 1, "instrument_id": 5482}


def databento_pretty(frame):
    stamps = [f"{stamp:%Y-%m-%dT%H:%M:%S}.000000000Z" for stamp in frame.index]
    numbers = {name: [f"{price:.9f}" for price in frame[name]] for name in PRICES}
    volume = frame["volume"].astype(int).to_numpy()
    return csv_of({"ts_event": stamps, **databento_columns(frame), **numbers, "volume": volume, "symbol": "NQH4"})


def databento_raw(frame):
    numbers = {name: (frame[name] * 1e9).astype(np.int64).to_numpy() for name in PRICES}
    volume = frame["volume"].astype(int).to_numpy()
    stamps = frame.index.as_unit("ns").asi8
    return csv_of({"ts_event": stamps, **databento_columns(frame), **numbers, "volume": volume})


def epoch_milliseconds(frame):
    return csv_of({"time": frame.index.as_unit("ms").asi8, **{name: frame[name].to_numpy() for name in COLUMNS}})


def zstandard(content):
    return pa.Codec("zstd").compress(content, asbytes=True)


LAYOUTS = {
    "Yahoo": (yahoo, {"symbol": "NQ=F"}, "NQ=F"),
    "yfinance, three header lines": (yfinance_of_today, {}, "NQ=F"),
    "FirstRate": (firstrate, {"symbol": "NQ", "tz": ZONE}, "NQ"),
    "FirstRate, no header": (firstrate_without_header, {"symbol": "NQ", "tz": ZONE}, "NQ"),
    "tvDatafeed": (tvdatafeed, {"tz": ZONE}, "CME_MINI:NQ1!"),
    "semicolons": (semicolons, {"symbol": "NQ", "tz": ZONE, "stamp": "start"}, "NQ"),
    "Databento pretty": (databento_pretty, {}, "NQH4"),
    "Databento raw": (databento_raw, {"symbol": "NQH4"}, "NQH4"),
    "epoch in milliseconds": (epoch_milliseconds, {"symbol": "NQ"}, "NQ"),
}
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


# A date and a time of day in two columns


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


# Databento's binary format


def dbn_bytes(frame, *, schema="ohlcv-1m", ids=5482, mappings=None, rtype=33):
    dbn = pytest.importorskip("databento_dbn")
    records = np.zeros(len(frame), RECORD)
    records["length"], records["rtype"], records["instrument_id"] = 14, rtype, ids
    records["ts_event"] = frame.index.as_unit("ns").asi8
    for name in PRICES:
        fixed = (frame[name].fillna(0) * 1e9).astype(np.int64)
        records[name] = fixed.mask(frame[name].isna(), UNDEFINED_PRICE)
    records["volume"] = frame["volume"]
    day, after = datetime.date(2024, 3, 1), datetime.date(2024, 4, 1)
    mappings = {"NQH4": [(day, after, "5482")]} if mappings is None else mappings
    metadata = dbn.Metadata(
        dataset="GLBX.MDP3", start=int(records["ts_event"][0]), stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID, schema=dbn.Schema.from_str(schema), symbols=list(mappings),
        mappings=[
            SimpleNamespace(
                raw_symbol=name,
                intervals=[SimpleNamespace(start_date=a, end_date=b, symbol=number) for a, b, number in intervals],
            )
            for name, intervals in mappings.items()
        ],
    )  # fmt: skip
    return bytes(metadata) + records.tobytes()


@pytest.mark.parametrize("compress", [bytes, ENCODINGS["zstandard"]])
def test_dbn_gives_the_same_bars(plain_frame, tmp_path, compress):
    content = dbn_bytes(plain_frame)
    (tmp_path / "bars.csv").write_bytes(
        content if compress is bytes else pa.Codec("zstd").compress(content, asbytes=True)
    )
    bars = load_bars(tmp_path / "bars.csv")
    np.testing.assert_array_equal(bars.frame[COLUMNS], plain_frame[COLUMNS])
    assert (bars.frame.index == plain_frame.index).all() and bars.symbol == "NQH4"
    assert (bars.frame["instrument_id"] == 5482).all()


def test_dbn_symbols_follow_the_dates_of_the_mapping(plain_frame, tmp_path):
    frame = pd.concat([plain_frame, plain_frame.shift(freq="1D")])
    first, turn, last = (datetime.date(2024, 3, day) for day in (5, 6, 7))
    ids = np.repeat([11, 12], 40)
    continuous = {"NQ.c.0": [(first, turn, "11"), (turn, last, "12")]}
    (tmp_path / "bars.dbn").write_bytes(dbn_bytes(frame, ids=ids, mappings=continuous))
    bars = load_bars(tmp_path / "bars.dbn")
    assert bars.symbol == "NQ.c.0" and bars.frame["instrument_id"].tolist() == ids.tolist()
    reused = {"NQH4": [(first, turn, "11")], "NQM4": [(turn, last, "11")]}
    (tmp_path / "bars.dbn").write_bytes(dbn_bytes(frame, ids=11, mappings=reused))
    with pytest.raises(UserError, match=r"2 symbols \(NQH4, NQM4\); choose one with symbol"):
        load_bars(tmp_path / "bars.dbn")
    assert find_symbols(tmp_path / "bars.dbn") == ["NQH4", "NQM4"]
    bars = load_bars(tmp_path / "bars.dbn", symbol="NQM4")
    assert (bars.frame.index == frame.index[40:]).all()
    assert facts(bars)["rows of other symbols (left out)"] == "40"


def test_dbn_of_two_symbols_is_featurised_in_a_folder(plain_frame, tmp_path):
    frame = plain_frame.loc[plain_frame.index.repeat(2)]
    mappings = {
        name: [(datetime.date(2024, 3, 1), datetime.date(2024, 4, 1), number)]
        for name, number in (("NQH4", "11"), ("ESH4", "12"))
    }
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "both.dbn").write_bytes(dbn_bytes(frame, ids=np.tile([11, 12], 40), mappings=mappings))
    assert write_tables(tmp_path / "in", tmp_path / "out", n_workers=1) == []
    for name in ("ESH4", "NQH4"):
        assert len(FeatureTable.load(tmp_path / "out" / name / "2024-03")) == 40


def test_dbn_of_several_instruments_and_no_names_is_refused(plain_frame, tmp_path):
    frame = plain_frame.loc[plain_frame.index.repeat(2)]
    content = dbn_bytes(frame, ids=np.tile([11, 12], 40), mappings={})
    (tmp_path / "bars.dbn").write_bytes(content)
    with pytest.raises(UserError, match=r"several instruments at the same stamps \(ids 11 and 12"):
        load_bars(tmp_path / "bars.dbn", symbol="NQ")


def test_dbn_sentinels_are_missing_values(plain_frame, tmp_path):
    frame = plain_frame.copy()
    frame.iloc[4, 0] = np.nan
    (tmp_path / "bars.dbn").write_bytes(dbn_bytes(frame))
    bars = load_bars(tmp_path / "bars.dbn", drop_budget=0.1)
    assert facts(bars)["dropped: missing value"].startswith("1 (first: row 5")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda frame: dbn_bytes(frame, schema="trades"), "Databento's trades, not one-minute bars"),
        (lambda frame: dbn_bytes(frame, schema="ohlcv-1h"), "Databento's ohlcv-1h, not one-minute bars"),
        (lambda frame: dbn_bytes(frame, rtype=34), "hourly bars .rtype 34. among"),
        (lambda frame: dbn_bytes(frame)[:-5], "ends in the middle of a record"),
        (lambda frame: dbn_bytes(frame)[:60], "header is damaged"),
        (lambda frame: dbn_bytes(frame)[:6], "header is damaged"),
        (lambda frame: dbn_bytes(frame)[: -40 * 56], "holds no rows"),
    ],
)
def test_other_and_damaged_dbn_is_refused(plain_frame, tmp_path, spoil, sentence):
    (tmp_path / "bars.dbn").write_bytes(spoil(plain_frame))
    with pytest.raises(UserError, match=sentence):
        load_bars(tmp_path / "bars.dbn")


def test_without_its_package_dbn_is_asked_to_be_installed(plain_frame, tmp_path, monkeypatch):
    (tmp_path / "bars.dbn").write_bytes(dbn_bytes(plain_frame))
    monkeypatch.setitem(__import__("sys").modules, "databento_dbn", None)
    with pytest.raises(UserError, match=r"pip install databento-dbn"):
        load_bars(tmp_path / "bars.dbn")


# What stamps mean


@pytest.fixture(scope="module")
def week():
    """Starts of the bars of CME's week of 2024-03-10, clocks having gone forward on its eve; UTC nanoseconds."""
    days = pd.date_range("2024-03-10 18:00", periods=5, tz=ZONE)
    return np.concatenate([pd.date_range(day, periods=1380, freq="min").as_unit("ns").asi8 for day in days])


def wall_times(instants, zone):
    return pd.DatetimeIndex(instants, tz="UTC").tz_convert(zone).tz_localize(None).asi8


@pytest.mark.parametrize("zone", [ZONE, "America/Chicago", "UTC", "Europe/Berlin", "Asia/Tokyo"])
@pytest.mark.parametrize("symbol", ["NQ", "NQH4", "NQ=F", "CME_MINI:NQ1!", "MES", "NQ.c.0"])
def test_daily_breaks_prove_the_zone_of_index_futures(week, zone, symbol):
    walls = wall_times(week, zone)
    proven, evidence = prove_zone(walls, symbol)
    np.testing.assert_array_equal(localise(walls, proven, "test"), week)
    assert evidence.startswith("4 daily breaks")


@pytest.mark.parametrize("symbol", [None, "EURUSD", "SPY", "NQX", "CL"])
def test_of_other_series_nothing_is_known(week, symbol):
    assert prove_zone(wall_times(week, "UTC"), symbol) == (None, "")


def test_too_few_breaks_or_a_bar_inside_one_prove_no_zone(week):
    assert prove_zone(week[: 3 * 1380], "NQ") == (None, "")
    assert prove_zone(np.sort(np.r_[week, week[1379] + 30 * 60 * 10**9]), "NQ") == (None, "")


def test_zones_that_agree_on_the_breaks_but_not_on_the_instants_prove_nothing(week):
    # New York's clocks went forward after the first week: its second, one day long, has no break to tell
    before = week - 7 * 86400 * 10**9 + 3600 * 10**9
    walls = wall_times(np.r_[before, week[:600]], ZONE)
    assert prove_zone(walls[: len(before)], "NQ")[0] == ZONE
    assert prove_zone(walls, "NQ") == (None, "")


@pytest.mark.parametrize("shift", [0, 1])
def test_recurring_closings_prove_the_mark(week, shift):
    mark, evidence = prove_mark(week + shift * 60 * 10**9)
    assert mark == ["start", "end"][shift]
    assert evidence.startswith("4 closings, mostly from ")


def test_closings_that_disagree_or_are_few_prove_no_mark(week):
    assert prove_mark(week[: 3 * 1380]) == (None, "")
    without_last_minute = week[week // (60 * 10**9) % 1440 != 20 * 60 + 59]
    assert prove_mark(without_last_minute) == (None, "")
    auction = np.sort(np.r_[week, week[1379::1380] + 60 * 10**9])  # a start-stamped print at the closing second
    assert prove_mark(auction) == (None, "")


def test_a_proof_is_used_and_reported(tools, week, tmp_path):
    frame = tools.walk_frame(pd.DatetimeIndex(week + 60 * 10**9, tz="UTC"))
    path = tmp_path / "bars.csv"
    path.write_text(semicolons(frame), newline="")
    bars = load_bars(path, symbol="NQH4")
    np.testing.assert_array_equal(bars.frame.index.asi8, week)
    proof = "end (proven: 4 closings, mostly from a bar stamped 17:00 to one stamped 18:01"
    assert facts(bars)["stamps mark"].startswith(proof)
    assert facts(bars)["zone"].startswith(f"{ZONE} (proven: 4 daily breaks")
    with pytest.raises(UserError, match="stamp='start' contradicts the stamps, which mark the end of a bar"):
        load_bars(path, symbol="NQH4", stamp="start")
    with pytest.raises(UserError, match=f"tz='America/Chicago' contradicts the stamps, which are in {ZONE}"):
        load_bars(path, symbol="NQH4", tz="America/Chicago")
    stated = load_bars(path, symbol="NQH4", stamp="end", tz="Etc/GMT+4")
    pd.testing.assert_frame_equal(stated.frame, bars.frame)


def test_a_stated_zone_must_agree_on_every_bar_not_only_on_the_first_and_last(tools, tmp_path):
    sessions = [
        pd.Timestamp(f"2024-{day} 18:00", tz=ZONE) for day in ("03-05", "03-06", "03-07", "03-11", "03-12", "03-13")
    ]
    stamps = [pd.date_range(first, periods=1380, freq="min") for first in sessions]
    frame = tools.walk_frame(stamps[0].append(stamps[1:]).tz_convert("UTC"))
    path = tmp_path / "bars.csv"
    path.write_text(firstrate(frame))
    bars = load_bars(path, symbol="NQ", tz=ZONE)
    assert (bars.frame.index == frame.index).all() and "(stated; 4 daily breaks" in facts(bars)["zone"]
    for fixed in ("Etc/GMT+5", "Etc/GMT+4"):  # right before the clocks went forward, and after
        with pytest.raises(UserError, match=f"tz='{re.escape(fixed)}' contradicts the stamps"):
            load_bars(path, symbol="NQ", tz=fixed)


@pytest.mark.parametrize("far", ["1677-09-22 00:00:00", "2262-04-11 00:00:00", "1899-12-31 23:59:00"])
def test_stamps_of_far_centuries_are_refused(plain_frame, tmp_path, far):
    text = firstrate(plain_frame).replace("2024-03-05 10:39:00", far)
    (tmp_path / "bars.csv").write_text(text)
    with pytest.raises(UserError, match=f"{far[:4]}.* cannot be that of a bar"):
        load_bars(tmp_path / "bars.csv", symbol="NQ", tz="Asia/Tokyo")


def test_a_price_that_overflows_by_scaling_is_dropped(plain_frame, tmp_path):
    frame = plain_frame.copy()
    frame.iloc[3, 1] = 1e308
    frame.to_parquet(tmp_path / "bars.parquet")
    bars = load_bars(tmp_path / "bars.parquet", scale=2.0, drop_budget=0.05)
    assert facts(bars)["dropped: missing value"].startswith("1 (first: row 4") and len(bars) == 39


def test_our_own_stamps_stay_where_they_are_whatever_they_look_like(tools, week, tmp_path):
    frame = tools.walk_frame(pd.DatetimeIndex(week + 60 * 10**9, tz="UTC"))
    frame.rename_axis("ts").to_parquet(tmp_path / "bars.parquet")
    bars = load_bars(tmp_path / "bars.parquet")
    assert (bars.frame.index == frame.index).all()
    evidence = "closings, mostly from a bar stamped 21:00 to one stamped 22:01 speak for the end"
    assert evidence in facts(bars)["stamps mark"]
    np.testing.assert_array_equal(load_bars(tmp_path / "bars.parquet", stamp="end").frame.index.asi8, week)


def test_blank_lines_do_not_move_the_header(plain_frame, tmp_path):
    text = firstrate(plain_frame).replace("\n", "\n\n", 3)
    (tmp_path / "bars.csv").write_text("\n\n" + text)
    assert len(load_bars(tmp_path / "bars.csv", symbol="NQ", tz=ZONE)) == 40
    (tmp_path / "bars.csv").write_text("\n\n" + text.replace("2024-03-05 10:07:00,", "2024-03-05 10:07:00,x"))
    with pytest.raises(UserError, match="row 8, column open: 'x1"):
        load_bars(tmp_path / "bars.csv", symbol="NQ", tz=ZONE)


def test_the_hour_that_does_not_exist_is_refused(tools, tmp_path):
    walls = pd.date_range("2024-03-10 01:50", periods=20, freq="min")
    frame = tools.walk_frame(walls.tz_localize("UTC"))
    frame.set_axis(walls).rename_axis("ts").to_csv(tmp_path / "bars.csv")
    with pytest.raises(UserError, match="row 11: 2024-03-10 02:00:00 does not exist in America/New_York"):
        load_bars(tmp_path / "bars.csv", tz=ZONE)
    assert len(load_bars(tmp_path / "bars.csv", tz="Etc/GMT+5")) == 20


def test_the_repeated_hour_is_resolved_by_order_alone(tools, tmp_path):
    instants = pd.date_range("2024-11-03 00:30", periods=200, freq="min", tz=ZONE).tz_convert("UTC")
    frame = tools.walk_frame(instants)
    local = frame.set_axis(naive(frame, ZONE)).rename_axis("ts")
    local.to_csv(tmp_path / "bars.csv")
    assert (load_bars(tmp_path / "bars.csv", tz=ZONE).frame.index == instants).all()
    local[~local.index.duplicated()].to_csv(tmp_path / "bars.csv")  # the hour stands there once: which one?
    with pytest.raises(UserError, match=r"row 31: 2024-11-03 01:00:00 exists twice .* or export the file in UTC"):
        load_bars(tmp_path / "bars.csv", tz=ZONE)


# Several files


def two_files(tmp_path, first, second):
    paths = [tmp_path / "b.csv", tmp_path / "a.csv"]
    for path, frame in zip(paths, (first, second), strict=True):
        frame.to_csv(path)
    return paths


def test_pieces_are_joined_in_time_order_and_their_overlap_is_counted(plain_frame, tmp_path):
    paths = two_files(tmp_path, plain_frame.iloc[:25], plain_frame.iloc[15:])
    for order in (paths, paths[::-1]):
        bars = load_bars(order)
        np.testing.assert_array_equal(bars.frame[COLUMNS], plain_frame[COLUMNS])
        assert (bars.frame.index == plain_frame.index).all()
        found = facts(bars)
        assert found["rows in"] == "50" and found["rows out"] == "40" and found["source"] == "b.csv, a.csv"
        assert found["rows that two files share (kept once)"] == f"10 (first: a.csv row 1, {plain_frame.index[15]})"


def test_pieces_that_disagree_are_refused_with_the_first_stamp(plain_frame, tmp_path):
    second = plain_frame.iloc[15:].copy()
    second.iloc[[3, 5], 4] += 1
    paths = two_files(tmp_path, plain_frame.iloc[:25], second)
    with pytest.raises(UserError) as caught:
        load_bars(paths)
    for words in ("disagree at 2 stamps", str(plain_frame.index[18]), "volume", "b.csv row 19", "a.csv row 4"):
        assert words in str(caught.value)


def test_a_bad_row_of_one_piece_does_not_hide_the_sound_one_of_another(plain_frame, tmp_path):
    second = plain_frame.iloc[15:].copy()
    second.iloc[2, 0] = np.nan
    bars = load_bars(two_files(tmp_path, plain_frame.iloc[:25], second), drop_budget=0.1)
    assert len(bars) == 40 and facts(bars)["dropped: missing value"].startswith("1 (first: a.csv row 3")


def test_a_files_name_may_hold_a_comma(plain_frame, tmp_path):
    paths = two_files(tmp_path, plain_frame.iloc[:25], plain_frame.iloc[15:])
    odd = paths[0].rename(tmp_path / "b, the first.csv")
    shared = facts(load_bars([odd, paths[1]]))["rows that two files share (kept once)"]
    assert shared.startswith("10 (first: a.csv row 1")


def test_pieces_of_several_symbols_are_refused(plain_frame, tmp_path):
    paths = two_files(tmp_path, plain_frame.iloc[:20], plain_frame.iloc[20:].assign(symbol="ESH4"))
    with pytest.raises(UserError, match=r"b.csv holds NQH4 and a.csv ESH4"):
        load_bars(paths)
    with pytest.raises(UserError, match="no file is given"):
        load_bars([])
