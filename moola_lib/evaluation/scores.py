"""Methods beside their baselines: figures, intervals, paired differences, and the words for them."""

import numpy as np
import pandas as pd

from moola_lib.evaluation.intervals import (
    bootstrap_p_value,
    corrected_interval,
    day_block_weights,
    holm,
    interval,
    verdict,
)
from moola_lib.evaluation.metrics import METRICS, MOST_BARS, metric_functions


def score_prediction(windows, predictions, *, is_valid=None, n_bootstrap=1000, seed=17):
    """Score one method beside its baselines, with day-block intervals.

    Parameters
    ----------
    windows : LabelledWindows
    predictions : dict of str to Prediction
        The first entry is the method; the others are its baselines.
    is_valid : ndarray (n, K), bool, optional
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        One row per metric: `metric`, `meaning`, `unit`, the method's `value`,
        `low`, `high`, `n`, one column per baseline (NaN where it does not
        define the figure), `best_baseline`, `difference` to it with
        `difference_low` and `difference_high` (paired; positive = better).
    """
    answer, *_ = predictions.values()
    others = list(predictions.items())[1:]
    weights = day_block_weights(windows.day, n_bootstrap=n_bootstrap, seed=seed)
    ones = np.ones((1, len(windows)))
    own = metric_functions(windows, answer, is_valid=is_valid)
    rivals = {name: metric_functions(windows, other, is_valid=is_valid) for name, other in others}
    rows = []
    for name, figure in own.items():
        metric = METRICS[name]
        resampled = figure(weights)
        low, high = interval(resampled)
        row = {"metric": name, "meaning": metric.meaning, "unit": metric.unit, "value": float(figure(ones)[0])}
        row |= {"low": low, "high": high, "n": int(windows.has_expansion.sum())}
        levels = {rival: float(figures[name](ones)[0]) for rival, figures in rivals.items() if name in figures}
        row |= {rival: levels.get(rival, np.nan) for rival in rivals}
        sign = 1 if metric.is_higher_better else -1
        if levels and metric.is_higher_better is not None:
            best = max(levels, key=lambda rival: sign * levels[rival])
            difference = sign * (resampled - rivals[best][name](weights))
            row["best_baseline"] = best
            row["difference"] = sign * (row["value"] - levels[best])
            row["difference_low"], row["difference_high"] = interval(difference)
        rows.append(row)
    return pd.DataFrame(rows)


def compare_predictions(windows, answer, other, *, is_valid=None, n_bootstrap=1000, seed=17):
    """Compare two methods on the same windows and the same resampled days.

    Parameters
    ----------
    windows : LabelledWindows
    answer, other : Prediction
    is_valid : ndarray (n, K), bool, optional
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        Per metric that both define: `metric`, `meaning`, `value`, `other`,
        `difference` (positive: `answer` is better), `low`, `high` and
        `verdict` (BETTER, WORSE or INCONCLUSIVE).
    """
    weights = day_block_weights(windows.day, n_bootstrap=n_bootstrap, seed=seed)
    ones = np.ones((1, len(windows)))
    ours = metric_functions(windows, answer, is_valid=is_valid)
    theirs = metric_functions(windows, other, is_valid=is_valid)
    rows = []
    for name in [name for name in ours if name in theirs and METRICS[name].is_higher_better is not None]:
        sign = 1 if METRICS[name].is_higher_better else -1
        low, high = interval(sign * (ours[name](weights) - theirs[name](weights)))
        value, rival = float(ours[name](ones)[0]), float(theirs[name](ones)[0])
        row = {"metric": name, "meaning": METRICS[name].meaning, "value": value, "other": rival}
        row |= {"difference": sign * (value - rival), "low": low, "high": high}
        row["verdict"] = verdict(low, high)
        rows.append(row)
    return pd.DataFrame(rows)


def compare_with_each(windows, answer, baselines, *, level=0.05, is_valid=None, n_bootstrap=2000, seed=17):
    """Compare a method with every baseline, the tests of one figure adjusted for their number.

    Parameters
    ----------
    windows : LabelledWindows
    answer : Prediction
    baselines : dict of str to Prediction or list of Prediction
    level : float
        Chance of any false BETTER or WORSE among the baselines of one figure.
    is_valid : ndarray (n, K), bool, optional
    n_bootstrap : int
        The least p-value is 2 / (n_bootstrap + 1) times the number of baselines.
    seed : int

    Returns
    -------
    DataFrame
        Per metric and baseline that defines it: the columns of
        `compare_predictions`, with `baseline`, the interval of the value itself
        (`value_low`, `value_high`), `p`, `p_holm`, and a `verdict` that needs
        `p_holm` below the level.
    """
    weights = day_block_weights(windows.day, n_bootstrap=n_bootstrap, seed=seed)
    ones = np.ones((1, len(windows)))
    ours = metric_functions(windows, answer, is_valid=is_valid)
    theirs = {name: metric_functions(windows, other, is_valid=is_valid) for name, other in baselines.items()}
    rows = []
    for metric in [metric for metric in ours if METRICS[metric].is_higher_better is not None]:
        sign = 1 if METRICS[metric].is_higher_better else -1
        value, resampled = float(ours[metric](ones)[0]), ours[metric](weights)
        ends = interval(resampled)
        for name in [name for name in theirs if metric in theirs[name]]:
            rival = float(theirs[name][metric](ones)[0])
            differences = sign * (resampled - theirs[name][metric](weights))
            low, high = interval(differences)
            row = {"metric": metric, "meaning": METRICS[metric].meaning, "baseline": name, "value": value}
            row |= {"value_low": ends[0], "value_high": ends[1], "other": rival}
            row |= {"difference": sign * (value - rival), "low": low, "high": high}
            rows.append(row | {"p": bootstrap_p_value(differences)})
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table["p_holm"] = table.groupby("metric", sort=False)["p"].transform(lambda p: holm(p.to_numpy()))
    is_clear, is_up = table["p_holm"] < level, table["difference"] > 0
    table["verdict"] = np.select([is_clear & is_up, is_clear], ["BETTER", "WORSE"], "INCONCLUSIVE")
    return table


