"""The notebook's side of a run: checked parameters, folders, upstream, progress, record."""

import ast
import json
import os
import resource
import shutil
import sys
import time

from moola_lib.errors import UserError
from moola_lib.files import plain, write_json
from moola_lib.runs import record as records
from moola_lib.runs.parameters_check import check_parameters, load_model, nearest_name
from moola_lib.runs.project import artifacts_folder, find_root

PARAMETERS_SOURCE = "the notebook's parameters cell"
SECONDS_BETWEEN_LINES = 10
EPOCH_LOSSES = ("loss", "val_loss", "train_loss", "validation_loss", "train_huber", "validation_huber")


def start_notebook(stem, namespace, model=None):
    """Open a notebook's run: check its parameters, make its folder.

    Parameters
    ----------
    stem : str
        `"03_pretraining"`.
    namespace : dict
        The notebook's `globals()`, after its parameters cell.
    model : type, optional
        The pydantic model of the parameters; default the stem's entry in
        `moola_lib.runs.parameters.PARAMETERS`.

    Returns
    -------
    NotebookRun

    Raises
    ------
    UserError
        A parameter is missing, unknown, of the wrong type or out of range.

    Notes
    -----
    The run id is the engine's (`MOOLA_RUN_ID`), else `manual`. A `manual`
    predecessor is moved to `data/artifacts/backups/manual-<UTC stamp>/<stem>`.
    """
    if model is None:
        from moola_lib.runs.parameters import PARAMETERS

        model = load_model(stem, PARAMETERS)
    _refuse_unknown_names(namespace, model)
    missing = [name for name in model.model_fields if name not in namespace]
    if missing:
        raise UserError(f"{PARAMETERS_SOURCE}: {', '.join(missing)} is missing")
    values = {name: namespace[name] for name in model.model_fields}
    parameters = check_parameters(model, values, PARAMETERS_SOURCE)

    root = find_root()
    run_id = os.environ.get("MOOLA_RUN_ID") or "manual"
    folder = artifacts_folder(root, run_id, stem)
    _make_folder(root, folder, run_id, stem)
    return NotebookRun(stem, run_id, root, folder, parameters)


