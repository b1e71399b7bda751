"""`run.json`: what a run was, what it was run with, and how it ended."""

import contextlib
import datetime
import fcntl
import importlib.metadata
import itertools
import platform
import subprocess
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import read_json, write_json
from moola_lib.runs.processes import is_alive
from moola_lib.runs.project import RESERVED_RUN_IDS, artifacts_folder, reports_folder

# What a run ends with; a shell reports 137 where the runner itself was killed.
FINISHED, FAILED, BAD_INPUT, GATE_FAILED, KEY_FOUND = 0, 1, 2, 3, 4
INTERRUPTED, RUNNER_KILLED, KERNEL_KILLED = 130, 137, 138

# What a record holds, by name, and of what type. The second kind an older version did not write yet.
_NEEDED = {"run_id": str, "status": str, "started_at": str, "stems": list, "notebooks": dict}
_ADDED = {
    "profile": str, "seconds": float, "parameters": dict, "given_parameters": dict, "timings": dict, "data": dict,
    "gates": list, "artifacts": list, "inputs": dict, "sources": dict, "upstreams": dict, "withheld": dict,
    "pages": dict, "git": dict, "versions": dict,
}  # fmt: skip
_MAY_BE_NULL = ("data", "upstreams", "git", "versions")

# The packages whose version can change a number or a page of a report.
KEY_PACKAGES = (
    "numpy", "pandas", "pyarrow", "numba", "torch", "safetensors",
    "plotly", "pydantic", "papermill", "nbclient", "nbconvert", "ipykernel",
)  # fmt: skip

GIT_STATE = ".git-state.json"  # in the root of a copy without git: what it was copied from


def utc_now():
    """Return the current time as text: UTC, to the second, ISO 8601 with a `Z`."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def default_run_id(root, profile):
    """Return a new run id from the UTC time and the profile: `20261120-031500-quick`, numbered within a second."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    numbered = (f"{stamp}-{profile}-{number}" for number in itertools.count(2))
    names = itertools.chain([f"{stamp}-{profile}"], numbered)
    return next(name for name in names if not reports_folder(root, name).exists())


def package_versions():
    """Return the versions of Python, the platform and the key packages installed."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("moola", *KEY_PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def git_state(root):
    """Return `{"commit": str, "is_dirty": bool}` of `root`, or nulls outside git.

    A copy that was sent to a pod has no git; it says in a file what it was copied from.
    """
    if (root / GIT_STATE).exists():
        return read_json(root / GIT_STATE)

    def ask(*words):
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        return {"commit": commit, "is_dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "is_dirty": None}


def new_record(run_id):
    """Return the record of a run that begins now."""
    return {
        "run_id": run_id, "started_at": utc_now(), "stems": [], "notebooks": {}, "seed": None,
        **{name: default() for name, default in _ADDED.items()},
    }  # fmt: skip


def write_run(root, record):
    """Write a run's record to `reports/<run_id>/run.json`, atomically."""
    write_json(reports_folder(root, record["run_id"]) / "run.json", record)


def read_run(root, run_id):
    """Read a run's record; one that says `running` while its process is gone says `lost` here.

    Every entry is there: what an older version did not write yet is empty.

    Raises
    ------
    UserError
        There is no such run, or its record is damaged, of another shape, or
        another run's.
    """
    path = reports_folder(root, run_id) / "run.json"
    if not path.exists():
        newest = ", ".join(record["run_id"] for record in list_runs(root)[0][:8]) or "none"
        raise UserError(f"there is no run {run_id!r} (newest: {newest}); `moola index` lists them all")
    record = read_json(path)
    wrong = _find_wrong_entry(record)
    if wrong:
        raise UserError(f"{path} is not the record of a run: {wrong}; put a good copy back, or remove the folder")
    if record["run_id"] != run_id:
        raise UserError(f"{path} is the record of run {record['run_id']!r}; give its folder that name again")
    record = {**{name: default() for name, default in _ADDED.items()}, **record}
    if record["status"] == "running" and not _is_running(record, path.parent):
        _settle_lost(record)
    return record


def list_runs(root):
    """Return every run's record, newest first, and one sentence per damaged one."""
    records, damaged = [], []
    for path in sorted((root / "reports").glob("*/run.json")):
        try:
            records.append(read_run(root, path.parent.name))
        except UserError as error:
            damaged.append(str(error))
    for folder in sorted((root / "reports").glob("*/")):
        has_pages = any(folder.glob("[0-9][0-9]_*.ipynb")) or any(folder.glob("[0-9][0-9]_*.html"))
        if has_pages and folder.name not in RESERVED_RUN_IDS and not (folder / "run.json").exists():
            damaged.append(f"{folder} has pages of a run, and no run.json")
    return sorted(records, key=lambda r: r["started_at"], reverse=True), damaged


