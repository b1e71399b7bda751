"""Killed at random moments, a full disk, a turned clock, two at once: what was reported as saved is there after it."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from toy_project import MODELS, build_project

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import read_json
from moola_lib.runs import kernels
from moola_lib.runs import record as records
from moola_lib.runs.engine import run_notebooks
from moola_lib.runs.index import build_index
from moola_lib.runs.processes import describe_process
from moola_lib.runs.status import run_status

pytestmark = pytest.mark.slow

N_RUNNER_KILLS, N_KERNEL_KILLS = 26, 26
RUNNER = """import sys
from toy_project import MODELS
from moola_lib.cli import main
sys.exit(main(sys.argv[1:], models=MODELS))"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    build_project(tmp_path)
    here = Path(__file__).resolve().parent
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")
    monkeypatch.delenv("MOOLA_RUN_ID", raising=False)
    monkeypatch.delenv("MOOLA_HEADLESS", raising=False)
    return tmp_path


def start_runner(*words):
    """Start `moola run` as a process of its own."""
    return subprocess.Popen([sys.executable, "-c", RUNNER, "run", *words], stdout=subprocess.PIPE, text=True)


def wait_until_begun(root, run_id, runner):
    """Wait until the record is this runner's; before that it has promised nothing."""
    while runner.poll() is None:
        try:
            if read_json(root / "reports" / run_id / "run.json")["process"]["pid"] == runner.pid:
                return
        except UserError:
            pass  # not there yet
        time.sleep(0.01)


def saved_state(root, run_id):
    """Return what a run has reported as saved: finished notebooks with their files, and whole rows of metrics."""
    try:
        record = records.read_run(root, run_id)
    except UserError:
        return None
    finished = [stem for stem in record["stems"] if record["notebooks"][stem]["status"] == "finished"]
    files = {}
    for stem in finished:
        for folder in (root / "reports" / run_id, root / "data/artifacts" / run_id / stem):
            for path in folder.glob(f"{stem}.ipynb" if folder.parent.name == "reports" else "*"):
                files[path] = path.read_bytes()
    return record, files


