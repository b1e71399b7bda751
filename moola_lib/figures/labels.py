"""Figures of a label table: its classes, its spans through the session, label against label, the rule beside it."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.figures.theme import BLUE, GREEN, GREY, ORANGE, style

STATE_COLOURS = {"consolidation": BLUE, "retracement": ORANGE, "none": GREY}
SYMBOLS = {"consolidation": "circle", "retracement": "diamond", "none": "x"}
SESSION_TICKS = {"tickvals": [0, 4, 8, 12, 16, 20], "ticktext": ["18", "22", "2", "6", "10", "14"]}
SHARES = ["recall", "precision", "same state"]


def class_balance_figure(groups, *, title="States by part of the day and volatility"):
    """Draw the share of each state in each group of windows.

    Parameters
    ----------
    groups : DataFrame
        From `evaluation.labels.balance_by_group`.
    title : str
    """
    figure = go.Figure()
    names = [f"{group} ({n})" for group, n in zip(groups["group"], groups["windows"], strict=True)]
    for state, colour in STATE_COLOURS.items():
        if state in groups and groups[state].any():
            share = groups[state] / groups["windows"].clip(lower=1)
            bar = go.Bar(
                x=share,
                y=names,
                orientation="h",
                name=state,
                marker_color=colour,
                text=groups[state],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                hovertemplate="%{y}: %{text} of " + state + " (%{x:.0%})<extra></extra>",
            )
            figure.add_trace(bar)
    figure.add_vline(x=0.5, line={"color": GREY, "dash": "dash"})
    figure.update_layout(barmode="stack", bargap=0.25, showlegend=True, legend_traceorder="normal")
    figure.update_xaxes(tickformat=".0%", range=[0, 1])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return style(figure, title, x="share of windows", height=210 + 28 * len(groups))


def spans_by_hour_figure(spans, *, title="Expansions through the session"):
    """Draw where in its window each expansion starts and how long it lasts, by the hour.

    Parameters
    ----------
    spans : DataFrame
        From `evaluation.labels.describe_spans`.
    title : str
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07)
    for state, own in spans.groupby("label", sort=True):
        for row, column in enumerate(("start", "length"), 1):
            points = go.Scatter(
                x=own["session_hour"],
                y=own[column],
                mode="markers",
                name=state,
                legendgroup=state,
                showlegend=row == 1,
                marker={"color": STATE_COLOURS[state], "symbol": SYMBOLS[state], "size": 6, "opacity": 0.75},
                text=own["window_id"],
                hovertemplate="%{text}: %{y} bars<extra></extra>",
            )
            figure.add_trace(points, row=row, col=1)
    figure.update_yaxes(title_text="start (bar)", row=1, col=1)
    figure.update_yaxes(title_text="length (bars)", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(range=[-0.3, 23.3], zeroline=False, **SESSION_TICKS)
    figure.update_xaxes(title_text="hour in New York, from the open at 18:00", row=2, col=1)
    figure.update_layout(showlegend=True)
    return style(figure, title, height=470)


def differences_figure(pairs, *, tolerance_bars=3, title="The same window labelled twice"):
    """Draw how far apart the edges of two readings are.

    Parameters
    ----------
    pairs : DataFrame
        From `evaluation.annotators.pair_readings`.
    tolerance_bars : int
        Marked.
    title : str
    """
    figure = go.Figure()
    for edge, colour in (("start", BLUE), ("end", GREEN)):
        bars = go.Histogram(
            x=pairs[f"{edge}_difference"].dropna(), name=edge, marker_color=colour, xbins={"start": -104.5, "size": 1}
        )
        figure.add_trace(bars)
    for side in (-1, 1):
        figure.add_vline(x=side * (tolerance_bars + 0.5), line={"color": GREY, "dash": "dash"})
    figure.update_layout(barmode="group", bargap=0.15, showlegend=True)
    return style(figure, title, x="second reading less first (bars)", y="pairs", height=340)


def rule_figure(agreement, *, title="The rule beside the labels"):
    """Draw the rule's shares with their 95% intervals, and what chance would give.

    Parameters
    ----------
    agreement : DataFrame
        From `evaluation.labels.compare_with_rule`.
    title : str
    """
    shares = agreement[agreement["figure"].isin(SHARES)]
    names = [f"{figure} (n {n})" for figure, n in zip(shares["figure"], shares["n"], strict=True)]
    reach = {
        "type": "data",
        "symmetric": False,
        "array": shares["high"] - shares["value"],
        "arrayminus": shares["value"] - shares["low"],
    }
    look = {"mode": "markers", "y": names, "hovertemplate": "%{y}: %{x:.1%}<extra></extra>"}
    rule = go.Scatter(x=shares["value"], error_x=reach, name="rule (95%)", marker={"color": BLUE, "size": 10}, **look)
    chance = {"color": ORANGE, "size": 11, "symbol": "line-ns-open", "line": {"width": 3}}
    figure = go.Figure([rule, go.Scatter(x=shares["chance"], name="chance", marker=chance, **look)])
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%", zeroline=False)
    figure.update_yaxes(autorange="reversed")
    return style(figure, title, x="share", height=260)
