"""The best of many: equal arms are called luck as often as they should be, and real differences are seen."""

import math

import numpy as np
import pandas as pd
import pytest

from moola_lib.evaluation.selection import arm_means, describe_selection, select_best


def runs_of(values, widths=None):
    """A row per run: one list of values an arm, the same seeds in each."""
    rows = [{"arm": f"arm {k}", "seed": s, "value": v} for k, each in enumerate(values) for s, v in enumerate(each)]
    table = pd.DataFrame(rows)
    reach = math.nan if widths is None else np.repeat(np.asarray(widths, float), [len(each) for each in values]) / 2
    return table.assign(low=table["value"] - reach, high=table["value"] + reach)


def choose(values, widths=None, *, is_higher_better=True):
    return select_best(arm_means(runs_of(values, widths), is_higher_better=is_higher_better))


def test_equal_arms_are_told_apart_one_time_in_twenty():
    rng = np.random.default_rng(5)
    p_values = [choose(rng.normal(size=(8, 3)) * 0.03 + 0.6).p_value for _ in range(400)]
    n_told = sum(p < 0.05 for p in p_values)
    assert abs(n_told - 20) < 3 * math.sqrt(20 * 0.95)
    assert abs(np.mean(p_values) - 0.5) < 3 * math.sqrt(1 / 12 / 400)


def test_an_arm_as_good_as_the_best_is_called_a_rival_nineteen_times_of_twenty():
    rng = np.random.default_rng(8)
    n_missed = 0
    for _ in range(300):
        values = rng.normal(size=(4, 4)) * 0.01 + np.array([0.0, 0.0, 1.0, 1.0])[:, None]
        n_missed += len(choose(values).rivals) != 1
    assert n_missed <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)


def test_what_a_seed_does_to_all_arms_alike_is_no_difference_between_them():
    rng = np.random.default_rng(7)
    p_values = []
    for _ in range(400):
        seeds = rng.normal(size=3)  # a hundred times what arms differ by
        p_values.append(choose(rng.normal(size=(6, 3)) * 0.01 + seeds).p_value)
    assert abs(sum(p < 0.05 for p in p_values) - 20) < 3 * math.sqrt(20 * 0.95)
    arms = np.array([0.0, 0.0, 0.05])[:, None] + rng.normal(size=(3, 4)) * 0.01
    shifted = choose(arms + rng.normal(size=4))
    assert shifted.is_paired and shifted.arm == "arm 2" and shifted.p_value < 0.05
    assert shifted.p_value == pytest.approx(choose(arms).p_value) and shifted.luck == pytest.approx(choose(arms).luck)


def test_a_run_that_is_missing_takes_the_pairing_away():
    values = [[0.0, 1.0, 2.0], [0.1, 1.1, 2.1], [0.0, 1.0, 2.0]]
    assert not choose([*values[:2], values[2][:2]]).is_paired
    assert not choose([[0.5], [0.6]], [0.1, 0.1]).is_paired


def test_an_arm_that_lacks_runs_does_not_compete_and_is_counted():
    best = choose([[0.9, math.nan, math.nan], [0.5, 0.52, 0.49], [0.4, 0.41, 0.42]])
    assert best.arm == "arm 1" and best.n_arms == 2 and best.n_left_out == 1 and best.is_paired
    assert describe_selection(best).endswith("1 arm lacks runs and is not ranked.")
    assert choose([[0.9, math.nan], [math.nan, 0.5]]) is None


def test_seeds_that_change_nothing_are_no_spread():
    rng = np.random.default_rng(11)
    for _ in range(50):
        best = choose([[value] * 3 for value in rng.random(4)])
        assert best.spread_of is None and math.isnan(best.p_value)


def test_luck_is_the_expected_maximum_of_as_many_normal_draws():
    # Tippett 1925: the mean of the largest of ten standard normal draws is 1.53875.
    values = np.zeros((10, 1)) + np.arange(10)[:, None]
    width = 2 * 1.959964
    assert choose(values, [width] * 10).luck == pytest.approx(1.53875, abs=0.02)
    assert choose(values[:2], [width] * 2).luck == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)


