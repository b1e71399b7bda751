"""Feature tables at a glance."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.features.quality import LARGE_DRIFT, MODERATE_DRIFT
from moola_lib.figures.theme import BLUE, GREY, ORANGE, YELLOW, style

DRIFT_COLOURS = ("#dbe7ef", YELLOW, ORANGE)  # stable, shifted, drifted


def distributions_figure(histograms, *, title="How each feature is distributed"):
    """Draw small histograms, one per feature: the share of bars by value, in the feature's own units.

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
    figure.update_yaxes(title={"text": "bars", "font_size": 11}, col=1)
    for column in range(1, columns + 1):  # below the last panel of each column
        last = (len(names) - column) // columns + 1
        figure.update_xaxes(title={"text": "value", "font_size": 11}, row=last, col=column)
    return style(figure, title, height=130 * rows + 90)


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
        From `features.checks.compare_zigzags`: `rule` (str), `flip_share`
        (fraction) and, to be marked, `threshold`.
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
    if "threshold" in table:
        figure.add_vline(x=table["threshold"].iloc[0], line={"color": GREY, "dash": "dash"})
    figure.update_xaxes(tickformat=".0%", range=[0, 1.12])
    figure.update_yaxes(autorange="reversed")
    return style(figure, title, x="share of bars (dashed: more is noise)", height=150 + 26 * len(table))


def drift_figure(drift, *, title=None):
    """Draw how far each feature's distribution lies from its usual one, month by month or hour by hour.

    The colours change at the thresholds; a group with too few rows stays empty.

    Parameters
    ----------
    drift : DataFrame
        From `features.quality.measure_drift`.
    title : str, optional
    """
    by = "month" if "month" in drift else "hour"
    judged = drift.assign(excess=drift["excess"].where(drift["verdict"] != "too few rows"))
    names = list(drift["feature"].unique())
    grid = judged.pivot(index="feature", columns=by, values="excess").loc[names]
    most = 2 * LARGE_DRIFT
    figure = go.Figure(
        go.Heatmap(
            z=np.float32(grid),
            x=list(grid.columns),
            y=names,
            zmin=0,
            zmax=most,
            colorscale=_steps([0, MODERATE_DRIFT / most, LARGE_DRIFT / most, 1], DRIFT_COLOURS),
            colorbar={"title": "PSI", "tickvals": [0, MODERATE_DRIFT, LARGE_DRIFT, most], "thickness": 14},
            xgap=1,
            ygap=1,
            hovertemplate=f"%{{y}}<br>{by} %{{x}}<br>PSI above noise %{{z:.3f}}<extra></extra>",
        )
    )
    figure.update_xaxes(showgrid=False, **({"type": "category"} if by == "month" else {"dtick": 3}))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    words = {"month": "Does a feature change from month to month?", "hour": "How a feature changes through the session"}
    x = {"month": "month of the trade date", "hour": "hours since 18:00 New York"}
    return style(figure, title or words[by], x=x[by], height=190 + 22 * len(names))


def correlation_figure(correlations, *, title="Which features say the same?"):
    """Draw rank correlations between features; numbers stand where they are 0.5 or more.

    Parameters
    ----------
    correlations : DataFrame (n_features, n_features)
        From `features.quality.correlate_features`.
    """
    names = list(correlations.columns)
    values = correlations.to_numpy(np.float32, copy=True)
    np.fill_diagonal(values, np.nan)
    text = [[f"{value:.1f}".replace("0.", ".") if abs(value) >= 0.5 else "" for value in row] for row in values]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=names,
            y=names,
            zmin=-1,
            zmax=1,
            colorscale=[[0, ORANGE], [0.5, "#f4f4f4"], [1, BLUE]],
            colorbar={"title": "r", "thickness": 14},
            xgap=1,
            ygap=1,
            text=text,
            texttemplate="%{text}",
            textfont={"size": 9},
            hovertemplate="%{y}<br>%{x}<br>%{z:.2f}<extra></extra>",
        )
    )
    figure.update_xaxes(tickangle=-90, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return style(figure, title, height=260 + 22 * len(names))


def relations_figure(relations, *, title="Which features know of expansions?"):
    """Draw each feature's correlation with being inside, its interval, and what shifted labels gave.

    Parameters
    ----------
    relations : DataFrame
        From `features.relations.relate_to_expansions`.
    """
    figure = go.Figure(
        go.Bar(
            x=relations["control_high"] - relations["control_low"],
            base=relations["control_low"],
            y=relations["feature"],
            orientation="h",
            name="shifted labels (95%)",
            marker_color="rgba(128, 128, 128, 0.45)",
            hovertemplate="%{y}: shifted labels %{base:.3f} and %{x:.3f} wide<extra></extra>",
        )
    )
    error = {
        "type": "data",
        "symmetric": False,
        "array": relations["high"] - relations["correlation"],
        "arrayminus": relations["correlation"] - relations["low"],
        "color": GREY,
    }
    words = [f"AUC {auc:.2f}, {verdict}" for auc, verdict in relations[["auc", "verdict"]].itertuples(index=False)]
    colours = [BLUE if verdict == "related" else GREY for verdict in relations["verdict"]]
    figure.add_trace(
        go.Scatter(
            x=relations["correlation"],
            y=relations["feature"],
            mode="markers",
            name="labels (95%)",
            marker={"color": colours, "size": 9},
            error_x=error,
            text=words,
            hovertemplate="%{y}: %{x:.3f}<br>%{text}<extra></extra>",
        )
    )
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.update_yaxes(autorange="reversed")
    return style(figure, title, x="correlation with being inside", height=200 + 22 * len(relations))


def _steps(edges, colours):
    """Return a colour scale of flat steps between edges in [0, 1]."""
    pairs = zip(edges[:-1], edges[1:], colours, strict=True)
    return [[edge, colour] for low, high, colour in pairs for edge in (low, high)]


def positions_figure(start, length, *, title="Where expansions start, and how long they are"):
    """Draw histograms of starts and lengths in bars.

    Parameters
    ----------
    start, length : ndarray (n,)
    """
    figure = make_subplots(rows=1, cols=2, subplot_titles=["start", "length"])
    for column, values in enumerate((start, length), 1):
        counts = np.bincount(np.asarray(values, int), minlength=105 if column == 1 else 1)
        x = np.arange(len(counts))
        figure.add_trace(go.Bar(x=x, y=counts, marker_color=BLUE, showlegend=False), row=1, col=column)
    for edge in (29.5, 74.5):
        figure.add_vline(x=edge, line={"color": GREY, "dash": "dash"}, row=1, col=1)
    figure.update_yaxes(title_text="windows")
    figure.update_xaxes(title_text="bar in the window", row=1, col=1)
    figure.update_xaxes(title_text="bars", row=1, col=2)
    figure.update_annotations(font_size=12)
    return style(figure, title, height=330)
