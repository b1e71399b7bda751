"""Execute one notebook through papermill, and say in one sentence why it failed.

Papermill's own metadata says "completed" for a killed kernel, a timeout and an
interrupt, so nothing here reads it.
"""

import contextlib
import re
import threading

from moola_lib.errors import UserError
from moola_lib.files import read_json, write_json
from moola_lib.runs.kernels import KernelWatch, kernel_manager
from moola_lib.runs.leaks import redact
from moola_lib.runs.project import notebook_path
from moola_lib.runs.record import utc_now
from moola_lib.runs.rows import parse_rows
from moola_lib.runs.saving import ENGINE_NAME, prepare_papermill

N_LAST_LINES = 12


def execute_notebook(root, stem, parameters, folder, on_cell, *, watch=None, cell_timeout=None):
    """Execute a notebook; what it did lies in `folder/<stem>.ipynb`, failed or not.

    Parameters
    ----------
    root : Path
    stem : str
    parameters : dict
        Passed to the notebook; JSON-safe values.
    folder : Path
        Takes the executed notebook, and what it printed in `run.log`.
    on_cell : callable
        Called with (index, n_cells) before each cell.
    watch : KernelWatch, optional
    cell_timeout : int, optional
        Seconds a cell may take; default without end.

    Returns
    -------
    dict or None
        None when every cell ran. Else `stem`, `cell` (1-based, in the source
        notebook), `source` (its first line), `ename`, `evalue`, `log` (its place),
        `last_lines` (of the log), and `message`, a sentence. None of them holds the
        value of a key in the environment.

    Raises
    ------
    KeyboardInterrupt
        Interrupted, here or by the terminal's Ctrl-C in the kernel.
    UserError
        The notebook is not a readable notebook.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    prepare_papermill()
    watch = watch or KernelWatch()
    source, saved, log_path = (
        notebook_path(root, stem),
        folder / f"{stem}.ipynb",
        folder / "run.log",
    )
    cells = _read_cells(source, bool(parameters))
    current = 0

    def notice(index, n_cells):
        nonlocal current
        current = index
        on_cell(index, n_cells)

    failure, outcome = None, "interrupted"
    with _open_log(log_path) as log:
        log.write(f"\n[{utc_now()}] {stem} started\n")
        log.flush()
        try:
            papermill.execute_notebook(
                # Papermill formats both paths: a brace in a folder's name must be doubled.
                _escaped(source),
                _escaped(saved),
                parameters=parameters,
                engine_name=ENGINE_NAME,
                on_cell=notice,
                kernel_name="python3",
                cwd=str(root / "notebooks"),
                progress_bar=False,
                stdout_file=log,
                stderr_file=log,
                kernel_manager_class=kernel_manager(log, watch),
                execution_timeout=cell_timeout,
                autosave_cell_every=0,
                store_widget_state=False,
                coalesce_streams=True,
                # The kernel warns about unencrypted TCP at every start; errors still show.
                extra_arguments=["--IPKernelApp.log_level=40"],
            )
            outcome = "finished"
        except papermill.PapermillExecutionError as error:
            log.write(_plain_text("\n".join(error.traceback)) + "\n")
            if error.ename == "KeyboardInterrupt":
                raise KeyboardInterrupt from error
            current, failure = error.cell_index, (error.ename, _plain_text(error.evalue))
        except CellTimeoutError:
            failure = ("CellTimeoutError", f"the cell took longer than {cell_timeout} s (--cell-timeout)")
        except (DeadKernelError, RuntimeError) as error:
            if not isinstance(error, DeadKernelError) and not str(error).startswith(("Kernel died", "Kernel didn't")):
                raise
            failure = ("DeadKernelError", watch.describe_death())
        except (UserError, OSError) as error:  # the disk is full, or no longer to be written
            failure = ("OSError", str(error))
        finally:
            watch.stop()
            watch.kill()  # one that an interrupt left behind
            with contextlib.suppress(OSError):
                log.write(f"[{utc_now()}] {stem} {': '.join(failure or (outcome,))}\n")
                log.flush()
            if saved.exists():
                _clean_saved(saved)
    if failure is None:
        return None
    number, line = _cell_in_source(cells, current, bool(parameters))
    error = _describe(stem, number, line, *failure, str(log_path.relative_to(root)))
    last_lines = _last_lines(log_path, f"] {stem} started")
    return redact({**error, "last_lines": last_lines})


@contextlib.contextmanager
def _open_log(path):
    """Open a log to append to; closing it fails on a full disk, which is said elsewhere."""
    log = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed below)
    try:
        yield log
    finally:
        with contextlib.suppress(OSError):
            log.close()


@contextlib.contextmanager
def follow_rows(path, report):
    """Call `report(row)` for every line appended to a JSON-lines file, twice a second."""
    stop = threading.Event()
    offset = path.stat().st_size if path.exists() else 0

    def read_new(offset):
        if not path.exists():
            return 0
        with open(path, "rb") as stream:
            stream.seek(offset)
            new = stream.read()
        complete = new[: new.rfind(b"\n") + 1]  # the last line may still be growing
        for row in parse_rows(complete):
            report(row)
        return offset + len(complete)

    def watch(offset):
        while not stop.wait(0.5):
            offset = read_new(offset)
        read_new(offset)

    thread = threading.Thread(target=watch, args=(offset,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _read_cells(path, needs_parameters):
    """Return a notebook's cells; refuse one that could not take the parameters given."""
    notebook = read_json(path)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    is_cell = lambda cell: isinstance(cell, dict) and {"cell_type", "source"} <= cell.keys()  # noqa: E731
    if not isinstance(cells, list) or not all(map(is_cell, cells)):
        raise UserError(f"{path} is not a notebook; open it in JupyterLab, or take it from git again")
    if needs_parameters and not any("parameters" in _tags(cell) for cell in notebook["cells"]):
        # Papermill would put them at the top, where the notebook's own cell overrides them.
        raise UserError(f"{path} has no cell tagged 'parameters' to take the values given")
    return notebook["cells"]


