"""The law of the simulated market: its parameters, its volatility chain, and single windows drawn from it."""

from dataclasses import dataclass, replace

import numpy as np

from moola_lib.errors import UserError


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
    shock_df : float or None
        Degrees of freedom of the moves' Student t (above 4, scaled to variance 1); None: normal.
    session_sd : float
        Standard deviation of a session's level of log-volatility around the median.
    minute_vol : float
        Median volatility of one minute, as a fraction of price.
    wick_ratio : float
        Scale of the half-normal wicks, in volatilities.
    tick_points, start_price_points : float
        Price grid and first price.
    range_mean, range_sd : float
        Bare law: log range is log-volatility plus a normal of this mean and sd.
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
    shock_df: float | None = None
    session_sd: float = 0.0
    minute_vol: float = 3e-4
    wick_ratio: float = 0.6
    tick_points: float = 0.25
    start_price_points: float = 20_000.0
    range_mean: float = 0.43
    range_sd: float = 0.29

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

    @property
    def starts(self):
        """Every start an expansion may have, (n_starts,) int64, equally likely."""
        return np.arange(self.start_low_bars, self.start_high_bars + 1)

    @property
    def lengths(self):
        """Every length an expansion may have before it is cut at the window's end, (n_lengths,) int64."""
        return np.arange(self.length_low_bars, self.length_high_bars + 1)


# Frozen: the setting under which the reference figures are quoted.
REFERENCE = MarketLaw()

# Fitted to what one-minute NQ bars look like (market/facts.py), never to a score.
NQ_LIKE = replace(
    REFERENCE,
    persistence=0.985,
    log_vol_sd=0.38,
    shock_df=5.0,
    session_sd=0.45,
    minute_vol=2.2e-4,
    wick_ratio=0.44,
)


@dataclass(frozen=True)
class BareWindows:
    """Windows of the bare law: two numbers a bar, which are no bars, but whose posterior is exact.

    Attributes
    ----------
    log_return, log_range : ndarray (n, K), float64
    start, end : ndarray (n,), int64
        Span of the expansion in bars, inclusive.
    direction : ndarray (n,), int64
        +1 or -1: where the drift pointed.
    law : MarketLaw
    """

    log_return: np.ndarray
    log_range: np.ndarray
    start: np.ndarray
    end: np.ndarray
    direction: np.ndarray
    law: MarketLaw

    def __len__(self):
        return len(self.start)


def simulate_windows(n_windows, seed=17, law=REFERENCE):
    """Draw windows of the bare law, each with one expansion and no state before it.

    Parameters
    ----------
    n_windows : int
    seed : int
        Equal seeds and laws give equal windows, bit for bit.
    law : MarketLaw
        Its states, profile, wicks and ticks play no part here.

    Returns
    -------
    BareWindows

    Raises
    ------
    UserError
        `n_windows` is not positive.
    """
    if n_windows < 1:
        raise UserError(f"cannot simulate {n_windows} windows; give at least 1")
    rng = np.random.default_rng(seed)
    start = rng.choice(law.starts, n_windows)
    end = np.minimum(start + rng.choice(law.lengths, n_windows), law.window_bars) - 1
    direction = rng.choice([-1, 1], n_windows)
    bars = np.arange(law.window_bars)
    is_inside = (bars >= start[:, None]) & (bars <= end[:, None])
    log_vol = draw_log_vol(rng, n_windows, law.window_bars, law) + np.log(law.strength) * is_inside
    mean = law.drift * direction[:, None] * is_inside
    log_return = np.exp(log_vol) * (draw_shocks(rng, log_vol.shape, law) + mean)
    log_range = log_vol + law.range_mean + law.range_sd * rng.standard_normal(log_vol.shape)
    return BareWindows(log_return, log_range, start, end, direction, law)


def draw_log_vol(rng, n_paths, n_bars, law):
    """Draw independent stationary paths of log-volatility on the grid, (n_paths, n_bars) float64."""
    cumulative = np.cumsum(law.transition, axis=1)
    uniforms = rng.random((n_paths, n_bars))
    last = law.n_grid - 1  # cumulative sums may end a rounding error below 1
    state = np.minimum(np.searchsorted(np.cumsum(law.stationary), uniforms[:, 0]), last)
    states = np.empty((n_paths, n_bars), np.int64)
    for bar in range(n_bars):
        if bar:
            state = np.minimum((cumulative[state] < uniforms[:, bar, None]).sum(axis=1), last)
        states[:, bar] = state
    return law.grid[states]


def draw_shocks(rng, shape, law):
    """Draw the moves' shocks, of variance 1: normal, or Student t."""
    if law.shock_df is None:
        return rng.standard_normal(shape)
    return rng.standard_t(law.shock_df, shape) * np.sqrt((law.shock_df - 2) / law.shock_df)
