"""A simulated market with planted expansions, whose law is known.

Log-volatility is an AR(1) on a grid, so that an exact posterior over the
planted spans can be computed; sessions have a U-shaped day; before each
expansion stands a consolidation (compressed bars) or a retracement (drift
against the coming move), which overlaps the expansion's first bar.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.market.bars import Bars, clean_bars
from moola_lib.market.segments import ZONE

SESSION_MINUTES = 1380  # 18:00 to 17:00 New York


@dataclass(frozen=True)
class MarketLaw:
    """Every parameter of the generator.

    Attributes
    ----------
    strength : float
        Ratio r of volatility inside an expansion to that outside.
    drift : float
        Mean move inside an expansion, in units of its volatility per bar,
        towards a random direction.
    persistence, log_vol_sd : float
        AR(1) coefficient and stationary standard deviation of log-volatility.
    n_grid, grid_sds : int, float
        Points of the log-volatility grid, and its half-width in stationary sd.
    start_low_bars, start_high_bars : int
        First and last start of an expansion in its window (0-based, inclusive).
    length_low_bars, length_high_bars : int
        Range of expansion lengths in bars (inclusive), uniform.
    window_bars : int
        Length K of a window.
    state_low_bars, state_high_bars : int
        Length of the state before it, the overlapping bar included.
    has_states : bool
        Draw the state before each expansion. Off in the null market.
    consolidation_share : float
        Fraction of expansions preceded by consolidation.
    consolidation_ratio : float
        Volatility ratio inside a consolidation.
    retracement_drift : float
        Drift against the coming direction, in volatilities per bar.
    minute_vol : float
        Median volatility of one minute, as a fraction of price.
    wick_ratio : float
        Scale of the half-normal wicks, in volatilities.
    tick_points, start_price_points : float
        Price grid and first price.
    """

    strength: float = 2.0
    drift: float = 0.0
    persistence: float = 0.95
    log_vol_sd: float = 0.4
    n_grid: int = 21
    grid_sds: float = 3.0
    start_low_bars: int = 30
    start_high_bars: int = 74
    length_low_bars: int = 6
    length_high_bars: int = 30
    window_bars: int = 105
    state_low_bars: int = 10
    state_high_bars: int = 20
    has_states: bool = True
    consolidation_share: float = 81 / 174
    consolidation_ratio: float = 0.6
    retracement_drift: float = 0.4
    minute_vol: float = 3e-4
    wick_ratio: float = 0.6
    tick_points: float = 0.25
    start_price_points: float = 20_000.0

    @property
    def grid(self):
        """Log-volatility grid, (n_grid,) float64, centred on 0."""
        half = self.grid_sds * self.log_vol_sd
        return np.linspace(-half, half, self.n_grid)

    @property
    def transition(self):
        """Transition matrix of log-volatility, (n_grid, n_grid) float64, rows sum to 1.

        Each row is the AR(1)'s conditional normal density at the grid points,
        normalised (Tauchen 1986 integrates over cells instead).
        """
        sd = self.log_vol_sd * np.sqrt(1 - self.persistence**2)
        z = (self.grid[None, :] - self.persistence * self.grid[:, None]) / sd
        weights = np.exp(-0.5 * z**2)
        return weights / weights.sum(axis=1, keepdims=True)

    @property
    def stationary(self):
        """Stationary distribution of the transition matrix, (n_grid,) float64."""
        values, vectors = np.linalg.eig(self.transition.T)
        vector = np.real(vectors[:, np.argmax(np.real(values))])
        return vector / vector.sum()


REFERENCE = MarketLaw()  # frozen: the setting under which figures are quoted


@dataclass(frozen=True)
class Market:
    """Simulated bars with what was planted in them.

    Attributes
    ----------
    bars : Bars
    planted : DataFrame
        One row per expansion: `window_start_ts`, `start_ts`, `end_ts` (UTC,
        inclusive), `state` (consolidation, retracement or none drawn),
        `state_start_ts`, `direction` (+1 or -1), `session` (0-based).
    law : MarketLaw
    """

    bars: Bars
    planted: pd.DataFrame
    law: MarketLaw


def simulate_bars(
    n_sessions=30,
    seed=17,
    strength=2.0,
    drift=0.0,
    *,
    expansions_per_session=8,
    law=REFERENCE,
    start_date="2024-01-02",
    symbol="SIM",
    roll_every_sessions=None,
    hole_share=0.0,
):
    """Simulate sessions of one-minute bars with planted expansions.

    Parameters
    ----------
    n_sessions : int
        Number of full sessions (1,380 bars each), on weekdays from `start_date`.
    seed : int
        Equal seeds and parameters give equal bars, bit for bit.
    strength, drift : float
        Override those of `law`.
    expansions_per_session : int
        Windows per session that hold an expansion, at most 13; the other
        windows are ordinary tape.
    law : MarketLaw
    start_date : str
        First trade date considered (a weekend moves to Monday).
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
        A count is not positive, or a session has too few windows.
    """
    law = replace(law, strength=strength, drift=drift)
    n_slots = SESSION_MINUTES // law.window_bars
    if n_sessions < 1 or not 0 <= expansions_per_session <= n_slots:
        raise UserError(
            f"cannot simulate {n_sessions} sessions with {expansions_per_session} expansions each: "
            f"at least 1 session and at most {n_slots} expansions are possible"
        )
    rng = np.random.default_rng(seed)
    planted = _draw_plan(rng, n_sessions, expansions_per_session, n_slots, law)
    log_ratio, mean = _plan_to_law(planted, n_sessions, law)
    sigma = law.minute_vol * np.exp(_draw_log_vol(rng, n_sessions, law) + log_ratio) * minute_profile()

    shocks = rng.standard_normal((3, n_sessions, SESSION_MINUTES))
    moves = sigma * (shocks[0] + mean)
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
    wicks = np.exp(law.wick_ratio * sigma * np.abs(shocks[1:]))
    volume = np.floor(rng.lognormal(0.0, 0.4, moves.shape) * 300 * sigma / law.minute_vol) + 1

    stamps = _session_stamps(n_sessions, start_date)
    frame = pd.DataFrame(
        {
            "open": _to_ticks(opens, law),
            "high": _to_ticks(np.maximum(opens, close) * wicks[0], law),
            "low": _to_ticks(np.minimum(opens, close) / wicks[1], law),
            "close": _to_ticks(close, law),
            "volume": volume.ravel(),
            "symbol": symbol,
        },
        index=pd.DatetimeIndex(stamps.ravel(), tz="UTC", name="ts"),
    )
    if roll_every_sessions:
        frame["instrument_id"] = np.repeat(np.cumsum(has_rolled), SESSION_MINUTES)
    if hole_share:
        frame = frame[~_draw_holes(rng, planted, n_sessions, hole_share, law)]
    bars = clean_bars(frame, source=f"simulated bars (seed {seed})")
    return Market(bars, _stamp_plan(planted, stamps), law)


def minute_profile():
    """Return the volatility of each minute of a session, (1380,) float64, mean square 1.

    Quiet overnight, livelier from the London open (03:00 New York), highest at
    the New York open (09:30) and again towards its close (16:00).
    """
    minute = np.arange(SESSION_MINUTES)
    london, opening, closing = 540, 930, 1320
    profile = np.where(minute < london, 0.55, 0.75)
    is_regular = (minute >= opening) & (minute < closing)
    day = 1.2 + 1.0 * np.exp(-(minute - opening) / 40) + 0.4 * np.exp(-(closing - minute) / 40)
    profile = np.where(is_regular, day, profile)
    return profile / np.sqrt(np.mean(profile**2))


def _draw_plan(rng, n_sessions, per_session, n_slots, law):
    """Draw every expansion as positions inside its session."""
    rows = []
    for session in range(n_sessions):
        offset = rng.integers(0, SESSION_MINUTES - n_slots * law.window_bars + 1)
        for slot in np.sort(rng.permutation(n_slots)[:per_session]):
            window = int(offset + slot * law.window_bars)
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


def _draw_log_vol(rng, n_sessions, law):
    """Draw log-volatility on the grid, (n_sessions, 1380); sessions are independent."""
    cumulative = np.cumsum(law.transition, axis=1)
    uniforms = rng.random((n_sessions, SESSION_MINUTES))
    last = law.n_grid - 1  # cumulative sums may end a rounding error below 1
    state = np.minimum(np.searchsorted(np.cumsum(law.stationary), uniforms[:, 0]), last)
    states = np.empty((n_sessions, SESSION_MINUTES), np.int64)
    for minute in range(SESSION_MINUTES):
        if minute:
            state = np.minimum((cumulative[state] < uniforms[:, minute, None]).sum(axis=1), last)
        states[:, minute] = state
    return law.grid[states]


def _draw_holes(rng, planted, n_sessions, share, law):
    """Tell which minutes are missing: runs of ten outside the planted windows."""
    run = 10
    is_tape = np.ones((n_sessions, SESSION_MINUTES), bool)
    for row in planted.itertuples():
        is_tape[row.session, row.window : row.window + law.window_bars] = False
    is_hole = np.repeat(rng.random((n_sessions, SESSION_MINUTES // run)) < share, run, axis=1)
    return (is_hole & is_tape).ravel()


def _session_stamps(n_sessions, start_date):
    """Return UTC stamps (n_sessions, 1380), datetime64[ns], in time order."""
    dates = pd.bdate_range(start_date, periods=n_sessions)
    opens = (dates - pd.Timedelta(hours=6)).tz_localize(ZONE).tz_convert("UTC").tz_localize(None)
    minutes = np.arange(SESSION_MINUTES).astype("timedelta64[m]")
    return opens.to_numpy().astype("datetime64[ns]")[:, None] + minutes


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
