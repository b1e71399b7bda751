"""Gates compare numbers."""

import math

import numpy as np
import pandas as pd
import pytest

from moola_lib.evaluation.gates import each_baseline_gate, gates_frame, health_gate, interval_gate, learning_gate

NAN = float("nan")


def row(value, low, high, **baselines):
    return {"value": value, "low": low, "high": high, **baselines}


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        (row(0.70, 0.62, 0.78, constant=0.20, atr=0.43), "PASS"),
        (row(0.70, 0.40, 0.90, constant=0.20, atr=0.43), "FAIL"),  # the interval overlaps the best baseline
        (row(0.70, 0.43, 0.90, constant=0.20, atr=0.43), "FAIL"),  # touching is not above
        (row(0.586, 0.50, 0.66, constant=0.20), "FAIL"),  # 0.586 is not 0.60
        (row(0.60, 0.52, 0.68, constant=0.20), "PASS"),  # the target itself is met
        (row(0.5999999, 0.52, 0.68, constant=0.20), "FAIL"),
        (row(0.70, 0.62, 0.78, constant=NAN), "FAIL"),  # no baseline, nothing shown
        (row(0.70, 0.62, 0.78, constant=NAN, atr=0.43), "PASS"),
        (row(NAN, NAN, NAN, constant=0.2), "FAIL"),
        (row(0.70, NAN, NAN, constant=0.2), "FAIL"),
        (row(np.inf, 1, 2, constant=0.2), "FAIL"),
    ],
)
def test_more_is_better(figures, verdict):
    names = [name for name in figures if name in ("constant", "atr")]
    assert learning_gate("Hit@3", figures, at_least=0.60, baselines=names).verdict == verdict


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        (row(3.0, 2.5, 3.5, constant=4.3), "PASS"),
        (row(4.5, 4.0, 5.0, constant=4.3), "FAIL"),  # meets the target, as the constant does
        (row(3.0, 2.5, 4.3, constant=4.3), "FAIL"),
        (row(5.5, 5.0, 6.0, constant=9.0), "FAIL"),
        (row(5.0, 4.8, 5.2, constant=9.0), "PASS"),
    ],
)
def test_less_is_better(figures, verdict):
    assert learning_gate("countdown MAE", figures, at_most=5.0, baselines=["constant"]).verdict == verdict


def test_the_best_baseline_is_named_with_its_figure():
    gate = learning_gate("a", row(0.7, 0.6, 0.8, constant=0.2, atr=0.4321), at_least=0.6, baselines=["constant", "atr"])
    assert gate.baseline == "atr 0.432" and gate.target == "≥ 0.6"
    gate = learning_gate("a", row(3, 2, 4, constant=4.3, atr=6.0), at_most=5, baselines=["constant", "atr"])
    assert gate.baseline == "constant 4.3" and gate.target == "≤ 5"


def test_against_rule_made_labels_learning_gates_are_off():
    for value in (0.9, 0.1, NAN):
        gate = learning_gate("a", row(value, 0.8, 0.95, c=0.1), at_least=0.6, baselines=["c"], is_off=True)
        assert gate.verdict == "OFF"


@pytest.mark.parametrize("targets", [{}, {"at_least": 1, "at_most": 2}])
def test_a_learning_gate_needs_one_target(targets):
    with pytest.raises(ValueError, match="exactly one"):
        learning_gate("a", row(1, 1, 1, c=0), baselines=["c"], **targets)


@pytest.mark.parametrize(
    ("value", "bounds", "verdict"),
    [
        (0.5, {"at_least": 0.5}, "PASS"),
        (0.4999, {"at_least": 0.5}, "FAIL"),
        (0.8, {"at_least": 0.6, "at_most": 0.8}, "PASS"),
        (0.81, {"at_least": 0.6, "at_most": 0.8}, "FAIL"),
        (0, {"at_most": 0}, "PASS"),
        (NAN, {"at_most": 0}, "FAIL"),
        (math.inf, {"at_least": 0}, "FAIL"),
        (-np.inf, {"at_most": 0}, "FAIL"),
    ],
)
def test_health_gates_judge_the_number_alone(value, bounds, verdict):
    assert health_gate("a", value, **bounds).verdict == verdict


