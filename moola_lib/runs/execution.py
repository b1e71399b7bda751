"""Execute one notebook through papermill, and say in one sentence why it failed.

Papermill's own metadata says "completed" for a killed kernel, a timeout and an
interrupt, so nothing here reads it.
"""

import contextlib
import json
import logging
import re
import threading

from moola_lib.errors import UserError
from moola_lib.files import read_json, write_json, write_text
from moola_lib.runs.project import notebook_path
from moola_lib.runs.record import utc_now


def execute_notebook(root, stem, parameters, folder, on_cell):
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

    Returns
    -------
    dict or None
        None when every cell ran. Else `stem`, `cell` (1-based, in the source
        notebook), `source` (its first line), `ename`, `evalue`, `log`, and
        `message`, a sentence.

    Raises
    ------
    KeyboardInterrupt
        Interrupted, here or by the terminal's Ctrl-C in the kernel.
    UserError
        The notebook is not a readable notebook.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    _prepare_papermill()
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
    with open(log_path, "a", encoding="utf-8") as log:
        log.write(f"\n[{utc_now()}] {stem} started\n")
        log.flush()
        try:
            papermill.execute_notebook(
                # Papermill formats both paths: a brace in a folder's name must be doubled.
                _escaped(source),
                _escaped(saved),
                parameters=parameters,
                engine_name="moola",
                on_cell=notice,
                kernel_name="python3",
                cwd=str(root / "notebooks"),
                progress_bar=False,
                stdout_file=log,
                stderr_file=log,
                kernel_manager_class=_kernel_manager(log),
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
        except DeadKernelError:
            failure = ("DeadKernelError", "the kernel died (killed, out of memory, or crashed)")
        finally:
            if saved.exists():
                _clean_saved(saved)
            log.write(f"[{utc_now()}] {stem} {': '.join(failure or (outcome,))}\n")
    if failure is None:
        return None
    number, line = _cell_in_source(cells, current, bool(parameters))
    return _describe(stem, number, line, *failure, str(log_path.relative_to(root)))


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
        for line in complete.splitlines():
            report(json.loads(line))
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
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise UserError(f"{path} is not a notebook")
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


def _prepare_papermill():
    """Register, once, a handler that never leaves half a notebook, and an engine that reports."""
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.iorw import LocalHandler, papermill_io
    from papermill.log import logger

    logger.setLevel(logging.ERROR)  # it warns of what is checked here before it starts
    if "moola" in papermill_engines._engines:
        return

    class AtomicHandler(LocalHandler):
        """Papermill's own writes in place: killed while saving, it leaves an empty file."""

        def write(self, buf, path):
            write_text(path, buf)

    class ReportingEngine(NBClientEngine):
        """Tells which cell starts."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, on_cell, **kwargs):
            start = nb_man.cell_start

            def announce(cell, cell_index=None, **more):
                on_cell(cell_index, len(nb_man.nb.cells))
                start(cell, cell_index=cell_index, **more)

            nb_man.cell_start = announce
            super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    # "/" and not "local": papermill picks by how the path starts, and ours are absolute.
    papermill_io.register("/", AtomicHandler())
    papermill_engines.register("moola", ReportingEngine)


def _kernel_manager(log):
    """Return a kernel manager whose kernels' last words (a crash, a stop) go to the log."""
    from jupyter_client import AsyncKernelManager

    class LoggedKernelManager(AsyncKernelManager):
        async def start_kernel(self, **kwargs):
            return await super().start_kernel(stdout=log, stderr=log, **kwargs)

    return LoggedKernelManager


def _clean_saved(path):
    """Drop papermill's error banners (the page has its own) and this machine's paths."""
    notebook = read_json(path)
    notebook["cells"] = [cell for cell in notebook["cells"] if "papermill-error-cell-tag" not in _tags(cell)]
    for key in ("input_path", "output_path"):
        notebook["metadata"].get("papermill", {}).pop(key, None)
    write_json(path, notebook)
