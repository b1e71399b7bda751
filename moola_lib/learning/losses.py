"""The losses: four for localisation, one for reconstruction."""

import torch
from torch.nn import functional

from moola_lib.labels.targets import COUNTDOWN_CLIP_BARS
from moola_lib.models.jade import TASKS
from moola_lib.models.segments import NEVER

POINTER_DELTA = 0.08
COUNTDOWN_DELTA = 1.0


def task_losses(outputs, batch, *, countdown_unit="scaled", focal_gamma=0.0, class_weights=None, pos_weight=None):
    """Return the raw loss of every head, in the order of TASKS.

    Parameters
    ----------
    outputs : dict of Tensor
        A model's outputs; heads that are switched off are absent.
    batch : dict of Tensor
        `is_valid` (batch, time) bool; `has_expansion` (batch,) bool; `type`
        (batch,) int64; `pointers` (batch, 2), `inside` (batch, time) and
        `countdown` (batch, time) float32, in bars.
    countdown_unit : {"scaled", "bars"}
        Huber on countdown / 20, or on bars.
    focal_gamma : float
        0 is plain cross-entropy.
    class_weights : Tensor (n_classes,), optional
    pos_weight : float, optional
        Weight of bars inside an expansion.

    Returns
    -------
    dict of Tensor ()
        The four of TASKS that the model has: `type` cross-entropy, `pointers` Huber (delta 0.08), `inside` binary
        cross-entropy, `countdown` Huber (delta 1). Bars that are not valid and
        windows without an expansion are left out where they have no target.
    """
    has, is_valid = batch["has_expansion"], batch["is_valid"]
    losses = {}
    if "type_logits" in outputs:
        logits = outputs["type_logits"]
        is_known = has | (logits.shape[1] > 2)  # with a third class, "none" is an answer
        losses["type"] = focal_loss(logits[is_known], batch["type"][is_known], focal_gamma, class_weights)
    if "pointers" in outputs:
        error = functional.huber_loss(outputs["pointers"], batch["pointers"], reduction="none", delta=POINTER_DELTA)
        losses["pointers"] = _mean_where(error, has[:, None].expand_as(error))
    if "inside_logits" in outputs:
        weight = None if pos_weight is None else outputs["inside_logits"].new_tensor(pos_weight)
        error = functional.binary_cross_entropy_with_logits(
            outputs["inside_logits"], batch["inside"], reduction="none", pos_weight=weight
        )
        losses["inside"] = _mean_where(error, is_valid)
    if "countdown" in outputs:
        predicted, target = outputs["countdown"], batch["countdown"] / COUNTDOWN_CLIP_BARS
        if countdown_unit == "bars":
            predicted, target = predicted * COUNTDOWN_CLIP_BARS, batch["countdown"]
        error = functional.huber_loss(predicted, target, reduction="none", delta=COUNTDOWN_DELTA)
        losses["countdown"] = _mean_where(error, is_valid & has[:, None])
    return {task: losses[task] for task in TASKS if task in losses}


def focal_loss(logits, target, gamma=2.0, class_weights=None):
    """Cross-entropy, each row weighted by (1 - p of its class) ** gamma.

    Parameters
    ----------
    logits : Tensor (batch, n_classes), float32
    target : Tensor (batch,), int64
    gamma : float
        0 gives plain cross-entropy.
    class_weights : Tensor (n_classes,), optional
        The mean is weighted, as in `torch.nn.functional.cross_entropy`.

    Returns
    -------
    Tensor (). 0 for an empty batch.

    Notes
    -----
    Lin et al. 2017, arXiv:1708.02002.
    """
    if len(target) == 0:
        return logits.sum() * 0.0
    log_p = functional.log_softmax(logits, dim=1).gather(1, target[:, None]).squeeze(1)
    weights = torch.ones_like(log_p) if class_weights is None else class_weights.to(logits)[target]
    return (-weights * (1 - log_p.exp()) ** gamma * log_p).sum() / weights.sum()


