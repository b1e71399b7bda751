"""Evidence that a feature table is causal and free of absolute price."""

import numpy as np
import pandas as pd

from moola_lib.features.table import build_features
from moola_lib.market.bars import PRICES

LEAST_DENSITY = 0.5  # share of values that are not 0; a column of which only the last step is written has 0.01
MOST_FLIPS = 0.25  # share of bars; a swing that lasts under four bars is one bar's own range


def check_causality(frame, *, n_checks=20, seed=17, **options):
    """Change every bar after t, at random t, and see whether any row up to t changes.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    n_checks : int
        Number of random bars t.
    seed : int
    **options
        Of `build_features`.

    Returns
    -------
    DataFrame
        `bar`, `rows_compared`, `rows_changed` (bit for bit; must be 0), and
        `later_rows_changed`, which must not be 0 or the check could not fail.
    """
    rng = np.random.default_rng(seed)
    table = build_features(frame, **options)
    rows = []
    for t in np.sort(rng.integers(0, len(frame) - 1, n_checks)):
        changed = frame.copy()
        factor = np.exp(rng.normal(0, 0.01, len(frame) - t - 1))
        for name in PRICES:
            column = changed[name].to_numpy(copy=True)
            column[t + 1 :] *= factor
            changed[name] = column
        again = build_features(changed, **options)
        is_same = (again.values == table.values).all(axis=1) & (again.is_valid == table.is_valid)
        rows.append((int(t), int(t) + 1, int((~is_same[: t + 1]).sum()), int((~is_same[t + 1 :]).sum())))
    return pd.DataFrame(rows, columns=["bar", "rows_compared", "rows_changed", "later_rows_changed"])


def check_scale(frame, *, factors=(1e-3, 0.1, 1.3, 1e3), **options):
    """Multiply every price and see how far any feature moves.

    Returns
    -------
    DataFrame
        `factor`, `largest_change` (feature units), `feature` in which it occurs.
    """
    table = build_features(frame, **options)
    rows = []
    for factor in factors:
        scaled = frame.assign(**{name: frame[name] * factor for name in PRICES})
        change = np.abs(build_features(scaled, **options).values - table.values).max(axis=0)
        rows.append((factor, float(change.max()), table.names[int(change.argmax())]))
    return pd.DataFrame(rows, columns=["factor", "largest_change", "feature"])


def describe_features(table):
    """Return one row per feature over valid rows.

    Returns
    -------
    DataFrame
        `feature`, `clip` as text, `least`, `mean`, `sd`, `greatest`,
        `at_clip` (share of values on a bound), `non_zero` (share), `not_finite`
        (count), `threshold` (of `non_zero`) and `verdict` (dense or sparse).
    """
    values = table.values[table.is_valid].astype(np.float64)
    low, high = table.ranges.T
    non_zero = (values != 0).mean(axis=0)
    return pd.DataFrame(
        {
            "feature": table.names,
            "clip": [f"{a:g} to {b:g}" for a, b in table.ranges],
            "least": values.min(axis=0),
            "mean": values.mean(axis=0),
            "sd": values.std(axis=0),
            "greatest": values.max(axis=0),
            "at_clip": ((values <= low) | (values >= high)).mean(axis=0),
            "non_zero": non_zero,
            "not_finite": (~np.isfinite(table.values)).sum(axis=0),
            "threshold": LEAST_DENSITY,
            "verdict": np.where(non_zero > LEAST_DENSITY, "dense", "sparse"),
        }
    )


def feature_histograms(table, *, n_bins=40):
    """Return bin edges and shares of each feature over valid rows, dict of name to (edges, shares)."""
    values = table.values[table.is_valid]
    found = {}
    for column, name in enumerate(table.names):
        counts, edges = np.histogram(values[:, column], bins=n_bins)
        found[name] = (edges, counts / counts.sum())
    return found


def compare_zigzags(frame, *, ks=(1.2, 2.0, 3.0, 4.0, 5.0), max_gap_minutes=5.0):
    """Tell how often each swing rule turns.

    Parameters
    ----------
    frame : DataFrame
        Bars indexed by UTC `ts`.
    ks : sequence of float
        Retracements in ATRs for the primary rule; the legacy rule has its own.
    max_gap_minutes : float
        Longest gap inside a segment.

    Returns
    -------
    DataFrame
        `rule`, `flip_share` (of all bars), `distance_at_clip` (share of valid
        rows with #6 or #7 on its clip), `threshold` (of `flip_share`) and
        `verdict`: swings, or noise where it turns more often.
    """
    rules = [("legacy", "legacy", 3.0), *((f"primary, k = {k:g}", "primary", k) for k in ks)]
    rows = []
    for name, zigzag, k in rules:
        table = build_features(frame, zigzag=zigzag, k=k, max_gap_minutes=max_gap_minutes)
        distances = np.abs(table.values[table.is_valid][:, 6:8])
        share = float(table.is_flip.mean())
        verdict = "swings" if share <= MOST_FLIPS else "noise"
        rows.append((name, share, float((distances >= 3).any(axis=1).mean()), MOST_FLIPS, verdict))
    return pd.DataFrame(rows, columns=["rule", "flip_share", "distance_at_clip", "threshold", "verdict"])
