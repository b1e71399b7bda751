"""What trains in which phase of fine-tuning, and what stays as it is so that it need be computed once."""

import torch

from moola_lib.errors import UserError
from moola_lib.learning.start import BLOCK


def build_optimizer(model, settings, *, is_frozen):
    """Return AdamW over exactly the parameters that this phase trains; encoder and log σ have rates of their own."""
    rate = settings.frozen_learning_rate if is_frozen else settings.unfrozen_learning_rate
    encoder = set(model.encoder.parameters()) if hasattr(model, "encoder") else set()
    kept = set(_linear_parameters(model.segment_head)) if keeps_linear(model, settings) else set()
    for parameter in model.parameters():
        parameter.requires_grad_(not (parameter in kept or (is_frozen and parameter in encoder)))
    sigma = getattr(model, "log_sigma", None)
    learners = [p for p in model.parameters() if p.requires_grad and p is not sigma]
    if not learners:
        raise UserError(f"{model.spec['name']} has nothing to train after its linear fit; set both phases to 0 epochs")
    decay = {"weight_decay": settings.weight_decay}
    groups = [
        {"params": [p for p in learners if p not in encoder], "lr": rate, **decay},
        {"params": [p for p in learners if p in encoder], "lr": rate * settings.encoder_rate_factor, **decay},
    ]
    if sigma is not None:
        groups.append({"params": [sigma], "lr": rate * settings.sigma_rate_factor, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
    optimizer.is_frozen = is_frozen
    return optimizer


def split_parameters(model):
    """Return what trains, as lists: what all tasks share (the encoder's parameters), and the rest."""
    encoder = set(model.encoder.parameters()) if hasattr(model, "encoder") else set()
    learners = [p for p in model.parameters() if p.requires_grad]
    return [p for p in learners if p in encoder], [p for p in learners if p not in encoder]


def set_mode(model, is_frozen):
    """Train mode, but a frozen encoder stays in eval mode (no dropout), so its activations can be cached."""
    model.train()
    if is_frozen:
        model.encoder.eval()
        model.input_dropout.eval()


@torch.no_grad()
def keep_what_stays(model, parts, settings):
    """Encode once for the frozen phase, and score once where the linear scores stay, if windows stay as they are."""
    if settings.time_warp_probability or settings.is_causal:
        return
    was_training = model.training
    model.eval()
    for data in filter(None, parts):
        x = data.gather(data.places)[0].split(BLOCK)
        if settings.n_frozen_epochs:
            data.encoded = torch.cat([model.encode(part) for part in x])
        if keeps_linear(model, settings) and hasattr(model, "encode"):
            scored = [model.score_linearly(part) for part in x]
            data.linear = tuple(torch.cat(scores) for scores in zip(*scored, strict=True))
    model.train(was_training)


def forget_encoded(parts):
    """Drop what a frozen encoder said: it trains now."""
    for data in filter(None, parts):
        data.encoded = None


def keeps_linear(model, settings):
    """Tell whether a fitted linear part stays as it is."""
    return hasattr(model, "segment_head") and settings.linear_penalty is not None


def _linear_parameters(head):
    """Return the parameters of a segment head that its linear fit sets."""
    return [p for name, p in head.named_parameters() if not name.startswith("contribution")]
