"""One file as bars in UTC, and several files as consecutive pieces of one series."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.market import stamps as clock
from moola_lib.market.vendors import read_rows

CENTURIES = np.array(["1900", "2200"], "M8[ns]").astype(np.int64)


@dataclass
class Piece:
    """The rows of one file, or of several joined, with UTC stamps; not yet checked bar by bar.

    Attributes
    ----------
    frame : DataFrame
        Indexed by UTC `ts`; open high low close volume float64, `symbol`
        categorical, `instrument_id` int64 where given.
    source : str
        Name of the file, or of all.
    facts : dict of str to str
        layout, zone, mark and left-out columns, for the report.
    n_rows_in : int
        Rows in the files; those of other symbols are not in the frame.
    file : ndarray (n_rows,), int, or None
        Which of several files (position in `names`) each row is from.
    place : ndarray (n_rows,), int, or None
        Position of each row in its file, where it is not the frame's.
    names : tuple of str
        Names of several files.
    """

    frame: pd.DataFrame
    source: str
    facts: dict
    n_rows_in: int
    file: np.ndarray | None = None
    place: np.ndarray | None = None
    names: tuple = ()

    def where(self, row):
        """Say where a row of the frame stands: "row 7", or "b.csv row 7" if the files are several."""
        place = row if self.place is None else self.place[row]
        name = "" if self.file is None else f"{self.names[self.file[row]]} "
        return f"{name}row {place + 1}"


def read_piece(path, *, tz=None, stamp=None, symbol=None, scale=1.0):
    """Read one file; see `bars.load_bars` for the parameters.

    Returns
    -------
    Piece

    Raises
    ------
    UserError
        The file cannot be read, its bars are no minutes, its stamps are
        unsorted, what it leaves unsaid is not stated, or what is stated
        contradicts it.
    """
    path = Path(path)
    rows = read_rows(path)
    place, name, missing = _choose_symbol(rows, path, symbol)
    if name is not None and not (name.strip() and name.isprintable()):
        raise UserError(f"{path}: {name!r} is no name of a symbol; is the file damaged? Name the series with symbol")
    wall = rows.stamps if place is None else rows.stamps[place]
    _refuse_far(wall, path)
    clock.refuse_other_bar_length(wall, path)
    mark, mark_fact = _settle_mark(rows, wall, path, stamp)
    if mark is None:
        missing.append("nothing tells whether the stamps mark the start or the end of a bar: say which with stamp")
    zone, zone_fact = _settle_zone(rows, wall, path, tz, mark, name)
    if zone is None:
        first = pd.Timestamp(wall[0])
        missing.append(
            f"the stamps carry no time zone (first: {first}): say which with tz, for example America/Chicago"
        )
    if missing:
        raise UserError(f"{path}: {'; '.join(missing)}")
    instants = wall if rows.zone else clock.localise(wall, zone, path)
    _refuse_backward(instants, wall, path, place)
    if mark == "end":
        instants = instants - clock.MINUTE
    columns = {key: values if place is None else values[place] for key, values in rows.numbers.items()}
    if scale != 1:
        with np.errstate(over="ignore"):  # an infinite price is dropped and counted later
            columns |= {key: values * scale for key, values in columns.items() if key != "volume"}
    columns["symbol"] = pd.Categorical.from_codes(np.zeros(len(wall), np.int8), [name])
    if rows.instrument_id is not None:
        columns["instrument_id"] = rows.instrument_id if place is None else rows.instrument_id[place]
    index = pd.DatetimeIndex(instants.view("M8[ns]"), name="ts").tz_localize("UTC")
    facts = {"layout": rows.layout, "zone": zone_fact, "stamps mark": mark_fact}
    if scale != 1:
        facts["prices multiplied by"] = f"{scale:g}"
    if place is not None:
        facts["rows of other symbols (left out)"] = f"{len(rows) - len(place):,}"
    if rows.left_out:
        facts["columns left out"] = ", ".join(rows.left_out)
    return Piece(pd.DataFrame(columns, index=index, copy=False), path.name, facts, len(rows), place=place)


def join_pieces(pieces):
    """Join consecutive pieces of one series in time order.

    Rows of equal stamps in two files stay beside each other; whether they agree
    is judged with the other duplicates, among sound rows only.

    Returns
    -------
    Piece

    Raises
    ------
    UserError
        The pieces are of several symbols, or only some have instrument ids.
    """
    if len(pieces) == 1:
        return pieces[0]
    pieces = sorted(pieces, key=lambda piece: piece.frame.index[0])
    names = [str(piece.frame["symbol"].iloc[0]) for piece in pieces]
    odd = next((row for row, name in enumerate(names) if name != names[0]), None)
    if odd is not None:
        raise UserError(
            f"{pieces[0].source} holds {names[0]} and {pieces[odd].source} {names[odd]}; "
            "files are joined as pieces of one symbol: import them one by one"
        )
    columns = {frozenset(piece.frame.columns) for piece in pieces}
    if len(columns) > 1:
        raise UserError("some of the files have the column instrument_id and others do not; import them one by one")
    frame = pd.concat([piece.frame for piece in pieces])
    file = np.repeat(np.arange(len(pieces)), [len(piece.frame) for piece in pieces])
    place = np.concatenate([np.arange(len(p.frame)) if p.place is None else p.place for p in pieces])
    order = np.argsort(frame.index.asi8, kind="stable")
    if (np.diff(order) != 1).any():
        frame, file, place = frame.iloc[order], file[order], place[order]
    facts = {}
    for key in dict.fromkeys(key for piece in pieces for key in piece.facts):
        found = dict.fromkeys(piece.facts[key] for piece in pieces if key in piece.facts)
        facts[key] = "; ".join(found)
    files = tuple(piece.source for piece in pieces)
    return Piece(frame, ", ".join(files), facts, sum(piece.n_rows_in for piece in pieces), file, place, files)


def _choose_symbol(rows, path, symbol):
    """Return the chosen rows' positions (None: all), the symbol, and a list that says if it must be stated."""
    if not rows.symbols:
        missing = [] if symbol else ["the file has no column symbol: name the series with symbol"]
        return None, symbol, missing
    known = ", ".join(sorted(rows.symbols)[:5]) + (", …" if len(rows.symbols) > 5 else "")
    if symbol is None:
        if len(rows.symbols) > 1:
            raise UserError(f"{path} holds {len(rows.symbols)} symbols ({known}); choose one with symbol")
        return None, rows.symbols[0], []
    if symbol not in rows.symbols:
        raise UserError(f"{path} holds no bars of {symbol!r}; it holds {known}")
    if rows.codes is None:
        return None, symbol, []
    place = np.flatnonzero(rows.codes == rows.symbols.index(symbol))
    if not len(place):
        raise UserError(f"{path} holds no bars of {symbol!r}")
    return place, symbol, []


