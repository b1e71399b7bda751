"""Runs beside each other: their training curves, and by how much their figures differ."""

import textwrap

import numpy as np
import plotly.graph_objects as go

from moola_lib.figures.theme import GREY, SEQUENCE, style

LABEL_LETTERS = 20  # of a line of an axis label


def run_curves_figure(curves, run_ids, *, title, y="loss"):
    """Draw the losses of several runs over epochs, one colour a run, one line a fold.

    Parameters
    ----------
    curves : dict of str to list of (sequence of int, sequence of float)
        Run to its folds' epochs and losses; None where a loss was no number.
    run_ids : sequence of str
        All runs, for a run has the same colour in every figure.
    title, y : str
    """
    figure = go.Figure()
    for run_id, folds in curves.items():
        line = {"color": SEQUENCE[run_ids.index(run_id) % len(SEQUENCE)], "width": 2 if len(folds) == 1 else 1.25}
        for fold, (epochs, losses) in enumerate(folds):
            told = {"name": run_id, "legendgroup": run_id, "showlegend": fold == 0}
            mode = "lines" if len(epochs) > 1 else "markers"
            figure.add_trace(go.Scatter(x=epochs, y=np.array(losses, np.float32), mode=mode, line=line, **told))
    return style(figure, title, x="epoch", y=y, height=400)


def run_intervals_figure(tables, run_ids, *, column, title, x):
    """Draw one figure a row, a mark with its 95% interval per run; a line stands at 0 where differences are drawn.

    Parameters
    ----------
    tables : dict of str to DataFrame
        Run to `meaning`, `low`, `high` and the column drawn.
    run_ids : sequence of str
        All runs, for a run has the same colour in every figure.
    column : {"difference", "value"}
    title, x : str
    """
    figure = go.Figure()
    meanings = list(dict.fromkeys(meaning for table in tables.values() for meaning in table["meaning"]))
    for k, (run_id, table) in enumerate(tables.items()):
        error = {"type": "data", "symmetric": False, "thickness": 2}
        error |= {"array": table["high"] - table[column], "arrayminus": table[column] - table["low"]}
        y = table["meaning"].map(meanings.index) + (k - (len(tables) - 1) / 2) * 0.7 / max(len(tables), 3)
        marker = {"size": 9, "color": SEQUENCE[run_ids.index(run_id) % len(SEQUENCE)]}
        told = {"name": run_id, "showlegend": True, "mode": "markers"}
        figure.add_trace(go.Scatter(x=table[column], y=y, error_x=error, marker=marker, **told))
    if column == "difference":
        figure.add_vline(x=0, line={"color": GREY, "dash": "dash"})
    # over lines: on a phone a long label would take the room of the marks
    ticks = ["<br>".join(textwrap.wrap(meaning, LABEL_LETTERS)) for meaning in meanings]
    figure.update_yaxes(tickvals=np.arange(len(meanings)), ticktext=ticks, autorange="reversed", zeroline=False)
    return style(figure, title, x=x, height=(44 + 8 * len(tables)) * len(meanings) + 200)
