"""Labelled windows without end, drawn from simulated markets that each have a law of their own."""

from dataclasses import replace

import numpy as np

from moola_lib.errors import UserError
from moola_lib.features import build_features
from moola_lib.labels.table import CLASSES
from moola_lib.market.random_laws import BROAD, simulate_random_market
from moola_lib.market.segments import trade_dates
from moola_lib.windows.gather import WindowGatherer
from moola_lib.windows.places import LabelledWindows


def simulate_labelled(n_windows, seed, *, ranges=BROAD, sessions_per_market=4, device="cpu", **features):
    """Draw labelled windows of markets whose laws are drawn at random.

    Parameters
    ----------
    n_windows : int
    seed : int or sequence of int
        Equal seeds and options give equal windows, bit for bit.
    ranges : LawRanges
    sessions_per_market : int
        Sessions that share a law. Fewer mean more laws, and more time a window.
    device : str or torch.device
    **features
        Options of `build_features`.

    Returns
    -------
    gather : WindowGatherer
        Over all markets' bars, one after the other.
    windows : LabelledWindows
        `n_windows` of them, each with one expansion.

    Raises
    ------
    UserError
        `n_windows` is not positive.
    """
    if n_windows < 1:
        raise UserError(f"cannot draw {n_windows} simulated windows; give at least 1")
    seeds = [seed] if np.isscalar(seed) else list(seed)
    tables, parts, n_found, n_bars = [], [], 0, 0
    while n_found < n_windows:
        market = simulate_random_market([*seeds, len(tables)], sessions_per_market, ranges)
        tables.append(build_features(market.bars, **features))
        parts.append(planted_windows(market, first_bar=n_bars, name=f"market{len(parts)}"))
        n_found += len(parts[-1])
        n_bars += len(tables[-1])
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in LabelledWindows.__annotations__}
    return WindowGatherer(_join(tables), device), LabelledWindows(**joined).take(slice(n_windows))


def planted_windows(market, *, first_bar=0, name="planted"):
    """Return the planted windows of a simulated market.

    Parameters
    ----------
    market : market.Market
    first_bar : int
        Position of the market's first bar, where several are laid end to end.
    name : str
        Windows are called by it and by their first bar.

    Returns
    -------
    LabelledWindows
    """
    index, planted = market.bars.frame.index, market.planted
    place = index.get_indexer(planted["window_start_ts"])
    start, end = (index.get_indexer(planted[f"{edge}_ts"]) - place for edge in ("start", "end"))
    return LabelledWindows(
        window_id=np.array([f"{name}-{bar}" for bar in place]),
        place=first_bar + place,
        day=trade_dates(index[place]),
        has_expansion=np.ones(len(place), bool),
        start=start,
        end=end,
        spans=np.stack([start, end], axis=1)[:, None],
        state=(planted["state"] == CLASSES[1]).to_numpy(np.int64),
    )


def _join(tables):
    """Return feature tables as one, in which no segment goes on from one table to the next."""
    first_bars = np.cumsum([0, *map(len, tables[:-1])])
    arrays = {
        name: np.concatenate([getattr(table, name) for table in tables]) for name in ("values", "is_valid", "is_flip")
    }
    starts = np.concatenate([first + table.starts for first, table in zip(first_bars, tables, strict=True)])
    return replace(tables[0], starts=starts, **arrays)
