"""The arms of a sweep: side by side, across all their parameters, and along each of them."""

import textwrap

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from moola_lib.figures.theme import BLUE, GREY, ORANGE, style

LABEL_LETTERS = 24  # of a line of an axis label
SCALE = "Cividis"  # the same to colour-blind readers
LOG_FACTOR = 10  # values that span more stand on a logarithmic axis
N_DRAWN = 40  # arms, the best
SPREAD = 0.06  # of the lines through one value, of an axis


def arms_figure(arms, runs, names, *, metric, title, luck=None):
    """Draw the arms, the best on top: a dot per run, the mean with its interval, and how far luck alone reaches.

    Parameters
    ----------
    arms : DataFrame
        `arm`, `mean`, `low`, `high`, from `evaluation.selection.arm_means`, and a
        column per parameter.
    runs : DataFrame
        `arm`, `value`.
    names : sequence of str
        The parameters; the values of an arm are its label.
    metric, title : str
    luck : (float, float), optional
        The mean of all arms, and where the best of as many equal ones would end 19
        times of 20: shaded.
    """
    drawn = arms.head(N_DRAWN)
    places = {arm: place for place, arm in enumerate(drawn["arm"])}
    figure = go.Figure()
    if luck is not None:
        figure.add_vrect(x0=luck[0], x1=luck[1], fillcolor=GREY, opacity=0.16, line_width=0)
        figure.add_vline(x=luck[0], line={"color": GREY, "dash": "dash"})
    dots = runs[runs["arm"].isin(places)].dropna(subset="value")
    told = {"name": "one run", "mode": "markers", "marker": {"size": 6, "color": GREY, "opacity": 0.7}}
    figure.add_trace(go.Scatter(x=dots["value"], y=dots["arm"].map(places), **told))
    error = {"type": "data", "symmetric": False, "thickness": 2, "color": GREY}
    error |= {"array": drawn["high"] - drawn["mean"], "arrayminus": drawn["mean"] - drawn["low"]}
    colours = [ORANGE if place == 0 else BLUE for place in range(len(drawn))]
    told = {
        "name": "mean with 95% interval (the best: orange)",
        "mode": "markers",
        "marker": {"size": 10, "color": colours},
    }
    figure.add_trace(go.Scatter(x=drawn["mean"], y=list(places.values()), error_x=error, **told))
    labels = [" · ".join(str(value) for value in row) for row in drawn[[*names]].to_numpy(object)]
    ticks = ["<br>".join(textwrap.wrap(label, LABEL_LETTERS)) for label in labels]
    rows = sum(max(tick.count("<br>") + 1, 1.7) for tick in ticks)
    figure.update_yaxes(tickvals=list(places.values()), ticktext=ticks, zeroline=False)
    figure.update_yaxes(range=[len(drawn) - 0.4, -0.6])
    return style(figure, title, x=metric, height=round(16 * rows + 200))


