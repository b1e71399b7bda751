"""Features of five years of bars: one compiled pass against other ways to them, and against moving the bytes."""

import importlib.util
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.features_children import FirstCalls, lacks_peak, peak_bytes
from benchmarks.inputs import five_years, five_years_of_features
from benchmarks.runner import Benchmark

SLICE_BARS = 2760  # two sessions of plain Python, about 10 ms
SLICE_WINDOWS = 20
WINDOW_BARS = 105


STREAMED_BARS = 20_000


class Meter:
    """A clock for what is not the time of this process: bytes, or seconds of another."""

    def __init__(self):
        self.total = 0.0

    def __call__(self):
        return self.total

    def add(self, amount):
        """Count what a work used; works return the number of units, here always one."""
        self.total += amount
        return 1


METER = Meter()


def build_against_copy(**options):
    """Build the table; copy its input and output bytes."""
    frame = five_years().frame
    prices = [frame[name].to_numpy() for name in ("open", "high", "low", "close")]
    values = five_years_of_features().values

    def copy():
        copies = [*(series.copy() for series in prices), values.copy()]
        return len(copies[-1])

    return partial(_build, **options), copy


def build_against_polars():
    """Build the table; read the bars' parquet file with polars on one thread."""
    os.environ["POLARS_MAX_THREADS"] = "1"  # read when polars is first imported
    import polars

    from moola_lib.market.bars import save_bars

    folder = tempfile.TemporaryDirectory(prefix="moola-bench-")
    path = Path(folder.name) / "bars.parquet"
    save_bars(five_years(), path)

    def read(_folder=folder):  # which lives as long as this function
        return len(polars.read_parquet(path))

    return _build, read


def build_against_pandas():
    """Build the table; compute it in pandas, grouped by segment, with a compiled zigzag."""
    import numpy as np

    from benchmarks.features_pandas import relativity11
    from moola_lib.market import segment_starts

    frame = five_years().frame
    starts = segment_starts(frame)
    found = np.abs(relativity11(frame, starts).to_numpy() - five_years_of_features().values).max()
    assert found < 1e-6, f"the reference computes something else: {found}"
    return _build, lambda: len(relativity11(frame, starts))


def stream_against_json():
    """Stream bars; write each as JSON and read it again, as any feed must."""
    from moola_lib.features import FeatureStream

    frame = five_years().frame.iloc[:STREAMED_BARS]
    names = ("open", "high", "low", "close")
    bars = list(zip(*(frame[name].tolist() for name in names), frame.index, strict=True))
    texts = [{**dict(zip(names, bar, strict=False)), "ts": bar[4].isoformat()} for bar in bars]

    def stream():
        update = FeatureStream().update
        for bar in bars:
            update(*bar)
        return len(bars)

    def round_trip():
        for text in texts:
            json.loads(json.dumps(text))
        return len(texts)

    return stream, round_trip


def peak_against_table():
    """Peak memory that building adds to a process; bytes of the table's values."""
    n_bytes = five_years_of_features().values.nbytes
    return lambda: METER.add(peak_bytes()), lambda: METER.add(n_bytes)


def stored_against_windows():
    """Bytes of the stored table; bytes of the array of all its windows, which was stored before."""
    table = five_years_of_features()

    def store():
        with tempfile.TemporaryDirectory() as folder:
            table.save(folder, bars_fingerprint="")
            return METER.add(sum(path.stat().st_size for path in Path(folder).iterdir()))

    return store, lambda: METER.add(table.values.nbytes * WINDOW_BARS)


def first_call_against_one_line(is_cached):
    """First call of our kernels in a fresh process; that of a compiled function of one line."""
    calls = FirstCalls(is_cached)
    return tuple(partial(_count_seconds, calls, which) for which in ("ours", "one line"))


def _count_seconds(calls, which):
    return METER.add(calls.seconds(which))


def build_against_python():
    """Build the table; transcribe the spec bar by bar in plain Python."""
    from moola_lib.market import segment_starts

    frame = five_years().frame.iloc[:SLICE_BARS]
    reference, starts = _reference(), segment_starts(frame)

    def transcribe():
        return len(reference.relativity11(*reference.prices_of(frame), starts))

    return _build, transcribe


def build_against_python_by_window():
    """Build the table, which serves every window; transcribe each window for itself, as was done before."""
    frame = five_years().frame
    reference = _reference()
    windows = [reference.prices_of(frame.iloc[t : t + WINDOW_BARS]) for t in range(SLICE_WINDOWS)]

    def transcribe():
        for prices in windows:
            reference.relativity11(*prices, [0])
        return len(windows)

    return _build, transcribe


def _build(**options):
    from moola_lib.features import build_features

    return len(build_features(five_years(), **options))


def _lacks_polars():
    return "" if importlib.util.find_spec("polars") else "polars is not installed (extra: bench)"


def _lacks_cores():
    return "" if (os.cpu_count() or 1) >= 2 else "one core only: two threads need two"


def _reference():
    """Return the transcription that the feature tests trust."""
    name, path = "feature_reference", Path(__file__).parents[1] / "tests" / "feature_reference.py"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


BENCHMARKS = [
    Benchmark("build 1.8 M bars: time over copying the same bytes in and out", "≤ 2.5", build_against_copy),
    Benchmark(
        "build 1.8 M bars with two threads: wall time over copying the same bytes in and out",
        "≤ 1.3",
        partial(build_against_copy, n_threads=2),
        clock=time.perf_counter,
        missing=_lacks_cores,
    ),
    Benchmark(
        "build the older set of 1.8 M bars: time over copying the same bytes in and out",
        "≤ 4",
        partial(build_against_copy, feature_set="relative_transform11"),
    ),
    Benchmark(
        "build 1.8 M bars: time over polars reading them from parquet, one thread each",
        "≤ 1.5",
        build_against_polars,
        missing=_lacks_polars,
    ),
    Benchmark("build 1.8 M bars: times faster than pandas with a compiled zigzag", "≥ 10", build_against_pandas),
    Benchmark("build 1.8 M bars: times faster per bar than plain Python", "≥ 150", build_against_python),
    Benchmark(
        "build 1.8 M bars: times faster per window than plain Python window by window",
        "≥ 10,000",
        build_against_python_by_window,
    ),
    Benchmark("stream one bar: time over a JSON round trip of it", "≤ 3", stream_against_json),
    Benchmark(
        "build 1.8 M bars: peak memory added over the table's bytes",
        "≤ 1.3",
        peak_against_table,
        clock=METER,
        missing=lacks_peak,
    ),
    Benchmark(
        "stored bytes of 1.8 M bars: times fewer than the array of all windows",
        "≥ 100",
        stored_against_windows,
        clock=METER,
    ),
    Benchmark(
        "first call that compiles: time over that of a function of one line",
        "≤ 8",
        partial(first_call_against_one_line, False),
        clock=METER,
    ),
    Benchmark(
        "first call from the cache on disk: time over that of a function of one line",
        "≤ 1.2",
        partial(first_call_against_one_line, True),
        clock=METER,
    ),
]
