"""How well the labels agree with themselves, and so how well anyone can agree with them."""

import itertools
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from moola_lib.evaluation.decoding import TOLERANCE_BARS
from moola_lib.evaluation.intervals import day_block_weights, interval

QUANTILES = {"half within": 0.5, "80% within": 0.8, "95% within": 0.95}
PAIRS = ("all", "same annotator", "two annotators")


@dataclass(frozen=True)
class AnnotatorCeiling:
    """What windows labelled more than once say.

    Attributes
    ----------
    n_windows, n_pairs : int
        Windows read more than once, and pairs of readings of one window.
    repeat_sd : float
        Standard deviation of a label's start about the window's true one, in
        bars: √(mean squared difference / 2).
    agreement : float
        Share of pairs whose starts are within 3 bars: two labels, both with noise.
    ceiling : float
        Hit@3 of the true starts, by `hit_ceiling` of the repeat SD.
    low, high : float
        95% interval of the ceiling, windows resampled.
    """

    n_windows: int
    n_pairs: int
    repeat_sd: float
    agreement: float
    ceiling: float
    low: float
    high: float


def hit_ceiling(repeat_sd, tolerance_bars=TOLERANCE_BARS):
    """Return the Hit@k that a method with the true starts scores against labels with normal noise.

    Parameters
    ----------
    repeat_sd : float
        Of the labels about the truth, in bars.
    tolerance_bars : int

    Returns
    -------
    float
        P(|noise| < k + ½), noise rounded to bars: 76, 62 and 52% for 3, 4 and 5 bars.
    """
    if repeat_sd == 0:
        return 1.0
    return 2 * NormalDist().cdf((tolerance_bars + 0.5) / float(repeat_sd)) - 1


def annotator_ceiling(table, *, tolerance_bars=TOLERANCE_BARS, n_bootstrap=1000, seed=17):
    """Measure repeat noise where windows were labelled more than once.

    Parameters
    ----------
    table : DataFrame
        Checked label table. Readings of one window are rows with the same `symbol`
        and `window_start`, by another `annotator` or under another `window_id`;
        of a reading with several expansions the first counts, as it does in training.
    tolerance_bars, n_bootstrap, seed : int

    Returns
    -------
    AnnotatorCeiling or None
        None where no window with an expansion was read twice: the ceiling is not known.
    """
    pairs = pair_readings(table)
    pairs = pairs[pairs["start_difference"].notna()]
    if pairs.empty:
        return None
    window = pairs.groupby(["symbol", "window_start"], sort=False).ngroup().to_numpy()
    differences = pairs["start_difference"].to_numpy(np.float64)
    weights = day_block_weights(window, n_bootstrap=n_bootstrap, seed=seed)
    resampled = np.sqrt((weights @ differences**2) / weights.sum(axis=1) / 2)
    sd = float(np.sqrt((differences**2).mean() / 2))
    near = float((np.abs(differences) <= tolerance_bars).mean())
    low, high = interval([hit_ceiling(each, tolerance_bars) for each in resampled])
    return AnnotatorCeiling(len(set(window)), len(pairs), sd, near, hit_ceiling(sd, tolerance_bars), low, high)


def pair_readings(table):
    """Return every pair of readings of one window: label against label.

    Parameters
    ----------
    table : DataFrame
        Checked label table; see `annotator_ceiling` for what a reading is. A column
        `labelling` names readings apart that have window id and annotator in
        common, as the studio's journals keep them. Proposals are nobody's reading.

    Returns
    -------
    DataFrame
        `symbol`, `window_start`, `kind` (same annotator, two annotators), and of
        the first and second reading `window_id`, `annotator`, `label`, in the
        order of annotators and times; `start_difference` and `end_difference`
        (second less first, in bars; NaN where either sees no expansion).
    """
    is_given = ~table["source"].fillna("").str.startswith("proposal")
    named = table[is_given].assign(annotator=table["annotator"].fillna(""))
    reading = ["symbol", "window_start", "annotator", "window_id", *({"labelling"} & set(named))]
    firsts = named.sort_values([*reading, "expansion_start"], kind="stable").drop_duplicates(reading)
    firsts = firsts.sort_values([*reading[:3], "labelled_at"], kind="stable")
    rows = []
    for (symbol, stamp), readings in firsts.groupby(["symbol", "window_start"]):
        for one, two in itertools.combinations(readings.itertuples(index=False), 2):
            kind = PAIRS[1] if one.annotator == two.annotator else PAIRS[2]
            ids = (one.window_id, two.window_id, one.annotator, two.annotator, one.label, two.label)
            edges = ("expansion_start", "expansion_end")
            rows.append((symbol, stamp, kind, *ids, *(_difference(one, two, edge) for edge in edges)))
    both = [f"{name}_{which}" for name in ("window_id", "annotator", "label") for which in ("first", "second")]
    columns = ["symbol", "window_start", "kind", *both, "start_difference", "end_difference"]
    return pd.DataFrame(rows, columns=columns).astype({"start_difference": float, "end_difference": float})