def segment_loss(outputs, batch, *, first_start=0, knows_none=False):
    """Negative log-probability of the labelled spans, in nats a window.

    Parameters
    ----------
    outputs : dict of Tensor
        `span_logits` (batch, n_states, n_starts, time) and `null_logit` (1,) of a `SegmentHead`.
    batch : dict of Tensor
        `spans` (batch, m, 2) int64, padded with -1; `type` (batch,) int64;
        `has_expansion` (batch,) bool; where windows were cut, `last_seen` (batch,)
        int64, the last bar that was shown.
    first_start : int
        Bar of the first row of starts.
    knows_none : bool
        Score "no expansion" too: windows without one count with -log of its
        probability, the others with their expansion's. Else windows without
        one are left out, and the others are scored given that they hold one.

    Returns
    -------
    Tensor (), the mean of -log sum of p(start, end, state) over a window's expansions; 0 where nothing counts.

    Notes
    -----
    A cut window is asked for what its bars can tell. An expansion that is over
    counts by its cell; one that runs, by its start and state and any end to
    come; before the first start every later start counts, of either state, and
    with them "no expansion".
    """
    logits, spans, has = outputs["span_logits"], batch["spans"], batch["has_expansion"]
    evidence = logits.flatten(1).logsumexp(dim=1)
    null = outputs["null_logit"].expand_as(evidence)
    rows = torch.arange(len(logits), device=logits.device)[:, None]
    is_real = spans[..., 0] >= 0
    start, end = (spans[..., 0] - first_start).clamp(min=0), spans[..., 1].clamp(min=0)
    state = torch.zeros_like(batch["type"]) if logits.shape[1] == 1 else batch["type"].clamp(max=logits.shape[1] - 1)
    if "last_seen" in batch:
        is_right, is_waiting = cells_in_sight(spans, state, batch["last_seen"], logits.shape[1:], first_start)
        hit = logits.masked_fill(~is_right, NEVER).flatten(1).logsumexp(dim=1)
    else:
        hit, is_waiting = logits[rows, state[:, None], start, end].masked_fill(~is_real, NEVER).logsumexp(dim=1), ~has
    if not knows_none:
        return _mean_where(evidence - hit, has)
    hit = torch.where(is_waiting, torch.logaddexp(hit, null), hit)
    return (torch.logaddexp(evidence, null) - hit).mean()


def cells_in_sight(spans, state, last_seen, shape, first_start=0):
    """Return the cells that agree with what a window shows up to a bar.

    Parameters
    ----------
    spans : Tensor (batch, m, 2), int64
        Padded with -1.
    state : Tensor (batch,), int64
    last_seen : Tensor (batch,), int64
    shape : (int, int, int)
        States, starts, bars.
    first_start : int
        Bar of the first start.

    Returns
    -------
    is_right : Tensor (batch, n_states, n_starts, time), bool
        Cells of expansions that have started: all ends after `last_seen` for one
        that runs. Where none has, all later starts of any state.
    is_waiting : Tensor (batch,), bool
        No expansion has started by `last_seen`.
    """
    n_states, n_starts, time = shape
    device, t = spans.device, last_seen[:, None]
    starts, ends = torch.arange(n_starts, device=device) + first_start, torch.arange(time, device=device)
    start, end = spans.unbind(dim=2)
    has_started = (start >= 0) & (start <= t)
    is_start = (starts == start.unsqueeze(2)) & has_started.unsqueeze(2)
    is_end = torch.where((end <= t).unsqueeze(2), ends == end.unsqueeze(2), ends > t.unsqueeze(2))
    known = (is_start.unsqueeze(3) & is_end.unsqueeze(2)).any(dim=1)
    is_waiting = ~has_started.any(dim=1)
    later = ((starts > t) & is_waiting.unsqueeze(1)).unsqueeze(2).expand(-1, -1, time)
    is_own = torch.arange(n_states, device=device) == state.unsqueeze(1)
    return (is_own[:, :, None, None] & known.unsqueeze(1)) | later.unsqueeze(1), is_waiting


def masked_huber(predicted, target, is_masked, *, scale=None, delta=1.0, reduction="mean"):
    """Huber loss over hidden bars only.

    Parameters
    ----------
    predicted, target : Tensor (batch, time, feature), float32
        Feature units of the set's table; the target is the clean value.
    is_masked : Tensor (batch, time), bool
        True where the encoder's input was hidden (and the bar is valid).
    scale : Tensor (feature,), optional
        Divides the error, so that features of any spread count alike.
    delta : float
    reduction : {"mean", "sum"}
        Over hidden bars and features. A sum of parts, over the number of all,
        is the mean however a batch was parted.

    Returns
    -------
    Tensor ()

    Raises
    ------
    ValueError
        Shapes disagree, or a mean is asked for and nothing is masked.

    Notes
    -----
    He et al. 2021, arXiv:2111.06377. Differs: masks time steps, not patches.
    """
    if predicted.shape != target.shape or is_masked.shape != target.shape[:2]:
        raise ValueError(
            f"shapes disagree: predicted {tuple(predicted.shape)}, target {tuple(target.shape)}, "
            f"mask {tuple(is_masked.shape)}"
        )
    # no boolean index: its shape would depend on the values, for which a GPU has to stop
    error = torch.where(is_masked.unsqueeze(-1), predicted - target, 0.0)
    if scale is not None:
        error = error / scale
    total = functional.huber_loss(error, torch.zeros_like(error), delta=delta, reduction="sum")
    if reduction == "sum":
        return total
    if not is_masked.any():
        raise ValueError("nothing is masked; there is no loss")
    return total / (is_masked.sum() * target.shape[2])


def sigma_loss(loss, log_sigma):
    """Return loss / (2 σ²) + log σ, which is ½ + ½ ln(loss) at its optimum: not a scale.

    Parameters
    ----------
    loss, log_sigma : Tensor (), float32
    """
    return loss * torch.exp(-2 * log_sigma) / 2 + log_sigma


def _mean_where(values, is_counted):
    """Return the mean of `values` where `is_counted`; 0 (with a graph) where nothing counts."""
    return (values * is_counted).sum() / is_counted.sum().clamp(min=1)
