"""Would it have worked? Trained on past labels, tested on the next, block by block."""

import numpy as np
import pandas as pd

from moola_lib.evaluation.cross_validation import assemble, cross_fit_baselines
from moola_lib.evaluation.fits import plan_fits, results_by_arm, run_fits
from moola_lib.evaluation.intervals import say_interval, verdict
from moola_lib.evaluation.metrics import take_answers
from moola_lib.evaluation.scores import score_prediction
from moola_lib.windows.folds import check_classes

FIGURES = ("hit3_start", "joint3", "inside_f1", "type_macro_f1")
ALL = "all"
FEWEST_DAYS = 2  # one day resampled is that day: its interval would have no width


def walk_forward(
    arms,
    gather,
    windows,
    folds,
    inputs,
    *,
    features,
    decoder="segment",
    figures=FIGURES,
    seed=17,
    n_bootstrap=1000,
    **fit_options,
):
    """Fit arms on forward folds, and score each test block and all of them together.

    Baselines are fitted on the same past.

    Parameters
    ----------
    arms : list of Arm
    gather : WindowGatherer
    windows : LabelledWindows
    folds : list of Fold
        Of `windows.forward_folds`.
    inputs : WindowInputs
        Of these windows.
    features : dict
        `set_id` and `names`.
    decoder : str
        See `decoding.decode_spans`.
    figures : sequence of str
        Keys of METRICS.
    seed : int
        Of the fits and of the resamples.
    n_bootstrap : int
    **fit_options
        `validation_frac`, `n_workers`, `n_threads`, `on_epoch`, `resume` of `run_fits`.

    Returns
    -------
    DataFrame
        See `score_blocks`, with `arm` in front.

    Raises
    ------
    UserError
        A block would train on one state alone, or as `run_fits`.
    """
    check_classes(folds, windows.state)
    fits = plan_fits(arms, folds, [seed])
    found = results_by_arm(fits, run_fits(fits, gather, windows, features=features, **fit_options))
    baselines = cross_fit_baselines(windows, folds, inputs, seed=seed)
    told = {"is_valid": inputs.of(windows).is_valid, "figures": figures, "n_bootstrap": n_bootstrap, "seed": seed}
    tables = []
    for arm in arms:
        answer, _ = assemble(found[arm.name][seed], folds, len(windows), decoder=decoder)
        tables.append(score_blocks(windows, folds, answer, baselines, **told).assign(arm=arm.name))
    table = pd.concat(tables, ignore_index=True)
    return table[["arm", *table.columns.drop("arm")]]


def score_blocks(windows, folds, answer, baselines, *, is_valid=None, figures=FIGURES, n_bootstrap=1000, seed=17):
    """Score answers block by block, and over all blocks.

    Parameters
    ----------
    windows : LabelledWindows
    folds : list of Fold
        In time order.
    answer : Prediction
        Of all windows; those of no test block are not looked at.
    baselines : dict of str to Prediction or list of Prediction
    is_valid : ndarray (n, K), bool, optional
    figures : sequence of str
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        A row per block (`block` from 1, and `all`) and figure: `first_day`,
        `last_day` and `n_days` of the test, `n_train` (missing for all: it grows),
        `n_test`, `metric`, `meaning`, `value` with `low` and `high` (95%, whole
        days resampled), `best_baseline` with its value `baseline`, the paired
        `difference` to it (positive: better) with `difference_low` and
        `difference_high`, and `verdict`. A block of a single day has no intervals,
        and is inconclusive; with fewer than about ten days they are too narrow.
    """
    parts = [(str(k), fold.test, len(fold.train)) for k, fold in enumerate(folds, 1)]
    parts.append((ALL, np.concatenate([fold.test for fold in folds]), pd.NA))
    tables = []
    for block, rows, n_train in parts:
        own = windows.take(rows)
        days = np.unique(own.day)
        scores = score_prediction(
            own,
            {"": answer.take(rows), **take_answers(baselines, rows)},
            is_valid=None if is_valid is None else is_valid[rows],
            n_bootstrap=n_bootstrap,
            seed=seed,
        )
        facts = {"block": block, "first_day": str(days[0]), "last_day": str(days[-1]), "n_days": len(days)}
        facts |= {"n_train": n_train, "n_test": len(rows)}
        tables.append(with_verdicts(scores, len(days), figures).assign(**facts))
    table = pd.concat(tables, ignore_index=True).astype({"n_train": "Int64"})
    facts = ["block", "first_day", "last_day", "n_days", "n_train", "n_test"]
    return table[[*facts, *table.columns.drop(facts)]]


def say_walk_forward(table, block_figure="hit3_start"):
    """Return a `walk_forward` of one arm as text: one figure for each block, every figure for all blocks together.

    Parameters
    ----------
    table : DataFrame
    block_figure : str
        Shown for each block.
    """
    rows = []
    for _, row in table[(table["metric"] == block_figure) | (table["block"] == ALL)].iterrows():
        said = {"tested": ALL if row["block"] == ALL else f"{row['first_day']} to {row['last_day']}"}
        said["trained on"] = "–" if pd.isna(row["n_train"]) else f"{row['n_train']} windows"
        said |= {"tested on": f"{row['n_test']} windows", "figure": row["meaning"]}
        said["model"] = say_interval(row["value"], row["low"], row["high"])
        has_rival = isinstance(row["best_baseline"], str)
        said["best baseline"] = f"{row['best_baseline']} {say_interval(row['baseline'])}" if has_rival else "–"
        said["difference"] = say_interval(row["difference"], row["difference_low"], row["difference_high"])
        rows.append(said | {"verdict": row["verdict"]})
    return pd.DataFrame(rows)


def with_verdicts(scores, n_days, figures=FIGURES, beside=()):
    """Keep some figures of a `score_prediction`, with the best baseline's value and a verdict.

    Parameters
    ----------
    scores : DataFrame
    n_days : int
        That were resampled. A single one leaves no interval.
    figures : sequence of str
    beside : sequence of str
        Baselines to keep whether they are the best or not.

    Returns
    -------
    DataFrame
        `metric`, `meaning`, `value`, `low`, `high`, those beside, `best_baseline`,
        `baseline`, `difference`, `difference_low`, `difference_high`, `verdict`.
    """
    kept = scores[scores["metric"].isin(figures)].copy()
    has_baseline = "best_baseline" in kept
    for name in ("best_baseline", "difference", "difference_low", "difference_high"):
        if name not in kept:
            kept[name] = None if name == "best_baseline" else np.nan
    kept["baseline"] = [row[row["best_baseline"]] if has_baseline else np.nan for _, row in kept.iterrows()]
    if n_days < FEWEST_DAYS:
        kept[["low", "high", "difference_low", "difference_high"]] = np.nan
    edges = zip(kept["difference_low"], kept["difference_high"], strict=True)
    kept["verdict"] = [verdict(low, high) for low, high in edges]
    columns = ["metric", "meaning", "value", "low", "high", *[name for name in beside if name in kept], "best_baseline"]
    differences = ["baseline", "difference", "difference_low", "difference_high", "verdict"]
    return kept[[*columns, *differences]].reset_index(drop=True)
