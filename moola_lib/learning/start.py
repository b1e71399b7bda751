"""How a localiser starts: biases from the training windows' statistics, and its linear scores fitted to them."""

import numpy as np
import torch

from moola_lib.labels.targets import COUNTDOWN_CLIP_BARS
from moola_lib.learning.batches import cut_windows
from moola_lib.learning.linear_fit import check_starts, fit_linear, fit_linear_once

BLOCK = 256  # windows at a time where no gradient is needed
N_CUTS = 2  # of each window, where windows are cut once and for all: for the linear fit and for validation


def set_head_biases(model, windows):
    """Start the heads at the training windows' statistics, so that no epoch is spent on finding them.

    Parameters
    ----------
    model : Module with `heads` (others are left alone)
    windows : LabelledWindows
        Of the training fold only.
    """
    heads = getattr(model, "heads", None)
    if heads is None or not windows.has_expansion.any():
        return
    targets = windows.targets()
    has = windows.has_expansion
    starts = {}
    if "type" in heads.tasks:
        n_classes = heads.type_head.out_features
        counts = np.bincount(targets["type"][targets["type"] < n_classes], minlength=n_classes) + 1.0
        starts["type"] = np.log(counts / counts.sum())
    if "pointers" in heads.tasks:
        starts["pointers"] = _logit(targets["pointers"][has].mean(axis=0))
    if "inside" in heads.tasks:
        starts["inside"] = _logit(targets["inside"].mean(keepdims=True).ravel())
    if "countdown" in heads.tasks:
        starts["countdown"] = targets["countdown"][has].mean(keepdims=True).ravel() / COUNTDOWN_CLIP_BARS
    with torch.no_grad():
        for task, value in starts.items():
            bias = getattr(heads, f"{task}_head").bias
            bias.copy_(torch.as_tensor(value, dtype=bias.dtype))


def start_segment_head(model, batch, settings):
    """Set the segment head's scale from the training windows and fit its linear scores to them.

    Parameters
    ----------
    model : Module with a `segment_head`
        One that was trained before stays near what it knows, its encoder included.
    batch : dict of Tensor
        All training windows, as `LabelledBatches` gives them.
    settings : FinetuneSettings
        Its `linear_penalty`, `is_causal` and `seed`.
    """
    head, n_windows = model.segment_head, len(batch["x"])
    if settings.is_causal:
        batch = cut_windows(batch, head.first_start, torch.Generator().manual_seed(settings.seed), N_CUTS)
    # windows without an expansion teach what "none" looks like; without any, spans are scored given that there is one
    head.knows_none.fill_(not bool(batch["has_expansion"].all()))
    head.null_slope.fill_(1.0)
    if settings.linear_penalty is None:
        check_starts(head, batch["spans"])
        if not bool(head.start.weight.any()):
            head.set_scale(batch["x"])
    else:
        options = {"knows_none": bool(head.knows_none), "n_windows": n_windows, "seed": settings.seed}
        if _is_trained(head):
            fit_linear(head, batch, settings.linear_penalty, encoded=_encode_still(model, batch["x"]), **options)
        else:
            fit_linear_once(head, batch, settings.linear_penalty, **options)


def _is_trained(head):
    """Tell whether a segment head comes with a contribution of its encoder, which starts at nothing."""
    return hasattr(head, "contribution") and bool(head.contribution.weight.any())


@torch.no_grad()
def _encode_still(model, x):
    """Return windows as encoded without dropout; the model is left in eval mode."""
    model.eval()
    return torch.cat([model.encode(part) for part in x.split(BLOCK)])


def _logit(p):
    """Return log(p / (1 - p)), p kept away from 0 and 1."""
    p = np.clip(p, 1e-3, 1 - 1e-3)
    return np.log(p / (1 - p))