def exit_code(record, *, is_strict=False):
    """Return the code that a run of this record ends with; None while it runs."""
    status, error = record["status"], record.get("error")
    if status == "running":
        return None
    if status == "interrupted":
        return INTERRUPTED
    if status == "lost":
        return RUNNER_KILLED
    if error is not None:
        return {"UserError": BAD_INPUT, "KeyFound": KEY_FOUND, "DeadKernelError": KERNEL_KILLED}.get(
            error["ename"], FAILED
        )
    has_failed_gate = any(gate.get("verdict") == "FAIL" for gate in record.get("gates") or [])
    return GATE_FAILED if is_strict and has_failed_gate else FINISHED


def _find_wrong_entry(record):
    """Say what of a record is not as `write_run` writes it; empty where all is."""
    if not isinstance(record, dict):
        return "it is no JSON object"
    for name, kind in {**_NEEDED, **_ADDED}.items():
        value = record.get(name)
        if name not in record and name in _ADDED:
            continue
        if value is None and name in _MAY_BE_NULL:
            record[name] = kind()
        elif not isinstance(value, (int, float) if kind is float else kind):
            return f"{name} is {type(value).__name__}" if name in record else f"it has no {name}"
    try:
        if datetime.datetime.fromisoformat(record["started_at"]).tzinfo is None:
            return "started_at has no zone"
    except ValueError:
        return f"started_at is {record['started_at']!r}"
    for stem in record["stems"]:
        entry = record["notebooks"].get(stem) if isinstance(stem, str) else None
        if not isinstance(entry, dict) or not isinstance(entry.get("status"), str):
            return f"notebook {stem} has no status"
    if not all(isinstance(gate, dict) and {"name", "notebook"} <= gate.keys() for gate in record.get("gates", [])):
        return "a gate has no name or notebook"
    error = record.get("error")
    if error is not None and not (isinstance(error, dict) and {"ename", "message", "stem"} <= error.keys()):
        return "error has no ename, message or stem"
    return ""


def _is_running(record, folder):
    """Tell whether the process that wrote a record still runs; the lock decides about another host's."""
    process = record.get("process")
    if isinstance(process, dict) and isinstance(process.get("pid"), int):
        alive = is_alive(process)
        if alive is not None:
            return alive
    return is_held(folder)


def _settle_lost(record):
    """Say in a record that its process is gone, and where it was."""
    process = record.get("process")
    process = process if isinstance(process, dict) else {}
    who = f"process {process.get('pid')} on {process.get('host')}" if process else "its process"
    stems = []
    for stem, entry in record["notebooks"].items():
        if isinstance(entry, dict) and entry.get("status") == "running":
            entry["status"] = "lost"
            stems.append(stem)
    where = f" in {stems[0]}" if stems else ""
    message = (
        f"{who} is gone without a word{where} (killed, out of memory, or the machine stopped); "
        f"continue with `moola run --resume --run-id {record['run_id']}`"
    )
    error = {"stem": stems[0] if stems else None, "ename": "Lost", "evalue": message, "message": message}
    record.update(status="lost", error=error, exit_code=RUNNER_KILLED)


def is_held(folder):
    """Return whether a living process holds the lock of `folder`."""
    try:
        with open(Path(folder) / ".lock", "rb") as stream:  # as filelock holds it; a read-only folder can be asked too
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or none that can be asked
        return False
    return False


def say_source(data):
    """Return whether the bars of a run's `data` are "simulated" or "real"; "not recorded" where that is not said."""
    return {True: "simulated", False: "real"}.get(data.get("is_simulated"), "not recorded")


def notebook_record(root, run_id, stem):
    """Return the `record.json` a notebook left, or None if it did not finish."""
    try:
        record = read_json(artifacts_folder(root, run_id, stem) / "record.json")
    except UserError:
        return None
    is_finished = isinstance(record, dict) and record.get("status") == "finished"
    return record if is_finished else None


def add_notebook_records(root, record):
    """Fill a run's `data`, `seed`, `gates`, `artifacts` from its finished notebooks."""
    record.update(data={}, seed=None, gates=[], artifacts=[])
    for stem in record["stems"]:
        if record["notebooks"][stem]["status"] != "finished":
            continue
        own = notebook_record(root, record["run_id"], stem)
        if own is None:
            continue  # a notebook that keeps no record is still a finished notebook
        record["data"].update(own.get("data") or {})
        record["seed"] = own.get("seed") if record["seed"] is None else record["seed"]
        record["gates"] += [{"notebook": stem, **gate} for gate in own.get("gates") or []]
        folder = artifacts_folder(root, record["run_id"], stem).relative_to(root)
        record["artifacts"] += [{**item, "path": str(folder / item["path"])} for item in own.get("artifacts") or []]
