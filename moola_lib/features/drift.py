"""Do new bars look like those a model was trained on? Distributions that fit in a model's card."""

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.features.quality import (
    LARGE_DRIFT,
    MODERATE_DRIFT,
    check_stamps,
    count_cells,
    cut_bins,
    spread_between,
    stability_index,
)
from moola_lib.market.segments import trade_dates


def describe_distributions(table, index):
    """Return each feature's distribution as plain JSON: what `drift_from` holds new bars against.

    Parameters
    ----------
    table : FeatureTable
        Of the bars that a model is trained on.
    index : DatetimeIndex (n_bars,), UTC

    Returns
    -------
    dict of str to dict
        By feature: `edges` of its bins, `counts` of valid rows in them, and
        `spread` between trade dates (see `quality.spread_between`).
    """
    check_stamps(table, index)
    return {
        name: {"edges": edges.tolist(), "counts": counts.sum(axis=0).tolist(), "spread": _spread(counts)}
        for name, edges, counts in _count(table, index, {})
    }


def drift_from(distributions, table, index):
    """Hold the features of new bars against a model's training bars.

    Parameters
    ----------
    distributions : dict
        Of `describe_distributions`.
    table : FeatureTable
        Of the new bars.
    index : DatetimeIndex (n_bars,), UTC

    Returns
    -------
    DataFrame
        `feature`, `n_rows`, `psi` (see `quality.measure_drift`), `noise` (its mean
        without drift, by the larger scatter of days of the two), `excess` and
        `verdict`: stable, shifted (excess from 0.1), drifted (from 0.25), or
        too few rows where the noise alone reaches 0.1.

    Raises
    ------
    UserError
        The table lacks a feature of the distributions, or has no valid row.
    """
    check_stamps(table, index)
    missing = [name for name in distributions if name not in table.names]
    if missing:
        raise UserError(f"the bars have no feature {', '.join(missing)}; they have {', '.join(table.names)}")
    rows = []
    for name, _, counts in _count(table, index, distributions):
        known = distributions[name]
        own, trained = counts.sum(axis=0), np.array(known["counts"])
        psi = float(stability_index(own, trained))
        noise = (1 / own.sum() + 1 / trained.sum()) * max(known["spread"], _spread(counts))
        excess = max(psi - noise, 0.0)
        verdict = "drifted" if excess >= LARGE_DRIFT else "shifted" if excess >= MODERATE_DRIFT else "stable"
        rows.append((name, int(own.sum()), psi, noise, excess, "too few rows" if noise >= MODERATE_DRIFT else verdict))
    return pd.DataFrame(rows, columns=["feature", "n_rows", "psi", "noise", "excess", "verdict"])


def _count(table, index, distributions):
    """Yield (feature, edges, counts by trade date): of the features and bins of distributions, or of its own."""
    if not table.is_valid.any():
        raise UserError("no row of the feature table is valid; give more bars")
    dates, day = np.unique(trade_dates(index[table.is_valid]), return_inverse=True)
    for column, name in enumerate(table.names):
        if distributions and name not in distributions:
            continue
        values = table.values[table.is_valid, column]
        known = distributions.get(name)
        edges = cut_bins(values) if known is None else np.array(known["edges"], np.float32)
        yield name, edges, count_cells(values, day, len(dates), edges)


def _spread(counts):
    """Return the spread between the trade dates of one group."""
    return spread_between(counts, np.zeros(len(counts), np.int64))
