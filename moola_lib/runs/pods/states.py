"""On the pod: what a run's folder there says, and whether it is still true.

The folder holds `job.json` (what to do), `state.json` (how far it is; the
supervisor's alone), `log`, `manifest.json`, and the wishes of the client as empty
files: `fetching`, `fetched`, `stop`.
"""

import contextlib
import fcntl
import json
import os
import tempfile
import time
from pathlib import Path

from moola_lib.runs.processes import is_alive

PREPARING, RUNNING, ENDED, LOST = "preparing", "running", "ended", "lost"
IN_USE = 75  # the exit code for "try again later"
BALLAST_BYTES = 1 << 20  # given back when the disk is full, so that the state can still be said
BALLAST = ".ballast"
FINAL = ("finished", "failed", "interrupted")


def read_job(folder):
    """Return what the run's folder asks for."""
    return json.loads((Path(folder) / "job.json").read_text(encoding="utf-8"))


def read_state(folder):
    """Return the state as it was last written; an empty one before the first."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((Path(folder) / "state.json").read_text(encoding="utf-8"))
    return {}


def write_state(folder, state):
    """Write the state; a full disk gives back what was kept for it, and after that keeps the old one."""
    path = Path(folder) / "state.json"
    try:
        _replace(path, json.dumps(state, indent=1))
    except OSError:
        (path.parent / BALLAST).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            _replace(path, json.dumps(state, indent=1))


def _replace(path, text):
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def settle_state(folder):
    """Return the state with `state` as it is now, and the ages of its signs of life in seconds.

    A supervisor that is gone while its run goes on changes nothing. Where both
    are gone, the run's own record decides; one that says nothing final is lost:
    the pod was stopped, or the run was killed. Another machine's process, on a
    volume that is shared, is judged by its heartbeat.
    """
    state, job = read_state(folder), read_job(folder)
    now = time.time()
    settled = {"state": PREPARING, **state, "run_id": job["run_id"], "now": now}
    settled["heartbeat_age"] = now - state["heartbeat_at"] if "heartbeat_at" in state else None
    settled["progress_age"] = _progress_age(job, folder, now)
    if settled["state"] == RUNNING and not _is_running(state, job, settled["heartbeat_age"]):
        record = read_record(job)
        is_over = record.get("status") in FINAL
        settled.update(state=ENDED if is_over else LOST, exit_code=record.get("exit_code") if is_over else None)
    return settled


def read_record(job):
    """Return the `run.json` of the run; an empty one where there is none."""
    path = Path(job["project"], "reports", job["run_id"], "run.json")
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return {}


def _is_running(state, job, heartbeat_age):
    for process in (state.get("run"), state.get("supervisor")):
        alive = is_alive(process) if process else False
        if alive:
            return True
        if alive is None and heartbeat_age is not None and heartbeat_age < job["stale_seconds"]:
            return True
    return False


def _progress_age(job, folder, now):
    """Return the seconds since the run last wrote a line, an epoch or a cell."""
    places = [Path(folder, "log"), Path(job["project"], "reports", job["run_id"], "run.json")]
    places += Path(job["project"], "data", "artifacts", job["run_id"]).glob("*/metrics.jsonl")
    stamps = [path.stat().st_mtime for path in places if path.exists()]
    return now - max(stamps) if stamps else None


def pod_environment():
    """Return the container's environment: a login over SSH lacks most of it, the pod's id and key included."""
    environment = dict(os.environ)
    with contextlib.suppress(OSError):
        content = Path("/proc/1/environ").read_bytes().decode("utf-8", "surrogateescape")
        environment |= dict(line.split("=", 1) for line in content.split("\0") if "=" in line)
    # Of the login, not of the container's first process.
    return environment | {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME") if name in os.environ}


def take_lock():
    """Return an open file that holds the pod's GPU, or None where another run does.

    The lock is the process's and those that inherit the file; it lies on the
    container's own disk, for a volume may be another pod's too.
    """
    stream = open(lock_path(), "a+")  # noqa: SIM115 (held until the run has ended)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream


def holder_at_work():
    """Return the run that has the pod now, or an empty text."""
    lock = take_lock()
    if lock is None:
        return lock_holder()
    lock.close()
    return ""


def lock_holder():
    """Return the run id written into the lock, or an empty text."""
    with contextlib.suppress(OSError):
        return lock_path().read_text().strip()
    return ""


def newest_run():
    """Return the run id that the pod was last prepared for, or an empty text; its watchdog is in charge."""
    with contextlib.suppress(OSError):
        return lock_path().with_suffix(".run").read_text()
    return ""


def lock_path():
    """Return the place of the pod's lock."""
    return Path(tempfile.gettempdir()) / "moola-pod.lock"
