"""What `moola features` writes for one series: its feature table and the split of its windows.

The folder holds arrays and JSON, not the bars: training reads those from their
own file, whose fingerprint the table names.
"""

from pathlib import Path

import numpy as np

from moola_lib.errors import UserError
from moola_lib.features.sets import describe_set
from moola_lib.features.table import build_features
from moola_lib.files import replace_folder_atomically, write_json
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.bars import load_bars
from moola_lib.runs.terminal import say_count
from moola_lib.windows.places import window_places
from moola_lib.windows.splits import split_by_time

MAX_EMBARGO_BARS = 100_000  # as in the notebooks' parameters


def write_table(source, folder, *, reading=None, options=None, splitting=None, overwrite=False):
    """Featurise one series and write the table's folder, whole or not at all.

    Parameters
    ----------
    source : str or Path
        A file that `load_bars` reads.
    folder : str or Path
        Written: the files of `FeatureTable.save`, and `splits.json` with the
        windows of each part (at stride 1).
    reading, options, splitting : dict, optional
        Arguments of `load_bars`, `build_features` and `split_by_time`
        (fractions, dates, embargo_bars: 105, a window's, to 100,000).
    overwrite : bool
        Replace a table that is there.

    Returns
    -------
    dict
        `set_id`, `n_bars`, `n_segments`, `valid_share`, and `n_windows` by part.

    Raises
    ------
    UserError
        The folder exists, the bars cannot be read, an option is wrong, or a
        part of the split would hold no window.
    """
    source, folder = Path(source), Path(folder)
    options, splitting = options or {}, {**split_by_time.__kwdefaults__, **(splitting or {})}
    describe_set(**options)  # a wrong option is said before the bars are read
    _check_splitting(splitting["dates"], splitting["embargo_bars"])
    check_free(folder, overwrite)
    bars = load_bars(source, **(reading or {}))
    table = build_features(bars, **options)
    places, n_lost = window_places(table.starts, len(table))
    split = split_by_time(places, bars.frame.index, **splitting)
    parts = [
        {**part, "first_place": getattr(split, part["part"])[0], "last_place": getattr(split, part["part"])[-1]}
        for part in split.table.to_dict("records")
    ]
    with replace_folder_atomically(folder) as temporary:
        table.save(temporary, bars_fingerprint=bars.fingerprint, **describe_origin(source, bars.frame))
        counts = {"n_windows": len(places), "n_windows_lost_to_segments": n_lost}
        rule = {**splitting, "fractions": splitting["fractions"] if splitting["dates"] is None else None}
        write_json(temporary / "splits.json", {**rule, **counts, "parts": parts})
    return {
        "set_id": table.set_id,
        "n_bars": len(table),
        "n_segments": len(table.starts),
        "valid_share": float(table.is_valid.mean()),
        "n_windows": {part["part"]: part["n_windows"] for part in parts},
    }


def print_table_made(folder, made):
    """Say in two lines what `write_table` wrote."""
    print(
        f"{folder}: {say_count(made['n_bars'], 'bar')} in {say_count(made['n_segments'], 'segment')}, "
        f"{made['valid_share']:.1%} of rows valid ({made['set_id']})"
    )
    print("windows: " + ", ".join(f"{part} {count:,}" for part, count in made["n_windows"].items()))


def describe_origin(source, frame):
    """Return what `metadata.json` says of the bars: file name, symbol, first and last stamp."""
    return {
        "source": Path(source).name,
        "symbol": str(frame["symbol"].iloc[0]),
        "first_bar": frame.index[0],
        "last_bar": frame.index[-1],
    }


def check_free(folder, overwrite):
    """Refuse a folder that is in use, or that holds something else than a table.

    Raises
    ------
    UserError
    """
    if not folder.exists():
        return
    if not overwrite:
        raise UserError(f"{folder} exists already; choose another folder, or replace the table with --overwrite")
    is_table = (folder / "metadata.json").is_file() and (folder / "values.npy").is_file()
    if folder.is_dir() and not is_table and any(folder.iterdir()):
        raise UserError(f"{folder} holds no feature table, so it is not replaced; choose another folder")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another folder")


def _check_splitting(dates, embargo_bars):
    """Refuse dates and an embargo that cannot be meant; `split_by_time` checks the rest."""
    if not WINDOW_BARS <= embargo_bars <= MAX_EMBARGO_BARS:
        raise UserError(
            f"embargo of {embargo_bars} bars is not allowed; give at least {WINDOW_BARS} (a window's), at most "
            f"{MAX_EMBARGO_BARS:,}"
        )
    if dates is None:
        return
    try:
        train_end, val_end = np.array(dates, "datetime64[D]")
    except ValueError as error:
        raise UserError(
            f"split dates {', '.join(map(str, dates))} cannot be read; give two as 2024-12-31 2025-03-31"
        ) from error
    if not train_end < val_end:
        raise UserError(f"split dates {dates[0]} and {dates[1]} are not in order; give the end of training first")