def test_a_figure_that_is_no_scale_is_never_a_pass():
    assert health_gate("loss", -5.5, at_most=-5, not_a_scale=True).verdict == "NOT A SCALE"
    assert health_gate("loss", -3.5, at_most=-5, not_a_scale=True).verdict == "NOT A SCALE"


@pytest.mark.parametrize(
    ("figures", "bounds", "verdict"),
    [
        (row(0.60, 0.51, 0.70), {"above": 0.5}, "PASS"),
        (row(0.60, 0.50, 0.70), {"above": 0.5}, "FAIL"),
        (row(0.60, 0.49, 0.70), {"at_least": 0.5}, "FAIL"),
        (row(0.80, 0.73, 0.87), {"at_least": 0.72, "at_most": 0.88}, "PASS"),
        (row(0.80, 0.73, 0.89), {"at_least": 0.72, "at_most": 0.88}, "FAIL"),
        (row(0.60, NAN, NAN), {"above": 0.5}, "FAIL"),
    ],
)
def test_an_interval_gate_judges_every_value_in_it(figures, bounds, verdict):
    assert interval_gate("a", figures, **bounds).verdict == verdict
    assert interval_gate("a", figures, is_off=True, **bounds).verdict == "OFF"


def comparisons(*verdicts, value=0.7):
    """Rows of `compare_with_each` for one figure, the later baselines the better."""
    rows = [
        {"metric": "hit3_start", "baseline": f"b{k}", "value": value, "value_low": 0.6, "value_high": 0.8}
        | {"other": 0.2 + k / 10, "difference": 0.5 - k / 10, "low": 0.4 - k / 10, "high": 0.6, "verdict": verdict}
        for k, verdict in enumerate(verdicts)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("verdicts", "bounds", "verdict"),
    [
        (["BETTER", "BETTER"], {}, "PASS"),
        (["BETTER", "INCONCLUSIVE"], {}, "FAIL"),
        (["WORSE"], {}, "FAIL"),
        ([], {}, "FAIL"),
        (["BETTER"], {"at_least": 0.7}, "PASS"),
        (["BETTER"], {"above": 0.7}, "FAIL"),
    ],
)
def test_each_baseline_must_be_beaten(verdicts, bounds, verdict):
    gate = each_baseline_gate("Hit@3", comparisons(*verdicts), metric="hit3_start", **bounds)
    assert gate.verdict == verdict
    assert each_baseline_gate("a", comparisons(*verdicts), metric="hit3_start", is_off=True).verdict == "OFF"


def test_the_baseline_least_surely_beaten_is_named():
    gate = each_baseline_gate("Hit@3", comparisons("BETTER", "INCONCLUSIVE"), metric="hit3_start", at_least=0.6)
    assert gate.baseline == "b1 0.3 (better by 0.3 to 0.6; better than 1 of 2)"
    assert (gate.value, gate.low, gate.high, gate.target) == (0.7, 0.6, 0.8, "better than each baseline, ≥ 0.6")
    assert each_baseline_gate("a", comparisons("BETTER"), metric="joint3").baseline == "none defined"
    assert gates_frame([gate])["95 % interval"].tolist() == ["0.6 to 0.8"]


def test_the_table_shows_every_gate_with_its_figure():
    gates = [
        health_gate("valid rows", np.float32(0.98), at_least=0.8),
        learning_gate("Hit@3", row(0.586, 0.5, 0.66, constant=0.2), at_least=0.6, baselines=["constant"]),
    ]
    table = gates_frame(gates)
    assert table["verdict"].tolist() == ["PASS", "FAIL"]
    assert table["figure"].tolist() == ["0.98", "0.586"]
    assert table["95 % interval"].tolist() == ["", "0.5 to 0.66"]
    assert isinstance(gates[0].as_dict()["value"], float)
