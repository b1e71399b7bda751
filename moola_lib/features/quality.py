"""Is a feature fit to learn from: does it drift, repeat another, or have to do with expansions at all?

Every judgement stands in a frame beside the threshold it was made by.
Only valid rows are looked at.
"""

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.market.segments import ZONE, trade_dates

MODERATE_DRIFT, LARGE_DRIFT = 0.1, 0.25
REDUNDANT_CORRELATION = 0.95
EXPLAINED_SHARE = 0.9  # a variance inflation factor of 10
MOST_NOISE = MODERATE_DRIFT / 2  # a month that scatters more cannot be judged,
CLEAR_RATIO = 5  # unless its index is so many times its noise, as that of raw prices is
MOST_ROWS = 200_000  # of evenly spaced rows: enough for quantiles and ranks to two digits
OPEN_HOUR = 18  # New York


def measure_drift(table, index, *, by="month", n_bins=10):
    """Compare each feature's distribution in every month, or session hour, with that in all others.

    The population stability index over bins a with shares p (here) and q
    (elsewhere) is sum (p - q) ln(p / q). Without any drift its mean is not 0 but
    (1/n + 1/m) sum of the variances of a bin's share over q, which is
    (n_bins - 1)(1/n + 1/m) for independent rows. Neighbouring bars are not
    independent, so the variance is taken between trade dates: `noise`, which
    is subtracted before judging.

    Parameters
    ----------
    table : FeatureTable (n_bars, n_features)
    index : DatetimeIndex (n_bars,), UTC
        Stamps of its bars.
    by : {"month", "hour"}
        Months of trade dates, or hours since 18:00 New York (0 to 22).
    n_bins : int
        Bins of equal shares of the whole series; fewer where many values are
        equal, as on a clip.

    Returns
    -------
    DataFrame
        One row per feature and group: `feature`, `month` (str) or `hour`
        (int), `n_rows`, `psi`, `noise`, `excess` (psi - noise, at least 0),
        `threshold` (0.1) and `verdict`. By month: stable, shifted (from 0.1),
        drifted (from 0.25), or too few rows where the noise is above 0.05 and a
        fifth of the index. By hour: stable, or by design from 0.1, because quiet
        nights and lively openings belong to a day. A single group has nothing to
        be compared with: too few rows, `psi` NaN.

    Raises
    ------
    UserError
        The stamps are not the table's, `by` is unknown, or no row is valid.

    Notes
    -----
    Thresholds: a convention of credit scoring (Siddiqi 2006, Credit Risk
    Scorecards). Mean under no drift: Yurdakul and Naranjo 2020, J. Risk Model
    Validation 14(4); by trade date instead of by row is ours, as is half a row
    added to every bin so that none is empty.
    """
    if by not in ("month", "hour"):
        raise UserError(f"drift by {by!r} is not known; choose month or hour")
    check_stamps(table, index)
    is_valid = table.is_valid
    dates, hours = _session_clock(index[is_valid])
    groups = dates.astype("datetime64[M]") if by == "month" else hours
    names, group = np.unique(groups, return_inverse=True)
    cell, cell_group = _number_cells(dates, group)
    n_rows = np.bincount(group)
    values = table.values[is_valid]
    labels = names.astype(str) if by == "month" else names
    frames = []
    for column, name in enumerate(table.names):
        counts = count_cells(values[:, column], cell, len(cell_group), cut_bins(values[:, column], n_bins))
        psi, noise = _stability(counts, cell_group, len(names))
        frames.append(pd.DataFrame({"feature": name, by: labels, "n_rows": n_rows, "psi": psi, "noise": noise}))
    found = pd.concat(frames, ignore_index=True)
    found["excess"] = np.maximum(found["psi"] - found["noise"], 0)
    found["threshold"] = MODERATE_DRIFT
    is_moderate = found["excess"] >= MODERATE_DRIFT
    if by == "month":
        is_unclear = (found["noise"] > MOST_NOISE) & ~(found["psi"] >= CLEAR_RATIO * found["noise"])
        judged = [is_unclear, found["excess"] >= LARGE_DRIFT, is_moderate]
        found["verdict"] = np.select(judged, ["too few rows", "drifted", "shifted"], "stable")
    else:
        judged = [np.isinf(found["noise"]), is_moderate]
        found["verdict"] = np.select(judged, ["too few rows", "by design"], "stable")
    return found


