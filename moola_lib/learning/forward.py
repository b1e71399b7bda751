"""A forward pass of a localiser and the raw losses of all its heads."""

import torch

from moola_lib.learning.batches import cut_windows
from moola_lib.learning.losses import segment_loss, task_losses
from moola_lib.learning.start import BLOCK, N_CUTS
from moola_lib.models.segments import SEGMENT


def raw_losses(model, outputs, batch, settings):
    """Return the raw losses of every head the model has."""
    weights = None if settings.class_weights is None else torch.tensor(settings.class_weights)
    losses = task_losses(
        outputs,
        batch,
        countdown_unit=settings.countdown_unit,
        focal_gamma=settings.focal_gamma,
        class_weights=weights,
    )
    if "span_logits" in outputs:
        first = model.segment_head.first_start
        knows_none = bool(model.segment_head.knows_none)
        losses[SEGMENT] = segment_loss(outputs, batch, first_start=first, knows_none=knows_none)
    return losses


def forward(model, batch):
    """Return the outputs for a batch, from what of it is encoded and scored already."""
    if not hasattr(model, "encode"):
        return model(batch["x"])
    encoded, linear = batch.get("encoded"), batch.get("linear")
    return model.decode(
        model.encode(batch["x"]) if encoded is None else encoded,
        model.score_linearly(batch["x"]) if linear is None else linear,
    )


@torch.no_grad()
def losses_again(model, batch, settings, random_state):
    """Return the losses of a training batch again, its dropout masks drawn (on the CPU) from the same random state."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random_state)
        return raw_losses(model, forward(model, batch), batch, settings)


@torch.no_grad()
def losses_of(model, data, settings):
    """Return the raw losses over all windows in eval mode, dict of float (mean of blocks by size)."""
    was_training = model.training
    model.eval()
    sums = {}
    cuts = torch.Generator().manual_seed(settings.seed)  # the same in every epoch
    for rows in torch.arange(len(data.windows)).split(BLOCK):
        batch = data.batch(rows)
        if settings.is_causal:
            batch = cut_windows(batch, model.segment_head.first_start, cuts, N_CUTS)
        losses = raw_losses(model, forward(model, batch), batch, settings)
        for task, loss in losses.items():
            sums[task] = sums.get(task, 0.0) + float(loss) * len(rows)
    model.train(was_training)
    return {task: value / len(data.windows) for task, value in sums.items()}
