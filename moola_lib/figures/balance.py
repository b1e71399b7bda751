"""Who teaches the encoder: shares of loss and gradient, as trained and re-weighed."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.figures.theme import GREY, TASK_COLOURS, style

SHARES = {"loss_share": "loss share", "gradient_share": "gradient share"}
FRONT, BEHIND = "circle", "circle-open"
DASHES = {"color": GREY, "dash": "dash", "width": 1.5}
SILENCED_LINE = {"line": DASHES, "name": "5%: silenced below", "showlegend": True}


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
    return style(figure, title, x="share", height=46 * len(shares) + 165)


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


def reweighed_figure(frames, *, title="The same record, re-weighed"):
    """Draw the mean shares of loss and gradient side by side, a row of two stacked bars per name.

    The pointers come first, so that the line at 5% tells whether they are silenced.

    Parameters
    ----------
    frames : dict of str to DataFrame
        What is shown (a position of a weight, a strategy) to its
        `evaluation.reweigh.reweigh`, or to a record of `read_metrics`.
    title : str
    """
    figure = make_subplots(cols=2, subplot_titles=list(SHARES.values()), shared_yaxes=True, horizontal_spacing=0.06)
    for column, kind in enumerate(SHARES, start=1):
        means = {name: frame.groupby("task", sort=False)[kind].mean() for name, frame in frames.items()}
        for task in _in_order(next(iter(means.values())).index):
            _add_bar(figure, task, [mean[task] for mean in means.values()], list(frames), column == 1, col=column)
    figure.add_vline(x=0.05, col=2, **SILENCED_LINE)
    figure.update_annotations(font_size=12)
    figure.update_yaxes(autorange="reversed")
    _scale_shares(figure)
    return style(figure, title, x="share", height=34 * len(frames) + 195).update_layout(margin_t=62)


def record_figure(frame, *, title=""):
    """Draw a record's mean shares of loss and gradient as two bars, and below them gradient shares over steps.

    Parameters
    ----------
    frame : DataFrame
        From `evaluation.reweigh.reweigh`, or a record of `read_metrics`.
    title : str
    """
    figure = make_subplots(rows=2, row_heights=[0.3, 0.7], vertical_spacing=0.2)
    tasks = _in_order(frame["task"].unique())
    for task in tasks:
        rows = frame[frame["task"] == task]
        means = [rows["loss_share"].mean(), rows["gradient_share"].mean()]
        _add_bar(figure, task, means, ["loss", "gradient"], True, row=1)
    for task in tasks:
        rows = frame[frame["task"] == task]
        line = {"color": _colour(task), "width": 2}
        trace = go.Scatter(x=rows["step"], y=rows["gradient_share"], name=task, line=line, showlegend=False)
        figure.add_trace(trace, row=2, col=1)
    figure.add_hline(y=0.05, row=2, **SILENCED_LINE)
    style(figure, title, height=500).update_layout(margin_t=48 if title else 12)
    _scale_shares(figure, row=1)
    figure.update_xaxes(title_text="share", row=1)
    figure.update_yaxes(autorange="reversed", row=1)
    figure.update_xaxes(title_text="step", row=2)
    figure.update_yaxes(title_text="share of the gradient", tickformat=".0%", range=[0, 1], row=2)
    return figure


def pareto_figure(sweep, *, against=None, title="What each weight on the pointers buys and costs"):
    """Draw each other metric against the pointers' own, a facet each, joined in the order of the pointers' weight.

    Better is always up and to the right: the axis of a metric of which less is
    better is turned. Full points are the front, by the point estimates: no other
    weight is as good in both metrics and better in one. Labels are the weights;
    a point too close to a labelled one shows its own under the pointer.

    Parameters
    ----------
    sweep : DataFrame
        One row per weight and metric: `pointer_weight`, `metric`, `meaning`,
        `value`, `low`, `high` (its interval), `is_higher_better`.
    against : str, optional
        The metric on the x axes, the first by default.
    title : str
    """
    metrics, colour = list(sweep["metric"].unique()), TASK_COLOURS["pointers"]
    against = against or metrics[0]
    sweep = sweep.sort_values("pointer_weight").set_index("pointer_weight")
    x, others = sweep[sweep["metric"] == against], [metric for metric in metrics if metric != against]
    titles = [_meaning(sweep[sweep["metric"] == metric]) for metric in others]
    gap = 0.14 / len(others)
    figure = make_subplots(rows=len(others), shared_xaxes=True, vertical_spacing=gap, subplot_titles=titles)
    figure.update_annotations(x=0, xanchor="left", font_size=12)
    for row, metric in enumerate(others, start=1):
        y = sweep[sweep["metric"] == metric].loc[x.index]
        seen = _turned(x), _turned(y)
        trace = go.Scatter(
            x=x["value"],
            y=y["value"],
            error_x=_error_bars(x),
            error_y=_error_bars(y),
            mode="lines+markers+text",
            text=_label_apart([f"{weight:g}" for weight in x.index], *seen),
            textposition=_label_sides(*seen),
            customdata=x.index,
            hovertemplate="weight %{customdata:g}: %{x:.3g}, %{y:.3g}<extra></extra>",
            line={"color": colour, "width": 1},
            marker={"size": 9, "symbol": [FRONT if best else BEHIND for best in _is_on_front(*seen)]},
            showlegend=False,
        )
        figure.add_trace(trace, row=row, col=1)
        figure.update_yaxes(row=row, **_direction(y))
    for name, symbol in (("on the front", FRONT), ("another weight does better", BEHIND)):
        marker = {"size": 9, "symbol": symbol, "color": colour}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name))
    figure.update_xaxes(**_direction(x))
    style(figure, title, height=260 * len(others) + 130).update_layout(margin_t=62)
    return figure.update_xaxes(title_text=_meaning(x), row=len(others))


def critical_difference_figure(ranks, critical_difference, *, title="Mean ranks (1 is best); joined: not told apart"):
    """Draw mean ranks on a line; bars above join strategies that differ by less than the critical difference.

    Parameters
    ----------
    ranks : Series
        Mean rank by strategy; 1 is best.
    critical_difference : float
    title : str

    Notes
    -----
    Demšar 2006, Statistical comparisons of classifiers over multiple data sets
    (JMLR 7). Differs: names stand in one column, which a phone has room for.
    """
    ranks = ranks.sort_values(kind="stable")
    values, n = ranks.to_numpy(), len(ranks)
    joined = _joined(values, critical_difference)
    figure = go.Figure()
    for k, value in enumerate(values):  # from its highest bar down to the dot
        top = min((level for level, (a, b) in enumerate(joined) if a <= k <= b), default=len(joined) + k) - len(joined)
        line = {"color": GREY, "width": 0.6}
        figure.add_shape(type="line", x0=value, x1=value, y0=top, y1=k, line=line, layer="below")
    ruler = -len(joined) - 1.2
    bars = [(values[a], values[b], k - len(joined)) for k, (a, b) in enumerate(joined)]
    for x0, x1, y, width in [*((*bar, 5) for bar in bars), (values[0], values[0] + critical_difference, ruler, 2)]:
        line = {"color": "#5b6570" if width == 5 else GREY, "width": width}
        figure.add_trace(go.Scatter(x=[x0, x1], y=[y, y], mode="lines", line=line, hoverinfo="skip"))
    figure.add_annotation(
        x=values[0], y=ruler, text=f"critical difference {critical_difference:.2f}", showarrow=False,
        xanchor="left", yanchor="bottom",
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=values,
            y=list(range(n)),
            mode="markers+text",
            text=[f"{value:.2f}" for value in values],
            textposition="middle right",
            marker={"size": 10, "color": TASK_COLOURS["pointers"]},
        )
    )
    style(figure, title, x="mean rank", height=26 * (n + len(joined)) + 165)
    figure.update_layout(showlegend=False, margin={"t": 93, "b": 16})
    furthest = max(values[-1], values[0] + critical_difference)
    figure.update_xaxes(range=[0.8, 0.8 + 1.22 * (furthest - 0.8)], side="top", tickangle=0)
    figure.update_yaxes(tickvals=list(range(n)), ticktext=list(ranks.index), showgrid=False, zeroline=False)
    return figure.update_yaxes(range=[n - 0.3, ruler - 1.2])


def _in_order(tasks):
    """Return the tasks, pointers first."""
    return sorted(tasks, key=lambda task: task != "pointers")


def _colour(task):
    return TASK_COLOURS.get(task, GREY)  # the segment posterior's task has none of its own


def _add_bar(figure, task, shares, names, showlegend, row=1, col=1):
    """Add a task's part of stacked bars."""
    trace = go.Bar(
        x=shares,
        y=names,
        orientation="h",
        name=task,
        legendgroup=task,
        showlegend=showlegend,
        marker_color=_colour(task),
        text=[f"{share:.0%}" for share in shares],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        hovertemplate="%{y}: %{x:.1%}",
    )
    figure.add_trace(trace, row=row, col=col)


