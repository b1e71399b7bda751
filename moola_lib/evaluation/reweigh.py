"""A recorded training under other weights: what its losses and gradients would have contributed, without a run."""

import itertools

import numpy as np
import torch

from moola_lib.errors import UserError
from moola_lib.evaluation.balance import gramian_of
from moola_lib.learning.balance import build_balance
from moola_lib.models.jade import TASKS

NEEDS_A_RUN = ("uncertainty", "uncertainty_bounded", "dwa", "famo", "imtl_l", "gradnorm")
HAS_NO_WEIGHTS = ("geometric_mean", "pcgrad", "mgda")
COLUMNS = ["epoch", "step", "task", "weight", "loss_share", "gradient_share"]
SEED = 17


def reweigh(metrics, strategy, weights=None):
    """Re-weigh the recorded losses and gradients of a training under another strategy or other weights.

    The encoder did not train this way: with other weights it would have come to
    other losses and gradients. What is answered is who would have taught it at
    the recorded steps.

    Parameters
    ----------
    metrics : DataFrame
        From `evaluation.balance.read_metrics`, in the order of steps.
    strategy : str
        A key of STRATEGIES that is not in NEEDS_A_RUN. `initial` takes the first
        recorded step for the first, and `ema` moves its means at recorded steps
        only, where a training moves them at every step: its means lag longer.
    weights : dict of str to float, optional
        Weight per task; the strategy's own by default. Those in HAS_NO_WEIGHTS have none.

    Returns
    -------
    DataFrame
        One row per recorded step and task: `epoch`, `step`, `task`, `weight`
        (d total / d loss, or what an aggregator gives), and the shares it makes,
        `loss_share` of |weight x loss| and `gradient_share` of |weight| x norm,
        as in `learning.audit.measure_shares`. Tasks that no strategy balances
        (the segment posterior's) keep weight 1.

    Raises
    ------
    UserError
        The strategy is not known, learns its weights along the way, or nothing was recorded.
    """
    if strategy in NEEDS_A_RUN:
        raise UserError(
            f"the weights of {strategy} come from its own training and no record holds them; "
            f"train with it: {run_command(strategy)}"
        )
    if len(metrics) == 0:
        raise UserError("nothing was audited, so there is nothing to re-weigh; train with audit_every above 0")
    balance = build_balance(strategy, weights)
    table = metrics[["epoch", "step", "task", "loss", "gradient_norm"]].assign(weight=1.0)
    is_balanced = metrics["task"].isin(TASKS)
    weigh = _weigh_gradients if balance.weighs_gradients else _weigh_losses
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)  # the order in which `pcgrad` projects
        table.loc[is_balanced, "weight"] = np.concatenate(weigh(balance, metrics[is_balanced]))
    table["loss_share"] = _shares(table, table["loss"])
    table["gradient_share"] = _shares(table, table["gradient_norm"])
    return table[COLUMNS]


def run_command(strategy):
    """Return the command that trains with a strategy, which alone tells what an encoder learns under it."""
    return f"moola run 05 -p strategies '[{strategy}]' -p in_use {strategy}"


def thin_out(metrics, n_steps=60):
    """Return at most so many recorded steps, evenly spaced, the first and the last among them."""
    steps = metrics[["epoch", "step"]].drop_duplicates()
    kept = steps.iloc[np.unique(np.linspace(0, len(steps) - 1, min(n_steps, len(steps))).round().astype(int))]
    return metrics.merge(kept, on=["epoch", "step"])


def _weigh_losses(balance, rows):
    """Return each task's weight at every step, list of (n_tasks,): the derivative of the strategy's total."""
    tasks, losses = rows["task"].tolist(), rows["loss"].to_numpy()
    weights = []
    for at in _steps(rows):
        given = {task: torch.tensor(loss, requires_grad=True) for task, loss in zip(tasks[at], losses[at], strict=True)}
        weights.append(torch.stack(torch.autograd.grad(balance(given), list(given.values()))).numpy())
    return weights


def _weigh_gradients(balance, rows):
    """Return each task's weight at every step, list of (n_tasks,), from the inner products of its gradients."""
    steps = [rows.iloc[at] for at in _steps(rows)]
    # of the losses, an aggregator needs the names alone
    return [balance.weigh(dict.fromkeys(step["task"]), torch.from_numpy(gramian_of(step))).numpy() for step in steps]


def _steps(rows):
    """Return the slice of every step's rows, which follow one another."""
    step = rows["step"].to_numpy()
    edges = [0, *(np.flatnonzero(step[1:] != step[:-1]) + 1).tolist(), len(step)]
    return [slice(begin, end) for begin, end in itertools.pairwise(edges)]


def _shares(table, size):
    """Return |weight| x size over its sum at the same step; zeros where that is zero."""
    part = table["weight"].abs() * size
    total = part.groupby([table["epoch"], table["step"]]).transform("sum")
    return (part / total).where(total > 0, 0.0)
