"""Being stopped: the first signal lets a notebook clean up, the second does not wait."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def signals_interrupt(on_second):
    """Treat SIGTERM and a closed terminal like Ctrl-C, so that kernels stop and the record is written.

    SIGINT too where it is ignored, as it is in what a shell starts in the background;
    SIGHUP not where it is ignored, as `nohup` does.

    Parameters
    ----------
    on_second : callable
        Called at every further signal, in place of a second interrupt: what is
        being written is written, and nothing more is waited for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_stopping = False

    def interrupt(number, frame):
        nonlocal is_stopping
        if is_stopping:
            on_second()
            return
        is_stopping = True
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
