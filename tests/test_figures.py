"""Every figure is drawn from a frame or arrays, in the common style."""

import inspect

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from moola_lib.figures import balance, candles, features, labels, market, pretraining, theme, training
from moola_lib.labels import expansion_targets
from moola_lib.models.jade import TASKS

ROOMS = (balance, candles, features, labels, market, pretraining, training)
SHARES = pd.DataFrame([[0.4, 0.1, 0.3, 0.2], [0.1, 0.7, 0.1, 0.1]], index=["a", "b"], columns=TASKS)
LINES = {task: [0.1, 0.2, 0.3] for task in TASKS}
SKILL = pd.DataFrame(
    {
        "mask": ["single bars", "single bars", "3 bars", "3 bars"],
        "feature": ["x", "y", "x", "y"],
        "skill vs mean": [0.2, -9.0, 0.4, np.nan],
        "low vs mean": [0.1, -10.0, -0.1, np.nan],
        "high vs mean": [0.3, -8.0, 0.9, np.nan],
    }
)
PRETEXT = pd.DataFrame({"task": ["expansion", "swing"], "majority": [0.5, 0.3]}).assign(
    **{f"{name}{end}": [0.8 + shift, 0.6 + shift] for name in ("model", "same bar") for end, shift in
       (("", 0.0), (" low", -0.1), (" high", 0.05))}
)  # fmt: skip
SCORE = pd.DataFrame(
    {
        "metric": ["hit3_start", "joint3"],
        "meaning": ["start within 3 bars", "both edges"],
        "value": [0.5, 0.3],
        "low": [0.4, 0.2],
        "high": [0.6, 0.4],
        "constant": [0.2, np.nan],
    }
)
CURVE = pd.DataFrame({"within_bars": range(11), "start": np.linspace(0, 1, 11), "both": np.linspace(0, 0.8, 11)})
MARKS = pd.DataFrame(
    [["regular hours", 9.5, 99.5, ""], ["gap", 119, 121, "10 min"], ["roll", 199.5, 199.5, "roll"]],
    columns=["kind", "x0", "x1", "text"],
)
TICKS = pd.DataFrame({"at": [0, 200], "text": ["5 Mar", "6 Mar"]})
DRIFT = pd.DataFrame(
    {
        "feature": ["a"] * 3 + ["b"] * 3,
        "month": ["2024-01", "2024-02", "2024-03"] * 2,
        "excess": [0.0, 0.05, 0.15, 0.3, 2.0, 0.09],
        "verdict": ["stable", "stable", "shifted", "drifted", "too few rows", "stable"],
    }
)
RELATIONS = pd.DataFrame(
    {
        "feature": ["a", "b"],
        "correlation": [0.2, -0.01],
        "low": [0.1, -0.02],
        "high": [0.25, 0.01],
        "auc": [0.6, 0.49],
        "control_low": [-0.02, -0.03],
        "control_high": [0.03, 0.02],
        "verdict": ["related", "as chance"],
    }
)
RECORD = pd.DataFrame(
    [(step, task, 0.25, 0.25) for step in range(3) for task in TASKS],
    columns=["step", "task", "loss_share", "gradient_share"],
)
SWEEP = pd.DataFrame(
    [(weight, name, name, 0.4, 0.3, 0.5, True) for weight in (0.1, 1.0) for name in ("hit3", "auc")],
    columns=["pointer_weight", "metric", "meaning", "value", "low", "high", "is_higher_better"],
)
RANKS = pd.Series({"fixed": 2.0, "log": 1.4, "famo": 2.6})
GROUPS = pd.DataFrame(
    {"group": ["all", "night"], "windows": [9, 4], "consolidation": [4, 1], "retracement": [3, 3], "none": [2, 0]}
)
SPANS = pd.DataFrame(
    {
        "window_id": ["a", "b"],
        "session_hour": [1.5, 23.0],
        "start": [40, 60],
        "length": [5, 9],
        "label": ["retracement", "consolidation"],
    }
)
PAIRS = pd.DataFrame({"start_difference": [0.0, 2.0, np.nan], "end_difference": [-5.0, 1.0, np.nan]})
AGREEMENT = pd.DataFrame(
    [["recall", 0.7, 0.6, 0.8, 0.2, 40], ["precision", 0.4, 0.3, 0.5, 0.1, 70], ["surges per window", 2, 1, 3, 2, 40]],
    columns=["figure", "value", "low", "high", "chance", "n"],
)
RNG = np.random.default_rng(1)
FIGURES = {
    "class_balance_figure": lambda frame: labels.class_balance_figure(GROUPS),
    "spans_by_hour_figure": lambda frame: labels.spans_by_hour_figure(SPANS),
    "differences_figure": lambda frame: labels.differences_figure(PAIRS),
    "rule_figure": lambda frame: labels.rule_figure(AGREEMENT),
    "facts_figure": lambda frame: market.facts_figure(
        {"a": RNG.random(46), "b": RNG.random(46)}, {"a": RNG.random(50)}, title="t"
    ),
    "shares_figure": lambda frame: balance.shares_figure(SHARES, title="t"),
    "reweighed_figure": lambda frame: balance.reweighed_figure({"pointers × 1": RECORD, "pointers × 9": RECORD}),
    "record_figure": lambda frame: balance.record_figure(RECORD, title="t"),
    "pareto_figure": lambda frame: balance.pareto_figure(SWEEP),
    "critical_difference_figure": lambda frame: balance.critical_difference_figure(RANKS, 1.2),
    "trajectories_figure": lambda frame: balance.trajectories_figure(
        {"fixed": LINES, "log": LINES, "ema": LINES, "manual": LINES}, title="t", y="share", reference=0.05
    ),
    "window_figure": lambda frame: candles.window_figure(
        frame.iloc[:105], truth=(40, 50), guess=(42, 55), probability=np.linspace(0, 1, 105),
        countdown={"true": np.zeros(105), "model": np.ones(105)},
    ),
    "overview_figure": lambda frame: candles.overview_figure(frame.assign(text="bar"), MARKS, TICKS, stretch="all"),
    "targets_figure": lambda frame: candles.targets_figure(expansion_targets(50, 65), title="t"),
    "distributions_figure": lambda frame: features.distributions_figure(
        {name: (np.linspace(0, 1, 11), np.full(10, 0.1)) for name in "abcd"}
    ),
    "density_figure": lambda frame: features.density_figure(RNG.random((105, 3)), list("abc")),
    "flips_figure": lambda frame: features.flips_figure(
        pd.DataFrame({"rule": ["legacy", "primary"], "flip_share": [0.98, 0.05]})
    ),
    "drift_figure": lambda frame: features.drift_figure(DRIFT),
    "correlation_figure": lambda frame: features.correlation_figure(pd.DataFrame(RNG.random((3, 3)), columns=[*"abc"])),
    "relations_figure": lambda frame: features.relations_figure(RELATIONS),
    "positions_figure": lambda frame: features.positions_figure(np.arange(30, 75), np.arange(6, 51)),
    "curves_figure": lambda frame: training.curves_figure(
        {"train": [3.0, 2.0], "validation": [3.1, 2.2]}, title="t", y="loss", reference=("mean", 2.5)
    ),
    "live_figure": lambda frame: training.live_figure(
        {name: [{"epoch": 1, "train_loss": 0.5, "validation_loss": 0.4}] for name in "abcdefgh"}, 3
    ),
    "reconstruction_figure": lambda frame: pretraining.reconstruction_figure(
        *RNG.random((3, 105)), RNG.random(105) < 0.2, "range_z", title="t"
    ),
    "skill_figure": lambda frame: pretraining.skill_figure(SKILL, ["mean"]),
    "pretext_figure": lambda frame: pretraining.pretext_figure(PRETEXT),
    "baselines_figure": lambda frame: training.baselines_figure(
        {"a": SCORE, "b": SCORE}, ["hit3_start", "joint3"], ["constant"], title="t"
    ),
    "hits_figure": lambda frame: training.hits_figure({"model": CURVE, "constant": CURVE}),
    "confusion_figure": lambda frame: training.confusion_figure(
        pd.DataFrame([[3, 1], [2, 4]], index=["c", "r"], columns=["c", "r"])
    ),
}  # fmt: skip


