"""Reading the audit: who is silenced, how far σ moved, what the notes' losses contribute."""

import math

import pandas as pd
import torch

from moola_lib.learning.audit import SILENCED_SHARE
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
    """
    tensors = {task: torch.tensor(float(value), requires_grad=True) for task, value in losses.items()}
    total = build_balance(strategy)(tensors, torch.tensor(LOG_SIGMA_START))
    weights = torch.autograd.grad(total, list(tensors.values()))
    table = pd.DataFrame(
        {"task": list(losses), "raw_loss": list(losses.values()), "weight": [float(w) for w in weights]}
    )
    table["contribution"] = table["raw_loss"] * table["weight"]
    table["share"] = table["contribution"] / table["contribution"].sum()
    return table


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