def assert_readable(root, run_id, before):
    """Every file of a run can be read, and holds what was there and reported before."""
    state = saved_state(root, run_id)
    assert state is not None, "a record that was written is gone"
    record = state[0]
    for path, content in (before[1] if before else {}).items():
        assert path.read_bytes() == content, f"{path} was reported as saved and is another"
    for path in (root / "reports" / run_id).glob("*.ipynb"):
        assert read_json(path)["cells"], path
    for path in (root / "data/artifacts" / run_id).glob("*/record.json"):
        assert read_json(path)["status"] == "finished"
    for path in (root / "data/artifacts" / run_id).glob("*/metrics.jsonl"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            assert json.loads(line)["epoch"] >= 1
    damaged = records.list_runs(root)[1]
    assert damaged == []
    assert f">{run_id}<" in build_index(root).read_text()
    assert run_status(root, run_id)["status"] == record["status"]
    return state


def test_a_runner_killed_at_random_moments_is_lost_and_goes_on(root):
    random_moments = random.Random(8)
    statuses, state, n_runs = [], None, 0
    run_id = "run0"
    for _ in range(N_RUNNER_KILLS):
        is_resumed = (root / "reports" / run_id / "run.json").exists()
        runner = start_runner("--run-id", run_id, *(["--resume"] if is_resumed else []))
        wait_until_begun(root, run_id, runner)
        time.sleep(random_moments.uniform(0.0, 3.0))
        runner.kill()
        code = runner.wait()
        runner.stdout.close()
        state = assert_readable(root, run_id, state)
        status = state[0]["status"]
        statuses.append(status)
        assert status in ("lost", "finished") and (status == "finished" or code == -signal.SIGKILL)
        assert state[0]["exit_code"] == (137 if status == "lost" else 0)
        if status == "finished":
            n_runs, state = n_runs + 1, None
            run_id = f"run{n_runs}"
    print("\nrunner killed:", {status: statuses.count(status) for status in set(statuses)})
    assert statuses.count("lost") >= N_RUNNER_KILLS // 2, statuses
    is_resumed = (root / "reports" / run_id / "run.json").exists()
    last = start_runner("--run-id", run_id, *(["--resume"] if is_resumed else []))
    last.communicate(timeout=120)
    assert last.returncode == 0
    state = assert_readable(root, run_id, state)
    assert state[0]["status"] == "finished" and state[0]["exit_code"] == 0
    assert not list((root / "reports" / run_id).glob(".*")), "nothing temporary is left by the one that finished"


def test_a_kernel_killed_at_random_moments_is_reported_and_resumed(root):
    random_moments = random.Random(9)
    codes, stopped_in, state, n_runs, run_id = [], set(), None, 0, "run0"
    for _ in range(N_KERNEL_KILLS):
        is_resumed = (root / "reports" / run_id / "run.json").exists()
        killer = KernelKiller(n_cells=random_moments.randint(1, 12), delay=random_moments.uniform(0.0, 0.4))
        result = run_notebooks(
            ["01_first", "02_second"], {}, root=root, run_id=run_id, resume=is_resumed, on_event=killer.look
        )
        killer.join()
        state = assert_readable(root, run_id, state)
        codes.append(result.exit_code)
        assert result.exit_code == state[0]["exit_code"]
        assert result.exit_code in ((0, 138) if killer.has_killed else (0,)), result.record["error"]
        if result.exit_code == 138:
            error = result.record["error"]
            assert "killed (SIGKILL)" in error["message"]
            stopped_in.add((error["stem"], error["cell"]))
        else:
            n_runs, state = n_runs + 1, None
            run_id = f"run{n_runs}"
    print(
        f"\nkernel killed: { ({code: codes.count(code) for code in set(codes)}) }, in {len(stopped_in)} different cells"
    )
    assert codes.count(138) >= N_KERNEL_KILLS // 2, codes


class KernelKiller:
    """Kills this process's kernel `delay` seconds after the run's `n_cells`-th cell began."""

    def __init__(self, n_cells, delay):
        self._n_left, self._delay, self.has_killed = n_cells, delay, False
        self._thread = threading.Thread(target=self._kill)

    def look(self, event):
        self._n_left -= event["kind"] == "cell"
        if self._n_left == 0 and event["kind"] == "cell":
            self._thread.start()

    def join(self):
        if self._thread.ident:
            self._thread.join()

    def _kill(self):
        time.sleep(self._delay)
        for child in psutil.Process().children():
            try:
                if any("ipykernel" in word for word in child.cmdline()):
                    child.kill()
                    self.has_killed = True
            except psutil.Error:
                pass  # it has just ended by itself


@pytest.fixture
def small(root, tmp_path):
    """The project on a disk of four megabytes."""
    small = tmp_path / "small"
    small.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip("a small disk can only be mounted by root")
    (small / "notebooks").mkdir()
    for path in (root / "notebooks").glob("*.ipynb"):
        (small / "notebooks" / path.name).write_bytes(path.read_bytes())
    yield small
    subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_full_disk_ends_the_run_and_the_record_says_so(small):
    with pytest.raises(UserError, match="GB free and a run wants 1"):
        run_notebooks(["01_first"], {}, root=small, run_id="refused")
    options = {"root": small, "run_id": "full", "least_disk_gb": 0}
    assert run_notebooks(["01_first"], {}, **options).exit_code == 0
    state = saved_state(small, "full")

    def fill_at_the_fifth_cell(event):
        if event.get("cell") == 5:
            with pytest.raises(OSError, match="No space"), open(small / "filler", "wb", buffering=0) as stream:
                while True:
                    stream.write(b"x" * 4096)

    result = run_notebooks(["02_second"], {}, resume=True, on_event=fill_at_the_fifth_cell, **options)
    assert result.exit_code == 1 and "No space left" in result.record["error"]["message"]
    record, _ = saved_state(small, "full")
    assert record["status"] == "failed" and record["exit_code"] == 1
    assert state[1].items() <= saved_state(small, "full")[1].items()
    for path in (small / "reports/full").glob("*.ipynb"):
        assert read_json(path)["cells"]
    (small / "filler").unlink()
    assert run_notebooks(["01_first", "02_second"], {}, resume=True, **options).exit_code == 0


def test_a_read_only_disk_is_refused_in_one_sentence(small):
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(UserError, match="cannot write"):
        run_notebooks(["01_first"], {}, root=small, run_id="x", least_disk_gb=0)


def make_read_only(folder):
    """Make a folder one that nobody may write: by its mode, or for root, whom no mode stops, by a mount over it."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        return
    for words in (["--bind", str(folder), str(folder)], ["-o", "remount,bind,ro", str(folder)]):
        if subprocess.run(["mount", *words], capture_output=True).returncode != 0:
            pytest.skip("this root may not mount")


def make_writable(folder):
    folder.chmod(0o700) if os.geteuid() != 0 else subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_folder_that_becomes_read_only_ends_the_run_in_one_sentence(root):
    folder = root / "reports" / "closed"

    def close(event):
        if event["kind"] == "cell" and event["cell"] == 3:
            make_read_only(folder)

    try:
        with pytest.raises(UserError, match="cannot write"):
            run_notebooks(["01_first"], {}, root=root, run_id="closed", on_event=close)
        assert records.read_run(root, "closed")["stems"] == ["01_first"]  # as it was last written
    finally:
        make_writable(folder)
    assert run_notebooks(["01_first"], {}, root=root, run_id="closed", resume=True).exit_code == 0


def test_a_clock_that_goes_backwards_changes_no_state(root, monkeypatch):
    hours = iter(range(23, 0, -1))
    monkeypatch.setattr(records, "utc_now", lambda: f"2026-11-20T{next(hours, 0):02}:00:00Z")
    seen = []

    def look(event):
        seen.append(run_status(root, "back")["status"])

    result = run_notebooks(["01_first"], {}, root=root, run_id="back", on_event=look)
    assert set(seen) == {"running"}
    assert result.exit_code == 0 and result.record["finished_at"] < result.record["started_at"]
    assert result.record["seconds"] > 0 and result.record["timings"]["01_first"] > 0
    assert_readable(root, "back", None)


def test_of_two_runs_at_once_one_is_refused_and_names_the_other(root, capsys):
    runner = start_runner("2", "1", "--run-id", "both", "-p", "mode", "sleep")
    try:
        while not (root / "reports/both/run.json").exists():
            time.sleep(0.05)
        assert main(["run", "1", "--run-id", "both", "--resume"], models=MODELS) == 2
        assert f"in use by process {runner.pid} on {describe_process()['host']}" in capsys.readouterr().err
        assert main(["run", "1", "--run-id", "other"], models=MODELS) == 0, "another folder is free"
        assert run_status(root, "both")["status"] == "running"
    finally:
        runner.send_signal(signal.SIGTERM)
        runner.communicate(timeout=60)
    assert runner.returncode == 130 == records.read_run(root, "both")["exit_code"]


def test_a_second_signal_does_not_wait_for_a_clean_up_that_hangs(root, monkeypatch):
    monkeypatch.setattr(kernels, "SHUTDOWN_SECONDS", 600.0)
    stopping = root / "data/artifacts/stuck/02_second/stopping"

    def interrupt_twice():
        while not stopping.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    def interrupt(event):
        if event["kind"] == "epoch" and event["row"]["epoch"] == 2:
            threading.Thread(target=interrupt_twice).start()
            os.kill(os.getpid(), signal.SIGINT)

    assert run_notebooks(["01_first"], {}, root=root, run_id="stuck").exit_code == 0
    options = {"root": root, "run_id": "stuck", "resume": True, "on_event": interrupt}
    result = run_notebooks(["02_second"], {"02_second": {"mode": "stubborn"}}, **options)
    assert result.exit_code == 130 and result.record["timings"]["02_second"] < 90
    assert read_json(root / "reports/stuck/run.json")["status"] == "interrupted"


def test_a_truncated_record_is_named_and_touches_nothing_else(root, capsys):
    assert main(["run", "1", "--run-id", "cut"], models=MODELS) == 0
    path = root / "reports/cut/run.json"
    content = path.read_text()
    for length in (0, 1, len(content) // 2, len(content) - 3):
        path.write_text(content[:length])
        assert main(["run", "--run-id", "cut", "--resume"], models=MODELS) == 2
        assert "run.json is not valid JSON" in capsys.readouterr().err
        assert main(["status", "cut"]) == 2
        assert "cut/run.json" in build_index(root).read_text()
        assert main(["run", "1", "--run-id", "cut"], models=MODELS) == 2, "and is not overwritten"
        assert path.read_text() == content[:length]
    path.write_text(content)
    assert main(["run", "--run-id", "cut", "--resume"], models=MODELS) == 0
