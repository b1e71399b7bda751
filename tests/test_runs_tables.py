"""A table on disk: the same as on the fly, whole or not at all."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from stored_tables import content, verdicts

from moola_lib.errors import UserError
from moola_lib.features import FeatureTable, build_features
from moola_lib.market import load_bars, segment_starts, trade_dates
from moola_lib.market.bars import save_bars
from moola_lib.runs.tables import write_table
from moola_lib.windows import split_by_time, window_places
from moola_lib.windows.gather import WindowGatherer

OPTIONS = [
    {},
    {"zigzag": "legacy", "extra": ["consol_proxy", "position"]},
    {"k": 2.0, "max_gap_minutes": 1.0},
    {"feature_set": "relative_transform11"},
    {"feature_set": "ohlc4"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())) or "default")
def test_training_from_the_table_and_on_the_fly_sees_identical_batches(series, tmp_path, options):
    write_table(series, tmp_path / "table", options=options)
    bars = load_bars(series)
    on_the_fly = build_features(bars, **options)
    stored = FeatureTable.load(tmp_path / "table", bars_fingerprint=bars.fingerprint)
    assert isinstance(stored.values, np.memmap)
    assert (stored.set_id, stored.names, stored.options) == (on_the_fly.set_id, on_the_fly.names, on_the_fly.options)
    assert np.array_equal(stored.is_flip, on_the_fly.is_flip) and np.array_equal(stored.ranges, on_the_fly.ranges)
    places, _ = window_places(stored.starts, len(stored))
    assert np.array_equal(places, window_places(on_the_fly.starts, len(on_the_fly))[0])
    gathers = WindowGatherer(stored), WindowGatherer(on_the_fly)
    for batch in torch.as_tensor(places)[torch.randperm(len(places))[:512]].split(64):
        (x, is_valid), (other_x, other_is_valid) = (gather(batch) for gather in gathers)
        assert torch.equal(x, other_x) and torch.equal(is_valid, other_is_valid)


def test_a_table_of_other_bars_is_refused(series, stored, tmp_path):
    bars = load_bars(series)
    frame = bars.frame.copy()
    frame.iloc[1234, 3] += 0.25
    save_bars(type(bars)(frame, bars.report), tmp_path / "other.parquet")
    other = load_bars(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="was made from bars"):
        FeatureTable.load(stored, bars_fingerprint=other.fingerprint)
    assert verdicts(stored, source=tmp_path / "other.parquet")["bars"] == "FAIL"


def test_the_folder_holds_what_it_should(series, stored):
    assert sorted(path.name for path in stored.iterdir()) == [
        "is_flip.npy", "is_valid.npy", "metadata.json", "splits.json", "starts.npy", "values.npy",
    ]  # fmt: skip
    bars = load_bars(series)
    card = json.loads((stored / "metadata.json").read_text())
    table = build_features(bars)
    assert card["bars_fingerprint"] == bars.fingerprint
    assert (card["source"], card["symbol"], card["n_bars"]) == ("sim.parquet", "SIM", len(bars))
    assert pd.Timestamp(card["last_bar"]) == bars.frame.index[-1]
    assert card["valid_share"] == table.is_valid.mean()
    np.testing.assert_allclose(card["non_zero_shares"], (table.values[table.is_valid] != 0).mean(axis=0))
    per_window = len(window_places(table.starts, len(table))[0]) * 105 * 11 * 4
    assert sum(path.stat().st_size for path in stored.iterdir()) < per_window / 80  # windows lie in whole segments only


def test_splits_are_those_of_training(series, stored, tmp_path):
    bars = load_bars(series)
    places, n_lost = window_places(segment_starts(bars.frame), len(bars))
    splits = json.loads((stored / "splits.json").read_text())
    split = split_by_time(places, bars.frame.index)
    assert [part["n_windows"] for part in splits["parts"]] == [len(split.train), len(split.validation), len(split.test)]
    assert [part["first_place"] for part in splits["parts"]] == [split.train[0], split.validation[0], split.test[0]]
    assert (splits["fractions"], splits["dates"], splits["embargo_bars"]) == ([0.7, 0.15, 0.15], None, 105)
    assert (splits["n_windows"], splits["n_windows_lost_to_segments"]) == (len(places), n_lost)
    dates = ["2024-01-31", "2024-02-09"]
    write_table(series, tmp_path / "dated", splitting={"dates": dates, "embargo_bars": 500})
    dated = json.loads((tmp_path / "dated" / "splits.json").read_text())
    assert (dated["fractions"], dated["dates"], dated["embargo_bars"]) == (None, dates, 500)
    ends = [trade_dates(pd.DatetimeIndex([part["last_bar"]]))[0] for part in dated["parts"]]
    assert [str(end) for end in ends[:2]] == dates
    assert verdicts(tmp_path / "dated")["splits keep the embargo"] == "PASS"


def test_an_existing_folder_is_kept_unless_it_is_a_table_to_replace(series, tmp_path):
    folder = tmp_path / "table"
    write_table(series, folder, options={"k": 2.0})
    before = content(folder)
    with pytest.raises(UserError, match="exists already"):
        write_table(series, folder)
    assert content(folder) == before
    write_table(series, folder, overwrite=True)
    assert FeatureTable.load(folder).options["k"] == 3.0
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds no feature table"):
        write_table(series, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_nothing_is_left_of_a_write_that_fails(series, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    write_table(series, tmp_path / "table", options={"k": 2.0})
    before = content(tmp_path)
    monkeypatch.setattr(np, "save", fail)
    for overwrite, name in ((False, "new"), (True, "table")):
        with pytest.raises(UserError, match="No space left"):
            write_table(series, tmp_path / name, overwrite=overwrite)
    assert content(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


@pytest.mark.parametrize(
    ("options", "splitting", "sentence"),
    [
        ({"k": -1.0}, {}, "k = -1.0 is not allowed"),
        ({"feature_set": "x"}, {}, "'x' is not known"),
        ({}, {"dates": ["2024-02-30", "2024-03-01"]}, "cannot be read"),
        ({}, {"dates": ["2024-02-09", "2024-01-31"]}, "not in order"),
        ({}, {"dates": ["2030-01-01", "2031-01-01"]}, "validation part of the split holds no window"),
        ({}, {"embargo_bars": -1}, "embargo of -1 bars"),
        ({}, {"embargo_bars": 104}, "embargo of 104 bars"),
        ({}, {"embargo_bars": 10**30}, "embargo of 10+ bars"),
        ({}, {"fractions": [0.5, 0.5, 0.5]}, "sum to 1"),
        ({}, {"fractions": [0.5, 0.25, float("nan")]}, "sum to 1"),
        ({"max_gap_minutes": 0}, {}, "a week"),
        ({"max_gap_minutes": 10_081}, {}, "a week"),
        ({"max_gap_minutes": 1e300}, {}, "a week"),
        ({"max_gap_minutes": float("nan")}, {}, "a week"),
    ],
)
def test_wrong_options_write_nothing(series, tmp_path, options, splitting, sentence):
    with pytest.raises(UserError, match=sentence):
        write_table(series, tmp_path / "table", options=options, splitting=splitting)
    assert list(tmp_path.iterdir()) == []
