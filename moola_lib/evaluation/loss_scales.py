"""What each balance makes of losses that differ 80-fold, on a problem so small that nothing else plays a part."""

import math
from functools import partial

import pandas as pd
import torch
from torch import nn

from moola_lib.evaluation.balance import NOTES_LOSSES
from moola_lib.learning.audit import measure_shares
from moola_lib.learning.balance import build_balance
from moola_lib.learning.gradients import task_gradients
from moola_lib.models.jade import LOG_SIGMA_START, TASKS

N_SHARED = 24
POINTERS = TASKS.index("pointers")
LEARNS_SIGMA = ("uncertainty", "uncertainty_bounded")


def shares_on_notes_scales(strategies, *, n_steps=100, learning_rate=1e-3, sigma_rate_factor=1.0, seed=17):
    """Train shared parameters on four losses that start at the notes' values, under each strategy.

    Each loss is the squared distance to a target of its own, scaled to start at
    its value in NOTES_LOSSES; the optimiser is Adam, σ and shared parameters
    at the same rate. What a strategy does to the shares is all that differs.

    Parameters
    ----------
    strategies : sequence of str
    n_steps : int
    learning_rate : float
    sigma_rate_factor : float
        Of the rate of log σ.
    seed : int

    Returns
    -------
    DataFrame
        `strategy`; the pointers' share of the weighted loss at the start
        (`loss_share`) and of the shared gradient at the start and after
        `n_steps` (`gradient_share_start`, `gradient_share_end`); `sigma_way`,
        the share of the way to its optimum ½ ln(loss) that log σ of the
        pointers has covered (NaN where no σ is learned).
    """
    rows = []
    for name in strategies:
        first, last, log_sigma = _train(name, n_steps, learning_rate, sigma_rate_factor, seed)
        start, optimum = LOG_SIGMA_START[POINTERS], 0.5 * math.log(last["loss"]["pointers"])
        way = (log_sigma - start) / (optimum - start) if name in LEARNS_SIGMA else math.nan
        shares = (first["loss_share"], first["gradient_share"], last["gradient_share"])
        rows.append((name, *(share["pointers"] for share in shares), way))
    columns = ["strategy", "loss_share", "gradient_share_start", "gradient_share_end", "sigma_way"]
    return pd.DataFrame(rows, columns=columns)


def _train(name, n_steps, learning_rate, sigma_rate_factor, seed):
    """Return the shares of the first step and of the one after `n_steps`, and log σ of the pointers at the end."""
    torch.manual_seed(seed)
    targets = nn.functional.normalize(torch.randn(len(NOTES_LOSSES), N_SHARED), dim=1)
    shared, heads = nn.Parameter(torch.zeros(N_SHARED)), nn.Parameter(torch.zeros(len(NOTES_LOSSES)))
    log_sigma = nn.Parameter(torch.tensor(LOG_SIGMA_START))
    groups = [{"params": [shared, heads]}, {"params": [log_sigma], "lr": learning_rate * sigma_rate_factor}]
    optimizer, balance = torch.optim.Adam(groups, lr=learning_rate), build_balance(name)
    recompute = partial(_losses, shared, heads, targets)
    found = []
    for _ in range(n_steps + 1):
        losses = recompute()
        gradients = task_gradients(losses, [shared])
        optimizer.zero_grad(set_to_none=True)
        weights = balance.backward(losses, [shared], [heads], log_sigma=log_sigma, gradients=gradients)
        found.append(measure_shares(losses, weights, gradients))
        optimizer.step()
        balance.after_step(log_sigma, recompute)
    return found[0], found[-1], float(log_sigma[POINTERS].detach())


def _losses(shared, heads, targets):
    """Return the four losses, the notes' values at the start; each head's own parameter shifts its loss a little."""
    distance = ((shared - targets) ** 2).sum(dim=1) + heads**2
    return {task: value * distance[k] for k, (task, value) in enumerate(NOTES_LOSSES.items())}
