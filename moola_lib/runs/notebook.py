"""The notebook's side of a run: checked parameters, folders, progress, record."""

import ast
import contextlib
import json
import os
import re
import resource
import shutil
import sys
import time
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import plain, read_json, write_json
from moola_lib.runs import record as records
from moola_lib.runs.parameters_check import absolute_paths, check_parameters, load_model, nearest_name
from moola_lib.runs.project import artifacts_folder, find_root
from moola_lib.runs.upstream import find_upstream

PARAMETERS_SOURCE = "the notebook's parameters cell"
SECONDS_BETWEEN_LINES = 10
UPSTREAM_FILE = "upstream.json"
EPOCH_LOSSES = ("train_loss", "validation_loss", "train_huber", "validation_huber")
N_BACKUPS = 3


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
    predecessor is moved to `data/artifacts/backups/manual-<UTC stamp>/<stem>`;
    the newest three of a notebook are kept there, older ones are deleted.

    Relative paths count from the current folder, or, where they lead nowhere
    from there, from the project's root.
    """
    if model is None:
        from moola_lib.runs.parameters import PARAMETERS

        model = load_model(stem, PARAMETERS)
    _refuse_unknown_names(namespace, model)
    missing = [name for name in model.model_fields if name not in namespace]
    if missing:
        raise UserError(f"{PARAMETERS_SOURCE}: {', '.join(missing)} is missing")
    values = {name: namespace[name] for name in model.model_fields}
    root = find_root()
    values = absolute_paths(model, values, Path.cwd(), root)
    parameters = check_parameters(model, values, PARAMETERS_SOURCE)

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
        Run by the engine, or under `MOOLA_HEADLESS=1`, so that nobody is there to
        click; continuing an interrupted run.
    upstream_runs : dict of str to str
        Stem to run id, as found by `upstream`.
    """

    def __init__(self, stem, run_id, root, folder, parameters):
        self.stem, self.run_id, self.root = stem, run_id, root
        self.folder, self.parameters = folder, parameters
        self.is_resumed = os.environ.get("MOOLA_RESUME") == "1"
        self.upstream_runs = json.loads(os.environ.get("MOOLA_UPSTREAM_RUNS", "{}"))  # settled, in a repeated run
        if self.is_resumed:
            if (folder / UPSTREAM_FILE).exists():
                self.upstream_runs = read_json(folder / UPSTREAM_FILE)
            _end_last_line(folder / "metrics.jsonl")
        self.is_headless = bool(os.environ.get("MOOLA_RUN_ID")) or os.environ.get("MOOLA_HEADLESS") == "1"
        self._started = time.monotonic()
        self._started_at = records.utc_now()
        self._git = records.git_state(root)  # of the code that was read, whatever becomes of it meanwhile
        self._first_epochs = {}  # label -> (time and number of its first epoch)
        self._last_row_time = self._started
        self._last_print_time = self._started
        self._last_label = None
        self._view = None  # of the cell that trains

    def upstream(self, stem):
        """Return the artifacts folder of notebook `stem` that this run builds on.

        In this order: this same run; the run named by the `upstream_run`
        parameter, or the one that run itself built on; the newest finished run
        that fits the upstreams found earlier. By hand (run id `manual`), a given
        `upstream_run` comes before the manual run.

        What fits the upstreams found earlier is the run that they built on, or a
        newer one built on the same runs as theirs: new labels for the same bars
        are used with an older encoder, and other bars are not. Where the newest
        run of all does not fit, a line says so.

        Raises
        ------
        UserError
            Nothing found, naming the notebook to run; or `upstream_run` lacks it;
            or the upstreams found earlier were built on different ones.

        A resumed notebook keeps the upstreams it began with.
        """
        if stem not in self.upstream_runs:
            self.upstream_runs[stem] = find_upstream(
                self.root,
                stem,
                reader=self.stem,
                run_id=self.run_id,
                given=getattr(self.parameters, "upstream_run", None),
                taken=self.upstream_runs,
            )
            write_json(self.folder / UPSTREAM_FILE, self.upstream_runs)
        return artifacts_folder(self.root, self.upstream_runs[stem], stem)

    def log_metrics(self, **row):
        """Append one row to `metrics.jsonl` in the run's folder, at once."""
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain(row), allow_nan=False) + "\n")

    def progress(self, row):
        """Record and show one epoch; training loops take this as `on_epoch`.

        By hand in Jupyter the curves are drawn as they grow, with a button that
        ends the training; see `widgets.live`. Its cell goes on from there when it
        is run again.

        Parameters
        ----------
        row : dict
            `epoch` (from 1), `n_epochs`, and what was measured: `train_loss`,
            `validation_loss`, `windows_per_second`, … `label` tells several
            trainings of one notebook apart. `seconds_left` is added.

        Returns
        -------
        bool
            Whether the training shall end after this epoch.
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
            return False
        view = self._live_view()
        if view is not None:
            losses = {name: row[name] for name in ("epoch", *EPOCH_LOSSES) if name in row}
            is_stopped = view.add(label, losses, epoch_line(row), n_epochs=row.get("n_epochs"))
            self.is_resumed |= is_stopped
            return is_stopped
        # By hand one line is enough: a carriage return rewrites it, a new label starts a new one.
        is_new_line = self._last_label not in (None, label)
        print(("\n" if is_new_line else "\r") + epoch_line(row).ljust(100), end="", flush=True)
        self._last_label = label
        return False

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
            "device": parameters.get("device", "cpu"),  # what offers no choice computes on the CPU
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
            "git": self._git,
            "peak_memory_mb": round(_peak_memory_mb()),
            "gpu_peak_memory_mb": _gpu_peak_memory_mb(),
        }
        write_json(self.folder / "record.json", record)
        return _in_short(plain(record))

    def _live_view(self):
        """Return the view of the cell that runs, a new one for each cell; None outside of Jupyter."""
        from IPython import get_ipython

        if getattr(get_ipython(), "kernel", None) is None:
            return None
        from moola_lib.widgets.live import LiveTraining

        if self._view is None or self._view.is_closed:
            self._view = LiveTraining()
        return self._view


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
        if run_id == "manual" and folder.exists() and any(folder.iterdir()):
            _back_up(folder, root / "data" / "artifacts" / "backups", stem)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and os.environ.get("MOOLA_RESUME") != "1":
            raise UserError(f"{folder} is not empty; use another run id, or --resume")
        (folder / "record.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error


def _end_last_line(path):
    """Take off the half line that a kernel left when it was killed while writing."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with open(path, "r+b") as stream:
            stream.truncate(len(whole))


def _back_up(folder, backups, stem):
    """Move a manual run's folder to the backups; delete all but the newest of that stem there."""
    name = time.strftime("manual-%Y%m%d-%H%M%S", time.gmtime())
    while any(backups.glob(f"{name}*/{stem}")):  # several starts within one second
        name += "b"
    backup = backups / name / stem
    backup.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, backup)
    is_ours = re.compile(r"manual-\d{8}-\d{6}b*").fullmatch
    others = [path for path in backups.glob(f"manual-*/{stem}") if is_ours(path.parent.name) and path != backup]
    for old in sorted(others)[: 1 - N_BACKUPS]:
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(OSError):
            old.parent.rmdir()  # where that was its last notebook


def _list_files(folder):
    """Return the files below `folder` with their sizes, the record itself left out."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "record.json")
    return [{"path": str(p.relative_to(folder)), "bytes": p.stat().st_size} for p in files]


def _peak_memory_mb():
    """Return the process's peak resident memory (kilobytes on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _gpu_peak_memory_mb():
    """Return what torch held on the GPUs at most, or None where none was used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    peaks = [torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())]
    return round(sum(peaks) / (1 << 20))


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
