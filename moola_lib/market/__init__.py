"""Bars: loading and validating them, sessions and segments, ranges, and the simulator."""

from moola_lib.market.bars import Bars, load_bars, rebin_bars, save_bars
from moola_lib.market.law import NQ_LIKE, REFERENCE, MarketLaw, simulate_windows
from moola_lib.market.segments import describe_segments, find_rolls, segment_starts, trade_dates
from moola_lib.market.simulator import Market, simulate_bars

__all__ = [
    "NQ_LIKE",
    "REFERENCE",
    "Bars",
    "Market",
    "MarketLaw",
    "describe_segments",
    "find_rolls",
    "load_bars",
    "rebin_bars",
    "save_bars",
    "segment_starts",
    "simulate_bars",
    "simulate_windows",
    "trade_dates",
]
