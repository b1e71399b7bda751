"""Which rows can be bars: every reason against one, counted with its first example, within a budget."""

import numpy as np

from moola_lib.errors import UserError
from moola_lib.market.rows import NUMBERS
from moola_lib.market.stamps import MINUTE


def is_sound(stamps, steps, series):
    """Tell which rows can be bars.

    Parameters
    ----------
    stamps : ndarray (n_rows,), int64
        Nanoseconds.
    steps : ndarray (n_rows - 1,), int64
        Between the stamps.
    series : list of ndarray (n_rows,), float64
        open, high, low, close, volume.

    Returns
    -------
    ndarray (n_rows,), bool
    """
    open_, high, low, close, volume = series
    is_good = low > 0  # a comparison with NaN is false
    for condition in (low <= open_, low <= close, high >= open_, high >= close, high < np.inf):
        is_good &= condition
    is_good &= (volume >= 0) & (volume < np.inf)
    # if the unusual steps are whole minutes, all stamps are
    if (stamps[:1] % MINUTE).any() or (steps[steps != MINUTE] % MINUTE).any():
        is_good &= stamps % MINUTE == 0
    return is_good


def judge_rows(piece, stamps, series, is_good, drop_budget):
    """Decide which rows stay.

    Parameters
    ----------
    piece : Piece
    stamps, series
        Of the piece, as in `is_sound`.
    is_good : ndarray (n_rows,), bool
        Answer of `is_sound`; among the good rows doubles are looked for.
    drop_budget : float
        Largest fraction of rows that may be dropped.

    Returns
    -------
    is_kept : ndarray (n_rows,), bool
    facts : dict of str to str
        Each reason why rows were dropped, with their count and the first.

    Raises
    ------
    UserError
        The budget is exceeded, no row is left, files disagree, or instruments
        share a stamp.
    """
    open_, high, low, close, volume = series
    prices = np.column_stack([open_, high, low, close])
    reasons = {
        "missing value": ~(np.isfinite(prices).all(axis=1) & np.isfinite(volume)),
        "price not above 0": (prices <= 0).any(axis=1),
        "volume below 0": volume < 0,
        "high below low": high < low,
        "open or close outside low..high": (high < np.maximum(open_, close)) | (low > np.minimum(open_, close)),
        "stamp between two minutes (a partial bar)": stamps % MINUTE != 0,
    }
    double, first = _find_doubles(stamps, np.flatnonzero(is_good))  # a bad row is no reason to drop a sound one
    is_same = np.logical_and.reduce([values[double] == values[first] for values in series])
    _refuse_interleaved(piece, double, first)
    is_shared = np.zeros(len(double), bool)
    if piece.file is not None:
        is_shared = piece.file[double] != piece.file[first]
        _refuse_disagreement(piece, double[is_shared & ~is_same], first[is_shared & ~is_same], series)
    for reason, is_chosen in {
        "identical duplicate": is_same & ~is_shared,
        "same stamp, other values (the first is kept)": ~is_same,
        "shared": is_shared & is_same,
    }.items():
        reasons[reason] = np.zeros(len(stamps), bool)
        reasons[reason][double[is_chosen]] = True
    is_kept = np.ones(len(stamps), bool)
    is_shared = reasons.pop("shared")
    facts = {}
    for reason, is_bad in reasons.items():
        _add_fact(facts, f"dropped: {reason}", piece, is_bad & is_kept)
        is_kept &= ~is_bad
    n_dropped, n_rows = np.count_nonzero(~is_kept), len(stamps) - np.count_nonzero(is_shared)
    if n_dropped > drop_budget * n_rows:
        counts = "; ".join(f"{fact.removeprefix('dropped: ')}: {text}" for fact, text in facts.items())
        raise UserError(
            f"{piece.source}: {n_dropped:,} of {n_rows:,} rows ({n_dropped / n_rows:.1%}) are not valid bars, more "
            f"than the budget of {drop_budget:.1%} ({counts}); mend the file or raise drop_budget"
        )
    _add_fact(facts, "rows that two files share (kept once)", piece, is_shared)
    is_kept &= ~is_shared
    if not is_kept.any():
        raise UserError(f"{piece.source}: no valid bar is left of {len(stamps):,} rows")
    return is_kept, facts


def _add_fact(facts, name, piece, is_chosen):
    """Count chosen rows, if any, and show the first."""
    if is_chosen.any():
        row = int(is_chosen.argmax())
        stamp = piece.frame.index[row]
        facts[name] = f"{np.count_nonzero(is_chosen):,} (first: {piece.where(row)}, {stamp})"


def _find_doubles(stamps, rows):
    """Return the rows whose stamp an earlier one of `rows` has, and that earlier one, as two arrays of positions."""
    is_double = np.r_[False, np.diff(stamps[rows]) == 0] if len(rows) else np.zeros(0, bool)
    first = np.maximum.accumulate(np.where(is_double, 0, np.arange(len(rows))))
    return rows[is_double], rows[first[is_double]]


def _refuse_interleaved(piece, double, first):
    """Refuse rows of one stamp that are of different instruments: no order makes one series of them."""
    if "instrument_id" not in piece.frame.columns:
        return
    ids = piece.frame["instrument_id"].to_numpy()
    at = np.flatnonzero(ids[double] != ids[first])
    if len(at):
        row, other = double[at[0]], first[at[0]]
        raise UserError(
            f"{piece.source} holds several instruments at the same stamps (ids {ids[other]} and {ids[row]} at "
            f"{piece.frame.index[row]}); export one at a time, or with symbols to choose from"
        )


def _refuse_disagreement(piece, double, first, series):
    """Refuse files that give different bars for one stamp."""
    if len(double):
        row, other = double[0], first[0]
        column = next(name for name, v in zip(NUMBERS, series, strict=True) if v[row] != v[other])
        values = piece.frame[column].to_numpy()
        raise UserError(
            f"the files disagree at {len(double):,} stamps, first at {piece.frame.index[row]}: {column} is "
            f"{values[other]:g} in {piece.where(other)} and {values[row]:g} in {piece.where(row)}; "
            "cut one of them (a download's first and last bar are often unfinished)"
        )
