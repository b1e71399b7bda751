"""Pre-train an encoder by reconstructing hidden bars: one visible loop."""

import math
import time
from dataclasses import asdict, dataclass

import torch

from moola_lib.errors import UserError
from moola_lib.learning.batches import check_features
from moola_lib.learning.checkpoints import read_weights, restore_training, training_state
from moola_lib.learning.device import explain_out_of_memory, seed_everything
from moola_lib.learning.losses import masked_huber, sigma_loss
from moola_lib.windows.masks import MASKS
from moola_lib.windows.samplers import shuffled_batches


@dataclass(frozen=True)
class PretrainSettings:
    """How to pre-train.

    Attributes
    ----------
    n_epochs, batch_size : int
    windows_per_epoch : int or None
        Windows drawn afresh for each epoch; None takes all.
    learning_rate, final_learning_rate : float
        Linear warm-up to the first over `warmup_frac` of all steps, then a
        cosine to the second.
    warmup_frac, weight_decay, clip_norm : float
    mask : {"single", "span"}
    mask_ratio : float
        Expected fraction of bars hidden.
    mask_span_bars : float
        Mean length of a hidden span.
    jitter : float
        Standard deviation of noise on the input of training windows (feature
        units); targets and validation stay clean.
    patience_epochs : int
        Stop after this many epochs without a better validation loss.
    seed : int
    n_threads : int or None
    """

    n_epochs: int = 20
    batch_size: int = 64
    windows_per_epoch: int | None = None
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-4
    warmup_frac: float = 0.25
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    mask: str = "single"
    mask_ratio: float = 0.15
    mask_span_bars: float = 10.0
    jitter: float = 0.03
    patience_epochs: int = 10
    seed: int = 17
    n_threads: int | None = None


def draw_mask(shape, settings, generator):
    """Return which bars are hidden, (batch, time) bool, as the settings say."""
    if settings.mask == "span":
        return MASKS["span"](shape, settings.mask_ratio, generator, settings.mask_span_bars)
    return MASKS[settings.mask](shape, settings.mask_ratio, generator)


def learning_rate_at(step, n_steps, *, peak, final, warmup_frac):
    """Return the rate of a step (0-based): linear warm-up, then cosine.

    The first step already moves (peak / n_warmup), the last warm-up step runs
    at `peak`, and the last step of all at `final`.
    """
    n_warmup = max(round(warmup_frac * n_steps), 1)
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    progress = (step - n_warmup + 1) / max(n_steps - n_warmup, 1)
    return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2


def feature_moments(gather, places, *, batch_size=1024):
    """Return each feature's mean and standard deviation over the valid bars of the given windows.

    Fit them on training windows only; a constant feature gets a deviation of 1.

    Returns
    -------
    (mean, deviation) : Tensor (feature,), float32
    """
    count, total, squares = 0, 0.0, 0.0
    for part in torch.as_tensor(places).split(batch_size):
        x, is_valid = gather(part)
        rows = x[is_valid].double()
        count += len(rows)
        total = total + rows.sum(0)
        squares = squares + (rows**2).sum(0)
    if count == 0:
        raise UserError("no training window holds a valid bar; give a longer series")
    mean = total / count
    variance = (squares / count - mean**2).clamp(min=0)
    return mean.float(), torch.where(variance > 1e-12, variance.sqrt(), torch.ones_like(variance)).float()


