"""`moola features --verify`: is a stored feature table what it says it is?"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.features.sets import WARM_UP_BARS, describe_set
from moola_lib.features.table import ARRAYS, FeatureTable, build_features
from moola_lib.files import fingerprint, read_json
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.bars import Bars, load_bars
from moola_lib.runs.tables_by_month import MANIFEST, read_manifest
from moola_lib.runs.terminal import open_console, say_count
from moola_lib.windows.places import window_places

LEAST_VALID = 0.8
LEAST_NON_ZERO = 0.5
CHUNK_BARS = 100_000  # rows of a memory-mapped table looked at together


def verify_table(folder, *, source=None, reading=None):
    """Judge a stored table against its metadata, its set and its bars.

    Parameters
    ----------
    folder : str or Path
        Of `FeatureTable.save` or `moola features`.
    source : str or Path, optional
        The file with the bars it was made from; of a month's table, the whole series.
    reading : dict, optional
        Arguments of `load_bars` for that file; the symbol of a month's table is known.

    Returns
    -------
    DataFrame
        `check`, `value`, `target`, `verdict`: PASS, FAIL, or – where the check
        does not apply, with the reason as its value.

    Raises
    ------
    UserError
        The folder holds no table, a file of it cannot be read or does not go
        with the others, or the bars cannot be read.
    """
    folder = Path(folder)
    table, card, described = _read_table(folder)
    bars, own_rows = _read_bars(source, reading or {}, card, folder) if source is not None else (None, None)
    facts = _measure(table, described["ranges"])
    rows = [
        *_check_arrays(folder, card),
        *_check_layout(table, described),
        *_check_values(table, facts, described),
        *_check_segments(table, facts, card),
        *_check_splits(folder, table.starts, len(table)),
        *_check_bars(table, card["bars_fingerprint"], bars, own_rows),
    ]
    verdicts = {True: "PASS", False: "FAIL", None: "–"}
    rows = [(*row[:3], verdicts[None if row[3] is None else bool(row[3])]) for row in rows]
    return pd.DataFrame(rows, columns=["check", "value", "target", "verdict"])


def verify_folder(folder, *, source=None, reading=None):
    """Judge the table in a folder, or each month of each instrument where it holds a manifest.

    Returns
    -------
    dict of str to DataFrame
        Place of a table to its checks, as of `verify_table`.

    Raises
    ------
    UserError
        A table or the manifest cannot be read, or bars are given for a folder of many tables.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        return {str(folder): verify_table(folder, source=source, reading=reading)}
    instruments = read_manifest(folder)["instruments"]
    places = [f"{name}/{month}" for name, entry in instruments.items() for month in entry["months"]]
    if source is not None:
        raise UserError(
            f"--bars goes with a single table, and {folder} holds one a month; verify a month's folder with its bars"
            + (f", such as {folder / places[0]}" if places else "")
        )
    return {place: verify_table(folder / place) for place in places}


def print_checks(checks, stream=None):
    """Print the checks of `verify_folder` as a table; of several tables, what failed and one line each.

    Parameters
    ----------
    checks : dict of str to DataFrame
    stream : file, optional
        Default standard output.
    """
    from rich.table import Table
    from rich.text import Text

    console = open_console(stream)
    colours = {"PASS": "green", "FAIL": "bold red"}
    for place, frame in checks.items():
        is_failed = frame["verdict"] == "FAIL"
        if len(checks) == 1 or is_failed.any():
            table = Table(title=place, title_justify="left", title_style="bold", header_style="bold")
            for name in frame.columns:
                table.add_column(name)
            for row in frame.itertuples(index=False):
                table.add_row(*map(Text, row[:3]), Text(row.verdict, colours.get(row.verdict, "")))
            console.print(table)
        else:
            console.print(f"{place}: {say_count((frame['verdict'] == 'PASS').sum(), 'check')} PASS", markup=False)


