"""The older layout of a label table: no time stamps, each row with the 105 bars it was drawn on."""

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.bars import PRICES, clean_bars

LEGACY_FIRST_STAMP = "2000-01-03"
MATCH_POINTS = 0.005  # of an index: tables that hold float32 round to 0.002


def read_older(frame, *, source):
    """Turn rows of 105 [open, high, low, close] into rows of the current layout, and the bars behind them.

    Parameters
    ----------
    frame : DataFrame
        `features`, an object array of 105 [open, high, low, close] per row,
        beside the columns of a label table that it has.
    source : str
        Its name in sentences.

    Returns
    -------
    frame : DataFrame
        With `window_id`, `symbol` and a made-up `window_start`.
    bars : Bars
        Each window's own, a segment of its own, a day apart. Windows with the
        same bars under two ids are one stretch of it: one window labelled twice.

    Raises
    ------
    UserError
        A row does not hold 105 bars, rows of one window hold different ones, or
        the labels are of several symbols.
    """
    frame = frame.reset_index(drop=True)
    if "window_id" not in frame.columns:
        frame["window_id"] = [f"older-{row:04d}" for row in range(len(frame))]
    symbols = frame["symbol"].dropna().unique() if "symbol" in frame.columns else []
    if len(symbols) > 1:
        raise UserError(f"{source} holds labels of {len(symbols)} symbols ({', '.join(map(str, symbols))}); give one")
    symbol = str(symbols[0]) if len(symbols) else "UNKNOWN"
    prices = {}
    for row, (window_id, values) in enumerate(zip(frame["window_id"], frame["features"], strict=True)):
        bars = _read_window(values, source, row)
        if not np.array_equal(prices.setdefault(window_id, bars), bars):
            raise UserError(f"{source}: row {row + 1}: window {window_id} has other bars than in an earlier row")
    # the same bars under another id are one window labelled twice: they share their day
    stretches = list({bars.tobytes(): bars for bars in prices.values()}.values())
    days = pd.date_range(LEGACY_FIRST_STAMP, periods=len(stretches), freq="D", tz="UTC")
    day_of = {bars.tobytes(): day for bars, day in zip(stretches, days, strict=True)}
    stamps = [pd.date_range(day, periods=WINDOW_BARS, freq="min") for day in days]
    bars = pd.DataFrame(np.concatenate(stretches), columns=PRICES).assign(volume=0.0, symbol=symbol)
    bars.index = stamps[0].append(stamps[1:]).rename("ts")
    window_start = [day_of[prices[window_id].tobytes()] for window_id in frame["window_id"]]
    table = frame.drop(columns="features").assign(symbol=symbol, window_start=window_start)
    return table, clean_bars(bars, source=source, drop_budget=0.0)


def _read_window(values, source, row):
    """Return one window's prices, (105, 4) float64."""
    try:
        bars = np.stack([np.asarray(bar, np.float64) for bar in values])
    except (TypeError, ValueError):
        bars = np.empty(0)
    if bars.shape != (WINDOW_BARS, 4):
        raise UserError(
            f"{source}: row {row + 1}: `features` must hold {WINDOW_BARS} rows of [open, high, low, close]; "
            f"found {_describe_shape(values)}"
        )
    return bars


def _describe_shape(values):
    """Say what stands in the place of a window's prices."""
    try:
        widths = sorted({len(bar) for bar in values})
    except TypeError:
        return f"{type(values).__name__}"
    return f"{len(values)} rows of {' or '.join(map(str, widths)) or 'nothing'} values"


def find_stamps(own, frame):
    """Find where the bars of older labels lie in a series, by their prices.

    Parameters
    ----------
    own : DataFrame
        Bars of the older labels, as `read_older` gives them: stretches of 105.
    frame : DataFrame
        Bars indexed by UTC `ts`.

    Returns
    -------
    Series of Timestamp, indexed by the made-up stamp of each stretch's first bar
        The stamp of the bar it begins with in `frame`; NaT where all 105 bars,
        prices the same to 0.005, are nowhere in it.
    """
    series, wanted = (each[list(PRICES)].to_numpy(np.float64) for each in (frame, own))
    found = {}
    for first in range(0, len(wanted), WINDOW_BARS):
        window = wanted[first : first + WINDOW_BARS]
        begins = np.abs(series[: len(series) - WINDOW_BARS + 1] - window[0]).max(axis=1) <= MATCH_POINTS
        places = [
            place
            for place in np.flatnonzero(begins)
            if np.abs(series[place : place + WINDOW_BARS] - window).max() <= MATCH_POINTS
        ]
        found[own.index[first]] = frame.index[places[0]] if places else pd.NaT
    return pd.Series(found, dtype="datetime64[ns, UTC]")
