"""One series of one-minute bars: load it, drop what cannot be a bar, and say what was dropped."""

import os
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.files import fingerprint, replace_atomically
from moola_lib.market.pieces import Piece, join_pieces, read_piece
from moola_lib.market.rows import NUMBERS as COLUMNS
from moola_lib.market.rows import PRICES as PRICES  # other rooms know the prices from here
from moola_lib.market.soundness import is_sound, judge_rows
from moola_lib.market.stamps import refuse_other_bar_length
from moola_lib.market.ticks import count_off_tick, find_tick

MAX_INDEX_PRICE = 1e6  # fixed-point files hold prices times 1e9
MIN_INDEX_PRICE = 10.0  # the features' epsilon is absolute and assumes index-sized prices
SAMPLE_BARS = 10_000  # enough for a median and a tick size


@dataclass(frozen=True)
class Bars:
    """One series of one-minute bars.

    Attributes
    ----------
    frame : DataFrame
        Index `ts`: UTC, the START of each bar, strictly increasing. Columns
        `open high low close` (points) and `volume` (contracts), float64, and
        `symbol`; `instrument_id` (int64) where the vendor gives it. A loaded
        frame is read-only: copy it before you edit it.
    report : DataFrame
        One row per fact of the import (`fact`, `value`): source and layout,
        rows in, each reason for dropping with its count and first example,
        rows out, zone, what the stamps mark, range, tick size.
    """

    frame: pd.DataFrame
    report: pd.DataFrame

    def __len__(self):
        return len(self.frame)

    @property
    def symbol(self):
        """The series' symbol."""
        return str(self.frame["symbol"].iloc[0])

    @property
    def fingerprint(self):
        """16 hexadecimal digits that change when any stamp, price, volume or instrument id does."""
        stamps = self.frame.index.as_unit("ns").asi8
        has_ids = "instrument_id" in self.frame.columns  # they decide where segments begin
        ids = [self.frame["instrument_id"].to_numpy(np.int64)] if has_ids else []
        return fingerprint(stamps, self.frame[COLUMNS].to_numpy(np.float64), *ids)


def load_bars(path, *, tz=None, stamp=None, symbol=None, scale=1.0, drop_budget=0.005):
    """Read bars from the files of any vendor that `vendors` knows.

    Parameters
    ----------
    path : str, Path, or list of them
        Parquet, CSV (plain, gzip or zstandard) or Databento's DBN, recognised
        by content. Several files are consecutive pieces of one series: joined
        in time order; where they overlap they must agree.
    tz : str, optional
        Zone of naive stamps, for example "America/Chicago". Needed unless the
        stamps carry a zone or the daily breaks of a CME index future prove it.
    stamp : {"start", "end"}, optional
        What the stamps mark; "end" moves them back one minute. Default: what
        recurring closings prove, or else "start" (headerless semicolon files,
        whose vendors differ, must state it).
    symbol : str, optional
        Which symbol to read where the file holds several; the name to give
        where it holds none.
    scale : float
        Factor for prices that are not index-sized (for example 10000 for a
        currency pair).
    drop_budget : float
        Share of rows (fraction) that may be dropped before the file is refused.

    Returns
    -------
    Bars
        Stamps in nanoseconds; `symbol` is categorical.

    Raises
    ------
    UserError
        The file is missing, empty, damaged or of another kind; what it leaves
        unsaid is not stated, or contradicts what it shows; files disagree; or
        more rows than the budget are not valid bars.
    """
    if stamp not in (None, "start", "end"):
        raise UserError(f"stamp={stamp!r} is not known; use 'start' or 'end'")
    if not 0 < scale < np.inf:
        raise UserError(f"scale={scale!r} is not a factor; give a number above 0")
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    if not paths:
        raise UserError("no file is given; name at least one file with bars")
    pieces = [read_piece(each, tz=tz, stamp=stamp, symbol=symbol, scale=scale) for each in paths]
    return _keep_sound(join_pieces(pieces), drop_budget)


