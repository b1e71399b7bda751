"""Sessions, gaps and rolls, worked out by hand, daylight saving time included."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.market import (
    describe_gaps,
    describe_segments,
    expected_sessions,
    find_rolls,
    segment_starts,
    trade_dates,
)
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
    assert described["reason"].tolist() == ["first bar", "weekend", "gap", "gap over a break", "roll"]
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


def scheduled_frame(tools, first, last, calendar="CME"):
    """A bar at every scheduled minute, those of halts left out."""
    pieces = []
    for session in expected_sessions(first, last, calendar=calendar).itertuples():
        minutes = pd.date_range(session.open, session.close, freq="min", inclusive="left")
        if session.halt_start is not pd.NaT:
            minutes = minutes[(minutes < session.halt_start) | (minutes >= session.halt_end)]
        pieces.append(minutes)
    return tools.walk_frame(pieces[0].append(pieces[1:]))


@pytest.mark.parametrize(
    ("first", "last", "calendar", "kinds"),
    [
        ("2024-03-07", "2024-03-12", "CME", ["daily break", "weekend", "daily break"]),  # over the change of clocks
        ("2023-11-22", "2023-11-27", "CME", ["daily break", "holiday", "holiday"]),  # Thanksgiving: two early closes
        ("2024-12-23", "2024-12-27", "CME", ["daily break", "holiday", "daily break"]),
        ("2024-03-28", "2024-04-02", "CME", ["holiday", "daily break"]),  # Good Friday and the weekend
        ("2021-06-25", "2021-06-28", "CME", ["daily halt", "weekend"]),
        ("2024-07-02", "2024-07-08", "NYSE", ["daily break", "holiday", "weekend"]),
    ],
)
def test_scheduled_breaks_have_their_names(tools, first, last, calendar, kinds):
    gaps = describe_gaps(scheduled_frame(tools, first, last, calendar))
    assert gaps["kind"].tolist() == kinds
    assert (gaps["missing_bars"] == 0).all() and (gaps["absent_sessions"] == 0).all()
    assert (gaps["note"] == "").all()


def test_a_few_bars_lost_at_a_break_leave_it_a_break(tools):
    frame = scheduled_frame(tools, "2024-03-05", "2024-03-07")
    lost = frame.drop(frame.index[1377:1382])  # three at the close, two at the open
    (first, _) = describe_gaps(lost).itertuples()
    assert (first.kind, first.missing_bars) == ("daily break", 5)
    (first, _) = describe_gaps(lost.drop(frame.index[1382])).itertuples()
    assert (first.kind, first.missing_bars) == ("gap over a break", 6)


def test_holes_and_absent_sessions_are_counted_by_the_calendar(tools):
    frame = scheduled_frame(tools, "2024-06-28", "2024-07-08")
    dates = trade_dates(frame.index)
    keep = ~np.isin(dates, np.array(["2024-07-03", "2024-07-04"], "datetime64[D]"))
    keep[100:140] = False
    gaps = describe_gaps(frame[keep])
    assert gaps["kind"].tolist() == ["gap", "weekend", "daily break", "gap over a break", "weekend"]
    assert gaps["missing_bars"].tolist() == [40, 0, 0, 1155 + 1140, 0]
    assert gaps["absent_sessions"].tolist() == [0, 0, 0, 2, 0]
    assert gaps["gap_minutes"].iloc[0] == 41
    assert (gaps["last"].iloc[0], gaps["next"].iloc[0]) == (frame.index[99], frame.index[140])
    assert gaps["expiry"].isna().all()  # none between June and September


def test_missing_bars_around_an_expiry_may_hide_a_roll(tools):
    frame = scheduled_frame(tools, "2024-12-18", "2024-12-24")
    assert describe_gaps(frame)["expiry"].isna().all()  # the weekend after the expiry hides nothing
    at = frame.index.get_loc(pd.Timestamp("2024-12-20 14:30", tz="UTC"))
    assert describe_gaps(frame.drop(frame.index[at - 2 : at + 3]))["expiry"].isna().all()  # five bars
    assert describe_gaps(frame.drop(frame.index[at - 3 : at + 3]))["expiry"].notna().sum() == 1
    hidden = frame[(frame.index < "2024-12-19 12:00") | (frame.index >= "2024-12-20 14:30")]  # resumes at 09:30
    gaps = describe_gaps(hidden).dropna(subset="expiry")
    assert gaps["expiry"].tolist() == [pd.Timestamp("2024-12-20")]
    assert gaps["note"].tolist() == ["contains an expiry: a roll may hide in it"] and not gaps["is_roll"].any()
    rolled = hidden.copy()
    rolled.iloc[rolled.index.searchsorted(pd.Timestamp("2024-12-20 14:30", tz="UTC")) :, :4] *= 1.012
    gaps = describe_gaps(rolled).dropna(subset="expiry")
    assert gaps["note"].tolist() == ["contains an expiry, and the roll was found"] and gaps["is_roll"].all()


def test_stocks_have_no_expiry(tools):
    frame = scheduled_frame(tools, "2024-12-18", "2024-12-24", "NYSE")
    gaps = describe_gaps(frame[~np.isin(trade_dates(frame.index), np.array(["2024-12-20"], "datetime64[D]"))])
    assert "gap over a break" in gaps["kind"].tolist() and gaps["expiry"].isna().all()


def test_bars_on_a_holiday_have_gaps_outside_the_sessions(tools):
    stamps = tools.minutes("2024-12-24 20:00", 120)
    frame = tools.walk_frame(stamps.delete(range(50, 80)))
    assert describe_gaps(frame)["kind"].tolist() == ["outside the sessions"]


@pytest.mark.parametrize("year", ["1972", "2011", "2026", "2150"])
def test_segments_of_any_year_are_described(tools, year):
    frame = tools.walk_frame(tools.minutes(f"{year}-05-10 18:00", 100).append(tools.minutes(f"{year}-05-12 18:00", 50)))
    assert len(describe_segments(frame)) == 2 and len(describe_gaps(frame)) == 1


def test_no_gaps_are_no_rows(plain_frame):
    gaps = describe_gaps(plain_frame)
    assert gaps.empty
    assert gaps.columns.tolist() == [
        "last", "next", "gap_minutes", "kind", "missing_bars", "absent_sessions", "expiry", "is_roll", "note",
    ]  # fmt: skip


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
