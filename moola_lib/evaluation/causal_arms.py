"""Causal scores of trained arms, fold by fold, each alarm threshold chosen on the fold's training windows."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from moola_lib.evaluation.causal import CausalScores, alarm_threshold, causal_scores, score_causal
from moola_lib.evaluation.cross_validation import fold_model
from moola_lib.learning.predict import answer_so_far

MOST_FALSE_FRAC = 0.1


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
        As `score_causal`, for the windows that folds test. The threshold of each
        fold allows an early alarm in a tenth of its training windows.
    """
    parts, thresholds = [], []
    for fold, result in zip(folds, results, strict=True):
        answer = partial(answer_so_far, fold_model(arm, gather, result))
        known, shown = (gather(torch.as_tensor(windows.place[rows]))[0] for rows in (fold.train, fold.test))
        threshold = alarm_threshold(
            windows.take(fold.train), causal_scores(answer, known, stride=stride), MOST_FALSE_FRAC
        )
        parts.append(causal_scores(answer, shown, stride=stride))
        thresholds.append(np.full(len(fold.test), threshold))
    joined = CausalScores(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("inside", "started")))
    tested = windows.take(np.concatenate([fold.test for fold in folds]))
    table = score_causal(tested, joined, np.concatenate(thresholds), n_bootstrap=n_bootstrap, seed=seed)
    return pd.DataFrame(table.assign(arm=arm.name))
