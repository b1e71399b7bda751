"""Bars as candles: one window with its expansion and a model's answer, or a whole series re-binned."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.figures.theme import BLUE, DOWN, GREEN, GREY, GUESS, ORANGE, PURPLE, TRUTH, UP, YELLOW, style

NEEDLESS = ["select2d", "lasso2d", "sendChartToCloud"]  # buttons that would stand over a title for nothing
CLEAR = "rgba(213, 94, 0, 0)"  # ORANGE that does not show
CANDLES_HEIGHT, STRIP_HEIGHT, LINES_HEIGHT = 213, 30, 120  # of a window's panels, relative
# What an overview marks: bands have a fill, rolls are lines.
MARKS = {
    "regular hours": {"fillcolor": "rgba(86, 180, 233, 0.16)", "line": {"width": 0}},
    "gap": {"fillcolor": "rgba(128, 128, 128, 0.65)", "line": {"width": 0}},
    "roll": {"line": {"color": PURPLE, "dash": "dash", "width": 1.5}},
}
PRICE_HOVER = "%{text}<br>open %{open:,.2f}  high %{high:,.2f}<br>low %{low:,.2f}  close %{close:,.2f}<extra></extra>"


def window_figure(
    frame,
    *,
    truth=None,
    guess=None,
    intervals=(),
    probability=None,
    start_probability=None,
    end_probability=None,
    countdown=None,
    title="One window",
):
    """Draw a window's candles, its labelled and predicted span, and per-bar answers below.

    Parameters
    ----------
    frame : DataFrame (105 rows)
        Bars of the window, indexed by UTC `ts`.
    truth, guess : (int, int), optional
        Labelled and predicted span in bars, inclusive.
    intervals : sequence of (int, int), optional
        Where the predicted edges may lie, in bars, inclusive.
    probability : ndarray (105,), optional
        Probability of being inside.
    start_probability, end_probability : ndarray (105,), optional
        Of a start and of an end at each bar: a strip of heat under the candles.
    countdown : ndarray (105,) or dict of str to ndarray, optional
        Bars until the start.
    title : str

    Returns
    -------
    plotly Figure
    """
    heat = {name: p for name, p in (("end", end_probability), ("start", start_probability)) if p is not None}
    n_lines = (probability is not None) + (countdown is not None)
    heights = [CANDLES_HEIGHT, *([STRIP_HEIGHT * len(heat)] if heat else []), *[LINES_HEIGHT] * n_lines]
    n_rows = len(heights)
    figure = make_subplots(rows=n_rows, cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.05)
    bars = np.arange(len(frame))
    figure.add_trace(_candles(bars, frame, "bars"), row=1, col=1)
    figure.update_yaxes(title_text="points", tickformat=",.0f", row=1, col=1)
    for span, colour, name in [(truth, TRUTH, "labelled"), (guess, GUESS, "predicted")]:
        if span is not None:
            figure.add_vrect(x0=span[0] - 0.5, x1=span[1] + 0.5, fillcolor=colour, line_width=0, layer="below")
            figure.add_trace(_legend_entry(f"{name} {span[0]}–{span[1]}", GREEN if name == "labelled" else ORANGE))
    likely = {"color": ORANGE, "width": 4}
    for low, high in intervals:
        place = {"y0": 0.03, "y1": 0.03, "yref": "y domain", "x0": low - 0.5, "x1": high + 0.5}
        figure.add_shape(type="line", line=likely, **place, row=1, col=1)
    if len(intervals):
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", name="likely edges", line=likely), row=1, col=1)
    row = 2
    if heat:
        figure.add_trace(_heat_strip(bars, heat), row=row, col=1)
        figure.update_yaxes(showgrid=False, zeroline=False, row=row, col=1)
        row += 1
    if probability is not None:
        line = {"color": ORANGE, "width": 2}
        trace = go.Scatter(x=bars, y=np.float32(probability), name="P(inside)", line=line, fill="tozeroy")
        figure.add_trace(trace, row=row, col=1)
        figure.update_yaxes(title_text="P(inside)", range=[0, 1], row=row, col=1)
        row += 1
    if countdown is not None:
        lines = countdown if isinstance(countdown, dict) else {"countdown": countdown}
        for (name, value), colour in zip(lines.items(), (BLUE, YELLOW), strict=False):
            figure.add_trace(go.Scatter(x=bars, y=np.float32(value), name=name, line={"color": colour}), row=row, col=1)
        figure.update_yaxes(title_text="bars", row=row, col=1)
    figure.update_layout(modebar_remove=NEEDLESS)
    figure.update_xaxes(rangeslider_visible=False)
    figure.update_xaxes(title_text=f"bar, from {frame.index[0]:%Y-%m-%d %H:%M} UTC", row=n_rows)
    return style(figure, title, height=360 + 120 * n_lines + 40 * len(heat))


def overview_figure(candles, marks=None, ticks=None, *, title="The whole series", stretch="bar"):
    """Draw a re-binned stretch of bars as candles, with its regular hours, gaps and rolls.

    The axis counts bars: closed hours take no room, and every candle is as
    wide as the number of bars it holds.

    Parameters
    ----------
    candles : DataFrame
        `open high low close` in points, about a thousand rows; `at`, the
        candle's middle as a bar number (default 0, 1, ...), and `text`, the
        first lines of its hover label, are optional.
    marks : DataFrame, optional
        One row per mark: `kind` (a key of MARKS), `x0` and `x1` in bar numbers
        and `text`, its label or "".
    ticks : DataFrame, optional
        `at` (bar number) and `text` of the axis labels.
    title : str
    stretch : str
        Axis title that says what is in sight, two lines at most.

    Returns
    -------
    plotly Figure
        Its traces are the candles and one legend entry per kind of mark, shown
        where that kind occurs: the same number for every stretch of a series.
    """
    x = candles["at"] if "at" in candles else np.arange(len(candles))
    trace = _candles(np.asarray(x, np.float64), candles, "bars")
    trace.update(text=candles.get("text"), hovertemplate=PRICE_HOVER if "text" in candles else None)
    figure = go.Figure(trace)
    found = set() if marks is None else set(marks["kind"])
    for kind, look in MARKS.items():
        symbol = {"symbol": "square" if "fillcolor" in look else "line-ns", "size": 12}
        colour = look.get("fillcolor") or look["line"]["color"]
        symbol.update(color=colour, line={"color": colour, "width": 0 if "fillcolor" in look else 2})
        entry = go.Scatter(x=[None], y=[None], mode="markers", name=kind, marker=symbol, visible=kind in found)
        figure.add_trace(entry)
    style(figure, title, height=460, x=stretch, y="points")
    shapes, labels = _draw_marks(marks) if marks is not None else ([], [])
    figure.update_layout(
        shapes=shapes,
        annotations=labels,
        hovermode="closest",  # a label at every x would have to be drawn again with each zoom
        showlegend=True,
        legend={"y": 1, "yanchor": "bottom"},  # above: below stands the two-line axis title
        margin={"t": 72, "b": 64},
        modebar_remove=NEEDLESS,
    )
    figure.update_xaxes(
        rangeslider_visible=False, range=_edges(x), zeroline=False, hoverformat=",d", title_font_size=11
    )
    figure.update_xaxes(showgrid=False, ticks="outside", tickcolor=GREY)  # grid lines would be drawn over the marks
    figure.update_yaxes(tickformat=",.2~f", range=_price_range(candles))  # quarter points on a close look
    if ticks is not None:
        figure.update_xaxes(tickvals=ticks["at"].to_numpy(np.float64), ticktext=list(ticks["text"]), tickangle=0)
    return figure


def targets_figure(targets, *, title):
    """Draw what the per-bar heads are asked for: the mask and the countdown of one span.

    Parameters
    ----------
    targets : labels.Targets of one span
    title : str
    """
    bars = np.arange(len(targets.mask))
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    figure.add_trace(
        go.Scatter(x=bars, y=targets.mask, name="inside", line={"color": GREEN, "shape": "hvh"}, fill="tozeroy"),
        row=1,
        col=1,
    )
    figure.add_trace(go.Scatter(x=bars, y=targets.countdown, name="countdown", line={"color": BLUE}), row=2, col=1)
    figure.update_yaxes(title_text="inside", row=1, col=1)
    figure.update_yaxes(title_text="bars to start", row=2, col=1)
    figure.update_xaxes(title_text="bar", row=2, col=1)
    return style(figure, title)


def _legend_entry(name, colour):
    """Return a trace without points: a span in the legend."""
    marker = {"symbol": "square", "size": 12, "color": colour}
    return go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker)


def _heat_strip(bars, heat):
    """Return a heat map of a row of probabilities per edge, on one scale from nothing to the largest."""
    return go.Heatmap(
        x=bars,
        y=list(heat),
        z=np.float32(list(heat.values())),
        zmin=0,
        colorscale=[[0, CLEAR], [1, ORANGE]],
        showscale=False,
        hovertemplate="bar %{x}<br>P(%{y}) %{z:.3f}<extra></extra>",
    )


def _candles(x, frame, name):
    """Return a candlestick trace in the common colours (float32 keeps reports small)."""
    prices = {column: frame[column].to_numpy(np.float32) for column in ("open", "high", "low", "close")}
    return go.Candlestick(
        x=x,
        **prices,
        name=name,
        showlegend=False,
        increasing={"line": {"color": UP, "width": 1}},
        decreasing={"line": {"color": DOWN, "width": 1}},
    )


def _draw_marks(marks):
    """Return the shapes of marks (bands, or lines where the look has no fill) and their labels.

    Labels stand at the top and at the bottom in turn: on a phone two marks may be closer than a label is wide.
    """
    shapes, labels = [], []
    for kind, x0, x1, text in marks.sort_values("x0")[["kind", "x0", "x1", "text"]].itertuples(index=False):
        form = "rect" if "fillcolor" in MARKS[kind] else "line"
        place = {"type": form, "x0": x0, "x1": x1, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
        shapes.append({**place, **MARKS[kind]})
        if text:
            where = {"x": x1, "yref": "paper", "xanchor": "left"}
            where.update({"y": 0, "yanchor": "bottom"} if len(labels) % 2 else {"y": 1, "yanchor": "top"})
            labels.append({**where, "text": text, "textangle": -90, "showarrow": False, "font": {"size": 11}})
    return shapes, labels


def _edges(x):
    """Return the outer edges of candles at `x`, a little room on both sides where there is one only."""
    width = x[1] - x[0] if len(x) > 1 else 1.0
    x = np.asarray(x, np.float64)
    return [float(x[0] - width / 2), float(x[-1] + width / 2)]


def _price_range(candles):
    """Return the range of the price axis: all of the candles and a little air."""
    low, high = float(candles["low"].min()), float(candles["high"].max())
    air = 0.04 * (high - low) or 1.0
    return [low - air, high + air]
