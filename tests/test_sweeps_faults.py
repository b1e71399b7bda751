"""Workers and clients of a sweep killed at random: every run is accounted for, once, and is what a serial run gives."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from sweep_project import MODELS, STEM, build_project, write_sweep

from moola_lib.files import read_json
from moola_lib.runs.engine import run_notebooks
from moola_lib.runs.record import list_runs
from moola_lib.runs.sweeps.description import read_sweep
from moola_lib.runs.sweeps.plan import grid_points, plan_runs

pytestmark = [pytest.mark.sweep, pytest.mark.slow]

N_WORKERS, N_KILLS = 3, 10
RUNNER = """import sys
from sweep_project import MODELS
from moola_lib.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], models=MODELS))"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    root = tmp_path / "project"
    build_project(root)
    here = Path(__file__).resolve().parent
    monkeypatch.setenv("MOOLA_HOME", str(root))
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "20")  # more kills than a run is to survive
    (tmp_path / "runner.py").write_text(RUNNER)
    return root


def start_client(root, *words):
    """Start `moola sweep` as the leader of a process group of its own, as a shell does."""
    log = open(root.parent / "client.log", "a")  # noqa: SIM115 (the process writes it)
    command = [sys.executable, str(root.parent / "runner.py"), "sweep", str(root / "try.yaml"), *words]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def read_state(root):
    with contextlib.suppress(Exception):
        return read_json(root / "reports" / "sweeps" / "try" / "sweep.json")
    return {"runs": {}}


def count_finished(root):
    return sum(entry["status"] == "finished" for entry in read_state(root)["runs"].values())


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def processes_of(root):
    """Return the processes that work in a project: client, workers, kernels."""
    everybody = psutil.process_iter(["environ"])
    return [each for each in everybody if (each.info["environ"] or {}).get("MOOLA_HOME") == str(root)]


@pytest.fixture
def network(request):
    """Names of network namespaces joined by a bridge, with their addresses; none where they cannot be made."""
    name = f"mo{os.getpid() % 10000}"
    spaces = {f"{name}n{k}": f"10.77.0.{k + 2}" for k in range(N_WORKERS + 1)}

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        ip("link", "add", name, "type", "bridge")
        ip("addr", "add", "10.77.0.1/24", "dev", name)
        ip("link", "set", name, "up")
        for k, (space, address) in enumerate(spaces.items()):
            ip("netns", "add", space)
            ip("link", "add", f"{name}v{k}", "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", f"{name}v{k}", "master", name, "up")
            for words in (["addr", "add", f"{address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"],
                          ["link", "set", "lo", "up"]):  # fmt: skip
                ip("-n", space, *words)
        yield spaces
    except (OSError, subprocess.CalledProcessError):
        print("\nno network namespaces here: plain processes")
        yield {}
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        subprocess.run(["ip", "link", "del", name], capture_output=True)


