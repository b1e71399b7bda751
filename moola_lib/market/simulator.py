"""A simulated market with planted expansions, whose law is known.

Log-volatility is an AR(1) on a grid, so that an exact posterior over the
planted spans can be computed; sessions have a U-shaped day; before each
expansion stands a consolidation (compressed bars) or a retracement (drift
against the coming move), which overlaps the expansion's first bar.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.market.bars import Bars, clean_bars
from moola_lib.market.calendar import expected_sessions
from moola_lib.market.law import NQ_LIKE, MarketLaw, draw_log_vol, draw_shocks

SESSION_MINUTES = 1380  # 18:00 to 17:00 New York
DAY_SHAPE = [
    (0, 0.90), (15, 0.62), (45, 0.52), (110, 0.52), (120, 0.66), (180, 0.56), (240, 0.50), (330, 0.41), (390, 0.37),
    (420, 0.43), (480, 0.62), (539, 0.57), (540, 0.92), (600, 0.74), (601, 0.92), (640, 0.73), (720, 0.61), (760, 0.66),
    (869, 0.73), (870, 1.50), (885, 0.93), (929, 0.95), (930, 2.90), (960, 2.25), (990, 1.95), (1020, 1.65),
    (1080, 1.36), (1140, 1.27), (1260, 1.22), (1305, 1.22), (1319, 1.85), (1320, 1.50), (1335, 0.80), (1350, 0.56),
    (1380, 0.50),
]  # fmt: skip


@dataclass(frozen=True)
class Market:
    """Simulated bars with what was planted in them.

    Attributes
    ----------
    bars : Bars
    exact : DataFrame
        What ticks hide, indexed like the bars: `move`, `upper_wick` and
        `lower_wick` (log units, not rounded) and `usual_vol`, the volatility
        that the minute of the day and the session's level alone would give.
    planted : DataFrame
        One row per expansion: `window_start_ts`, `start_ts`, `end_ts` (UTC,
        inclusive), `state` (consolidation or retracement; a mere name where the
        law has no states),
        `state_start_ts`, `direction` (+1 or -1), `session` (0-based).
    law : MarketLaw
    """

    bars: Bars
    exact: pd.DataFrame
    planted: pd.DataFrame
    law: MarketLaw


def simulate_bars(
    n_sessions=30,
    seed=17,
    strength=2.0,
    drift=0.0,
    *,
    expansions_per_session=8,
    law=NQ_LIKE,
    start_date="2024-01-02",
    symbol="SIM",
    roll_every_sessions=None,
    hole_share=0.0,
):
    """Simulate sessions of one-minute bars with planted expansions.

    Parameters
    ----------
    n_sessions : int
        Number of full sessions (1,380 bars each) from `start_date`; holidays and
        days of an early close are left out.
    seed : int
        Equal seeds and parameters give equal bars, bit for bit.
    strength, drift : float
        Override those of `law`.
    expansions_per_session : int
        Windows per session that hold an expansion, at most 13; the other
        windows are ordinary tape.
    law : MarketLaw
    start_date : str
        First trade date considered, 2021-06-28 or later (there was a daily halt before).
    symbol : str
    roll_every_sessions : int, optional
        Jump of 1 % and a new `instrument_id` after this many sessions.
    hole_share : float
        Fraction of ordinary-tape minutes that are missing, in runs of ten.

    Returns
    -------
    Market

    Raises
    ------
    UserError
        A count is not positive, a session has too few windows, or sessions had a halt at `start_date`.
    """
    law = replace(law, strength=strength, drift=drift)
    n_slots = SESSION_MINUTES // law.window_bars
    if n_sessions < 1 or not 0 <= expansions_per_session <= n_slots:
        raise UserError(
            f"cannot simulate {n_sessions} sessions with {expansions_per_session} expansions each: "
            f"at least 1 session and at most {n_slots} expansions are possible"
        )
    rng = np.random.default_rng(seed)
    planted = _draw_plan(rng, n_sessions, expansions_per_session, law)
    log_ratio, mean = _plan_to_law(planted, n_sessions, law)
    level = np.exp(law.session_sd * rng.standard_normal((n_sessions, 1)))
    usual = law.minute_vol * level * minute_profile()
    sigma = usual * np.exp(draw_log_vol(rng, n_sessions, SESSION_MINUTES, law) + log_ratio)

    moves = sigma * (draw_shocks(rng, sigma.shape, law) + mean)
    wicks = law.wick_ratio * sigma * np.abs(rng.standard_normal((2, *sigma.shape)))
    gaps = rng.standard_normal(n_sessions) * 10 * law.minute_vol
    has_rolled = np.zeros(n_sessions, bool)
    if roll_every_sessions:
        has_rolled = (np.arange(n_sessions) % roll_every_sessions == 0) & (np.arange(n_sessions) > 0)
        gaps = gaps + 0.01 * has_rolled
    moves_with_gaps = moves.copy()
    moves_with_gaps[:, 0] += gaps
    log_close = np.cumsum(moves_with_gaps.ravel()).reshape(moves.shape)
    close = law.start_price_points * np.exp(log_close)
    opens = law.start_price_points * np.exp(log_close - moves)
    # volume follows the range, so that it says nothing about volatility that the prices do not
    size = (np.abs(moves) + wicks.sum(axis=0)) / law.minute_vol
    volume = np.floor(rng.lognormal(0.0, 0.4, moves.shape) * 150 * size) + 1

    stamps = _session_stamps(n_sessions, start_date)
    frame = pd.DataFrame(
        {
            "open": _to_ticks(opens, law),
            "high": _to_ticks(np.maximum(opens, close) * np.exp(wicks[0]), law),
            "low": _to_ticks(np.minimum(opens, close) * np.exp(-wicks[1]), law),
            "close": _to_ticks(close, law),
            "volume": volume.ravel(),
            "symbol": symbol,
        },
        index=pd.DatetimeIndex(stamps.ravel(), tz="UTC", name="ts"),
    )
    hidden = {"move": moves, "upper_wick": wicks[0], "lower_wick": wicks[1], "usual_vol": usual}
    exact = pd.DataFrame({name: values.ravel() for name, values in hidden.items()}, index=frame.index)
    if roll_every_sessions:
        frame["instrument_id"] = np.repeat(np.cumsum(has_rolled), SESSION_MINUTES)
    if hole_share:
        is_kept = ~_draw_holes(rng, planted, n_sessions, hole_share, law)
        frame, exact = frame[is_kept], exact[is_kept]
    bars = clean_bars(frame, source=f"simulated bars (seed {seed})")
    return Market(bars, exact, _stamp_plan(planted, stamps), law)


def minute_profile():
    """Return the volatility of each minute of a session, (1380,) float64, mean square 1.

    Straight lines between levels of NQ's day (minute after 18:00 New York, level):
    quiet overnight, steps at the opens of Tokyo and London and at 08:30, highest at
    the New York open, falling to noon and rising into the close at 16:00.
    """
    minute = np.arange(SESSION_MINUTES)
    profile = np.interp(minute, *np.transpose(DAY_SHAPE))
    return profile / np.sqrt(np.mean(profile**2))


def _draw_plan(rng, n_sessions, per_session, law):
    """Draw every expansion as positions inside its session."""
    rows = []
    free_bars = SESSION_MINUTES - per_session * law.window_bars
    for session in range(n_sessions):
        # anywhere in the session: windows on a fixed grid would give the hour away
        gaps = np.sort(rng.integers(0, free_bars + 1, per_session))
        for window in (gaps + law.window_bars * np.arange(per_session)).tolist():
            start = int(rng.integers(law.start_low_bars, law.start_high_bars + 1))
            length = int(rng.integers(law.length_low_bars, law.length_high_bars + 1))
            rows.append(
                {
                    "session": session,
                    "window": window,
                    "start": window + start,
                    "end": window + min(start + length - 1, law.window_bars - 1),
                    "state": "consolidation" if rng.random() < law.consolidation_share else "retracement",
                    "state_bars": int(rng.integers(law.state_low_bars, law.state_high_bars + 1)),
                    "direction": int(rng.choice([-1, 1])),
                }
            )
    columns = ["session", "window", "start", "end", "state", "state_bars", "direction"]
    return pd.DataFrame(rows, columns=columns)


def _plan_to_law(planted, n_sessions, law):
    """Return log volatility ratio and mean (in volatilities), each (n_sessions, 1380)."""
    log_ratio = np.zeros((n_sessions, SESSION_MINUTES))
    mean = np.zeros_like(log_ratio)
    for row in planted.itertuples():
        if law.has_states:
            before = slice(row.start - row.state_bars + 1, row.start)
            if row.state == "consolidation":
                log_ratio[row.session, before] = np.log(law.consolidation_ratio)
            else:
                mean[row.session, before] = -row.direction * law.retracement_drift
        inside = slice(row.start, row.end + 1)  # the overlapping bar follows the expansion's law
        log_ratio[row.session, inside] = np.log(law.strength)
        mean[row.session, inside] = row.direction * law.drift
    return log_ratio, mean


def _draw_holes(rng, planted, n_sessions, share, law):
    """Tell which minutes are missing: runs of ten outside the planted windows."""
    run = 10
    is_tape = np.ones((n_sessions, SESSION_MINUTES), bool)
    for row in planted.itertuples():
        is_tape[row.session, row.window : row.window + law.window_bars] = False
    is_hole = np.repeat(rng.random((n_sessions, SESSION_MINUTES // run)) < share, run, axis=1)
    return (is_hole & is_tape).ravel()


@lru_cache(maxsize=8)  # many small markets ask for the same days, and the calendar takes longer than the market
def _session_stamps(n_sessions, start_date):
    """Return UTC stamps (n_sessions, 1380), datetime64[ns], of the next full sessions on the exchange's calendar."""
    first = pd.Timestamp(start_date)
    last = first + pd.Timedelta(days=math.ceil(n_sessions * 1.5) + 14)  # weekends, holidays, early closes
    sessions = expected_sessions(first, last)
    opens = sessions.loc[~sessions["is_half_day"] & sessions["halt_start"].isna(), "open"].iloc[:n_sessions]
    if len(opens) < n_sessions:
        raise UserError(
            f"there are no {n_sessions} full sessions soon after {start_date}; start on 2021-06-28 or later"
        )
    minutes = np.arange(SESSION_MINUTES).astype("timedelta64[m]")
    stamps = opens.dt.tz_localize(None).to_numpy().astype("datetime64[ns]")[:, None] + minutes
    stamps.flags.writeable = False  # shared by every market of these days
    return stamps


def _stamp_plan(planted, stamps):
    """Return the plan with stamps in the place of positions."""
    session = planted["session"].to_numpy(np.int64)  # an empty plan has no integers to infer
    at = {name: planted[name].to_numpy(np.int64) for name in ("window", "start", "end")}
    at["state_start"] = at["start"] - planted["state_bars"].to_numpy(np.int64) + 1
    frame = pd.DataFrame(
        {
            f"{new}_ts": pd.DatetimeIndex(stamps[session, at[old]], tz="UTC")
            for new, old in [
                ("window_start", "window"),
                ("start", "start"),
                ("end", "end"),
                ("state_start", "state_start"),
            ]
        }
    )
    return frame.assign(state=planted["state"].to_numpy(), direction=planted["direction"].to_numpy(), session=session)


def _to_ticks(prices, law):
    """Round prices to the tick grid, flattened in time order."""
    return (np.round(prices / law.tick_points) * law.tick_points).ravel()
