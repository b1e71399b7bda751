"""Features of many instruments, a table a month: the rows of the whole series, built again only where needed."""

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
from stored_tables import content, put, spoil_array, spoil_json, verdicts

import moola_lib
from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.features import FeatureTable, build_features
from moola_lib.market import load_bars, simulate_bars, trade_dates
from moola_lib.runs.tables_by_month import month_parts, write_tables
from moola_lib.runs.tables_check import verify_folder, verify_table


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


@pytest.mark.sweep
@pytest.mark.slow
def test_workers_of_a_cluster_write_the_same_bytes(instruments, uninterrupted, tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed")
    from moola_lib.runs.sweeps.cluster import open_cluster

    monkeypatch.chdir(tmp_path)
    with open_cluster(2, uses_gpu=False) as client:
        words = ["features", str(instruments[0]), "-o", "out", "--scheduler", client.scheduler.address]
        assert main(words) == 0
        assert "4 instruments in out" in capsys.readouterr().out
        assert content(tmp_path / "out") == content(uninterrupted)
        assert main(words) == 0
        assert capsys.readouterr().out.count("were there") == 4


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