def test_more_arms_need_a_longer_lead():
    values = [[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]
    few, many = choose(values), choose(values + [[0.0, 0.1, 0.2]] * 20)
    assert many.luck > few.luck and many.luck_high > few.luck_high
    assert many.high - many.low < math.inf and many.n_arms == 22


def test_a_real_difference_is_seen_and_is_on_the_side_that_is_better():
    values = [[0.0, 0.02, 0.01], [0.5, 0.51, 0.52], [0.0, 0.01, 0.02]]
    best = choose(values)
    assert best.arm == "arm 1" and best.p_value < 0.001 and best.low < 0.51 < best.high
    assert best.lead == pytest.approx(0.51 - (0.01 + 0.51 + 0.01) / 3)
    worst = choose(values, is_higher_better=False)
    assert worst.arm == "arm 0" and worst.lead == pytest.approx((0.01 + 0.51 + 0.01) / 3 - 0.01)
    flipped = choose([[-v for v in each] for each in values], is_higher_better=False)
    assert flipped.p_value == best.p_value and flipped.luck == best.luck


def test_the_interval_covers_the_mean_of_an_arm_as_often_as_it_says():
    rng = np.random.default_rng(6)
    covers = []
    for _ in range(400):
        arms = arm_means(runs_of(rng.normal(size=(5, 3))), is_higher_better=True)
        covers += ((arms["low"] <= 0) & (arms["high"] >= 0)).tolist()
    assert abs(np.mean(covers) - 0.95) < 0.02


def test_one_seed_an_arm_takes_the_runs_own_intervals_and_seeds_do_not_lessen_them():
    one = arm_means(runs_of([[0.5], [0.6]], [0.2, 0.2]), is_higher_better=True)
    assert one.attrs["spread_of"] == "windows"
    assert list(one["high"] - one["low"]) == pytest.approx([0.2, 0.2])
    same = arm_means(runs_of([[0.5] * 4, [0.6] * 4], [0.2, 0.2]), is_higher_better=True)
    assert list(same["high"] - same["low"]) == pytest.approx([0.2, 0.2])


def test_where_nothing_tells_the_spread_nothing_is_claimed():
    best = choose([[0.5], [0.6]])
    assert best.spread_of is None and math.isnan(best.low) and math.isnan(best.p_value)
    assert "how much of this is luck cannot be told" in describe_selection(best)


def test_runs_without_a_figure_are_left_out():
    table = runs_of([[0.5, math.nan], [math.nan, math.nan], [0.7, 0.8]])
    arms = arm_means(table, is_higher_better=True)
    assert list(arms["arm"]) == ["arm 2", "arm 0"] and list(arms["n"]) == [2, 1]
    assert arms["error"].notna().all(), "the spread is pooled over arms"
    assert len(arm_means(table.iloc[:0], is_higher_better=True)) == 0


def test_the_sentences_say_how_many_were_tried_and_what_luck_gives():
    told = describe_selection(choose([[0.5, 0.6, 0.7], [0.5, 0.65, 0.7]]))
    assert told.startswith("Best of 2 arms: arm 1, 0.617 (")
    assert "the best of 2 equal arms would lead by" in told and told.endswith("That does not tell it from luck.")
    clear = describe_selection(choose([[0.0, 0.01], [0.5, 0.51], [0.0, 0.02]]))
    assert clear.endswith("More than luck, and every other arm is worse.") and "p < .001" in clear
    close = choose([[0.0, 0.01], [0.5, 0.51], [0.5, 0.53], [0.0, 0.02]])
    assert close.rivals == ["arm 1"] and describe_selection(close).endswith("but arm 1 cannot be told from it.")
    assert describe_selection(choose([[0.5, 0.6]])).endswith("Nothing was chosen among several.")
