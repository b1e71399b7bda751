"""What stamps mean: the start or the end of a bar, and in which zone; stated, or proven by the file itself.

Two facts about exchanges do the proving. Trading hours begin and end on
multiples of five minutes, so a closing that recurs at the same minute of the day
tells which side of a bar is stamped. And CME's index futures rest from 17:00 to
18:00 New York every day, so their naive stamps tell how far they are from UTC.
"""

import datetime
import difflib
import re
import zoneinfo

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.market.segments import ZONE, trade_dates

MINUTE = 60_000_000_000  # nanoseconds
DAY_MINUTES = 1440
CLOSING_MINUTES = 30  # a longer step may be a closing
DAILY_BREAK_STEP = 61  # minutes from the last bar before CME's daily break to the first after it
MIN_CLOSINGS = 3  # closings that must agree before they prove anything
CME_INDEX_SYMBOL = re.compile(
    r"(?:CME(?:_MINI)?:|CBOT(?:_MINI)?:|/)?"  # TradingView, thinkorswim
    r"(?:M?NQ|M?ES|M?YM|RTY|M2K)"
    r"(?:[FGHJKMNQUVXZ]\d{1,4}|\d!|=F|\.[cnv]\.\d)?"  # NQH4, NQ1!, NQ=F, NQ.c.0
)
NAMED_ZONES = ["UTC", ZONE, "America/Chicago", "Europe/London", "Europe/Berlin"]
# Every whole hour from UTC; the sign of these names is reversed. Beyond these, a day's doubt remains.
FIXED_ZONES = [f"Etc/GMT{hours:+d}" for hours in range(-12, 11) if hours]
OFFSET = re.compile(r"(?:UTC|GMT)?\s*[+-]?\d{1,2}(?::?\d{2})?", re.IGNORECASE)


def check_zone(tz):
    """Refuse the name of a zone that does not exist."""
    try:
        zoneinfo.ZoneInfo(tz)
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise UserError(f"tz={tz!r} is not a time zone{_advise_zone(str(tz))}") from error


def _advise_zone(given):
    """Return the end of a sentence about a wrong zone; only what is almost surely meant is suggested."""
    examples = "America/New_York, America/Chicago or UTC"
    if OFFSET.fullmatch(given):
        return f" but an offset; zones have names, because clocks change: give one such as {examples}"
    names = sorted(zoneinfo.available_timezones())
    by_letters = {_letters(name): name for name in names}
    places = [name for name in names if "/" in name and not name.startswith("Etc/")]  # an hour off is near too
    near = [by_letters[_letters(given)]] if _letters(given) in by_letters else []
    near = near or difflib.get_close_matches(given, places, 1, 0.85)
    return f"; did you mean {near[0]}?" if near else f"; give a name such as {examples}"


def _letters(name):
    """Return the name of a zone without case, spaces and underscores."""
    return re.sub(r"[\s_]", "", name).casefold()


def refuse_other_bar_length(stamps, source):
    """Refuse bars that are longer or shorter than a minute.

    Quiet minutes have no bar, so steps of several minutes prove nothing by
    themselves; but if (nearly) all are multiples of m minutes, and there are
    enough of them that chance would give that less than once in a thousand
    files, the bars are m minutes long.

    Parameters
    ----------
    stamps : ndarray (n_rows,), int64
        Nanoseconds, UTC or wall time.
    source : str

    Raises
    ------
    UserError
    """
    steps = np.diff(stamps)
    if 2 * np.count_nonzero(steps == MINUTE) > len(steps):
        return
    steps = np.abs(steps[steps != 0])
    if len(steps) < 3:
        return
    usual = np.median(steps)
    if usual < MINUTE:
        raise UserError(f"{source}: the usual step is {usual / 1e9:g} seconds; one-minute bars are needed")
    for minutes in (1440, 240, 120, 60, 30, 20, 15, 10, 5, 4, 3, 2):
        if np.mean(steps % (minutes * MINUTE) == 0) >= 0.95 and (len(steps) - 1) * np.log10(minutes) > 3:
            kind = {60: " (hourly bars)", 1440: " (daily bars)"}.get(minutes, "")
            raise UserError(f"{source}: the usual step is {minutes} minutes{kind}; one-minute bars are needed")


def prove_mark(stamps):
    """Tell from recurring closings whether stamps mark the start or the end of a bar.

    A closing is a gap whose last and first bar fall on the same minutes of the
    day at least `MIN_CLOSINGS` times. Hours end and begin on multiples of five
    minutes: start-stamped bars then end on minute 4 and begin on minute 0
    (modulo 5), end-stamped ones on 0 and 1. A closing with both sides proves
    one, unless any side of any closing speaks for the other.

    Parameters
    ----------
    stamps : ndarray (n_rows,), int64
        Nanoseconds, UTC or wall time, increasing.

    Returns
    -------
    mark : {"start", "end", None}
        None where the closings are too few, or do not agree.
    evidence : str
        For the report.
    """
    at = np.flatnonzero(np.diff(stamps) > CLOSING_MINUTES * MINUTE)
    if len(at) < MIN_CLOSINGS:
        return None, ""
    sides = np.column_stack([stamps[at], stamps[at + 1]]) // MINUTE % DAY_MINUTES
    pairs, counts = np.unique(sides, axis=0, return_counts=True)
    pairs, counts = pairs[counts >= MIN_CLOSINGS], counts[counts >= MIN_CLOSINGS]
    speaks_for = {mark: pairs % 5 == minutes for mark, minutes in (("start", (4, 0)), ("end", (0, 1)))}
    for mark, other in (("start", "end"), ("end", "start")):
        is_full = speaks_for[mark].all(axis=1)
        if is_full.any() and not speaks_for[other].any():
            last, first = (f"{m // 60:02d}:{m % 60:02d}" for m in pairs[(counts * is_full).argmax()])
            return mark, f"{counts[is_full].sum()} closings, mostly from a bar stamped {last} to one stamped {first}"
    return None, ""


