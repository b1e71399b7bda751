"""`moola status`: how far a run is, read from what it writes, from any terminal."""

import json
import subprocess

from moola_lib.errors import UserError, one_line
from moola_lib.runs.notebook import epoch_line, format_seconds
from moola_lib.runs.processes import is_alive, measure_memory
from moola_lib.runs.project import artifacts_folder, check_run_id
from moola_lib.runs.record import list_runs, read_run
from moola_lib.runs.rows import parse_rows

TAIL_BYTES = 1 << 16


def run_status(root, run_id=None):
    """Return how far a run is.

    Parameters
    ----------
    root : Path
    run_id : str, optional
        Default the newest that runs, else the newest.

    Returns
    -------
    dict
        `run_id`, `status`, `exit_code` (null while it runs), `process`,
        `notebooks` (of each: `stem`, `status`, `cell`, `n_cells`, `seconds`),
        `training` (the newest row of the notebook at work, or null: `epoch`,
        `n_epochs`, losses, `windows_per_second`, `seconds_left`), `memory_mb`,
        `gpu_memory_mb` (null where they cannot be seen), `error` (a sentence or null).

    Raises
    ------
    UserError
        There is no such run, or its record is damaged.
    """
    record = read_run(root, check_run_id(run_id)) if run_id else _newest(root)
    notebooks = [_notebook_status(stem, record["notebooks"].get(stem, {})) for stem in record["stems"]]
    at_work = next((each["stem"] for each in notebooks if each["status"] == "running"), None)
    kernel = record["notebooks"].get(at_work, {}).get("kernel")
    is_visible = bool(kernel) and bool(is_alive(kernel))
    error = record.get("error")
    return {
        "run_id": record["run_id"],
        "status": record["status"],
        "exit_code": record.get("exit_code"),
        "process": record.get("process"),
        "started_at": record["started_at"],
        "notebooks": notebooks,
        "training": _last_row(artifacts_folder(root, record["run_id"], at_work) / "metrics.jsonl") if at_work else None,
        "memory_mb": round(measure_memory(kernel["pid"]) / 1e6) if is_visible else None,
        "gpu_memory_mb": _gpu_memory_mb(kernel["pid"]) if is_visible else None,
        "error": error["message"] if error else None,
    }


def print_status(root, run_id=None, *, is_json=False):
    """Print how far a run is, as lines or as one JSON object; return 0."""
    status = run_status(root, run_id)
    if is_json:
        print(json.dumps(status, indent=1))
        return 0
    process = status["process"] or {}
    who = f", process {process.get('pid')} on {process.get('host')}" if status["status"] == "running" else ""
    print(f"{status['run_id']}: {status['status']}{who}")
    for number, each in enumerate(status["notebooks"], 1):
        facts = [each["status"]]
        if each["status"] == "running" and each["cell"]:
            facts.append(f"cell {each['cell']}/{each['n_cells']}")
        if each["seconds"] is not None:
            facts.append(f"in {format_seconds(each['seconds'])}")
        print(f"  {number}/{len(status['notebooks'])} {each['stem']}  {'  '.join(facts)}")
    if status["training"]:
        print(f"  {epoch_line(status['training'])}")
    memory = [
        f"{name} {status[key] / 1e3:.1f} GB"
        for name, key in (("memory", "memory_mb"), ("GPU memory", "gpu_memory_mb"))
        if status[key] is not None
    ]
    if memory:
        print(f"  {', '.join(memory)}")
    if status["error"]:
        print(f"  {one_line(status['error'])}")
    return 0


def _newest(root):
    records, _ = list_runs(root)
    if not records:
        raise UserError(f"there are no runs in {root / 'reports'}; start one with `moola run`")
    return next((record for record in records if record["status"] == "running"), records[0])


def _notebook_status(stem, entry):
    facts = {key: entry.get(key) for key in ("cell", "n_cells", "seconds")}
    if entry.get("status") == "running":
        facts["seconds"] = None  # of an attempt before this one
    return {"stem": stem, "status": entry.get("status", "not run"), **facts}


def _last_row(path):
    """Return the last whole row with an epoch at the end of a JSON-lines file, or None."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(path.stat().st_size - TAIL_BYTES, 0))
            whole = stream.read().rpartition(b"\n")[0]  # what follows the last line's end is half a line
    except OSError:
        return None
    return next((row for row in reversed(parse_rows(whole)) if "epoch" in row), None)


def _gpu_memory_mb(pid):
    """Return the GPU memory of a process and those it started, or None without a GPU."""
    import psutil

    words = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        table = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout
        pids = {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except (OSError, subprocess.SubprocessError, psutil.Error):
        return None
    used = [line.split(",") for line in table.splitlines() if "," in line]
    return sum(int(mb) for each, mb in used if int(each) in pids and mb.strip().isdigit()) or None
