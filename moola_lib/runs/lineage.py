"""Which runs stand behind a model: what the records of its notebooks say, without paths of this machine."""

import datetime
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import fingerprint
from moola_lib.runs.parameters_check import load_model
from moola_lib.runs.project import artifacts_folder
from moola_lib.runs.record import list_runs, notebook_record

BARS, LABELS, PRETRAINING, FINE_TUNING = (
    "01_feature_validation",
    "02_label_generation",
    "03_pretraining",
    "04_fine_tuning",
)
VERSIONS = ("python", "moola", "torch")


def snapshots_folder(root):
    """Return the folder of the label tables that models were trained on."""
    return root / "data" / "labels" / "snapshots"


def require_record(root, run_id, stem):
    """Return the record of a finished notebook of a run.

    Raises
    ------
    UserError
        There is no such run, or that notebook of it has not finished.
    """
    record = notebook_record(root, run_id, stem)
    if record is not None:
        return record
    known = sorted({path.parent.parent.name for path in (root / "data" / "artifacts").glob(f"*/{stem}/record.json")})
    known = ", ".join(run for run in known if notebook_record(root, run, stem) is not None) or "none"
    statuses = {each["run_id"]: each["notebooks"].get(stem, {}).get("status") for each in list_runs(root)[0]}
    if run_id in statuses or (root / "data" / "artifacts" / run_id).is_dir():
        status = statuses.get(run_id)
        told = f"its status is {status}" if status and status != "finished" else "it has not run to its end"
        raise UserError(f"run {run_id} has no finished {stem} ({told}); runs that have one: {known}")
    raise UserError(f"there is no run {run_id!r}; runs with a finished {stem}: {known}")


def trace_steps(root, record):
    """Return what a notebook and those it was built on were, newest first.

    Parameters
    ----------
    root : Path
    record : dict
        Of the last notebook.

    Returns
    -------
    list of dict
        `notebook`, `run_id`, `finished_at`, `git`, `parameters` (those that are
        not defaults; of a path the file's name) and `data`. A notebook that was
        run again after the last one began, or whose record is gone, has only
        the first two and `unknown`, the reason.
    """
    steps = [_describe_step(record)]
    for stem in sorted(record.get("upstream_runs", {}), reverse=True):
        run_id = record["upstream_runs"][stem]
        own, here = notebook_record(root, run_id, stem), {"notebook": stem, "run_id": run_id}
        if own is None:
            steps.append(here | {"unknown": "its record was gone when the model was promoted"})
        elif own.get("finished_at", "") > record.get("started_at", ""):
            steps.append(here | {"unknown": "it was run again before the model was promoted"})
        else:
            steps.append(_describe_step(own))
    return steps


def find_step(steps, stem):
    """Return the step of a notebook, or an empty dict."""
    return next((step for step in steps if step["notebook"] == stem), {})


def step_status(root, step):
    """Say in a few words what became of a step on this machine; empty where it is there as it was."""
    if "unknown" in step:
        return step["unknown"]
    record = notebook_record(root, step["run_id"], step["notebook"])
    if record is None:
        return "missing on this machine"
    if record.get("finished_at") != step["finished_at"]:
        return f"run again since, on {str(record.get('finished_at'))[:10]}"
    return ""


def portable_path(path, root):
    """Return a path that means the same file elsewhere: relative to the project, or below `~`; else None."""
    path, home = Path(path), Path.home()
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else None


def local_path(text, root):
    """Return where a portable path leads on this machine."""
    return Path(text).expanduser() if text.startswith("~/") else root / text


def labels_path(root, run_id):
    """Return, as a portable path, the file whose edits count as edits of a run's labels; None outside the project."""
    record = notebook_record(root, run_id, LABELS) or {}
    given = (record.get("parameters") or {}).get("labels")
    return portable_path(given or artifacts_folder(root, run_id, LABELS) / "labels.parquet", root)


def describe_raw(root, step):
    """Return `name` and `fingerprint` of the file that a run's bars were read from; None where they were simulated.

    The notebook records the fingerprint; of a run that did not, the file's own is
    taken if it has not been written since.
    """
    if not step or "unknown" in step:
        return None
    record = notebook_record(root, step["run_id"], BARS)
    given = record["parameters"].get("bars")
    if given is None:
        return None
    path, known = Path(given), record["data"].get("raw_fingerprint")
    if known is None and path.is_file() and path.stat().st_mtime < _seconds(record["started_at"]):
        known = fingerprint(path)
    return {"name": path.name, "fingerprint": known}


def has_raw(root, step):
    """Tell whether the file that a run's bars were read from is where that run read it."""
    record = notebook_record(root, step["run_id"], step["notebook"]) or {}
    given = (record.get("parameters") or {}).get("bars")
    return given is not None and Path(given).exists()


def _seconds(stamp):
    """Return an ISO stamp as seconds since 1970."""
    return datetime.datetime.fromisoformat(stamp).timestamp()


def _describe_step(record):
    """Return what a card says of a notebook's run."""
    return {
        "notebook": record["stem"],
        "run_id": record["run_id"],
        "finished_at": record.get("finished_at"),
        "git": record.get("git") or {"commit": None, "is_dirty": None},
        "parameters": changed_parameters(record["stem"], record.get("parameters") or {}),
        "data": record.get("data") or {},
    }


def changed_parameters(stem, parameters):
    """Return the parameters that are not defaults, of a path the file's name."""
    from moola_lib.runs.parameters import PARAMETERS

    known = load_model(stem, PARAMETERS).model_fields
    changed = {}
    for name, value in parameters.items():
        default = known[name].default if name in known else None
        if isinstance(default, tuple):
            default = list(default)
        if value != default:
            is_path = name in known and (known[name].json_schema_extra or {}).get("path")
            changed[name] = _file_names(value) if is_path else value
    return changed


def _file_names(value):
    """Return a path's last part, or those of several paths."""
    return [Path(each).name for each in value] if isinstance(value, list) else Path(value).name
