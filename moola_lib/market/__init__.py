"""Bars: loading and validating them, sessions and segments, ranges, and the simulator."""

from moola_lib.market.bars import Bars, load_bars, save_bars
from moola_lib.market.calendar import (
    detect_calendar,
    expected_sessions,
    hourly_coverage,
    session_coverage,
    trade_dates,
)
from moola_lib.market.law import NQ_LIKE, REFERENCE, MarketLaw, simulate_windows
from moola_lib.market.rolls import back_adjust, describe_rolls, find_interleaved, find_rolls
from moola_lib.market.segments import describe_gaps, describe_segments, segment_starts
from moola_lib.market.simulator import Market, simulate_bars

__all__ = [
    "NQ_LIKE",
    "REFERENCE",
    "Bars",
    "Market",
    "MarketLaw",
    "back_adjust",
    "describe_gaps",
    "describe_rolls",
    "describe_segments",
    "detect_calendar",
    "expected_sessions",
    "find_interleaved",
    "find_rolls",
    "hourly_coverage",
    "load_bars",
    "save_bars",
    "segment_starts",
    "session_coverage",
    "simulate_bars",
    "simulate_windows",
    "trade_dates",
]
