"""Databento's binary format: the same bars as in its other layouts, and damage that is one sentence."""

import datetime

import numpy as np
import pandas as pd
import pytest
from vendor_files import dbn_bytes, facts, zstandard

from moola_lib.errors import UserError
from moola_lib.features import FeatureTable
from moola_lib.market import load_bars
from moola_lib.market.bars import COLUMNS
from moola_lib.market.vendors import find_symbols
from moola_lib.runs.tables_by_month import write_tables


@pytest.mark.parametrize("compress", [bytes, zstandard])
def test_dbn_gives_the_same_bars(plain_frame, tmp_path, compress):
    content = dbn_bytes(plain_frame)
    (tmp_path / "bars.csv").write_bytes(compress(content))
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
