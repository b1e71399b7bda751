"""When the market is open: scheduled sessions, and how much of them a series covers.

CME index futures trade from 18:00 to 17:00 New York time; the trade date is
the calendar date on which a session ends. Holidays and early closes come from
pandas_market_calendars (imported only when a schedule is asked for, and never
while features are built), with the corrections listed below.
"""

from functools import cache

import numpy as np
import pandas as pd

from moola_lib.errors import UserError

ZONE = "America/New_York"
MARKETS = {"CME": "CME Globex Equity", "NYSE": "NYSE"}
REGULAR_BARS = {"CME": 1380, "NYSE": 390}
FULL_SHARE = 0.98  # a session with fewer of its scheduled bars counts as partial
MIN_SHARE = 0.05  # of the bars: fewer in the night, or outside the regular session, may be strays
# days of national mourning: the library has a whole session, but CME closed index futures at 09:30 New York
MOURNING_CLOSES = pd.DatetimeIndex(["2018-12-05", "2025-01-09"])
LAST_HALT = pd.Timestamp("2021-06-25")  # until then index futures paused from 16:15 to 16:30 New York


def trade_dates(index, *, calendar="CME"):
    """Return each bar's trade date.

    Parameters
    ----------
    index : DatetimeIndex, UTC
        Start of each bar.
    calendar : {"CME", "NYSE"}

    Returns
    -------
    ndarray (n_bars,), datetime64[D]
        For CME the New York date after moving 18:00 to midnight, so that the
        evening session belongs to the next day; for NYSE the New York date.
    """
    local = index.tz_convert(ZONE).tz_localize(None) + pd.Timedelta(hours=6 if calendar == "CME" else 0)
    return local.to_numpy().astype("datetime64[D]")


def quarterly_expiries(first, last):
    """Return the third Fridays of March, June, September and December.

    Parameters
    ----------
    first, last : date-like
        Range of dates, inclusive.

    Returns
    -------
    ndarray (n_expiries,), datetime64[D]
    """
    first, last = np.datetime64(first, "D"), np.datetime64(last, "D")
    months = np.arange(first.astype("datetime64[M]"), last.astype("datetime64[M]") + 1)
    months = months[(months.astype(int) % 12 + 1) % 3 == 0]
    expiries = np.busday_offset(months, 2, roll="forward", weekmask="Fri")
    return expiries[(expiries >= first) & (expiries <= last)]


def detect_calendar(index):
    """Tell by the hours of its bars which calendar a series follows.

    Parameters
    ----------
    index : DatetimeIndex, UTC

    Returns
    -------
    str
        "CME" if at least 5 % of the bars lie between 20:00 and 04:00 New York, when
        no US stock trades, or outside 09:30-16:00 and none in the futures' daily
        break at 17:00-18:00; otherwise "NYSE". Futures bars exported for the
        regular session alone are therefore judged by the regular session; pass
        the calendar where another reading is wanted.
    """
    local = index.tz_convert(ZONE)
    hour, minute = local.hour.to_numpy(), local.hour.to_numpy() * 60 + local.minute.to_numpy()
    is_night, is_break, is_regular = (hour >= 20) | (hour < 4), hour == 17, (minute >= 570) & (minute < 960)
    least = MIN_SHARE * len(index)
    is_futures = is_night.sum() > least or ((~is_regular).sum() > least and not is_break.any())
    return "CME" if is_futures else "NYSE"


