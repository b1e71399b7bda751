"""Causal scores fold by fold, of trained arms and of their rivals; thresholds are those of training windows."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from moola_lib.evaluation.causal import CausalScores, alarm_threshold, causal_scores, score_causal
from moola_lib.evaluation.causal_rivals import causal_atr_scores, causal_logistic_scores
from moola_lib.evaluation.cross_validation import fold_model
from moola_lib.learning.outputs import answer_so_far

MOST_FALSE_FRAC = 0.1
RIVALS = {"ATR ratio": causal_atr_scores, "logistic regression": causal_logistic_scores}


def score_causal_arm(arm, results, folds, gather, windows, *, stride=5, n_bootstrap=500, seed=17):
    """Score an arm's models on test windows of which only the bars so far are shown.

    Parameters
    ----------
    arm : Arm
    results : list of FoldResult
    folds : list of Fold
    gather : WindowGatherer
    windows : LabelledWindows
    stride : int
        Bars between two answers.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        As `score_causal`, with `arm`, for the windows that folds test. The
        threshold of each fold allows an early alarm in a tenth of its training windows.
    """
    models = {id(fold): fold_model(arm, gather, result) for fold, result in zip(folds, results, strict=True)}

    def score(fold, rows):
        answer = partial(answer_so_far, models[id(fold)])
        return causal_scores(answer, gather(torch.as_tensor(windows.place[rows]))[0], stride=stride)

    return _score_folds(score, folds, windows, n_bootstrap, seed).assign(arm=arm.name)


def cross_fit_causal_rivals(windows, folds, inputs, *, n_bootstrap=500, seed=17):
    """Score the simple methods that look back only, fitted on the training windows of each fold.

    Parameters
    ----------
    windows : LabelledWindows
    folds : list of Fold
    inputs : WindowInputs
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        As `score_causal_arm`, of each of RIVALS.
    """
    tables = []
    for name, rival in RIVALS.items():

        def score(fold, rows, rival=rival):
            return rival(windows.take(fold.train), windows.take(rows), inputs)

        tables.append(_score_folds(score, folds, windows, n_bootstrap, seed).assign(arm=name))
    return pd.concat(tables)


def causal_table(scores):
    """Return causal scores as text for a reader: a row a figure, a column an arm.

    Parameters
    ----------
    scores : DataFrame
        Of the two functions above, one after the other.
    """
    text = scores.assign(
        text=[f"{row.value:.3g} ({row.low:.3g} to {row.high:.3g})" for row in scores.itertuples()]
    ).pivot(index="meaning", columns="arm", values="text")
    return text.loc[scores["meaning"].unique(), scores["arm"].unique()].reset_index()


def _score_folds(score, folds, windows, n_bootstrap, seed):
    """Score the test windows of all folds by `score(fold, rows)`, the threshold set on each fold's training windows."""
    parts, thresholds = [], []
    for fold in folds:
        threshold = alarm_threshold(windows.take(fold.train), score(fold, fold.train), MOST_FALSE_FRAC)
        parts.append(score(fold, fold.test))
        thresholds.append(np.full(len(fold.test), threshold))
    joined = CausalScores(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("inside", "started")))
    tested = windows.take(np.concatenate([fold.test for fold in folds]))
    return score_causal(tested, joined, np.concatenate(thresholds), n_bootstrap=n_bootstrap, seed=seed)
