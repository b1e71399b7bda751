"""Stylised facts: computed as stated, met by the default market, failed by one without them."""

import numpy as np
import pytest

from moola_lib.market import MarketLaw, simulate_bars
from moola_lib.market.facts import BANDS, NQ_PROFILE, autocorrelation, compare_facts, half_hour_profile, stylised_facts


def verdicts(market):
    table = compare_facts({"simulated": stylised_facts(market.bars.frame)})
    return dict(zip(table["fact"], table["verdict"], strict=True))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_default_market_lands_within_every_band(seed):
    found = verdicts(simulate_bars(n_sessions=100, seed=seed))
    assert [found[name] for name in BANDS] == ["PASS"] * len(BANDS)
    assert found["excess kurtosis, raw"] == "–"


def test_a_market_of_normal_moves_fails():
    plain = MarketLaw(log_vol_sd=0.01, strength=1.0, has_states=False, wick_ratio=1.5)
    found = verdicts(simulate_bars(n_sessions=100, seed=1, strength=1.0, law=plain))
    assert found["excess kurtosis within sessions"] == "FAIL"
    assert found["autocorrelation of |r|, lag 10"] == "FAIL"
    assert found["spread of session levels (log)"] == "FAIL"
    assert found["range over close-to-close move"] == "FAIL"


def test_autocorrelation_by_hand():
    values = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    off = values - 3.0  # -2 -1 nan 1 2, mean square 2.5
    assert autocorrelation(values, 3) == pytest.approx([np.mean([2, 2]) / 2.5, -1 / 2.5, np.mean([-2, -2]) / 2.5])
    assert np.nansum(off) == 0


@pytest.mark.filterwarnings("error")
def test_what_is_too_short_to_tell_is_nan():
    assert np.isnan(autocorrelation(np.ones(60), 3)).all()
    assert np.isnan(autocorrelation(np.array([1.0, 2.0, 4.0]), 5)[3:]).all()
    found = stylised_facts(simulate_bars(n_sessions=1, seed=1).bars.frame.iloc[:150])
    assert np.isnan(found["autocorrelation of |r|, lag 10"]) and found["range over close-to-close move"] > 1


def test_the_profile_is_that_of_the_law():
    frame = simulate_bars(n_sessions=60, seed=8, law=MarketLaw(log_vol_sd=0.05), expansions_per_session=0).bars.frame
    profile = half_hour_profile(frame)
    assert np.mean(profile**2) == pytest.approx(1)
    assert profile == pytest.approx(NQ_PROFILE, rel=0.15)
    assert profile.argmax() == 31  # 09:30 New York


def test_several_series_stand_side_by_side_and_the_first_is_judged():
    facts = dict.fromkeys(BANDS, 1e9)
    table = compare_facts({"a": facts, "b": {name: sum(band) / 2 for name, band in BANDS.items()}})
    assert list(table.columns) == ["fact", "a", "b", "band", "verdict"]
    assert (table["verdict"] == "FAIL").all()
