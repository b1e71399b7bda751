"""Does multitask pre-training learn more than a bar says about itself? Macro F1 beside two baselines."""

import numpy as np
import pandas as pd
import torch

from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.labels.pretext import PRETEXT_TASKS, UNKNOWN

MOST_TRAIN_BARS = 20_000  # the logistic regression has some tens of weights


def pretext_scores(model, gather, objective, train_places, test_places, days, *, seed=17, n_bootstrap=500):
    """Compare the model with the majority class and with a logistic regression on the same bar's features.

    Part of these targets can be computed from the bar itself (its body is a
    feature), so a high score says little; what the encoder learned in time is
    the difference to the regression.

    Parameters
    ----------
    model : MultitaskPretrainer
    gather : WindowGatherer
    objective : BarClassification
        Has the targets.
    train_places, test_places : ndarray, int64
        The regression is fitted on at most 20,000 bars of the training windows.
    days : ndarray (n_test,)
        Trading day of each test window, for the intervals.
    seed, n_bootstrap : int

    Returns
    -------
    DataFrame
        One row per task: `task`, `rarest class` and its `rarest share` of test
        bars, `n_bars`; macro F1 of `model` and `same bar` with `low` and `high`
        columns, of `majority`; `difference` (model - same bar) with its paired
        interval and `verdict`: "better", "worse" or "inconclusive".
    """
    answers, targets = _answer(model, gather, objective, test_places)
    features, _ = gather(torch.as_tensor(test_places))
    features = features.reshape(-1, gather.n_features).cpu().numpy()
    weights = day_block_weights(days, n_bootstrap=n_bootstrap, seed=seed)
    rows = []
    for task, names in PRETEXT_TASKS.items():
        truth, n_classes = targets[task], len(names)
        regression = _fit_regression(gather, objective, train_places, task, seed)
        guesses = {"model": answers[task], "same bar": regression.predict(features).reshape(truth.shape)}
        counts = {name: _confusions(truth, guess, n_classes) for name, guess in guesses.items()}
        resampled = {name: macro_f1(np.tensordot(weights, each, axes=1)) for name, each in counts.items()}
        shares = counts["model"].sum(axis=(0, 2)) / counts["model"].sum()
        row = {"task": task, "rarest class": names[shares.argmin()], "rarest share": shares.min()}
        row |= {"n_bars": int(counts["model"].sum()), "majority": _majority_f1(shares)}
        for name, each in counts.items():
            row[name] = float(macro_f1(each.sum(axis=0)))
            row[f"{name} low"], row[f"{name} high"] = interval(resampled[name])
        row["difference"] = row["model"] - row["same bar"]
        low, high = interval(resampled["model"] - resampled["same bar"])
        verdict = "better" if low > 0 else "worse" if high < 0 else "inconclusive"
        rows.append(row | {"difference low": low, "difference high": high, "verdict": verdict})
    return pd.DataFrame(rows)


def macro_f1(confusion):
    """Return the mean F1 over the classes that occur, of confusion counts (..., true, predicted)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = np.divide(2 * hits, total, out=np.zeros(hits.shape), where=total > 0)
    occurs = confusion.sum(axis=-1) > 0
    return np.where(occurs, f1, 0).sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)


def _majority_f1(shares):
    """Return the macro F1 of always answering the largest class, of the classes' shares."""
    return float(macro_f1(np.outer(shares, np.arange(len(shares)) == shares.argmax())))


def _confusions(truth, guess, n_classes):
    """Return each window's confusion counts (n, true, predicted) over the bars that have a target."""
    counts = np.zeros((len(truth), n_classes, n_classes))
    window, bar = np.nonzero(truth != UNKNOWN)
    np.add.at(counts, (window, truth[window, bar], guess[window, bar]), 1)
    return counts


@torch.no_grad()
def _answer(model, gather, objective, places):
    """Return the model's classes and the targets, two dicts by task of (n, time) int64."""
    model.eval()
    parts = torch.as_tensor(places).split(256)
    outputs = [model(gather(part)[0]) for part in parts]
    known = [objective.targets_at(part) for part in parts]
    answers = {task: torch.cat([each[f"{task}_logits"].argmax(dim=2) for each in outputs]) for task in PRETEXT_TASKS}
    targets = {task: torch.cat([each[task] for each in known]) for task in PRETEXT_TASKS}
    return tuple({task: each.cpu().numpy() for task, each in side.items()} for side in (answers, targets))


def _fit_regression(gather, objective, places, task, seed):
    """Return a logistic regression on the features of single bars, standardised."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    n_windows = min(len(places), 4 * MOST_TRAIN_BARS // 105)
    chosen = torch.as_tensor(rng.choice(places, n_windows, replace=False))
    x, classes = (
        gather(chosen)[0].flatten(0, 1).cpu().numpy(),
        objective.targets_at(chosen)[task].flatten().cpu().numpy(),
    )
    rows = np.flatnonzero(classes != UNKNOWN)
    rows = rng.choice(rows, min(len(rows), MOST_TRAIN_BARS), replace=False)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x[rows], classes[rows])
