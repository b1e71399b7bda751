"""Sessions, gaps and rolls, worked out by hand, daylight saving time included."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.market import describe_segments, find_rolls, segment_starts, trade_dates
from moola_lib.market.ranges import average_true_range, true_range

# UTC stamp, trade date. New York is UTC-5 in winter and UTC-4 in summer.
TRADE_DATES = [
    ("2024-03-07 22:59", "2024-03-07"),  # 17:59 EST
    ("2024-03-07 23:00", "2024-03-08"),  # 18:00 EST: Friday's session begins
    ("2024-03-08 21:59", "2024-03-08"),  # Friday's last bar, 16:59 EST
    ("2024-03-10 22:00", "2024-03-11"),  # Sunday 18:00 EDT, hours after the clocks went forward
    ("2024-03-11 05:00", "2024-03-11"),
    ("2024-03-11 20:59", "2024-03-11"),  # 16:59 EDT
    ("2024-03-11 22:00", "2024-03-12"),  # 18:00 EDT
    ("2024-10-31 22:00", "2024-11-01"),  # 18:00 EDT
    ("2024-11-01 20:59", "2024-11-01"),
    ("2024-11-03 23:00", "2024-11-04"),  # Sunday 18:00 EST, hours after the clocks went back
    ("2024-11-04 21:59", "2024-11-04"),
    ("2024-11-04 23:00", "2024-11-05"),
]


@pytest.mark.parametrize(("stamp", "date"), TRADE_DATES)
def test_trade_dates_by_hand(stamp, date):
    assert trade_dates(pd.DatetimeIndex([stamp], tz="UTC"))[0] == np.datetime64(date)


def test_sunday_evening_belongs_to_monday(tiny):
    dates = trade_dates(tiny.frame.index)
    assert dates[tiny.weekend - 1] == np.datetime64("2024-03-08")
    assert (dates[tiny.weekend : tiny.half_day] == np.datetime64("2024-03-11")).all()


def test_segments_begin_at_the_weekend_the_hole_the_session_and_the_roll(tiny):
    starts = segment_starts(tiny.frame)
    assert starts.dtype == np.int64
    assert starts.tolist() == [0, tiny.weekend, tiny.hole, tiny.half_day, tiny.roll]
    described = describe_segments(tiny.frame)
    assert described["reason"].tolist() == ["first bar", "session break", "gap", "session break", "roll"]
    assert described["n_bars"].tolist() == [180, 130, 120, 115, 120]
    assert described["gap_minutes"].iloc[2] == 31
    assert (described["start"] == tiny.frame.index[starts]).all()
    assert described["end"].iloc[-1] == tiny.frame.index[-1]


def test_a_longer_allowance_closes_the_hole(tiny):
    assert tiny.hole not in segment_starts(tiny.frame, max_gap_minutes=31)
    assert tiny.hole in segment_starts(tiny.frame, max_gap_minutes=30)


def test_a_gap_of_exactly_the_allowance_starts_nothing(plain_frame):
    frame = plain_frame.drop(plain_frame.index[10:14])
    assert segment_starts(frame).tolist() == [0]
    assert segment_starts(frame.drop(plain_frame.index[14])).tolist() == [0, 10]


def test_a_new_instrument_is_a_roll_even_without_a_gap(plain_frame):
    frame = plain_frame.assign(instrument_id=np.repeat([7, 8], [25, 15]))
    assert np.flatnonzero(find_rolls(frame)).tolist() == [25]
    assert segment_starts(frame).tolist() == [0, 25]


def test_the_same_instrument_rolls_at_no_jump(tiny):
    assert not find_rolls(tiny.frame.assign(instrument_id=7)).any()


def jumping_frame(tools, first, share):
    """Eight sessions of sixty bars, with one jump of `share` before the fifth."""
    days = pd.bdate_range(first, periods=8)
    pieces = [tools.minutes(day + pd.Timedelta(hours=10), 60) for day in days]
    frame = tools.walk_frame(pieces[0].append(pieces[1:]))
    frame.iloc[240:, :4] *= 1 + share
    return frame, int(frame.index.get_loc(pieces[4][0]))


@pytest.mark.parametrize(
    ("first", "share", "is_roll"),
    [
        ("2024-03-04", 0.01, True),  # fifth session on Friday 8 March, a week before expiry on the 15th
        ("2024-03-04", -0.01, True),
        ("2024-03-04", 0.004, False),  # too small
        ("2024-04-08", 0.03, False),  # no expiry in April
        ("2024-03-18", 0.03, False),  # Friday 22 March: the expiry week is over
        ("2024-12-09", 0.012, True),  # Friday 13 December, expiry on the 20th
    ],
)
def test_a_jump_is_a_roll_in_expiry_week_only(tools, first, share, is_roll):
    frame, at = jumping_frame(tools, first, share)
    assert np.flatnonzero(find_rolls(frame)).tolist() == ([at] if is_roll else [])


def test_a_jump_inside_a_session_is_news(plain_frame):
    frame = plain_frame.copy()
    frame.iloc[20:, :4] *= 1.01
    assert not find_rolls(frame).any()


def test_one_bar_has_one_segment(plain_frame):
    assert segment_starts(plain_frame.iloc[:1]).tolist() == [0]


def test_true_range_and_its_mean_by_hand():
    high = np.array([11.0, 12.0, 15.0, 14.0, 30.0, 31.0])
    low = np.array([9.0, 11.0, 12.0, 13.0, 29.0, 30.0])
    close = np.array([10.0, 11.0, 14.0, 13.5, 29.5, 30.5])
    starts = np.array([0, 4])
    expected = [np.nan, 2.0, 4.0, 1.0, np.nan, 1.5]  # no previous close at a segment's first bar
    np.testing.assert_array_equal(true_range(high, low, close, starts), expected)
    np.testing.assert_allclose(average_true_range(high, low, close, starts, 2), [np.nan, 2, 3, 2.5, np.nan, 1.5])


def test_the_mean_of_ranges_never_reads_across_a_segment(tiny):
    starts = segment_starts(tiny.frame)
    high, low, close = (tiny.frame[name].to_numpy() for name in ("high", "low", "close"))
    whole = average_true_range(high, low, close, starts)
    part = slice(tiny.hole, tiny.half_day)
    np.testing.assert_array_equal(whole[part], average_true_range(high[part], low[part], close[part], np.array([0])))
