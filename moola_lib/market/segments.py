"""Segments: where a stretch of bars may be read as one, and why it ends."""

import numpy as np
import pandas as pd

from moola_lib.market.calendar import ZONE as ZONE  # other rooms know these two from here
from moola_lib.market.calendar import (
    detect_calendar,
    expected_sessions,
    quarterly_expiries,
    scheduled_before,
    whole_minutes,
)
from moola_lib.market.calendar import trade_dates as trade_dates
from moola_lib.market.rolls import find_interleaved, locate_breaks, locate_jumps, locate_rolls, minutes_since_previous


def segment_starts(frame, *, max_gap_minutes=5.0):
    """Return the positions at which a new segment begins.

    A segment is a stretch without a gap of more than `max_gap_minutes` and
    without a roll; windows and feature state never cross its edge. Rolls come
    at gaps, or as jumps near an expiry (see `rolls.locate_jumps`), so that
    where contract months interleave every switch is an edge. Whether a bar is
    one depends on no later bar.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    max_gap_minutes : float
        Longest step between two stamps inside a segment, in minutes.

    Returns
    -------
    ndarray (n_segments,), int64
        Positions of first bars; the first is 0.
    """
    breaks = locate_breaks(frame.index, max_gap_minutes)
    first = np.zeros(min(len(frame), 1), np.int64)
    return np.unique(np.concatenate([first, breaks, locate_jumps(frame)]))


def describe_segments(frame, *, max_gap_minutes=5.0, calendar=None):
    """Return one row per segment: when, how long, and why it begins.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    max_gap_minutes : float
        Longest step between two stamps inside a segment, in minutes.
    calendar : {"CME", "NYSE"}, optional
        Default: told by the hours of the bars.

    Returns
    -------
    DataFrame
        `start`, `end` (UTC), `n_bars`, `gap_minutes` before it, `reason`: first
        bar, roll, contract switch (contract months interleave), jump near an
        expiry (without a gap, and not known to be either), or the kind of the gap
        before it (see `describe_gaps`).
    """
    calendar = calendar or detect_calendar(frame.index)
    starts = segment_starts(frame, max_gap_minutes=max_gap_minutes)
    ends = np.append(starts[1:], len(frame)) - 1
    breaks = locate_breaks(frame.index, max_gap_minutes)
    rolled = np.isin(starts, locate_rolls(frame, breaks, calendar))
    reason = np.where(rolled, "roll", "jump near an expiry").astype(object)
    reason[:1] = "first bar"
    for span in find_interleaved(frame, calendar=calendar).itertuples():
        is_inside = (frame.index[starts] >= span.first) & (starts <= frame.index.get_loc(span.last) + 1)
        reason[rolled & is_inside] = "contract switch"
    kinds = describe_gaps(frame, max_gap_minutes=max_gap_minutes, calendar=calendar)["kind"].to_numpy()
    is_gap = np.isin(starts, breaks)
    reason[is_gap & ~rolled] = kinds[~rolled[is_gap]]
    return pd.DataFrame(
        {
            "start": frame.index[starts],
            "end": frame.index[ends],
            "n_bars": ends - starts + 1,
            "gap_minutes": minutes_since_previous(frame.index)[starts],
            "reason": reason.astype(str),
        }
    )


def describe_gaps(frame, *, max_gap_minutes=5.0, calendar=None):
    """Return one row per gap: a scheduled break, or bars that are missing.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    max_gap_minutes : float
        Longest step between two stamps that is no gap; also how many scheduled
        bars may be missing around a break for it to count as one.
    calendar : {"CME", "NYSE"}, optional
        Default: told by the hours of the bars.

    Returns
    -------
    DataFrame
        `last`, `next` (UTC stamps of the bars around it), `gap_minutes`, `kind`:
        daily break, weekend, holiday (an early close too) or daily halt (16:15
        New York, before 2021-06-28) where no scheduled bar is missing; gap (inside
        one session) or gap over a break where some are; outside the sessions, at
        hours or on days the calendar leaves out. `missing_bars` and
        `absent_sessions` by the calendar; `expiry`, the day of a quarterly expiry
        of futures that lies among the missing bars (its moment is 09:30 New York;
        a bar that begins then is the next contract's), or NaT; `is_roll`; `note`,
        what that means.
    """
    after = locate_breaks(frame.index, max_gap_minutes)
    stamps = frame.index[after - 1], frame.index[after]
    calendar = calendar or detect_calendar(frame.index)
    dates, missing, absent, kind = _classify(*stamps, max_gap_minutes, calendar)
    is_missing = missing > max_gap_minutes
    expiry = np.full(len(after), np.datetime64("NaT", "D"))
    if calendar == "CME" and len(after):  # stocks do not expire
        for each in quarterly_expiries(dates[0].min(), dates[1].max()):
            moment = (pd.Timestamp(each) + pd.Timedelta(hours=9.5)).tz_localize(ZONE)
            expiry[is_missing & (stamps[0] < moment) & (stamps[1] >= moment)] = each
    rolled = np.isin(after, locate_rolls(frame, after, calendar))
    notes = ["contains an expiry, and the roll was found", "contains an expiry: a roll may hide in it"]
    has_expiry = ~np.isnat(expiry)
    return pd.DataFrame(
        {
            "last": stamps[0],
            "next": stamps[1],
            "gap_minutes": minutes_since_previous(frame.index)[after],
            "kind": kind,
            "missing_bars": missing,
            "absent_sessions": absent,
            "expiry": expiry.astype("datetime64[ns]"),
            "is_roll": rolled,
            "note": np.select([has_expiry & rolled, has_expiry], notes, ""),
        }
    )


def _classify(last, following, max_gap_minutes, calendar):
    """Return (trade dates around), missing bars, absent sessions and kind of the gaps between two bars each."""
    if len(last) == 0:
        none = np.zeros(0, np.int64)
        return (none.astype("datetime64[D]"),) * 2, none, none, np.zeros(0, str)
    before, after = (trade_dates(each, calendar=calendar) for each in (last, following))
    sessions = expected_sessions(before.min(), after.max(), calendar=calendar)
    from_minute, to_minute = whole_minutes(last), whole_minutes(following)
    missing = scheduled_before(sessions, to_minute) - scheduled_before(sessions, from_minute + 1)
    days = sessions.index.to_numpy().astype("datetime64[D]")
    absent = np.maximum(np.searchsorted(days, after) - np.searchsorted(days, before, side="right"), 0)
    weekdays = np.maximum(np.busday_count(before + 1, after), 0)
    around = sessions.reindex(before.astype("datetime64[ns]"))
    is_early = around["is_half_day"].eq(True).to_numpy() & (last < pd.DatetimeIndex(around["close"]))
    is_halt = (last < pd.DatetimeIndex(around["halt_end"])) & (following > pd.DatetimeIndex(around["halt_start"]))
    is_whole, is_one_session = missing <= max_gap_minutes, before == after
    conditions = {
        "daily halt": is_whole & is_one_session & is_halt,
        "outside the sessions": is_one_session & (missing == 0),
        "gap": is_one_session,
        "gap over a break": ~is_whole,
        "holiday": (weekdays > absent) | is_early,
        "weekend": (after - before).astype(np.int64) > 1,
    }
    return (before, after), missing, absent, np.select(list(conditions.values()), list(conditions), "daily break")
