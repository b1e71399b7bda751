"""How far a run is, and whether it still runs: told by its process, not by the clock or by what it last said."""

import json
import os
import subprocess
import sys

import pytest

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import lock_folder, read_json, write_json
from moola_lib.runs.processes import describe_process, end_process, is_alive, measure_memory
from moola_lib.runs.record import exit_code, list_runs, read_run
from moola_lib.runs.status import run_status

KERNEL = "import time; held = bytearray(50_000_000); print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def kernel():
    with subprocess.Popen([sys.executable, "-c", KERNEL], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def write_run(root, run_id="one", **changes):
    record = {
        "run_id": run_id,
        "status": "running",
        "started_at": "2026-11-20T10:00:00Z",
        "stems": ["01_first", "02_second"],
        "notebooks": {
            "01_first": {"status": "finished", "seconds": 3.0},
            "02_second": {"status": "running", "cell": 4, "n_cells": 9},
        },
        "process": describe_process(),
        "error": None,
        "exit_code": None,
        **changes,
    }
    write_json(root / "reports" / run_id / "run.json", record)
    return record


def test_status_shows_the_training_and_the_memory_of_the_kernel(root, kernel, capsys):
    record = write_run(root)
    record["notebooks"]["02_second"]["kernel"] = describe_process(kernel.pid)
    write_run(root, notebooks=record["notebooks"])
    folder = root / "data/artifacts/one/02_second"
    folder.mkdir(parents=True)
    row = {"epoch": 3, "n_epochs": 20, "train_loss": 0.25, "windows_per_second": 800.0, "seconds_left": 63.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + '\n{"note": 1}\n{"epoch": 4, "n_ep')
    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert f"one: running, process {os.getpid()} on" in shown
    assert "2/2 02_second  running  cell 4/9" in shown
    assert "epoch 3/20  train loss 0.25  800 windows/s  1:03 left" in shown
    assert main(["status", "one", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["training"] == row and status["exit_code"] is None
    assert status["memory_mb"] >= 50


@pytest.mark.parametrize("change", [{"start": "another boot:1"}, {"pid": 2**22 + 1}, {"start": None}])
def test_a_run_whose_process_is_gone_is_lost_even_if_its_number_lives_on(root, change):
    write_run(root, process={**describe_process(), **change})
    record = read_run(root, "one")
    assert record["status"] == "lost" and record["exit_code"] == 137 == exit_code(record)
    assert record["notebooks"]["02_second"]["status"] == "lost"
    assert record["notebooks"]["01_first"]["status"] == "finished"
    assert "moola run --resume --run-id one" in record["error"]["message"]
    assert read_json(root / "reports/one/run.json")["status"] == "running", "reading changes nothing"
    assert [each["status"] for each in list_runs(root)[0]] == ["lost"]


def test_another_hosts_run_is_judged_by_its_lock(root):
    write_run(root, process={"pid": os.getpid(), "host": "elsewhere", "start": "x"})
    assert run_status(root, "one")["status"] == "lost"
    with lock_folder(root / "reports/one"):
        assert run_status(root, "one")["status"] == "running"


def test_a_process_is_alive_until_it_ends_zombie_or_not(kernel):
    process = describe_process(kernel.pid)
    assert is_alive(process) and measure_memory(kernel.pid) > 50_000_000
    end_process(process)
    assert not is_alive(process) and kernel.returncode is None, "nobody has asked for its exit code yet"
    kernel.wait()
    assert not is_alive(process) and measure_memory(kernel.pid) == 0
    end_process(describe_process(kernel.pid))  # gone: nobody else is hit


def test_the_newest_that_runs_comes_first(root):
    write_run(root, "old")
    write_run(root, "new", status="finished", started_at="2026-11-21T10:00:00Z")
    assert run_status(root)["run_id"] == "old"


def test_no_run_and_a_damaged_one_are_one_sentence(root):
    with pytest.raises(UserError, match="there are no runs"):
        run_status(root)
    (root / "reports/cut").mkdir(parents=True)
    (root / "reports/cut/run.json").write_text('{"run_id": "cut", "sta')
    with pytest.raises(UserError, match="may be truncated"):
        run_status(root, "cut")
