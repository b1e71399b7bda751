"""What became of every run of a sweep, on disk after each change: `reports/sweeps/NAME/sweep.json`."""

from moola_lib.errors import UserError
from moola_lib.files import read_json, write_json
from moola_lib.runs.processes import describe_process
from moola_lib.runs.project import reports_folder
from moola_lib.runs.record import read_run, utc_now

STATE = "sweep.json"
N_TRIES = 3
WAITING, RUNNING, FINISHED, FAILED, INTERRUPTED = "waiting", "running", "finished", "failed", "interrupted"


class Ledger:
    """The state of a sweep.

    Parameters
    ----------
    sweep : Sweep
    root, folder : Path
        The project's, and the sweep's.

    Attributes
    ----------
    state : dict
        As on disk: what was asked for, `status`, and `runs`: by run id `arm`,
        `seed`, `status` (waiting, running, finished, failed, interrupted),
        `n_tries` (that failed), `n_lost` (workers lost under it), `reason`,
        `worker`, `seconds`.
    """

    def __init__(self, sweep, root, folder):
        self._root, self._path = root, folder / STATE
        before = read_state(folder) or {}
        self._known = before.get("runs", {})
        self.state = {
            "name": sweep.name,
            "file": sweep.path,
            "notebook": sweep.stem,
            "profile": sweep.profile,
            "metric": sweep.metric,
            "is_higher_better": sweep.is_higher_better,
            "varied": sweep.varied,
            "fixed": sweep.fixed,
            "upstreams": before.get("upstreams", {}),
            "started_at": before.get("started_at") or utc_now(),
            "finished_at": None,
            "status": RUNNING,
            "process": describe_process(),
            "runs": {},
        }

    def take_up(self, run, *, is_retrying=False):
        """Enter a planned run as its record and the last start have it; return its status.

        Parameters
        ----------
        run : PlannedRun
        is_retrying : bool
            Forget that it failed.
        """
        entry = {"n_tries": 0, "n_lost": 0, "reason": "", "worker": None, "seconds": None}
        entry |= {"arm": run.arm, "seed": run.seed, "status": WAITING}
        known = self._known.get(run.run_id, {})
        entry |= {name: known[name] for name in ("n_tries", "n_lost", "reason", "worker") if name in known}
        record = _read_record(self._root, run.run_id)
        if record is not None and record["status"] == FINISHED:
            entry |= {"status": FINISHED, "reason": "", "seconds": record["seconds"]}
        elif is_retrying:
            entry |= {"n_tries": 0, "reason": ""}
        elif entry["n_tries"] >= N_TRIES:
            entry["status"] = FAILED
        self.state["runs"][run.run_id] = entry
        return entry["status"]

    def begin(self, run_id):
        """Enter that a run was given to a worker."""
        self.state["runs"][run_id]["status"] = RUNNING
        self.save()

    def end(self, run_id, result):
        """Enter how a run ended, from `worker.execute_run`; return its status, waiting where it is tried again."""
        entry = self.state["runs"][run_id]
        entry |= {"worker": result["worker"], "seconds": result["seconds"], "reason": result["reason"]}
        entry["n_lost"] += result["found"] == "lost"
        if result["status"] == FINISHED:
            entry["status"] = FINISHED
            self.save()
            return FINISHED
        return self.fail(run_id, result["reason"])

    def fail(self, run_id, reason, *, n_tries=1):
        """Enter a try that failed; return failed after the third, else waiting."""
        entry = self.state["runs"][run_id]
        entry["n_tries"] = min(entry["n_tries"] + n_tries, N_TRIES)
        entry["reason"] = reason
        entry["status"] = FAILED if entry["n_tries"] >= N_TRIES else WAITING
        self.save()
        return entry["status"]

    def put_back(self, run_id):
        """Enter that a run is to begin again, through no fault of its own; return its status."""
        self.state["runs"][run_id]["status"] = WAITING
        self.save()
        return WAITING

    def interrupt(self, run_id, result=None):
        """Enter that a run was stopped from here; it counts as no try."""
        entry = self.state["runs"][run_id]
        entry["status"] = FINISHED if result and result["status"] == FINISHED else INTERRUPTED
        entry["seconds"] = result["seconds"] if result else None
        self.save()

    def close(self, status):
        """Enter how this start of the sweep ended."""
        self.state |= {"status": status, "finished_at": utc_now(), "process": None}
        self.save()

    def count(self, *statuses):
        """Return how many runs have one of these statuses."""
        return sum(entry["status"] in statuses for entry in self.state["runs"].values())

    def save(self):
        """Write the state, whole."""
        write_json(self._path, self.state)


def read_state(folder):
    """Return a sweep's state as `Ledger.state` describes it; None where there is none yet.

    Raises
    ------
    UserError
        It is damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    state = read_json(path)
    if not isinstance(state, dict) or not isinstance(state.get("runs"), dict):
        raise UserError(f"{path} is not the state of a sweep; remove it, and finished runs will be recognised again")
    return state


def _read_record(root, run_id):
    """Return a run's record, or None where there is none."""
    return read_run(root, run_id) if (reports_folder(root, run_id) / "run.json").exists() else None