def pretrain(
    model, gather, train_places, validation_places, settings, *, checkpoints=None, resume=False, on_epoch=None
):
    """Train a masked autoencoder.

    Parameters
    ----------
    model : MaskedAutoencoder
        On the gatherer's device. Left with the weights of its best epoch.
    gather : WindowGatherer
    train_places, validation_places : ndarray (n,), int64
        First bars of windows; the two share no bar (see `split_by_time`).
    settings : PretrainSettings
    checkpoints : Checkpoints, optional
        Where to save after each epoch.
    resume : bool
        Continue from the latest checkpoint if there is one.
    on_epoch : callable(dict), optional
        Called with each epoch's row.

    Returns
    -------
    list of dict
        One row per epoch: `epoch`, `n_epochs`, `train_huber`,
        `validation_huber`, `start_huber` (validation before training),
        `validation_sigma_loss` (not a scale), `log_sigma`, `learning_rate`,
        `windows_per_second`.

    Raises
    ------
    UserError
        The features do not fit the model or are not finite, the loss becomes
        NaN (the batch is named), or memory runs out.
    """
    check_features(gather, model)
    seed_everything(settings.seed, settings.n_threads)
    device = gather.device
    order = torch.Generator().manual_seed(settings.seed)
    noise = torch.Generator(device).manual_seed(settings.seed)
    generators = {"order": order, "noise": noise}
    _, scale = feature_moments(gather, train_places)
    train_places, validation_places = torch.as_tensor(train_places), torch.as_tensor(validation_places)

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    learners = [parameter for name, parameter in model.named_parameters() if name != "log_sigma"]
    per_epoch = min(settings.windows_per_epoch or len(train_places), len(train_places))
    n_batches = math.ceil(per_epoch / settings.batch_size)
    n_steps = n_batches * settings.n_epochs
    history, best, best_weights = [], math.inf, None
    start = validate(model, gather, validation_places, settings, scale)
    saved = checkpoints.to_resume(resume) if checkpoints is not None else None
    if saved is not None:
        history = restore_training(saved, model, optimizer, generators, settings)["history"]
        start = history[0]["start_huber"]
        best = min(row["validation_huber"] for row in history)
        best_weights = read_weights(checkpoints.best, model)

    for epoch in range(len(history), settings.n_epochs):
        if _has_stalled(history, settings.patience_epochs):
            break
        began = time.perf_counter()
        model.train()
        total, n_seen = 0.0, 0
        chosen = torch.randperm(len(train_places), generator=order)[:per_epoch]
        for batch, rows in enumerate(shuffled_batches(per_epoch, settings.batch_size, order)):
            rate = learning_rate_at(
                epoch * n_batches + batch,
                n_steps,
                peak=settings.learning_rate,
                final=settings.final_learning_rate,
                warmup_frac=settings.warmup_frac,
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            with explain_out_of_memory(settings.batch_size):
                clean, is_valid = gather(train_places[chosen[rows]])
                is_masked = draw_mask(is_valid.shape, settings, noise)
                is_scored = is_masked & is_valid
                if not is_scored.any():
                    continue  # nothing valid is hidden: there is no loss
                jitter = torch.randn(clean.shape, generator=noise, device=device) * settings.jitter
                jitter = jitter * is_valid.unsqueeze(-1)  # invalid rows enter as 0
                outputs = model(clean + jitter, is_masked)
                huber = masked_huber(outputs["reconstruction"], clean, is_scored, scale=scale)
                # σ learns from a detached loss and is left out of the clipping:
                # it is reported, and cannot change what the encoder learns
                loss = huber + sigma_loss(huber.detach(), model.log_sigma).sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            value = float(huber.detach())
            if not math.isfinite(value):
                raise UserError(
                    f"the loss became {value} in epoch {epoch + 1}, batch {batch + 1} (first window at bar "
                    f"{int(train_places[chosen[rows]][0])}); lower learning_rate, or look for extreme features there"
                )
            torch.nn.utils.clip_grad_norm_(learners, settings.clip_norm)
            optimizer.step()
            total, n_seen = total + value * len(rows), n_seen + len(rows)
        validation = validate(model, gather, validation_places, settings, scale)
        row = {
            "epoch": epoch + 1,
            "n_epochs": settings.n_epochs,
            "train_huber": total / max(n_seen, 1),
            "validation_huber": validation,
            "start_huber": start,
            "validation_sigma_loss": float(sigma_loss(torch.tensor(validation), model.log_sigma.detach().cpu())),
            "log_sigma": float(model.log_sigma.detach()),
            "learning_rate": rate,
            "windows_per_second": per_epoch / (time.perf_counter() - began),
        }
        history.append(row)
        if validation < best:
            best = validation
            best_weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if checkpoints is not None:
            extra = {"history": history, "settings": asdict(settings)}
            checkpoints.save(training_state(model, optimizer, generators, extra), score=validation, epoch=epoch + 1)
        if on_epoch is not None:
            on_epoch(row)
    if best_weights is not None:
        model.load_state_dict(best_weights)
    return history


@torch.no_grad()
def validate(model, gather, places, settings, scale):
    """Return the mean Huber loss over hidden bars, unjittered, under masks that never change.

    Parameters
    ----------
    places : Tensor (n,), int64
    scale : Tensor (feature,)

    Returns
    -------
    float
    """
    model.eval()
    generator = torch.Generator(gather.device).manual_seed(settings.seed + 1)
    total, n_seen = 0.0, 0
    for part in torch.as_tensor(places).split(256):
        x, is_valid = gather(part)
        is_masked = draw_mask(is_valid.shape, settings, generator)
        is_scored = is_masked & is_valid
        if is_scored.any():
            answer = model(x, is_masked)["reconstruction"]
            total += float(masked_huber(answer, x, is_scored, scale=scale)) * len(part)
            n_seen += len(part)
    if n_seen == 0:
        raise UserError("no hidden bar of the validation windows is valid; give a longer series")
    return total / n_seen


def _has_stalled(history, patience):
    """Tell whether the last `patience` epochs brought nothing better."""
    losses = [row["validation_huber"] for row in history]
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])
