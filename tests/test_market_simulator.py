"""The simulated market follows its own law."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.market import MarketLaw, describe_segments, simulate_bars, trade_dates
from moola_lib.market.simulator import SESSION_MINUTES, minute_profile

PRICES = ["open", "high", "low", "close"]


@pytest.fixture(scope="module")
def long_market():
    return simulate_bars(n_sessions=60, seed=3, strength=2.0)


def is_inside(market):
    """Bars inside a planted span, and bars in the state before one."""
    index = market.bars.frame.index
    inside, before = np.zeros((2, len(index)), bool)
    for row in market.planted.itertuples():
        first, last = index.get_loc(row.start_ts), index.get_loc(row.end_ts)
        inside[first : last + 1] = True
        before[index.get_loc(row.state_start_ts) : first] = True
    return inside, before


def standard_returns(market):
    """Open-to-close log returns over the session's usual volatility."""
    frame = market.bars.frame
    profile = np.tile(minute_profile(), len(frame) // SESSION_MINUTES) * market.law.minute_vol
    return np.log(frame["close"] / frame["open"]).to_numpy() / profile


def test_equal_seeds_give_equal_markets_bit_for_bit(market):
    again = simulate_bars(n_sessions=6, seed=5)
    pd.testing.assert_frame_equal(again.bars.frame, market.bars.frame, check_exact=True)
    pd.testing.assert_frame_equal(again.planted, market.planted, check_exact=True)


def test_another_seed_gives_another_market(market):
    other = simulate_bars(n_sessions=6, seed=6)
    assert not np.array_equal(other.bars.frame["close"], market.bars.frame["close"])
    assert not np.array_equal(other.planted["start_ts"], market.planted["start_ts"])


def test_every_bar_is_a_bar_on_the_tick_grid(market):
    frame = market.bars.frame
    assert (frame["high"] >= frame[["open", "close"]].max(axis=1)).all()
    assert (frame["low"] <= frame[["open", "close"]].min(axis=1)).all()
    assert (frame[PRICES] % market.law.tick_points == 0).all(axis=None)
    assert (frame["volume"] >= 1).all()
    assert "dropped" not in " ".join(market.bars.report["fact"])


def test_inside_a_session_each_bar_opens_at_the_close_before(market):
    frame = market.bars.frame
    is_first = np.arange(len(frame)) % SESSION_MINUTES == 0
    opens, before = frame["open"].to_numpy()[1:], frame["close"].to_numpy()[:-1]
    np.testing.assert_array_equal(opens[~is_first[1:]], before[~is_first[1:]])
    assert (opens[is_first[1:]] != before[is_first[1:]]).all()


@pytest.mark.parametrize("start_date", ["2024-03-07", "2024-10-31", "2024-01-06"])
def test_sessions_are_1380_bars_from_18_to_17_new_york(start_date):
    frame = simulate_bars(n_sessions=3, seed=1, start_date=start_date).bars.frame
    assert len(frame) == 3 * SESSION_MINUTES
    local = frame.index.tz_convert("America/New_York")
    assert {f"{stamp:%H:%M}" for stamp in local[::SESSION_MINUTES]} == {"18:00"}
    assert {f"{stamp:%H:%M}" for stamp in local[SESSION_MINUTES - 1 :: SESSION_MINUTES]} == {"16:59"}
    dates = trade_dates(frame.index).reshape(3, SESSION_MINUTES)
    assert (dates == dates[:, :1]).all()
    assert np.is_busday(dates[:, 0]).all()
    assert describe_segments(frame)["n_bars"].tolist() == [SESSION_MINUTES] * 3


def test_windows_hold_their_spans_inside_one_session_and_share_no_bar(market):
    planted, law = market.planted, market.law
    minute = pd.Timedelta(minutes=1)
    start = (planted["start_ts"] - planted["window_start_ts"]) // minute
    end = (planted["end_ts"] - planted["window_start_ts"]) // minute
    assert start.between(30, 74).all()
    assert (end < law.window_bars).all()
    assert (end - start + 1).between(6, 30).all()
    state = (planted["start_ts"] - planted["state_start_ts"]) // minute + 1
    assert state.between(10, 20).all()  # the overlapping bar included
    steps = planted["window_start_ts"].diff().dropna() / minute
    assert (steps >= law.window_bars).all()
    last = planted["window_start_ts"] + (law.window_bars - 1) * minute
    assert (trade_dates(pd.DatetimeIndex(last)) == trade_dates(pd.DatetimeIndex(planted["window_start_ts"]))).all()
    assert (planted.groupby("session").size() == 8).all()


def test_starts_and_states_are_spread_as_the_law_says(long_market):
    planted = long_market.planted
    start = (planted["start_ts"] - planted["window_start_ts"]) // pd.Timedelta(minutes=1)
    assert start.min() <= 33 and start.max() >= 71
    assert start.mean() == pytest.approx(52, abs=2)
    share = (planted["state"] == "consolidation").mean()
    assert share == pytest.approx(81 / 174, abs=0.07)
    assert set(planted["direction"]) == {-1, 1}


def test_inside_an_expansion_volatility_is_strength_times_larger(long_market):
    returns = standard_returns(long_market)
    inside, before = is_inside(long_market)
    ratio = returns[inside].std() / returns[~inside & ~before].std()
    assert ratio == pytest.approx(2.0, rel=0.1)


def test_a_consolidation_is_compressed(long_market):
    returns = standard_returns(long_market)
    inside, before = is_inside(long_market)
    index = long_market.bars.frame.index
    quiet = np.zeros(len(index), bool)
    for row in long_market.planted.query("state == 'consolidation'").itertuples():
        quiet[index.get_loc(row.state_start_ts) : index.get_loc(row.start_ts)] = True
    ratio = returns[quiet].std() / returns[~inside & ~before].std()
    assert ratio == pytest.approx(long_market.law.consolidation_ratio, rel=0.12)


def test_a_retracement_runs_against_the_move_to_come(long_market):
    index = long_market.bars.frame.index
    returns = standard_returns(long_market)
    moves = {"consolidation": [], "retracement": []}
    for row in long_market.planted.itertuples():
        span = slice(index.get_loc(row.state_start_ts), index.get_loc(row.start_ts))
        moves[row.state].append(row.direction * returns[span].mean())
    assert np.mean(moves["retracement"]) < -0.2
    assert abs(np.mean(moves["consolidation"])) < 0.1


def test_drift_moves_expansions_in_their_direction():
    market = simulate_bars(n_sessions=20, seed=3, drift=1.0)
    index, returns = market.bars.frame.index, standard_returns(market)
    moves = [
        row.direction * returns[index.get_loc(row.start_ts) : index.get_loc(row.end_ts) + 1].mean()
        for row in market.planted.itertuples()
    ]
    assert np.mean(moves) > 1.0


def test_the_null_market_plants_nothing_that_shows():
    market = simulate_bars(n_sessions=60, seed=4, strength=1.0, law=MarketLaw(has_states=False))
    returns = standard_returns(market)
    inside, before = is_inside(market)
    assert returns[inside].std() / returns[~inside].std() == pytest.approx(1.0, rel=0.1)
    assert returns[before].std() / returns[~before].std() == pytest.approx(1.0, rel=0.1)


def test_the_law_is_a_markov_chain_around_zero():
    law = MarketLaw()
    np.testing.assert_allclose(law.transition.sum(axis=1), 1, atol=1e-12)
    assert (law.transition >= 0).all()
    np.testing.assert_allclose(law.stationary @ law.transition, law.stationary, atol=1e-12)
    assert law.stationary.sum() == pytest.approx(1) and (law.stationary > 0).all()
    assert law.stationary @ law.grid == pytest.approx(0, abs=1e-9)
    sd = np.sqrt(law.stationary @ law.grid**2)
    assert sd == pytest.approx(law.log_vol_sd, rel=0.1)
    assert len(law.grid) == 21 and law.grid[-1] == pytest.approx(3 * law.log_vol_sd)


def test_a_day_has_mean_square_one_and_is_liveliest_at_the_open():
    profile = minute_profile()
    assert len(profile) == SESSION_MINUTES
    assert np.mean(profile**2) == pytest.approx(1)
    assert profile.argmax() == 930  # 09:30 New York


def test_rolls_jump_and_change_the_instrument():
    market = simulate_bars(n_sessions=6, seed=2, roll_every_sessions=2)
    frame = market.bars.frame
    ids = frame["instrument_id"].to_numpy()
    at = np.flatnonzero(np.diff(ids)) + 1
    assert at.tolist() == [2 * SESSION_MINUTES, 4 * SESSION_MINUTES]
    assert describe_segments(frame)["reason"].value_counts()["roll"] == 2
    plain = simulate_bars(n_sessions=6, seed=2).bars.frame
    ratio = np.log(frame["close"].to_numpy() / plain["close"].to_numpy())
    assert ratio[at[0] - 1] == 0 and ratio[at[0]] == pytest.approx(0.01, abs=1e-4)


def test_holes_lie_in_ordinary_tape_only():
    market = simulate_bars(n_sessions=4, seed=2, hole_share=0.3)
    index = market.bars.frame.index
    assert len(index) < 4 * SESSION_MINUTES
    for row in market.planted.itertuples():
        window = pd.date_range(row.window_start_ts, periods=105, freq="min")
        assert window.isin(index).all()
    assert (describe_segments(market.bars.frame)["reason"] == "gap").any()


@pytest.mark.parametrize("options", [{"n_sessions": 0}, {"expansions_per_session": 14}, {"expansions_per_session": -1}])
def test_impossible_counts_are_refused(options):
    with pytest.raises(UserError, match="at least 1 session and at most 13"):
        simulate_bars(**{"n_sessions": 1} | options)


def test_sessions_skip_holidays_and_early_closes():
    dates = trade_dates(simulate_bars(n_sessions=10, seed=1, start_date="2024-12-23").bars.frame.index)
    found = np.unique(dates).astype(str).tolist()
    assert found[:4] == ["2024-12-23", "2024-12-26", "2024-12-27", "2024-12-30"]
    assert "2025-01-01" not in found and "2025-01-09" not in found  # New Year, a day of mourning


def test_a_time_with_daily_halts_is_refused():
    with pytest.raises(UserError, match="2021-06-28 or later"):
        simulate_bars(n_sessions=2, start_date="2015-01-05")


def test_a_market_may_hold_no_expansion():
    market = simulate_bars(n_sessions=1, expansions_per_session=0)
    assert len(market.planted) == 0 and len(market.bars) == SESSION_MINUTES
