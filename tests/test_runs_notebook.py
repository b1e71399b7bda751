"""The notebook's side: parameters checked again, folders, upstream, progress, record."""

import json
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from moola_lib.errors import UserError
from moola_lib.files import read_json, write_json
from moola_lib.runs.notebook import epoch_line, format_seconds, start_notebook


class Toy(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: int = 1
    upstream_run: str | None = None


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    monkeypatch.delenv("MOOLA_RUN_ID", raising=False)
    monkeypatch.delenv("MOOLA_RESUME", raising=False)
    monkeypatch.delenv("MOOLA_HEADLESS", raising=False)
    return tmp_path


def start(stem="03_c", **values):
    return start_notebook(stem, {"seed": 1, "upstream_run": None, **values}, model=Toy)


def leave(root, run_id, stem, finished_at, status="finished", **upstream_runs):
    record = {"status": status, "finished_at": finished_at, "upstream_runs": upstream_runs}
    write_json(root / "data" / "artifacts" / run_id / stem / "record.json", record)


def test_parameters_are_checked_in_the_notebook(root):
    with pytest.raises(UserError, match="upstream_run is missing"):
        start_notebook("03_c", {"seed": 1}, model=Toy)
    with pytest.raises(UserError, match="seed = 'x'"):
        start(seed="x")
    injected = "# Parameters\nsede = 3\n"
    with pytest.raises(UserError, match="'sede' is not a parameter; did you mean 'seed'"):
        start(In=["", "x = 1", injected])
    assert start(In=["", "x = 1", "# Parameters\nseed = 3"], seed="3").parameters.seed == 3


def test_relative_paths_count_from_here_then_from_the_root(root, tmp_path_factory, monkeypatch):
    class WithPath(Toy):
        bars: str | None = Field(None, json_schema_extra={"path": True})

    def path_of(bars):
        values = {"seed": 1, "upstream_run": None, "bars": bars}
        return start_notebook("01_a", values, model=WithPath).parameters.bars

    here = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(here)
    assert path_of(None) is None
    assert path_of("data/nq.parquet") == str(here / "data" / "nq.parquet")  # nowhere: as typed here
    (root / "data" / "nq.parquet").write_text("bars")
    assert path_of("data/nq.parquet") == str(root / "data" / "nq.parquet")
    assert path_of("../elsewhere.parquet") == str(here.parent / "elsewhere.parquet")
    assert path_of(str(root / "absent")) == str(root / "absent")
    assert path_of("~/nq.parquet") == str(Path.home() / "nq.parquet")
    (here / "data").mkdir()
    (here / "data" / "nq.parquet").write_text("bars")
    assert path_of("data/nq.parquet") == str(here / "data" / "nq.parquet")


def test_a_manual_run_keeps_its_predecessor(root):
    first = start()
    (first.folder / "weights").write_text("old")
    second = start()
    assert second.run_id == "manual"
    assert list(second.folder.iterdir()) == []
    start()
    kept = list((root / "data" / "artifacts" / "backups").glob("manual-*/03_c/weights"))
    assert [path.read_text() for path in kept] == ["old"]


def test_the_newest_three_backups_of_a_notebook_are_kept(root):
    backups = root / "data" / "artifacts" / "backups"
    for place in ("manual-20200101-000000/03_c", "manual-20200101-000000/02_b", "manual-mine/03_c"):
        (backups / place).mkdir(parents=True)
    (backups / "manual-20200102-000000" / "03_c").mkdir(parents=True)
    for number in range(5):
        (start().folder / "weights").write_text(str(number))
    start()
    start()  # nothing was made: nothing to keep
    kept = sorted(backups.glob("manual-*/03_c/weights"))
    assert [path.read_text() for path in kept] == ["2", "3", "4"]
    # Only this notebook's own backups go.
    others = {str(path.relative_to(backups)) for path in backups.glob("*/*")} - {
        str(path.parent.relative_to(backups)) for path in kept
    }
    assert others == {"manual-20200101-000000/02_b", "manual-mine/03_c"}
    assert not (backups / "manual-20200102-000000").exists()


def test_the_engines_folder_is_fresh_or_resumed(root, monkeypatch):
    monkeypatch.setenv("MOOLA_RUN_ID", "r1")
    run = start()
    run.finish([], [], {})
    with pytest.raises(UserError, match="not empty"):
        start()
    monkeypatch.setenv("MOOLA_RESUME", "1")
    (run.folder / "checkpoint").write_text("x")
    assert (start().folder / "checkpoint").exists()
    assert not (run.folder / "record.json").exists()


def test_upstream_prefers_this_run_then_the_given_then_the_newest(root, monkeypatch):
    with pytest.raises(UserError, match=r"03_c needs .* 02_b; run `moola run 02_b` first"):
        start().upstream("02_b")
    leave(root, "old", "02_b", "2026-01-01")
    leave(root, "new", "02_b", "2026-01-02")
    leave(root, "broken", "02_b", "2026-01-03", status="running")
    assert start().upstream("02_b").parent.name == "new"
    assert start(upstream_run="old").upstream("02_b").parent.name == "old"
    with pytest.raises(UserError, match="'broken' has no finished 02_b"):
        start(upstream_run="broken").upstream("02_b")
    leave(root, "mine", "02_b", "2025-01-01")
    monkeypatch.setenv("MOOLA_RUN_ID", "mine")
    run = start(upstream_run="old")
    assert run.upstream("02_b").parent.name == "mine"
    assert run.upstream_runs == {"02_b": "mine"}


def test_upstream_stays_in_one_lineage(root):
    leave(root, "labels1", "01_a", "2026-01-01")
    leave(root, "model1", "02_b", "2026-01-02", **{"01_a": "labels1"})
    leave(root, "labels2", "01_a", "2026-01-03")
    run = start()
    assert run.upstream("02_b").parent.name == "model1"
    assert run.upstream("01_a").parent.name == "labels1"  # what model1 was built on, not the newest
    run = start()
    assert run.upstream("01_a").parent.name == "labels2"
    with pytest.raises(UserError, match="no finished 02_b was built on 01_a of run labels2"):
        run.upstream("02_b")
    # A run named explicitly brings along what it was built on.
    run = start(upstream_run="model1")
    assert run.upstream("01_a").parent.name == "labels1"


@pytest.fixture
def chain(root):
    """A finished chain of one run."""
    leave(root, "old", "01_a", "2026-01-01")
    leave(root, "old", "02_b", "2026-01-02", **{"01_a": "old"})
    leave(root, "old", "03_c", "2026-01-03", **{"02_b": "old", "01_a": "old"})
    return root


def found():
    """What 04 takes, asking in the notebooks' order."""
    run = start("04_d")
    return [run.upstream(stem).parent.name for stem in ("03_c", "02_b", "01_a")]


def test_upstream_takes_one_runs_chain_whole(chain, capsys):
    assert found() == ["old", "old", "old"]
    leave(chain, "older", "02_b", "2025-12-31", **{"01_a": "old"})
    leave(chain, "same-second", "02_b", "2026-01-02", **{"01_a": "old"})
    assert found() == ["old", "old", "old"]
    assert capsys.readouterr().out == ""


def test_upstream_takes_newer_labels_of_the_same_bars(chain, capsys):
    leave(chain, "newlabels", "02_b", "2026-01-04", **{"01_a": "old"})
    assert found() == ["old", "newlabels", "old"]
    assert capsys.readouterr().out == ""
    run = start("04_d", upstream_run="old")
    assert run.upstream("02_b").parent.name == "old"


def test_upstream_never_takes_other_bars(chain, capsys):
    leave(chain, "bars", "01_a", "2026-01-04")
    assert found() == ["old", "old", "old"]
    assert capsys.readouterr().out == "note: a newer 01_a (run bars) exists; using run old\n"
    leave(chain, "newlabels", "02_b", "2026-01-05", **{"01_a": "old"})
    leave(chain, "otherbars", "02_b", "2026-01-06", **{"01_a": "bars"})
    assert found() == ["old", "newlabels", "old"]
    note = "note: a newer 02_b (run otherbars) exists, built on other inputs; using run newlabels"
    assert capsys.readouterr().out.splitlines()[0] == note
    # Not even where the older bars are gone.
    (chain / "data/artifacts/old/01_a/record.json").unlink()
    with pytest.raises(UserError, match=r"01_a of run old, which 03_c of run old, .* built on, is gone"):
        found()


def test_upstream_refuses_a_mixture(chain, monkeypatch):
    leave(chain, "bars", "01_a", "2026-01-04")
    leave(chain, "mine", "02_b", "2026-01-05", **{"01_a": "bars"})
    monkeypatch.setenv("MOOLA_RUN_ID", "mine")
    with pytest.raises(UserError, match=r"were built on different 01_a \(runs old and bars\)"):
        found()


def test_finish_writes_the_record(root):
    run = start()
    (run.folder / "sub").mkdir()
    (run.folder / "sub" / "table").write_bytes(b"12345")
    gate = {"name": "finite", "verdict": "PASS", "value": float("nan")}
    data = {"fingerprint": "ab", "is_simulated": True}
    frame = run.finish([gate], ["It is finite."], data)
    record = read_json(run.folder / "record.json")
    assert record["status"] == "finished"
    assert record["parameters"] == {"seed": 1, "upstream_run": None}
    assert record["artifacts"] == [{"path": "sub/table", "bytes": 5}]
    assert record["gates"][0]["value"] is None
    assert (record["seed"], record["device"], record["gpu_peak_memory_mb"]) == (1, "cpu", None)
    assert "python" in record["versions"] and record["peak_memory_mb"] > 1
    assert record["git"] == {"commit": None, "is_dirty": None}  # the folder is no checkout
    assert dict(zip(frame["entry"], frame["value"], strict=True))["data: fingerprint"] == "ab"


def test_progress_records_every_epoch_and_prints_the_last(root, monkeypatch, capsys):
    monkeypatch.setenv("MOOLA_RUN_ID", "r1")
    run = start()
    for epoch in (1, 2):
        run.progress({"epoch": epoch, "n_epochs": 2, "train_loss": 0.25, "label": "fold 1"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0] == "fold 1  epoch 2/2  train loss 0.25  0:00 left"
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    monkeypatch.delenv("MOOLA_RUN_ID")
    run = start()
    run.progress({"epoch": 1, "n_epochs": 2})
    assert not run.is_headless
    assert capsys.readouterr().out.startswith("\repoch 1/2")
    monkeypatch.setenv("MOOLA_HEADLESS", "1")
    run = start()
    assert run.is_headless and run.run_id == "manual"
    for epoch in (1, 2):
        run.progress({"epoch": epoch, "n_epochs": 2})
    assert capsys.readouterr().out == "epoch 2/2  0:00 left\n"


@pytest.mark.parametrize("is_stopped", [False, True])
def test_by_hand_in_jupyter_a_view_is_told_and_its_stop_is_passed_on(root, monkeypatch, is_stopped):
    run, told = start(), []

    class View:
        is_closed = False

        def add(self, *arguments, **options):
            told.append((*arguments, options))
            return is_stopped

    monkeypatch.setattr(run, "_live_view", View)
    row = {"epoch": 1, "n_epochs": 9, "train_huber": 0.5, "validation_sigma_loss": -3.5, "label": "leak"}
    assert run.progress(row) is is_stopped
    line = "leak  epoch 1/9  train huber 0.5  0:00 left"
    assert told == [("leak", {"epoch": 1, "train_huber": 0.5}, line, {"n_epochs": 9})]
    assert run.is_resumed is is_stopped  # its cell goes on from there when it is run again


def test_times_and_lines():
    assert [format_seconds(s) for s in (0.4, 61, 3661)] == ["0:00", "1:01", "1:01:01"]
    row = {"epoch": 3, "n_epochs": 9, "validation_loss": 0.5, "loss_type": 1.0, "windows_per_second": 12345.6}
    assert epoch_line(row) == "epoch 3/9  validation loss 0.5  12,346 windows/s"