class NotebookRun:
    """One notebook of one run.

    Attributes
    ----------
    stem, run_id : str
    root, folder : Path
        The project's root, and the artifacts folder of this run and notebook.
    parameters : pydantic model
        Checked.
    is_headless, is_resumed : bool
        Run by the engine; continuing an interrupted run.
    upstream_runs : dict of str to str
        Stem to run id, as found by `upstream`.
    """

    def __init__(self, stem, run_id, root, folder, parameters):
        self.stem, self.run_id, self.root = stem, run_id, root
        self.folder, self.parameters = folder, parameters
        self.upstream_runs = {}
        self.is_headless = bool(os.environ.get("MOOLA_RUN_ID"))
        self.is_resumed = os.environ.get("MOOLA_RESUME") == "1"
        self._started = time.monotonic()
        self._started_at = records.utc_now()
        self._first_epochs = {}  # label -> (time and number of its first epoch)
        self._last_row_time = self._started
        self._last_print_time = self._started
        self._last_label = None

    def upstream(self, stem):
        """Return the artifacts folder of notebook `stem` that this run builds on.

        In this order: this same run; the run named by the `upstream_run`
        parameter, or the one that run itself built on; the run an upstream
        found earlier built on, so that one lineage is used throughout; the
        newest finished run. By hand (run id `manual`), a given `upstream_run`
        comes before the manual run.

        Raises
        ------
        UserError
            Nothing found, naming the notebook to run; or `upstream_run` lacks it.
        """
        if stem not in self.upstream_runs:
            self.upstream_runs[stem] = self._find_upstream(stem)
        return artifacts_folder(self.root, self.upstream_runs[stem], stem)

    def log_metrics(self, **row):
        """Append one row to `metrics.jsonl` in the run's folder, at once."""
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain(row), allow_nan=False) + "\n")

    def progress(self, row):
        """Record and show one epoch; training loops take this as `on_epoch`.

        Parameters
        ----------
        row : dict
            `epoch` (from 1), `n_epochs`, and what was measured: `loss`,
            `val_loss`, `windows_per_second`, … `label` tells several trainings
            of one notebook apart. `seconds_left` is added.
        """
        now = time.monotonic()
        label = row.get("label", "")
        row = dict(row)
        if row.get("n_epochs") and row.get("epoch"):
            first_time, first = self._first_epochs.setdefault(label, (now, row["epoch"]))
            pace = now - self._last_row_time  # before a second epoch: the time since anything
            if row["epoch"] > first:
                pace = (now - first_time) / (row["epoch"] - first)
            row["seconds_left"] = round((row["n_epochs"] - row["epoch"]) * pace, 1)
        self._last_row_time = now
        self.log_metrics(**row)
        if self.is_headless:
            # metrics.jsonl has every epoch; the log and the report get one line now and then
            is_last = row.get("epoch") is None or row["epoch"] == row.get("n_epochs")
            if is_last or now - self._last_print_time >= SECONDS_BETWEEN_LINES:
                self._last_print_time = now
                print(epoch_line(row), flush=True)
            return
        # By hand one line is enough: a carriage return rewrites it, a new label starts a new one.
        is_new_line = self._last_label not in (None, label)
        print(("\n" if is_new_line else "\r") + epoch_line(row).ljust(100), end="", flush=True)
        self._last_label = label

    def finish(self, gates, findings, data, **extra):
        """Write the notebook's `record.json` and return it in short.

        Parameters
        ----------
        gates : list of dict
            Keys `name`, `kind`, `value`, `low`, `high`, `target`, `baseline`, `verdict`.
        findings : list of str
        data : dict
            What the numbers rest on: `fingerprint`, `is_simulated`, label source, …
        **extra
            Further entries of the record, `device` for one.

        Returns
        -------
        pandas.DataFrame, columns `entry`, `value`
        """
        parameters = self.parameters.model_dump(mode="json")
        record = {
            "device": parameters.get("device"),
            **extra,
            "stem": self.stem,
            "run_id": self.run_id,
            "status": "finished",
            "started_at": self._started_at,
            "finished_at": records.utc_now(),
            "parameters": parameters,
            "upstream_runs": self.upstream_runs,
            "seed": parameters.get("seed"),
            "data": data,
            "gates": gates,
            "findings": findings,
            "artifacts": _list_files(self.folder),
            "timings": {"seconds": round(time.monotonic() - self._started, 2)},
            "versions": records.package_versions(),
            "peak_memory_mb": round(_peak_memory_mb()),
        }
        write_json(self.folder / "record.json", record)
        return _in_short(plain(record))

    def _find_upstream(self, stem):
        root, given = self.root, getattr(self.parameters, "upstream_run", None)

        def has(run_id):
            return records.notebook_record(root, run_id, stem) is not None

        is_overridden = self.run_id == "manual" and given
        if has(self.run_id) and not is_overridden:
            return self.run_id
        if given:
            for run_id in (given, *_built_on(root, given, stem)):
                if has(run_id):
                    return run_id
            raise UserError(
                f"upstream_run {given!r} has no finished {stem}, which {self.stem} needs; "
                f"run `moola run {stem} --run-id {given} --resume` or name another run"
            )
        for other, run_id in self.upstream_runs.items():
            taken = (records.notebook_record(root, run_id, other) or {}).get("upstream_runs", {})
            if stem in taken and has(taken[stem]):
                return taken[stem]
        finished = {}
        for path in (root / "data" / "artifacts").glob(f"*/{stem}/record.json"):
            run_id = path.parent.parent.name
            record = records.notebook_record(root, run_id, stem)
            if record is not None:
                finished[run_id] = record
        if not finished:
            raise UserError(f"{self.stem} needs the artifacts of {stem}; run `moola run {stem}` first")
        # An upstream built on another run than one already chosen would mix two lineages.
        fitting = {
            run_id: record
            for run_id, record in finished.items()
            if all(
                self.upstream_runs.get(other, taken) == taken
                for other, taken in record.get("upstream_runs", {}).items()
            )
        }
        if not fitting:
            chosen = ", ".join(f"{s} of run {r}" for s, r in self.upstream_runs.items())
            raise UserError(
                f"no finished {stem} was built on {chosen}; run `moola run {stem}` first, "
                "or name the run to build on with upstream_run"
            )
        return max(fitting, key=lambda run_id: fitting[run_id].get("finished_at", ""))


