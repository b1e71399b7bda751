"""Feature tables at a glance."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.figures.theme import BLUE, GREY, ORANGE, style


def distributions_figure(histograms, *, title="How each feature is distributed"):
    """Draw small histograms, one per feature.

    Parameters
    ----------
    histograms : dict of str to (ndarray (n_bins + 1,), ndarray (n_bins,))
        Bin edges and shares.
    title : str
    """
    names = list(histograms)
    columns = 3
    rows = -(-len(names) // columns)
    figure = make_subplots(rows=rows, cols=columns, subplot_titles=names, vertical_spacing=0.5 / rows / 1.6)
    for k, name in enumerate(names):
        edges, shares = histograms[name]
        middle = np.float32((edges[1:] + edges[:-1]) / 2)
        bar = go.Bar(x=middle, y=np.float32(shares), marker_color=BLUE, showlegend=False)
        figure.add_trace(bar, row=k // columns + 1, col=k % columns + 1)
    figure.update_layout(bargap=0)
    figure.update_annotations(font_size=11)
    figure.update_xaxes(tickfont_size=10, nticks=4)
    figure.update_yaxes(tickfont_size=10, tickformat=".0%", nticks=3)
    return style(figure, title, height=130 * rows + 70)


def density_figure(density, names, *, title="Share of non-zero values per feature and time step"):
    """Draw density per feature (rows) and time step of the window (columns) as a heat map.

    Parameters
    ----------
    density : ndarray (time, feature), in [0, 1]
    names : sequence of str
    """
    figure = go.Figure(
        go.Heatmap(
            z=np.float32(density.T),
            y=list(names),
            zmin=0,
            zmax=1,
            colorscale="Viridis",
            colorbar={"title": "share", "tickformat": ".0%"},
        )
    )
    figure.update_yaxes(autorange="reversed")
    return style(figure, title, x="time step in the window (bars)", height=380)


def flips_figure(table, *, title="How often each zigzag turns"):
    """Draw the share of bars at which a swing is confirmed.

    Parameters
    ----------
    table : DataFrame
        `rule` (str) and `flip_share` (fraction).
    """
    colours = [ORANGE if rule.startswith("legacy") else BLUE for rule in table["rule"]]
    bar = go.Bar(
        x=table["flip_share"],
        y=table["rule"],
        orientation="h",
        marker_color=colours,
        text=[f"{share:.1%}" for share in table["flip_share"]],
        textposition="outside",
        cliponaxis=False,
    )
    figure = go.Figure(bar)
    figure.update_xaxes(tickformat=".0%", range=[0, 1.12])
    return style(figure, title, x="share of bars", height=260)


def positions_figure(start, length, *, title="Where expansions start, and how long they are"):
    """Draw histograms of starts and lengths in bars.

    Parameters
    ----------
    start, length : ndarray (n,)
    """
    figure = make_subplots(rows=1, cols=2, subplot_titles=["start (bar in the window)", "length (bars)"])
    for column, values in enumerate((start, length), 1):
        counts = np.bincount(np.asarray(values, int), minlength=105 if column == 1 else 1)
        x = np.arange(len(counts))
        figure.add_trace(go.Bar(x=x, y=counts, marker_color=BLUE, showlegend=False), row=1, col=column)
    for edge in (29.5, 74.5):
        figure.add_vline(x=edge, line={"color": GREY, "dash": "dash"}, row=1, col=1)
    figure.update_yaxes(title_text="windows", row=1, col=1)
    figure.update_annotations(font_size=12)
    return style(figure, title, height=300)
