"""A comparison of runs for a reader: tables in the terminal, the same tables and figures on one offline page."""

import json

from moola_lib.files import fingerprint, write_text
from moola_lib.runs.html import copy_plotly, page_environment, page_resources

FOLDER = "compare"
DRAWN = ("hit3_start", "hit3_end", "joint3", "inside_f1", "inside_ap", "type_macro_f1")  # all of them shares
LONGEST_NAME = 150  # letters of a file's name


def write_comparison(root, comparison):
    """Write a comparison below `reports/compare`; return the page's path.

    Parameters
    ----------
    root : Path
    comparison : comparing.Comparison

    Returns
    -------
    Path
        Named after the runs; the same runs compared again replace it.
    """
    name = "__".join(comparison.run_ids)
    if len(name) > LONGEST_NAME:
        name = f"{comparison.run_ids[0][:60]}__{len(comparison.run_ids) - 1}-others-{fingerprint(name)[:8]}"
    path = root / "reports" / FOLDER / f"{name}.html"
    figures = draw_figures(comparison)
    copy_plotly(root / "reports" / "assets")
    page = page_environment().get_template("comparison.html.j2")
    write_text(path, page.render(page_resources(), comparison=comparison, figures=[(t, _data(f)) for t, f in figures]))
    return path


def draw_figures(comparison):
    """Return (text for who cannot see it, plotly Figure) for each figure of a comparison."""
    from moola_lib.figures.comparison import run_curves_figure, run_intervals_figure

    found = []
    if comparison.paired:
        tables = {run_id: table[table["metric"].isin(DRAWN)] for run_id, table in comparison.paired.items()}
        title = f"Paired differences to {comparison.run_ids[0]}"
        figure = run_intervals_figure(
            tables, comparison.run_ids, column="difference", title=title, x="better by (share)"
        )
        found.append((f"{title}, with 95% intervals; the numbers are in the tables.", figure))
    if len(comparison.scores) > 1 and len(comparison.paired) < len(comparison.scores) - 1:
        tables = {run_id: table[table["metric"].isin(DRAWN)] for run_id, table in comparison.scores.items()}
        title = "Figures side by side, not paired"
        figure = run_intervals_figure(tables, comparison.run_ids, column="value", title=title, x="share")
        found.append((f"{title}; the numbers are in the table of that name.", figure))
    for stem, curves in comparison.curves.items():
        title = f"{stem}: loss by epoch"
        found.append(
            (
                f"{title}, one line a fold, of {', '.join(curves)}.",
                run_curves_figure(curves, comparison.run_ids, title=title),
            )
        )
    return found


def print_comparison(comparison, stream=None):
    """Print a comparison's tables.

    Parameters
    ----------
    comparison : comparing.Comparison
    stream : text stream, optional
        Default standard output.
    """
    from rich.table import Table
    from rich.text import Text

    from moola_lib.runs.terminal import open_console

    console = open_console(stream)
    for sentence in comparison.warnings:
        console.print(Text(sentence, style="bold"))
    for table in comparison.tables:
        shown = Table(title=table.title, title_justify="left", title_style="bold", header_style="bold")
        for name in table.columns if table.rows else ():
            shown.add_column(Text(name))
        for row in table.rows[: table.n_short]:
            shown.add_row(*(Text(cell) for cell in row))
        console.print(shown if table.rows else Text(table.title, style="bold"))
        if table.note:
            console.print(Text(table.note, style="dim"))
    for run_id, text in comparison.code.items():
        console.print(Text(f"Code, {comparison.run_ids[0]} to {run_id}", style="bold"))
        console.print(Text(text))


def _data(figure):
    """Return a figure as JSON that may stand in a page."""
    return json.dumps(json.loads(figure.to_json()), separators=(",", ":")).replace("<", "\\u003c")
