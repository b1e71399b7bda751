"""Being stopped: the first signal lets a notebook clean up, the second does not wait."""

import contextlib
import os
import signal
import threading

SECONDS_TO_BE_HEARD = 1.0


class Stop:
    """A wish to stop; whoever acts on it calls `hear`, so that it is not repeated.

    Attributes
    ----------
    is_wished, is_heard : bool
    """

    def __init__(self):
        self.is_wished = self.is_heard = False

    def hear(self):
        """Say that the run is stopping, if anybody wished it."""
        self.is_heard = self.is_wished


@contextlib.contextmanager
def signals_interrupt(stop, on_second):
    """Treat SIGTERM and a closed terminal like Ctrl-C, so that kernels stop and the record is written.

    SIGINT too where it is ignored, as it is in what a shell starts in the background;
    SIGHUP not where it is ignored, as `nohup` does. Python drops an exception that
    is raised inside a garbage collector's callback: the interrupt is repeated until
    it is heard.

    Parameters
    ----------
    stop : Stop
    on_second : callable
        Called at a signal once the stop is heard, in place of a second interrupt:
        what is being written is written, and nothing more is waited for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        if stop.is_heard:
            on_second()
            return
        stop.is_wished = True
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    is_over = threading.Event()
    repeating = threading.Thread(target=_repeat, args=(stop, is_over), daemon=True)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    repeating.start()
    try:
        yield
    finally:
        is_over.set()
        repeating.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _repeat(stop, is_over):
    """Interrupt again while a wish is not heard."""
    was_wished = False
    while not is_over.wait(SECONDS_TO_BE_HEARD):
        if was_wished and not stop.is_heard:
            os.kill(os.getpid(), signal.SIGINT)
        was_wished = stop.is_wished
