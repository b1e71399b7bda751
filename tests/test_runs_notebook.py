"""The notebook's side: parameters checked again, folders, upstream, progress, record."""

import json

import pytest
from pydantic import BaseModel, ConfigDict

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


def test_a_manual_run_keeps_its_predecessor(root):
    first = start()
    (first.folder / "weights").write_text("old")
    second = start()
    assert second.run_id == "manual"
    assert list(second.folder.iterdir()) == []
    start()
    kept = list((root / "data" / "artifacts" / "backups").glob("manual-*/03_c/weights"))
    assert [path.read_text() for path in kept] == ["old"]


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


def test_finish_writes_the_record(root):
    run = start()
    (run.folder / "sub").mkdir()
    (run.folder / "sub" / "table").write_bytes(b"12345")
    gate = {"name": "finite", "verdict": "PASS", "value": float("nan")}
    data = {"fingerprint": "ab", "is_simulated": True}
    frame = run.finish([gate], ["It is finite."], data, device="cpu")
    record = read_json(run.folder / "record.json")
    assert record["status"] == "finished"
    assert record["parameters"] == {"seed": 1, "upstream_run": None}
    assert record["artifacts"] == [{"path": "sub/table", "bytes": 5}]
    assert record["gates"][0]["value"] is None
    assert (record["seed"], record["device"]) == (1, "cpu")
    assert "python" in record["versions"] and record["peak_memory_mb"] > 1
    assert dict(zip(frame["entry"], frame["value"], strict=True))["data: fingerprint"] == "ab"


def test_progress_records_every_epoch_and_prints_the_last(root, monkeypatch, capsys):
    monkeypatch.setenv("MOOLA_RUN_ID", "r1")
    run = start()
    for epoch in (1, 2):
        run.progress({"epoch": epoch, "n_epochs": 2, "loss": 0.25, "label": "fold 1"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0] == "fold 1  epoch 2/2  loss 0.25  0:00 left"
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    monkeypatch.delenv("MOOLA_RUN_ID")
    run = start()
    run.progress({"epoch": 1, "n_epochs": 2})
    assert capsys.readouterr().out.startswith("\repoch 1/2")


def test_times_and_lines():
    assert [format_seconds(s) for s in (0.4, 61, 3661)] == ["0:00", "1:01", "1:01:01"]
    row = {"epoch": 3, "n_epochs": 9, "val_loss": 0.5, "windows_per_second": 12345.6}
    assert epoch_line(row) == "epoch 3/9  val loss 0.5  12,346 windows/s"
