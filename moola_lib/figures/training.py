"""Training curves, and figures beside their baselines."""

from itertools import cycle

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.figures.theme import GREY, SEQUENCE, style

N_COLOURED = 6  # of trainings that go on side by side; more legend entries would take the room of the curves
SYMBOLS = ("x", "cross", "star", "triangle-up", "triangle-down", "diamond", "square", "pentagon", "bowtie", "hexagram")


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


def live_figure(trainings, n_epochs=None):
    """Draw the losses of trainings that are under way: the latest to begin in colours, earlier ones grey.

    Parameters
    ----------
    trainings : dict of str to list of dict
        Label ("" where there is one only) to its epochs so far: `epoch`, and
        losses whose names begin with `train_` or `validation_`.
    n_epochs : int, optional
        Right end of the axis.

    Returns
    -------
    plotly Figure
        Its traces are those of `live_curves`.
    """
    first, *others = live_curves(trainings)
    figure = go.Figure(go.Scatter(mode="lines", line={"color": GREY, "width": 1}, opacity=0.6, **first))
    for k, curve in enumerate(others):
        width, dash = (2, "solid") if k % 2 else (1, "dot")
        line = {"color": SEQUENCE[k // 2], "width": width, "dash": dash}
        figure.add_trace(go.Scatter(mode="lines+markers", marker={"size": 2 + 1.5 * width}, line=line, **curve))
    style(figure, "Losses: validation solid, training dotted", x="epoch", y="loss")
    return figure.update_xaxes(range=live_range(n_epochs))


def live_curves(trainings):
    """Return what changes in the traces of `live_figure` as trainings go on.

    Parameters
    ----------
    trainings : dict of str to list of dict

    Returns
    -------
    list of dict
        `x`, `y`, `name`, `visible` and `showlegend` of the validation losses of
        all earlier trainings, then of the training loss and the validation loss
        of N_COLOURED others: the same number, in the same places, however many
        there are yet.
    """
    labels = list(trainings)
    earlier = [_curve(trainings[label], "validation_") for label in labels[:-N_COLOURED]]
    x, y = ([value for curve in earlier for value in [*curve[k], None]] for k in (0, 1))
    curves = [{"x": x, "y": y, "name": f"{len(earlier)} earlier", "visible": bool(x), "showlegend": True}]
    shown = {k % N_COLOURED: label for k, label in list(enumerate(labels))[-N_COLOURED:]}
    for k in range(N_COLOURED):
        label = shown.get(k, "")
        own = {word: _curve(trainings.get(label, []), word[:5]) for word in ("training", "validation")}
        for word, (x, y) in own.items():
            is_alone = word == "validation" or not own["validation"][0]
            is_told = {"name": label or word, "showlegend": not label or is_alone}
            curves.append({"x": x, "y": y, "visible": k in shown and bool(x), **is_told})
    return curves


def live_range(n_epochs):
    """Return the range of the epochs: the whole way from the first, so that one sees how much is left."""
    return None if n_epochs is None else [0.5, n_epochs + 0.5]


def _curve(rows, prefix):
    """Return (epochs, losses) of the loss whose name begins so; two empty lists where there is none."""
    found = [(row["epoch"], value) for row in rows for name, value in row.items() if name.startswith(prefix)]
    return [epoch for epoch, _ in found], [value for _, value in found]


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
    for symbol, baseline in zip(cycle(SYMBOLS), baselines, strict=False):
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