def _read_table(folder):
    """Return a table, its metadata, and what its options describe; refuse what cannot be compared."""
    advice = "give the folder that moola features wrote (its -o), or that of one month"
    if not folder.exists():
        raise UserError(f"{folder} does not exist; {advice}")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, not a feature table; {advice}")
    if not (folder / "metadata.json").exists():
        raise UserError(f"{folder} holds no feature table (there is no metadata.json); {advice}")
    table = FeatureTable.load(folder)
    try:
        described = describe_set(**table.options)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(
            f"{folder / 'metadata.json'} does not describe a feature table ({error}); build the features again"
        ) from error
    return table, read_json(folder / "metadata.json"), described


def _read_bars(source, reading, card, folder):
    """Return the bars of a file, and which rows of them the table is of: its month's, or all."""
    if "month" not in card:
        bars = load_bars(source, **reading)
        return bars, slice(0, len(bars))
    try:
        symbol, edges = str(card["symbol"]), pd.DatetimeIndex([card["first_bar"], card["last_bar"]], tz="UTC")
        if edges.hasnans:
            raise ValueError("no first or last bar")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / 'metadata.json'} does not say which bars it is of ({error!r}); build the features again"
        ) from error
    bars = load_bars(source, **{"symbol": symbol, **reading})
    first, last = bars.frame.index.searchsorted(edges)
    return bars, slice(int(first), int(last) + 1)


def _measure(table, ranges):
    """Look at every value once, some rows at a time."""
    values, is_valid = table.values, table.is_valid
    low, high = ranges.T.astype(np.float32)
    n_not_finite = n_outside = 0
    n_non_zero = np.zeros(values.shape[1], np.int64)
    for first in range(0, len(values), CHUNK_BARS):
        part = np.asarray(values[first : first + CHUNK_BARS])
        n_not_finite += int((~np.isfinite(part)).sum())
        n_non_zero += np.count_nonzero(part[is_valid[first : first + CHUNK_BARS]], axis=0)
        if part.shape[1] == len(low):
            n_outside += int(((part < low) | (part > high)).sum())
    n_valid = int(np.count_nonzero(is_valid))
    return {
        "valid_share": n_valid / max(len(values), 1),
        "non_zero_shares": n_non_zero / max(n_valid, 1),
        "n_not_finite": n_not_finite,
        "n_outside": n_outside,
    }


def _check_arrays(folder, card):
    """Yield the check that the arrays' files are those that were written."""
    if "array_fingerprints" not in card:
        yield "arrays", "written by an earlier version", "as they were written", None
        return
    recorded = card["array_fingerprints"]
    found = {name: fingerprint(folder / f"{name}.npy") for name in ARRAYS}
    changed = [name for name in ARRAYS if not isinstance(recorded, dict) or recorded.get(name) != found[name]]
    value = f"changed: {', '.join(changed)}" if changed else "as they were written"
    yield "arrays", value, "as they were written", not changed


def _check_layout(table, described):
    """Yield the checks of shape, names, set and version."""
    values, shape = table.values, (len(table), len(described["names"]))
    is_met = values.shape == shape and values.dtype == np.float32
    yield "shape", f"{values.shape} {values.dtype}", f"{shape} float32", is_met
    is_met = table.names == described["names"]
    found = say_count(len(table.names), "name")
    yield "names", found, f"the {len(described['names'])} of {described['set_id']}", is_met
    if described["options"]["feature_set"] == "relativity11":
        is_met = "expansion_proxy" in table.names
        yield "expansion_proxy", "present" if is_met else "absent", "present", is_met
    else:
        yield "expansion_proxy", f"{described['options']['feature_set']} has none", "present", None
    found = f"{table.set_id}, version {table.version}"
    expected = f"{described['set_id']}, version {described['version']}"
    yield "set and version", found, expected, found == expected


