"""Loading bars: every layout reads alike, every bad file is one sentence, every dropped row is counted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from vendor_files import facts

import moola_lib
from moola_lib.errors import UserError
from moola_lib.market import load_bars, save_bars, simulate_bars
from moola_lib.market.bars import COLUMNS, clean_bars

PRICES = ["open", "high", "low", "close"]
ROOT = Path(moola_lib.__file__).parents[1]


def databento(frame):
    """The frame in Databento's ohlcv-1m layout."""
    out = frame.rename_axis("ts_event")[[*PRICES, "volume", "symbol"]].copy()
    out.insert(0, "rtype", 33)
    out.insert(1, "publisher_id", 1)
    out.insert(2, "instrument_id", 4711)
    return out


LAYOUTS = {
    "ours, stamp as index": lambda f: f,
    "ours, stamp as column": lambda f: f.reset_index(),
    "Databento, stamp as index": databento,
    "Databento, stamp as column": lambda f: databento(f).reset_index(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_every_layout_gives_the_same_bars(plain_frame, tmp_path, layout, kind):
    frame = LAYOUTS[layout](plain_frame)
    path = tmp_path / f"bars.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=frame.index.name is not None)
    bars = load_bars(path)
    np.testing.assert_array_equal(bars.frame[COLUMNS], plain_frame[COLUMNS])
    assert (bars.frame.index == plain_frame.index).all()
    assert bars.frame.index.name == "ts" and str(bars.frame.index.tz) == "UTC"
    assert (bars.frame[COLUMNS].dtypes == np.float64).all()
    assert bars.symbol == "NQH4"
    assert ("instrument_id" in bars.frame) == ("Databento" in layout)
    assert facts(bars)["rows in"] == facts(bars)["rows out"] == "40"


def test_a_parquet_file_is_known_by_its_content(plain_frame, tmp_path):
    plain_frame.to_parquet(tmp_path / "bars.dat")
    assert len(load_bars(tmp_path / "bars.dat")) == 40


def test_naive_stamps_are_read_in_their_zone(plain_frame, tmp_path):
    naive = plain_frame.tz_convert("America/Chicago").tz_localize(None)
    naive.to_csv(tmp_path / "bars.csv")
    assert (load_bars(tmp_path / "bars.csv", tz="America/Chicago").frame.index == plain_frame.index).all()


def test_offsets_that_change_with_daylight_saving_time_are_read(tools, tmp_path):
    stamps = tools.minutes("2024-03-08 16:30", 30).append(tools.minutes("2024-03-10 18:00", 30))
    frame = tools.walk_frame(stamps)
    local = frame.set_axis([stamp.isoformat() for stamp in stamps.tz_convert("America/New_York")])
    assert {text[-6:] for text in local.index} == {"-05:00", "-04:00"}
    local.rename_axis("ts").to_csv(tmp_path / "bars.csv")
    assert (load_bars(tmp_path / "bars.csv").frame.index == stamps).all()


def test_end_stamps_move_back_one_minute(plain_frame, tmp_path):
    plain_frame.shift(freq="1min").to_parquet(tmp_path / "bars.parquet")
    assert (load_bars(tmp_path / "bars.parquet", stamp="end").frame.index == plain_frame.index).all()


def test_one_of_several_symbols_is_chosen(plain_frame, tmp_path):
    both = pd.concat([plain_frame, plain_frame.assign(symbol="ESH4", close=plain_frame["open"])]).sort_index()
    both.to_parquet(tmp_path / "bars.parquet")
    bars = load_bars(tmp_path / "bars.parquet", symbol="NQH4")
    assert bars.symbol == "NQH4"
    np.testing.assert_array_equal(bars.frame[COLUMNS], plain_frame[COLUMNS])


def test_a_series_without_symbol_takes_the_given_one(plain_frame, tmp_path):
    plain_frame.drop(columns="symbol").to_parquet(tmp_path / "bars.parquet")
    assert load_bars(tmp_path / "bars.parquet", symbol="NQ").symbol == "NQ"
    with pytest.raises(UserError, match="no column symbol: name the series with symbol"):
        load_bars(tmp_path / "bars.parquet")


def test_scale_multiplies_prices_only(plain_frame, tmp_path):
    small = plain_frame.copy()
    small[PRICES] /= 2**14
    small.to_parquet(tmp_path / "bars.parquet")
    with pytest.raises(UserError, match=r"not index-sized.*scale"):
        load_bars(tmp_path / "bars.parquet")
    for scale, size in ((2.0, "not index-sized"), (1e12, "no index prices")):
        with pytest.raises(UserError, match=rf"prices around \S+ \(after scale {re.escape(f'{scale:g}')}\) are {size}"):
            load_bars(tmp_path / "bars.parquet", scale=scale)
    bars = load_bars(tmp_path / "bars.parquet", scale=2.0**14)
    np.testing.assert_array_equal(bars.frame[COLUMNS], plain_frame[COLUMNS])


def edited(column, row, value):
    """A function that sets one cell."""

    def edit(frame):
        frame = frame.astype({column: object}) if isinstance(value, str) else frame.copy()
        frame.iloc[row, frame.columns.get_loc(column)] = value
        return frame.astype({column: str}) if isinstance(value, str) else frame

    return edit


def swapped(frame):
    order = np.arange(len(frame))
    order[[10, 11]] = [11, 10]
    return frame.iloc[order]


BAD_FRAMES = {
    "no rows": (lambda f: f.iloc[:0], {}, ["holds no rows"]),
    "missing column": (lambda f: f.drop(columns=["high", "volume"]), {}, ["lacks the columns high, volume"]),
    "text in a price": (edited("low", 6, "n/k"), {}, ["row 7", "column low", "'n/k'"]),
    "over budget": (edited("high", 4, 1.0), {}, ["1 of 40 rows (2.5%)", "budget of 0.5%", "high below low", "row 5"]),
    "unsorted": (swapped, {}, ["not sorted", "row 12"]),
    "naive stamps": (lambda f: f.tz_localize(None), {}, ["no time zone", "2024-03-05 15:00", "with tz"]),
    "unknown zone": (lambda f: f.tz_localize(None), {"tz": "America/Chicgo"}, ["did you mean America/Chicago"]),
    "no stamp": (lambda f: f.reset_index(drop=True), {}, ["no stamp", "ts_event"]),
    "several symbols": (lambda f: f.assign(symbol=["A", "B"] * 20), {}, ["2 symbols (A, B)", "with symbol"]),
    "another symbol": (lambda f: f, {"symbol": "ES"}, ["no bars of 'ES'", "NQH4"]),
    "five-minute bars": (lambda f: f.iloc[::2], {}, ["usual step is 2 minutes"]),
    "unknown stamp rule": (lambda f: f, {"stamp": "middle"}, ["middle", "'start' or 'end'"]),
    "all bad": (lambda f: f.assign(close=0.0), {"drop_budget": 1.0}, ["no valid bar is left of 40"]),
}


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("case", BAD_FRAMES)
def test_bad_bars_are_one_sentence_that_says_where(plain_frame, tmp_path, case, kind):
    edit, options, fragments = BAD_FRAMES[case]
    frame = edit(plain_frame)
    path = tmp_path / f"bars.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=case != "no stamp")
    with pytest.raises(UserError) as caught:
        load_bars(path, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "bars." + kind in sentence or case.startswith("unknown")
    for fragment in fragments:
        assert fragment in sentence


def test_drops_within_the_budget_are_counted_once_with_the_first_example(plain_frame):
    frame = plain_frame.copy()
    frame.iloc[3, 0] = np.nan
    frame.iloc[8, 1] = np.nan
    frame.iloc[12, 3] = -1.0  # also below the low: counted for the first reason only
    frame.iloc[20, 1] = frame.iloc[20, 2] - 1
    frame.iloc[22, 0] = frame.iloc[22, 1] + 5
    frame = frame.iloc[[*range(31), 30, *range(31, 40)]]
    bars = clean_bars(frame, source="test", drop_budget=0.2)
    found = facts(bars)
    assert found["rows in"] == "41" and found["rows out"] == "35" and len(bars) == 35
    assert found["dropped: missing value"] == f"2 (first: row 4, {plain_frame.index[3]})"
    assert found["dropped: price not above 0"].startswith("1 (first: row 13")
    assert found["dropped: high below low"].startswith("1 (first: row 21")
    assert found["dropped: open or close outside low..high"].startswith("1 (first: row 23")
    assert found["dropped: identical duplicate"].startswith("1 (first: row 32")
    assert bars.frame.index.is_monotonic_increasing and bars.frame.index.is_unique


def test_a_good_bar_beside_a_bad_one_of_the_same_stamp_is_kept(plain_frame):
    frame = plain_frame.iloc[[*range(6), 5, *range(6, 40)]].copy()
    frame.iloc[5, 0] = np.nan
    bars = clean_bars(frame, source="test", drop_budget=0.1)
    assert plain_frame.index[5] in bars.frame.index
    assert len(bars) == 40


def test_clean_bars_are_what_they_say(plain_frame):
    bars = clean_bars(plain_frame, source="test")
    assert "dropped" not in " ".join(bars.report["fact"])
    pd.testing.assert_frame_equal(bars.frame, plain_frame)


def test_volume_zero_is_no_reason_to_drop(plain_frame):
    bars = clean_bars(plain_frame.assign(volume=0.0), source="test")
    assert len(bars) == 40 and facts(bars)["bars with volume 0 (kept)"].startswith("40 (first: 2024-03-05 15:00")


def test_duplicates_that_differ_are_told_from_identical_ones(plain_frame):
    frame = plain_frame.iloc[[0, 0, *range(40), 39]].copy()
    frame.iloc[-1, frame.columns.get_loc("volume")] += 1
    bars = clean_bars(frame, source="test", drop_budget=0.2)
    found = facts(bars)
    assert found["dropped: identical duplicate"].startswith("2 (first: row 2")
    assert found["dropped: same stamp, other values (the first is kept)"].startswith("1 (first: row 43")
    pd.testing.assert_frame_equal(bars.frame, plain_frame, check_freq=False)


def test_a_bar_between_two_minutes_is_dropped_as_partial(plain_frame):
    index = [*plain_frame.index[:-1], plain_frame.index[-1] + pd.Timedelta(seconds=37)]
    frame = plain_frame.set_axis(pd.DatetimeIndex(index, name="ts"))
    with pytest.raises(UserError, match=r"between two minutes \(a partial bar\): 1 \(first: row 40"):
        clean_bars(frame, source="test")
    assert len(clean_bars(frame, source="test", drop_budget=0.05)) == 39


def test_a_last_bar_that_moved_without_volume_is_reported(plain_frame):
    frame = plain_frame.copy()
    frame.iloc[-1, [1, 4]] = frame.iloc[-1, 1] + 1, 0.0
    bars = clean_bars(frame, source="test")
    assert len(bars) == 40 and "last bar may be unfinished (kept)" in facts(bars)
    assert "last bar may be unfinished (kept)" not in facts(clean_bars(plain_frame, source="test"))


def test_the_budget_is_a_share_of_rows(plain_frame):
    frame = plain_frame.copy()
    frame.iloc[3, 0] = np.nan
    assert len(clean_bars(frame, source="test", drop_budget=1 / 40)) == 39
    with pytest.raises(UserError, match=r"1 of 40 rows \(2.5%\)"):
        clean_bars(frame, source="test", drop_budget=0.0249)
    for budget in (-0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="fraction from 0 to 1"):
            clean_bars(frame, source="test", drop_budget=budget)


@pytest.mark.parametrize("has_ids", [False, True])
def test_saved_bars_are_read_back_unchanged(plain_frame, tmp_path, has_ids):
    frame = databento(plain_frame) if has_ids else plain_frame
    frame.to_csv(tmp_path / "bars.csv")
    bars = load_bars(tmp_path / "bars.csv")
    save_bars(bars, tmp_path / "bars.parquet")
    again = load_bars(tmp_path / "bars.parquet")
    pd.testing.assert_frame_equal(again.frame, bars.frame, check_exact=True)
    assert again.fingerprint == bars.fingerprint
    assert ("instrument_id" in again.frame) == has_ids


def test_the_fingerprint_sees_every_stamp_price_and_volume(plain_frame):
    def of(frame):
        return clean_bars(frame, source="test").fingerprint

    prints = [of(plain_frame), of(plain_frame.shift(freq="1min")), of(plain_frame.iloc[:-1])]
    prints += [of(plain_frame.assign(volume=plain_frame["volume"] + 1)), of(edited("high", 7, 1e5)(plain_frame))]
    prints += [of(plain_frame.assign(instrument_id=1)), of(plain_frame.assign(instrument_id=[1] * 20 + [2] * 20))]
    assert len(set(prints)) == len(prints)
    assert of(plain_frame.copy()) == prints[0]


@pytest.mark.slow
def test_an_import_needs_at_most_about_twice_the_files_size_in_memory(tmp_path):
    bars = simulate_bars(n_sessions=1305).bars
    path = tmp_path / "bars.csv"
    pa.csv.write_csv(pa.Table.from_pandas(bars.frame), path)
    peaks = []
    for code in ("import moola_lib.market", f"from moola_lib.cli import main; assert main({_words(path)}) == 0"):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        peaks.append(usage.ru_maxrss * 1024)
    assert peaks[1] - peaks[0] <= 2.2 * path.stat().st_size


def _words(path):
    return ["import", str(path), "-o", str(path.with_suffix(".parquet"))]
