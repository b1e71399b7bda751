"""Runs drawn beside each other: one colour a run, whatever the figure, and every mark where its number says."""

import pandas as pd
import pytest

from moola_lib.figures.comparison import LABEL_LETTERS, run_curves_figure, run_intervals_figure

RUNS = ["base", "one", "two"]
TABLE = pd.DataFrame({"difference": [0.1, -0.2], "low": [0.0, -0.3], "high": [0.3, 0.1]}).assign(
    meaning=["hits", "a figure with a rather long name"]
)


def test_a_run_has_one_colour_in_every_figure():
    curves = run_curves_figure({run: [([1, 2], [1, 0.5])] * 2 for run in RUNS}, RUNS, title="t")
    marks = run_intervals_figure({"two": TABLE}, RUNS, column="difference", title="t", x="x")
    colours = {trace.name: trace.line.color for trace in curves.data}
    assert len(set(colours.values())) == 3 and marks.data[0].marker.color == colours["two"]
    assert [trace.showlegend for trace in curves.data] == [True, False] * 3


def test_marks_and_their_intervals_are_the_numbers():
    figure = run_intervals_figure({"one": TABLE, "two": TABLE}, RUNS, column="difference", title="t", x="better by")
    for trace in figure.data:
        assert list(trace.x) == [0.1, -0.2]
        assert list(trace.x + trace.error_x.array) == pytest.approx([0.3, 0.1])
        assert list(trace.x - trace.error_x.arrayminus) == pytest.approx([0.0, -0.3])
    assert (figure.data[0].y != figure.data[1].y).all(), "side by side"
    assert max(len(line) for text in figure.layout.yaxis.ticktext for line in text.split("<br>")) <= LABEL_LETTERS
