"""What pre-training learned: one reconstructed window, skill by mask and feature, and per-bar targets."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_lib.figures.theme import BLUE, GREEN, GREY, ORANGE, style

CUT = 1.0  # skill has no lower end: colours stop here, numbers do not
# light enough for dark numbers on every cell, whatever the page's ground
SKILL_COLOURS = [[0, "#ee9b66"], [0.5, "#eeeeee"], [1, "#62b0e4"]]


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


def skill_figure(table, rivals, *, title="Skill on hidden bars"):
    """Draw 1 - squared error / the rival's: a panel per rival, a row per feature, a column per mask.

    Blue is better than the rival and orange worse; where the interval
    includes 0, the number stands in brackets.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.reconstruction.reconstruction_skill`.
    rivals : sequence of str
    """
    masks, features = table["mask"].unique(), table["feature"].unique()
    titles = [f"against the {rival}" if rival != "interpolation" else "against interpolation" for rival in rivals]
    figure = make_subplots(rows=len(rivals), cols=1, subplot_titles=titles, vertical_spacing=0.06)
    for row, rival in enumerate(rivals, 1):
        values, low, high = (
            table.pivot(index="feature", columns="mask", values=f"{name} vs {rival}").loc[features, masks].to_numpy()
            for name in ("skill", "low", "high")
        )
        heat = go.Heatmap(
            z=np.float32(np.clip(values, -CUT, CUT)),
            x=list(masks),
            y=list(features),
            zmin=-CUT,
            zmax=CUT,
            colorscale=SKILL_COLOURS,
            showscale=False,
            text=_skill_text(values, low, high),
            texttemplate="%{text}",
            textfont_color="#1a1a1a",
            customdata=np.float32(np.stack([values, low, high], axis=2)),
            hovertemplate="%{y}, %{x}: %{customdata[0]:.3f} (%{customdata[1]:.3f} to %{customdata[2]:.3f})",
            name="",
            xgap=2,
            ygap=2,
        )
        figure.add_trace(heat, row=row, col=1)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="how bars are hidden", row=len(rivals), col=1)
    style(figure, title, height=len(rivals) * (24 * len(features) + 60) + 80)
    return figure.update_layout(margin_t=84)


def _skill_text(values, low, high):
    """Return each skill to two digits; in brackets where its interval includes 0, a dash where it is not defined."""
    signed = np.vectorize(lambda value: "–" if np.isnan(value) else f"{value:+.2f}".replace("-", "−"))(values)
    return np.where((low > 0) | (high < 0), signed, np.char.add(np.char.add("(", signed), ")"))


def pretext_figure(table, *, title="What each bar is, told from the window and from the bar alone"):
    """Draw macro F1 by task: the model, a regression on the same bar, and the majority class.

    Parameters
    ----------
    table : DataFrame
        From `evaluation.pretext.pretext_scores`.
    """
    figure = go.Figure()
    for name, label, colour, shift in [
        ("model", "model", BLUE, -0.12),
        ("same bar", "logistic regression on the same bar", ORANGE, 0.12),
    ]:
        error = {
            "type": "data",
            "symmetric": False,
            "array": table[f"{name} high"] - table[name],
            "arrayminus": table[name] - table[f"{name} low"],
        }
        y, marker = np.arange(len(table)) + shift, {"color": colour, "size": 10}
        figure.add_trace(go.Scatter(x=table[name], y=y, mode="markers", name=label, error_x=error, marker=marker))
    marker = {"color": GREY, "size": 10, "symbol": "x"}
    y = np.arange(len(table))
    figure.add_trace(go.Scatter(x=table["majority"], y=y, mode="markers", name="majority class", marker=marker))
    figure.update_yaxes(tickvals=y, ticktext=table["task"], autorange="reversed")
    figure.update_xaxes(range=[0, 1.02])
    return style(figure, title, x="macro F1 (95% interval by days)", height=320)