def epoch_line(row):
    """Return one epoch's row as one plain line of text."""
    parts = [str(row["label"])] if row.get("label") else []
    if "epoch" in row:
        total = f"/{row['n_epochs']}" if row.get("n_epochs") else ""
        parts.append(f"epoch {row['epoch']}{total}")
    for key, value in row.items():
        if key in EPOCH_LOSSES and isinstance(value, (int, float)):
            parts.append(f"{key.replace('_', ' ')} {value:.4g}")
    if isinstance(row.get("windows_per_second"), (int, float)):
        parts.append(f"{row['windows_per_second']:,.0f} windows/s")
    if row.get("seconds_left") is not None:
        parts.append(f"{format_seconds(row['seconds_left'])} left")
    return "  ".join(parts)


def format_seconds(seconds):
    """Return a duration as `m:ss` or `h:mm:ss`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _refuse_unknown_names(namespace, model):
    """Refuse a name that papermill's injected cell assigns and the model lacks.

    Papermill warns in its log and goes on; the notebook would then run with
    the default while its reader believes otherwise.
    """
    for source in namespace.get("In", []):
        if not str(source).startswith("# Parameters"):
            continue
        for node in ast.walk(ast.parse(source)):
            is_name = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            if is_name and node.id not in model.model_fields:
                nearest = nearest_name(node.id, model.model_fields)
                raise UserError(f"{PARAMETERS_SOURCE}: {node.id!r} is not a parameter{nearest}")


def _make_folder(root, folder, run_id, stem):
    """Make the notebook's folder: empty, unless the engine resumes a run."""
    try:
        if run_id == "manual" and folder.exists():
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            backup = root / "data" / "artifacts" / "backups" / f"manual-{stamp}" / stem
            while backup.exists():  # two starts within one second
                backup = backup.parent.with_name(backup.parent.name + "b") / stem
            backup.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, backup)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and os.environ.get("MOOLA_RESUME") != "1":
            raise UserError(f"{folder} is not empty; use another run id, or --resume")
        (folder / "record.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error


def _built_on(root, run_id, stem):
    """Yield the runs that `run_id`'s notebooks took `stem` from."""
    for path in sorted((root / "data" / "artifacts" / run_id).glob("*/record.json")):
        record = records.notebook_record(root, run_id, path.parent.name)
        if record is not None and stem in record.get("upstream_runs", {}):
            yield record["upstream_runs"][stem]


def _list_files(folder):
    """Return the files below `folder` with their sizes, the record itself left out."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "record.json")
    return [{"path": str(p.relative_to(folder)), "bytes": p.stat().st_size} for p in files]


def _peak_memory_mb():
    """Return the process's peak resident memory (kilobytes on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _in_short(record):
    """Return the record's main entries as a two-column frame."""
    import pandas as pd

    n_bytes = sum(item["bytes"] for item in record["artifacts"])
    upstream = ", ".join(f"{s} of {r}" for s, r in record["upstream_runs"].items())
    rows = {
        "run": record["run_id"],
        "notebook": record["stem"],
        "upstream": upstream or "none",
        **{f"data: {key}": value for key, value in record["data"].items()},
        "seed": record["seed"],
        "device": record["device"],
        "artifacts": f"{len(record['artifacts'])} files, {n_bytes / 1e6:.1f} MB",
        "seconds": record["timings"]["seconds"],
        "peak memory": f"{record['peak_memory_mb']:,} MB",
    }
    return pd.DataFrame({"entry": list(rows), "value": [str(v) for v in rows.values()]})
