"""Who teaches the encoder: shares of loss and gradient."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.figures.theme import GREY, TASK_COLOURS, style


def shares_figure(shares, *, title):
    """Draw stacked horizontal bars: one bar per row of `shares`, one colour per task.

    Parameters
    ----------
    shares : DataFrame
        Index: what is shown; columns: tasks; values: shares that sum to 1.
    title : str
    """
    figure = go.Figure()
    for task in shares.columns:
        values = shares[task]
        text = [f"{value:.0%}" if value >= 0.05 else "" for value in values]
        figure.add_trace(
            go.Bar(
                x=values,
                y=list(shares.index),
                orientation="h",
                name=task,
                marker_color=TASK_COLOURS[task],
                text=text,
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
            )
        )
    figure.update_layout(barmode="stack")
    figure.update_xaxes(tickformat=".0%", range=[0, 1])
    figure.update_yaxes(autorange="reversed")
    return style(figure, title, height=46 * len(shares) + 150)


def trajectories_figure(lines, *, title, y, columns=3, reference=None):
    """Draw small multiples over epochs: one panel per name, one line per task.

    Parameters
    ----------
    lines : dict of str to dict of str to sequence of float
        Panel to task to values per epoch.
    title, y : str
    columns : int
    reference : float, optional
        A level to mark in every panel.
    """
    names = list(lines)
    rows = -(-len(names) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=names,
        shared_yaxes=True,
        shared_xaxes=True,
        vertical_spacing=0.3 / max(rows, 1) / 1.4,
        horizontal_spacing=0.04,
    )
    for k, name in enumerate(names):
        for task, values in lines[name].items():
            trace = go.Scatter(
                x=np.arange(1, len(values) + 1),
                y=np.float32(values),
                name=task,
                legendgroup=task,
                showlegend=k == 0,
                line={"color": TASK_COLOURS[task], "width": 2},
            )
            figure.add_trace(trace, row=k // columns + 1, col=k % columns + 1)
    if reference is not None:
        figure.add_hline(y=reference, line={"color": GREY, "dash": "dash"})
    figure.update_annotations(font_size=12)
    style(figure, title, height=170 * rows + 110)
    figure.update_yaxes(title_text=y, col=1)
    figure.update_xaxes(title_text="epoch", row=rows)
    return figure
