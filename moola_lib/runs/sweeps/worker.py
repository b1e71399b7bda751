"""What runs on a worker: one run of a sweep, which may be a lost one's continuation."""

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.runs.index import stop_reason
from moola_lib.runs.project import reports_folder
from moola_lib.runs.record import is_held, read_run

SECONDS_BETWEEN_LOOKS = 0.5


def dask_setup(worker):
    """Leave signals to whoever began the sweep (Dask calls this when a worker starts)."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # a function, not SIG_IGN: that one the kernels would inherit
        signal.signal(number, lambda number, frame: None)


def see_file(path):
    """Tell whether this worker sees a file that the client has just written."""
    return Path(path).exists()


def execute_run(job):
    """Run a notebook as one run of a sweep; a lost run of the same id is continued.

    Parameters
    ----------
    job : dict
        `root`, `run_id`, `stem`, `given`, `resolved`, `upstreams`, `profile`,
        and `stop`: a file whose appearance ends the run as Ctrl-C would.

    Returns
    -------
    dict
        `run_id`, `status`, `reason` (a line; empty where it finished), `seconds`,
        `worker` (host and process), and `found`: the status of the run as it was
        found, or null.

    Raises
    ------
    UserError
        The folders cannot be written.
    """
    root, stop = Path(job["root"]), Path(job["stop"])
    folder = reports_folder(root, job["run_id"])
    # Held by a worker that the scheduler has lost sight of: it may still finish.
    while is_held(folder) and not stop.exists():
        time.sleep(SECONDS_BETWEEN_LOOKS)
    found = _read_status(root, job["run_id"])
    record = read_run(root, job["run_id"]) if found == "finished" else _run_notebook(job, root, stop)
    if _never_began(record, job["stem"]):  # two kernels may have been given the same port
        record = _run_notebook(job, root, stop)
    return {
        "run_id": job["run_id"],
        "status": record["status"],
        "reason": stop_reason(record),
        "seconds": record["seconds"],
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "found": found,
    }


def _run_notebook(job, root, stop):
    """Run the notebook through the engine, which writes the record; return that."""
    from moola_lib.runs.engine import run_notebooks

    def end_between_cells(event):
        if event["kind"] in ("started", "cell") and stop.exists():
            raise KeyboardInterrupt

    with _interrupt_kernel(stop, root, job["run_id"], job["stem"]):
        return run_notebooks(
            [job["stem"]],
            {job["stem"]: job["given"]},
            root=root,
            run_id=job["run_id"],
            profile=job["profile"],
            resume=_read_status(root, job["run_id"]) is not None,
            on_event=end_between_cells,
            resolved_by_stem={job["stem"]: job["resolved"]},
            upstreams_by_stem={job["stem"]: job["upstreams"]},
        ).record


@contextlib.contextmanager
def _interrupt_kernel(stop, root, run_id, stem):
    """Interrupt the cell that is running, once, when the file `stop` appears: it cleans up after itself."""
    is_over = threading.Event()

    def watch():
        while not is_over.wait(SECONDS_BETWEEN_LOOKS):
            if stop.exists():
                with contextlib.suppress(UserError, KeyError, TypeError, ProcessLookupError):
                    entry = read_run(root, run_id)["notebooks"][stem]
                    if entry["cell"]:  # before its first cell a kernel would not survive it
                        os.kill(entry["kernel"]["pid"], signal.SIGINT)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _read_status(root, run_id):
    """Return the status in a run's record; None where there is none."""
    if not (reports_folder(root, run_id) / "run.json").exists():
        return None
    return read_run(root, run_id)["status"]


def _never_began(record, stem):
    """Tell whether the kernel died before its first cell."""
    error = record.get("error") or {}
    return error.get("ename") == "DeadKernelError" and not record["notebooks"][stem].get("cell")
