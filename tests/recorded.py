"""A recorded training as `read_metrics` returns it: random losses and gradients of the notes' sizes."""

import numpy as np
import torch

from moola_lib.evaluation.balance import NOTES_LOSSES, read_metrics
from moola_lib.learning.audit import append_metrics, measure_shares
from moola_lib.learning.balance import build_balance
from moola_lib.models.jade import TASKS

N_STEPS_AN_EPOCH = 4


def record_steps(n_steps=12, *, scale=None, seed=0, extra=()):
    """Return a list of (losses, gradients (n_tasks, 20)), float64; `scale` multiplies a task's, `extra` names more."""
    rng, scale = np.random.default_rng(seed), scale or {}
    steps = []
    for _ in range(n_steps):
        names = [*TASKS, *extra]
        size = torch.tensor([NOTES_LOSSES.get(task, 2.0) * scale.get(task, 1.0) for task in names])
        losses = dict(zip(names, size * torch.from_numpy(rng.uniform(0.5, 1.5, len(names))), strict=True))
        steps.append((losses, torch.from_numpy(rng.normal(size=(len(names), 20))) * size[:, None]))
    return steps


def write_record(path, steps, strategy="fixed"):
    """Write the audits a training under a scalariser leaves, and read them back."""
    balance = build_balance(strategy)
    for step, (losses, gradients) in enumerate(steps):
        balanced = {task: loss.clone().requires_grad_() for task, loss in losses.items() if task in TASKS}
        parts = torch.autograd.grad(balance(balanced), list(balanced.values()))
        weights = dict.fromkeys(losses, 1.0) | dict(zip(balanced, parts, strict=True))
        line = {"epoch": step // N_STEPS_AN_EPOCH + 1, "step": 5 * step}
        append_metrics(path, line | measure_shares(losses, weights, gradients))
    return read_metrics(path)
