"""The pod's side alone: states, locks, seals and processes, on this machine and without a connection."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moola_lib.runs.pods import launch, onpod, seals, states, supervisor, watchdog
from moola_lib.runs.processes import describe_process

ROOT = Path(__file__).parent.parent
RUNNER = """import json, pathlib, sys, time
report = pathlib.Path("reports/r")
report.mkdir(parents=True, exist_ok=True)
print("began with", *sys.argv[1:], flush=True)
try:
    time.sleep(float(sys.argv[-1]))
    status, code = "finished", 0
except KeyboardInterrupt:
    status, code = "interrupted", 130
(report / "run.json").write_text(json.dumps({"status": status, "exit_code": code}))
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run's folder on a pod, whose project has a runner of a few lines."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    project, folder = tmp_path / "project", tmp_path / "run"
    (project / "moola_lib").mkdir(parents=True)
    (project / "moola_lib" / "__init__.py").touch()
    (project / "moola_lib" / "cli.py").write_text(RUNNER)
    folder.mkdir()
    write_job(folder, project=str(project), arguments=["0"])
    return folder


def write_job(folder, **changes):
    job = {
        **launch.TIMES, "heartbeat_seconds": 0.1, "stop_seconds": 5.0, "run_id": "r", "python": sys.executable,
        "continuing": ["--resume", "0"], "extras": ["data/trials.jsonl"], "max_hours": 1.0, "is_kept": False,
    }  # fmt: skip
    before = json.loads((folder / "job.json").read_text()) if (folder / "job.json").exists() else {}
    (folder / "job.json").write_text(json.dumps(job | before | changes))


def start(folder):
    """`onpod start` in a process of its own."""
    words = [sys.executable, "-m", "moola_lib.runs.pods.onpod", "start", str(folder)]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60)


def wait_for(folder, state):
    deadline = time.monotonic() + 30
    while states.settle_state(folder)["state"] != state:
        assert time.monotonic() < deadline, states.settle_state(folder)
        time.sleep(0.05)
    return states.settle_state(folder)


def test_the_pods_side_needs_no_package():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import moola_lib.runs.pods.onpod"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_a_run_is_started_once_ends_and_is_sealed(folder):
    write_job(folder, arguments=["1"])
    assert start(folder).returncode == 0
    assert states.settle_state(folder)["state"] == states.RUNNING
    assert start(folder).returncode == 0, "asked again over a line that broke, it is not started again"
    state = wait_for(folder, states.ENDED)
    assert state["exit_code"] == 0 and (folder / "log").read_text().count("began") == 1
    assert list(json.loads((folder / "manifest.json").read_text())) == ["reports/r/run.json"]


def test_another_run_waits_and_learns_whose_turn_it_is(folder, tmp_path):
    write_job(folder, arguments=["3"])
    assert start(folder).returncode == 0
    other = tmp_path / "other"
    other.mkdir()
    write_job(other, run_id="second", project=str(tmp_path / "project"), arguments=["0"])
    done = start(other)
    assert (done.returncode, done.stdout) == (75, "r\n")
    assert onpod.main("arm", str(other)) == 75
    assert supervisor.end(folder) == 0
    assert start(other).returncode == 0
    wait_for(other, states.ENDED)


def test_who_has_the_pod_is_watched_though_another_run_was_prepared_meanwhile(folder, tmp_path, monkeypatch):
    charges = []
    monkeypatch.setattr(onpod.watchdog, "arm", lambda folder: charges.append(Path(folder)) or 0)
    write_job(folder, arguments=["60"])
    other = tmp_path / "other"
    other.mkdir()
    write_job(other, run_id="second", project=str(tmp_path / "project"), arguments=["0"])
    for each in (folder, other):
        assert onpod.main("arm", str(each)) == 0
        (each / "watchdog.json").write_text(json.dumps({"process": describe_process()}))
        states.lock_path().with_suffix(".run").write_text(states.read_job(each)["run_id"])
    monkeypatch.setattr(onpod.supervisor, "start", lambda folder: 0)
    assert onpod.main("start", str(folder)) == 0
    assert charges == [folder, other, folder]
    monkeypatch.setattr(onpod.supervisor, "start", lambda folder: states.IN_USE)
    assert onpod.main("start", str(other)) == states.IN_USE and len(charges) == 3


def test_a_run_that_is_ended_is_interrupted_and_not_killed(folder):
    write_job(folder, arguments=["60"])
    assert start(folder).returncode == 0
    time.sleep(0.5)
    assert supervisor.end(folder) == 0
    state = states.settle_state(folder)
    assert state["exit_code"] == 130 and states.read_record(states.read_job(folder))["status"] == "interrupted"
    assert start(folder).returncode == 0
    wait_for(folder, states.ENDED)
    assert "began with run --resume 0" in (folder / "log").read_text(), "what has a record is continued"


