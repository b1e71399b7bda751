"""Features of five years of bars: one compiled pass against plain Python, and against moving the bytes."""

import importlib.util
import sys
from pathlib import Path

from benchmarks.inputs import five_years, five_years_of_features
from benchmarks.runner import Benchmark

SLICE_BARS = 2760  # two sessions of plain Python, about 10 ms
SLICE_WINDOWS = 20
WINDOW_BARS = 105


def build_against_copy():
    """Build the table; copy its input and output bytes."""
    frame = five_years().frame
    prices = [frame[name].to_numpy() for name in ("open", "high", "low", "close")]
    values = five_years_of_features().values

    def copy():
        copies = [*(series.copy() for series in prices), values.copy()]
        return len(copies[-1])

    return _build, copy


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


def _build():
    from moola_lib.features import build_features

    return len(build_features(five_years()))


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
    Benchmark("build 1.8 M bars: times faster per bar than plain Python", "≥ 150", build_against_python),
    Benchmark(
        "build 1.8 M bars: times faster per window than plain Python window by window",
        "≥ 10,000",
        build_against_python_by_window,
    ),
]
