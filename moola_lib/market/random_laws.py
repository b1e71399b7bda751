"""Markets whose law is drawn at random: a localiser that has met many of them need not know the next one's."""

from dataclasses import dataclass, replace

import numpy as np

from moola_lib.market.law import NQ_LIKE
from moola_lib.market.simulator import simulate_bars


@dataclass(frozen=True)
class LawRanges:
    """What a random law is drawn from: (low, high) of each parameter of `MarketLaw`, and why.

    Attributes
    ----------
    strength : tuple
        Below 1.4 hardly anything shows (the oracle's Hit@3 is .5); above 3.5 a threshold finds it.
    drift : tuple
        From a burst without direction to a move of one volatility a bar, which
        is about what the rule of `labels.proposals` asks of a surge.
    memory_bars : tuple
        1 / (1 - persistence), by logarithm: persistence .90 to .99. NQ's is about .985.
    log_vol_sd : tuple
        NQ's is .38.
    shock_df : tuple
        By logarithm; 4 has no kurtosis, and 30 is as good as normal. NQ's is 5.
    session_sd, wick_ratio : tuple
        NQ's are .45 and .44.
    minute_vol : tuple
        By logarithm. At 20,000 points the low end moves two ticks of .25 a quiet minute.
    start_price_points : tuple
        By logarithm: with the tick, how coarse prices are. ES stands near 5,000.
    shortest_bars, extra_bars : tuple
        Shortest expansion, and how much longer the longest is; hand labels have a median of 5 bars, proposals reach 30.
    state_bars, extra_state_bars : tuple
        The same for the state before an expansion.
    consolidation_ratio, retracement_drift : tuple
        Up to 1 and from 0: a state before may be as good as absent.
    consolidation_share : tuple
        Neither state becomes rare enough to be ignored.
    hole_share : tuple
        Of ordinary-tape minutes; a vendor's series lacks up to 1 %.
    expansions_per_session : tuple
        From a session that is mostly ordinary tape to one that is nearly full (13).
    """

    strength: tuple = (1.4, 3.5)
    drift: tuple = (0.0, 1.0)
    memory_bars: tuple = (10.0, 100.0)
    log_vol_sd: tuple = (0.2, 0.6)
    shock_df: tuple = (4.5, 30.0)
    session_sd: tuple = (0.0, 0.7)
    wick_ratio: tuple = (0.3, 0.8)
    minute_vol: tuple = (1e-4, 5e-4)
    start_price_points: tuple = (5_000.0, 20_000.0)
    shortest_bars: tuple = (3, 8)
    extra_bars: tuple = (6, 24)
    state_bars: tuple = (5, 12)
    extra_state_bars: tuple = (3, 15)
    consolidation_ratio: tuple = (0.4, 1.0)
    retracement_drift: tuple = (0.0, 0.8)
    consolidation_share: tuple = (0.25, 0.75)
    hole_share: tuple = (0.0, 0.01)
    expansions_per_session: tuple = (6, 12)


BROAD = LawRanges()


def draw_law(rng, ranges=BROAD):
    """Draw a law: every parameter by itself, uniform in its range or in the range's logarithm.

    Parameters
    ----------
    rng : numpy.random.Generator
    ranges : LawRanges

    Returns
    -------
    MarketLaw
        With starts, window and grid of NQ_LIKE.
    """
    shortest, shortest_state = _integer(rng, ranges.shortest_bars), _integer(rng, ranges.state_bars)
    return replace(
        NQ_LIKE,
        strength=_uniform(rng, ranges.strength),
        drift=_uniform(rng, ranges.drift),
        persistence=1 - 1 / _log_uniform(rng, ranges.memory_bars),
        log_vol_sd=_uniform(rng, ranges.log_vol_sd),
        shock_df=_log_uniform(rng, ranges.shock_df),
        session_sd=_uniform(rng, ranges.session_sd),
        wick_ratio=_uniform(rng, ranges.wick_ratio),
        minute_vol=_log_uniform(rng, ranges.minute_vol),
        start_price_points=_log_uniform(rng, ranges.start_price_points),
        length_low_bars=shortest,
        length_high_bars=shortest + _integer(rng, ranges.extra_bars),
        state_low_bars=shortest_state,
        state_high_bars=shortest_state + _integer(rng, ranges.extra_state_bars),
        consolidation_ratio=_uniform(rng, ranges.consolidation_ratio),
        retracement_drift=_uniform(rng, ranges.retracement_drift),
        consolidation_share=_uniform(rng, ranges.consolidation_share),
    )


def simulate_random_market(seed, n_sessions=4, ranges=BROAD):
    """Simulate sessions of bars under a law of their own.

    Parameters
    ----------
    seed : int or sequence of int
        Equal seeds and ranges give equal bars, bit for bit.
    n_sessions : int
    ranges : LawRanges

    Returns
    -------
    Market
    """
    rng = np.random.default_rng(seed)
    law = draw_law(rng, ranges)
    return simulate_bars(
        n_sessions,
        seed=int(rng.integers(2**63)),
        strength=law.strength,
        drift=law.drift,
        law=law,
        expansions_per_session=_integer(rng, ranges.expansions_per_session),
        hole_share=_uniform(rng, ranges.hole_share),
    )


def _uniform(rng, bounds):
    return float(rng.uniform(*bounds))


def _log_uniform(rng, bounds):
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _integer(rng, bounds):
    """Draw an integer of a range, both ends included."""
    return int(rng.integers(bounds[0], bounds[1] + 1))
