"""A sweep drawn: the best arm on top and thick, every mark where its number says, every value named on its axis."""

import pandas as pd
import pytest

from moola_lib.figures.sweeps import N_DRAWN, arms_figure, parallel_figure, parameter_figure
from moola_lib.figures.theme import ORANGE

ARMS = pd.DataFrame(
    {"arm": ["a", "b", "c"], "mean": [0.9, 0.6, 0.5], "low": [0.8, 0.5, 0.4], "high": [1.0, 0.7, 0.6]}
).assign(rate=[1e-3, 1e-4, 1e-3], mode=["ema", "ema", "uncertainty_bounded"])
RUNS = pd.DataFrame({"arm": list("aabc"), "value": [0.85, 0.95, 0.6, float("nan")]})


def test_arms_stand_in_their_order_with_their_intervals_and_runs():
    figure = arms_figure(ARMS, RUNS, ["rate", "mode"], metric="hits", title="t", luck=(0.6, 0.8))
    dots, means = figure.data
    assert list(dots.x) == [0.85, 0.95, 0.6] and list(dots.y) == [0, 0, 1]
    assert list(means.x + means.error_x.array) == pytest.approx([1.0, 0.7, 0.6])
    assert list(means.x - means.error_x.arrayminus) == pytest.approx([0.8, 0.5, 0.4])
    low, high = figure.layout.yaxis.range
    assert low > high, "the first is on top"
    assert means.marker.color[0] == ORANGE and ORANGE not in means.marker.color[1:]
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (0.6, 0.8)
    assert "0.001 · ema" in figure.layout.yaxis.ticktext


def test_of_many_arms_the_best_are_drawn():
    many = pd.concat([ARMS] * 20, ignore_index=True).assign(arm=[f"arm {k}" for k in range(60)])
    figure = arms_figure(many, RUNS.iloc[:0], ["rate"], metric="hits", title="t")
    assert len(figure.data[1].x) == N_DRAWN and figure.layout.shapes == ()


def test_parallel_coordinates_end_at_the_figure_with_the_best_on_top():
    figure = parallel_figure(ARMS, ["rate", "mode"], metric="hits", title="t")
    ends = {trace.hovertext.partition(":")[0]: trace.y[-1] for trace in figure.data}
    assert ends == pytest.approx({"a": 1.0, "b": 0.25, "c": 0.0})
    best = figure.data[-1]
    assert best.line.color == ORANGE and best.line.width > max(trace.line.width for trace in figure.data[:-1])
    named = {(note.x, note.text.replace("<br>", "")) for note in figure.layout.annotations}
    assert named == {(0, "0.0001"), (0, "0.001"), (1, "ema"), (1, "uncertainty_bounded"), (2, "0.5"), (2, "0.9")}
    by_arm = {trace.hovertext[0]: trace.y for trace in figure.data}
    assert by_arm["a"][1] != by_arm["b"][1], "lines through one value stay apart"
    assert abs(by_arm["a"][1] - by_arm["b"][1]) < 0.1


def test_parallel_coordinates_of_equal_arms_can_be_drawn():
    figure = parallel_figure(ARMS.assign(mean=0.5), ["rate", "mode"], metric="hits", title="t")
    assert {trace.y[-1] for trace in figure.data} == {0.5}


def test_along_a_parameter_stand_its_arms_and_their_mean():
    figure = parameter_figure(ARMS, "rate", metric="hits")
    dots, line = figure.data
    assert list(dots.x) == [1e-3, 1e-4, 1e-3] and list(dots.y) == [0.9, 0.6, 0.5]
    assert list(line.x) == [1e-4, 1e-3] and list(line.y) == pytest.approx([0.6, 0.7])
    assert figure.layout.xaxis.type == "log"
    words = parameter_figure(ARMS, "mode", metric="hits")
    assert words.layout.xaxis.type == "category" and list(words.data[1].x) == ["ema", "uncertainty_bounded"]
