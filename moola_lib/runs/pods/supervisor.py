"""On the pod: start a run that needs no connection, note its heartbeat, and seal what it leaves."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from moola_lib.runs.pods import seals, states
from moola_lib.runs.processes import describe_process, is_alive

KEY = "RUNPOD_API_KEY"  # the watchdog's; a notebook has no use for it


def start(folder):
    """Start the run of a folder in the background; return the exit code for the caller.

    Returns
    -------
    int
        0 started; 75 another run has the pod.
    """
    folder = Path(folder)
    job, lock = states.read_job(folder), states.take_lock()
    if lock is None:
        holder = states.lock_holder()
        print(holder)
        return 0 if holder == job["run_id"] else states.IN_USE  # asked twice, over a line that broke
    lock.seek(0)
    lock.truncate()
    lock.write(job["run_id"])
    lock.flush()
    for wish in ("fetching", "fetched", "stop"):
        (folder / wish).unlink(missing_ok=True)
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        os.read(reading, 1)  # until the state says that it runs
        return 0
    detach()
    try:
        supervise(folder, job, lock, begun=writing)
    except Exception as error:  # nobody else will ever say it
        with contextlib.suppress(OSError), open(folder / "log", "a", encoding="utf-8") as log:
            log.write(f"the run could not be started: {error}\n")
        states.write_state(folder, {"state": states.ENDED, "exit_code": 1, "ended_at": time.time()})
    finally:
        os._exit(0)


def detach():
    """Leave the session and streams of the one who called: a connection that closes takes nothing along."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)


def supervise(folder, job, lock, begun):
    """Run the job's command to its end; what happened is in `state.json`.

    Parameters
    ----------
    folder : Path
    job : dict
        `run_id`, `project`, `python`, `arguments`, `heartbeat_seconds`, ….
    lock : file
        Handed on: the pod is taken as long as the run lives.
    begun : int
        End of a pipe, closed once the state says that it runs.
    """
    with contextlib.suppress(OSError):
        (folder / states.BALLAST).write_bytes(b"\1" * states.BALLAST_BYTES)
    wishes = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: wishes.append(time.monotonic()))
    state = {"state": states.RUNNING, "started_at": time.time(), "supervisor": describe_process()}
    with open(folder / "log", "ab") as log:
        run = subprocess.Popen(
            command_of(job), cwd=job["project"], env=run_environment(job), stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[lock.fileno()],
        )  # fmt: skip
    state["run"] = describe_process(run.pid)
    n_heard = 0
    while True:
        states.write_state(folder, state | {"heartbeat_at": time.time()})
        if begun is not None:
            os.close(begun)
            begun = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(job["heartbeat_seconds"])
        if run.poll() is not None:
            break
        if len(wishes) > n_heard:  # papermill keeps what was done after SIGINT, and loses it after SIGTERM
            run.send_signal(signal.SIGINT)
            n_heard = len(wishes)
        if wishes and time.monotonic() - wishes[0] > job["stop_seconds"]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
    (folder / states.BALLAST).unlink(missing_ok=True)
    code = run.returncode if run.returncode >= 0 else 128 - run.returncode
    ending = {"exit_code": code, "ended_at": time.time(), "heartbeat_at": time.time(), "seal_error": None}
    try:
        seals.seal(folder)
    except OSError as error:  # sealed again when it is fetched
        ending["seal_error"] = str(error)
    states.write_state(folder, state | ending | {"state": states.ENDED})


def command_of(job):
    """Return the command: the one that continues, where the run has a record already."""
    words = job["continuing"] if states.read_record(job) else job["arguments"]
    return [job["python"], "-m", "moola_lib.cli", "run", *words]


def run_environment(job):
    """Return the container's environment without RunPod's key, pointing at the run's own copy of the project."""
    environment = states.pod_environment()
    environment.pop(KEY, None)
    paths = [job["project"], *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {
        "MOOLA_HOME": job["project"],
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }


def end(folder):
    """Ask the run to end, and wait until it is sealed; return 0, or 1 where nothing ended."""
    state = states.settle_state(folder)
    if state["state"] != states.RUNNING:
        return 0
    deadline = time.monotonic() + 2 * states.read_job(folder)["stop_seconds"]
    for process, number in ((state.get("supervisor"), signal.SIGTERM), (state.get("run"), signal.SIGINT)):
        if process and is_alive(process):
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(process["pid"], number)
            break
    while states.settle_state(folder)["state"] == states.RUNNING:
        if time.monotonic() > deadline:
            return 1
        time.sleep(0.2)
    return 0


def follow(folder, offset):
    """Write the log from an offset to standard output until the run has ended, or nobody reads."""
    path, parent = Path(folder) / "log", os.getppid()
    while True:
        is_over = states.settle_state(folder)["state"] not in (states.RUNNING, states.PREPARING)
        if path.exists():
            with open(path, "rb") as stream:
                stream.seek(offset)
                while block := stream.read(1 << 16):
                    sys.stdout.buffer.write(block)
                    offset += len(block)
            sys.stdout.buffer.flush()
        if is_over or os.getppid() != parent:
            return 0
        time.sleep(0.5)
