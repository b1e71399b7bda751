"""Processes named so that a reused number or a turned clock deceives nobody: which one runs, and what it holds."""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path


def describe_process(pid=None):
    """Return what tells a process from every other.

    Parameters
    ----------
    pid : int, optional
        Default this process.

    Returns
    -------
    dict
        `pid`, `host`, and `start`: on Linux the boot's id and the clock ticks from
        the boot to the start (a wall clock may be set, this one not), elsewhere the
        time of creation; None where there is no such process.
    """
    pid = os.getpid() if pid is None else pid
    return {"pid": pid, "host": socket.gethostname(), "start": _start_of(pid)}


def is_alive(process):
    """Tell whether a process that `describe_process` described still runs.

    Returns
    -------
    bool or None
        None where it cannot be told: the process is another host's.
    """
    if process.get("host") != socket.gethostname():
        return None
    return process.get("start") is not None and _start_of(process["pid"]) == process["start"]


def end_process(process, seconds=5.0):
    """End a process of this host that `describe_process` described, if it still runs: asked first, then killed."""
    if not process or not is_alive(process):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], number)
        deadline = time.monotonic() + seconds
        while is_alive(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not is_alive(process):
            return


def measure_memory(pid):
    """Return the resident memory of a process and those it started, bytes; 0 where it is gone."""
    import psutil

    n_bytes = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                n_bytes += process.memory_info().rss
    return n_bytes


def memory_limits():
    """Return (bytes in all, bytes free): the machine's, or the container's where that is less."""
    import psutil

    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or "max"
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        total, free = min(total, limit), min(free, max(limit - used, 0))
    return total, free


def count_oom_kills():
    """Return how often the kernel of the system has killed for want of memory here; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path("/sys/fs/cgroup/memory.events").read_text().split()
        return int(dict(zip(lines[::2], lines[1::2], strict=True))["oom_kill"])
    return 0


def _start_of(pid):
    """Return when a living process started, as text; None where there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _creation_time(pid)
    try:
        # The name, in brackets, may hold anything; after it come the state (3) and, as field 22, the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def _creation_time(pid):
    import psutil

    with contextlib.suppress(psutil.Error):
        return f"{psutil.Process(pid).create_time():.2f}"
    return None
