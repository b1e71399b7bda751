"""What a run left on its pod, brought home: into a folder beside, compared, and only then put in place."""

import contextlib
import json
import shutil

import filelock

from moola_lib.errors import UserError
from moola_lib.files import (
    fingerprint,
    lock_folder,
    read_json,
    replace_atomically,
    replace_folder_atomically,
    write_json,
)
from moola_lib.runs import record as records
from moola_lib.runs.disk import say_bytes
from moola_lib.runs.index import build_index
from moola_lib.runs.pods import ledger, states, sync
from moola_lib.runs.pods.following import read_status
from moola_lib.runs.pods.launch import EXTRAS
from moola_lib.runs.pods.reaching import connect, on_pod
from moola_lib.runs.pods.ssh import ConnectionLost, insist
from moola_lib.runs.project import reports_folder, run_artifacts


def fetch(root, entry, *, say=print):
    """Bring a run's results home, tell the pod so, and rebuild the index.

    Parameters
    ----------
    root : Path
    entry : dict
        Of the ledger; `fetched_at` is set.
    say : callable

    Returns
    -------
    Path
        `reports/<run_id>`.

    Raises
    ------
    UserError
        The run goes on, has left nothing, is here already from elsewhere, or a
        file cannot be had as it was sealed; what arrived is kept for the next try.
    """
    run_id, connection = entry["run_id"], connect(root, entry)
    if read_status(root, entry, say=say)["state"] == states.RUNNING:
        raise UserError(f"run {run_id!r} goes on; `moola pod attach {run_id}` waits for it, `moola pod stop` ends it")
    _refuse_others(root, entry)
    answer = insist(lambda: on_pod(connection, entry, "seal"), say=say)
    if answer.returncode:
        raise UserError(f"the pod cannot seal the results: {' '.join(answer.stderr.split())[-300:]}")
    manifest = json.loads(answer.stdout)
    partial = ledger.pods_folder(root) / f"{run_id}.partial"
    with lock_folder(partial):
        files = partial / "files"
        insist(
            lambda: sync.fetch_files(connection, entry["project"], manifest, files, has_rsync=entry["has_rsync"]),
            say=say,
        )
        _merge(root, entry, files)
    shutil.rmtree(partial)
    size = sum(n_bytes for n_bytes, _ in manifest.values())
    entry["fetched_at"] = records.utc_now()
    ledger.write_entry(root, entry)
    say(f"fetched {len(manifest)} files, {say_bytes(size)}, each as it was sealed on the pod")
    with contextlib.suppress(ConnectionLost):  # the pod may stop before it has answered; unheard, it waits a little
        on_pod(connection, entry, "fetched")
    say(build_index(root))
    return root / "reports" / run_id


def _refuse_others(root, entry):
    """Refuse to put a run over another one of its name."""
    record = reports_folder(root, entry["run_id"]) / "run.json"
    for folder in (record.parent, run_artifacts(root, entry["run_id"])):
        if folder.exists() and not entry.get("is_merged"):
            raise UserError(f"{folder} exists and is no copy of the pod's run; move it away and fetch again")
    if record.exists() and entry.get("merged_record") not in (None, fingerprint(record)):
        raise UserError(f"run {entry['run_id']!r} was continued here since; move {record.parent} away to fetch again")


def _merge(root, entry, files):
    """Put the fetched files in place: first what the record of the run points to, then the record."""
    run_id = entry["run_id"]
    entry["is_merged"] = True
    ledger.write_entry(root, entry)
    homes = {place: path for path, place in entry["places"].items()}
    for part in (f"data/artifacts/{run_id}", f"reports/{run_id}"):
        if (files / part).exists():
            with replace_folder_atomically(root / part) as folder:
                shutil.copytree(files / part, folder, dirs_exist_ok=True)
                for path in (*folder.glob("run.json"), *folder.glob("*/record.json")):
                    write_json(path, _at_home(read_json(path), homes))
    record = reports_folder(root, run_id) / "run.json"
    entry["merged_record"] = fingerprint(record) if record.exists() else None
    for path in sorted((files / "reports" / "assets").rglob("*")):
        place = root / path.relative_to(files)
        if path.is_file() and not place.exists():
            with replace_atomically(place) as beside:
                shutil.copyfile(path, beside)
    for name in EXTRAS:
        if (files / name).exists():
            _add_lines(root / name, files / name)


def _at_home(value, homes):
    """Return a record with the files' places on the pod replaced by those here, so that it can be resumed and rerun."""
    if isinstance(value, dict):
        return {key: _at_home(each, homes) for key, each in value.items()}
    if isinstance(value, list):
        return [_at_home(each, homes) for each in value]
    return homes.get(value, value) if isinstance(value, str) else value


def _add_lines(path, fetched):
    """Append the lines of a JSON-lines file that are not there yet, as its writers do: under its lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f".{path.name}.lock")), open(path, "a+", encoding="utf-8") as stream:
        stream.seek(0)
        known = set(stream.read().splitlines())
        lines = fetched.read_text(encoding="utf-8").splitlines()
        stream.write("".join(f"{line}\n" for line in lines if line not in known))