def compare_over_folds(windows, answers, others, repeats, *, is_valid=None, level=0.95):
    """Compare two methods over repeated folds, with intervals corrected for the training windows that fits share.

    Parameters
    ----------
    windows : LabelledWindows
    answers, others : list of Prediction
        One per repeat, each assembled from that repeat's folds.
    repeats : list of list of Fold
        From `windows.repeated_folds`.
    is_valid : ndarray (n, K), bool, optional
    level : float

    Returns
    -------
    DataFrame
        Per metric that both define: `metric`, `meaning`, `difference` (mean over
        folds and repeats; positive: `answers` is better), `low`, `high`, `n_folds`
        in which it is defined, and `verdict`. Metrics defined in fewer than two
        folds are left out.
    """
    found = {}
    for answer, other, folds in zip(answers, others, repeats, strict=True):
        masks = np.stack([np.isin(np.arange(len(windows)), fold.test).astype(float) for fold in folds])
        ours = metric_functions(windows, answer, is_valid=is_valid)
        theirs = metric_functions(windows, other, is_valid=is_valid)
        for name in [name for name in ours if name in theirs and METRICS[name].is_higher_better is not None]:
            sign = 1 if METRICS[name].is_higher_better else -1
            found.setdefault(name, []).extend(sign * (ours[name](masks) - theirs[name](masks)))
    sizes = {part: np.mean([len(getattr(f, part)) for folds in repeats for f in folds]) for part in ("train", "test")}
    rows = []
    for name, differences in found.items():
        known = np.array(differences)[np.isfinite(differences)]  # a fold may lack a class
        if len(known) >= 2:
            mean, low, high = corrected_interval(known, n_train=sizes["train"], n_test=sizes["test"], level=level)
            rows.append((name, METRICS[name].meaning, mean, low, high, len(known), verdict(low, high)))
    return pd.DataFrame(rows, columns=["metric", "meaning", "difference", "low", "high", "n_folds", "verdict"])


def score_table(scores, baselines):
    """Return a `score_prediction` as text for a reader: interval in one column, – where nothing is defined.

    Parameters
    ----------
    scores : DataFrame
    baselines : sequence of str
        Baseline columns to show.
    """
    table = pd.DataFrame(
        {"figure": scores["meaning"], "unit": scores["unit"], "value": scores["value"].map("{:.3f}".format)}
    )
    table["95 % interval"] = [
        f"{low:.2f} to {high:.2f}" for low, high in zip(scores["low"], scores["high"], strict=True)
    ]
    for name in baselines:
        table[name] = scores[name].map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")
    edges = zip(scores["difference_low"], scores["difference_high"], strict=True)
    table["better than the best by"] = ["–" if pd.isna(low) else f"{low:.2f} to {high:.2f}" for low, high in edges]
    return table


def describe_score(row):
    """Say a row of `score_prediction` as a sentence, its verdict read from the paired interval."""
    meaning = row["meaning"][0].upper() + row["meaning"][1:]
    text = f"{meaning}: {row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
    best = row["best_baseline"]
    if not isinstance(best, str):
        return f"{text}, no baseline defines it."
    low, high = row["difference_low"], row["difference_high"]
    verdict = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
    return f"{text}, {verdict} the best baseline, {best} ({row[best]:.3g})."


def hit_curve(windows, prediction, *, most_bars=MOST_BARS, n_bootstrap=500, seed=17):
    """Return the share of starts, of ends and of both edges within k bars, with day-block intervals.

    Parameters
    ----------
    windows : LabelledWindows
    prediction : Prediction
    most_bars : int
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        `within_bars` (k = 0..most_bars), `start`, `end`, `both`: shares of the
        windows with an expansion, a hit on any of a window's expansions counts;
        and each with `_low` and `_high` of its 95% interval.
    """
    has = windows.has_expansion
    spans = windows.spans[has]
    real = spans[..., 0] >= 0
    off_start = np.where(real, np.abs(prediction.start[has, None] - spans[..., 0]), np.inf)
    off_end = np.where(real, np.abs(prediction.end[has, None] - spans[..., 1]), np.inf)
    bars = np.arange(most_bars + 1)
    least = {"start": off_start, "end": off_end, "both": np.maximum(off_start, off_end)}
    hits = {name: (off.min(axis=1)[:, None] <= bars) for name, off in least.items()}
    weights = day_block_weights(windows.day[has], n_bootstrap=n_bootstrap, seed=seed)
    weights /= weights.sum(axis=1, keepdims=True)
    columns = {"within_bars": bars} | {name: hit.mean(axis=0) for name, hit in hits.items()}
    for name, hit in hits.items():
        ends = np.array([interval(resampled) for resampled in (weights @ hit).T])
        columns |= {f"{name}_low": ends[:, 0], f"{name}_high": ends[:, 1]}
    return pd.DataFrame(columns)
