"""What each bar of a simulated window says of volatility, under every regime it may belong to."""

from dataclasses import dataclass
from math import lgamma

import numpy as np

from moola_lib.errors import UserError

LOG_2PI = np.log(2 * np.pi)


@dataclass(frozen=True)
class LogLikelihoods:
    """What each bar says of each grid point, under every regime it may belong to.

    Attributes
    ----------
    outside : ndarray (n, K, G), float64
        Log density of bar t given log-volatility, in ordinary tape.
    inside : ndarray (n, 2, K, G)
        The same inside an expansion that points down, or up.
    before : ndarray (n, 3, K, G), optional
        The same in the state before it: consolidation, retracement before a
        move down, retracement before a move up. None where the law has none.
    law : MarketLaw
    """

    outside: np.ndarray
    inside: np.ndarray
    before: np.ndarray | None
    law: object


def bare_log_likelihoods(log_return, log_range, law):
    """Return the log-likelihoods of windows of the bare law.

    Parameters
    ----------
    log_return, log_range : ndarray (n, K), float64
    law : MarketLaw

    Returns
    -------
    LogLikelihoods
    """
    x, y = log_return[..., None], log_range[..., None]

    def density(log_ratio, mean):
        log_vol = law.grid + log_ratio
        off = (y - log_vol - law.range_mean) / law.range_sd
        return _log_move(x, log_vol, mean, law) - 0.5 * off**2 - 0.5 * LOG_2PI - np.log(law.range_sd)

    r = np.log(law.strength)
    inside = np.stack([density(r, -law.drift), density(r, law.drift)], axis=1)
    return LogLikelihoods(density(0.0, 0.0), inside, None, law)


def bar_log_likelihoods(move, upper_wick, lower_wick, usual_vol, law):
    """Return the log-likelihoods of windows of the bar generator.

    The values are those before rounding to ticks, and the usual volatility of
    the minute and session is given: no method that sees only the bars of a
    window knows as much, so that attainable skill stays at most 1.

    Parameters
    ----------
    move, upper_wick, lower_wick, usual_vol : ndarray (n, K), float64
        As in `market.Market.exact`.
    law : MarketLaw

    Returns
    -------
    LogLikelihoods
    """
    x, up, low = ((each / usual_vol)[..., None] for each in (move, upper_wick, lower_wick))

    def density(log_ratio, mean):
        log_vol = law.grid + log_ratio
        scale = np.log(law.wick_ratio) + log_vol
        wicks = np.log(2) - LOG_2PI / 2 - scale - 0.5 * (up * np.exp(-scale)) ** 2
        wicks = wicks + np.log(2) - LOG_2PI / 2 - scale - 0.5 * (low * np.exp(-scale)) ** 2
        return _log_move(x, log_vol, mean, law) + wicks

    r = np.log(law.strength)
    inside = np.stack([density(r, -law.drift), density(r, law.drift)], axis=1)
    before = None
    if law.has_states:
        quiet = np.log(law.consolidation_ratio)
        against = law.retracement_drift
        before = np.stack([density(quiet, 0.0), density(0.0, against), density(0.0, -against)], axis=1)
    return LogLikelihoods(density(0.0, 0.0), inside, before, law)


def market_windows(market):
    """Return the planted windows of a simulated market, ready for the oracle.

    Parameters
    ----------
    market : market.Market

    Returns
    -------
    likelihoods : LogLikelihoods (n)
    start, end : ndarray (n,), int64
        Planted span in bars of its window.
    state : ndarray (n,), int64
        0 consolidation, 1 retracement.
    """
    law, planted = market.law, market.planted
    if len(planted) == 0:
        raise UserError("nothing is planted in this market; simulate it with expansions_per_session of at least 1")
    first = market.exact.index.get_indexer(planted["window_start_ts"])
    rows = first[:, None] + np.arange(law.window_bars)
    columns = [market.exact[name].to_numpy()[rows] for name in ("move", "upper_wick", "lower_wick", "usual_vol")]
    start, end = (market.exact.index.get_indexer(planted[f"{edge}_ts"]) - first for edge in ("start", "end"))
    state = (planted["state"] == "retracement").to_numpy().astype(np.int64)
    return bar_log_likelihoods(*columns, law), start, end, state


def _log_move(x, log_vol, mean, law):
    """Return the log density of a move, given log-volatility and its mean in volatilities."""
    z = x * np.exp(-log_vol) - mean
    if law.shock_df is None:
        return -0.5 * z**2 - 0.5 * LOG_2PI - log_vol
    df = law.shock_df
    scale = np.sqrt((df - 2) / df)
    constant = lgamma((df + 1) / 2) - lgamma(df / 2) - 0.5 * np.log(df * np.pi) - np.log(scale)
    return constant - (df + 1) / 2 * np.log1p((z / scale) ** 2 / df) - log_vol
