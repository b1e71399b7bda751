"""Intervals, tests and power against worked numbers, brute force and known rates."""

import itertools
import math

import numpy as np
import pytest

from moola_lib.errors import UserError
from moola_lib.evaluation.intervals import bootstrap_p_value, corrected_interval, holm, verdict
from moola_lib.evaluation.permutation import move_labels, permutation_test
from moola_lib.evaluation.power import labels_needed, luck_of_the_best, minimal_difference, power_table
from moola_lib.evaluation.spread import audit_fold_spread


def test_a_bootstrap_p_value_doubles_the_lesser_side():
    assert bootstrap_p_value(np.r_[np.full(9, -1.0), np.full(990, 1.0)]) == pytest.approx(2 * 10 / 1000)
    assert bootstrap_p_value(np.full(999, 0.3)) == pytest.approx(2 / 1000)  # its floor
    assert bootstrap_p_value([-1.0, 1.0, np.nan]) == 1.0
    assert np.isnan(bootstrap_p_value([np.nan]))


def test_holm_by_hand():
    # Holm's rule: .01 x 4, .02 x 3, .03 x 2 (not below the one before), .5 x 1
    np.testing.assert_allclose(holm([0.03, 0.01, 0.5, 0.02]), [0.06, 0.04, 0.5, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


def test_holm_keeps_false_rejections_under_the_level():
    p = np.random.default_rng(1).random((4000, 5))
    share = np.mean([(holm(row) < 0.05).any() for row in p])
    assert share == pytest.approx(0.05, abs=0.012)


def test_the_corrected_interval_by_hand():
    # s = 0.1, J = 3, n_test/n_train = 1/4: standard error 0.1 * sqrt(1/3 + 1/4); t(.975, 2) = 4.302653
    mean, low, high = corrected_interval([0.1, 0.2, 0.3], n_train=100, n_test=25)
    reach = 4.302653 * 0.1 * math.sqrt(1 / 3 + 1 / 4)
    assert (mean, low, high) == pytest.approx((0.2, 0.2 - reach, 0.2 + reach))


def test_for_ten_times_five_folds_the_correction_widens_by_nearly_four():
    values = np.random.default_rng(1).normal(size=50)
    widths = [np.ptp(corrected_interval(values, n_train=4, n_test=n)) for n in (1, 0)]
    assert widths[0] / widths[1] == pytest.approx(math.sqrt((1 / 50 + 1 / 4) * 50))
    assert widths[0] / widths[1] == pytest.approx(3.7, abs=0.05)


@pytest.mark.parametrize("values", [[], [0.1], [0.1, np.nan]])
def test_too_few_differences_have_no_interval(values):
    with pytest.raises(ValueError, match="at least two"):
        corrected_interval(values, n_train=4, n_test=1)


def test_an_interval_that_touches_nothing_decides_nothing():
    assert [verdict(*ends) for ends in ((0.01, 1), (-1, -0.01), (0, 1), (np.nan, np.nan))] == [
        "BETTER", "WORSE", "INCONCLUSIVE", "INCONCLUSIVE",
    ]  # fmt: skip


def test_at_174_windows_twelve_points_can_be_told_apart():
    assert minimal_difference(174, 0.30) == pytest.approx(0.12, abs=0.006)
    assert labels_needed(0.12, 0.30) <= 174 < labels_needed(0.11, 0.30)


def test_labels_needed_and_the_minimal_difference_are_inverse():
    for n, discordance in itertools.product((50, 174, 1000), (0.2, 0.5)):
        least = minimal_difference(n, discordance)
        assert labels_needed(least, discordance) <= n
        assert labels_needed(least - 0.002, discordance) > n


def test_the_power_is_the_power_that_was_asked_for():
    n, b, c = labels_needed(0.12, 0.30), 0.21, 0.09
    drawn = np.random.default_rng(1).multinomial(n, [b, c, 1 - b - c], size=20_000)
    z = (drawn[:, 0] - drawn[:, 1]) / np.sqrt(drawn[:, 0] + drawn[:, 1])
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.80, abs=0.02)


def test_a_difference_beyond_the_discordance_is_a_sentence():
    with pytest.raises(UserError, match="disagree on 10% of windows cannot differ by 20%"):
        labels_needed(0.2, 0.1)
    with pytest.raises(UserError, match="cannot differ by 0%"):
        labels_needed(0.0, 0.1)


def test_few_windows_tell_nothing_apart():
    assert math.isnan(minimal_difference(5, 0.1))
    table = power_table([5, 100, 400], discordances=(0.1, 0.3))
    assert table["difference"].isna().tolist() == [True, False, False] * 2
    wide = table[table["discordance"] == 0.3]["difference"].dropna()
    assert (wide.diff().dropna() < 0).all()


def test_the_best_of_twenty_gains_seven_points_by_luck():
    assert luck_of_the_best(20, 174) == pytest.approx(0.07, abs=0.003)
    assert luck_of_the_best(1, 174) == pytest.approx(0, abs=1e-12)
    drawn = np.random.default_rng(1).binomial(30, 0.7, size=(20_000, 6)).max(axis=1) / 30
    assert luck_of_the_best(6, 30, 0.7) == pytest.approx(drawn.mean() - 0.7, abs=0.003)


def test_the_spread_of_the_notes_is_impossible():
    shares = 0.586 + 0.012 * np.array([-1.2649, -0.6325, 0, 0.6325, 1.2649])  # five folds, sd .012
    found = audit_fold_spread(shares, [35] * 5)
    assert found.sd == pytest.approx(0.012, abs=1e-4) and found.expected_sd == pytest.approx(0.083, abs=0.002)
    assert found.is_too_small and found.chance < 5e-4


def test_honest_folds_are_hardly_ever_flagged():
    rng = np.random.default_rng(1)
    flags = [
        audit_fold_spread(rng.binomial(35, 0.5, 5) / 35, [35] * 5, n_simulated=4000).is_too_small for _ in range(300)
    ]
    assert np.mean(flags) <= 0.01


def test_folds_that_all_hit_or_all_miss_are_not_flagged():
    for share in (0.0, 1.0):
        assert not audit_fold_spread([share] * 5, [35] * 5).is_too_small


def test_moved_labels_keep_their_number_and_their_order_within_a_day(make_windows):
    days = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3])
    windows = make_windows([[(30 + k, 40 + k)] for k in range(9)], np.arange(9) % 2, days=days)
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(40):
        moved = move_labels(windows, rng)
        assert sorted(moved.start) == sorted(windows.start)
        assert np.array_equal(moved.end - moved.start, windows.end - windows.start)
        assert np.array_equal(moved.state, (moved.start - 30) % 2)  # a label moves whole
        assert np.array_equal(moved.place, windows.place) and np.array_equal(moved.day, windows.day)
        order = (moved.start - 30).tolist()
        for block in ([0, 1, 2], [3, 4], [5], [6, 7, 8]):
            at = order.index(block[0])
            assert order[at : at + len(block)] == block
        seen.add(tuple(order))
    assert len(seen) > 10


