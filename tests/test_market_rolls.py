"""Rolls told from news, interleaved contracts found and cut out, and series made continuous."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.market import (
    back_adjust,
    describe_rolls,
    describe_segments,
    find_interleaved,
    find_rolls,
    segment_starts,
    simulate_bars,
)

PRICES = ["open", "high", "low", "close"]


def week_frame(tools, first="2024-03-11", n_sessions=5, n_bars=200):
    """Sessions of 200 bars from 10:00 New York, by default in the week of the expiry on 2024-03-15."""
    pieces = [tools.minutes(day + pd.Timedelta(hours=10), n_bars) for day in pd.bdate_range(first, periods=n_sessions)]
    return tools.walk_frame(pieces[0].append(pieces[1:]))


def mixed(frame, visits, factor=1.012):
    """Bars of the next contract, `factor` dearer, at the positions of `visits`."""
    frame = frame.copy()
    for first, end in visits:
        frame.iloc[first:end, :4] *= factor
    return frame


def test_bars_that_alternate_between_two_contracts_are_one_stretch(tools):
    visits = [(250, 251), (253, 260), (270, 330)]
    frame = mixed(week_frame(tools), visits)
    (span,) = find_interleaved(frame).itertuples()
    assert (span.first, span.last) == (frame.index[250], frame.index[329])
    assert (span.n_bars, span.n_switches, span.evidence) == (80, 6, "price")
    assert span.level_difference == pytest.approx(np.log(1.012), rel=0.02)
    starts = segment_starts(frame)
    switches = [edge for visit in visits for edge in visit]
    assert set(switches) <= set(starts.tolist())
    assert np.flatnonzero(find_rolls(frame)).tolist() == switches
    reason = describe_segments(frame, calendar="CME").set_index("start")["reason"]
    assert (reason[frame.index[switches]] == "contract switch").all()
    assert (reason == "contract switch").sum() == 6


def test_no_segment_holds_bars_of_two_contracts(tools):
    is_next = np.random.default_rng(3).random(1000) < 0.4
    is_next[:300], is_next[700:] = False, True
    frame = week_frame(tools)
    frame.loc[is_next, PRICES] *= 1.011
    starts = segment_starts(frame)
    for first, end in zip(starts, np.append(starts[1:], len(frame)), strict=True):
        assert len(set(is_next[first:end])) == 1
    (span,) = find_interleaved(frame).itertuples()
    switches = np.flatnonzero(np.diff(is_next)) + 1
    assert (span.first, span.last) == (frame.index[switches[0]], frame.index[switches[-1] - 1])
    assert span.n_switches == len(switches)


def test_instrument_ids_that_return_are_interleaved_whatever_the_price(tools):
    frame = week_frame(tools, "2024-04-15")
    ids = np.repeat([7, 8], [500, 500])
    ids[[20, 21, 30]] = 8
    frame = frame.assign(instrument_id=ids)
    (span,) = find_interleaved(frame).itertuples()
    assert (span.first, span.last, span.n_switches) == (frame.index[20], frame.index[30], 4)
    assert span.evidence == "instrument_id"
    table = describe_rolls(frame, n_largest=2).query("verdict != 'no roll'").set_index("ts")
    assert table["verdict"].tolist() == ["interleaved"] * 4 + ["roll"]
    assert table.index[-1] == frame.index[500]
    assert (table["why"] == "instrument_id changes").all()
    assert segment_starts(frame).tolist() == [0, 20, 22, 30, 31, 200, 400, 500, 600, 800]


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: mixed(frame, [(250, 1000)], 1.01),  # a jump that stays
        lambda frame: mixed(mixed(frame, [(250, 1000)], 1.01), [(255, 1000)], 0.993),  # most of it given back
        lambda frame: mixed(frame, [(250, 253)], 1.004),  # too small
        lambda frame: mixed(frame, [(202, 202 + 120)], 1.01),  # longer than a window: a stretch of its own
        lambda frame: frame.assign(close=frame["close"] * np.tile([1.01, 0.99], 500)).assign(
            open=lambda f: np.r_[f["open"].iloc[0], f["close"].iloc[:-1]]
        ),  # wild bars that begin where the last one ended
    ],
)
def test_news_near_an_expiry_is_not_interleaved(tools, change):
    assert find_interleaved(change(week_frame(tools))).empty


def test_a_jump_there_and_back_far_from_an_expiry_is_news(tools):
    assert find_interleaved(mixed(week_frame(tools, "2024-04-15"), [(250, 253)])).empty


def test_in_a_wild_week_a_switch_has_to_be_larger(tools):
    calm = week_frame(tools)
    wild = calm.copy()
    wild["close"] = wild["open"] * np.exp(0.004 * np.random.default_rng(1).standard_normal(len(wild)))
    wild["open"] = np.r_[wild["open"].iloc[0], wild["close"].iloc[:-1]]
    assert len(find_interleaved(mixed(calm, [(250, 253)]))) == 1
    assert find_interleaved(mixed(wild, [(250, 253)])).empty


@pytest.mark.parametrize("seed", range(4))
def test_the_simulated_market_interleaves_nothing(seed):
    market = simulate_bars(n_sessions=12, seed=seed, start_date="2024-03-06")
    assert find_interleaved(market.bars.frame).empty


def test_describing_rolls_gives_every_jump_its_verdict(tools):
    days = pd.bdate_range("2024-02-26", periods=40)
    pieces = [tools.minutes(day + pd.Timedelta(hours=10), 60) for day in days]
    frame = tools.walk_frame(pieces[0].append(pieces[1:]))
    overnight = np.cumsum(np.random.default_rng(2).normal(0, 2e-4, len(days)))
    frame[PRICES] = frame[PRICES].mul(np.repeat(np.exp(overnight), 60), axis=0)
    jumps = {"2024-03-01": 1.024, "2024-03-08": 1.011, "2024-03-13": 1.004, "2024-04-09": 0.978}
    for date, factor in jumps.items():
        frame.iloc[frame.index.searchsorted(pd.Timestamp(date, tz="UTC")) :, :4] *= factor
    table = describe_rolls(frame, n_largest=4).set_index("trade_date")
    assert table.index.strftime("%Y-%m-%d").tolist() == list(jumps)
    assert table["jump"].tolist() == pytest.approx([factor - 1 for factor in jumps.values()], abs=8e-4)
    assert table["verdict"].tolist() == ["no roll", "roll", "no roll", "no roll"]
    assert table["days_from_expiry"].tolist() == [-14, -7, -2, 25]
    assert (np.sign(table["robust_z"]) == [1, 1, 1, -1]).all() and (table["robust_z"].abs() > 6).all()
    assert table["gap_minutes"].tolist() == [1381, 1381, 1381, 1381]
    whys = ["14 days before an expiry", "far outside", "smaller than 0.6%", "25 days after an expiry"]
    for why, part in zip(table["why"], whys, strict=True):
        assert part in why
    assert describe_rolls(frame, n_largest=0)["verdict"].tolist() == ["roll"]


def test_the_largest_jump_of_every_expiry_week_is_listed(tools):
    frame = week_frame(tools, "2024-06-03", n_sessions=20)
    table = describe_rolls(frame, n_largest=0)
    assert table["verdict"].tolist() == ["no roll"]
    assert -10 <= table["days_from_expiry"].iloc[0] <= 4


def test_one_bar_has_no_rolls(plain_frame):
    one = plain_frame.iloc[:1]
    assert describe_rolls(one).empty and find_interleaved(one).empty
    pd.testing.assert_frame_equal(back_adjust(one), one)


def rolled_frame(tools, has_ids):
    """Twelve sessions, with rolls on 2024-03-13 and (by instrument only) 2024-03-19."""
    frame = week_frame(tools, "2024-03-06", n_sessions=12, n_bars=80)
    frame.iloc[5 * 80 :, :4] *= 1.013
    if has_ids:
        frame.iloc[9 * 80 :, :4] *= 1.002
        frame["instrument_id"] = np.repeat([1, 2, 3], [400, 320, 240])
    return frame, [400, 720] if has_ids else [400]


@pytest.mark.parametrize("has_ids", [False, True])
def test_back_adjusting_takes_out_the_jumps_and_nothing_else(tools, has_ids):
    frame, at = rolled_frame(tools, has_ids)
    assert np.flatnonzero(find_rolls(frame)).tolist() == at
    adjusted = back_adjust(frame)
    for roll in at:
        assert adjusted["open"].iloc[roll] == pytest.approx(adjusted["close"].iloc[roll - 1], rel=1e-12)
    pd.testing.assert_frame_equal(adjusted.iloc[at[-1] :], frame.iloc[at[-1] :])
    others = frame.columns.difference(PRICES)
    pd.testing.assert_frame_equal(adjusted[others], frame[others])
    inside = np.setdiff1d(np.arange(1, len(frame)), at)
    for name in PRICES:
        before, after = (np.diff(np.log(each[name].to_numpy()))[inside - 1] for each in (frame, adjusted))
        np.testing.assert_allclose(after, before, atol=1e-12)
    ratio = frame["open"].iloc[at[-1]] / frame["close"].iloc[at[-1] - 1]
    assert adjusted["close"].iloc[at[-1] - 1] == pytest.approx(frame["close"].iloc[at[-1] - 1] * ratio)


@pytest.mark.parametrize("has_ids", [False, True])
def test_back_adjusting_twice_is_back_adjusting_once(tools, has_ids):
    once = back_adjust(rolled_frame(tools, has_ids)[0])
    pd.testing.assert_frame_equal(back_adjust(once), once, check_exact=True)


def test_rounding_never_accumulates_over_many_adjustments(tools):
    frame = week_frame(tools).assign(instrument_id=np.arange(1000) // 10)
    levels = np.repeat(np.exp(np.random.default_rng(4).normal(0, 0.01, 100)), 10)
    frame[PRICES] = frame[PRICES].mul(levels, axis=0)
    once = back_adjust(frame)
    pd.testing.assert_frame_equal(back_adjust(once), once, check_exact=True)


def test_back_adjusting_leaves_its_input_and_a_series_without_rolls_alone(tools):
    frame, _ = rolled_frame(tools, True)
    before = frame.copy()
    back_adjust(frame)
    pd.testing.assert_frame_equal(frame, before)
    plain = frame.iloc[:400]
    pd.testing.assert_frame_equal(back_adjust(plain), plain, check_exact=True)


def test_back_adjusting_interleaved_bars_brings_them_to_one_level(tools):
    plain = week_frame(tools)
    visits = [(250, 251), (253, 260), (270, 1000)]  # the last visit stays: the roll
    adjusted = back_adjust(mixed(plain, visits))
    steps = np.abs(np.log(adjusted["open"].to_numpy()[1:] / adjusted["close"].to_numpy()[:-1]))
    assert steps.max() < 1e-9 + np.abs(np.log(plain["open"].to_numpy()[1:] / plain["close"].to_numpy()[:-1])).max()
    pd.testing.assert_frame_equal(adjusted.iloc[270:], mixed(plain, visits).iloc[270:])


def test_stocks_have_no_rolls_to_find_by_price(tools):
    frame = mixed(week_frame(tools), [(250, 253)])
    assert find_rolls(frame).any()
    assert not find_rolls(frame, calendar="NYSE").any() and find_interleaved(frame, calendar="NYSE").empty
    assert set(describe_rolls(frame, calendar="NYSE")["why"]) == {"stocks do not expire"}
    pd.testing.assert_frame_equal(back_adjust(frame, calendar="NYSE"), frame)