def clean_bars(frame, *, source, drop_budget=0.005):
    """Drop rows that cannot be bars, within a budget, and report each reason.

    Parameters
    ----------
    frame : DataFrame
        Indexed by UTC `ts`, with float64 prices and volume, and `symbol`.
    source : str
        Where the rows come from; named in errors and in the report.
    drop_budget : float
        Largest fraction of rows that may be dropped.

    Returns
    -------
    Bars

    Raises
    ------
    UserError
        The budget is exceeded, nothing is left, the stamps are unsorted, or the
        series is not one-minute bars of index-sized prices.
    """
    stamps = frame.index.as_unit("ns").asi8
    is_back = np.diff(stamps) < 0
    if is_back.any():
        row = int(is_back.argmax()) + 1
        raise UserError(
            f"{source}: the stamps are not sorted: row {row + 1} ({frame.index[row]}) comes before row {row} "
            f"({frame.index[row - 1]}); sort the file by time"
        )
    refuse_other_bar_length(stamps, source)
    return _keep_sound(Piece(frame, source, {}, len(frame)), drop_budget)


def _keep_sound(piece, drop_budget):
    """Return the sound rows of a piece as Bars, with the report."""
    if not 0 <= drop_budget <= 1:
        raise UserError(f"drop_budget={drop_budget!r} is not a share of rows; give a fraction from 0 to 1")
    frame = piece.frame
    stamps = frame.index.as_unit("ns").asi8
    series = [frame[name].to_numpy() for name in COLUMNS]
    other = "rows of other symbols (left out)"
    facts = {"source": piece.source, "layout": piece.facts.get("layout"), "rows in": f"{piece.n_rows_in:,}"}
    facts[other] = piece.facts.get(other)
    steps = np.diff(stamps)
    is_good = is_sound(stamps, steps, series)
    if not is_good.all() or (steps == 0).any():
        is_kept, dropped = judge_rows(piece, stamps, series, is_good, drop_budget)
        facts |= dropped
        frame, series = frame.loc[is_kept], [values[is_kept] for values in series]
    if frame.empty:
        raise UserError(f"{piece.source} holds no rows; give one-minute bars")
    _check_size(series[3], piece.source, piece.facts.get("prices multiplied by"))
    facts |= {"rows out": f"{len(frame):,}"} | piece.facts | _describe(frame, series)
    rows = [(fact, value) for fact, value in facts.items() if value is not None]
    return Bars(frame, pd.DataFrame(rows, columns=["fact", "value"]))


def _check_size(close, source, scale):
    """Refuse prices that are not index-sized: the features' epsilon is absolute."""
    price = float(np.median(close[:: len(close) // SAMPLE_BARS + 1]))
    prices = f"prices around {price:.4g}" + (f" (after scale {scale})" if scale else "")
    if price > MAX_INDEX_PRICE:
        raise UserError(
            f"{source}: {prices} are no index prices; are they in other units, such as 1e-9? "
            "Give the factor with scale, or correct it"
        )
    if price < MIN_INDEX_PRICE:
        raise UserError(
            f"{source}: {prices} are not index-sized (features assume at least {MIN_INDEX_PRICE:g}); "
            "multiply them by a stated factor with scale, or correct it"
        )


def _describe(frame, series):
    """Return the facts of the bars that are kept."""
    sample = slice(None, None, len(frame) // SAMPLE_BARS + 1)
    tick = find_tick(np.concatenate([prices[sample] for prices in series[:4]]))
    is_quiet = series[4] == 0
    n_quiet = np.count_nonzero(is_quiet)
    facts = {
        "symbol": str(frame["symbol"].iloc[0]),
        "first bar (UTC)": str(frame.index[0]),
        "last bar (UTC)": str(frame.index[-1]),
        "tick size (points)": "none found" if tick is None else f"{tick:g}",
    }
    if tick is not None:
        n_off = sum(count_off_tick(prices, tick) for prices in series[:4])
        facts["prices off the tick"] = f"{n_off:,} of {4 * len(frame):,}"
    example = f" (first: {frame.index[int(is_quiet.argmax())]})" if n_quiet else ""
    facts["bars with volume 0 (kept)"] = f"{n_quiet:,}{example}"
    if is_quiet[-1] and 2 * n_quiet < len(frame) and series[1][-1] > series[2][-1]:
        facts["last bar may be unfinished (kept)"] = "its volume is 0 though its price moved"
    return facts


def save_bars(bars, path):
    """Write a series as parquet, atomically; `load_bars` reads it back unchanged.

    The symbol is stored as one word and a column of zeros; lz4 reads fastest.
    """
    frame = bars.frame.astype({"symbol": "category"})
    with replace_atomically(path) as temporary:
        frame.to_parquet(temporary, compression="lz4")
