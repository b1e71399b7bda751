"""Figures of evaluation: hit curves with intervals, reliability, false alarms, labels needed, luck."""

import plotly.graph_objects as go

from moola_lib.figures.theme import BLUE, GREY, ORANGE, SEQUENCE, style


def hit_curves_figure(curves, *, column="start", title="Share of starts within k bars"):
    """Draw hit curves with their 95% intervals.

    Parameters
    ----------
    curves : dict of str to DataFrame
        Method to its `evaluation.scores.hit_curve`.
    column : {"start", "end", "both"}
    title : str
    """
    figure = go.Figure()
    for k, (name, curve) in enumerate(curves.items()):
        colour = SEQUENCE[k % len(SEQUENCE)]
        ends = curve[f"{column}_low"], curve[f"{column}_high"]
        _add_band(figure, curve["within_bars"], *ends, colour)
        line = {"color": colour, "width": 2}
        figure.add_trace(go.Scatter(x=curve["within_bars"], y=curve[column], name=name, line=line))
    figure.add_vline(x=3, line={"color": GREY, "dash": "dash"})
    figure.update_yaxes(range=[0, 1], tickformat=".0%")
    return style(figure, title, x="within k bars", y="share of windows", height=440)


def reliability_figure(tables, *, title="Hits claimed and hits made"):
    """Draw realised against claimed hits, bin by bin, with 95% intervals.

    Parameters
    ----------
    tables : dict of str to DataFrame
        Method to its `evaluation.calibration.reliability_table`.
    title : str
    """
    figure = go.Figure()
    diagonal = {"color": GREY, "dash": "dash"}
    figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1], mode="lines", name="as claimed", line=diagonal))
    for k, (name, table) in enumerate(tables.items()):
        error = {
            "type": "data",
            "symmetric": False,
            "array": table["high"] - table["realised"],
            "arrayminus": table["realised"] - table["low"],
        }
        marker = {"size": 9, "color": SEQUENCE[k % len(SEQUENCE)]}
        trace = go.Scatter(
            x=table["claimed"],
            y=table["realised"],
            error_y=error,
            mode="lines+markers",
            marker=marker,
            name=name,
            text=[f"{n} windows" for n in table["n"]],
        )
        figure.add_trace(trace)
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    figure.update_yaxes(range=[0, 1], tickformat=".0%")
    return style(figure, title, x="hit claimed (posterior within 3 bars)", y="share that hit", height=440)


def alarms_figure(curves, *, title="False alarms on ordinary sessions"):
    """Draw false alarms per session by recall, with 95% intervals.

    Parameters
    ----------
    curves : dict of str to DataFrame
        Method to its `evaluation.alarms.alarm_curve`.
    title : str
    """
    figure = go.Figure()
    for k, (name, curve) in enumerate(curves.items()):
        colour = SEQUENCE[k % len(SEQUENCE)]
        _add_band(figure, curve["recall"], curve["low"], curve["high"], colour)
        line = {"color": colour, "width": 2}
        figure.add_trace(go.Scatter(x=curve["recall"], y=curve["per_session"], name=name, line=line))
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(rangemode="tozero")
    return style(figure, title, x="recall on labelled windows", y="alarms per session", height=400)


def labels_needed_figure(table, n_windows, *, title="What a number of labels can tell apart"):
    """Draw the least detectable difference by number of labels, a line per discordance.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.power.power_table`.
    n_windows : int
        Marked: the labels at hand.
    title : str
    """
    figure = go.Figure()
    for k, (discordance, rows) in enumerate(table.groupby("discordance")):
        line = {"color": SEQUENCE[k % len(SEQUENCE)], "width": 2}
        name = f"{discordance:.0%} of windows decided differently"
        figure.add_trace(go.Scatter(x=rows["n_windows"], y=rows["difference"], name=name, line=line))
    figure.add_vline(x=n_windows, line={"color": GREY, "dash": "dash"}, annotation_text=f"{n_windows} labels")
    figure.update_yaxes(rangemode="tozero", tickformat=".0%")
    return style(figure, title, x="labelled windows", y="difference seen with 80% power", height=400)


def label_efficiency_figure(table, *, title="What each arm makes of a number of labels", y="start within 3 bars"):
    """Draw a figure by number of labels, a line with its 95% interval per arm.

    Parameters
    ----------
    table : DataFrame
        `n_labels`, `arm`, `value`, `low`, `high`.
    title, y : str
    """
    figure = go.Figure()
    for k, (name, rows) in enumerate(table.groupby("arm", sort=False)):
        rows, colour = rows.sort_values("n_labels"), SEQUENCE[k % len(SEQUENCE)]
        _add_band(figure, rows["n_labels"], rows["low"], rows["high"], colour)
        trace = go.Scatter(x=rows["n_labels"], y=rows["value"], name=name, line={"color": colour, "width": 2})
        figure.add_trace(trace)
    figure.update_xaxes(type="log", tickvals=sorted(table["n_labels"].unique()))
    return style(figure, title, x="labelled windows to train on", y=y, height=440)


def events_figure(events, *, title="After a detection, less random bars of the same half hour"):
    """Draw the difference of moves after detections and after controls, with 95% intervals.

    Parameters
    ----------
    events : DataFrame
        From `evaluation.event_study.event_study`.
    title : str
    """
    figure = go.Figure()
    for k, (name, rows) in enumerate(events.groupby("meaning", sort=False)):
        error = {"type": "data", "symmetric": False, "thickness": 2}
        error |= {"array": rows["high"] - rows["difference"], "arrayminus": rows["difference"] - rows["low"]}
        x = rows["horizon"] + 0.4 * k  # side by side
        marker = {"size": 9, "color": SEQUENCE[k], "symbol": ("circle", "diamond")[k % 2]}
        trace = go.Scatter(x=x, y=rows["difference"], error_y=error, mode="markers", marker=marker, name=name)
        figure.add_trace(trace)
    figure.add_hline(y=0, line={"color": GREY, "dash": "dash"})
    figure.update_xaxes(tickvals=sorted(events["horizon"].unique()))
    return style(figure, title, x="bars after its last bar", y="difference (ATR)", height=400)


def permutation_figure(test, *, title="Score against labels moved between days", x="score"):
    """Draw the scores on permuted labels and the score on the labels as they are.

    Parameters
    ----------
    test : evaluation.permutation.PermutationTest
    title, x : str
    """
    figure = go.Figure(go.Histogram(x=test.permuted, name="labels moved", marker={"color": BLUE}, opacity=0.7))
    figure.add_vline(x=test.score, line={"color": ORANGE, "width": 2}, annotation_text=f"p = {test.p_value:.3g}")
    return style(figure, title, x=x, y="permutations")


def _add_band(figure, x, low, high, colour):
    """Shade between two lines in a light tone of a colour."""
    edge = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    figure.add_trace(go.Scatter(x=x, y=high, **edge))
    figure.add_trace(go.Scatter(x=x, y=low, fill="tonexty", fillcolor=f"rgba({red},{green},{blue},0.15)", **edge))
