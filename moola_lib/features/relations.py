"""Do features know of expansions: each one's relation to being inside, with its interval and a control."""

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.features.quality import MOST_ROWS, check_stamps
from moola_lib.market.segments import trade_dates

AUC_BINS = 64
WEAK_AUC = 0.05  # beyond one half; a real but smaller relation is of little use by itself


def relate_to_expansions(table, is_inside, index, *, is_known=None, n_bootstrap=1000, n_shifts=200, seed=17):
    """Relate each feature to being inside an expansion, beside what chance would give.

    Retrospective: it says what a bar inside looks like, not that the next one can be told.

    Parameters
    ----------
    table : FeatureTable (n_bars, n_features)
    is_inside : array_like (n_bars,), bool
        True for bars inside an expansion.
    index : DatetimeIndex (n_bars,), UTC
        Stamps of the table's bars.
    is_known : array_like (n_bars,), bool, optional
        Bars of which `is_inside` is known, for example those of labelled
        windows; default all. Only rows both valid and known are used.
    n_bootstrap : int
        Resamples of whole trade dates: bars of one day are not independent.
    n_shifts : int
        Control: the labels moved around the series by a random number of rows,
        at least a twentieth of it, which keeps both sides' own runs but breaks
        their relation (the hour of the day included).
    seed : int

    Returns
    -------
    DataFrame
        `feature`; `correlation` (point-biserial: Pearson's with 0 and 1) with
        `low` and `high` of its 95% interval; `auc` (probability that a bar
        inside has the larger value, ties half) with `auc_low` and `auc_high`;
        `control_low` and `control_high`, the central 95% of the shifted
        correlations; `threshold`, the larger size of the two; `verdict`: related
        where the interval leaves out 0 and |correlation| is above the threshold,
        else as chance.

    Raises
    ------
    UserError
        Lengths disagree, no bar or every bar is inside, or there are fewer than
        two trade dates.
    """
    check_stamps(table, index)
    is_used = np.asarray(table.is_valid).copy()
    for name, flags in (("is_inside", is_inside), ("is_known", is_known)):
        if flags is not None and len(flags) != len(table):
            raise UserError(f"{name} has {len(flags):,} entries for a table of {len(table):,} rows; give one per bar")
    if is_known is not None:
        is_used &= np.asarray(is_known, bool)
    inside = np.asarray(is_inside, bool)[is_used]
    n = len(inside)
    if inside.all() or not inside.any():
        raise UserError(f"{inside.sum():,} of {n:,} usable bars are inside an expansion; both kinds are needed")
    dates = trade_dates(index[is_used])
    days = np.flatnonzero(np.r_[True, dates[1:] != dates[:-1]])
    if len(days) < 2:
        raise UserError("all usable bars are of one trade date; an interval needs at least two")
    rng = np.random.default_rng(seed)
    weights = np.ones((n_bootstrap + 1, len(days)))  # the first row counts every day once: the figure itself
    weights[1:] = rng.multinomial(len(days), np.full(len(days), 1 / len(days)), size=n_bootstrap)
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False)).reshape(-1, 2)  # rows [first, last + 1)
    shifts = rng.integers(max(n // 20, 1), max(n - n // 20, 2), n_shifts)
    moved = (edges.T[:, None, :] + shifts[None, :, None]) % n
    day = np.repeat(np.arange(len(days)), np.diff(days, append=n))

    rows = []
    for column, name in enumerate(table.names):
        values = table.values[is_used, column]
        x = values.astype(np.float64)
        x -= x.mean()
        correlations = _correlate(x, inside, days, weights)
        aucs = _rank(values, inside, day, weights)
        control = _correlate_moved(x, inside, moved)
        rows.append((name, *_with_interval(correlations), *_with_interval(aucs), *_central(control)))
    columns = ["correlation", "low", "high", "auc", "auc_low", "auc_high", "control_low", "control_high"]
    found = pd.DataFrame(rows, columns=["feature", *columns])
    found["threshold"] = found[["control_low", "control_high"]].abs().max(axis=1)
    is_real = (found["low"] * found["high"] > 0) & (found["correlation"].abs() > found["threshold"])
    is_weak = (found["auc"] - 0.5).abs() < WEAK_AUC
    found["verdict"] = np.select([~is_real, is_weak], ["as chance", "weak"], "related")
    return found


def _correlate(x, inside, days, weights):
    """Return Pearson's correlation of x and `inside` in each resample, from sums per day."""
    columns = (np.ones(len(x)), inside.astype(np.float64), x, x * x, x * inside)
    sums = np.stack([np.add.reduceat(values, days) for values in columns], axis=1)
    n, y, x, xx, xy = (weights @ sums).T
    with np.errstate(divide="ignore", invalid="ignore"):  # constant in a resample: NaN
        return (xy - x * y / n) / np.sqrt((xx - x * x / n) * (y - y * y / n))


def _rank(values, inside, day, weights):
    """Return the area under the ROC curve in each resample, values taken in bins of equal shares."""
    sample = values[:: -(-len(values) // MOST_ROWS)]
    edges = np.unique(np.quantile(sample, np.arange(1, AUC_BINS) / AUC_BINS).astype(np.float32))
    n_bins = len(edges) + 1
    code = np.searchsorted(edges, values, side="left")
    place = (day * n_bins + code) * 2 + inside
    counts = np.bincount(place, minlength=weights.shape[1] * n_bins * 2).astype(np.float64)
    outside, within = np.moveaxis((weights @ counts.reshape(len(weights[0]), -1)).reshape(-1, n_bins, 2), 2, 0)
    below = np.cumsum(outside, axis=1) - outside / 2
    with np.errstate(invalid="ignore"):  # a resample without a bar inside: NaN
        return (within * below).sum(axis=1) / (within.sum(axis=1) * outside.sum(axis=1))


def _correlate_moved(x, inside, moved):
    """Return the correlation with the labels moved around the series, one per shift.

    x is centred, so its running sum ends at 0 and a span may wrap around the end.
    """
    total = np.r_[0.0, np.cumsum(x)]
    total[-1] = 0.0
    inner = np.array([total[end].sum() - total[first].sum() for first, end in zip(*moved, strict=True)])
    spread = x.std() * inside.std() * len(x)
    return inner / spread if spread > 0 else np.full(len(inner), np.nan)


def _with_interval(values):
    """Return the figure (the first) and the central 95% of its resamples (the others)."""
    return values[0], *_central(values[1:])


def _central(values):
    """Return the central 95%, NaN where nothing is defined."""
    values = values[np.isfinite(values)]
    return np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
