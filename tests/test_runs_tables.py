"""Tables on disk: the same as on the fly, whole or not at all, checked, and built again only where needed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import moola_lib
from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.features import FeatureTable, build_features
from moola_lib.market import load_bars, segment_starts, simulate_bars, trade_dates
from moola_lib.market.bars import save_bars
from moola_lib.runs.tables import write_table
from moola_lib.runs.tables_by_month import month_parts, write_tables
from moola_lib.runs.tables_check import verify_folder, verify_table
from moola_lib.runs.terminal import say_count
from moola_lib.windows import split_by_time, window_places
from moola_lib.windows.gather import WindowGatherer

OPTIONS = [
    {},
    {"zigzag": "legacy", "extra": ["consol_proxy", "position"]},
    {"k": 2.0, "max_gap_minutes": 1.0},
    {"feature_set": "relative_transform11"},
    {"feature_set": "ohlc4"},
]


@pytest.fixture(scope="session")
def series(tmp_path_factory):
    """A file with thirty-two sessions over two month ends, with holes."""
    path = tmp_path_factory.mktemp("bars") / "sim.parquet"
    save_bars(simulate_bars(n_sessions=32, seed=3, hole_share=0.02, start_date="2024-01-15").bars, path)
    return path


@pytest.fixture(scope="session")
def stored(series, tmp_path_factory):
    """The table of `series`."""
    folder = tmp_path_factory.mktemp("stored") / "table"
    write_table(series, folder)
    return folder


@pytest.fixture
def copy(stored, tmp_path):
    """A copy of `stored` to spoil."""
    return Path(shutil.copytree(stored, tmp_path / "copy"))


def content(folder):
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def verdicts(folder, **options):
    frame = verify_table(folder, **options)
    return dict(zip(frame["check"], frame["verdict"], strict=True))


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


def test_a_sound_table_passes_every_check(series, stored):
    found = verdicts(stored, source=series)
    assert set(found.values()) == {"PASS"} and "values from the bars" in found
    without = verdicts(stored)
    assert without.pop("bars") == "–" and set(without.values()) == {"PASS"}


@pytest.mark.parametrize("feature_set", ["relative_transform11", "ohlc4"])
def test_a_check_that_does_not_apply_says_so(series, tmp_path, feature_set):
    write_table(series, tmp_path / "table", options={"feature_set": feature_set})
    frame = verify_table(tmp_path / "table").set_index("check")
    assert frame.loc["expansion_proxy", ["value", "verdict"]].tolist() == [f"{feature_set} has none", "–"]
    assert set(frame["verdict"]) == {"PASS", "–"}


def test_a_table_saved_without_splits_says_so(market, table, tmp_path):
    table.save(tmp_path / "table", bars_fingerprint=market.bars.fingerprint)
    found = verdicts(tmp_path / "table")
    assert found["splits"] == "–" and "FAIL" not in found.values()


def spoil_array(folder, name, change):
    array = np.array(np.load(folder / f"{name}.npy"))
    array = change(array)
    np.save(folder / f"{name}.npy", array)


def spoil_json(folder, name, change):
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))


def put(place, value):
    def change(array):
        array[place] = value
        return array

    return change


def put_last_name(card):
    card["names"][-1] = "other"


def flip_low_bit(folder):
    content = bytearray((folder / "values.npy").read_bytes())
    content[-4] ^= 1  # of the last float's mantissa: no other check without the bars sees it
    (folder / "values.npy").write_bytes(content)


SPOILS = {
    "arrays": flip_low_bit,
    "finite": lambda f: spoil_array(f, "values", put((500, 3), np.nan)),
    "ranges": lambda f: spoil_array(f, "values", put((500, 3), 1.5)),
    "values from the bars": lambda f: spoil_array(f, "values", put((500, 3), 0.123)),
    "shape": lambda f: spoil_array(f, "values", lambda values: values.astype(np.float64)),
    "values not 0": lambda f: spoil_array(f, "values", put((slice(None), 4), 0.0)),
    "valid rows": lambda f: spoil_array(f, "is_valid", put(slice(0, 12_000), False)),
    "first rows of segments": lambda f: spoil_array(f, "is_valid", put(3, True)),
    "metadata": lambda f: spoil_json(f, "metadata.json", lambda card: card.update(valid_share=0.5)),
    "names": lambda f: spoil_json(f, "metadata.json", lambda card: card["names"].reverse()),
    "expansion_proxy": lambda f: spoil_json(f, "metadata.json", put_last_name),
    "set and version": lambda f: spoil_json(f, "metadata.json", lambda card: card.update(version=7)),
    "splits do not overlap": lambda f: spoil_json(
        f, "splits.json", lambda splits: splits["parts"][0].update(last_place=splits["parts"][1]["first_place"])
    ),
    "splits keep the embargo": lambda f: spoil_json(f, "splits.json", lambda splits: splits.update(embargo_bars=5000)),
    "windows in splits": lambda f: spoil_json(
        f, "splits.json", lambda splits: splits["parts"][2].update(n_windows=splits["parts"][2]["n_windows"] + 1)
    ),
}


@pytest.mark.parametrize("check", SPOILS)
def test_each_check_fails_on_what_it_is_for(series, copy, check, capsys):
    SPOILS[check](copy)
    assert verdicts(copy, source=series)[check] == "FAIL"
    assert main(["features", "--verify", str(copy), "--bars", str(series)]) == 3
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["values", "is_valid", "starts", "is_flip"])
def test_a_flipped_bit_is_found_without_the_bars(copy, name):
    content = bytearray((copy / f"{name}.npy").read_bytes())
    content[-4] ^= 1
    (copy / f"{name}.npy").write_bytes(content)
    frame = verify_table(copy).set_index("check")
    assert frame.loc["arrays", ["value", "verdict"]].tolist() == [f"changed: {name}", "FAIL"]
    if name == "values":
        assert (frame["verdict"] == "FAIL").sum() == 1


def test_a_table_of_an_earlier_version_has_no_fingerprints(copy):
    spoil_json(copy, "metadata.json", lambda card: card.pop("array_fingerprints"))
    found = verdicts(copy)
    assert found["arrays"] == "–" and "FAIL" not in found.values()


@pytest.mark.parametrize("name", ["values.npy", "is_valid.npy", "starts.npy", "metadata.json", "splits.json"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_folder_that_cannot_be_read_is_one_sentence(copy, name, damage, capsys):
    path = copy / name
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:50])
    code = main(["features", "--verify", str(copy)])
    captured = capsys.readouterr()
    if (name, damage) == ("splits.json", "gone"):
        assert code == 0 and "there is no splits.json" in captured.out
    else:
        assert code == 2 and captured.err.startswith("moola: ") and captured.err.count("\n") == 1


@pytest.mark.parametrize("card", ["[]", "{}", '{"set_id": 1}'])
def test_metadata_of_something_else_is_refused(copy, card):
    (copy / "metadata.json").write_text(card)
    for read in (FeatureTable.load, verify_table):
        with pytest.raises(UserError, match="build the features again"):
            read(copy)


@pytest.mark.parametrize("name", ["metadata.json", "splits.json"])
@pytest.mark.parametrize("wrong", [None, "x", -1, 0.5, [], [None], {}, {"x": 1}], ids=repr)
def test_any_entry_may_be_nonsense(copy, name, wrong):
    for key in json.loads((copy / name).read_text()):
        text = (copy / name).read_text()
        spoil_json(copy, name, lambda value, key=key: value.update({key: wrong}))
        for read in (FeatureTable.load, verify_table):
            try:
                read(copy)
            except UserError as error:
                assert str(copy) in str(error)
        (copy / name).write_text(text)


def test_arrays_of_two_tables_are_refused(copy):
    spoil_array(copy, "is_valid", lambda is_valid: is_valid[:-1])
    for read in (FeatureTable.load, verify_table):
        with pytest.raises(UserError, match="build the features again"):
            read(copy)


@pytest.fixture(scope="module")
def instruments(tmp_path_factory):
    """A folder of bar files: one instrument a file, two in one, one without a symbol, and a file that is no data."""
    folder = tmp_path_factory.mktemp("instruments")
    frames = {}
    for seed, symbol in enumerate(("AA", "B/B", "CC", "DD")):
        bars = simulate_bars(n_sessions=30, seed=seed, symbol=symbol, start_date="2024-01-15", hole_share=0.01).bars
        frames[symbol] = bars.frame
    frames["AA"].to_parquet(folder / "a.parquet")
    both = pd.concat([frames["B/B"], frames["CC"]]).sort_index(kind="stable")
    both.to_parquet(folder / "both.parquet")
    frames["DD"].drop(columns="symbol").to_csv(folder / "d.csv")
    (folder / "README.md").write_text("no bars")
    return folder, {"AA": frames["AA"], "B_B": frames["B/B"], "CC": frames["CC"], "d": frames["DD"]}


@pytest.fixture(scope="module")
def uninterrupted(instruments, tmp_path_factory):
    """What one undisturbed process writes of `instruments`."""
    folder = tmp_path_factory.mktemp("features") / "out"
    assert write_tables(instruments[0], folder, n_workers=1) == []
    return folder


def test_months_hold_the_rows_of_the_whole_series(instruments, uninterrupted):
    for name, frame in instruments[1].items():
        whole = build_features(frame)
        months = sorted(path.name for path in (uninterrupted / name).iterdir())
        assert months == ["2024-01", "2024-02"]
        parts = [FeatureTable.load(uninterrupted / name / month) for month in months]
        assert np.concatenate([part.values for part in parts]).tobytes() == whole.values.tobytes()
        assert np.concatenate([part.is_valid for part in parts]).tobytes() == whole.is_valid.tobytes()
        first = len(parts[0])
        assert first in whole.starts
        assert str(trade_dates(frame.index[first : first + 1])[0]) == "2024-02-01"  # begins on the evening before
    checks = verify_folder(uninterrupted)
    assert len(checks) == 8 and not any((frame["verdict"] == "FAIL").any() for frame in checks.values())


def test_a_month_is_verified_against_the_bars_of_its_series(instruments, uninterrupted, tmp_path):
    source = {"AA": "a.parquet", "B_B": "both.parquet", "d": "d.csv"}
    for name, file in source.items():
        for month in ("2024-01", "2024-02"):
            found = verdicts(uninterrupted / name / month, source=instruments[0] / file)
            assert found.pop("splits") == "–" and set(found.values()) == {"PASS"}
    frame = instruments[1]["AA"].copy()
    frame.iloc[-1, frame.columns.get_loc("close")] = frame["open"].iloc[-1] + 0.25
    frame["high"] = frame[["high", "close"]].max(axis=1)
    frame.to_parquet(tmp_path / "other.parquet")
    found = [verdicts(uninterrupted / "AA" / month, source=tmp_path / "other.parquet")["bars"] for month in
             ("2024-01", "2024-02")]  # fmt: skip
    assert found == ["PASS", "FAIL"]
    month = Path(shutil.copytree(uninterrupted / "AA" / "2024-01", tmp_path / "month"))
    spoil_array(month, "values", put((500, 3), 0.123))
    assert verdicts(month, source=instruments[0] / "a.parquet")["values from the bars"] == "FAIL"
    for wrong in (None, "x", []):
        spoil_json(month, "metadata.json", lambda card, wrong=wrong: card.update(first_bar=wrong))
        with pytest.raises(UserError, match="build the features again"):
            verify_table(month, source=instruments[0] / "a.parquet")


def test_counts_and_their_nouns_agree():
    assert [say_count(count, "month") for count in (0, 1, 2, 1380)] == [
        "0 months",
        "1 month",
        "2 months",
        "1,380 months",
    ]


def test_a_segment_belongs_to_the_month_in_which_it_begins():
    # one segment over the month's end, then a hole, then another
    stamps = pd.date_range("2024-01-31 20:00", periods=600, freq="min", tz="UTC")
    stamps = stamps.append(pd.date_range("2024-02-01 12:00", periods=5, freq="min", tz="UTC"))
    assert month_parts(stamps, np.array([0, 600])) == [("2024-01", 0, 600), ("2024-02", 600, 605)]
    assert month_parts(stamps[:600], np.array([0])) == [("2024-01", 0, 600)]


def test_worker_processes_write_the_same_bytes(instruments, uninterrupted, tmp_path):
    lines = []
    assert write_tables(instruments[0], tmp_path / "out", n_workers=2, on_instrument=lines.append) == []
    assert content(tmp_path / "out") == content(uninterrupted)
    assert [line.partition(" ")[0] for line in lines] == ["AA", "B_B", "CC", "d"]


def test_what_is_done_is_not_done_again(instruments, uninterrupted, tmp_path):
    out = Path(shutil.copytree(uninterrupted, tmp_path / "out"))
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    lines = []
    assert write_tables(instruments[0], out, n_workers=1, on_instrument=lines.append) == []
    assert all(line.endswith("2 months were there") for line in lines)
    shutil.rmtree(out / "CC" / "2024-02")
    assert write_tables(instruments[0], out, n_workers=1, on_instrument=lines.append) == []
    assert lines[-2].endswith("1 month written, 1 was there")
    assert {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp} == set(
        (out / "CC" / "2024-02").glob("*.npy")
    )
    assert content(out) == content(uninterrupted)


def test_a_changed_file_is_built_again_and_only_where_it_changed(instruments, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    frame = instruments[1]["AA"].copy()
    frame.to_parquet(source / "a.parquet")
    write_tables(source, tmp_path / "out", n_workers=1)
    frame.iloc[-1, frame.columns.get_loc("volume")] += 1
    frame.to_parquet(source / "a.parquet")
    lines = []
    write_tables(source, tmp_path / "out", n_workers=1, on_instrument=lines.append)
    assert lines[0].endswith("1 month written, 1 was there")
    frame[frame.index < "2024-01-30"].to_parquet(source / "a.parquet")
    write_tables(source, tmp_path / "out", n_workers=1)
    assert [path.name for path in (tmp_path / "out" / "AA").iterdir()] == ["2024-01"]


def test_a_broken_file_is_named_and_the_others_are_built(instruments, uninterrupted, tmp_path, capsys):
    source = Path(shutil.copytree(instruments[0], tmp_path / "in"))
    (source / "broken.parquet").write_bytes((source / "a.parquet").read_bytes()[:1000])
    (source / "empty.csv").write_bytes(b"")
    (source / "z_again.parquet").write_bytes((source / "a.parquet").read_bytes())
    out = tmp_path / "out"
    assert main(["features", str(source), "-o", str(out), "--workers", "2"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors.pop() == f"moola: 4 instruments in {out}, 3 problems (named above)"
    assert len(errors) == 3 and all(line.startswith("moola: ") for line in errors)
    for name in ("broken.parquet", "empty.csv", "z_again.parquet: AA is in a.parquet as well"):
        assert any(name in line for line in errors)
    assert content(out) == content(uninterrupted)


@pytest.fixture(scope="module")
def short():
    """One session of bars, about a day."""
    return simulate_bars(n_sessions=1, seed=1, symbol="AA", start_date="2024-01-15").bars.frame


def text_of(frame, **columns):
    """CSV text of a frame, with columns put in place of others."""
    return frame.reset_index().astype({"symbol": str}).assign(**columns).to_csv(index=False)


FOLDER_LAYOUTS = {
    "header in capitals": ("Q", lambda f: text_of(f, symbol="Q").title().replace("\nTs", "\nts").encode()),
    "semicolons": ("SC", lambda f: text_of(f, symbol="SC").replace(",", ";").encode()),
    "UTF-16": ("U", lambda f: text_of(f, symbol="U").encode("utf-16")),
    "a symbol that reads as nothing": ("NA", lambda f: text_of(f, symbol="NA").encode()),
    "a symbol that reads as a number": ("007", lambda f: text_of(f, symbol="007").encode()),
    "zstandard": ("Z", lambda f: pa.Codec("zstd").compress(text_of(f, symbol="Z").encode(), asbytes=True)),
    "three header lines": (
        "NQ=F",
        lambda f: (
            "Price,Open,High,Low,Close,Volume\nTicker,NQ=F,NQ=F,NQ=F,NQ=F,NQ=F\nDatetime,,,,,\n"
            + f.drop(columns="symbol").to_csv(header=False)
        ).encode(),
    ),
}


@pytest.mark.parametrize("layout", FOLDER_LAYOUTS)
def test_a_folder_is_read_as_a_file_is(short, tmp_path, layout):
    symbol, write = FOLDER_LAYOUTS[layout]
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / ("bars.csv.zst" if layout == "zstandard" else "bars.csv")
    path.write_bytes(write(short))
    assert load_bars(path).symbol == symbol
    assert write_tables(tmp_path / "in", tmp_path / "out", n_workers=1) == []
    (built,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["instruments"]
    assert built == symbol
    table = FeatureTable.load(tmp_path / "out" / symbol / "2024-01")
    assert table.values.tobytes() == build_features(short).values.tobytes()


def test_categories_without_rows_are_no_instruments(short, tmp_path):
    (tmp_path / "in").mkdir()
    both = pd.concat([short, short.assign(symbol="BB")]).sort_index(kind="stable")
    both["symbol"] = pd.Categorical(both["symbol"], ["none", "AA", "BB"])
    both.to_parquet(tmp_path / "in" / "both.parquet")
    assert write_tables(tmp_path / "in", tmp_path / "out", n_workers=1) == []
    assert sorted(json.loads((tmp_path / "out" / "manifest.json").read_text())["instruments"]) == ["AA", "BB"]


@pytest.mark.parametrize("has_overwrite", [False, True])
def test_an_instrument_whose_bars_are_gone_is_named_and_removed_only_when_asked(
    instruments, uninterrupted, tmp_path, capsys, has_overwrite
):
    source = Path(shutil.copytree(instruments[0], tmp_path / "in"))
    out = Path(shutil.copytree(uninterrupted, tmp_path / "out"))
    (source / "a.parquet").unlink()
    (source / "d.csv").write_bytes(b"")  # unreadable today is not gone
    words = ["--overwrite"] if has_overwrite else []
    assert main(["features", str(source), "-o", str(out), "--workers", "1", *words]) == 2
    captured = capsys.readouterr()
    assert "d.csv is empty" in captured.err
    assert ("AA: no file holds its bars any more" in captured.err) != has_overwrite
    assert ("AA: removed, since no file holds its bars" in captured.out) == has_overwrite
    listed = json.loads((out / "manifest.json").read_text())["instruments"]
    kept = {"AA", "B_B", "CC", "d"} - ({"AA"} if has_overwrite else set())
    assert set(listed) == {path.name for path in out.iterdir() if path.is_dir()} == kept
    before = {name: data for name, data in content(uninterrupted).items() if name.partition("/")[0] in kept}
    assert {name: data for name, data in content(out).items() if name != "manifest.json"} == before


ENTRY = {"source": "a.parquet", "content": "0", "n_bars": 1, "months": {"2024-01": {}}}
NO_MANIFESTS = [
    [],
    3,
    None,
    {},
    {"settings": 1, "instruments": {}},
    {"settings": {}, "instruments": []},
    {"settings": {}, "instruments": {"AA": 1}},
    {"settings": {}, "instruments": {"AA": {}}},
    {"settings": {}, "instruments": {"AA": {**ENTRY, "months": ["2024-01"]}}},
    {"settings": {}, "instruments": {"AA": {**ENTRY, "months": {"../../victim": {}}}}},
    {"settings": {}, "instruments": {"AA": {**ENTRY, "source": None}}},
    *(
        {"settings": {}, "instruments": {name: ENTRY}}
        for name in ("../victim", "..", ".", "", "a/b", "a\\b", "VICTIM", ".lock", "AA\n")
    ),
]


@pytest.mark.parametrize("manifest", NO_MANIFESTS, ids=json.dumps)
def test_a_damaged_manifest_is_one_sentence_and_nothing_is_removed(instruments, tmp_path, capsys, manifest):
    victim, out = tmp_path / "victim", tmp_path / "out"
    for folder in (victim, out / "AA" / "2024-01"):
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("years of work")
    text = json.dumps(manifest).replace("VICTIM", str(victim))
    (out / "manifest.json").write_text(text)
    before = content(tmp_path)
    build = ["features", str(instruments[0]), "-o", str(out), "--workers", "1"]
    for words in (build, [*build, "--overwrite"], ["features", "--verify", str(out)]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("moola: ") and "manifest" in error and error.count("\n") == 1
    assert content(tmp_path) == before


def test_files_without_symbols_are_named_by_all_but_their_format(instruments, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    frame = instruments[1]["AA"].drop(columns="symbol")
    for name in ("NQ.2024.csv", "NQ.2025.CSV.gz"):
        frame.to_csv(tmp_path / "in" / name, compression="gzip" if name.endswith("gz") else None)
    write_tables(tmp_path / "in", tmp_path / "out", n_workers=1, on_instrument=print)
    assert [line.partition(" ")[0] for line in capsys.readouterr().out.splitlines()] == ["NQ.2024", "NQ.2025"]


def test_other_options_are_refused_in_the_same_folder(instruments, uninterrupted, tmp_path):
    out = Path(shutil.copytree(uninterrupted, tmp_path / "out"))
    differences = "k was 3.0, now 2.0, tz was not given, now UTC;"
    with pytest.raises(UserError, match=f"was made with other settings: {differences}"):
        write_tables(instruments[0], out, options={"k": 2.0}, reading={"tz": "UTC"}, n_workers=1)
    assert content(out) == content(uninterrupted)
    assert write_tables(instruments[0], out, options={"k": 2.0}, n_workers=1, overwrite=True) == []
    assert FeatureTable.load(out / "AA" / "2024-01").options["k"] == 2.0


def test_killed_before_anything_was_listed_it_starts_anew(instruments, uninterrupted, tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".manifest.json.x").touch()
    assert write_tables(instruments[0], tmp_path, n_workers=1) == []
    assert content(tmp_path) == content(uninterrupted)


def test_a_folder_of_something_else_is_left_alone(instruments, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="no manifest"):
        write_tables(instruments[0], tmp_path, n_workers=1, overwrite=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no bar file"):
        write_tables(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UserError, match="0 workers"):
        write_tables(instruments[0], tmp_path / "out", n_workers=0)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_killed_in_the_middle_it_continues_to_the_same_bytes(instruments, uninterrupted, tmp_path, n_workers):
    source, out = instruments[0], tmp_path / "out"
    command = [sys.executable, "-m", "moola_lib.cli", "features", source, "-o", out, "--workers", str(n_workers)]
    root = Path(moola_lib.__file__).parents[1]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL)
    n_parts = len(list(uninterrupted.glob("*/*/values.npy")))
    deadline = time.monotonic() + 120
    while not list(out.glob("*/*/values.npy")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL  # it had not ended by itself
    assert 0 < len(list(out.glob("*/*/values.npy"))) < n_parts
    for leftover in ("AA/.2024-02.x.partial", "AA/.2024-02.x.old"):  # as a kill inside a write leaves them
        (out / leftover).mkdir(parents=True)
    (out / ".manifest.json.x").write_text("{")
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert content(out) == content(uninterrupted)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_terminated_it_cleans_up_and_goes_on(instruments, uninterrupted, tmp_path, n_workers):
    source, out = instruments[0], tmp_path / "out"
    command = [sys.executable, "-m", "moola_lib.cli", "features", source, "-o", out, "--workers", str(n_workers)]
    root = Path(moola_lib.__file__).parents[1]
    process = subprocess.Popen(
        command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("*/*/values.npy")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "moola: interrupted; run the same command again to go on\n")
    assert not list(out.rglob(".*"))  # neither a lock nor a partial folder
    assert len(list(out.glob("*/*/values.npy"))) < len(list(uninterrupted.glob("*/*/values.npy")))
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):  # no worker lives on
        os.killpg(process.pid, 0)
    assert write_tables(source, out, n_workers=1) == []
    assert content(out) == content(uninterrupted)
