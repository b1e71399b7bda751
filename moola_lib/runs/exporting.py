"""`moola export`: a run as one file to hand on, without data or weights unless they are asked for."""

import datetime
import zipfile
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import replace_atomically
from moola_lib.runs.leaks import refuse_leaks
from moola_lib.runs.project import check_run_id, reports_folder, run_artifacts
from moola_lib.runs.record import read_run

PARTS = ("data", "weights")
CONTENTS = "CONTENTS.txt"
FIRST_STAMP = (1980, 1, 1, 0, 0, 0)  # of a zip file
_RECORDS, _WEIGHTS = (".json", ".jsonl"), (".safetensors", ".pt", ".ckpt")


def export_run(root, run_id, output, parts=(), *, is_overwriting=False):
    """Write a run's report and record to a zip file, atomically.

    Parameters
    ----------
    root : Path
    run_id : str
    output : str or Path
        Ends in `.zip`.
    parts : sequence of {"data", "weights"}
        What to add to the reports, the logs and the JSON records. The pages
        themselves show some bars in their figures.
    is_overwriting : bool
        Replace an existing file.

    Returns
    -------
    list of (str, int)
        Path inside the archive and bytes, the list itself left out. Unpacked,
        the pages open as they did: the paths are those of the project.

    Raises
    ------
    UserError
        There is no such run, it runs, something like a key was found in it, the
        file exists, or a part is unknown.
    """
    output = Path(output)
    record = read_finished(root, run_id)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise UserError(f"--with {unknown[0]} is not known; give {' or '.join(PARTS)}, or both with a comma")
    if output.suffix != ".zip":
        raise UserError(f"{output} does not end in .zip")
    if output.exists() and not is_overwriting:
        raise UserError(f"{output} exists; choose another name or give --overwrite")
    paths = [path for path in _files(root, run_id) if _part(root, path) in ("record", *parts)]
    # The same run gives the same bytes, whenever it is exported.
    stamp = max(datetime.datetime.fromisoformat(record["started_at"]).timetuple()[:6], FIRST_STAMP)
    contents = [(path.relative_to(root).as_posix(), path.stat().st_size) for path in paths]
    listing = "".join(f"{size:>12,} {name}\n" for name, size in contents)
    with replace_atomically(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, (name, _) in zip(paths, contents, strict=True):
            archive.writestr(_entry(name, stamp), path.read_bytes())
        archive.writestr(_entry(CONTENTS, stamp), listing)
    return contents


def read_finished(root, run_id):
    """Return the record of a run that may be handed on.

    Raises
    ------
    UserError
        There is none, it still runs, or something like a key was found in it.
    """
    record = read_run(root, check_run_id(run_id))
    if record["status"] == "running":
        raise UserError(f"run {run_id} still runs; export it when it has ended")
    for stem, found in record["withheld"].items():
        raise UserError(f"run {run_id} is not exported: {stem} wrote a key or password ({'; '.join(found)})")
    if record["status"] != "finished":  # who was killed has not looked
        refuse_leaks(_files(root, run_id), f"run {run_id} is not exported")
    return record


def _files(root, run_id):
    """Return the files of a run: its reports, what they are drawn with, and its artifacts."""
    folders = (reports_folder(root, run_id), root / "reports" / "assets", run_artifacts(root, run_id))
    found = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    is_hidden = lambda path: any(part.startswith(".") for part in path.relative_to(root).parts)  # noqa: E731
    return [path for path in found if path.suffix != ".zip" and not is_hidden(path)]  # no earlier export


def _part(root, path):
    """Tell what a file is: of the record, data, or weights."""
    if path.suffix in _WEIGHTS:
        return "weights"
    is_report = path.relative_to(root).parts[0] == "reports"
    return "record" if is_report or path.suffix in _RECORDS else "data"


def _entry(name, stamp):
    """Return an archive's entry that may be read by everyone."""
    entry = zipfile.ZipInfo(name, stamp)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
