"""`moola label`: a small notebook with the label studio on it, opened in JupyterLab."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import write_json
from moola_lib.runs.project import find_root
from moola_lib.runs.record import notebook_record
from moola_lib.runs.terminal import open_console

DEFAULT_TABLE = Path("data/labels/labels.parquet")
BARS_OF = "01_feature_validation"
TEXT = """# Labels: {name}

Run the cell below (Shift+Enter), then label: the keys are under **?**. Every action is on disk before it counts, so \
there is nothing to save here; after whatever happened, run the cell again and go on."""
CODE = """from moola_lib.market import load_bars
from moola_lib.widgets.studio import label_studio

bars = load_bars({bars!r}{reading})
label_studio({table!r}, bars{options})"""


def open_studio(table=None, *, bars=None, proposals=None, annotator=None, reading=None, launch=None, stream=None):
    """Write the notebook of a label table, and open JupyterLab on it.

    Parameters
    ----------
    table : str or Path, optional
        Default `data/labels/labels.parquet` of the project. The notebook is
        beside it, `labels.ipynb`, and is written anew.
    bars : str or Path, optional
        Default the bars of the newest finished 01_feature_validation.
    proposals : str or Path, optional
        Default: of the rule, from the bars.
    annotator : str, optional
        Default the user's login name.
    reading : dict, optional
        tz, stamp, symbol, scale of `load_bars`.
    launch : callable, optional
        From the command of JupyterLab to its exit code.
    stream : text file, optional
        Default standard output.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    UserError
        There is nothing to label, or no place for the labels; nothing is opened then.
    """
    table = Path(table) if table is not None else find_root() / DEFAULT_TABLE
    bars = Path(bars) if bars is not None else newest_bars(find_root())
    notebook = table.with_suffix(".ipynb")
    _check(table, bars, proposals, reading or {})
    write_notebook(notebook, table, bars, proposals=proposals, annotator=annotator, reading=reading or {})
    open_console(stream).print(f"labels go to {table}; the studio is in {notebook}", markup=False, soft_wrap=True)
    command = [sys.executable, "-m", "jupyter", "lab", str(notebook.resolve())]
    return (launch or _wait_for)(command + _as_root())


def newest_bars(root):
    """Return the bars of the newest finished run of notebook 01.

    Raises
    ------
    UserError
        There is none.
    """
    found = {}
    for path in (root / "data" / "artifacts").glob(f"*/{BARS_OF}/bars.parquet"):
        record = notebook_record(root, path.parent.parent.name, BARS_OF)
        if record is not None:
            found[record.get("finished_at", "")] = path
    if not found:
        raise UserError("there are no bars to label; name a file with --bars, or run `moola run 01` first")
    return found[max(found)]


def write_notebook(path, table, bars, *, proposals=None, annotator=None, reading=None):
    """Write a notebook that opens the studio, atomically.

    Parameters
    ----------
    path : Path
        A notebook that is there is replaced, if it was written by this function.
    table, bars, proposals : str or Path
    annotator : str, optional
    reading : dict, optional

    Raises
    ------
    UserError
        Another notebook lies there.
    """
    if path.exists() and not _is_ours(path):
        raise UserError(f"{path} is a notebook of somebody's; name the label table differently, or move it away")
    given = {"proposals": proposals and str(Path(proposals).resolve()), "annotator": annotator}
    code = CODE.format(
        bars=str(Path(bars).resolve()),
        table=str(Path(table).resolve()),
        reading="".join(f", {name}={value!r}" for name, value in (reading or {}).items()),
        options="".join(f", {name}={value!r}" for name, value in given.items() if value is not None),
    )
    text = {"cell_type": "markdown", "id": "text", "metadata": {}, "source": TEXT.format(name=table.name)}
    cell = {"cell_type": "code", "id": "studio", "metadata": {}, "source": code, "outputs": [], "execution_count": None}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "moola": "label"}
    write_json(path, {"cells": [text, cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def _check(table, bars, proposals, reading):
    """See that the studio would open, while errors are still one sentence."""
    from moola_lib.labels.journal import Journal
    from moola_lib.market import load_bars
    from moola_lib.widgets.studio import label_studio

    if table.suffix != ".parquet":
        raise UserError(f"the label table {table} is no parquet file; give a name that ends in .parquet")
    label_studio(table, load_bars(bars, **reading), proposals, is_headless=True)
    Journal(table, "nobody yet")


def _as_root():
    """Return what JupyterLab wants to hear from root: in a container, and on a rented machine, there is nobody else."""
    return ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []


def _is_ours(path):
    """Return whether a notebook was written here."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"].get("moola") == "label"
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _wait_for(command):
    """Run JupyterLab to its end; Ctrl-C is its own to answer (it asks), a SIGTERM ends it."""
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, before)