def expected_sessions(first, last, *, calendar="CME"):
    """Return the scheduled sessions of a range of trade dates.

    Parameters
    ----------
    first, last : date-like
        Trade dates, inclusive.
    calendar : {"CME", "NYSE"}
        CME index futures (18:00-17:00 New York), or US stocks (09:30-16:00).

    Returns
    -------
    DataFrame, indexed by `trade_date` (no zone)
        `open`, `close`, `halt_start`, `halt_end` (UTC; NaT without a halt),
        `expected_bars` (minutes, int64), `is_half_day` (closes early).

    Raises
    ------
    UserError
        The calendar is unknown, or the range is reversed.

    Notes
    -----
    Differs from the library: Good Friday is a session (to 09:15) only when it
    is a first Friday, the day of the jobs report; two days of mourning close at
    09:30; before 2021-06-28 the halt from 16:15 to 16:30 is left out. Before
    2015-09-21 futures closed at 17:15; those bars lie outside these sessions.
    """
    if calendar not in MARKETS:
        raise UserError(f"calendar={calendar!r} is not known; use 'CME' (index futures) or 'NYSE' (US stocks)")
    first, last = pd.Timestamp(first).normalize(), pd.Timestamp(last).normalize()
    if first > last:
        raise UserError(f"the first trade date {first:%Y-%m-%d} comes after the last {last:%Y-%m-%d}; exchange them")
    week = pd.Timedelta(days=7)  # a range without any session has no columns: ask for more, and cut
    schedule = _market(calendar).schedule(first - week, last + week).loc[first:last]
    dates = pd.DatetimeIndex(schedule.index, name="trade_date").as_unit("ns")
    sessions = pd.DataFrame({name: schedule[f"market_{name}"].dt.as_unit("ns") for name in ("open", "close")})
    sessions = sessions.set_axis(dates)
    half_past_nine = (dates + pd.Timedelta(hours=9.5)).tz_localize(ZONE).tz_convert("UTC")
    if calendar == "CME":
        sessions["close"] = sessions["close"].where(~dates.isin(MOURNING_CLOSES), half_past_nine)
        is_good_friday = (sessions["close"] < half_past_nine).to_numpy()
        is_kept = ~is_good_friday | (dates.day <= 7)
        sessions, dates = sessions[is_kept], dates[is_kept]
    minutes = ((sessions["close"] - sessions["open"]) // pd.Timedelta(minutes=1)).to_numpy(np.int64)
    is_half_day = minutes < REGULAR_BARS[calendar]
    has_halt = (calendar == "CME") & (dates <= LAST_HALT) & ~is_half_day
    for name, before_close in (("halt_start", 45), ("halt_end", 30)):
        sessions[name] = (sessions["close"] - pd.Timedelta(minutes=before_close)).where(has_halt)
    return sessions.assign(expected_bars=minutes - 15 * has_halt, is_half_day=is_half_day)


def session_coverage(index, *, calendar=None):
    """Return how much of each scheduled session a series covers.

    Parameters
    ----------
    index : DatetimeIndex, UTC
        Start of each bar, increasing.
    calendar : {"CME", "NYSE"}, optional
        Default: `detect_calendar`.

    Returns
    -------
    DataFrame, indexed by `trade_date`, one row per session from the first bar's to the last's
        The columns of `expected_sessions`; `n_bars` at scheduled minutes,
        `outside_bars` at others, `share` of the expected bars (NaN where none
        are), `longest_hole_bars`, `kind`: full (98 % of the bars or more; of a
        half-day's too), partial, absent, cut (the series begins or ends in it),
        or unscheduled (bars on a day without a session); `calendar`.

    Raises
    ------
    UserError
        The series is empty, or the calendar unknown.
    """
    calendar, dates, sessions = _schedule_of(index, calendar)
    seen, is_scheduled = _seen_minutes(sessions, index)
    first, last = (scheduled_before(sessions, whole_minutes(sessions[name])) for name in ("open", "close"))
    low, high = np.searchsorted(seen, first), np.searchsorted(seen, last)
    holes = [
        int(np.diff(seen[i:j], prepend=a - 1, append=b).max()) - 1
        for a, b, i, j in zip(first, last, low, high, strict=True)
    ]
    outside = pd.Series(dates[~is_scheduled].astype("datetime64[ns]")).value_counts()
    table = sessions.assign(n_bars=high - low, longest_hole_bars=holes)
    table = table.reindex(table.index.union(outside.index, sort=True).rename("trade_date"))
    counts = ["expected_bars", "n_bars", "longest_hole_bars"]
    table[counts] = table[counts].fillna(0).astype(np.int64)
    table["is_half_day"] = table["is_half_day"].eq(True)
    table["outside_bars"] = outside.reindex(table.index, fill_value=0).astype(np.int64)
    table["share"] = table["n_bars"] / table["expected_bars"].where(table["expected_bars"] > 0)
    is_edge = table.index.isin(dates[[0, -1]].astype("datetime64[ns]"))
    is_full, is_empty = table["share"] >= FULL_SHARE, table["n_bars"] == 0
    table["kind"] = np.select(
        [table["expected_bars"] == 0, is_full, is_edge, is_empty], ["unscheduled", "full", "cut", "absent"], "partial"
    )
    return table.assign(calendar=calendar)


def hourly_coverage(index, *, calendar=None):
    """Return the covered share of each hour of each scheduled session.

    Parameters
    ----------
    index : DatetimeIndex, UTC
    calendar : {"CME", "NYSE"}, optional
        Default: `detect_calendar`.

    Returns
    -------
    DataFrame (n_sessions, n_hours), float64, indexed by `trade_date`
        Columns name the New York time at which the hour begins ("18:00");
        fractions in [0, 1], NaN where nothing is scheduled.

    Raises
    ------
    UserError
        The series is empty, or the calendar unknown.
    """
    calendar, _, sessions = _schedule_of(index, calendar)
    seen, _ = _seen_minutes(sessions, index)
    n_hours = -(-REGULAR_BARS[calendar] // 60)
    edges = whole_minutes(sessions["open"])[:, None] + 60 * np.arange(n_hours + 1)
    edges = np.minimum(edges, whole_minutes(sessions["close"])[:, None])
    before = scheduled_before(sessions, edges)
    expected = np.diff(before, axis=1)
    with np.errstate(invalid="ignore"):  # hours after an early close: 0 of 0
        share = np.diff(np.searchsorted(seen, before), axis=1) / expected
    first_hour = pd.Timedelta(hours=18 if calendar == "CME" else 9.5)
    names = [f"{pd.Timestamp(0) + first_hour + pd.Timedelta(hours=k):%H:%M}" for k in range(n_hours)]
    return pd.DataFrame(share, index=sessions.index, columns=names)


def whole_minutes(stamps):
    """Return UTC stamps as whole minutes since 1970, int64."""
    return pd.DatetimeIndex(stamps).as_unit("s").asi8 // 60


def scheduled_before(sessions, minutes):
    """Count the scheduled minutes of `sessions` that lie before each given minute.

    Parameters
    ----------
    sessions : DataFrame
        From `expected_sessions`.
    minutes : ndarray of int64
        Minutes since 1970, UTC.

    Returns
    -------
    ndarray of int64, shaped like `minutes`
        A difference of two counts is the number of bars scheduled between.
    """
    opens, closes = whole_minutes(sessions["open"]), whole_minutes(sessions["close"])
    has_halt = sessions["halt_start"].notna().to_numpy()
    halted = sessions[has_halt]
    opens = np.sort(np.concatenate([opens, whole_minutes(halted["halt_end"])]))
    closes = np.sort(np.concatenate([closes, whole_minutes(halted["halt_start"])]))
    lengths = closes - opens
    before = np.concatenate([[0], np.cumsum(lengths)])
    piece = np.searchsorted(opens, minutes, side="right")
    if len(opens) == 0:
        return np.zeros_like(minutes)
    last = np.maximum(piece - 1, 0)
    return before[last] + np.clip(minutes - opens[last], 0, lengths[last])


def _schedule_of(index, calendar):
    """Return a series' calendar, the trade date of each bar, and the sessions from the first to the last."""
    if len(index) == 0:
        raise UserError("there are no bars, and so no sessions to cover; give a series with at least one bar")
    calendar = calendar or detect_calendar(index)
    dates = trade_dates(index, calendar=calendar)
    return calendar, dates, expected_sessions(dates[0], dates[-1], calendar=calendar)


def _seen_minutes(sessions, index):
    """Return which scheduled minutes have a bar (their running numbers, sorted), and which bars are scheduled."""
    minutes = whole_minutes(index)
    number = scheduled_before(sessions, minutes)
    is_scheduled = scheduled_before(sessions, minutes + 1) > number
    number = number[is_scheduled]
    return number[np.diff(number, prepend=-1) > 0], is_scheduled  # sorted already: np.unique would hash them


@cache
def _market(calendar):
    """Return the library's calendar; its import takes a third of a second, so it waits until it is needed."""
    from pandas_market_calendars import get_calendar

    return get_calendar(MARKETS[calendar])
