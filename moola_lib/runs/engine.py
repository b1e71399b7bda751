"""Run notebooks in order; the runner, not the notebook, decides what the record says."""

import contextlib
import errno
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import check_writable
from moola_lib.runs import record as records
from moola_lib.runs.execution import execute_notebook, follow_rows
from moola_lib.runs.inputs import describe_inputs, fingerprint_notebooks
from moola_lib.runs.kernels import KernelWatch
from moola_lib.runs.leaks import find_leaks, redact, refuse_secret_parameters
from moola_lib.runs.opening import lock_run, open_record, refuse_other_parameters
from moola_lib.runs.processes import describe_process
from moola_lib.runs.project import (
    LEAST_DISK_GB,
    artifacts_folder,
    check_disk,
    check_run_id,
    reports_folder,
)
from moola_lib.runs.signals import Stop, signals_interrupt

RESERVE_BYTES = 1 << 18  # given back when the disk is full, so that the record can still say so


@dataclass(frozen=True)
class RunResult:
    """How a run ended: its record (`run.json`'s content) and its folder."""

    record: dict
    folder: Path

    @property
    def exit_code(self):
        """As in the record: 0 finished, 1 a notebook failed, 2 bad input, 3 a gate, 4 a key, 130, 138."""
        return self.record["exit_code"]


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
    is_strict=False,
    cell_timeout=None,
    upstreams_by_stem=None,
    least_disk_gb=LEAST_DISK_GB,
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
        Called with a dict per event, also from other threads. `kind` is
        `started`, `cell` (`cell`, `n_cells`), `epoch` (a row of the notebook's
        `metrics.jsonl`), `memory` (`bytes` its kernel holds), `skipped` or `ended`
        (`status`, `seconds`); each has `stem`, `number`, `total`.
    resolved_by_stem : dict of str to dict, optional
        Every parameter, for the record; default `parameters_by_stem`.
    is_strict : bool
        A failed gate ends the run with exit code 3.
    cell_timeout : int, optional
        Seconds a cell may take.
    upstreams_by_stem : dict of str to dict, optional
        The runs that a notebook takes others' artifacts from (stem to run id);
        default what `NotebookRun.upstream` finds.
    least_disk_gb : float
        To be free before it starts.

    Returns
    -------
    RunResult

    Raises
    ------
    UserError
        The run exists and `resume` is false, or it does not and `resume` is
        true, or a notebook to resume had other parameters and is finished or
        left checkpoints, or the folders cannot be written or are nearly full, or
        another process holds them, or a parameter holds a key.
    """
    folder, artifacts = reports_folder(root, check_run_id(run_id)), root / "data" / "artifacts"
    check_writable(artifacts)
    resolved = resolved_by_stem or parameters_by_stem
    refuse_secret_parameters(resolved)
    with lock_run(root, run_id):
        check_disk([folder, artifacts], least_disk_gb)
        record = open_record(root, run_id, stems, resume)
        refuse_other_parameters(root, record, stems, resolved)
        record.update(profile=profile, status="running", error=None, finished_at=None, exit_code=None)
        record.update(is_strict=is_strict, cell_timeout=cell_timeout, process=describe_process())
        record.update(versions=records.package_versions(), git=records.git_state(root))
        for name in ("inputs", "sources", "withheld"):  # a run of an older version has none
            record.setdefault(name, {})
        for stem in stems:
            record["parameters"][stem] = resolved.get(stem, {})
            record["given_parameters"][stem] = parameters_by_stem.get(stem, {})
            if record["notebooks"][stem]["status"] != "finished":
                record["inputs"][stem] = describe_inputs(resolved.get(stem, {}))
                record["sources"].update(fingerprint_notebooks(root, [stem]))
                record["withheld"].pop(stem, None)
        run = _Run(root, folder, record, on_event or (lambda event: None))
        run.upstreams_by_stem = upstreams_by_stem or {}
        with _kernel_environment(root, run_id, resume), signals_interrupt(run.stop, lambda: run.watch.kill()):
            run.all(stems, parameters_by_stem)
    return RunResult(record, folder)


class _Run:
    """The state one run carries from notebook to notebook."""

    def __init__(self, root, folder, record, on_event):
        self.root, self.folder, self.record, self.on_event = root, folder, record, on_event
        self.upstreams_by_stem, self.watch, self.stop = {}, KernelWatch(), Stop()
        self._reserve = folder / ".reserve"

    def all(self, stems, parameters_by_stem):
        """Run `stems`; whatever happens, the record on disk says how it ended."""
        record, began = self.record, time.monotonic()
        try:
            with open(self._reserve, "wb") as stream:
                stream.write(b"\1" * RESERVE_BYTES)
            self.save()
            for number, stem in enumerate(stems, 1):
                place = {"stem": stem, "number": number, "total": len(stems)}
                if record["notebooks"][stem]["status"] == "finished":
                    self.on_event({"kind": "skipped", **place})
                    continue
                self.one(stem, parameters_by_stem.get(stem, {}), place)
                if record["error"] is not None:
                    break
            # Once more, so that every page links to its neighbours.
            done = [s for s in record["stems"] if (self.folder / f"{s}.html").exists()]
            for stem in done if len(done) > 1 else ():
                self.render(stem)
            record["status"] = "finished" if record["error"] is None else "failed"
        except KeyboardInterrupt:
            self.stop.hear()
            record["status"] = "interrupted"
        except (OSError, UserError) as error:  # the disk is full, for one
            record["status"] = "failed"
            record["error"] = record["error"] or _describe_error(None, error)
        except BaseException as error:
            record["status"] = "failed"
            record["error"] = record["error"] or _describe_error(None, error)
            raise
        finally:
            for entry in record["notebooks"].values():
                if entry["status"] == "running":
                    entry["status"] = record["status"]
            record["finished_at"] = records.utc_now()
            record["seconds"] = round(record["seconds"] + time.monotonic() - began, 2)
            record["exit_code"] = records.exit_code(record, is_strict=record["is_strict"])
            self._give_back_reserve()
            self.save()

    def one(self, stem, parameters, place):
        """Run one notebook; set its status, and the run's error if it fails."""
        entry = self.record["notebooks"][stem]
        entry.update(status="running", started_at=records.utc_now(), cell=None, n_cells=None)
        self.save()
        self.on_event({"kind": "started", **place})
        began = time.monotonic()

        def on_cell(index, n_cells):
            entry.update(cell=index + 1, n_cells=n_cells)
            self.save()
            self.on_event({"kind": "cell", "cell": index + 1, "n_cells": n_cells, **place})

        def on_kernel(pid):
            entry["kernel"] = describe_process(pid)
            self.save()

        def on_row(row):
            self.on_event({"kind": "epoch", "row": row, **place})

        def on_memory(n_bytes):
            self.on_event({"kind": "memory", "bytes": n_bytes, **place})

        metrics = artifacts_folder(self.root, self.record["run_id"], stem) / "metrics.jsonl"
        self.watch = KernelWatch(on_kernel, on_shutdown=self.stop.hear, on_memory=on_memory)
        status = "failed"
        try:
            with follow_rows(metrics, on_row), _upstream_environment(self.upstreams_by_stem.get(stem)):
                self.record["error"] = execute_notebook(
                    self.root, stem, parameters, self.folder, on_cell,
                    watch=self.watch, cell_timeout=self.record["cell_timeout"],
                )  # fmt: skip
            status = "finished" if self.record["error"] is None else "failed"
        except KeyboardInterrupt:
            self.stop.hear()
            status = "interrupted"
            raise
        except (OSError, UserError) as error:
            self.record["error"] = _describe_error(stem, error)
        finally:
            status = self.withhold_leaks(stem, status)
            seconds = round(time.monotonic() - began, 2)
            entry.update(status=status, seconds=seconds, peak_memory_mb=round(self.watch.peak_memory / 1e6))
            self.record["timings"][stem] = seconds
            records.add_notebook_records(self.root, self.record)
            self.save()
            if (self.folder / f"{stem}.ipynb").exists() and stem not in self.record["withheld"]:
                self.render(stem)
            self.on_event({"kind": "ended", "status": status, "seconds": seconds, **place})

    def save(self):
        """Write the record; a full disk gives back what was kept for it."""
        try:
            records.write_run(self.root, self.record)
        except UserError:
            if not self._reserve.exists():
                raise
            self._give_back_reserve()
            records.write_run(self.root, self.record)

    def _give_back_reserve(self):
        """Free what was kept for the record, unless the folder has become read-only: writing the record says so."""
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def withhold_leaks(self, stem, status):
        """Keep back the page of a notebook that wrote a key somewhere; return its status."""
        written = artifacts_folder(self.root, self.record["run_id"], stem)
        leaks = find_leaks([self.folder / f"{stem}.ipynb", self.folder / "run.log", written])
        if not leaks:
            return status
        found = [str(leak).removeprefix(f"{self.root}{os.sep}") for leak in leaks]
        self.record["withheld"][stem] = found
        (self.folder / f"{stem}.html").unlink(missing_ok=True)
        message = (
            f"{stem} wrote a key or password, and its report is withheld ({'; '.join(found)}); take it out of the "
            "notebook and of that file, change the key if the file was shared, and resume"
        )
        if self.record["error"] is None and status != "interrupted":
            self.record["error"] = {"stem": stem, "ename": "KeyFound", "evalue": message, "message": message}
        return "failed" if status == "finished" else status

    def render(self, stem):
        """Write a notebook's HTML page, with what the record says about it."""
        from moola_lib.runs.html import render_report
        from moola_lib.runs.reporting import report_info

        record = self.record
        near = [s for s in record["stems"] if s == stem or (self.folder / f"{s}.html").exists()]
        render_report(
            self.folder / f"{stem}.ipynb",
            self.folder / f"{stem}.html",
            assets=self.root / "reports" / "assets",
            run_info={**report_info(self.root, record, stem), "siblings": near},
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
def _upstream_environment(upstreams):
    """Tell the kernel which runs its notebook builds on, where that is settled."""
    if not upstreams:
        yield
        return
    os.environ["MOOLA_UPSTREAM_RUNS"] = json.dumps(upstreams)
    try:
        yield
    finally:
        del os.environ["MOOLA_UPSTREAM_RUNS"]


def _describe_error(stem, error):
    """Return an error of the runner's own as the record keeps it; a full disk is not the user's mistake."""
    text = redact(" ".join(str(error).split()))
    cause = getattr(error.__cause__, "errno", None)
    name = "OSError" if cause in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else type(error).__name__
    return {"stem": stem, "ename": name, "evalue": text, "message": text}
