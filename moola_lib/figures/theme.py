"""One look for every figure: Okabe-Ito colours, which colour-blind readers can tell apart."""

import plotly.graph_objects as go

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, YELLOW, WINE, INDIGO, BROWN, OLIVE = "#56B4E9", "#E69F00", "#AA4466", "#5D4A9C", "#7A4B21", "#7A8B1E"
TEAL, INK, GREY = "#00A5A5", "#333333", "#8a8a8a"
SEQUENCE = [BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, WINE, INDIGO, BROWN, OLIVE, TEAL, INK]
TASK_COLOURS = {"type": PURPLE, "pointers": BLUE, "inside": GREEN, "countdown": YELLOW}
UP, DOWN = BLUE, ORANGE
TRUTH, GUESS = "rgba(0, 158, 115, 0.18)", "rgba(213, 94, 0, 0.16)"

GRID, ZERO = "rgba(128,128,128,0.2)", "rgba(128,128,128,0.4)"
MARGIN = {"l": 58, "r": 16, "t": 48, "b": 46}
LEGEND_GAP = 66  # pixels from the plot to the legend: tick labels and the axis title stand between

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "colorway": SEQUENCE,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        # else a dark block on a clear ground, and the active button white on white
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        "margin": MARGIN,
        "title": {"font": {"size": 15}, "x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 8}},
        "legend": {"orientation": "h", "x": 0, "yanchor": "top"},
        "xaxis": {"gridcolor": GRID, "zerolinecolor": ZERO, "automargin": True},
        "yaxis": {"gridcolor": GRID, "zerolinecolor": ZERO, "title": {"standoff": 8}, "automargin": True},
    }
)


def style(figure, title, *, height=340, x=None, y=None):
    """Give a figure the common look, its title and axis labels; return it."""
    inner = height - MARGIN["t"] - MARGIN["b"] - LEGEND_GAP
    figure.update_layout(template=TEMPLATE, title=title, height=height, legend_y=-LEGEND_GAP / inner)
    if x:
        figure.update_xaxes(title_text=x)
    if y:
        figure.update_yaxes(title_text=y)
    return figure
