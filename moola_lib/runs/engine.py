"""Run notebooks in order; the runner, not the notebook, decides what the record says."""

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import check_writable, lock_folder
from moola_lib.runs import record as records
from moola_lib.runs.execution import execute_notebook, follow_rows
from moola_lib.runs.project import (
    artifacts_folder,
    check_run_id,
    notebook_stems,
    reports_folder,
)


@dataclass(frozen=True)
class RunResult:
    """How a run ended: its record (`run.json`'s content) and its folder."""

    record: dict
    folder: Path

    @property
    def exit_code(self):
        """0 finished, 1 a notebook failed, 2 on bad input, 130 interrupted."""
        if self.record["status"] == "interrupted":
            return 130
        error = self.record["error"]
        if error is None:
            return 0
        return 2 if error["ename"] == "UserError" else 1


def run_notebooks(
    stems,
    parameters_by_stem,
    *,
    root,
    run_id,
    profile="quick",
    resume=False,
    on_event=None,
    resolved_by_stem=None,
):
    """Run notebooks one after the other; stop at the first that fails.

    Parameters
    ----------
    stems : list of str
        In the order to run.
    parameters_by_stem : dict of str to dict
        What is passed to each notebook: checked, JSON-safe, only what differs
        from its defaults.
    root : Path
    run_id : str
    profile : str
        Recorded only.
    resume : bool
        Continue the run `run_id`: its finished notebooks are skipped.
    on_event : callable, optional
        Called with a dict per event, also from a second thread. `kind` is
        `started`, `cell` (`cell`, `n_cells`), `epoch` (a row of the notebook's
        `metrics.jsonl`), `skipped` or `ended` (`status`, `seconds`); each has
        `stem`, `number`, `total`.
    resolved_by_stem : dict of str to dict, optional
        Every parameter, for the record; default `parameters_by_stem`.

    Returns
    -------
    RunResult

    Raises
    ------
    UserError
        The run exists and `resume` is false, or it does not and `resume` is
        true, or a notebook to resume had other parameters and is finished or
        left checkpoints, or the folders cannot be written, or another process
        holds them.
    """
    folder = reports_folder(root, check_run_id(run_id))
    check_writable(root / "data" / "artifacts")
    with lock_folder(folder):
        record = _open_record(root, run_id, stems, resume)
        resolved = resolved_by_stem or parameters_by_stem
        _refuse_other_parameters(root, record, stems, resolved)
        record.update(profile=profile, status="running", error=None, finished_at=None)
        record.update(versions=records.package_versions(), git=records.git_state(root))
        for stem in stems:
            record["parameters"][stem] = resolved.get(stem, {})
            record["given_parameters"][stem] = parameters_by_stem.get(stem, {})
        run = _Run(root, folder, record, on_event or (lambda event: None))
        with _kernel_environment(root, run_id, resume), _signals_interrupt():
            run.all(stems, parameters_by_stem)
    return RunResult(record, folder)