def test_a_run_that_does_not_listen_is_killed(folder):
    deaf = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    Path(states.read_job(folder)["project"], "moola_lib", "cli.py").write_text(deaf)
    write_job(folder, stop_seconds=0.5)
    assert start(folder).returncode == 0
    while "deaf" not in (folder / "log").read_text():
        time.sleep(0.05)
    supervisor.end(folder)
    assert wait_for(folder, states.ENDED)["exit_code"] == 128 + signal.SIGKILL


def test_a_run_that_cannot_be_started_says_so_and_is_over(folder):
    write_job(folder, python="/no/such/python")
    assert start(folder).returncode == 0
    assert wait_for(folder, states.ENDED)["exit_code"] == 1
    assert "could not be started" in (folder / "log").read_text()
    assert start(folder).returncode == 0, "and the pod is free again"


def test_the_run_does_not_see_the_pods_key_and_is_told_where_it_is(folder, monkeypatch):
    monkeypatch.setattr(states, "pod_environment", lambda: {"RUNPOD_API_KEY": "x", "RUNPOD_POD_ID": "y", "PATH": "z"})
    environment = supervisor.run_environment(states.read_job(folder))
    assert "RUNPOD_API_KEY" not in environment and environment["RUNPOD_POD_ID"] == "y"
    assert environment["MOOLA_HOME"] == environment["PYTHONPATH"] == states.read_job(folder)["project"]


@pytest.mark.parametrize(
    ("state", "record", "settled"),
    [
        ({}, {}, states.PREPARING),
        ({"state": "running", "run": "here"}, {}, states.RUNNING),
        ({"state": "running", "run": "dead", "supervisor": "dead"}, {}, states.LOST),
        ({"state": "running", "run": "dead", "supervisor": "dead"}, {"status": "running"}, states.LOST),
        ({"state": "running", "run": "dead", "supervisor": "dead"}, {"status": "failed", "exit_code": 1}, states.ENDED),
        ({"state": "running", "run": "elsewhere", "heartbeat_at": -10}, {}, states.RUNNING),
        ({"state": "running", "run": "elsewhere", "heartbeat_at": -1000}, {}, states.LOST),
        ({"state": "ended", "exit_code": 3, "run": "dead"}, {}, states.ENDED),
    ],
)
def test_a_state_is_judged_by_what_lives_and_what_was_recorded(folder, state, record, settled):
    processes = {
        "here": describe_process(),
        "dead": describe_process() | {"start": "another"},
        "elsewhere": describe_process() | {"host": "another"},
    }
    state = {key: processes.get(value, value) if isinstance(value, str) else value for key, value in state.items()}
    if "heartbeat_at" in state:
        state["heartbeat_at"] += time.time()
    states.write_state(folder, state)
    if record:
        report = Path(states.read_job(folder)["project"], "reports", "r")
        report.mkdir(parents=True)
        (report / "run.json").write_text(json.dumps(record))
    found = states.settle_state(folder)
    assert found["state"] == settled
    assert found.get("exit_code") == (record or state).get("exit_code")


def test_a_seal_names_what_a_run_left_and_nothing_else(folder):
    project = Path(states.read_job(folder)["project"])
    names = {
        "reports/r/run.json": True, "reports/r/.lock": False, "reports/other/run.json": False,
        "data/artifacts/r/03/deep/w.bin": True, "data/artifacts/r/03/.tmp/x": False, "data/raw/nq.parquet": False,
        "reports/assets/plotly.min.js": True, "data/trials.jsonl": True, "moola_lib/cli.py": False,
    }  # fmt: skip
    for name in names:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name)
    manifest = seals.seal(folder)
    assert set(manifest) == {name for name, is_in in names.items() if is_in}
    assert seals.find_differences(project, manifest) == []
    path = project / "data/artifacts/r/03/deep/w.bin"
    status = path.stat()
    path.write_text("x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (project / "reports/r/run.json").unlink()
    assert sorted(seals.find_differences(project, manifest)) == ["data/artifacts/r/03/deep/w.bin", "reports/r/run.json"]


def test_a_full_disk_gives_back_its_ballast_for_the_last_word(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=True)
    try:
        states.write_state(small, {"state": "running"})
        (small / states.BALLAST).write_bytes(b"\1" * states.BALLAST_BYTES)
        with pytest.raises(OSError, match="No space"):
            (small / "filler").write_bytes(b"x" * (3 << 20))
        states.write_state(small, {"state": "ended", "said": "x" * 5000})
        assert states.read_state(small)["state"] == "ended" and not (small / states.BALLAST).exists()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_the_work_of_a_run_is_that_of_all_its_processes_and_they_end_together():
    busy = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    process = subprocess.Popen([sys.executable, "-c", busy], start_new_session=True)
    try:
        run = describe_process(process.pid)
        deadline = time.monotonic() + 30
        while watchdog.cpu_seconds(run) < 0.5:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        watchdog.kill_tree(run)
        process.wait(10)
        assert children and watchdog.cpu_seconds(run) == 0.0
        while any(describe_process(int(child))["start"] for child in children):
            assert time.monotonic() < deadline + 30
            time.sleep(0.05)
    finally:
        process.kill()
