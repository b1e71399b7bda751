"""Figures of the loss balance: what is drawn is what the frames say."""

import itertools

import numpy as np
import pandas as pd
import pytest

from moola_lib.figures.balance import critical_difference_figure, pareto_figure, record_figure, reweighed_figure
from moola_lib.models.jade import TASKS


def record(*steps):
    """A record with the given gradient shares by step, in the order of TASKS; loss shares are a quarter each."""
    rows = [(k, task, 0.25, share) for k, step in enumerate(steps) for task, share in zip(TASKS, step, strict=True)]
    return pd.DataFrame(rows, columns=["step", "task", "loss_share", "gradient_share"])


ONE = record((0.7, 0.1, 0.1, 0.1), (0.5, 0.3, 0.1, 0.1))
TWO = record((0.1, 0.8, 0.05, 0.05))


def test_bars_are_means_over_the_record_pointers_first():
    figure = reweighed_figure({"one": ONE, "two": TWO})
    loss, gradient = figure.data[:4], figure.data[4:]
    assert [bar.name for bar in loss] == [bar.name for bar in gradient] == ["pointers", "type", "inside", "countdown"]
    assert list(gradient[0].y) == ["one", "two"]
    np.testing.assert_allclose(gradient[0].x, [0.2, 0.8])
    np.testing.assert_allclose(gradient[1].x, [0.6, 0.1])
    np.testing.assert_allclose([bar.x for bar in loss], 0.25)
    assert [bar.showlegend for bar in figure.data] == [True] * 4 + [False] * 4


def test_a_record_is_two_bars_and_its_lines():
    figure = record_figure(ONE)
    bars = {trace.name: trace for trace in figure.data if trace.type == "bar"}
    lines = {trace.name: trace for trace in figure.data if trace.type == "scatter"}
    np.testing.assert_allclose(bars["type"].x, [0.25, 0.6])
    assert list(lines["type"].x) == [0, 1] and list(lines["type"].y) == [0.7, 0.5]
    assert [shape.y0 for shape in figure.layout.shapes] == [0.05]


def sweep(**metrics):
    """A weight sweep: by metric (values by weight 0.01, 1, 100; is_higher_better)."""
    rows = [
        (weight, name, f"{name} in words", value, value - 0.01, value + 0.02, up)
        for name, (values, up) in metrics.items()
        for weight, value in zip((0.01, 1.0, 100.0), values, strict=True)
    ]
    columns = ["pointer_weight", "metric", "meaning", "value", "low", "high", "is_higher_better"]
    return pd.DataFrame(rows, columns=columns)


def test_a_sweep_is_joined_in_the_order_of_the_weight():
    frame = sweep(hit3=((0.2, 0.5, 0.4), True), auc=((0.9, 0.8, 0.6), True)).sample(frac=1, random_state=3)
    line = pareto_figure(frame, against="hit3").data[0]
    assert list(line.x) == [0.2, 0.5, 0.4] and list(line.y) == [0.9, 0.8, 0.6]
    assert list(line.text) == ["0.01", "1", "100"] and list(line.customdata) == [0.01, 1.0, 100.0]
    np.testing.assert_allclose(line.error_x.array, 0.02)
    np.testing.assert_allclose(line.error_y.arrayminus, 0.01)


@pytest.mark.parametrize(("values", "up"), [((0.9, 0.8, 0.6), True), ((0.1, 0.2, 0.4), False)])
def test_points_on_the_front_are_full(values, up):
    """Weight 100 is worse than weight 1 in both metrics, whichever way the second counts."""
    figure = pareto_figure(sweep(hit3=((0.2, 0.5, 0.4), True), other=(values, up)))
    assert list(figure.data[0].marker.symbol) == ["circle", "circle", "circle-open"]
    assert (figure.layout.yaxis.autorange == "reversed") is not up
    assert figure.layout.annotations[0].text == f"other in words{'' if up else ', less is better'}"


def test_every_other_metric_has_a_facet():
    figure = pareto_figure(sweep(a=((1, 2, 3), True), b=((1, 2, 3), True), c=((3, 2, 1), False)), against="b")
    assert [note.text for note in figure.layout.annotations] == ["a in words", "c in words, less is better"]
    assert figure.layout.xaxis2.title.text == "b in words"


def test_points_that_lie_on_each_other_share_one_label():
    line = pareto_figure(sweep(a=((0.1, 0.1001, 0.5), True), b=((0.5, 0.5, 0.1), True))).data[0]
    assert list(line.text) == ["0.01", "", "100"]


def joined(figure):
    """Pairs of ranks that a bar spans."""
    return {tuple(trace.x) for trace in figure.data if trace.line.width == 5}


def test_bars_join_exactly_what_differs_by_less_than_the_critical_difference():
    ranks = pd.Series({"d": 4.5, "a": 1.0, "c": 2.6, "b": 1.8})
    figure = critical_difference_figure(ranks, 1.0)
    assert joined(figure) == {(1.0, 1.8), (1.8, 2.6)}
    assert list(figure.layout.yaxis.ticktext) == ["a", "b", "c", "d"]
    for one, other in itertools.combinations(ranks, 2):
        is_joined = any(low <= min(one, other) and max(one, other) <= high for low, high in joined(figure))
        assert is_joined is (abs(one - other) < 1.0)


@pytest.mark.parametrize(("difference", "spans"), [(0.1, set()), (9.0, {(1.0, 3.0)}), (1.0, set())])
def test_none_all_and_the_edge_itself(difference, spans):
    assert joined(critical_difference_figure(pd.Series([1.0, 2.0, 3.0], ["a", "b", "c"]), difference)) == spans