def measure_agreement(table, *, tolerance_bars=TOLERANCE_BARS, n_bootstrap=1000, seed=17):
    """Say how well readings of the same window agree, over all pairs and by who made them.

    Parameters
    ----------
    table : DataFrame
        Checked label table.
    tolerance_bars, n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        `pairs` (all, same annotator, two annotators), `figure`, `value`, `low`
        and `high` (95%, windows resampled), `n` (pairs it rests on). Figures:
        Cohen's kappa of the state (consolidation, retracement, none), the share
        with the same state, the shares of starts, ends and both within the
        tolerance, and for each edge the bars within which a share of the pairs
        lies. Without repeats it has no rows.
    """
    pairs = pair_readings(table)
    kinds = {kind: pairs if kind == PAIRS[0] else pairs[pairs["kind"] == kind] for kind in PAIRS}
    rows = []
    for kind, chosen in kinds.items():
        if chosen.empty:
            continue
        window = chosen.groupby(["symbol", "window_start"], sort=False).ngroup().to_numpy()
        weights = day_block_weights(window, n_bootstrap=n_bootstrap, seed=seed)
        weights = np.concatenate([np.ones((1, len(chosen))), weights])  # the first row gives the figure itself
        for figure, (values, n) in _figures(chosen, weights, tolerance_bars).items():
            rows.append((kind, figure, float(values[0]), *interval(values[1:]), n))
    return pd.DataFrame(rows, columns=["pairs", "figure", "value", "low", "high", "n"])


def weighted_kappa(first, second, weights):
    """Return Cohen's kappa of two readings for each row of weights.

    Parameters
    ----------
    first, second : ndarray (n,), str
        The states.
    weights : ndarray (m, n)
        How often each pair is counted.

    Returns
    -------
    ndarray (m,), float64
        NaN where chance alone agrees always (a single state), or nothing is counted.

    Notes
    -----
    Cohen 1960, Educational and Psychological Measurement 20; as scikit-learn's
    `cohen_kappa_score` with `sample_weight`, for all resamples at once.
    """
    states = np.unique(np.concatenate([first, second]))
    one, two = (np.equal.outer(np.asarray(each), states).astype(float) for each in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights.sum(axis=1)
        observed = weights @ (first == second) / total
        expected = ((weights @ one) * (weights @ two)).sum(axis=1) / total**2
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)


def _figures(pairs, weights, tolerance_bars):
    """Return {figure: (its value for each row of weights, pairs it rests on)}."""
    first, second = (pairs[f"label_{which}"].to_numpy(object) for which in ("first", "second"))
    has_both = pairs["start_difference"].notna().to_numpy()
    apart = {edge: np.abs(pairs.loc[has_both, f"{edge}_difference"].to_numpy()) for edge in ("start", "end")}
    apart["both edges"] = np.maximum(apart["start"], apart["end"])
    found = {
        "kappa of the state": (weighted_kappa(first, second, weights), len(pairs)),
        "same state": (_share(weights, first == second), len(pairs)),
    }
    n, counted = int(has_both.sum()), weights[:, has_both]
    for edge, bars in apart.items():
        found[f"{edge} within {tolerance_bars} bars"] = (_share(counted, bars <= tolerance_bars), n)
    for edge in ("start", "end"):
        for name, quantile in QUANTILES.items():
            found[f"{edge}: {name} (bars)"] = (_weighted_quantile(apart[edge], counted, quantile), n)
    return found


def _share(weights, is_so):
    """Return the weighted share for each row of weights; NaN where nothing is counted."""
    total = weights.sum(axis=1)
    return np.divide(weights @ is_so.astype(float), total, out=np.full(len(weights), np.nan), where=total > 0)


def _weighted_quantile(values, weights, quantile):
    """Return the least value within which the share lies, for each row of weights; NaN where nothing is counted."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[:, order], axis=1)
    if below.shape[1] == 0:
        return np.full(len(weights), np.nan)
    at = (below >= quantile * below[:, -1:] - 1e-9).argmax(axis=1)
    return np.where(below[:, -1] > 0, values[order][at], np.nan)


def _difference(one, two, edge):
    """Return the second reading's edge less the first's, NaN where either has none."""
    a, b = getattr(one, edge), getattr(two, edge)
    return np.nan if pd.isna(a) or pd.isna(b) else float(b - a)
