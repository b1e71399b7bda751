"""Where things are: the project's root, its notebooks, the folders of a run."""

import difflib
import os
import re
import shutil
from pathlib import Path

from moola_lib.errors import UserError

# Names below reports/ or data/artifacts/ that mean something else than a run.
RESERVED_RUN_IDS = ("manual", "backups", "assets", "gallery", "compare", "sweeps")
LEAST_DISK_GB = 1.0


def find_root(start=None):
    """Return the project's root folder.

    Parameters
    ----------
    start : str or Path, optional
        Where to look from, default the current folder.

    Returns
    -------
    Path
        `MOOLA_HOME` if it is set; else the nearest folder at or above `start`
        that holds `notebooks/` and `moola_lib/`; else the folder this package
        is installed from.

    Raises
    ------
    UserError
        None of them holds `notebooks/`.
    """
    home = os.environ.get("MOOLA_HOME")
    if home:
        root = Path(home).expanduser().resolve()
        if not (root / "notebooks").is_dir():
            raise UserError(f"MOOLA_HOME is {home}, which holds no notebooks/ folder")
        return root
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "notebooks").is_dir() and (folder / "moola_lib").is_dir():
            return folder
    root = Path(__file__).resolve().parents[2]
    if (root / "notebooks").is_dir():
        return root
    raise UserError(f"no project at or above {start}; go to its folder or set MOOLA_HOME to it")


def notebook_stems(root):
    """Return the stems of `root`'s ordered notebooks (`NN_name.ipynb`), sorted."""
    return sorted(p.stem for p in (root / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def resolve_stem(text, root):
    """Return the notebook stem meant by `text`: a stem, its number, or a path.

    Raises
    ------
    UserError
        No notebook, listing the known ones and the nearest.
    """
    stems = notebook_stems(root)
    name = Path(text).name.removesuffix(".ipynb")
    for stem in stems:
        number, _, title = stem.partition("_")
        if name in (stem, title) or (name.isdigit() and int(name) == int(number)):
            return stem
    nearest = difflib.get_close_matches(name, stems, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    known = ", ".join(stems) or f"none in {root / 'notebooks'}"
    raise UserError(f"there is no notebook {text!r} (known: {known}){hint}")


def check_run_id(run_id):
    """Refuse a run id that cannot name a folder.

    Raises
    ------
    UserError
        It is reserved, ends as a page does, or has other characters than letters,
        digits, `.`, `_`, `-`.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_id):
        raise UserError(
            f"run id {run_id!r} is not allowed; use letters, digits, '.', '_' and '-', starting with a letter or digit"
        )
    if run_id.endswith((".html", ".md")):
        raise UserError(f"run id {run_id!r} is not allowed; {run_id} in reports/ is a page")
    if run_id in RESERVED_RUN_IDS:
        raise UserError(f"run id {run_id!r} is reserved (as are {', '.join(RESERVED_RUN_IDS)})")
    return run_id


def check_disk(folders, least_gb=LEAST_DISK_GB):
    """Refuse to start where the disk is nearly full: a run that stops half-way costs more.

    Parameters
    ----------
    folders : iterable of Path
        Existing ones that will be written.
    least_gb : float

    Raises
    ------
    UserError
        Less is free.
    """
    for folder in folders:
        free_gb = shutil.disk_usage(folder).free / 1e9
        if free_gb < least_gb:
            raise UserError(
                f"{folder} has {free_gb:.2f} GB free and a run wants {least_gb:g}; "
                "remove what old runs left below data/artifacts and reports"
            )


def notebook_path(root, stem):
    """Return where the notebook `stem` lives."""
    return root / "notebooks" / f"{stem}.ipynb"


def reports_folder(root, run_id):
    """Return the folder of a run's executed notebooks, HTML pages and `run.json`."""
    return root / "reports" / run_id


def run_artifacts(root, run_id):
    """Return the folder of what a run's notebooks leave."""
    return root / "data" / "artifacts" / run_id


def artifacts_folder(root, run_id, stem):
    """Return the folder where notebook `stem` leaves its files in run `run_id`."""
    return run_artifacts(root, run_id) / stem
