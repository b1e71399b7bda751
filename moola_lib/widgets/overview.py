"""A whole series as at most 600 candles, binned anew for whatever stretch is looked at."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from moola_lib.errors import UserError
from moola_lib.figures.candles import overview_figure
from moola_lib.market.bars import PRICES
from moola_lib.market.segments import ZONE, trade_dates

BARS_PER_CANDLE = (1, 2, 3, 5, 10, 15, 30, 60)  # above an hour: whole hours
REGULAR_HOURS = (pd.Timedelta(hours=9.5), pd.Timedelta(hours=16))  # New York
CONTRACT_REASONS = ("roll", "contract switch", "jump")
MAX_SESSIONS_SHADED = 40  # more cannot be told apart
MAX_ROLLS = 40  # each costs the browser time
MAX_GAPS = 10
GAP_WIDTH = 0.004  # of the stretch: a gap has no bars, so its band is only as wide as can be seen
LABEL_WIDTH = 0.02  # of the stretch: closer gaps cannot be told apart, and their labels would touch
FEWEST_BARS = 10
FEWEST_TICKS, MOST_TICKS = 4, 8
INTRADAY_TICKS = (1, 5, 15, 30, 60, 180, 360, 720)  # minutes
CALENDAR_TICKS = ("D", "W", "M", "Q", "Y")


def bar_overview(frame, segments, rolls=None, gaps=None, *, title, is_headless=False, max_candles=600):
    """Show a whole series as candles that are binned anew as one zooms or pans.

    Each look at a stretch merges its bars to first open, highest high, lowest
    low and last close of 1, 2, 3, 5, 10, 15, 30, 60, 120 ... bars, so that at
    most `max_candles` are drawn; the price axis follows. Regular hours
    (09:30-16:00 New York) are shaded once at most 40 sessions are in sight;
    the rolls are marked, and the longest gaps with their length, as far apart as
    their labels need. No zoom goes below ten bars; a double click shows everything.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`, prices in points.
    segments : DataFrame
        From `market.describe_segments`: `start`, `gap_minutes` and `reason`.
    rolls : array_like of Timestamp, optional
        First bars of new contracts; default the segments whose reason is a roll,
        a contract switch or a jump near an expiry.
    gaps : DataFrame, optional
        `start` (first bar after it) and `gap_minutes`; default the segments
        whose reason is a gap, inside a session or over a break.
    title : str
    is_headless : bool
        Return a plain figure of the whole series, for a report; it cannot be zoomed.
    max_candles : int
        Most candles drawn, at least 10.

    Returns
    -------
    plotly FigureWidget, or Figure where `is_headless`

    Raises
    ------
    UserError
        There are no bars, or `max_candles` is below 10.

    Notes
    -----
    The axis counts bars instead of minutes. Nights and weekends then take no
    room, all candles are equally wide (plotly's date axis takes the smallest
    step between two candles as the width of all), a range arrives as two plain
    numbers, and a report keeps its labels in New York time in every browser.
    """
    if len(frame) == 0:
        raise UserError("there are no bars to show")
    if max_candles < 10:
        raise UserError(f"max_candles is {max_candles}; an overview needs at least 10")
    series = _prepare(frame, segments, rolls, gaps)
    drawn = _draw(series, -0.5, len(frame) - 0.5, title, max_candles)
    drawn.update_yaxes(fixedrange=True)  # it follows the bars in sight
    if is_headless:
        return drawn.update_xaxes(fixedrange=True)  # nothing would bin a closer look
    figure = go.FigureWidget(drawn)
    # plotly draws before the page has room for it, 700 pixels wide; when it first answers, it can be told to fit
    figure.observe(lambda _: figure.update_layout(autosize=True), "_js2py_traceDeltas")
    figure.layout.modebar.remove = [*figure.layout.modebar.remove, "autoscale"]  # it knows this stretch only

    def show(_layout, seen):
        wide = _widen(*seen, len(series))
        if wide == tuple(seen):
            _copy(_draw(series, *seen, title, max_candles), figure)
        else:
            figure.layout.xaxis.range = wide  # and is called again

    figure.layout.on_change(show, "xaxis.range")
    return figure


@dataclass(frozen=True)
class _Series:
    """What every look at a series needs, worked out once; places are bar numbers."""

    index: pd.DatetimeIndex
    bars: dict  # column to contiguous array
    sessions: np.ndarray  # first bars
    dates: np.ndarray  # of the sessions, datetime64[D]
    hours: np.ndarray  # (n_sessions, 2), first bar of regular hours and first bar after them
    rolls: np.ndarray
    gaps: np.ndarray
    gap_minutes: np.ndarray  # largest first, like `gaps`

    def __len__(self):
        return len(self.index)

    def local(self, places):
        """Return New York wall times of bars, datetime64[m]."""
        return self.index[places].tz_convert(ZONE).tz_localize(None).to_numpy().astype("datetime64[m]")


def _prepare(frame, segments, rolls, gaps):
    """Return the places of sessions, regular hours, rolls and gaps."""
    index = frame.index
    dates = trade_dates(index)
    sessions = np.flatnonzero(np.r_[True, dates[1:] != dates[:-1]])
    midnights = pd.DatetimeIndex(dates[sessions])
    hours = [index.searchsorted((midnights + edge).tz_localize(ZONE).tz_convert("UTC")) for edge in REGULAR_HOURS]
    if rolls is None:
        rolls = segments.loc[segments["reason"].str.startswith(CONTRACT_REASONS), "start"]
    if gaps is None:
        gaps = segments[segments["reason"].str.startswith("gap")]
    gaps = gaps.sort_values("gap_minutes", ascending=False, kind="stable")
    return _Series(
        index=index,
        bars={name: np.ascontiguousarray(frame[name].to_numpy(np.float64)) for name in [*PRICES, "volume"]},
        sessions=sessions,
        dates=dates[sessions],
        hours=np.stack(hours, axis=1),
        rolls=index.searchsorted(pd.to_datetime(list(rolls), utc=True)),
        gaps=index.searchsorted(pd.to_datetime(list(gaps["start"]), utc=True)),
        gap_minutes=gaps["gap_minutes"].to_numpy(np.float64),
    )


def _widen(low, high, n_bars):
    """Return the range, or FEWEST_BARS whole bars around its middle where it is narrower."""
    fewest = min(FEWEST_BARS, n_bars)
    if abs(high - low) >= fewest:
        return low, high
    begin = np.clip(np.floor((low + high - fewest) / 2) + 0.5, -0.5, n_bars - fewest - 0.5)
    return float(begin), float(begin + fewest)


def _draw(series, low, high, title, max_candles):
    """Return the figure of the bars whose numbers lie between `low` and `high`."""
    first = int(np.clip(np.ceil(min(low, high)), 0, len(series) - 1))
    last = int(np.clip(np.floor(max(low, high)), first, len(series) - 1))
    candles, size = _bin(series, first, last, max_candles)
    marks, n_unmarked = _mark_stretch(series, first, last, size)
    begin, end = np.datetime_as_string(series.local([first, last]))
    n_bars = last - first + 1
    stretch = f"{_spaced(begin)} to {_spaced(end)}, New York<br>"
    stretch += f"{n_bars:,} bars, {f'{size:,} in' if size > 1 else 'each'} a candle" if n_bars > 1 else "1 bar"
    if n_unmarked:
        stretch += f"; {n_unmarked:,} shorter gap{'s' if n_unmarked > 1 else ''}"
    return overview_figure(candles, marks, _choose_ticks(series, first, last), title=title, stretch=stretch)


def _copy(drawn, figure):
    """Make the widget show what was drawn, in one message; its own x range stays."""
    with figure.batch_update():
        for new, old in zip(drawn.data, figure.data, strict=True):
            old.visible = new.visible
        for name in ("x", "text", *PRICES):
            figure.data[0][name] = drawn.data[0][name]
        figure.layout.shapes = drawn.layout.shapes
        figure.layout.annotations = drawn.layout.annotations
        figure.layout.xaxis.tickvals = drawn.layout.xaxis.tickvals
        figure.layout.xaxis.ticktext = drawn.layout.xaxis.ticktext
        figure.layout.yaxis.range = drawn.layout.yaxis.range
        figure.layout.xaxis.title.text = drawn.layout.xaxis.title.text


def _bin(series, first, last, max_candles):
    """Merge the bars first..last (inclusive); return the candles and the bars in a whole one.

    Edges are multiples of the bin size, so that panning moves candles and does not
    reshape them; the first and last are cut at the stretch's edges.
    """
    needed = -(-(last - first + 1) // (max_candles - 1))
    size = next((n for n in BARS_PER_CANDLE if n >= needed), -(-needed // 60) * 60)
    whole = np.arange(first // size, last // size + 1) * size
    begins = np.maximum(whole, first)
    ends = np.minimum(whole + size - 1, last)
    stretch = {name: values[first : last + 1] for name, values in series.bars.items()}
    at = begins - first
    volume = np.add.reduceat(stretch["volume"], at)
    stamps = [np.datetime_as_string(series.local(places)) for places in (begins, ends)]
    candles = pd.DataFrame(
        {
            "at": whole + (size - 1) / 2,
            "open": stretch["open"][at],
            "high": np.maximum.reduceat(stretch["high"], at),
            "low": np.minimum.reduceat(stretch["low"], at),
            "close": stretch["close"][ends - first],
            "text": [
                f"{_spaced(a)}{f' to {_spaced(b)}' if a != b else ''}<br>volume {v:,.0f}"
                for a, b, v in zip(*stamps, volume, strict=True)
            ],
        }
    )
    return candles, size


def _mark_stretch(series, first, last, size):
    """Return the marks in sight, and how many gaps have none: those shorter than a candle, a neighbour or 10 others."""
    inside = lambda places: (places > first) & (places <= last)  # noqa: E731
    marks = []
    if inside(series.sessions).sum() < MAX_SESSIONS_SHADED:
        hours = np.clip(series.hours, first, last + 1)
        marks += [("regular hours", a - 0.5, b - 0.5, "") for a, b in hours[hours[:, 1] > hours[:, 0]]]
    is_seen = inside(series.gaps)
    is_long = is_seen & (series.gap_minutes >= size)
    places, minutes = series.gaps[is_long], series.gap_minutes[is_long]
    n_gaps, n_bars = 0, last - first + 1
    while len(places) and n_gaps < MAX_GAPS:  # the longest comes first, and clears its surroundings
        edge, half = places[0] - 0.5, GAP_WIDTH * n_bars / 2
        marks.append(("gap", edge - half, edge + half, _duration(minutes[0])))
        is_apart = np.abs(places - places[0]) >= LABEL_WIDTH * n_bars
        places, minutes, n_gaps = places[is_apart], minutes[is_apart], n_gaps + 1
    marks += [("roll", place - 0.5, place - 0.5, "") for place in series.rolls[inside(series.rolls)][:MAX_ROLLS]]
    return pd.DataFrame(marks, columns=["kind", "x0", "x1", "text"]), int(is_seen.sum()) - n_gaps


def _choose_ticks(series, first, last):
    """Return axis labels at the coarsest change of the clock or calendar that is met often enough."""
    seen = slice(*np.searchsorted(series.sessions, [first, last + 1]))
    sessions, dates = series.sessions[seen], series.dates[seen]
    for unit in reversed(CALENDAR_TICKS):
        keys = pd.DatetimeIndex(dates).to_period(unit).asi8
        is_new = np.r_[True, keys[1:] != keys[:-1]] if unit == "D" else np.r_[False, keys[1:] != keys[:-1]]
        places = sessions[is_new[: len(sessions)]]
        if len(places) >= FEWEST_TICKS:
            places = places[:: -(-len(places) // MOST_TICKS)]
            stamps = pd.DatetimeIndex(series.dates[np.searchsorted(series.sessions, places)])
            return pd.DataFrame({"at": places, "text": [_date_label(stamp, unit) for stamp in stamps]})
    local = series.local(slice(first, last + 1))
    for minutes in reversed(INTRADAY_TICKS):
        keys = local.astype(np.int64) // minutes
        places = np.flatnonzero(np.r_[minutes == 1, keys[1:] != keys[:-1]])
        if len(places) >= FEWEST_TICKS or minutes == 1:
            break
    places = places[:: -(-len(places) // MOST_TICKS)]
    stamps = pd.DatetimeIndex(local[places])
    is_new_date = np.r_[True, stamps.normalize()[1:] != stamps.normalize()[:-1]]
    text = [
        f"{stamp:%H:%M}<br>{_date_label(stamp, 'D')}" if is_new else f"{stamp:%H:%M}"
        for stamp, is_new in zip(stamps, is_new_date, strict=True)
    ]
    return pd.DataFrame({"at": places + first, "text": text})


def _date_label(stamp, unit):
    """Return "2024", "Jun 2024" or "3 Jun"."""
    if unit == "Y":
        return f"{stamp:%Y}"
    return f"{stamp:%b %Y}" if unit in "MQ" else f"{stamp.day} {stamp:%b}"


def _duration(minutes):
    """Return a gap's length in its natural unit."""
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 1440:.0f} d"


def _spaced(iso):
    """Return "2024-03-05 09:30" for "2024-03-05T09:30"."""
    return iso.replace("T", " ")
