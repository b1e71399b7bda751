"""The benchmark runner, on works whose clock is a list: verdicts, table, JSON and exit codes."""

import itertools
import json
import math

import pytest

from benchmarks.runner import GROUPS, N_ROUNDS, Benchmark, Figure, load_group, main, measure


class FakeTime:
    """A clock that only work moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds, n_units=1):
        """A work that takes the given seconds, the next of them on each call."""
        left = itertools.cycle(seconds if isinstance(seconds, list) else [seconds])

        def run():
            self.now += next(left)
            return n_units

        return run


def fake(name, goal, ours, reference, n_units=(1, 1), missing=""):
    clock = FakeTime()
    works = clock.work(ours, n_units[0]), clock.work(reference, n_units[1])
    return Benchmark(name, goal, lambda: works, clock=clock, missing=lambda: missing)


GOOD = fake("cheap", "≤ 2.5", 2.0, 1.0)
BAD = fake("slow", "≥ 5", 1.0, 4.0)
SKILLS = [("reached", 0.95), ("missed", 0.9499)]
ABSENT = fake("big", "≥ 2", 1.0, 1.0, missing="no GPU")


def load(**benchmarks):
    return lambda group: benchmarks.get(group, [])


def test_a_cost_is_ours_over_the_reference_and_a_gain_the_reverse():
    assert measure(fake("a", "≤ 1.1", 3.0, 2.0)) == 1.5
    assert measure(fake("a", "≥ 1.1", 2.0, 3.0)) == 1.5


def test_times_are_compared_per_unit():
    assert math.isclose(measure(fake("a", "≥ 10,000", 1.0, 2.0, n_units=(1_000_000, 100))), 20_000)


def test_one_disturbed_round_does_not_move_the_median():
    seconds = [1.0] * (N_ROUNDS + 1)
    seconds[3] = 1000.0
    assert N_ROUNDS >= 5
    assert measure(fake("a", "≤ 1", seconds, 1.0)) == 1.0


def test_the_first_call_is_not_timed():
    assert measure(fake("a", "≤ 1", [500.0, *[1.0] * N_ROUNDS], 1.0)) == 1.0


@pytest.mark.parametrize(
    ("goal", "ratio", "is_met"),
    [
        ("≤ 2.5", 2.5, True),
        ("≤ 2.5", 2.5000001, False),
        ("≥ 10,000", 10_000, True),
        ("≥ 10,000", 9_999.99, False),
        ("≥ 5", math.nan, False),
    ],
)
def test_goals_compare_the_unrounded_number(goal, ratio, is_met):
    assert Benchmark("a", goal, None).is_met(ratio) is is_met


def test_a_figure_is_computed_once_and_compared_with_its_goal(tmp_path):
    asked = []
    figures = [Figure(name, "≥ 0.95", lambda value=value: asked.append(value) or value) for name, value in SKILLS]
    path = tmp_path / "rows.json"
    assert main(["skill", "--json", str(path)], load(skill=figures)) == 1
    assert asked == [0.95, 0.9499]
    assert [(row["ratio"], row["verdict"]) for row in json.loads(path.read_text())] == [
        (0.95, "PASS"),
        (0.9499, "FAIL"),
    ]


def test_all_met_is_exit_0_and_skips_give_their_reason(capsys):
    assert main([], load(features=[GOOD], training=[ABSENT])) == 0
    out = capsys.readouterr().out
    assert "PASS" in out and "SKIP (no GPU)" in out and "FAIL" not in out
    for word in ("features", "cheap", "≤ 2.5", "training", "big", "≥ 2"):
        assert word in out


def test_a_missed_goal_is_exit_1_and_said_once(capsys):
    assert main([], load(features=[GOOD, BAD])) == 1
    captured = capsys.readouterr()
    assert captured.out.count("FAIL") == 1
    assert "FAIL" not in captured.err
    assert "FAIL" in next(line for line in captured.out.splitlines() if "slow" in line)


def test_only_the_groups_asked_for_are_measured():
    asked = []

    def remember(group):
        asked.append(group)
        return []

    assert main(["training", "features"], remember) == 0
    assert asked == ["features", "training"]
    asked.clear()
    main([], remember)
    assert asked == list(GROUPS)


def test_json_has_exactly_the_promised_keys(tmp_path):
    path = tmp_path / "rows.json"
    assert main(["features", "market", "--json", str(path)], load(features=[GOOD, BAD], market=[ABSENT])) == 1
    assert json.loads(path.read_text()) == [
        {"group": "features", "name": "cheap", "ratio": 2.0, "goal": "≤ 2.5", "verdict": "PASS"},
        {"group": "features", "name": "slow", "ratio": 4.0, "goal": "≥ 5", "verdict": "FAIL"},
        {"group": "market", "name": "big", "ratio": None, "goal": "≥ 2", "verdict": "SKIP"},
    ]


def test_an_unknown_group_is_one_sentence(capsys):
    assert main(["feature"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "benchmarks: group 'feature' is not known; choose from features, market, training, skill, balance, sweeps\n"
    )


def test_a_group_without_benchmarks_is_fine(tmp_path):
    assert main(["skill", "--json", str(tmp_path / "rows.json")], load()) == 0
    assert json.loads((tmp_path / "rows.json").read_text()) == []


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_loads_and_its_goals_can_be_read(group):
    benchmarks = load_group(group)
    assert benchmarks
    for benchmark in benchmarks:
        assert benchmark.is_met(1.0) in (True, False)
    assert len({benchmark.name for benchmark in benchmarks}) == len(benchmarks)