def correlation(windows):
    """A score that knows nothing but whether late windows hold late starts."""
    return float(np.corrcoef(windows.place, windows.start)[0, 1])


def test_a_permutation_test_sees_labels_that_belong_to_their_windows(make_windows):
    days = np.arange(60) // 3
    tied = make_windows([[(30 + k // 2, 70)] for k in range(60)], [0] * 60, days=days)
    found = permutation_test(correlation, tied, 99)
    assert found.p_value == found.floor == pytest.approx(0.01)
    assert found.score == pytest.approx(1, abs=0.01) and len(found.permuted) == 99
    assert "p = 0.01" in str(found) and "cannot be below 0.01" in str(found)
    again = permutation_test(correlation, tied, 99)
    assert np.array_equal(found.permuted, again.permuted)


def test_without_an_effect_p_values_are_uniform(make_windows):
    rng = np.random.default_rng(5)
    p_values = []
    for seed in range(200):
        starts = rng.integers(30, 70, 30)
        windows = make_windows([[(s, 80)] for s in starts], [0] * 30, days=np.arange(30) // 2)
        p_values.append(permutation_test(correlation, windows, 39, seed).p_value)
    for level in (0.1, 0.25, 0.5):
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=0.08)


def test_a_score_that_is_not_defined_is_no_evidence(make_windows):
    windows = make_windows([[(40, 49)]] * 4, [0] * 4)
    assert permutation_test(lambda windows: math.nan, windows, 9).p_value == 1
