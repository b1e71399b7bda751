"""Laws drawn at random: inside their ranges, all over them, and the same for the same seed."""

from dataclasses import fields, replace

import numpy as np
import pytest

from moola_lib.market.random_laws import BROAD, LawRanges, draw_law, simulate_random_market

LAWS = [draw_law(np.random.default_rng(seed)) for seed in range(300)]
DRAWN_AS_THEY_ARE = (
    "strength", "drift", "log_vol_sd", "shock_df", "session_sd", "wick_ratio", "minute_vol", "start_price_points",
    "consolidation_ratio", "retracement_drift", "consolidation_share",
)  # fmt: skip


@pytest.mark.parametrize("name", DRAWN_AS_THEY_ARE)
def test_a_parameter_stays_in_its_range_and_reaches_both_ends(name):
    low, high = getattr(BROAD, name)
    values = np.array([getattr(law, name) for law in LAWS])
    assert low <= values.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < values.max() <= high


def test_lengths_and_memory_stay_in_their_ranges():
    for law in LAWS:
        assert BROAD.shortest_bars[0] <= law.length_low_bars < law.length_high_bars
        assert law.length_high_bars <= BROAD.shortest_bars[1] + BROAD.extra_bars[1]
        assert law.state_low_bars < law.state_high_bars < law.start_low_bars  # the state fits before the first start
        assert 0.9 <= law.persistence <= 0.99


def test_parameters_are_drawn_apart_from_each_other():
    drawn = np.array([[getattr(law, name) for name in DRAWN_AS_THEY_ARE] for law in LAWS])
    off_diagonal = np.corrcoef(drawn.T)[~np.eye(len(DRAWN_AS_THEY_ARE), dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.25  # 4.3 standard errors at 300 laws


def test_equal_seeds_give_equal_markets_and_others_do_not():
    one, same, other = (simulate_random_market(seed, 1) for seed in ([17, 0], [17, 0], [17, 1]))
    assert one.law == same.law != other.law
    assert one.bars.frame.equals(same.bars.frame)


def test_a_range_of_one_value_gives_that_value():
    ranges = replace(BROAD, strength=(2.0, 2.0), shortest_bars=(9, 9), extra_bars=(1, 1))
    law = simulate_random_market(3, 1, ranges).law
    assert (law.strength, law.length_low_bars, law.length_high_bars) == (2.0, 9, 10)


def test_every_range_is_a_low_and_a_high():
    for field in fields(LawRanges):
        low, high = getattr(BROAD, field.name)
        assert low < high, field.name
