"""How a fitted model does on bars that it was not trained on: another instrument, other years."""

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.evaluation.detections import judge_starts, score_detections
from moola_lib.evaluation.event_study import event_study, half_hours
from moola_lib.evaluation.intervals import interval, say_interval
from moola_lib.features.drift import drift_from
from moola_lib.market.ranges import ATR_BARS, average_true_range, true_range
from moola_lib.market.segments import trade_dates

HORIZON_BARS = 15  # after a detection
LEAST_APART_BARS = 10  # two large bars nearer than this are one surge of the rule
N_DRAWS = 200
SHARES = ("precision", "recall")


def study_events(watch):
    """Return (the event study of what was found, ""), or (None, why there is none)."""
    if len(watch.first) == 0:
        return None, "nothing was detected"
    try:
        return event_study(watch.series.frame, watch.series.table.starts, watch.first, watch.last), ""
    except UserError as error:
        return None, str(error)


def compare_chance(watch, *, n_draws=N_DRAWS, seed=17):
    """Hold precision and recall against as many detections made without the model.

    Parameters
    ----------
    watch : Watch
    n_draws, seed : int
        Of the random detections: each at a random watched bar of the same half
        hour of the day as one of the model's.

    Returns
    -------
    DataFrame
        `method` (model; ATR rule: the bars with the largest range beside the ATR
        before, as many; random), `precision` and `recall`, for the random ones
        the mean with `_low` and `_high`, the central 95% of the draws.
    """
    rng = np.random.default_rng(seed)
    rows = [{"method": "model", **_shares(watch, watch.first)}]
    rows.append({"method": "ATR rule", **_shares(watch, _largest_bars(watch, len(watch.first)))})
    drawn = pd.DataFrame([_shares(watch, each) for each in _random_bars(watch, n_draws, rng)])
    chance = {"method": "random"}
    for name in SHARES:
        chance[name] = drawn[name].mean()
        chance[f"{name}_low"], chance[f"{name}_high"] = interval(drawn[name])
    return pd.DataFrame([*rows, chance])


def transfer_table(watches, distributions=None, *, n_bootstrap=1000, seed=17):
    """Return how a model does on each of several series, a row each.

    Parameters
    ----------
    watches : dict of str to Watch
    distributions : dict, optional
        Of the training bars, from `features.drift.describe_distributions`.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        See `describe_watch`; `series` in front.
    """
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    return pd.DataFrame(
        [{"series": name, **describe_watch(watch, distributions, **options)} for name, watch in watches.items()]
    )


def describe_watch(watch, distributions=None, *, n_bootstrap=1000, seed=17):
    """Return all that one row says of a watched series.

    Parameters
    ----------
    watch : Watch
    distributions : dict, optional
    n_bootstrap, seed : int

    Returns
    -------
    dict
        `first_day`, `last_day`, `sessions`, `n_found`, `per_session` with `low`
        and `high`; `n_labelled`, `precision` and `recall` with `_low` and `_high`,
        each beside the same figure of the ATR rule (`rule_`) and of random bars
        (`random_`, with `_low` and `_high`), NaN where no expansion is known;
        `size` and `onward`, the move in ATR 15 bars after a detection less that of
        its controls, with `_low` and `_high` (NaN where there are too few);
        `n_drifted` of `n_features` (missing without distributions).
    """
    days = np.unique(trade_dates(watch.series.frame.index[watch.seen]))
    row = {"first_day": str(days[0]), "last_day": str(days[-1]), "sessions": len(days)}
    options = {"seen": watch.seen, "looked": watch.looked, "n_bootstrap": n_bootstrap, "seed": seed}
    found = score_detections(
        watch.series.frame, watch.series.table.starts, watch.first, watch.labelled, **options
    ).iloc[0]
    kept = ("n_found", "per_session", "low", "high")
    row |= {name: found[name] for name in kept}
    row["n_labelled"] = found.get("n_labelled", 0)
    for name in SHARES:
        row |= {f"{name}{edge}": found.get(f"{name}{edge}", np.nan) for edge in ("", "_low", "_high")}
    return row | _chance_cells(watch, seed) | _event_cells(watch) | _drift_cells(watch, distributions)