def _tags(cell):
    return cell.get("metadata", {}).get("tags", [])


def _cell_in_source(cells, index, is_injected):
    """Return the 1-based number and first line of executed cell `index` in the source notebook.

    Papermill adds one cell after the one tagged `parameters`; the reader will
    look for the failing cell in his own file.
    """
    if is_injected and not any("injected-parameters" in _tags(cell) for cell in cells):
        place = next(i for i, cell in enumerate(cells) if "parameters" in _tags(cell))
        index -= index > place
    lines = "".join(cells[index]["source"]).splitlines()
    line = next((text.strip() for text in lines if text.strip()), "")
    return index + 1, line if len(line) <= 80 else line[:77] + "..."


def _describe(stem, cell, source, ename, evalue, log):
    """Return a failure as the record keeps it, its `message` ready to print."""
    message = f"{stem} stopped at cell {cell} (`{source}`): {ename}: {evalue}; the log is {log}"
    if ename == "UserError":  # already a sentence for the user
        message = f"{evalue} ({stem}, cell {cell})"
    return {
        "stem": stem,
        "cell": cell,
        "source": source,
        "ename": ename,
        "evalue": evalue,
        "log": log,
        "message": message,
    }


def _plain_text(text):
    """Return `text` without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


def _escaped(path):
    return str(path).replace("{", "{{").replace("}", "}}")


def _last_lines(path, beginning):
    """Return the log's last lines since the notebook began, but for the one that says how it ended."""
    with open(path, "rb") as stream:
        stream.seek(max(path.stat().st_size - 65536, 0))
        text = stream.read().decode(errors="replace")
    lines = [line.rstrip() for line in _plain_text(text).splitlines() if line.strip()]
    began = max((number for number, line in enumerate(lines) if line.endswith(beginning)), default=-1)
    return lines[began + 1 : -1][-N_LAST_LINES:]


def _clean_saved(path):
    """Drop papermill's error banners (the page has its own) and this machine's paths; a full disk keeps them."""
    notebook = read_json(path)
    notebook["cells"] = [cell for cell in notebook["cells"] if "papermill-error-cell-tag" not in _tags(cell)]
    for key in ("input_path", "output_path"):
        notebook["metadata"].get("papermill", {}).pop(key, None)
    with contextlib.suppress(UserError):
        write_json(path, notebook)
