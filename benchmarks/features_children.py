"""What only a fresh process can tell: the features' peak memory, and the time of a first call."""

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.inputs import five_years

ROOT = Path(__file__).parents[1]
PRICES = ("open", "high", "low", "close")

PEAK = """
import sys
import numpy as np
import pandas as pd
from moola_lib.features import build_features

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

series = {name: np.load(f"{sys.argv[1]}/{name}.npy") for name in ("open", "high", "low", "close", "ts")}
index = pd.DatetimeIndex(series.pop("ts"), tz="UTC", name="ts")
frame = pd.DataFrame(series, index=index, copy=False)
build_features(frame.iloc[:1000])  # compiled code and libraries are not the table's
before = status("VmRSS")
table = build_features(frame)
print(status("VmHWM") - before)
"""

FIRST_CALL = """
import sys, time
import numba
import numpy as np
from moola_lib.features.sets import describe_set
from moola_lib.features.table import fill_table

@numba.njit(cache=True)
def add_one(x):
    return x + 1.0

prices, starts, described = [np.full(100, 1e4)] * 4, np.array([0]), describe_set()
began = time.perf_counter()
add_one(prices[0]) if sys.argv[1] == "one line" else fill_table(prices, starts, described)
print(time.perf_counter() - began)
"""


@cache
def _bars_folder():
    """Save the series as plain arrays, once a process; the folder goes with it."""
    folder = tempfile.TemporaryDirectory(prefix="moola-bench-")
    frame = five_years().frame
    for name in PRICES:
        np.save(f"{folder.name}/{name}.npy", frame[name].to_numpy())
    np.save(f"{folder.name}/ts.npy", frame.index.tz_localize(None).to_numpy())
    return folder


def peak_bytes():
    """Return the bytes by which building the table raises a process's peak of resident memory."""
    return int(_run(PEAK, _bars_folder().name))


def lacks_peak():
    """Return why the peak cannot be read here, or "" if it can."""
    path = Path("/proc/self/status")
    return "" if path.exists() and "VmHWM" in path.read_text() else "no VmHWM in /proc/self/status"


class FirstCalls:
    """Times of a first call in a fresh process, of our kernels and of a function of one line.

    Parameters
    ----------
    is_cached : bool
        Whether numba finds the compiled code on disk.
    """

    def __init__(self, is_cached):
        self.is_cached = is_cached
        self.folder = tempfile.TemporaryDirectory(prefix="moola-bench-")
        self.script = Path(self.folder.name) / "first_call.py"  # a file, for numba caches no text
        self.script.write_text(FIRST_CALL)

    def seconds(self, which):
        """Return the seconds of the first call of "ours" or of "one line"."""
        with tempfile.TemporaryDirectory(dir=self.folder.name) as fresh:
            kept = f"{self.folder.name}/kept"
            return float(_run(self.script, which, NUMBA_CACHE_DIR=kept if self.is_cached else fresh))


def _run(code, *arguments, **variables):
    command = [str(code)] if isinstance(code, Path) else ["-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [sys.executable, *command, *arguments], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout
