"""How much of each session a series covers: a calendar of trade dates, and their hours."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from moola_lib.figures.theme import BLUE, LEGEND_GAP, MARGIN, ORANGE, SKY, WINE, YELLOW, style

# share of the scheduled bars from which a colour holds, its name, the colour
LEVELS = [
    (0.0, "absent", WINE),
    (1e-9, "under 50%", ORANGE),
    (0.5, "50–90%", YELLOW),
    (0.9, "90–98%", SKY),
    (0.98, "98% or more", BLUE),
]
CLOSED = ("no session", "rgba(128,128,128,0.22)")
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri"]
YEAR_ROWS = 6  # five weekdays and an empty row
ROW_PIXELS = 15
FRAME_PIXELS = MARGIN["t"] + MARGIN["b"] + LEGEND_GAP
YEAR_WEEKS = 53  # a series within so many stands in one strip
FEW_WEEKS = 10  # so many or fewer are named by their Mondays, and do not fill the width: their cells would be bands
MOST_LABELS = 6  # on a phone


def coverage_figure(coverage, *, title="Bars present, by trade date"):
    """Draw one cell per weekday and week, coloured by the covered share.

    Up to 53 weeks are one strip from the first to the last; longer series have
    a strip per calendar year.

    Parameters
    ----------
    coverage : DataFrame, indexed by `trade_date`
        From `market.session_coverage`: `kind`, `n_bars`, `expected_bars`,
        `share`, `longest_hole_bars`, `is_half_day`.
    title : str

    Returns
    -------
    plotly Figure
        Weekdays without a session are grey, half-days carry a dot. Weekends are
        left out.
    """
    days = pd.bdate_range(pd.offsets.BDay().rollback(coverage.index[0]), coverage.index[-1])
    table = coverage.reindex(days)
    strip, week, ticks, names = _lay_out(days)
    row = strip * YEAR_ROWS + days.day_of_week
    n_rows, n_weeks = YEAR_ROWS * len(names) - 1, week.max() + 1
    cells = np.full((2, n_rows, n_weeks), None, object)
    cells[0, row, week] = _levels(table["share"].to_numpy())
    cells[1, row, week] = [_describe(*each) for each in zip(days, table.itertuples(), strict=True)]
    figure = _heatmap(cells[0], cells[1], np.arange(n_weeks), np.arange(n_rows))
    _add_legend(figure, table["share"].to_numpy())
    is_half = table["is_half_day"].eq(True).to_numpy()
    dots = go.Scatter(
        x=week[is_half],
        y=row[is_half],
        mode="markers",
        name="half-day",
        marker={"size": 5, "color": "white", "line": {"color": "black", "width": 1}},
        hoverinfo="skip",
    )
    figure.add_trace(dots)
    figure.update_xaxes(
        tickvals=list(ticks), ticktext=list(ticks.values()), tickangle=0, showgrid=False, zeroline=False
    )
    figure.update_xaxes(range=[-0.5, n_weeks - 0.5], domain=[0, min(n_weeks / FEW_WEEKS, 1)])
    at = [YEAR_ROWS * k + day for k in range(len(names)) for day in (0, 2, 4)]
    labels = [text for name in names for text in ("Mon", name, "Fri")]
    figure.update_yaxes(tickvals=at, ticktext=labels, showgrid=False, zeroline=False, range=[n_rows - 0.5, -0.5])
    return style(figure, title, x="week", height=ROW_PIXELS * n_rows + FRAME_PIXELS)


def hours_figure(hours, *, title="Bars present, by hour of the session"):
    """Draw one cell per trade date and hour of the session, coloured by the covered share.

    Parameters
    ----------
    hours : DataFrame (n_sessions, n_hours), indexed by `trade_date`
        From `market.hourly_coverage`; NaN where nothing is scheduled. Some
        months at most: a row is a session.
    title : str

    Returns
    -------
    plotly Figure
    """
    share = hours.to_numpy()
    text = [
        [
            f"{date:%a %Y-%m-%d}, from {hour} New York<br>"
            + ("nothing scheduled" if np.isnan(value) else f"{value:.1%} of the scheduled bars")
            for hour, value in zip(hours.columns, row, strict=True)
        ]
        for date, row in zip(hours.index, share, strict=True)
    ]
    figure = _heatmap(_levels(share), text, list(hours.columns), np.arange(len(hours)))
    _add_legend(figure, share)
    step = -(-len(hours) // 30)
    figure.update_yaxes(tickvals=np.arange(0, len(hours), step), ticktext=[f"{d:%b %d}" for d in hours.index[::step]])
    figure.update_yaxes(range=[len(hours) - 0.5, -0.5], showgrid=False, zeroline=False)
    figure.update_xaxes(
        type="category", showgrid=False, tickvals=list(hours.columns[:: 6 if hours.shape[1] > 12 else 2]), tickangle=0
    )
    return style(figure, title, x="hour in New York", height=ROW_PIXELS * len(hours) + FRAME_PIXELS)


def _lay_out(days):
    """Return each weekday's strip and week in it, the axis labels by week, and the name of each strip's middle row."""
    monday = days[0] - pd.Timedelta(days=days[0].day_of_week)
    week = (days - monday).days // 7
    if week[-1] < YEAR_WEEKS:
        return np.zeros(len(days), int), week, _label_strip(monday, week[-1] + 1), ["Wed"]
    years = range(days[0].year, days[-1].year + 1)
    first_weekday = pd.to_datetime([f"{year}-01-01" for year in days.year]).day_of_week
    months = pd.date_range(f"{years[0]}-01-01", f"{years[0]}-12-31", freq="2MS")  # twelve would overlap on a phone
    middle = (months.day_of_year + 14 + months[0].day_of_week) / 7 - 0.5
    ticks = dict(zip(middle, months.strftime("%b"), strict=True))
    return days.year - years[0], (days.day_of_year - 1 + first_weekday) // 7, ticks, [f"<b>{y}</b>" for y in years]


def _label_strip(monday, n_weeks):
    """Return labels by week from `monday` on: every other Monday, or months at their middle; each year is said once."""
    mondays = pd.date_range(monday, periods=n_weeks, freq="7D")
    if n_weeks <= FEW_WEEKS:
        stamps, at = mondays[::2], np.arange(0, n_weeks, 2)
        text = [f"{stamp.day} {stamp:%b}" for stamp in stamps]
    else:
        months = pd.date_range(monday.replace(day=1), mondays[-1], freq="MS")
        stamps, at = months, ((months - monday).days + 15) / 7 - 0.5
        is_inside = (at >= 0) & (at <= n_weeks - 1)
        stamps, at = stamps[is_inside], at[is_inside]
        text = stamps.strftime("%b")
    step = -(-len(stamps) // MOST_LABELS)
    stamps, at, text = stamps[::step], at[::step], text[::step]
    is_new = np.r_[True, stamps.year[1:] != stamps.year[:-1]]
    return {x: f"{t}<br>{s.year}" if new else t for x, t, s, new in zip(at, text, stamps, is_new, strict=True)}


def _levels(share):
    """Return the level's number for each share; None (no cell) becomes the closed market's."""
    level = np.searchsorted([least for least, _, _ in LEVELS], share, side="right") - 1
    return np.where(np.isnan(share), -1, level)


def _heatmap(levels, text, x, y):
    """Return a figure of cells in the levels' colours; `text` is what hovering says."""
    colours = [CLOSED[1], *(colour for _, _, colour in LEVELS)]
    edges = np.linspace(0, 1, len(colours) + 1)
    scale = [[edges[k + side], colour] for k, colour in enumerate(colours) for side in (0, 1)]
    return go.Figure(
        go.Heatmap(
            z=levels,
            x=x,
            y=y,
            text=text,
            hovertemplate="%{text}<extra></extra>",
            hoverongaps=False,
            colorscale=scale,
            zmin=-1.5,
            zmax=len(LEVELS) - 0.5,
            showscale=False,
            xgap=1,
            ygap=1,
        )
    )


def _add_legend(figure, share):
    """Name the colours that occur, fullest first."""
    level = _levels(share)
    names = [(-1, *CLOSED), *((k, name, colour) for k, (_, name, colour) in enumerate(LEVELS))]
    for k, name, colour in reversed(names):
        if (level == k).any():
            marker = {"symbol": "square", "size": 12, "color": colour}
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker))
    figure.update_layout(showlegend=True)  # one colour alone is named too


def _describe(date, day):
    """Say what hovering over one trade date tells."""
    if not day.expected_bars > 0:
        return f"{date:%a %Y-%m-%d}<br>no session"
    half = ", half-day" if day.is_half_day else ""
    return (
        f"{date:%a %Y-%m-%d}{half}: {day.kind}<br>{day.n_bars:,.0f} of {day.expected_bars:,.0f} bars ({day.share:.1%})"
        f"<br>longest hole {day.longest_hole_bars:,.0f} bar{'' if day.longest_hole_bars == 1 else 's'}"
    )
