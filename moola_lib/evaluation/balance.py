"""Reading the audit: who is silenced, how far σ moved, what the notes' losses contribute."""

import math

import numpy as np
import pandas as pd
import torch

from moola_lib.errors import UserError
from moola_lib.learning.audit import SILENCED_SHARE, read_lines
from moola_lib.learning.balance import build_balance
from moola_lib.models.jade import LOG_SIGMA_START, TASKS

# The raw losses an earlier run printed, and the reason this notebook exists.
NOTES_LOSSES = {"type": 1.22, "pointers": 0.015, "inside": 0.84, "countdown": 0.72}


def loss_contributions(losses, strategy="fixed"):
    """Return what each task contributes to the total under a strategy.

    Parameters
    ----------
    losses : dict of str to float
        Raw losses.
    strategy : str

    Returns
    -------
    DataFrame
        `task`, `raw_loss`, `weight` (d total / d loss), `contribution`
        (their product) and `share`.

    Raises
    ------
    UserError
        The strategy weighs gradients: losses alone do not tell.
    """
    balance = build_balance(strategy)
    if balance.weighs_gradients:
        raise UserError(
            f"{strategy} weighs gradients, so losses alone do not tell what they contribute; audit a training"
        )
    tensors = {task: torch.tensor(float(value), requires_grad=True) for task, value in losses.items()}
    total = balance(tensors, torch.tensor(LOG_SIGMA_START))
    weights = torch.autograd.grad(total, list(tensors.values()))
    table = pd.DataFrame(
        {"task": list(losses), "raw_loss": list(losses.values()), "weight": [float(w) for w in weights]}
    )
    table["contribution"] = table["raw_loss"] * table["weight"]
    table["share"] = table["contribution"] / table["contribution"].sum()
    return table


def read_metrics(path):
    """Read the audits of a training.

    Parameters
    ----------
    path : str or Path
        `metrics.jsonl` of a fit's folder; one that is not there has no rows.

    Returns
    -------
    DataFrame
        One row per audited step and task: `epoch` (from 1), `step` (from 0),
        `task`, the figures of `audit.measure_shares`, `sigma` and
        `running_mean` (NaN where there is none), and `cosine_<task>` with each
        task. A step's rows so hold its matrix of cosines, and with
        `gradient_norm` all inner products of its raw gradients.
    """
    rows = []
    for line in read_lines(path):
        figures = {name: values for name, values in line.items() if isinstance(values, dict) and name != "cosine"}
        both = {**line["cosine"], **{"~".join(reversed(pair.split("~"))): c for pair, c in line["cosine"].items()}}
        for task in line["loss"]:
            row = {"epoch": line["epoch"], "step": line["step"], "task": task}
            row |= {name: values.get(task) for name, values in figures.items()}
            rows.append(row | {f"cosine_{other}": both.get(f"{task}~{other}", 1.0) for other in line["loss"]})
    return pd.DataFrame(rows)


def gramian_of(rows):
    """Return the inner products of a step's raw gradients, (n_tasks, n_tasks), from its rows of `read_metrics`."""
    norms = rows["gradient_norm"].to_numpy()
    return rows[[f"cosine_{task}" for task in rows["task"]]].to_numpy() * np.outer(norms, norms)


def silenced_tasks(history, *, threshold=SILENCED_SHARE):
    """Return the epochs in which a task's gradient share stayed under the threshold.

    Returns
    -------
    DataFrame
        `task`, `epochs` (count), `of`, `first` (epoch), `lowest` share.
    """
    table = pd.DataFrame(history)
    rows = []
    for task in TASKS:
        column = f"gradient_share_{task}"
        if column not in table:
            continue
        shares = table[column].dropna()
        low = shares < threshold
        first = int(table.loc[low.idxmax(), "epoch"]) if low.any() else None
        rows.append((task, int(low.sum()), len(shares), first, float(shares.min())))
    return pd.DataFrame(rows, columns=["task", "epochs", "of", "first", "lowest"])


def sigma_progress(history):
    """Return how far each log σ went towards its optimum, ½ ln(loss).

    Returns
    -------
    DataFrame
        `task`, `start`, `end`, `optimum` (all log σ) and `way`, the share of
        the way covered.
    """
    last = history[-1]
    rows = []
    for task, start in zip(TASKS, LOG_SIGMA_START, strict=True):
        if f"loss_{task}" not in last:
            continue
        end, optimum = math.log(last[f"sigma_{task}"]), 0.5 * math.log(max(last[f"loss_{task}"], 1e-12))
        rows.append((task, start, end, optimum, (end - start) / (optimum - start)))
    return pd.DataFrame(rows, columns=["task", "start", "end", "optimum", "way"])


def mean_shares(histories, kind):
    """Return each strategy's mean share per task over all epochs.

    Parameters
    ----------
    histories : dict of str to list of dict
    kind : {"loss_share", "gradient_share"}

    Returns
    -------
    DataFrame, index strategy, columns tasks.
    """
    rows = {
        name: {task: pd.DataFrame(history)[f"{kind}_{task}"].mean() for task in TASKS}
        for name, history in histories.items()
    }
    return pd.DataFrame(rows).T


def by_task(history, prefix):
    """Return a recorded figure per task over epochs, dict of task to list of float."""
    table = pd.DataFrame(history)
    return {task: table[f"{prefix}_{task}"].tolist() for task in TASKS if f"{prefix}_{task}" in table}
