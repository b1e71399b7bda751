"""Before a run starts: its folder to itself, and a record, new or taken up again."""

import contextlib

from moola_lib.errors import UserError
from moola_lib.files import lock_folder, remove_temporaries
from moola_lib.runs import record as records
from moola_lib.runs.processes import end_process
from moola_lib.runs.project import artifacts_folder, notebook_stems, reports_folder, run_artifacts


@contextlib.contextmanager
def lock_run(root, run_id):
    """Hold a run's folder while the block runs.

    Once held, nothing else may write there: a kernel whose runner was killed is
    ended, and its half-written files are removed.

    Raises
    ------
    UserError
        Another process holds it, which is named; or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        folder = reports_folder(root, run_id)
        try:
            stack.enter_context(lock_folder(folder))
        except UserError as error:
            process = _read_process(root, run_id)
            if process is None or "in use" not in str(error):
                raise
            raise UserError(
                f"run {run_id!r} is in use by process {process.get('pid')} on {process.get('host')}; "
                "wait for it, stop it, or choose another --run-id"
            ) from error
        remove_temporaries(folder)
        with contextlib.suppress(UserError):
            for entry in records.read_run(root, run_id)["notebooks"].values():
                end_process(entry.get("kernel"))
        yield


def _read_process(root, run_id):
    with contextlib.suppress(UserError):
        return records.read_run(root, run_id).get("process")
    return None


def open_record(root, run_id, stems, resume):
    """Return the record of a new run, or of the one to resume.

    Raises
    ------
    UserError
        The run exists and `resume` is false, or it does not and `resume` is true, or
        artifacts of a run of that name are left.
    """
    folder = reports_folder(root, run_id)
    artifacts = run_artifacts(root, run_id)
    if resume:
        record = records.read_run(root, run_id)
    else:
        if (folder / "run.json").exists():
            raise UserError(
                f"run {run_id!r} exists already ({folder}); choose another --run-id, or continue it with --resume"
            )
        if artifacts.exists():
            raise UserError(
                f"{artifacts} is left of a run {run_id!r} whose record is gone; choose another --run-id, or remove it"
            )
        record = records.new_record(run_id)
    record["stems"] = [s for s in notebook_stems(root) if s in {*record["stems"], *stems}]
    for stem in record["stems"]:
        record["notebooks"].setdefault(stem, {"status": "not run", "started_at": None})
    return record


def refuse_other_parameters(root, record, stems, given, resolved):
    """Refuse to resume with other parameters than a notebook's results or checkpoints were made with.

    One that stopped before its first checkpoint may change: that is how a wrong
    path is put right. A parameter that did not exist then may have its default.

    Raises
    ------
    UserError
        Naming what differs.
    """
    for stem in stems:
        status = record["notebooks"][stem]["status"]
        folder = artifacts_folder(root, record["run_id"], stem)
        has_checkpoints = any(folder.rglob("checkpoint_*.safetensors"))
        if status == "not run" or not (status == "finished" or has_checkpoints):
            continue
        before, now = record["parameters"].get(stem, {}), resolved.get(stem, {})
        other = [key for key in before if before[key] != now.get(key)]
        other += [key for key in given.get(stem, {}) if key not in before]
        if other:
            what = f"finished {stem}" if status == "finished" else f"has checkpoints of {stem}, trained"
            raise UserError(
                f"run {record['run_id']!r} {what} with another {', '.join(other)}; "
                "resume with the same parameters or use a new run id"
            )
