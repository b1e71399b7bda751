"""Compare ways to train on the same windows: what they attain of what can be attained, and their ranks by day."""

import numpy as np
import pandas as pd
from scipy import stats

from moola_lib.evaluation.decisions import attainable_skill
from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.evaluation.metrics import METRICS, Prediction, metric_functions
from moola_lib.files import replace_atomically

TASK_METRICS = {"type": "type_macro_f1", "pointers": "hit3_start", "inside": "inside_f1", "countdown": "countdown_mae"}


def save_answers(path, window_start, answers):
    """Write answers by the windows' first stamps, so that other windows of the same bars find theirs.

    Parameters
    ----------
    path : str or Path
        Ends in `.npz`.
    window_start : DatetimeIndex (n,), UTC
    answers : Prediction
    """
    columns = {name: getattr(answers, name) for name in Prediction.__dataclass_fields__}
    with replace_atomically(path) as temporary, open(temporary, "wb") as stream:
        known = {name: value for name, value in columns.items() if value is not None}
        np.savez_compressed(stream, window_start=pd.DatetimeIndex(window_start).as_unit("ns").asi8, **known)


def load_answers(path, window_start):
    """Read what `save_answers` wrote for windows by their first stamps; None where one of them is not there.

    Parameters
    ----------
    path : str or Path
    window_start : DatetimeIndex (n,), UTC

    Returns
    -------
    Prediction or None
    """
    with np.load(path) as file:
        columns = dict(file)
    rows = pd.Index(columns.pop("window_start")).get_indexer(pd.DatetimeIndex(window_start).as_unit("ns").asi8)
    return None if (rows < 0).any() else Prediction(**columns).take(rows)


def skill_by_task(windows, answers, constant, oracle, *, is_valid=None, n_bootstrap=1000, seed=17):
    """Return each method's attainable skill by task: (method - constant) / (oracle - constant).

    Parameters
    ----------
    windows : LabelledWindows
    answers : dict of str to Prediction
    constant, oracle : Prediction
        The best that can be said without bars, and with the law known. The
        constant needs a state as well (the majority's).
    is_valid : ndarray (n, K), bool, optional
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        `method`, `task`, `metric`, `value`, `skill` with `low` and `high` (95%,
        whole days resampled, the three figures of one resample together). NaN
        where the oracle hardly differs from the constant.
    """
    weights = day_block_weights(windows.day, n_bootstrap=n_bootstrap, seed=seed)
    every = np.ones((1, len(windows)))
    levels = [metric_functions(windows, answer, is_valid=is_valid) for answer in (constant, oracle)]
    rows = []
    for method, answer in answers.items():
        own = metric_functions(windows, answer, is_valid=is_valid)
        for task, metric in TASK_METRICS.items():
            if metric not in own:
                continue
            found, resampled = (
                attainable_skill(own[metric](each), levels[0][metric](each), levels[1][metric](each))
                for each in (every, weights)
            )
            value = float(own[metric](every)[0])
            rows.append((method, task, metric, value, float(np.ravel(found)[0]), *interval(resampled)))
    return pd.DataFrame(rows, columns=["method", "task", "metric", "value", "skill", "low", "high"])


def rank_methods(windows, answers, *, metric="inside_f1", is_valid=None, level=0.05):
    """Rank methods day by day, and say how far mean ranks must lie apart to differ.

    Parameters
    ----------
    windows : LabelledWindows
    answers : dict of str to Prediction
        At least two.
    metric : str
        A key of METRICS, with a better side.
    is_valid : ndarray (n, K), bool, optional
    level : float

    Returns
    -------
    ranks : Series
        Mean rank by method, 1 the best; the best first. Ties share their ranks.
    critical_difference : float
        Two methods differ whose mean ranks lie further apart than this (Nemenyi).
    p_value : float
        Of Friedman's test that all are alike.
    n_days : int
        Days on which all methods have the figure.

    Notes
    -----
    Demsar 2006, JMLR 7, 1-30. Days are the blocks, since windows of one day are not independent.
    """
    days = np.unique(windows.day)
    masks = (windows.day == days[:, None]).astype(np.float64)
    figures = np.array([metric_functions(windows, each, is_valid=is_valid)[metric](masks) for each in answers.values()])
    figures = figures[:, np.isfinite(figures).all(axis=0)]
    sign = -1 if METRICS[metric].is_higher_better else 1
    by_day = stats.rankdata(sign * figures, axis=0)
    n_methods, n_days = by_day.shape
    ranks = pd.Series(by_day.mean(axis=1), index=list(answers)).sort_values(kind="stable")
    studentized = stats.studentized_range.ppf(1 - level, n_methods, np.inf) / np.sqrt(2)
    critical = float(studentized * np.sqrt(n_methods * (n_methods + 1) / (6 * n_days)))
    return ranks, critical, _friedman(by_day), n_days


def conflict_rate(metrics):
    """Return the share of audited steps and pairs of tasks whose gradients pull against each other (cosine below 0).

    Parameters
    ----------
    metrics : DataFrame
        From `balance.read_metrics`.
    """
    tasks = metrics["task"].unique()
    pairs = [
        metrics.loc[metrics["task"] == one, f"cosine_{other}"].to_numpy() < 0
        for k, one in enumerate(tasks)
        for other in tasks[k + 1 :]
    ]
    return float(np.mean(pairs)) if pairs else np.nan


def _friedman(ranks):
    """Return the p-value of Friedman's test of ranks (n_methods, n_days), 1 where all are tied."""
    n_methods, n_days = ranks.shape
    spread = ((ranks - (n_methods + 1) / 2) ** 2).sum() / (n_days * (n_methods - 1))
    if spread == 0:
        return 1.0
    statistic = n_days * ((ranks.mean(axis=1) - (n_methods + 1) / 2) ** 2).sum() / spread
    return float(stats.chi2.sf(statistic, n_methods - 1))
