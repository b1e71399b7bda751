"""The kernel behind a notebook: its last words, the memory it took, and what it died of."""

import contextlib
import os
import signal
import subprocess
import threading

from moola_lib.runs.processes import count_oom_kills, measure_memory, memory_limits

SECONDS_BETWEEN_SAMPLES = 0.5
# Half of it before SIGTERM follows the interrupt: a checkpoint of a large model takes its time.
SHUTDOWN_SECONDS = 60.0


class KernelWatch:
    """Watch one kernel while it lives.

    Parameters
    ----------
    on_start : callable(int), optional
        Called with its process id.
    on_shutdown : callable(), optional
        Called when it is about to be shut down.
    on_memory : callable(int), optional
        Called with the bytes held, at each look, from the thread that looks.

    Attributes
    ----------
    memory, peak_memory : int
        Bytes held at the last look and at most, its worker processes included.
    """

    def __init__(self, on_start=None, on_shutdown=None, on_memory=None):
        self.memory = self.peak_memory = 0
        self._on_start = on_start or (lambda pid: None)
        self.on_shutdown = on_shutdown or (lambda: None)
        self._on_memory = on_memory or (lambda n_bytes: None)
        self._process, self._pid, self._free = None, None, None
        self._oom_kills = count_oom_kills()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def start(self, process):
        """Begin to watch a started kernel, a `subprocess.Popen`."""
        self._process, self._pid = process, process.pid
        self._on_start(process.pid)
        self._thread.start()

    def stop(self):
        """End the watch."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def kill(self):
        """Kill the kernel, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def describe_death(self):
        """Return what the kernel died of and the memory seen, as one sentence."""
        code = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout=2)
        cause = _CAUSES.get(code)
        if count_oom_kills() > self._oom_kills:
            cause = "out of memory (killed by the system)"
        elif cause is None:
            cause = f"by signal {-code}" if code is not None and code < 0 else f"it ended itself, exit code {code}"
        total, free = memory_limits()
        free = free if self._free is None else self._free
        return (
            f"the kernel died: {cause}; it held {_gb(self.memory)} when last seen, at most {_gb(self.peak_memory)}, "
            f"with {_gb(free)} of {_gb(total)} free"
        )

    def _sample(self):
        while True:
            n_bytes = measure_memory(self._pid)
            if n_bytes:  # the dead hold nothing
                self.memory, self.peak_memory = n_bytes, max(self.peak_memory, n_bytes)
                self._free = memory_limits()[1]
                self._on_memory(n_bytes)
            if self._stop.wait(SECONDS_BETWEEN_SAMPLES):
                return


_CAUSES = {
    -signal.SIGKILL: "killed (SIGKILL), as the system does when memory runs out",
    -signal.SIGSEGV: "a segmentation fault (SIGSEGV)",
    -signal.SIGBUS: "a bus error (SIGBUS): shared memory or the disk may be full",
    -signal.SIGABRT: "aborted (SIGABRT)",
    -signal.SIGTERM: "terminated (SIGTERM)",
}


def kernel_manager(log, watch):
    """Return a kernel manager whose kernels' last words (a crash, a stop) go to a log.

    Parameters
    ----------
    log : text file
    watch : KernelWatch
    """
    from jupyter_client import AsyncKernelManager

    class WatchedKernelManager(AsyncKernelManager):
        async def start_kernel(self, **kwargs):
            self.shutdown_wait_time = SHUTDOWN_SECONDS
            await super().start_kernel(stdout=log, stderr=log, **kwargs)
            watch.start(self.provisioner.process)

        async def shutdown_kernel(self, *arguments, **kwargs):
            watch.on_shutdown()
            await super().shutdown_kernel(*arguments, **kwargs)

    return WatchedKernelManager


def _gb(n_bytes):
    return f"{n_bytes / 1e9:.1f} GB"