def _scale_shares(figure, row=None):
    """Stack bars from 0 to 100%; what does not fit into its bar is left out."""
    figure.update_layout(barmode="stack", uniformtext={"minsize": 9, "mode": "hide"})
    figure.update_xaxes(tickformat=".0%", range=[0, 1], tickvals=[0, 0.5], row=row)


def _error_bars(rows):
    high, low = rows["high"] - rows["value"], rows["value"] - rows["low"]
    return {
        "type": "data", "symmetric": False, "array": high, "arrayminus": low,
        "color": GREY, "thickness": 0.8, "width": 2,
    }  # fmt: skip


def _meaning(rows):
    first = rows.iloc[0]
    return first["meaning"] if first["is_higher_better"] else f"{first['meaning']}, less is better"


def _direction(rows):
    return {} if rows["is_higher_better"].iloc[0] else {"autorange": "reversed"}


def _turned(rows):
    """Return the values in units of the axis, turned where less is better."""
    sign = 1 if rows["is_higher_better"].iloc[0] else -1
    return sign * rows["value"].to_numpy() / ((rows["high"].max() - rows["low"].min()) or 1.0)


def _is_on_front(x, y):
    """Return for each point whether no other is as good in both and better in one."""
    as_good = (x >= x[:, None]) & (y >= y[:, None])
    better = (x > x[:, None]) | (y > y[:, None])
    return ~(as_good & better).any(axis=1)


def _label_sides(x, y):
    """Return for each point the corner away from its neighbours on the line; error bars leave corners free."""
    sides = []
    for k in range(len(x)):
        near = [j for j in (k - 1, k + 1) if 0 <= j < len(x)]
        up, right = y[k] >= np.mean(y[near]), x[k] >= np.mean(x[near])
        sides.append(f"{'top' if up else 'bottom'} {'right' if right else 'left'}")
    return sides


def _label_apart(labels, x, y, apart=0.09):
    """Return the labels, "" for a point too close to one that has its label already."""
    kept = []
    for k in [0, len(x) - 1, *range(1, len(x) - 1)]:  # the ends first
        if all(np.hypot(x[k] - x[j], y[k] - y[j]) > apart for j in kept):
            kept.append(k)
    return [label if k in kept else "" for k, label in enumerate(labels)]


def _joined(values, critical_difference):
    """Return (first, last) of the longest runs of sorted ranks that differ by less, without those inside others."""
    runs = []
    for first in range(len(values)):
        last = int(np.searchsorted(values, values[first] + critical_difference)) - 1
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs
