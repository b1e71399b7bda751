"""Comparisons of several methods: against hand work, SciPy, and markets where the answer is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from moola_lib.evaluation.comparison import (
    TASK_METRICS,
    conflict_rate,
    load_answers,
    rank_methods,
    save_answers,
    skill_by_task,
)
from moola_lib.evaluation.loss_scales import shares_on_notes_scales
from moola_lib.evaluation.spans import answer_points
from moola_lib.learning import STRATEGIES

RNG = np.random.default_rng(1)


@pytest.fixture
def windows(make_windows):
    start = RNG.integers(30, 60, 60)
    return make_windows([[(s, s + 9)] for s in start], RNG.integers(0, 2, 60), days=np.arange(60) // 6)


def answer(windows, error, state=None):
    """An answer whose starts are off by `error` bars."""
    given = answer_points(windows.start + error, windows.end + error)
    state = windows.state if state is None else state
    return replace(given, type_probability=np.eye(2)[state])


def test_the_oracle_has_skill_one_and_the_constant_none(windows):
    constant = answer(windows, 20, state=np.zeros(60, int))
    oracle = answer(windows, 0)
    half = answer(windows, np.where(np.arange(60) % 2, 20, 0), state=windows.state)
    answers = {"oracle": oracle, "constant": constant, "half": half}
    table = skill_by_task(windows, answers, constant, oracle, n_bootstrap=50)
    skill = table.set_index(["method", "task"])["skill"]
    for task in TASK_METRICS:
        assert skill["oracle", task] == pytest.approx(1) and skill["constant", task] == pytest.approx(0)
    assert skill["half", "pointers"] == pytest.approx(0.5)
    assert ((table["low"] <= table["skill"] + 1e-9) & (table["skill"] <= table["high"] + 1e-9)).all()


def test_a_task_that_leaves_no_room_has_no_skill(windows):
    oracle = answer(windows, 0)
    table = skill_by_task(windows, {"a": oracle}, oracle, oracle, n_bootstrap=20)
    assert table["skill"].isna().all()


def test_ranks_by_day_are_those_of_scipy(windows):
    answers = {name: answer(windows, RNG.integers(-6, 7, 60)) for name in "abcd"}
    answers["best"] = answer(windows, 0)
    ranks, critical, p_value, n_days = rank_methods(windows, answers, metric="hit3_start")
    assert ranks.index[0] == "best" and n_days == 10
    assert ranks.sum() == pytest.approx(5 * 6 / 2)
    hits = [
        [np.mean(np.abs(each.start - windows.start)[windows.day == day] <= 3) for day in np.unique(windows.day)]
        for each in answers.values()
    ]
    assert p_value == pytest.approx(stats.friedmanchisquare(*hits).pvalue)
    assert critical == pytest.approx(2.728 * np.sqrt(5 * 6 / (6 * 10)), abs=0.002)  # Demsar 2006, table 5


def test_equal_methods_are_not_told_apart(windows):
    answers = {name: answer(windows, 0) for name in "abc"}
    ranks, critical, p_value, _ = rank_methods(windows, answers)
    assert p_value == 1 and (ranks == 2).all() and critical > 0


def test_conflicts_are_counted_by_step_and_pair():
    metrics = pd.DataFrame(
        {
            "step": [0, 0, 1, 1],
            "task": ["a", "b", "a", "b"],
            "cosine_a": [1.0, -0.5, 1.0, 0.5],
            "cosine_b": [-0.5, 1.0, 0.5, 1.0],
        }
    )
    assert conflict_rate(metrics) == 0.5
    assert np.isnan(conflict_rate(metrics[metrics["task"] == "a"]))


@pytest.fixture(scope="module")
def shares():
    return shares_on_notes_scales(STRATEGIES).set_index("strategy")


def test_the_notes_scales_give_the_notes_share(shares):
    assert shares.loc["fixed", "loss_share"] == pytest.approx(0.036, abs=0.0005)
    assert shares.loc["fixed", "gradient_share_end"] < 0.05  # silenced, and training does not cure it
    assert set(shares.index) == set(STRATEGIES)


@pytest.mark.parametrize("name", ["initial", "ema", "log", "famo"])
def test_strategies_that_ignore_the_scale_give_the_pointers_their_weight(shares, name):
    wanted = 0.25 if name == "famo" else 0.7
    assert shares.loc[name, "gradient_share_end"] == pytest.approx(wanted, abs=0.12)


def test_sigma_hardly_moves_in_a_hundred_steps(shares):
    assert 0 < shares.loc["uncertainty", "sigma_way"] < 0.1
    fast = shares_on_notes_scales(["uncertainty"], sigma_rate_factor=100)
    assert fast["sigma_way"].item() > 0.9
    assert shares.drop(["uncertainty", "uncertainty_bounded"])["sigma_way"].isna().all()


def test_answers_are_found_by_the_windows_stamps(windows, tmp_path):
    stamps = pd.date_range("2024-01-02", periods=60, freq="105min", tz="UTC")
    given = replace(answer(windows, 2), countdown=None)
    save_answers(tmp_path / "oracle.npz", stamps, given)
    rows = [40, 3, 7]
    found = load_answers(tmp_path / "oracle.npz", stamps[rows])
    assert np.array_equal(found.start, given.start[rows]) and found.countdown is None
    assert np.array_equal(found.type_probability, given.type_probability[rows])
    assert load_answers(tmp_path / "oracle.npz", stamps[rows] + pd.Timedelta("1min")) is None