def parallel_figure(arms, names, *, metric, title):
    """Draw each arm as a line across its parameters to its figure, the better the higher; the best one is thick.

    Parameters
    ----------
    arms : DataFrame
        `arm`, `mean`, and a column per parameter, the best first.
    names : sequence of str
        The parameters.
    metric, title : str
    """
    figure, axes, heights = go.Figure(), [*names, metric], {}
    worst, best = arms["mean"].iloc[-1], arms["mean"].iloc[0]
    share = (arms["mean"] - worst) / (best - worst) if best != worst else arms["mean"] * 0 + 0.5
    for column, name in enumerate(names):
        middle, ticks = _place_values(arms[name])
        heights[name] = middle + SPREAD * (share - 0.5)  # lines through the same value stay apart
        for value, height in ticks.items():
            _add_tick(figure, column, height, value)
    for value, height in ((worst, 0.0), (best, 1.0)) if best != worst else ((best, 0.5),):
        _add_tick(figure, len(names), height, f"{value:.3g}")
    for column in range(len(axes)):
        figure.add_shape(type="line", x0=column, x1=column, y0=0, y1=1, line={"color": GREY, "width": 1})
    colours = sample_colorscale(SCALE, 0.05 + 0.9 * share.to_numpy())
    for place in reversed(range(len(arms))):  # the best is drawn last
        row = arms.iloc[place]
        y = [*(heights[name].iloc[place] for name in names), share.iloc[place]]
        line = {"color": ORANGE if place == 0 else colours[place], "width": 4 if place == 0 else 1.6}
        text = f"{row['arm']}: {row['mean']:.4g}"
        told = {"name": "the best" if place == 0 else text, "showlegend": False, "hovertext": text, "hoverinfo": "text"}
        figure.add_trace(go.Scatter(x=list(range(len(axes))), y=y, mode="lines", line=line, **told))
    labels = ["<br>".join(textwrap.wrap(name.replace("_", " "), 14)) for name in names] + [
        "<br>".join(textwrap.wrap(metric, 16))
    ]
    figure.update_xaxes(
        tickvals=list(range(len(axes))), ticktext=labels, range=[-0.35, len(names) + 0.45], showgrid=False
    )
    figure.update_xaxes(zeroline=False, side="top", tickangle=0)
    figure.update_yaxes(visible=False, range=[-0.08, 1.08])
    style(figure, title, height=420)
    return figure.update_layout(margin={"t": 110, "b": 24, "l": 16, "r": 16}, title_y=0.97, title_yanchor="top")


def parameter_figure(arms, name, *, metric):
    """Draw the figure along one parameter: a dot an arm, and the mean of the arms at each value.

    Parameters
    ----------
    arms : DataFrame
        `arm`, `mean`, and the column `name`.
    name, metric : str
    """
    values, figure = arms[name], go.Figure()
    is_number = values.map(lambda value: isinstance(value, (int, float, np.number))).all()
    x = values if is_number else values.astype(str)
    told = {"name": "one arm", "mode": "markers", "hovertext": arms["arm"], "marker": {"size": 8, "color": BLUE}}
    figure.add_trace(go.Scatter(x=x, y=arms["mean"], opacity=0.75, **told))
    means = arms["mean"].groupby(x, sort=bool(is_number)).mean()
    if len(means) < len(arms):
        line = {"color": GREY, "width": 2}
        told = {"name": "mean of the arms", "mode": "lines+markers", "line": line, "marker": {"symbol": "line-ew-open"}}
        figure.add_trace(go.Scatter(x=means.index, y=means, **told))
    if not is_number:
        figure.update_xaxes(type="category")
    elif _is_wide(values):
        figure.update_xaxes(type="log")
    if is_number and values.nunique() <= 8:
        figure.update_xaxes(tickvals=sorted(set(values)), ticktext=[f"{value:g}" for value in sorted(set(values))])
    return style(figure, name, y="<br>".join(textwrap.wrap(metric, 28)), height=320)


def _place_values(values):
    """Return the heights (0 to 1) of a parameter's values on their axis, and those to be named."""
    if values.map(lambda value: isinstance(value, (int, float, np.number)) and not isinstance(value, bool)).all():
        numbers = values.astype(float)
        shown = np.log(numbers) if _is_wide(numbers) else numbers
        low, high = shown.min(), shown.max()
        heights = (shown - low) / (high - low) if high > low else shown * 0 + 0.5
        named = sorted(set(zip(numbers, heights, strict=True)))
        if len(named) > 6:
            named = [named[0], named[-1]]
        return heights, {f"{value:g}": height for value, height in named}
    levels = list(dict.fromkeys(values.astype(str)))
    place = {level: k / (len(levels) - 1) if len(levels) > 1 else 0.5 for k, level in enumerate(levels)}
    return values.astype(str).map(place), place


def _is_wide(values):
    """Tell whether positive numbers span so much that they stand better on a logarithmic axis."""
    return min(values) > 0 and max(values) / min(values) >= LOG_FACTOR


def _add_tick(figure, x, y, text):
    """Name a place on an axis, beside it."""
    text = str(text).replace("_", "_<br>")  # on a phone a long word would reach the next axis
    figure.add_annotation(
        x=x, y=y, text=text, showarrow=False, xanchor="left", xshift=5, font={"size": 11}, yanchor="middle"
    )
