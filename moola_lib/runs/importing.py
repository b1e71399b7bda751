"""`moola import`: the bars of any vendor into one parquet file, with a report of what was read and dropped."""

from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.runs.terminal import open_console, say_count


def import_bars(files, output, *, is_overwriting=False, stream=None, **options):
    """Read bars, write them as parquet, and print the import report.

    Parameters
    ----------
    files : list of str or Path
        Consecutive pieces of one series.
    output : str or Path
        A `.parquet` file, written atomically.
    is_overwriting : bool
        Replace an existing output.
    stream : text file, optional
        Default standard output.
    **options
        tz, stamp, symbol, scale, drop_budget of `market.load_bars`.

    Returns
    -------
    Bars

    Raises
    ------
    UserError
        The output exists or cannot be written, or the files are refused; then
        nothing is written.
    """
    output = Path(output)
    if output.suffix != ".parquet":
        raise UserError(f"the output {output} is no parquet file; give a name that ends in .parquet")
    if output.is_dir():
        raise UserError(f"the output {output} is a folder; give the name of a file")
    if output.exists() and not is_overwriting:
        raise UserError(f"{output} exists; choose another name, or replace it with --overwrite")
    from moola_lib.market import load_bars, save_bars

    bars = load_bars(files, **options)
    save_bars(bars, output)
    _print_report(bars, output, stream)
    return bars


def _print_report(bars, output, stream):
    """Print the report's facts as a table, and where the bars are."""
    from rich.table import Table
    from rich.text import Text

    console = open_console(stream)
    table = Table(title=f"Import of {bars.symbol}", title_justify="left", title_style="bold", header_style="bold")
    for name in bars.report.columns:
        table.add_column(name)
    for fact, value in bars.report.itertuples(index=False):
        style = "yellow" if fact.startswith("dropped") else ""
        table.add_row(Text(fact, style), Text(_shown(value), style))
    console.print(table)
    console.print(_shown(f"{say_count(len(bars), 'bar')} in {output}"), markup=False, soft_wrap=True)


def _shown(text):
    """Return a text that any terminal takes; the name of a file may hold bytes that are no letters."""
    return text.encode("utf-8", "backslashreplace").decode()