def public_figures():
    return {
        name
        for room in ROOMS
        for name, each in inspect.getmembers(room, inspect.isfunction)
        if each.__module__ == room.__name__ and name.endswith("_figure")
    }


def test_every_figure_is_drawn_here():
    assert public_figures() == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_traces_a_title_and_the_common_look(name, tiny):
    figure = FIGURES[name](tiny.frame)
    assert isinstance(figure, go.Figure) and len(figure.data) >= 1
    assert figure.layout.title.text
    assert figure.layout.template.layout.colorway == theme.TEMPLATE.layout.colorway
    assert len(figure.to_json()) > 500


def values(axis):
    """Numbers of a trace, whatever plotly keeps them in."""
    return np.asarray(axis, dtype=float)


def test_a_window_without_answers_is_only_candles(tiny):
    figure = candles.window_figure(tiny.frame.iloc[:105])
    assert [trace.type for trace in figure.data] == ["candlestick"]
    np.testing.assert_allclose(values(figure.data[0].close), tiny.frame["close"].iloc[:105])


def test_a_span_is_drawn_around_its_bars(tiny):
    figure = candles.window_figure(tiny.frame.iloc[:105], truth=(40, 50))
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (39.5, 50.5)
    assert any("40–50" in (trace.name or "") for trace in figure.data)


