"""The market's calendar worked out by hand: daylight saving time, half-days, holidays, halts, and what bars cover."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.market import detect_calendar, expected_sessions, hourly_coverage, session_coverage, trade_dates
from moola_lib.market.calendar import quarterly_expiries, scheduled_before, whole_minutes

# trade date, open and close (UTC), scheduled bars, closes early
CME_SESSIONS = [
    ("2024-03-08", "2024-03-07 23:00", "2024-03-08 22:00", 1380, False),  # winter time
    ("2024-03-11", "2024-03-10 22:00", "2024-03-11 21:00", 1380, False),  # the evening after the clocks went forward
    ("2024-11-01", "2024-10-31 22:00", "2024-11-01 21:00", 1380, False),
    ("2024-11-04", "2024-11-03 23:00", "2024-11-04 22:00", 1380, False),  # the evening after they went back
    ("2023-11-23", "2023-11-22 23:00", "2023-11-23 18:00", 1140, True),  # Thanksgiving trades until 13:00
    ("2023-11-24", "2023-11-23 23:00", "2023-11-24 18:15", 1155, True),  # the day after until 13:15
    ("2024-06-19", "2024-06-18 22:00", "2024-06-19 17:00", 1140, True),
    ("2024-07-03", "2024-07-02 22:00", "2024-07-03 17:15", 1155, True),
    ("2024-07-04", "2024-07-03 22:00", "2024-07-04 17:00", 1140, True),
    ("2018-12-05", "2018-12-04 23:00", "2018-12-05 14:30", 930, True),  # mourning: until 09:30
    ("2025-01-09", "2025-01-08 23:00", "2025-01-09 14:30", 930, True),
    ("2023-04-07", "2023-04-06 22:00", "2023-04-07 13:15", 915, True),  # Good Friday with a jobs report: until 09:15
    ("2021-06-25", "2021-06-24 22:00", "2021-06-25 21:00", 1365, False),  # the last day with the halt at 16:15
    ("2021-06-28", "2021-06-27 22:00", "2021-06-28 21:00", 1380, False),
]


@pytest.mark.parametrize(("date", "opens", "closes", "n_bars", "is_half_day"), CME_SESSIONS)
def test_sessions_of_index_futures_by_hand(date, opens, closes, n_bars, is_half_day):
    (session,) = expected_sessions(date, date).itertuples()
    assert session.Index == pd.Timestamp(date)
    assert (session.open, session.close) == (pd.Timestamp(opens, tz="UTC"), pd.Timestamp(closes, tz="UTC"))
    assert (session.expected_bars, session.is_half_day) == (n_bars, is_half_day)


@pytest.mark.parametrize(
    ("date", "calendar"),
    [
        ("2024-12-25", "CME"),
        ("2024-03-29", "CME"),  # Good Fridays without a jobs report
        ("2025-04-18", "CME"),
        ("2024-06-15", "CME"),  # a Saturday
        ("2024-06-19", "NYSE"),
        ("2025-01-09", "NYSE"),
    ],
)
def test_days_without_a_session(date, calendar):
    closed = expected_sessions(date, date, calendar=calendar)
    assert closed.empty and closed["expected_bars"].sum() == 0


def test_stocks_trade_the_regular_session():
    sessions = expected_sessions("2024-07-02", "2024-07-05", calendar="NYSE")
    assert sessions["expected_bars"].tolist() == [390, 210, 390]
    assert sessions["is_half_day"].tolist() == [False, True, False]
    assert sessions["halt_start"].isna().all()


def test_the_halt_is_the_one_the_library_knows_for_the_older_calendar():
    from pandas_market_calendars import get_calendar

    older = get_calendar("CME_Equity").schedule("2021-06-21", "2021-07-02")
    ours = expected_sessions("2021-06-21", "2021-07-02")
    has_halt = older["break_start"] < older["break_end"]
    assert has_halt.sum() == 5
    assert ours["halt_start"].notna().tolist() == has_halt.tolist()
    assert (ours["halt_start"][has_halt.to_numpy()] == older["break_start"][has_halt]).all()
    assert (ours["halt_end"][has_halt.to_numpy()] == older["break_end"][has_halt]).all()


@pytest.mark.parametrize("year", [1975, 1999, 2011, 2026, 2190])
def test_any_year_has_a_calendar(year):
    for calendar in ("CME", "NYSE"):
        assert 245 <= len(expected_sessions(f"{year}-01-01", f"{year}-12-31", calendar=calendar)) <= 262


def test_an_unknown_calendar_and_a_reversed_range_are_refused():
    with pytest.raises(UserError, match="'EUREX' is not known"):
        expected_sessions("2024-01-01", "2024-01-05", calendar="EUREX")
    with pytest.raises(UserError, match="2024-01-05 comes after the last 2024-01-01"):
        expected_sessions("2024-01-05", "2024-01-01")


def test_expiries_are_third_fridays_of_the_quarter():
    expected = ["2024-03-15", "2024-06-21", "2024-09-20", "2024-12-20", "2025-03-21"]
    assert quarterly_expiries("2024-03-15", "2025-03-21").astype(str).tolist() == expected
    assert quarterly_expiries("2024-03-16", "2024-06-20").size == 0


def test_scheduled_minutes_are_counted_over_the_halt_and_the_daily_break():
    sessions = expected_sessions("2021-06-25", "2021-06-28")
    stamps = ["2021-06-24 12:00", "2021-06-24 22:00", "2021-06-25 20:15", "2021-06-25 20:29", "2021-06-25 20:31"]
    stamps += ["2021-06-25 21:00", "2021-06-27 21:59", "2021-06-27 22:01", "2021-06-30 00:00"]
    minutes = whole_minutes(pd.DatetimeIndex(stamps, tz="UTC"))
    expected = [0, 0, 1335, 1335, 1336, 1365, 1365, 1366, 1365 + 1380]
    assert scheduled_before(sessions, minutes).tolist() == expected


def session_minutes(first, last, calendar="CME"):
    """Every scheduled minute but those of halts."""
    sessions = expected_sessions(first, last, calendar=calendar)
    pieces = [pd.date_range(s.open, s.close, freq="min", inclusive="left") for s in sessions.itertuples()]
    return pieces[0].append(pieces[1:])


def test_a_whole_week_is_full_and_one_with_losses_says_where():
    index = session_minutes("2024-07-01", "2024-07-08")
    whole = session_coverage(index)
    assert whole["kind"].tolist() == ["full"] * 6
    assert whole["is_half_day"].tolist() == [False, False, True, True, False, False]
    assert (whole["share"] == 1).all() and (whole["longest_hole_bars"] == 0).all()
    assert (whole["calendar"] == "CME").all()
    dates = trade_dates(index)
    keep = dates != np.datetime64("2024-07-04")
    keep[np.flatnonzero(dates == np.datetime64("2024-07-03"))[100:130]] = False  # half an hour of the 1,155 bars
    keep[np.flatnonzero(dates == np.datetime64("2024-07-05"))[[0, 1, 2, 50]]] = False
    keep[np.flatnonzero(dates == np.datetime64("2024-07-08"))[400:]] = False  # the export ends
    table = session_coverage(index[keep])
    assert table["kind"].tolist() == ["full", "full", "partial", "absent", "full", "cut"]
    assert table["n_bars"].tolist() == [1380, 1380, 1125, 0, 1376, 400]
    assert table["longest_hole_bars"].tolist() == [0, 0, 30, 1140, 3, 980]
    assert table["share"].tolist() == pytest.approx([1, 1, 1125 / 1155, 0, 1376 / 1380, 400 / 1380])


def test_bars_outside_the_schedule_are_counted_apart():
    index = session_minutes("2024-07-03", "2024-07-05")
    late = pd.date_range("2024-07-04 17:00", periods=7, freq="min", tz="UTC")  # after the early close
    table = session_coverage(index.append(late).sort_values())
    assert table["outside_bars"].tolist() == [0, 7, 0]
    assert table["n_bars"].tolist() == [1155, 1140, 1380]
    christmas = pd.date_range("2024-12-25 15:00", periods=60, freq="min", tz="UTC")
    index = session_minutes("2024-12-24", "2024-12-26").append(christmas).sort_values()
    table = session_coverage(index)
    assert table["kind"].tolist() == ["full", "unscheduled", "full"]
    assert table["outside_bars"].tolist() == [0, 60, 0] and np.isnan(table["share"].iloc[1])


def test_the_halt_is_no_hole():
    index = session_minutes("2021-06-24", "2021-06-25")
    local = index.tz_convert("America/New_York")
    index = index[~((local.hour == 16) & (local.minute >= 15) & (local.minute < 30))]
    table = session_coverage(index)
    assert table["share"].tolist() == [1, 1] and table["longest_hole_bars"].tolist() == [0, 0]


def test_hours_of_sessions():
    index = session_minutes("2024-07-02", "2024-07-05")
    keep = np.ones(len(index), bool)
    keep[15:30] = False  # a quarter of an hour at 18:15 of the first session
    hours = hourly_coverage(index[keep])
    assert hours.shape == (4, 23)
    assert (hours.columns[0], hours.columns[6], hours.columns[-1]) == ("18:00", "00:00", "16:00")
    assert hours.iloc[0, 0] == 0.75 and (hours.iloc[0, 1:] == 1).all()
    assert hours.loc["2024-07-03", "13:00"] == 1  # the fifteen minutes that are scheduled
    assert hours.loc["2024-07-03", "14:00":].isna().all() and hours.loc["2024-07-04", "13:00":].isna().all()
    stocks = hourly_coverage(session_minutes("2024-07-02", "2024-07-02", "NYSE"))
    assert stocks.columns.tolist() == [f"{hour:02d}:30" for hour in range(9, 16)] and (stocks == 1).all(axis=None)


def test_the_calendar_is_told_by_the_hours_of_the_bars():
    futures, stocks = session_minutes("2024-07-01", "2024-07-02"), session_minutes("2024-07-01", "2024-07-02", "NYSE")
    assert detect_calendar(futures) == "CME"
    assert detect_calendar(futures[:40]) == "CME"  # an evening's first bars
    assert detect_calendar(stocks) == "NYSE"
    extended = pd.date_range("2024-07-01 08:00", "2024-07-01 23:59", freq="min", tz="UTC")  # 04:00 to 19:59
    assert detect_calendar(extended) == "NYSE"
    assert session_coverage(stocks)["calendar"].unique().tolist() == ["NYSE"]
    assert session_coverage(stocks, calendar="CME")["share"].tolist() == pytest.approx([390 / 1380] * 2)


def test_a_stock_after_hours_keeps_its_date():
    index = pd.DatetimeIndex(["2024-07-01 23:30"], tz="UTC")  # 19:30 New York
    assert trade_dates(index, calendar="NYSE").astype(str).tolist() == ["2024-07-01"]
    assert trade_dates(index).astype(str).tolist() == ["2024-07-02"]


def test_no_bars_have_no_coverage():
    empty = pd.DatetimeIndex([], tz="UTC")
    for describe in (session_coverage, hourly_coverage):
        with pytest.raises(UserError, match="no bars"):
            describe(empty)


def test_finding_segments_never_loads_the_calendar():
    code = (
        "import sys\nimport numpy as np, pandas as pd\n"
        "from moola_lib.market import segment_starts\n"
        "stamps = pd.date_range('2024-03-05', periods=9000, freq='min', tz='UTC')\n"
        "prices = {name: np.full(9000, 18000.0) for name in ('open', 'high', 'low', 'close')}\n"
        "segment_starts(pd.DataFrame(prices, index=stamps).drop(stamps[500:600]))\n"
        "print('pandas_market_calendars' in sys.modules, 'exchange_calendars' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
