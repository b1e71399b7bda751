"""Bars as candles: one window with its expansion and a model's answer, or a whole series re-binned."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.figures.theme import BLUE, DOWN, GREEN, GREY, GUESS, ORANGE, TRUTH, UP, YELLOW, style


def window_figure(frame, *, truth=None, guess=None, probability=None, countdown=None, title="One window"):
    """Draw a window's candles, its labelled and predicted span, and per-bar answers below.

    Parameters
    ----------
    frame : DataFrame (105 rows)
        Bars of the window, indexed by UTC `ts`.
    truth, guess : (int, int), optional
        Labelled and predicted span in bars, inclusive.
    probability : ndarray (105,), optional
        Probability of being inside.
    countdown : ndarray (105,) or dict of str to ndarray, optional
        Bars until the start.
    title : str

    Returns
    -------
    plotly Figure
    """
    n_rows = 1 + (probability is not None) + (countdown is not None)
    heights = [1.0] if n_rows == 1 else [0.64, *[0.36 / (n_rows - 1)] * (n_rows - 1)]
    figure = make_subplots(rows=n_rows, cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.05)
    bars = np.arange(len(frame))
    figure.add_trace(_candles(bars, frame, "bars"), row=1, col=1)
    figure.update_yaxes(title_text="points", tickformat=",.0f", row=1, col=1)
    for span, colour, name in [(truth, TRUTH, "labelled"), (guess, GUESS, "predicted")]:
        if span is not None:
            figure.add_vrect(x0=span[0] - 0.5, x1=span[1] + 0.5, fillcolor=colour, line_width=0, layer="below")
            solid = GREEN if name == "labelled" else ORANGE
            figure.add_trace(
                go.Scatter(
                    x=[None],
                    y=[None],
                    mode="markers",
                    name=f"{name} {span[0]}–{span[1]}",
                    marker={"symbol": "square", "size": 12, "color": solid},
                ),
                row=1,
                col=1,
            )
    row = 2
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
    figure.update_xaxes(rangeslider_visible=False)
    figure.update_xaxes(title_text=f"bar, from {frame.index[0]:%Y-%m-%d %H:%M} UTC", row=n_rows)
    return style(figure, title, height=300 + 120 * (n_rows - 1) + 60)


def overview_figure(binned, breaks=None, *, title="The whole series"):
    """Draw a re-binned series as candles; rolls as dashed lines.

    Parameters
    ----------
    binned : DataFrame
        `open high low close` indexed by UTC `ts`, about a thousand rows.
    breaks : DatetimeIndex, optional
        Rolls to mark.
    title : str
    """
    figure = go.Figure(_candles(binned.index, binned, "bars, re-binned"))
    for stamp in [] if breaks is None else breaks:
        figure.add_vline(x=stamp, line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_xaxes(rangeslider_visible=False)
    figure.update_layout(showlegend=False)
    return style(figure, title, x="UTC", y="points")


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
