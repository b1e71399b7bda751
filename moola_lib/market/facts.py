"""Stylised facts: what one-minute index futures look like, and whether the simulated market does too."""

import numpy as np
import pandas as pd

from moola_lib.market.segments import ZONE, segment_starts, trade_dates

MAX_LAG_BARS = 50
HALF_HOURS = 46  # of a session, from 18:00 New York
MIN_SESSION_SHARE = 0.5  # of the median session's bars: shorter ones would tell of their hours, not of their level

# Mean |return| of each half hour from 18:00 New York, over its root mean square:
# NQ, May 2024 to May 2025, 213 sessions.
NQ_PROFILE = [
    0.80, 0.55, 0.57, 0.53, 0.68, 0.59, 0.57, 0.56, 0.51, 0.44, 0.43, 0.42, 0.39, 0.40, 0.48, 0.54,
    0.63, 0.58, 0.87, 0.71, 0.86, 0.70, 0.66, 0.59, 0.68, 0.67, 0.77, 0.70, 0.74, 1.13, 0.91, 2.37,
    2.11, 1.76, 1.55, 1.41, 1.32, 1.25, 1.35, 1.32, 1.28, 1.24, 1.25, 1.54, 0.97, 0.55,
]  # fmt: skip

# What a simulated market must show: a band around the same series' figure.
BANDS = {
    "excess kurtosis within sessions": (5.0, 16.0),
    "autocorrelation of |r|, lag 1": (0.11, 0.23),
    "autocorrelation of |r|, lag 10": (0.05, 0.15),
    "autocorrelation of |r|, lag 50": (0.01, 0.08),
    "spread of session levels (log)": (0.30, 0.55),
    "range over close-to-close move": (1.75, 2.15),
    "half-hour profile, log distance to NQ": (0.0, 0.20),
}


def stylised_facts(frame):
    """Return the facts of a series of one-minute bars.

    Returns are close to close inside segments, divided by the mean |return| of
    their minute of the day and by their session's own level, so that neither
    the day's shape nor a wild month passes for clustering; the raw kurtosis,
    which a few announcements make, is shown for information.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`; sessions of 18:00 to 17:00 New York.

    Returns
    -------
    dict of str to float
        The keys of BANDS, and `excess kurtosis, raw`.
    """
    returns, ranges, minute, session = _returns(frame)
    within, level = _standardise(returns, minute, session)
    correlation = autocorrelation(np.abs(within))
    profile = half_hour_profile(frame)
    nq = np.where(np.isfinite(profile), NQ_PROFILE, np.nan)  # the hours this series has
    nq = nq / np.sqrt(np.nanmean(nq**2))
    return {
        "excess kurtosis, raw": _excess_kurtosis(returns),
        "excess kurtosis within sessions": _excess_kurtosis(within),
        **{f"autocorrelation of |r|, lag {lag}": float(correlation[lag - 1]) for lag in (1, 10, 50)},
        "spread of session levels (log)": float(np.log(level).std()),
        "range over close-to-close move": float(np.nanmean(ranges) / np.nanmean(np.abs(returns))),
        "half-hour profile, log distance to NQ": float(np.sqrt(np.nanmean(np.log(profile / nq) ** 2))),
    }


def compare_facts(facts):
    """Return the facts of several series side by side, each judged by its band.

    Parameters
    ----------
    facts : dict of str to dict
        Name of a series to its `stylised_facts`; the first is judged.

    Returns
    -------
    DataFrame
        `fact`, one column a series, `band` and `verdict` (PASS, FAIL, or – where no band is stated).
    """
    table = pd.DataFrame(facts).rename_axis("fact").reset_index()
    bands = [BANDS.get(name) for name in table["fact"]]
    judged = table.iloc[:, 1]
    table["band"] = [f"{band[0]:g} to {band[1]:g}" if band else "–" for band in bands]
    table["verdict"] = [
        "–" if band is None else "PASS" if band[0] <= value <= band[1] else "FAIL"
        for band, value in zip(bands, judged, strict=True)
    ]
    return table


def volatility_clustering(frame):
    """Return the autocorrelation of |return| within sessions at lags 1 to 50, (50,) float64; see `stylised_facts`."""
    returns, _, minute, session = _returns(frame)
    return autocorrelation(np.abs(_standardise(returns, minute, session)[0]))


def half_hour_profile(frame):
    """Return the mean |return| of each half hour over their root mean square, (46,) float64; NaN without bars."""
    returns, _, minute, _ = _returns(frame)
    means = pd.Series(np.abs(returns)).groupby(minute // 30).mean().reindex(range(HALF_HOURS)).to_numpy()
    return means / np.sqrt(np.nanmean(means**2))


def autocorrelation(values, n_lags=MAX_LAG_BARS):
    """Return the autocorrelation at lags 1 to `n_lags`, (n_lags,) float64; pairs with a NaN are left out.

    NaN where there are no pairs, or nothing varies.

    Parameters
    ----------
    values : ndarray (n,), float64
    """
    off = values - np.nanmean(values)
    products = [off[lag:] * off[:-lag] for lag in range(1, n_lags + 1)]
    means = [np.nanmean(each) if np.isfinite(each).any() else np.nan for each in products]
    variance = np.nanmean(off**2)
    return np.array(means) / variance if variance > 0 else np.full(n_lags, np.nan)


def _returns(frame):
    """Return log returns and log ranges (NaN at a segment's first bar), minute of the session, and trade date."""
    close = np.log(frame["close"].to_numpy())
    returns = np.diff(close, prepend=np.nan)
    ranges = np.log(frame["high"].to_numpy() / frame["low"].to_numpy())
    first = segment_starts(frame)
    returns[first] = np.nan
    ranges[first] = np.nan
    local = frame.index.tz_convert(ZONE)
    minute = np.asarray((local.hour - 18) % 24 * 60 + local.minute)
    return returns, ranges, minute, trade_dates(frame.index)


def _standardise(returns, minute, session):
    """Return returns over their minute's and session's mean size (NaN in short sessions), and each session's level."""
    size = pd.Series(np.abs(returns))
    usual = size.groupby(minute).transform("mean")
    relative = size / usual
    bars = size.groupby(session).transform("count")
    is_long = (bars >= MIN_SESSION_SHARE * size.groupby(session).count().median()).to_numpy()
    level = relative.groupby(session).transform("mean")
    within = np.where(is_long, returns / usual / level, np.nan)
    return within, relative[is_long].groupby(session[is_long]).mean()


def _excess_kurtosis(values):
    values = values[np.isfinite(values)]
    off = values - values.mean()
    return float(np.mean(off**4) / np.mean(off**2) ** 2 - 3)
