"""The formats of a label table, by the ending of a file's name: parquet, CSV, Label Studio's JSON."""

from pathlib import Path

import pandas as pd

from moola_lib.errors import UserError
from moola_lib.files import replace_atomically
from moola_lib.labels.label_studio import read_label_studio, write_label_studio

ENDINGS = (".parquet", ".csv", ".json")


def read_frame(path, frame=None, *, symbol=None):
    """Return what a file of labels holds, unchecked; one with another ending is read as parquet.

    Parameters
    ----------
    path : str or Path
    frame, symbol : optional
        See `label_studio.read_label_studio`.

    Raises
    ------
    UserError
        The file cannot be read.
    """
    path = Path(path)
    if path.suffix == ".csv":
        return read_csv(path)
    if path.suffix == ".json":
        return read_label_studio(path, frame, symbol=symbol)
    try:
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error


def write_table(table, path, frame=None):
    """Write a checked label table in the format of the ending, atomically; `read_frame` gives it back.

    Parameters
    ----------
    table : DataFrame
    path : str or Path
    frame : DataFrame, optional
        Bars, for JSON; see `label_studio.write_label_studio`.

    Raises
    ------
    UserError
        No format has this ending, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise UserError(f"the output {path} has no known ending; give a name that ends in {', '.join(ENDINGS)}")
    if path.suffix == ".json":
        write_label_studio(table, path, frame)
        return
    with replace_atomically(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)


def read_csv(path):
    """Read the columns of a label table from CSV, unchecked; empty cells are missing.

    Raises
    ------
    UserError
        The file is no CSV.
    """
    try:
        frame = pd.read_csv(path, dtype="str", keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # pandas' parser errors and bad UTF-8 are ValueErrors
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    if "seconds" in frame:
        frame["seconds"] = frame["seconds"].map(_exact_float, na_action="ignore")
    return frame


def _exact_float(text):
    """Return the number a text says, to the last bit; the text where it says none."""
    try:
        return float(text)
    except ValueError:
        return text
