"""`moola labels`: check a label table of any format, write it in another."""

from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.runs.terminal import open_console, say_count


def convert_labels(source, output=None, *, bars=None, symbol=None, is_overwriting=False, stream=None):
    """Read labels, refuse violations, write them in the format of the output's ending, and print the audit's counts.

    Parameters
    ----------
    source : str or Path
        Parquet (of the older layout too), CSV or Label Studio JSON.
    output : str or Path, optional
        `.parquet`, `.csv` or `.json`, written atomically; without it the labels are only checked.
    bars : str or Path, optional
        The bars they were made on: shown in Label Studio's JSON; needed for the
        older layout, whose windows are found by their prices, and for JSON whose
        regions are times without bars beside them.
    symbol : str, optional
        Which symbol of the bars, or the one of a JSON that names none.
    is_overwriting : bool
        Replace an existing output.
    stream : text file, optional
        Default standard output.

    Returns
    -------
    DataFrame
        The checked label table.

    Raises
    ------
    UserError
        The labels break a rule, or the output cannot be written; then nothing is.
    """
    output = None if output is None else _check_output(Path(output), is_overwriting)
    from moola_lib.labels.exchange import write_table
    from moola_lib.labels.table import load_labels, stamp_labels
    from moola_lib.market import load_bars

    frame = None if bars is None else load_bars(bars, **({} if symbol is None else {"symbol": symbol})).frame
    labels = load_labels(source, frame, symbol=symbol)
    if labels.bars is not None:
        if frame is None and output is not None:
            raise UserError(
                f"{source} is of the older layout, without time stamps; give the bars its windows were cut from "
                "with --bars, so that each finds its own"
            )
        labels = labels if frame is None else stamp_labels(labels, frame)
    if output is not None:
        write_table(labels.table, output, frame)
    _print_audit(labels, source, output, stream)
    return labels.table


def _check_output(output, is_overwriting):
    """Return the output; refuse what cannot be written to."""
    from moola_lib.labels.exchange import ENDINGS

    if output.suffix not in ENDINGS:
        raise UserError(f"the output {output} has no known ending; give a name that ends in {', '.join(ENDINGS)}")
    if output.is_dir():
        raise UserError(f"the output {output} is a folder; give the name of a file")
    if output.exists() and not is_overwriting:
        raise UserError(f"{output} exists; choose another name, or replace it with --overwrite")
    return output


def _print_audit(labels, source, output, stream):
    """Print what was counted, where the labels are, and what Label Studio needs beside them."""
    from rich.table import Table
    from rich.text import Text

    from moola_lib.labels import audit_labels
    from moola_lib.labels.label_studio import LABEL_STUDIO_CONFIG

    console = open_console(stream)
    table = Table(title=f"Labels of {Path(source).name}", title_justify="left", title_style="bold", header_style="bold")
    for name in ("check", "count", "of", "example"):
        table.add_column(name, justify="right" if name in ("count", "of") else "left")
    for check, count, of, example in audit_labels(labels.table).itertuples(index=False):
        cells = (check, str(count), str(of), example)
        table.add_row(*(Text(cell, style="yellow" if count else "") for cell in cells))
    console.print(table)
    n_rows = say_count(len(labels.table), "row")
    place = "no violation" if output is None else f"in {output}"
    console.print(f"{say_count(labels.n_windows, 'window')} ({n_rows}), {place}", markup=False, soft_wrap=True)
    if output is not None and output.suffix == ".json":
        console.print(f"Labelling interface of the project:\n{LABEL_STUDIO_CONFIG}", markup=False, soft_wrap=True)