def summarize_drift(drift):
    """Return one row per feature: its worst group, how many were beyond the threshold, and the verdict.

    Parameters
    ----------
    drift : DataFrame
        From `measure_drift`.

    Returns
    -------
    DataFrame
        `feature`, `median` (excess), `worst` (excess), `where` (month or hour
        of the worst), `beyond` and `of` (groups from the threshold on, and groups
        judged), `threshold` and `verdict` (that of the worst group).
    """
    by = "month" if "month" in drift else "hour"
    judged = drift[drift["verdict"] != "too few rows"]
    rows = []
    for name in drift["feature"].unique():
        part = judged[judged["feature"] == name]
        if part.empty:
            rows.append((name, np.nan, np.nan, "", 0, 0, MODERATE_DRIFT, "too few rows"))
            continue
        worst = part.loc[part["excess"].idxmax()]
        beyond = int((part["excess"] >= MODERATE_DRIFT).sum())
        middle, most = part["excess"].median(), worst["excess"]
        rows.append((name, middle, most, worst[by], beyond, len(part), MODERATE_DRIFT, worst["verdict"]))
    return pd.DataFrame(rows, columns=["feature", "median", "worst", "where", "beyond", "of", "threshold", "verdict"])


def correlate_features(table):
    """Return Spearman's rank correlation between all features, over evenly spaced valid rows (at most 200,000).

    Ranks: what a network can undo is any monotone bending, not only a straight line.

    Returns
    -------
    DataFrame (n_features, n_features)
        NaN beside a feature that is constant.
    """
    ranks = pd.DataFrame(_spread_rows(table), columns=table.names).rank()
    return ranks.corr()


def find_redundant(table, correlations=None):
    """Tell which features say what others say: pairwise by rank, and jointly by straight lines.

    Parameters
    ----------
    table : FeatureTable
    correlations : DataFrame, optional
        From `correlate_features`; computed where absent.

    Returns
    -------
    DataFrame
        `feature`, `closest` (the other feature with the largest rank
        correlation), `correlation`, `explained` (R² of the feature on all
        others), `threshold` (text) and `verdict`: constant, repeats `closest`
        (|correlation| above 0.95), follows from others (explained above 0.9) or
        of its own.
    """
    correlations = correlate_features(table) if correlations is None else correlations
    matrix = correlations.to_numpy(copy=True)
    np.fill_diagonal(matrix, np.nan)
    explained = _explained_share(_spread_rows(table).astype(np.float64))
    rows = []
    for k, name in enumerate(table.names):
        strength = np.abs(matrix[k])
        if np.isnan(strength).all():
            closest, correlation, verdict = "", np.nan, "constant" if np.isnan(explained[k]) else "of its own"
        else:
            at = int(np.nanargmax(strength))
            closest, correlation = table.names[at], matrix[k, at]
            verdict = "follows from others" if explained[k] > EXPLAINED_SHARE else "of its own"
            verdict = f"repeats {closest}" if strength[at] > REDUNDANT_CORRELATION else verdict
        rows.append((name, closest, correlation, explained[k], verdict))
    found = pd.DataFrame(rows, columns=["feature", "closest", "correlation", "explained", "verdict"])
    found.insert(4, "threshold", f"|r| {REDUNDANT_CORRELATION:g}, R² {EXPLAINED_SHARE:g}")
    return found


def check_stamps(table, index):
    """Refuse stamps that are not one per row of the table, and a table without a valid row (UserError)."""
    if len(index) != len(table):
        raise UserError(f"{len(index):,} stamps are given for a table of {len(table):,} rows; give its bars' index")
    if not table.is_valid.any():
        raise UserError("no row of the table is valid; a segment's first rows never are")


def _session_clock(index):
    """Return each bar's trade date (datetime64[D]) and hour since 18:00 New York (int).

    New York is whole hours from UTC, so one conversion serves all bars of an hour.
    """
    stamps = index.as_unit("s").asi8 // 3600
    is_new = np.r_[True, stamps[1:] != stamps[:-1]]
    hours = index[is_new].floor("h")
    local = hours.tz_convert(ZONE).hour.to_numpy()
    place = np.cumsum(is_new) - 1
    return trade_dates(hours)[place], ((local - OPEN_HOUR) % 24)[place]


