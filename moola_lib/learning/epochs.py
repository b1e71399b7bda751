"""The loop of both pre-trainings: steps on a schedule, validation, checkpoints, resumption to the bit, interrupts."""

import math
import time
from dataclasses import asdict

import numpy as np
import torch

from moola_lib.errors import UserError
from moola_lib.learning.checkpoints import hold_interrupts, read_weights, restore_training, training_state
from moola_lib.learning.device import explain_out_of_memory
from moola_lib.learning.ranks import is_any_rank, rank, wait_for_ranks

FRESH_EPOCH = {"batch": 0, "total": 0.0, "n_seen": 0}  # what is counted while an epoch runs


def learning_rate_at(step, n_steps, settings):
    """Return the rate of a step (0-based): linear warm-up, then cosine.

    The first step already moves (peak / n_warmup), the last warm-up step runs
    at `learning_rate`, and the last step of all at `final_learning_rate`.
    """
    peak, final = settings.learning_rate, settings.final_learning_rate
    n_warmup = max(round(settings.warmup_frac * n_steps), 1)
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    progress = (step - n_warmup + 1) / max(n_steps - n_warmup, 1)
    return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2


def train_epochs(
    model,
    optimizer,
    settings,
    open_epoch,
    validate,
    *,
    n_batches,
    loss_name="loss",
    figures=None,
    patience_epochs=None,
    checkpoints=None,
    resume=False,
    on_epoch=None,
):
    """Train for some epochs and leave the model with the weights of its best one.

    Of several ranks, each runs this loop. What decides where it goes (losses,
    interrupts, a stop) is the same on all of them; rank 0 writes and tells.

    torch's own generator, which dropout draws from, starts every step from the
    seed, the step and the rank: no state of it has to be kept for a resumption.

    Parameters
    ----------
    model : Module
    optimizer : torch.optim.Optimizer
        Its first group follows the schedule and is clipped; others keep their rate.
    settings : PretrainSettings or AmortiseSettings
        Its `n_epochs`, `batch_size`, rates, `clip_norm` and `checkpoint_every_steps`.
    open_epoch : callable(int)
        Takes the epoch (from 0) and returns `losses(batch)`: for the batch
        (from 0) a tuple of what is minimised, what is reported (Tensor (), both),
        how many windows it is of and where they are (str); None skips the batch.
    validate : callable() -> float
        The loss that chooses the epoch; also called before the first.
    n_batches : int
        Of an epoch.
    loss_name : str
        Names the losses in the rows.
    figures : callable(int, float) -> dict, optional
        Further figures of an epoch (from 0), given its validation loss.
    patience_epochs : int, optional
        Stop after so many epochs without anything better.
    checkpoints : Checkpoints, optional
    resume : bool
    on_epoch : callable(dict) -> bool or None, optional
        Called with each epoch's row, once it is saved; True ends the training there.

    Returns
    -------
    list of dict
        One row per epoch: `epoch`, `n_epochs`, `train_<loss>`,
        `validation_<loss>`, `start_<loss>` (validation before training),
        `learning_rate`, `windows_per_second`, and the further figures; the last
        one has `is_stopped` where `on_epoch` ended the training.

    Raises
    ------
    UserError
        The loss becomes NaN, memory runs out, or a checkpoint cannot be written.
    KeyboardInterrupt
        SIGINT came; the step was finished and saved first.
    """
    train, validation = f"train_{loss_name}", f"validation_{loss_name}"
    n_steps = n_batches * settings.n_epochs
    history, best, best_weights = [], math.inf, None
    running = dict(FRESH_EPOCH)
    device = next(model.parameters()).device
    is_writer = checkpoints is not None and rank() == 0
    saved = checkpoints.to_resume(resume) if checkpoints is not None else None
    if saved is None:
        start = validate()
    else:
        before = restore_training(saved, model, optimizer, {}, settings)
        history, running, start = before["history"], before["running"], before["start"]
    if history:
        best = min(row[validation] for row in history)
        best_weights = read_weights(checkpoints.best, model)

    def state():
        extra = {"history": history, "running": running, "start": start, "settings": asdict(settings)}
        return training_state(model, optimizer, {}, extra)

    with hold_interrupts() as is_interrupted:
        for epoch in range(len(history), settings.n_epochs):
            if patience_epochs is not None and _has_stalled([row[validation] for row in history], patience_epochs):
                break
            began, n_seen_before = time.perf_counter(), running["n_seen"]  # before an interruption
            losses = open_epoch(epoch)
            model.train()
            for batch in range(running["batch"], n_batches):
                step = epoch * n_batches + batch
                torch.manual_seed(_step_seed(settings.seed, step))
                optimizer.param_groups[0]["lr"] = learning_rate_at(step, n_steps, settings)
                with explain_out_of_memory(settings.batch_size):
                    found = losses(batch)
                    if found is not None:
                        minimised, reported, n_windows, where = found
                        value = _finite(reported, epoch, batch, where)
                        optimizer.zero_grad(set_to_none=True)
                        minimised.backward()
                        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], settings.clip_norm)
                        optimizer.step()
                        running["total"] += value * n_windows
                        running["n_seen"] += n_windows
                running["batch"] = batch + 1
                is_due = settings.checkpoint_every_steps and (step + 1) % settings.checkpoint_every_steps == 0
                is_stopping = is_any_rank(is_interrupted(), device)
                if is_writer and (is_due or is_stopping):
                    checkpoints.save_latest(state())
                if is_stopping:
                    wait_for_ranks()  # torchrun ends the others as soon as one is gone, and rank 0 may still write
                    raise KeyboardInterrupt
            row = {
                "epoch": epoch + 1,
                "n_epochs": settings.n_epochs,
                train: running["total"] / max(running["n_seen"], 1),
                validation: validate(),
                f"start_{loss_name}": start,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "windows_per_second": (running["n_seen"] - n_seen_before) / (time.perf_counter() - began),
            }
            row |= figures(epoch, row[validation]) if figures is not None else {}
            history.append(row)
            running = dict(FRESH_EPOCH)
            if row[validation] < best:
                best = row[validation]
                best_weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
            if is_writer:
                checkpoints.save(state(), score=row[validation], epoch=epoch + 1)
            is_stopped = is_any_rank(rank() == 0 and on_epoch is not None and on_epoch(row), device)
            if is_any_rank(is_interrupted(), device):
                raise KeyboardInterrupt
            if is_stopped and len(history) < settings.n_epochs:
                row["is_stopped"] = True
                break
    if best_weights is not None:
        model.load_state_dict(best_weights)
    return history


def _step_seed(seed, step):
    """Return where torch's generator starts a step on this rank, int."""
    return int(np.random.SeedSequence((seed, step, rank())).generate_state(1, np.uint64)[0])


def _finite(loss, epoch, batch, where):
    """Return a loss as a number; stop where it is not finite, naming epoch, batch and windows."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise UserError(
            f"the loss became {value} in epoch {epoch + 1}, batch {batch + 1} ({where}); "
            "lower learning_rate, or look for extreme features there"
        )
    return value


def _has_stalled(losses, patience):
    """Tell whether the last `patience` epochs brought nothing better."""
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])