def say_transfer(table):
    """Return a `transfer_table` as text: a figure and its interval in one column, – where nothing is known.

    Parameters
    ----------
    table : DataFrame
    """
    rows = []
    for _, row in table.iterrows():
        said = {"series": row["series"], "days": f"{row['first_day']} to {row['last_day']}"}
        said["sessions"] = f"{row['sessions']:,}"
        said["detections a session"] = say_interval(row["per_session"], row["low"], row["high"])
        for name in SHARES:
            said[name] = _say(row, name)
            said[f"{name}: ATR rule"] = say_interval(row[f"rule_{name}"])
            said[f"{name}: random bars"] = _say(row, f"random_{name}")
        said["size of the move, less controls (ATR)"] = _say(row, "size")
        said["move onward, less controls (ATR)"] = _say(row, "onward")
        has_drift = pd.notna(row["n_drifted"])
        said["features that drifted"] = f"{row['n_drifted']} of {row['n_features']}" if has_drift else "–"
        rows.append(said)
    return pd.DataFrame(rows)


def _chance_cells(watch, seed):
    """Return precision and recall of the ATR rule and of random bars."""
    cells = {f"rule_{name}": np.nan for name in SHARES}
    cells |= {f"random_{name}{edge}": np.nan for name in SHARES for edge in ("", "_low", "_high")}
    if watch.labelled is None or len(watch.first) == 0:
        return cells
    by_method = compare_chance(watch, seed=seed).set_index("method")
    for name in SHARES:
        cells[f"rule_{name}"] = by_method.loc["ATR rule", name]
        cells |= {f"random_{name}{edge}": by_method.loc["random", f"{name}{edge}"] for edge in ("", "_low", "_high")}
    return cells


def _event_cells(watch):
    """Return what followed detections at HORIZON_BARS."""
    cells = {f"{name}{edge}": np.nan for name in ("size", "onward") for edge in ("", "_low", "_high")}
    events, _ = study_events(watch)
    if events is None:
        return cells | {"n_events": 0}
    at = events[events["horizon"] == HORIZON_BARS].set_index("figure")
    for name in ("size", "onward"):
        values = at.loc[name, ["difference", "low", "high"]]
        cells |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    return cells | {"n_events": int(at["n_events"].iloc[0])}


def _drift_cells(watch, distributions):
    """Return how many features drifted, of how many."""
    if distributions is None:
        return {"n_drifted": pd.NA, "n_features": pd.NA}
    drift = drift_from(distributions, watch.series.table, watch.series.frame.index)
    return {"n_drifted": int((drift["verdict"] == "drifted").sum()), "n_features": len(drift)}


def _shares(watch, found):
    """Return precision and recall of detected starts, NaN where there is nothing to count."""
    is_right, is_judged, is_reached = judge_starts(found, watch.labelled, watch.looked)
    return {
        "precision": is_right.sum() / is_judged.sum() if is_judged.any() else np.nan,
        "recall": is_reached.mean() if len(is_reached) else np.nan,
    }


def _random_bars(watch, n_draws, rng):
    """Yield draws of as many watched bars, each in the half hour of one of the detections."""
    half_hour = half_hours(watch.series.frame.index)
    values, counts = np.unique(half_hour[watch.first], return_counts=True)
    choices = [np.flatnonzero(watch.seen & (half_hour == value)) for value in values]
    for _ in range(n_draws):
        drawn = [rng.choice(bars, n, replace=n > len(bars)) for bars, n in zip(choices, counts, strict=True)]
        yield np.sort(np.concatenate(drawn))


def _largest_bars(watch, n):
    """Return the n watched bars with the largest true range beside the ATR before, none near a larger one."""
    high, low, close = (watch.series.frame[name].to_numpy(np.float64) for name in ("high", "low", "close"))
    starts = watch.series.table.starts
    before = np.r_[np.nan, average_true_range(high, low, close, starts)[:-1]]
    multiple = true_range(high, low, close, starts) / np.where(before > 0, before, np.nan)
    since = np.arange(len(close)) - starts[np.searchsorted(starts, np.arange(len(close)), side="right") - 1]
    is_open = watch.seen & (since > ATR_BARS) & np.isfinite(multiple)
    chosen = []
    for bar in np.argsort(-np.where(is_open, multiple, -np.inf), kind="stable")[: is_open.sum()]:
        if len(chosen) == n:
            break
        if is_open[bar]:
            chosen.append(bar)
            is_open[max(bar - LEAST_APART_BARS, 0) : bar + LEAST_APART_BARS + 1] = False
    return np.sort(np.array(chosen, np.int64))


def _say(row, name):
    """Return a figure with its interval as text."""
    return say_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])