class Machines:
    """A scheduler and workers, each in a network of its own where that is possible."""

    def __init__(self, folder, network):
        self._folder, self._spaces = folder, list(network)
        host = network[self._spaces[0]] if network else "127.0.0.1"
        self.address = f"tcp://{host}:18786"
        self._log = open(folder / "machines.log", "a")  # noqa: SIM115
        words = ["scheduler", "--host", host, "--port", "18786", "--no-dashboard"]
        self._scheduler = self._start(0, *words)
        self.workers = [self.start_worker(k) for k in range(N_WORKERS)]

    def start_worker(self, number):
        return self._start(number + 1, "worker", self.address, "--nthreads", "1", "--no-dashboard")

    def kill_a_worker(self, chance):
        """Kill a worker process at work, which its nanny starts again; or its machine, and start another.

        Returns "process" or "machine"; None where no machine is at work.
        """
        at_work = [number for number in range(N_WORKERS) if "ipykernel" in " ".join(self._commands(number).values())]
        if not at_work:
            return None
        number = chance.choice(at_work)
        nanny, commands = self.workers[number], self._commands(number)
        processes = list(commands)
        workers = [each for each, command in commands.items() if "spawn_main" in command]
        if chance.random() < 0.5 and workers:
            with contextlib.suppress(psutil.Error):
                workers[0].kill()
            return "process"
        nanny.kill()
        for each in processes:  # a machine takes its kernels with it
            with contextlib.suppress(psutil.Error):
                each.kill()
        nanny.wait()
        self.workers[number] = self.start_worker(number)
        return "machine"

    def _commands(self, number):
        """Return the command lines of a machine's processes."""
        found = {}
        with contextlib.suppress(psutil.Error):
            for each in psutil.Process(self.workers[number].pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    found[each] = " ".join(each.cmdline())
        return found

    def end(self):
        for process in [process for process in [*self.workers, self._scheduler] if process.poll() is None]:
            for each in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    each.kill()
            process.kill()
            process.wait()

    def _start(self, number, *words):
        space = ["ip", "netns", "exec", self._spaces[number]] if self._spaces else []
        command = [*space, sys.executable, "-m", "dask", *words]
        return subprocess.Popen(command, cwd=self._folder, stdout=self._log, stderr=subprocess.STDOUT)


def run_serially(root, sweep_path):
    """Run what a sweep would, one after the other in this process, in a project of its own; return its root."""
    serial = root.parent / "serial"
    build_project(serial)
    sweep = read_sweep(sweep_path, MODELS, serial)
    for run in plan_runs(sweep, grid_points(sweep.grid), MODELS, serial):
        given, resolved = {STEM: run.given}, {STEM: run.resolved}
        result = run_notebooks([STEM], given, root=serial, run_id=run.run_id, resolved_by_stem=resolved)
        assert result.exit_code == 0
    return serial


def last_epochs(path):
    """Return the last row of each epoch, without its times."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["epoch"]: row["train_loss"] for row in rows}


def assert_as_serial(root, serial):
    """Every run of the serial project is in the other one, once, with the same bytes and figures."""
    table = pd.read_csv(root / "reports" / "sweeps" / "try" / "results.csv")
    expected = sorted(path.parent.name for path in (serial / "reports").glob("*/run.json"))
    assert sorted(table["run_id"]) == expected, "all runs, none twice"
    assert set(table["status"]) == {"finished"}
    assert sorted(record["run_id"] for record in list_runs(root)[0]) == expected and list_runs(root)[1] == []
    for run_id in expected:
        ours, theirs = (folder / "data" / "artifacts" / run_id / STEM for folder in (root, serial))
        assert (ours / "draws.npy").read_bytes() == (theirs / "draws.npy").read_bytes()
        assert last_epochs(ours / "metrics.jsonl") == last_epochs(theirs / "metrics.jsonl")
        assert read_json(ours / "record.json")["gates"] == read_json(theirs / "record.json")["gates"]
        page = (root / "reports" / run_id / f"{STEM}.html").read_text()
        assert "finished" in page
    assert not list((root / "reports").glob("*/.*.*"))


def test_machines_killed_at_random_lose_no_run_and_double_none(root, network):
    chance, kinds = random.Random(11), []
    path = write_sweep(
        root / "try.yaml", "parameters: {seconds: 1}\ngrid: {shift: [0, 1, 2, 3, 4, 5]}\nseeds: [1, 2, 3, 4, 5]"
    )
    machines = Machines(root.parent, network)
    try:
        client = start_client(root, "--scheduler", machines.address)
        wait_for(lambda: count_finished(root) >= 1)
        while client.poll() is None:
            if len(kinds) < N_KILLS and (kind := machines.kill_a_worker(chance)):
                kinds.append(kind)
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(chance.uniform(2.0, 8.0))
        log = (root.parent / "client.log").read_text()
        assert client.returncode == 0, log
    finally:
        machines.end()
    state = read_state(root)
    n_lost = sum(entry["n_lost"] for entry in state["runs"].values())
    where = "in network namespaces" if network else "as plain processes"
    print(f"\n{where}: {kinds.count('process')} worker processes and {kinds.count('machine')} machines killed, "
          f"{n_lost} runs taken up where they were lost")  # fmt: skip
    assert len(kinds) == N_KILLS and n_lost >= 1
    assert len(state["runs"]) == 30 and state["status"] == "finished"
    assert_as_serial(root, run_serially(root, path))


def test_a_killed_scheduler_is_said_and_another_one_goes_on(root):
    path = write_sweep(root / "try.yaml", "parameters: {seconds: 3}\ngrid: {shift: [0, 1, 2, 3]}")
    machines = Machines(root.parent, {})
    try:
        client = start_client(root, "--scheduler", machines.address)
        wait_for(lambda: len(list((root / "data" / "artifacts").glob("*/*/metrics.jsonl"))) == N_WORKERS)
        machines.end()
        assert client.wait(60) == 2
        log = (root.parent / "client.log").read_text()
        assert "the scheduler is gone; start it again, and the same command goes on" in log and "Traceback" not in log
        assert {entry["n_tries"] for entry in read_state(root)["runs"].values()} == {0}
        machines = Machines(root.parent, {})
        assert start_client(root, "--scheduler", machines.address).wait(120) == 0
    finally:
        machines.end()
    assert_as_serial(root, run_serially(root, path))


def test_a_killed_client_leaves_nothing_to_be_done_twice(root):
    path = write_sweep(root / "try.yaml", "parameters: {seconds: 1}\ngrid: {shift: [0, 1, 2]}\nseeds: [1, 2]")
    client = start_client(root, "--workers", "2")
    wait_for(lambda: count_finished(root) >= 2)
    client.kill()
    client.wait()
    finished = {p: p.read_bytes() for p in (root / "reports").glob("try-*/run.json") if '"finished"' in p.read_text()}
    finished = {p: content for p, content in finished.items() if read_json(p)["status"] == "finished"}
    assert 2 <= len(finished) < 6
    assert start_client(root, "--workers", "2").wait(120) == 0
    assert all(p.read_bytes() == content for p, content in finished.items())
    assert_as_serial(root, run_serially(root, path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_the_runs_and_the_same_command_goes_on(root, number):
    path = write_sweep(root / "try.yaml", "parameters: {seconds: 6}\ngrid: {shift: [0, 1, 2]}")
    client = start_client(root, "--workers", "2")
    wait_for(lambda: len(list((root / "data" / "artifacts").glob("*/*/metrics.jsonl"))) == 2)
    os.killpg(client.pid, number)  # as a terminal does: workers hear it too
    assert client.wait(90) == 130
    log = (root.parent / "client.log").read_text()
    assert "3 runs left; run the same command again to go on" in log
    assert sorted(record["status"] for record in list_runs(root)[0]) == ["interrupted"] * 2
    wait_for(lambda: not processes_of(root), 10)
    assert start_client(root, "--workers", "2").wait(120) == 0
    assert_as_serial(root, run_serially(root, path))


def test_hours_that_are_over_end_the_runs_at_work(root):
    write_sweep(root / "try.yaml", "parameters: {seconds: 60}\ngrid: {shift: [0, 1]}")
    assert start_client(root, "--workers", "2", "--max-hours", "0.003").wait(90) == 0
    assert "the bound is reached, 2 runs left" in (root.parent / "client.log").read_text()
    assert {record["status"] for record in list_runs(root)[0]} == {"interrupted"}
    shutil.rmtree(root)
