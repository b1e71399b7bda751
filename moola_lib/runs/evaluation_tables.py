"""What `moola evaluate` prints: tables with what they rest on, intervals in the cell of their figure."""

import contextlib

import numpy as np
import pandas as pd

from moola_lib.runs.terminal import open_console, say_count

NO_PROMISE = "A description of these bars, no forecast and no promise: costs and fills are not in it."
SHARES = (("precision", "precision"), ("recall", "recall"))
SCORED = (("best baseline", "best_baseline"), ("difference to it", "difference"))
# by table: its title, and for each column its heading and its figure; one with an interval under other names names it
TABLES = {
    "detections": (
        "Detections by part of the day and volatility",
        (
            ("bars", "group"), ("detections", "n_found"), ("a session", "per_session", "low", "high"),
            ("judged", "n_judged"), ("labelled", "n_labelled"), *SHARES, ("false a session", "false_per_session"),
        ),
    ),
    "chance": ("Beside as many detections made without the model", (("method", "method"), *SHARES)),
    "windows": (
        "Labelled windows",
        (
            ("figure", "meaning"), ("model", "value", "low", "high"), ("constant", "constant"),
            ("ATR rule", "ATR rule"), *SCORED,
        ),
    ),
    "rescored": (
        "The same answers, labels as they were and as they are",
        (("figure", "meaning"), ("as they were", "as_were"), ("as they are", "as_now"), ("difference", "difference")),
    ),
    "walk_forward": (
        "Walk-forward: trained on past labels, tested on the next",
        (("tested", "block"), ("figure", "meaning"), ("model", "value", "low", "high"), *SCORED),
    ),
    "events": (
        "What followed, in ATR, beside random bars of the same half hour",
        (
            ("bars after", "horizon"), ("figure", "meaning"), ("detections", "events"), ("controls", "controls"),
            ("difference", "difference", "low", "high"), ("events", "n_events"), ("days", "n_days"),
        ),
    ),
    "drift": (
        "Features against those of the training bars",
        (
            ("feature", "feature"), ("rows", "n_rows"), ("PSI", "psi"), ("by chance", "noise"), ("excess", "excess"),
            ("verdict", "verdict"),
        ),
    ),
}  # fmt: skip


def print_evaluation(told, opened, manner, bars, n_left_out, stream=None):
    """Print the tables of an evaluation, with what they rest on.

    Parameters
    ----------
    told : Told
    opened : Localiser
    manner : Manner
    bars : Bars
    n_left_out : int
        Days that the model was trained on.
    stream : text file, optional
    """
    console = open_console(stream)

    def say(sentence):
        console.print(sentence, markup=False, soft_wrap=True)

    say(
        f"{opened.name} on {bars.symbol}, {len(bars):,} bars; {manner.mode}, threshold {manner.threshold:.4g} "
        f"({manner.source}); {say_count(n_left_out, 'day')} left out that the model was trained on"
    )
    for name, (title, columns) in TABLES.items():
        if name in told.tables:
            console.print(_table(told.tables[name], title, columns))
        for sentence in told.notes.get(name, ()):
            say(sentence)
    say(NO_PROMISE)


def show_status(text, stream=None):
    """Return a context that shows what goes on, on a terminal; else one that does nothing."""
    console = open_console(stream)
    return console.status(text) if console.is_terminal else contextlib.nullcontext()


def _table(frame, title, columns):
    """Return a rich table of the columns that a frame has."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    shown = [column for column in columns if column[1] in frame]
    for heading, *_ in shown:
        table.add_column(heading)
    for _, block in frame.groupby(frame["block"] if "block" in frame else np.zeros(len(frame)), sort=False):
        for k, (_, row) in enumerate(block.iterrows()):
            cells = [_block_line(row, k) if name == "block" else _cell(row, name, *ends) for _, name, *ends in shown]
            table.add_row(*map(Text, cells))
        table.add_section()
    return table


def _block_line(row, line):
    """Return what stands in a line of a block of walk-forward: its days, below them its windows, then nothing."""
    windows = "all blocks" if pd.isna(row["n_train"]) else f"{row['n_train']} -> {row['n_test']} windows"
    return (f"{row['first_day']} to {row['last_day']}", windows, "", "")[min(line, 3)]


def _cell(row, name, low=None, high=None):
    """Return a figure as text: with its interval where it has one, a difference with a verdict that is one."""
    if name == "best_baseline" and isinstance(row[name], str):
        return f"{row[name]} {_say(row['baseline'])}"
    low, high = low or f"{name}_low", high or f"{name}_high"
    text = _say(row[name])
    if low in row and pd.notna(row[low]):
        text += f" ({_say(row[low])} to {_say(row[high])})"
    verdict = row.get("verdict") if name == "difference" and "best_baseline" in row else None
    return f"{text} {verdict}" if verdict in ("BETTER", "WORSE") else text


def _say(value):
    """Return a value as text: numbers to two digits after the point, missing ones as a dash."""
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "–"
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{round(value, 2) + 0.0:.2f}"
