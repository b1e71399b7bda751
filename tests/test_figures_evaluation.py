"""Figures of evaluation take what evaluation gives, and show it."""

import inspect

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from moola_lib.evaluation.alarms import alarm_curve
from moola_lib.evaluation.calibration import reliability_table
from moola_lib.evaluation.metrics import Prediction
from moola_lib.evaluation.permutation import PermutationTest
from moola_lib.evaluation.power import power_table
from moola_lib.evaluation.scores import hit_curve
from moola_lib.figures import evaluation, theme

RNG = np.random.default_rng(1)


@pytest.fixture
def answered(make_windows):
    """Forty windows and answers a few bars off."""
    start = RNG.integers(30, 70, 40)
    windows = make_windows([[(s, s + 9)] for s in start], [0] * 40, days=np.arange(40) // 4)
    p = np.eye(105)[start] * 0.6 + 0.4 / 105
    return windows, Prediction(start=start + RNG.integers(-5, 6, 40), end=start + 9, start_probability=p)


def draw(name, answered):
    curve = hit_curve(*answered, n_bootstrap=50)
    alarms = alarm_curve([RNG.normal(1, 1, 40)], [RNG.normal(0, 1, 200)], np.arange(200) // 10, n_bootstrap=50)
    rows = [(n, arm, n / 200, n / 200 - 0.1, n / 200 + 0.1) for arm in "ab" for n in (139, 20, 40)]
    efficiency = pd.DataFrame(rows, columns=["n_labels", "arm", "value", "low", "high"])
    moves = [(h, meaning, 0.1, 0.0, 0.3) for h in (5, 15, 30) for meaning in ("size", "onward")]
    events = pd.DataFrame(moves, columns=["horizon", "meaning", "difference", "low", "high"])
    return {
        "hit_curves_figure": lambda: evaluation.hit_curves_figure({"a": curve, "b": curve}),
        "reliability_figure": lambda: evaluation.reliability_figure({"a": reliability_table(*answered)}),
        "alarms_figure": lambda: evaluation.alarms_figure({"a": alarms}),
        "events_figure": lambda: evaluation.events_figure(events),
        "labels_needed_figure": lambda: evaluation.labels_needed_figure(power_table([100, 174, 400]), 174),
        "label_efficiency_figure": lambda: evaluation.label_efficiency_figure(efficiency),
        "permutation_figure": lambda: evaluation.permutation_figure(PermutationTest(0.5, RNG.random(99), 0.4, 0.01)),
    }[name]()


NAMES = [
    name
    for name, each in inspect.getmembers(evaluation, inspect.isfunction)
    if each.__module__ == evaluation.__name__ and name.endswith("_figure")
]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_has_traces_a_title_and_the_common_look(name, answered):
    figure = draw(name, answered)
    assert isinstance(figure, go.Figure) and len(figure.data) >= 1
    assert figure.layout.title.text
    assert figure.layout.template.layout.colorway == theme.TEMPLATE.layout.colorway


def test_a_band_lies_around_its_line(answered):
    low, high, line = (np.asarray(draw("hit_curves_figure", answered).data[k].y, float) for k in (1, 0, 2))
    assert (low <= line).all() and (line <= high).all()


def test_arms_are_drawn_from_few_labels_to_many(answered):
    lines = [trace for trace in draw("label_efficiency_figure", answered).data if trace.name]
    assert [trace.name for trace in lines] == ["a", "b"]
    assert list(lines[0].x) == [20, 40, 139]
