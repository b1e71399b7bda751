"""Pre-train an encoder on bars without labels, whatever the objective, on one rank or several."""

import math
from dataclasses import dataclass

import torch

from moola_lib.learning.batches import check_features
from moola_lib.learning.device import seed_everything
from moola_lib.learning.epochs import train_epochs
from moola_lib.learning.objectives import Reconstruction
from moola_lib.learning.ranks import average_gradients, n_ranks, share, sum_over_ranks
from moola_lib.windows.samplers import count_drawn, epoch_batches

SIGMA_RATE = 0.05  # of log σ, always: at the others' rate it hardly moves in some hundred steps


@dataclass(frozen=True)
class PretrainSettings:
    """How to pre-train.

    Attributes
    ----------
    n_epochs, batch_size : int
        Of all ranks together.
    windows_per_epoch : int or None
        Windows drawn afresh for each epoch; None takes all.
    epoch_stride : int
        Each epoch takes one window in so many, from an offset drawn for it: with
        windows that overlap, an epoch for a fraction of the price.
    learning_rate, final_learning_rate : float
        Linear warm-up to the first over `warmup_frac` of all steps, then a
        cosine to the second.
    warmup_frac, weight_decay, clip_norm : float
    mask : {"single", "span"}
    mask_ratio : float
        Expected fraction of bars hidden.
    mask_span_bars : float
        Mean length of a hidden span.
    hide_input : bool
        False is the deliberate leak, a control: the loss is still on the
        "hidden" bars, but the encoder sees them. Such an encoder has learned to
        copy; `evaluation.reconstruction.check_hiding` finds it.
    jitter : float
        Standard deviation of noise on the input of training windows (feature
        units); targets and validation stay clean.
    precision : {"fp32", "bf16"}
        Of the training steps; validation is always fp32.
    gradient_checkpointing : bool
        Less memory, a longer step, the same numbers.
    checkpoint_every_steps : int
        Checkpoints within an epoch as well; 0 saves after each epoch only.
    patience_epochs : int
        Stop after this many epochs without a better validation loss.
    seed : int
    n_threads : int or None
    """

    n_epochs: int = 20
    batch_size: int = 64
    windows_per_epoch: int | None = None
    epoch_stride: int = 1
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-4
    warmup_frac: float = 0.25
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    mask: str = "single"
    mask_ratio: float = 0.15
    mask_span_bars: float = 10.0
    hide_input: bool = True
    jitter: float = 0.03
    precision: str = "fp32"
    gradient_checkpointing: bool = False
    checkpoint_every_steps: int = 0
    patience_epochs: int = 10
    seed: int = 17
    n_threads: int | None = None


def pretrain(
    model,
    gather,
    train_places,
    validation_places,
    settings,
    *,
    objective=None,
    checkpoints=None,
    resume=False,
    on_epoch=None,
):
    """Train an encoder without labels.

    Under `torchrun` each rank calls this with equal arguments. A step's batch is
    shared among them, its loss is a sum over all of it divided by the count over
    all of it, and mask and jitter of a window follow from seed, epoch and place:
    without dropout, any number of ranks gives the same losses.

    Parameters
    ----------
    model : MaskedAutoencoder or MultitaskPretrainer
        On the gatherer's device. Left with the weights of its best epoch.
    gather : WindowGatherer
    train_places, validation_places : ndarray (n,), int64
        First bars of windows; the two share no bar (see `split_by_time`).
    settings : PretrainSettings
    objective : Reconstruction or BarClassification, optional
        What to learn; by default to reconstruct hidden bars.
    checkpoints : Checkpoints, optional
        Where rank 0 saves after each epoch, at the steps the settings ask for,
        and when interrupted.
    resume : bool
        Continue from the latest checkpoint if there is one: on CPU the end is
        the same, to the bit, as without the interruption.
    on_epoch : callable(dict) -> bool or None, optional
        Called on rank 0 with each epoch's row, once it is saved; True ends the
        training there.

    Returns
    -------
    list of dict
        One row per epoch: `epoch`, `n_epochs`, `train_<loss>`,
        `validation_<loss>`, `start_<loss>` (validation before training), where
        the loss is `huber` for reconstruction and `loss` for classification;
        `learning_rate`, `windows_per_second`; and for reconstruction
        `validation_sigma_loss` (not a scale), `log_sigma`. The last row has
        `is_stopped` where `on_epoch` ended the training.

    Raises
    ------
    UserError
        The features do not fit the model or are not finite, the loss becomes
        NaN (the batch is named), memory runs out, or a checkpoint cannot be written.
    KeyboardInterrupt
        SIGINT came; the step was finished and saved first.
    """
    check_features(gather, model)
    seed_everything(settings.seed, settings.n_threads)
    objective = objective or Reconstruction(gather, train_places, settings)
    train_places, validation_places = torch.as_tensor(train_places), torch.as_tensor(validation_places)
    model.encoder.is_checkpointed = settings.gradient_checkpointing
    n_drawn = count_drawn(len(train_places), settings.windows_per_epoch, settings.epoch_stride)
    shared = average_gradients(model)

    def open_epoch(epoch):
        batches = epoch_batches(
            len(train_places),
            settings.batch_size,
            seed=settings.seed,
            epoch=epoch,
            n_drawn=n_drawn,
            stride=settings.epoch_stride,
        )

        def losses(batch):
            places = train_places[batches[batch]]
            own, weight = share(places)
            sums, counts = objective.losses(shared, own, epoch)
            counts = sum_over_ranks(counts * weight)
            if not counts.any():  # nothing valid was hidden
                return None
            loss = objective.combine(sums * weight / counts.clamp(min=1))
            reported = sum_over_ranks(loss)
            # the ranks' gradients are averaged; times their number, the mean is the gradient of the whole batch's loss
            minimised = loss * n_ranks() + objective.side_loss(model, reported)
            return minimised, reported, len(places), f"first window at bar {int(places[0])}"

        return losses

    return train_epochs(
        model,
        build_optimizer(model, settings),
        settings,
        open_epoch,
        lambda: objective.validate(model, validation_places),
        n_batches=math.ceil(n_drawn / settings.batch_size),
        loss_name=objective.loss_name,
        figures=lambda epoch, validation: objective.figures(model, validation),
        patience_epochs=settings.patience_epochs,
        checkpoints=checkpoints,
        resume=resume,
        on_epoch=on_epoch,
    )


def build_optimizer(model, settings):
    """Return AdamW over the parameters that follow the schedule, and over log σ with a rate of its own."""
    learners = [parameter for name, parameter in model.named_parameters() if name != "log_sigma"]
    groups = [{"params": learners}]
    if hasattr(model, "log_sigma"):
        groups.append({"params": [model.log_sigma], "lr": SIGMA_RATE, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
