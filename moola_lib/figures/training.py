"""Training curves, reconstruction, and figures beside their baselines."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.figures.theme import BLUE, GREEN, GREY, ORANGE, SEQUENCE, style


def curves_figure(lines, *, title, y, reference=None):
    """Draw one line per name over epochs.

    Parameters
    ----------
    lines : dict of str to sequence of float
    title, y : str
    reference : (str, float), optional
        A level to compare with.
    """
    figure = go.Figure()
    for k, (name, values) in enumerate(lines.items()):
        x = np.arange(1, len(values) + 1)
        colour = SEQUENCE[k % len(SEQUENCE)]
        figure.add_trace(go.Scatter(x=x, y=np.float32(values), name=name, line={"color": colour, "width": 2}))
    if reference is not None:
        figure.add_hline(y=reference[1], line={"color": GREY, "dash": "dash"}, annotation_text=reference[0])
    return style(figure, title, x="epoch", y=y)


def reconstruction_figure(clean, answer, interpolation, is_masked, name, *, title):
    """Draw one feature of one window: the truth, what was hidden, and what model and interpolation made of it.

    Parameters
    ----------
    clean, answer, interpolation : ndarray (time,)
    is_masked : ndarray (time,), bool
    name : str
        Of the feature.
    """
    bars = np.arange(len(clean))
    figure = go.Figure()
    edges = np.diff(np.r_[False, is_masked, False].astype(int))
    for first, last in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        span = {"x0": first - 0.5, "x1": last - 0.5}
        figure.add_vrect(**span, fillcolor="rgba(128,128,128,0.18)", line_width=0, layer="below")
    hidden = lambda values: np.where(is_masked, np.float32(values), np.nan)  # noqa: E731
    figure.add_trace(go.Scatter(x=bars, y=np.float32(clean), name="true", line={"color": GREY, "width": 1.5}))
    figure.add_trace(
        go.Scatter(x=bars, y=hidden(interpolation), name="interpolation", line={"color": GREEN, "dash": "dot"})
    )
    figure.add_trace(go.Scatter(x=bars, y=hidden(answer), name="model", line={"color": ORANGE, "width": 2.5}))
    return style(figure, title, x="bar (grey: hidden from the encoder)", y=name)


def skill_figure(table, *, title="Skill on hidden bars, feature by feature"):
    """Draw 1 - squared error / the rival's, with the interval against interpolation.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.reconstruction.reconstruction_skill`.
    """
    figure = go.Figure()
    shown = np.maximum(table["skill vs interpolation"], -1.5)
    error = {
        "type": "data",
        "symmetric": False,
        "array": np.maximum(table["high"], -1.5) - shown,
        "arrayminus": shown - np.maximum(table["low"], -1.5),
    }
    for column, values, colour, symbol, bars in [
        ("against interpolation", shown, BLUE, "circle", error),
        ("against the mean", np.maximum(table["skill vs mean"], -1.5), ORANGE, "diamond", None),
    ]:
        marker = {"color": colour, "size": 10, "symbol": symbol}
        trace = go.Scatter(x=values, y=table["feature"], mode="markers", name=column, marker=marker, error_x=bars)
        figure.add_trace(trace)
    figure.add_vline(x=0, line={"color": GREY})
    figure.update_yaxes(autorange="reversed")
    return style(figure, title, x="skill (0: no better, 1: perfect; cut at −1.5)", height=460)


def baselines_figure(scores, names, baselines, *, title):
    """Draw a method's figures with intervals, and its baselines' beside them.

    Parameters
    ----------
    scores : dict of str to DataFrame
        Method to its `score_prediction`.
    names : sequence of str
        Metrics to show.
    baselines : sequence of str
        Baseline columns.
    """
    first = next(iter(scores.values())).set_index("metric")
    figure = make_subplots(rows=1, cols=1)
    for k, (method, table) in enumerate(scores.items()):
        table = table.set_index("metric").loc[list(names)]
        error = {
            "type": "data",
            "symmetric": False,
            "array": table["high"] - table["value"],
            "arrayminus": table["value"] - table["low"],
        }
        y = np.arange(len(names)) + (k - (len(scores) - 1) / 2) * 0.7 / max(len(scores), 4)
        marker = {"size": 9, "color": SEQUENCE[k % len(SEQUENCE)]}
        trace = go.Scatter(x=table["value"], y=y, mode="markers", name=method, error_x=error, marker=marker)
        figure.add_trace(trace)
    symbols = ("x", "cross", "star", "triangle-up")
    for symbol, baseline in zip(symbols, baselines, strict=False):
        marker = {"size": 9, "color": GREY, "symbol": symbol}
        values = first.loc[list(names), baseline]
        trace = go.Scatter(x=values, y=np.arange(len(names)), mode="markers", name=baseline, marker=marker)
        figure.add_trace(trace)
    labels = [first.loc[name, "meaning"] for name in names]
    figure.update_yaxes(tickvals=np.arange(len(names)), ticktext=labels, autorange="reversed")
    figure.update_xaxes(range=[0, 1])
    return style(figure, title, x="share", height=(34 + 12 * len(scores)) * len(names) + 210)


def hits_figure(curves, *, title="Share of windows within k bars"):
    """Draw hit curves: the start (line) and both edges (dashed), per method.

    Parameters
    ----------
    curves : dict of str to DataFrame
        From `evaluation.scores.hit_curve`.
    """
    figure = go.Figure()
    for k, (name, curve) in enumerate(curves.items()):
        colour = SEQUENCE[k % len(SEQUENCE)]
        for column, dash in (("start", "solid"), ("both", "dot")):
            line = {"color": colour, "dash": dash}
            figure.add_trace(go.Scatter(x=curve["within_bars"], y=curve[column], name=f"{name}, {column}", line=line))
    figure.add_vline(x=3, line={"color": GREY, "dash": "dash"})
    figure.update_yaxes(range=[0, 1], tickformat=".0%")
    return style(figure, title, x="within k bars", y="share of windows", height=440)


def confusion_figure(table, *, title="State before the expansion"):
    """Draw a confusion matrix (rows: true) with counts.

    Parameters
    ----------
    table : DataFrame
        Counts, index true and columns predicted.
    """
    heat = go.Heatmap(
        z=table.to_numpy(),
        x=list(table.columns),
        y=list(table.index),
        colorscale="Blues",
        showscale=False,
        text=table.to_numpy(),
        texttemplate="%{text}",
    )
    figure = go.Figure(heat)
    figure.update_yaxes(autorange="reversed")
    return style(figure, title, x="predicted", y="true", height=300)
