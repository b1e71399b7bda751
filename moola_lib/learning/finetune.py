"""Fine-tune a localiser on labelled windows: linear scores, then a frozen encoder, then all, in one visible loop."""

import math
import time
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import torch

from moola_lib.errors import UserError
from moola_lib.learning.audit import (
    METRICS_NAME,
    append_metrics,
    keep_metrics,
    measure_shares,
    name_extremes,
    refuse_extremes,
    summarise_audits,
)
from moola_lib.learning.balance import build_balance
from moola_lib.learning.batches import LabelledBatches, check_batch, check_features, cut_windows
from moola_lib.learning.checkpoints import read_weights, restore_training, training_state
from moola_lib.learning.device import explain_out_of_memory, seed_everything
from moola_lib.learning.forward import forward, losses_again, losses_of, raw_losses
from moola_lib.learning.gradients import task_gradients
from moola_lib.learning.linear_fit import STEADY, LinearPenalty
from moola_lib.learning.phases import (
    build_optimizer,
    forget_encoded,
    keep_what_stays,
    keeps_linear,
    set_mode,
    split_parameters,
)
from moola_lib.learning.start import BLOCK, set_head_biases, start_segment_head
from moola_lib.models.jade import TASKS
from moola_lib.models.segments import SEGMENT
from moola_lib.windows.augment import warp_batch
from moola_lib.windows.samplers import balanced_batches, shuffled_batches