def _check_values(table, facts, described):
    """Yield the checks of validity, density, ranges and finiteness."""
    yield (
        "valid rows",
        f"{facts['valid_share']:.2%}",
        f"at least {LEAST_VALID:.0%}",
        facts["valid_share"] >= LEAST_VALID,
    )
    shares = facts["non_zero_shares"]
    pairs = zip(shares, table.names, strict=True)
    least, name = min(pairs, key=lambda pair: pair[0], default=(0.0, "no column"))
    value = f"least: {name} {least:.1%}" + (f" (mean {shares.mean():.1%})" if len(shares) else "")
    yield "values not 0", value, f"every column above {LEAST_NON_ZERO:.0%}", least > LEAST_NON_ZERO
    yield "finite", f"{say_count(facts['n_not_finite'], 'value')} not", "0", facts["n_not_finite"] == 0
    is_same = np.array_equal(table.ranges, described["ranges"])
    yield "ranges", f"{say_count(facts['n_outside'], 'value')} outside", "0", is_same and facts["n_outside"] == 0


def _check_segments(table, facts, card):
    """Yield the checks of warm-up rows, and of metadata against arrays."""
    starts, n_bars = table.starts, len(table)
    if _are_in_order(starts, n_bars):
        age = np.arange(n_bars) - np.repeat(starts, np.diff(starts, append=n_bars))
        n_wrong = int((table.is_valid != (age >= WARM_UP_BARS)).sum())
        value = f"wrong in {say_count(n_wrong, 'bar')}"
        yield "first rows of segments", value, f"the first {WARM_UP_BARS} not valid", n_wrong == 0
    else:
        yield "first rows of segments", "starts are not in order", f"the first {WARM_UP_BARS} not valid", False
    recorded = ("n_segments", "valid_share", "non_zero_shares")
    if any(card.get(name) is None for name in recorded):
        yield "metadata", "written by an earlier version", ", ".join(recorded), None
        return
    ours = [len(starts), facts["valid_share"], facts["non_zero_shares"].tolist()]
    is_same = ours == [card[name] for name in recorded]
    yield "metadata", "agrees" if is_same else "differs", ", ".join(recorded) + " of the arrays", is_same


def _are_in_order(starts, n_bars):
    """Tell whether first bars of segments can be such."""
    return len(starts) > 0 and starts[0] == 0 and bool((np.diff(starts) > 0).all()) and starts[-1] < n_bars


def _check_splits(folder, starts, n_bars):
    """Yield the checks of `splits.json`: no overlap, the embargo kept, the counts right."""
    if not (folder / "splits.json").exists():
        yield "splits", "there is no splits.json", "no overlap, embargo kept", None
        return
    splits = read_json(folder / "splits.json")
    try:
        window_bars, embargo = int(splits["window_bars"]), max(int(splits["embargo_bars"]), WINDOW_BARS)
        edges = [(int(part["first_place"]), int(part["last_place"]) + window_bars) for part in splits["parts"]]
        counts = {str(part["part"]): int(part["n_windows"]) for part in splits["parts"]}
        least = min(after[0] - before[1] for before, after in itertools.pairwise(edges))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'splits.json'} cannot be read ({error!r}); build the features again") from error
    distance = f"least distance {say_count(least, 'bar')}"
    yield "splits do not overlap", distance, "at least 0", least >= 0
    yield "splits keep the embargo", distance, f"at least {embargo}", least >= embargo
    if not _are_in_order(starts, n_bars):
        yield "windows in splits", "starts are not in order", "those of the segments", False
        return
    places, _ = window_places(starts, n_bars, window_bars=window_bars)
    found = [int(((places >= low) & (places + window_bars <= high)).sum()) for low, high in edges]
    value = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    yield "windows in splits", value, ", ".join(f"{count:,}" for count in found), found == list(counts.values())


def _check_bars(table, made_from, bars, rows):
    """Yield the checks against the bars: their fingerprint, and the same values from them."""
    if bars is None:
        yield "bars", "not compared: give them with --bars", made_from, None
        return
    found = Bars(bars.frame.iloc[rows], bars.report).fingerprint
    is_same = found == made_from
    yield "bars", found, made_from, is_same
    if not is_same:
        yield "values from the bars", "other bars", "the same to the bit", None
        return
    again = build_features(bars, **table.options).values[rows]  # of all bars, as a month's were
    is_equal = again.shape == table.values.shape
    n_differ = int((again != table.values).any(axis=1).sum()) if is_equal else len(again)
    yield "values from the bars", f"{say_count(n_differ, 'row')} not the same", "the same to the bit", n_differ == 0
