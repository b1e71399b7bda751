"""What a series looks like: its day, and how its volatility clusters."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.figures.theme import BLUE, GREY, ORANGE, style

COLOURS = (BLUE, ORANGE, GREY)


def facts_figure(profiles, correlations, *, title="|Return| through the day, and how it clusters"):
    """Draw half-hour profiles and autocorrelations of |return|, a line a series.

    Parameters
    ----------
    profiles : dict of str to ndarray (46,)
        Mean |return| of each half hour from 18:00 New York over their root mean square.
    correlations : dict of str to ndarray (n_lags,)
        At lags 1, 2, ...; a series may be missing.
    title : str

    Returns
    -------
    plotly Figure
    """
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.2)
    hours = np.arange(46) / 2
    for (name, profile), colour in zip(profiles.items(), COLOURS, strict=False):
        line = {"color": colour, "width": 2}
        figure.add_trace(go.Scatter(x=hours, y=np.float32(profile), name=name, line=line, legendgroup=name), 1, 1)
        if name in correlations:
            lags = np.arange(1, len(correlations[name]) + 1)
            curve = go.Scatter(
                x=lags, y=np.float32(correlations[name]), name=name, line=line, legendgroup=name, showlegend=False
            )
            figure.add_trace(curve, 2, 1)
    ticks = np.arange(0, 24, 3)
    clock = [f"{(18 + tick) % 24:02d}:00" for tick in ticks]
    figure.update_xaxes(title_text="half hour in New York", tickvals=ticks, ticktext=clock, row=1, col=1)
    figure.update_xaxes(title_text="lag (bars)", row=2, col=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="mean |return| / RMS", row=1, col=1)
    figure.update_yaxes(title_text="autocorrelation", row=2, col=1)
    return style(figure, title, height=520)
