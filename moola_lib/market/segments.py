"""Sessions, gaps and contract rolls: where a stretch of bars may be read as one.

CME index futures trade from 18:00 to 17:00 New York time; the trade date is
the calendar date on which a session ends.
"""

import numpy as np
import pandas as pd

ZONE = "America/New_York"
ROLL_MIN_JUMP = 0.006  # index futures roll at about 0.8-1.5 %; smaller jumps at a break are everyday news
ROLL_MIN_ROBUST_Z = 6.0  # a roll stands far outside the series' own break-to-break moves


def trade_dates(index):
    """Return each bar's trade date.

    Parameters
    ----------
    index : DatetimeIndex, UTC
        Start of each bar.

    Returns
    -------
    ndarray (n_bars,), datetime64[D]
        The New York date after moving 18:00 to midnight, so that the evening
        session belongs to the next day.
    """
    local = index.tz_convert(ZONE).tz_localize(None) + pd.Timedelta(hours=6)
    return local.to_numpy().astype("datetime64[D]")


def segment_starts(frame, *, max_gap_minutes=5.0):
    """Return the positions at which a new segment begins.

    A segment is a stretch without a gap of more than `max_gap_minutes` and
    without a roll; windows and feature state never cross its edge.

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
    is_break = _is_break(frame.index, max_gap_minutes)
    is_start = is_break | _is_roll(frame, is_break)
    is_start[:1] = True
    return np.flatnonzero(is_start).astype(np.int64)


def find_rolls(frame, *, max_gap_minutes=5.0):
    """Tell at which bars the series moves to the next contract.

    Where `instrument_id` is given, a change of it is a roll. Otherwise a roll is
    a move across a gap in the week of a quarterly expiry (from ten days before
    the third Friday of March, June, September and December to four days after
    it) that is at least 0.6 % and at least 6 robust standard deviations of the
    series' own moves across gaps.

    Returns
    -------
    ndarray (n_bars,), bool
        True at the new contract's first bar.
    """
    return _is_roll(frame, _is_break(frame.index, max_gap_minutes))


def describe_segments(frame, *, max_gap_minutes=5.0):
    """Return one row per segment: when, how long, and why it begins.

    Returns
    -------
    DataFrame
        `start`, `end` (UTC), `n_bars`, `gap_minutes` before it, `reason`
        (first bar, roll, session break, gap).
    """
    starts = segment_starts(frame, max_gap_minutes=max_gap_minutes)
    ends = np.append(starts[1:], len(frame)) - 1
    gaps = _minutes_since_previous(frame.index)[starts]
    dates = trade_dates(frame.index)
    is_roll = find_rolls(frame, max_gap_minutes=max_gap_minutes)[starts]
    is_new_date = np.r_[True, dates[starts[1:]] != dates[starts[1:] - 1]]
    reason = np.select([starts == 0, is_roll, is_new_date], ["first bar", "roll", "session break"], "gap")
    return pd.DataFrame(
        {
            "start": frame.index[starts],
            "end": frame.index[ends],
            "n_bars": ends - starts + 1,
            "gap_minutes": gaps,
            "reason": reason,
        }
    )


def _minutes_since_previous(index):
    """Return the step before each bar in minutes; the first is 0."""
    stamps = index.as_unit("ns").asi8
    return np.diff(stamps, prepend=stamps[:1]) / 60e9


def _is_break(index, max_gap_minutes):
    """Tell which bars follow a gap of more than `max_gap_minutes`; the first does not."""
    ticks_per_minute = np.timedelta64(1, "m") / np.timedelta64(1, index.unit)
    is_break = np.zeros(len(index), bool)
    # compared in the index's own whole ticks: minutes, or another unit, would cost copies of the stamps
    is_break[1:] = np.diff(index.asi8) > int(max_gap_minutes * ticks_per_minute)
    return is_break


def _is_roll(frame, is_break):
    """Tell at which bars the next contract begins; see `find_rolls`."""
    is_roll = np.zeros(len(frame), bool)
    if "instrument_id" in frame.columns:
        ids = frame["instrument_id"].to_numpy()
        is_roll[1:] = ids[1:] != ids[:-1]
        return is_roll
    at = np.flatnonzero(is_break)
    if len(at) == 0:
        return is_roll
    moves = np.log(frame["open"].to_numpy()[at] / frame["close"].to_numpy()[at - 1])
    spread = 1.4826 * np.median(np.abs(moves - np.median(moves)))
    is_far = np.abs(moves) > max(ROLL_MIN_JUMP, ROLL_MIN_ROBUST_Z * spread)
    is_roll[at] = is_far & _is_expiry_week(trade_dates(frame.index[at]))
    return is_roll


def _is_expiry_week(dates):
    """Tell which trade dates lie from ten days before to four days after a quarterly expiry."""
    months = dates.astype("datetime64[M]")
    is_near = np.zeros(len(dates), bool)
    for month in np.unique(months):
        if int(str(month)[5:]) % 3 == 0:
            expiry = np.busday_offset(month, 2, roll="forward", weekmask="Fri")
            days = (dates - expiry).astype(int)
            is_near |= (days >= -10) & (days <= 4)
    return is_near