def _number_cells(dates, group):
    """Number the (trade date, group) pairs that occur; return each row's pair and each pair's group."""
    day = (dates - dates.min()).astype(np.int64)
    pairs, cell = np.unique(day * (group.max() + 1) + group, return_inverse=True)
    return cell, pairs % (group.max() + 1)


def cut_bins(values, n_bins=10):
    """Return the edges of bins that hold equal shares of the values, at most (n_bins - 1,) float32, increasing.

    A value that many rows share, at either end, gets a bin to itself.
    """
    sample = values[:: -(-len(values) // MOST_ROWS)]
    edges = np.quantile(sample, np.arange(1, n_bins) / n_bins)
    return np.unique(np.minimum(edges.astype(np.float32), np.nextafter(values.max(), np.float32(-np.inf))))


def count_cells(values, cell, n_cells, edges):
    """Return how many rows of each cell fall into each bin, (n_cells, n_edges + 1) float64."""
    code = np.searchsorted(edges, values, side="left")
    n = len(edges) + 1
    return np.bincount(cell * n + code, minlength=n_cells * n).reshape(n_cells, n).astype(np.float64)


def _stability(counts, cell_group, n_groups):
    """Return the stability index of each group against all others, and its mean if nothing drifted."""
    if n_groups == 1:  # there are no others
        return np.array([np.nan]), np.array([np.inf])
    inside = np.zeros((n_groups, counts.shape[1]))
    np.add.at(inside, cell_group, counts)
    whole = inside.sum(axis=0)
    psi = stability_index(inside, whole - inside)
    n, m = inside.sum(axis=1), (whole - inside).sum(axis=1)
    return psi, (1 / n + 1 / m) * spread_between(counts, cell_group)


def stability_index(counts, others):
    """Return the population stability index of counts (..., n_bins) against others of the same bins."""
    shares, beside = _smooth_shares(counts), _smooth_shares(others)
    return ((shares - beside) * np.log(shares / beside)).sum(axis=-1)


def spread_between(counts, cell_group):
    """Return how much the shares of cells of one group scatter, of which the index is made without any drift.

    Parameters
    ----------
    counts : ndarray (n_cells, n_bins)
        By trade date and group.
    cell_group : ndarray (n_cells,), int64

    Returns
    -------
    float
        Times (1 / n + 1 / m) rows it is the index's mean.
    """
    inside = np.zeros((cell_group.max() + 1, counts.shape[1]))
    np.add.at(inside, cell_group, counts)
    n_groups, sizes = len(inside), counts.sum(axis=1)
    rest = counts - sizes[:, None] * (inside / inside.sum(axis=1, keepdims=True))[cell_group]
    n_cells = np.bincount(cell_group, minlength=n_groups)
    freedom = np.where(n_cells > 1, n_cells / np.maximum(n_cells - 1, 1), 0.0)[cell_group]  # as in a sample variance
    is_used = freedom > 0
    variance = (freedom[:, None] * rest**2)[is_used].sum(axis=0) / max(sizes[is_used].sum(), 1)
    return float((variance / _smooth_shares(inside.sum(axis=0)[None])[0]).sum())


def _smooth_shares(counts):
    """Return shares along rows with half a row added to every bin."""
    return (counts + 0.5) / (counts + 0.5).sum(axis=-1, keepdims=True)


def _spread_rows(table):
    """Return evenly spaced valid rows, at most MOST_ROWS."""
    rows = np.flatnonzero(table.is_valid)
    return table.values[rows[:: max(-(-len(rows) // MOST_ROWS), 1)]]


def _explained_share(values):
    """Return R² of each column on all others, NaN where a column is constant."""
    values = values - values.mean(axis=0)
    sd = values.std(axis=0)
    varies = sd > 0
    scaled = values[:, varies] / sd[varies]
    gram = scaled.T @ scaled / len(scaled)
    found = np.full(len(sd), np.nan)
    for k, column in enumerate(np.flatnonzero(varies)):
        rest = np.arange(len(gram)) != k
        weights = np.linalg.lstsq(gram[np.ix_(rest, rest)], gram[rest, k], rcond=1e-9)[0]
        found[column] = np.clip(weights @ gram[rest, k], 0, 1)
    return found
