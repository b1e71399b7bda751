"""Importing five years of bars against pyarrow alone, zooming them against pandas, the oracle against numpy."""

import tempfile
from functools import cache
from pathlib import Path

from benchmarks.inputs import five_years
from benchmarks.runner import Benchmark


def import_csv_against_reader():
    """Load a CSV file and write it as parquet, all checks and the report included; parse it with pyarrow's reader.

    Both use pyarrow's threads; process time counts those of all.
    """
    import pyarrow.csv

    from moola_lib.market import load_bars, save_bars

    path = _folder() / "bars.csv"
    pyarrow.csv.write_csv(_table(), path)

    def ours():
        bars = load_bars(path)
        save_bars(bars, path.with_suffix(".imported"))
        return len(bars)

    def reference():
        return len(pyarrow.csv.read_csv(path))

    return ours, reference


def load_parquet_against_reader():
    """Load a file that `save_bars` wrote; read the same columns into an Arrow table, unchecked."""
    import pyarrow.parquet

    from moola_lib.market import load_bars, save_bars

    path = _folder() / "bars.parquet"
    save_bars(five_years(), path)

    def ours():
        return len(load_bars(path))

    def reference():
        return len(pyarrow.parquet.read_table(path))

    return ours, reference


def zoom_against_pandas():
    """Zoom the overview of five years from everything to a year; group the same year with pandas and draw it.

    Python's part only; the browser's is in the test that zooms in a real JupyterLab.
    """
    import numpy as np
    import plotly.graph_objects as go

    from moola_lib.market import describe_segments
    from moola_lib.widgets.overview import bar_overview

    frame = five_years().frame
    figure = bar_overview(frame, describe_segments(frame), title="five years")
    year = slice(600_000, 960_000)
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}

    def ours():
        figure.layout.xaxis.range = (-0.5, len(frame) - 0.5)
        figure.layout.xaxis.range = (year.start, year.stop)
        return 2

    def reference():
        part = frame.iloc[year]
        candles = part.groupby(np.arange(len(part)) // 600).agg(how)
        prices = {name: candles[name] for name in ("open", "high", "low", "close")}
        return len([go.FigureWidget(go.Candlestick(x=candles.index, **prices))])

    return ours, reference


def oracle_against_numpy():
    """Posteriors of windows of the bare law, compiled; the same forward-backward passes in numpy."""
    from benchmarks.oracle_numpy import span_posterior
    from moola_lib.evaluation import oracle
    from moola_lib.evaluation.likelihoods import bare_log_likelihoods
    from moola_lib.market import REFERENCE, simulate_windows

    windows = simulate_windows(200, seed=17)
    likelihoods = bare_log_likelihoods(windows.log_return, windows.log_range, REFERENCE)

    def ours():
        return len(oracle.posterior(likelihoods))

    def reference():
        for row in range(20):
            span_posterior(likelihoods.outside[row], likelihoods.inside[row], REFERENCE)
        return 20

    return ours, reference


@cache
def _folder_until_exit():
    return tempfile.TemporaryDirectory(prefix="moola-benchmarks-")


def _folder():
    return Path(_folder_until_exit().name)


def _table():
    """Return the bars as an Arrow table with the stamps as first column."""
    import pyarrow

    table = pyarrow.Table.from_pandas(five_years().frame)
    return table.select([table.num_columns - 1, *range(table.num_columns - 1)])


BENCHMARKS = [
    Benchmark(
        "import 1.8 M bars from CSV to parquet: time over pyarrow's CSV reader alone", "≤ 2", import_csv_against_reader
    ),
    Benchmark("load 1.8 M bars from parquet: time over pyarrow's read_table", "≤ 2", load_parquet_against_reader),
    Benchmark("overview of 1.8 M bars: a zoom over grouping and drawing its stretch anew", "≤ 4", zoom_against_pandas),
    Benchmark("oracle's posterior of a window: times faster than numpy", "≥ 5", oracle_against_numpy),
]
