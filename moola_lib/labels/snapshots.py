"""Label tables as they were trained on: kept under their fingerprint, and what changed in one since."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from moola_lib.errors import UserError
from moola_lib.files import fingerprint
from moola_lib.labels.table import REQUIRED, save_labels


@dataclass(frozen=True)
class LabelChange:
    """How one label table differs from another, in windows.

    Attributes
    ----------
    added, removed : int
        Windows that only the newer, only the older table has.
    changed : int
        Windows of both whose stamp, spans or states differ.
    """

    added: int
    removed: int
    changed: int

    def __str__(self):
        return f"+{self.added} −{self.removed} ~{self.changed} windows"


def fingerprint_labels(table):
    """Return 16 hexadecimal digits that change when what a model learns from does.

    Parameters
    ----------
    table : DataFrame
        A checked label table. The order of its rows does not count, nor who
        labelled them when, how long it took, and in which tool.

    Returns
    -------
    str
    """
    return fingerprint("\n".join(sorted(line for lines in _lines_by_window(table).values() for line in lines)))


def snapshot_labels(table, folder):
    """Keep a label table as it is now, once per content.

    Parameters
    ----------
    table : DataFrame
        A checked label table.
    folder : str or Path
        The table goes to `<fingerprint>.parquet` in it. One that is there is left as it is.

    Returns
    -------
    dict
        `fingerprint`, `n_windows`, `by_state` (rows of each label), `is_proposed`:
        what the card of a model says of its labels.

    Raises
    ------
    UserError
        The file that is there holds other labels, or the folder cannot be written.
    """
    found = fingerprint_labels(table)
    path = snapshot_path(folder, found)
    if path.exists():
        read_snapshot(folder, found)
    else:
        save_labels(table, path)
        path.chmod(0o444)
    return {
        "fingerprint": found,
        "n_windows": int(table["window_id"].nunique()),
        "by_state": {state: int(count) for state, count in sorted(table["label"].value_counts().items())},
        "is_proposed": bool(table["source"].fillna("").str.startswith("proposal").any()),
    }


def snapshot_path(folder, fingerprint):
    """Return where the snapshot with this fingerprint lies."""
    return Path(folder) / f"{fingerprint}.parquet"


def read_snapshot(folder, fingerprint):
    """Read a kept label table.

    Raises
    ------
    UserError
        It is missing, damaged, or holds other labels than its name says.
    """
    path = snapshot_path(folder, fingerprint)
    if not path.exists():
        raise UserError(f"the label snapshot {path} does not exist")
    try:
        table = pd.read_parquet(path)
        is_same = fingerprint_labels(table) == fingerprint
    except (ValueError, OSError, KeyError) as error:
        raise UserError(f"the label snapshot {path} cannot be read ({error}); restore or delete it") from error
    if not is_same:
        raise UserError(f"the label snapshot {path} holds other labels than its name says; restore or delete it")
    return table


def compare_labels(older, newer):
    """Count the windows in which two label tables differ.

    Parameters
    ----------
    older, newer : DataFrame
        Checked label tables.

    Returns
    -------
    LabelChange
    """
    before, after = _lines_by_window(older), _lines_by_window(newer)
    shared = before.keys() & after.keys()
    changed = sum(sorted(before[each]) != sorted(after[each]) for each in shared)
    return LabelChange(len(after) - len(shared), len(before) - len(shared), changed)


def _lines_by_window(table):
    """Return each window's rows as text, of the columns a model learns from."""
    lines = {}
    stamps = table["window_start"].dt.as_unit("ns").astype("int64")
    for row in table[REQUIRED].assign(window_start=stamps).itertuples(index=False):
        span = ["" if pd.isna(bar) else str(int(bar)) for bar in (row.expansion_start, row.expansion_end)]
        line = "|".join([str(row.window_id), str(row.symbol), str(row.window_start), *span, row.label])
        lines.setdefault(row.window_id, []).append(line)
    return lines