ON_SILENCED = ("ignore", "warn", "stop")


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune.

    Attributes
    ----------
    n_frozen_epochs, n_unfrozen_epochs : int
        Phase 1 keeps the encoder frozen and in eval mode; phase 2 trains all.
    frozen_learning_rate, unfrozen_learning_rate : float
    encoder_rate_factor : float
        In phase 2 the encoder learns at this multiple of the rate (discriminative rates).
    sigma_rate_factor : float
        log σ learns at this multiple of the rate.
    batch_size : int
    weight_decay, clip_norm : float
    balance : str
        A key of STRATEGIES.
    weights : dict or None
        Task weights, for strategies that have them.
    countdown_unit : {"scaled", "bars"}
    focal_gamma : float
    class_weights : tuple of float or None
        Of the state's loss; not together with `is_class_balanced`, one remedy at a time.
    is_class_balanced : bool
        Draw windows with weight 1 / class count.
    linear_penalty : LinearPenalty or None
        A segment head's linear scores are fitted first, by L-BFGS, and then kept.
        None: they are trained with everything else. Where the head was trained
        before (see `learning.amortise`), what its encoder says is part of the
        fit, which begins from there; NEAR is the penalty for that.
    is_causal : bool
        Train on windows cut after a random bar, a new one each time, so that the
        posterior learns to answer from the bars so far; see `segment_loss`.
    n_pointer_epochs : int
        First epochs that train on the pointers alone.
    time_warp_probability : float
        Off (0) by default: with few windows it adds noise, not diversity.
    audit_every : int
        Steps between measurements of what each task sends into the encoder,
        counted from the first that trains it; 0 measures none. A measurement
        costs a backward pass through the encoder per task.
    on_silenced : {"ignore", "warn", "stop"}
        What happens where a task's share of the encoder's gradient, the mean
        over an epoch's audits, is under SILENCED_SHARE or over DOMINATING_SHARE:
        nothing; the epoch's row names it; or the training stops as well.
    seed : int
    n_threads : int or None
    """

    n_frozen_epochs: int = 20
    n_unfrozen_epochs: int = 30
    frozen_learning_rate: float = 3e-4
    unfrozen_learning_rate: float = 1e-4
    encoder_rate_factor: float = 1.0
    sigma_rate_factor: float = 1.0
    batch_size: int = 29
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    balance: str = "fixed"
    weights: dict | None = None
    countdown_unit: str = "scaled"
    focal_gamma: float = 0.0
    class_weights: tuple | None = None
    is_class_balanced: bool = True
    linear_penalty: LinearPenalty | None = field(default=STEADY)
    is_causal: bool = False
    n_pointer_epochs: int = 0
    time_warp_probability: float = 0.0
    audit_every: int = 30
    on_silenced: str = "warn"
    seed: int = 17
    n_threads: int | None = None


def finetune(
    model, gather, windows, settings, *, validation=None, checkpoints=None, resume=False, score=None, on_epoch=None
):
    """Train a localiser on labelled windows.

    Parameters
    ----------
    model : Module with `tasks`
        On the gatherer's device. Left with the weights of its best epoch by
        validation loss, or of its last where no validation is given.
    gather : WindowGatherer
    windows : LabelledWindows
        The training windows.
    settings : FinetuneSettings
    validation : LabelledWindows, optional
        Part of the training fold held out to choose the epoch; never the test fold.
    checkpoints : Checkpoints, optional
    resume : bool
        Continue from the latest checkpoint if there is one.
    score : callable(model) -> dict, optional
        Extra figures for each epoch's row.
    on_epoch : callable(dict) -> bool or None, optional
        Called with each epoch's row, once it is saved; True ends the training there.

    Returns
    -------
    list of dict
        One row per epoch: `epoch`, `n_epochs`, `phase`, raw training losses
        `loss_<task>`, `validation_loss` (mean over tasks of loss / loss before
        training; 1 at the start), `windows_per_second`, `sigma_<task>`, for `ema`
        `running_mean_<task>`, and where two or more tasks were audited `loss_share_<task>`,
        `gradient_share_<task>` and `cosine_<a>~<b>` averaged over the epoch, and
        `silenced` and `dominating` (lists of tasks). The last row has `is_stopped`
        where `on_epoch` ended the training. Every audit is a line of
        `metrics.jsonl` beside the checkpoints; `evaluation.balance.read_metrics` reads it.

    Raises
    ------
    UserError
        A batch breaks the schema, the loss becomes NaN (its windows are
        named), memory runs out, or a task is silenced and that shall stop the training.
    """
    seed_everything(settings.seed, settings.n_threads)
    order = torch.Generator().manual_seed(settings.seed)
    balance = build_balance(settings.balance, settings.weights)
    _check_settings(model, settings)
    check_features(gather, model)
    data = LabelledBatches(gather, windows)
    for rows in torch.arange(len(windows)).split(BLOCK):
        check_batch(data.batch(rows), n_features=gather.n_features, n_classes=_n_classes(model))
    set_head_biases(model, windows)
    if hasattr(model, "segment_head"):
        start_segment_head(model, data.batch(torch.arange(len(windows))), settings)
    held_out = LabelledBatches(gather, validation) if validation is not None and len(validation) else None
    keep_what_stays(model, [data, held_out], settings)
    start_losses = losses_of(model, data, settings)
    start_validation = losses_of(model, held_out, settings) if held_out else None

    n_epochs = settings.n_frozen_epochs + settings.n_unfrozen_epochs
    history, best, best_weights = [], math.inf, None
    if held_out and keeps_linear(model, settings):
        # the linear fit alone is a candidate: what comes after must beat it
        best, best_weights = _relative(start_validation, start_validation), _copy_weights(model)
    optimizer = build_optimizer(model, settings, is_frozen=settings.n_frozen_epochs > 0) if n_epochs else None
    saved = checkpoints.to_resume(resume) if checkpoints is not None else None
    if saved is not None:
        before, optimizer = _resume(saved, model, settings, {"order": order}, balance)
        history, start_losses, start_validation = before["history"], before["start"], before["start_validation"]
        best_epoch = min(row["selection_loss"] for row in history)
        if best_epoch < best:
            best, best_weights = best_epoch, read_weights(checkpoints.best, model)
        keep_what_stays(model, [data, held_out], settings)
    metrics = checkpoints.folder / METRICS_NAME if checkpoints is not None else None
    if metrics is not None:
        keep_metrics(metrics, len(history))

    for epoch in range(len(history), n_epochs):
        is_frozen = epoch < settings.n_frozen_epochs
        if epoch == settings.n_frozen_epochs and epoch > 0 and optimizer.is_frozen:
            optimizer = build_optimizer(model, settings, is_frozen=False)
        if not is_frozen:
            forget_encoded([data, held_out])
        set_mode(model, is_frozen)
        shared, heads = split_parameters(model)
        began = time.perf_counter()
        sums, audits, n_seen = {}, [], 0
        batches = (
            balanced_batches(data.targets["type"].cpu(), settings.batch_size, order)
            if settings.is_class_balanced
            else shuffled_batches(len(windows), settings.batch_size, order)
        )
        for step, rows in enumerate(batches):
            with explain_out_of_memory(settings.batch_size):
                batch = data.batch(rows)
                if settings.time_warp_probability:
                    batch = warp_batch(batch, data.span(rows), settings.time_warp_probability, order)
                if settings.is_causal:
                    batch = cut_windows(batch, model.segment_head.first_start, order)
                random_state = torch.get_rng_state()
                outputs = forward(model, batch)
                losses = raw_losses(model, outputs, batch, settings)
                if epoch < settings.n_pointer_epochs and "pointers" in losses:
                    losses = {"pointers": losses["pointers"]}
                _check_finite(losses, windows, rows, epoch, step)
                n_before = (epoch - settings.n_frozen_epochs) * -(-len(windows) // settings.batch_size) + step
                is_audited = shared and len(losses) > 1 and _is_due(settings.audit_every, n_before)
                gradients = task_gradients(losses, shared) if is_audited else None
                optimizer.zero_grad(set_to_none=True)
                # the segment loss is one loss, in nats: it needs no balance
                segment = {task: loss for task, loss in losses.items() if task == SEGMENT}
                notes = {task: loss for task, loss in losses.items() if task != SEGMENT}
                log_sigma = outputs.get("log_sigma")
                weights = balance.backward(
                    notes, shared, heads, log_sigma=log_sigma, extra=segment, gradients=gradients
                )
            if is_audited:
                rate = settings.unfrozen_learning_rate * settings.encoder_rate_factor
                shares = measure_shares(losses, weights, gradients, learning_rate=rate)
                audits.append({"epoch": epoch + 1, "step": n_before, **shares, **_remembered(model, balance)})
                if metrics is not None:
                    append_metrics(metrics, audits[-1])
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            if notes:
                balance.after_step(log_sigma, partial(losses_again, model, batch, settings, random_state))
            n_seen += len(rows)
            for task, loss in losses.items():
                sums[task] = sums.get(task, 0.0) + float(loss.detach()) * len(rows)

        row = {"epoch": epoch + 1, "n_epochs": n_epochs, "phase": "frozen" if is_frozen else "unfrozen"}
        row |= {f"loss_{task}": value / n_seen for task, value in sums.items()}
        row["train_loss"] = _relative({task: value / n_seen for task, value in sums.items()}, start_losses)
        if held_out:
            row["validation_loss"] = _relative(losses_of(model, held_out, settings), start_validation)
        row["windows_per_second"] = n_seen / (time.perf_counter() - began)
        for kind, values in _remembered(model, balance).items():
            row |= {f"{kind}_{task}": value for task, value in values.items()}
        row |= summarise_audits(audits)
        row |= name_extremes(row) if settings.on_silenced != "ignore" else {}
        balance.after_epoch()
        row["selection_loss"] = row["validation_loss"] if held_out else float(n_epochs - epoch)
        if score is not None:
            row |= score(model)
        history.append(row)
        if row["selection_loss"] < best:
            best = row["selection_loss"]
            best_weights = _copy_weights(model)
        if checkpoints is not None:
            extra = {"history": history, "balance": balance.state_dict(), "settings": asdict(settings)}
            extra |= {"start": start_losses, "start_validation": start_validation}
            state = training_state(model, optimizer, {"order": order}, extra)
            checkpoints.save(state, score=row["selection_loss"], epoch=epoch + 1)
        is_stopped = on_epoch is not None and on_epoch(row)
        if settings.on_silenced == "stop":
            refuse_extremes(row)
        if is_stopped and len(history) < n_epochs:
            row["is_stopped"] = True
            break
    if best_weights is not None:
        model.load_state_dict(best_weights)
    set_mode(model, is_frozen=False)
    return history


def _check_settings(model, settings):
    """Refuse settings that contradict each other or the model."""
    if settings.is_class_balanced and settings.class_weights is not None:
        raise UserError("class weights and balanced drawing are two remedies for one thing; choose one")
    if settings.n_frozen_epochs and not hasattr(model, "encoder"):
        raise UserError(f"{model.spec['name']} has no encoder to freeze; set n_frozen_epochs to 0")
    if settings.is_causal and model.tasks != (SEGMENT,):
        raise UserError("cut windows train the segment posterior alone; build the model with heads: segment")
    if settings.on_silenced not in ON_SILENCED:
        raise UserError(f"on_silenced {settings.on_silenced!r} is not known; choose one of {', '.join(ON_SILENCED)}")


def _is_due(every, n_before):
    """Tell whether a step is measured, given how many came before it."""
    return every > 0 and n_before % every == 0


def _resume(path, model, settings, generators, balance):
    """Restore a checkpoint into an optimiser of its own phase; return (metadata, optimiser)."""
    from moola_lib.models.weights import load_tensors

    n_done = len(load_tensors(path)[1]["history"])
    optimizer = build_optimizer(
        model, settings, is_frozen=n_done <= settings.n_frozen_epochs and settings.n_frozen_epochs > 0
    )
    metadata = restore_training(path, model, optimizer, generators, settings)
    balance.load_state_dict(metadata["balance"])
    return metadata, optimizer


def _copy_weights(model):
    """Return a copy of the model's tensors."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _relative(losses, start):
    """Return the mean over tasks of loss / loss before training."""
    return float(np.mean([losses[task] / max(start[task], 1e-12) for task in losses]))


def _check_finite(losses, windows, rows, epoch, step):
    """Stop on a NaN or infinite loss, naming task, epoch, batch and windows."""
    bad = [task for task, loss in losses.items() if not math.isfinite(float(loss.detach()))]
    if bad:
        names = ", ".join(map(str, windows.window_id[rows.numpy()[:3]]))
        raise UserError(
            f"the {bad[0]} loss is not finite in epoch {epoch + 1}, batch {step + 1} (windows {names}, ...); "
            "lower the learning rate, or look at those windows"
        )


def _remembered(model, balance):
    """Return what is learned or remembered of each task: `sigma` and `running_mean`, dict of dict by task."""
    remembered = {}
    if hasattr(model, "log_sigma"):
        remembered["sigma"] = dict(zip(TASKS, model.log_sigma.detach().exp().tolist(), strict=True))
    if "mean" in balance.state_dict():
        remembered["running_mean"] = balance.state_dict()["mean"]
    return remembered


def _n_classes(model):
    """Return how many classes the model's type head has (2 where it has none)."""
    return model.spec["n_classes"] or 2