def test_hidden_runs_are_shaded():
    is_masked = np.zeros(105, bool)
    is_masked[[0, 1, 50, 104]] = True
    figure = pretraining.reconstruction_figure(*RNG.random((3, 105)), is_masked, "x", title="t")
    assert [(s.x0, s.x1) for s in figure.layout.shapes] == [(-0.5, 1.5), (49.5, 50.5), (103.5, 104.5)]


def test_bars_of_shares_are_the_shares():
    figure = balance.shares_figure(SHARES, title="t")
    for trace in figure.data:
        np.testing.assert_array_equal(values(trace.x), SHARES[trace.name])


def test_skills_colours_are_cut_and_its_numbers_are_not():
    (heat,) = pretraining.skill_figure(SKILL, ["mean"]).data
    np.testing.assert_allclose(values(heat.z), [[0.2, 0.4], [-1.0, np.nan]], rtol=1e-6)
    assert [list(row) for row in heat.text] == [["+0.20", "(+0.40)"], ["−9.00", "(–)"]]
    np.testing.assert_allclose(heat.customdata[1][0], [-9, -10, -8])


def test_per_bar_tasks_stand_beside_both_baselines():
    model, same_bar, majority = pretraining.pretext_figure(PRETEXT).data
    np.testing.assert_allclose(values(model.x) - values(model.error_x.arrayminus), PRETEXT["model low"])
    np.testing.assert_allclose(values(same_bar.x) + values(same_bar.error_x.array), PRETEXT["same bar high"])
    np.testing.assert_allclose(values(majority.x), PRETEXT["majority"])


def test_an_overview_marks_hours_and_gaps_as_bands_and_rolls_as_lines(tiny):
    figure = candles.overview_figure(tiny.frame, MARKS, TICKS, title="t")
    assert [(shape.type, shape.x0, shape.x1) for shape in figure.layout.shapes] == [
        ("rect", 9.5, 99.5),
        ("rect", 119, 121),
        ("line", 199.5, 199.5),
    ]
    assert [(note.text, note.x) for note in figure.layout.annotations] == [("10 min", 121), ("roll", 199.5)]
    assert list(figure.layout.xaxis.ticktext) == ["5 Mar", "6 Mar"]
    low, high = figure.layout.yaxis.range
    assert low < tiny.frame["low"].min() < tiny.frame["high"].max() < high
    assert len(figure.data) == len(candles.overview_figure(tiny.frame).data)  # a stretch without marks has them too


def test_drift_changes_colour_at_its_thresholds():
    heat = features.drift_figure(DRIFT).data[0]
    grid = values(heat.z)
    np.testing.assert_allclose(grid, [[0.0, 0.05, 0.15], [0.3, np.nan, 0.09]], rtol=1e-6)
    edges = [edge * heat.zmax for edge, _ in heat.colorscale]
    np.testing.assert_allclose(edges, [0, 0.1, 0.1, 0.25, 0.25, 0.5])
    assert len({colour for _, colour in heat.colorscale}) == 3


def test_hours_of_drift_stay_in_order():
    hourly = DRIFT.drop(columns="month").assign(hour=[0, 2, 10] * 2)
    assert list(features.drift_figure(hourly).data[0].x) == [0, 2, 10]


def test_correlations_are_shown_beside_each_other_but_not_with_themselves():
    matrix = pd.DataFrame([[1, -0.8, 0.2], [-0.8, 1, 0.55], [0.2, 0.55, 1]], columns=[*"abc"], index=[*"abc"])
    heat = features.correlation_figure(matrix).data[0]
    assert np.isnan(np.diag(values(heat.z))).all() and matrix.notna().all(axis=None)
    assert [list(row) for row in heat.text] == [["", "-.8", ""], ["-.8", "", ".6"], ["", ".6", ""]]


def test_relations_stand_beside_their_control():
    control, dots = features.relations_figure(RELATIONS).data
    np.testing.assert_allclose(values(control.base), RELATIONS["control_low"])
    np.testing.assert_allclose(values(control.base) + values(control.x), RELATIONS["control_high"])
    np.testing.assert_allclose(values(dots.x) - values(dots.error_x.arrayminus), RELATIONS["low"])
    np.testing.assert_allclose(values(dots.x) + values(dots.error_x.array), RELATIONS["high"])
    assert dots.marker.color[0] != dots.marker.color[1]


def test_figures_leave_their_input_alone(tiny):
    before = tiny.frame.copy()
    for draw in FIGURES.values():
        draw(tiny.frame)
    pd.testing.assert_frame_equal(tiny.frame, before)


def test_no_baseline_is_left_out_of_the_figure_however_many_there_are():
    names = [f"baseline {k}" for k in range(12)]
    score = SCORE.assign(**{name: SCORE["constant"] for name in names})
    figure = training.baselines_figure({"a": score}, ["hit3_start", "joint3"], names, title="t")
    assert [trace.name for trace in figure.data] == ["a", *names]