def prove_zone(stamps, symbol):
    """Tell the zone of naive stamps from the daily break of CME's index futures.

    A zone agrees if, read in it, at least `MIN_CLOSINGS` breaks lie exactly on
    17:00–18:00 New York and every run of bars lies within one session, Monday
    to Friday. It is proven if all zones that agree give the same instants.

    Parameters
    ----------
    stamps : ndarray (n_rows,), int64
        Nanoseconds of wall time, STARTS of bars, increasing.
    symbol : str or None
        Only of these futures the daily break is known.

    Returns
    -------
    zone : str or None
    evidence : str
    """
    if not symbol or not CME_INDEX_SYMBOL.fullmatch(symbol):
        return None, ""
    is_gap = np.diff(stamps) > CLOSING_MINUTES * MINUTE
    first = stamps[np.r_[True, is_gap]]
    last = stamps[np.r_[is_gap, True]]
    if np.count_nonzero(first[1:] - last[:-1] == DAILY_BREAK_STEP * MINUTE) < MIN_CLOSINGS:
        return None, ""
    agreeing = {}
    for zone in NAMED_ZONES + FIXED_ZONES:
        opened, closed = _read_edges(first, zone), _read_edges(last, zone)
        n_breaks = _count_breaks(opened, closed)
        if n_breaks >= MIN_CLOSINGS:
            agreeing[zone] = opened, n_breaks
    instants = {opened.asi8.tobytes() for opened, _ in agreeing.values()}
    if len(instants) != 1:
        return None, ""
    zone = next(iter(agreeing))
    return zone, f"{agreeing[zone][1]} daily breaks lie on 17:00-18:00 New York"


def _read_edges(walls, zone):
    """Return wall times of a zone as UTC; markets are closed when clocks change."""
    index = pd.DatetimeIndex(walls.view("M8[ns]"))
    is_summer = np.zeros(len(index), bool)
    return index.tz_localize(zone, ambiguous=is_summer, nonexistent="shift_forward").tz_convert("UTC")


def _count_breaks(opened, closed):
    """Return how many daily breaks lie where CME has them; 0 if a run of bars does not fit into one session."""
    days = trade_dates(opened)
    is_one_session = (days == trade_dates(closed)) & np.is_busday(days)
    # minutes since 18:00 New York, where a session begins; its last is 1,379
    since = [(edge.tz_convert(ZONE).tz_localize(None).asi8 // MINUTE + 360) % DAY_MINUTES for edge in (opened, closed)]
    if not is_one_session.all() or max(minutes.max() for minutes in since) >= DAY_MINUTES - 60:
        return 0
    is_daily = opened.asi8[1:] - closed.asi8[:-1] == DAILY_BREAK_STEP * MINUTE
    return int(np.count_nonzero(is_daily & (since[0][1:] == 0)))


def localise(stamps, tz, source):
    """Return naive stamps as UTC, deciding the repeated hour of autumn by the order of the rows.

    Parameters
    ----------
    stamps : ndarray (n_rows,), int64
        Nanoseconds of wall time.
    tz : str
    source : str
        Named in errors.

    Returns
    -------
    ndarray (n_rows,), int64
        Nanoseconds, UTC.

    Raises
    ------
    UserError
        A stamp does not exist in the zone (clocks go forward), or exists twice
        (clocks go back) and the rows do not tell which is meant.
    """
    walls = pd.DatetimeIndex(stamps.view("M8[ns]"))
    advice = f"is {tz} the zone of this file? A zone without daylight saving time is named like Etc/GMT+5"
    summer = walls.tz_localize(tz, ambiguous=np.ones(len(walls), bool), nonexistent="NaT")
    if summer.hasnans:
        row = int(summer.isna().argmax())
        raise UserError(
            f"{source}: row {row + 1}: {walls[row]} does not exist in {tz}, where the clocks go forward; {advice}"
        )
    winter = walls.tz_localize(tz, ambiguous=np.zeros(len(walls), bool), nonexistent="NaT")
    instants = summer.asi8.copy()
    is_twice = instants != winter.asi8
    rows = np.flatnonzero(is_twice)
    # each autumn's repeated hour is a run of rows: before its one step back it is still summer time
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []:
        back = np.flatnonzero(np.diff(stamps[run]) < 0)
        if len(back) != 1:
            raise UserError(
                f"{source}: row {run[0] + 1}: {walls[run[0]]} exists twice in {tz}, where the clocks go back, and the "
                f"order of the rows does not tell which is meant; {advice}, or export the file in UTC"
            )
        after = run[back[0] + 1 :]
        instants[after] = winter.asi8[after]
    return instants


def same_offset(tz, stamp, offset):
    """Tell whether a zone has the given offset from UTC at an instant (nanoseconds, UTC)."""
    at = datetime.datetime.fromtimestamp(stamp // 1_000_000_000, datetime.UTC)
    return at.astimezone(zoneinfo.ZoneInfo(tz)).utcoffset() == offset