class _Run:
    """The state one run carries from notebook to notebook."""

    def __init__(self, root, folder, record, on_event):
        self.root, self.folder, self.record, self.on_event = root, folder, record, on_event

    def all(self, stems, parameters_by_stem):
        """Run `stems`; whatever happens, the record on disk says how it ended."""
        record, began = self.record, time.monotonic()
        try:
            records.write_run(self.root, record)
            for number, stem in enumerate(stems, 1):
                place = {"stem": stem, "number": number, "total": len(stems)}
                if record["notebooks"][stem]["status"] == "finished":
                    self.on_event({"kind": "skipped", **place})
                    continue
                self.one(stem, parameters_by_stem.get(stem, {}), place)
                if record["error"] is not None:
                    record["status"] = "failed"
                    break
            else:
                record["status"] = "finished"
        except KeyboardInterrupt:
            record["status"] = "interrupted"
        except BaseException:
            record["status"] = "failed"
            raise
        finally:
            record["finished_at"] = records.utc_now()
            record["seconds"] = round(record["seconds"] + time.monotonic() - began, 2)
            records.write_run(self.root, record)
        # Once more, so that every page links to its neighbours.
        done = [s for s in record["stems"] if (self.folder / f"{s}.html").exists()]
        for stem in done if len(done) > 1 else ():
            self.render(stem)

    def one(self, stem, parameters, place):
        """Run one notebook; set its status, and the run's error if it fails."""
        entry = self.record["notebooks"][stem]
        entry.update(status="running", started_at=records.utc_now())
        records.write_run(self.root, self.record)
        self.on_event({"kind": "started", **place})
        began = time.monotonic()

        def on_cell(index, n_cells):
            self.on_event({"kind": "cell", "cell": index + 1, "n_cells": n_cells, **place})

        def on_row(row):
            self.on_event({"kind": "epoch", "row": row, **place})

        metrics = artifacts_folder(self.root, self.record["run_id"], stem) / "metrics.jsonl"
        status = "failed"
        try:
            with follow_rows(metrics, on_row):
                error = execute_notebook(self.root, stem, parameters, self.folder, on_cell)
            status = "finished" if error is None else "failed"
            self.record["error"] = error
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            seconds = round(time.monotonic() - began, 2)
            entry.update(status=status, seconds=seconds)
            self.record["timings"][stem] = seconds
            records.add_notebook_records(self.root, self.record)
            records.write_run(self.root, self.record)
            if (self.folder / f"{stem}.ipynb").exists():
                self.render(stem)
            self.on_event({"kind": "ended", "status": status, "seconds": seconds, **place})

    def render(self, stem):
        """Write a notebook's HTML page, with what the record says about it."""
        from moola_lib.runs.html import render_report

        record = self.record
        error = record["error"]
        info = {
            "run_id": record["run_id"],
            "stem": stem,
            "status": record["notebooks"][stem]["status"],
            "started_at": record["notebooks"][stem]["started_at"],
            "seconds": record["timings"].get(stem),
            "profile": record["profile"],
            "data": (records.notebook_record(self.root, record["run_id"], stem) or {}).get("data") or record["data"],
            "seed": record["parameters"].get(stem, {}).get("seed", record["seed"]),
            "git": record["git"],
            "error": error if error is not None and error["stem"] == stem else None,
            "siblings": [s for s in record["stems"] if s == stem or (self.folder / f"{s}.html").exists()],
        }
        render_report(
            self.folder / f"{stem}.ipynb",
            self.folder / f"{stem}.html",
            assets=self.root / "reports" / "assets",
            run_info=info,
        )


def _open_record(root, run_id, stems, resume):
    """Return the record of a new run, or of the one to resume."""
    folder = reports_folder(root, run_id)
    artifacts = root / "data" / "artifacts" / run_id
    exists = (folder / "run.json").exists()
    if resume:
        if not exists:
            raise UserError(f"there is no run {run_id!r} to resume in {folder.parent}")
        record = records.read_run(root, run_id)
    else:
        if exists or artifacts.exists():
            place = folder if exists else artifacts
            raise UserError(
                f"run {run_id!r} exists already ({place}); choose another --run-id, or continue it with --resume"
            )
        record = {
            "run_id": run_id,
            "started_at": records.utc_now(),
            "seconds": 0.0,
            "stems": [],
            "notebooks": {},
            "parameters": {},
            "given_parameters": {},
            "timings": {},
            "data": {},
            "seed": None,
            "gates": [],
            "artifacts": [],
        }
    record["stems"] = [s for s in notebook_stems(root) if s in {*record["stems"], *stems}]
    for stem in record["stems"]:
        record["notebooks"].setdefault(stem, {"status": "not run", "started_at": None})
    return record


def _refuse_other_parameters(root, record, stems, resolved):
    """Refuse to resume with other parameters than a notebook's results or checkpoints were made with.

    One that stopped before its first checkpoint may change: that is how a wrong
    path is put right.
    """
    for stem in stems:
        status = record["notebooks"][stem]["status"]
        folder = artifacts_folder(root, record["run_id"], stem)
        has_checkpoints = any(folder.rglob("checkpoint_*.safetensors"))
        if status == "not run" or not (status == "finished" or has_checkpoints):
            continue
        before, now = record["parameters"].get(stem, {}), resolved.get(stem, {})
        other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if other:
            what = f"finished {stem}" if status == "finished" else f"has checkpoints of {stem}, trained"
            raise UserError(
                f"run {record['run_id']!r} {what} with another {', '.join(other)}; "
                "resume with the same parameters or use a new run id"
            )


@contextlib.contextmanager
def _kernel_environment(root, run_id, resume):
    """Tell the kernels, through their environment, which run they belong to."""
    names = {
        "MOOLA_HOME": str(root),
        "MOOLA_RUN_ID": run_id,
        "MOOLA_RESUME": "1" if resume else "0",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _signals_interrupt():
    """Treat SIGTERM like Ctrl-C, so that kernels stop and the record is written.

    SIGINT too where it is ignored, as it is in what a shell starts in the background.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt)}
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
