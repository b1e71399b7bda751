"""What each task sends into the shared encoder: shares of the loss and of the gradient."""

import numpy as np
import torch

SILENCED_SHARE = 0.05


def measure_shares(losses, total, shared):
    """Measure what every task contributes to the loss and to the gradient.

    Parameters
    ----------
    losses : dict of str to Tensor ()
        Raw losses, part of the graph of `total`.
    total : Tensor ()
        What a strategy made of them.
    shared : list of Tensor
        Shared parameters (or the shared representation) to differentiate by.

    Returns
    -------
    dict
        `loss_share`, `gradient_norm`, `gradient_share` (dict task → float,
        shares sum to 1) and `cosine` (dict "a~b" → float). A task's loss share
        is its loss times d total / d loss; its gradient is that derivative
        times the gradient of its raw loss. The graph is kept.
    """
    tasks = list(losses)
    slopes = torch.autograd.grad(total, list(losses.values()), retain_graph=True)
    gradients = []
    for task, slope in zip(tasks, slopes, strict=True):
        parts = torch.autograd.grad(losses[task], shared, retain_graph=True, allow_unused=True)
        flat = [
            torch.zeros_like(tensor).flatten() if part is None else part.flatten()
            for part, tensor in zip(parts, shared, strict=True)
        ]
        gradients.append(torch.cat(flat) * slope)
    norms = np.array([float(gradient.norm()) for gradient in gradients])
    contributions = np.array([float(losses[task].detach() * slope) for task, slope in zip(tasks, slopes, strict=True)])
    cosine = {}
    for i, first in enumerate(tasks):
        for j in range(i + 1, len(tasks)):
            product = norms[i] * norms[j]
            dot = float(gradients[i] @ gradients[j])
            cosine[f"{first}~{tasks[j]}"] = dot / product if product > 0 else 0.0
    return {
        "loss_share": dict(zip(tasks, _shares(contributions), strict=True)),
        "gradient_norm": dict(zip(tasks, map(float, norms), strict=True)),
        "gradient_share": dict(zip(tasks, _shares(norms), strict=True)),
        "cosine": cosine,
    }


def _shares(values):
    """Return values over their sum, or zeros."""
    total = values.sum()
    return [float(value / total) if total > 0 else 0.0 for value in values]
