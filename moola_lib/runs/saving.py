"""Papermill taught to save well: whole notebooks only, soon after output came, and seldom where it is costly."""

import asyncio
import logging
import time

from moola_lib.files import write_text

ENGINE_NAME = "moola"
SECONDS_BETWEEN_SAVES = 2.0
MOST_SHARE_OF_TIME = 0.05  # a notebook with large outputs is saved less often


def prepare_papermill():
    """Register, once, a handler that never leaves half a notebook, and the engine `moola`.

    The engine takes `on_cell`, called with (index, n_cells) before each cell.
    """
    from nbclient.util import run_sync
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.iorw import LocalHandler, papermill_io
    from papermill.log import logger

    logger.setLevel(logging.CRITICAL)  # what goes wrong is said by `execution`
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # after an interrupt nobody waits for nbclient's tasks
    if ENGINE_NAME in papermill_engines._engines:
        return

    class AtomicHandler(LocalHandler):
        """Papermill's own writes in place: killed while saving, it leaves an empty file."""

        def write(self, buf, path):
            write_text(path, buf)

    class SavingClient(PapermillNotebookClient):
        """Saves what a cell has shown while it still runs, silent or not."""

        async def async_execute_cell(self, cell, cell_index, **kwargs):
            async def save_in_turn():
                await asyncio.sleep(SECONDS_BETWEEN_SAVES / 2)
                while isinstance(self.nb_man.save, _Saver):  # not once an interrupt has ended the notebook
                    self.nb_man.save()
                    await asyncio.sleep(SECONDS_BETWEEN_SAVES / 2)

            saving = asyncio.ensure_future(save_in_turn())
            try:
                return await super().async_execute_cell(cell, cell_index, **kwargs)
            finally:
                saving.cancel()
                error = saving.exception() if saving.done() and not saving.cancelled() else None
                if isinstance(error, Exception):  # a full disk; an interrupt has gone its own way
                    raise error

        execute_cell = run_sync(async_execute_cell)

        def process_message(self, *arguments, **kwargs):
            self.nb_man.save.has_news = True
            return super().process_message(*arguments, **kwargs)

    class SavingEngine(NBClientEngine):
        """Tells which cell starts, and saves in its own time."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, on_cell, execution_timeout=None, **kwargs):
            start, save_now = nb_man.cell_start, nb_man.save
            nb_man.save = _Saver(save_now)

            def announce(cell, cell_index=None, **more):
                on_cell(cell_index, len(nb_man.nb.cells))
                nb_man.save.has_news = True
                start(cell, cell_index=cell_index, **more)

            nb_man.cell_start = announce
            for name in ("input_path", "log_output", "start_timeout"):
                kwargs.pop(name, None)
            try:
                SavingClient(
                    nb_man, kernel_name=kernel_name, timeout=execution_timeout, startup_timeout=60, log=logger, **kwargs
                ).execute()
            finally:
                nb_man.save = save_now  # papermill's last word is saved, however soon it comes

    # "/" and not "local": papermill picks by how the path starts, and ours are absolute.
    papermill_io.register("/", AtomicHandler())
    papermill_engines.register(ENGINE_NAME, SavingEngine)


class _Saver:
    """Saves when there is news and it is time: time that no clock can turn back."""

    def __init__(self, save):
        self._save, self._due, self.has_news = save, 0.0, True

    def __call__(self, **kwargs):
        began = time.monotonic()
        if not self.has_news or began < self._due:
            return
        self._save()
        self.has_news = False
        ended = time.monotonic()
        self._due = ended + max(SECONDS_BETWEEN_SAVES, (ended - began) / MOST_SHARE_OF_TIME)