def _settle_mark(rows, wall, path, stated):
    """Return "start", "end" or None (must be asked), and how it is known."""
    if rows.is_mark_certain:
        if stated == "end":
            raise UserError(f"{path}: Databento stamps the start of a bar; leave stamp out")
        return "start", "start (by the vendor's definition)"
    proven, evidence = clock.prove_mark(wall)
    if stated and proven not in (None, stated):
        raise UserError(
            f"{path}: stamp={stated!r} contradicts the stamps, which mark the {proven} of a bar ({evidence}); "
            f"leave stamp out, or say {proven!r}"
        )
    if rows.is_ours and not stated:  # a series once imported must not move when it is read again
        doubt = f"; but {evidence} speak for the end" if proven == "end" else ""
        return "start", f"start (as everywhere in Moola{doubt})"
    mark = stated or proven or rows.mark
    if proven:
        return mark, f"{mark} (proven: {evidence})"
    return mark, f"{mark} ({'stated' if stated else 'the custom of this layout'})"


def _settle_zone(rows, wall, path, stated, mark, symbol):
    """Return the zone or None (must be asked), and how it is known."""
    if stated is not None:
        clock.check_zone(stated)
    if rows.zone:
        if stated is not None and rows.offset is not None and not clock.same_offset(stated, wall[0], rows.offset):
            raise UserError(
                f"{path}: tz={stated!r} contradicts the stamps, which carry their own zone ({rows.zone}); leave tz out"
            )
        return rows.zone, f"carried by the stamps: {rows.zone}"
    starts = wall - clock.MINUTE if mark == "end" else wall
    proven, evidence = clock.prove_zone(starts, symbol) if mark else (None, "")
    if stated is None:
        return proven, f"{proven} (proven: {evidence})"
    if proven is None:
        return stated, f"{stated} (stated)"
    if (clock.localise(wall, stated, path) != clock.localise(wall, proven, path)).any():
        raise UserError(
            f"{path}: tz={stated!r} contradicts the stamps, which are in {proven} ({evidence}); "
            "leave tz out, or correct it"
        )
    return stated, f"{stated} (stated; {evidence})"


def _refuse_far(wall, path):
    """Refuse stamps of centuries without such markets; near the ends of the calendar no zone can be applied."""
    for row in (int(wall.argmin()), int(wall.argmax())):
        if not CENTURIES[0] <= wall[row] < CENTURIES[1]:
            stamp = np.datetime64(int(wall[row]), "ns")
            raise UserError(f"{path}: the stamp {stamp} cannot be that of a bar (1900 to 2200); mend the file")


def _refuse_backward(instants, wall, path, place):
    """Refuse stamps that go backwards."""
    steps = np.diff(instants)
    if len(steps) and steps.min() < 0:
        row = int((steps < 0).argmax()) + 1
        number = row if place is None else int(place[row])
        raise UserError(
            f"{path}: the stamps are not sorted: row {number + 1} ({pd.Timestamp(wall[row])}) comes after "
            f"{pd.Timestamp(wall[row - 1])}; sort the file by time"
        )
