"""Apply a trained localiser to windows."""

import torch

from moola_lib.labels.targets import COUNTDOWN_CLIP_BARS


@torch.no_grad()
def predict_windows(model, gather, places, *, batch_size=256):
    """Return a model's outputs for windows, in plain units.

    Parameters
    ----------
    model : Module
        On the gatherer's device.
    gather : WindowGatherer
    places : ndarray (n,), int64
    batch_size : int

    Returns
    -------
    dict of ndarray
        Those the model has of `type_probability` (n, n_classes), `centre` (n,)
        and `length` (n,) in [0, 1], `inside_probability` (n, time) and
        `countdown` (n, time) in bars; and `is_valid` (n, time) bool. A segment
        posterior adds `span_probability` (n, time, time) of (start, end) given an
        expansion, and `log_odds` (n,), log P(expansion) / P(none) in nats, which
        only ranks windows while the head's `knows_none` is False; where
        the notes' heads are off, the others are its marginals: mean centre and
        length, and the median countdown.
    """
    model.eval()
    parts = []
    for part in torch.as_tensor(places).split(batch_size):
        x, is_valid = gather(part)
        parts.append({**read_outputs(model, model(x)), "is_valid": is_valid})
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}


@torch.no_grad()
def answer_so_far(model, x):
    """Return what a model says of windows that were cut: the `answer` that `evaluation.causal` asks for.

    Parameters
    ----------
    model : Module
    x : Tensor (batch, time, feature), float32
        On the model's device, 0 after the last bar that is seen.

    Returns
    -------
    dict of Tensor
        On the CPU: `inside_probability` (batch, time), and with a segment
        posterior `start_probability` (batch, time). Where it knows "no
        expansion" both count that in; else they are given that there is one.
    """
    answers = read_outputs(model.eval(), model(x))
    found = {"inside_probability": answers["inside_probability"]}
    if "span_probability" in answers:
        found["start_probability"] = answers["span_probability"].sum(dim=2)
        if model.segment_head.knows_none:
            has = answers["log_odds"].sigmoid()[:, None]
            found = {name: value * has for name, value in found.items()}
    return {name: value.cpu() for name, value in found.items()}


def read_outputs(model, outputs):
    """Return a model's raw outputs in plain units, dict of Tensor: see `predict_windows`."""
    found = {}
    if "type_logits" in outputs:
        found["type_probability"] = outputs["type_logits"].softmax(dim=1)
    if "pointers" in outputs:
        found["centre"], found["length"] = outputs["pointers"].unbind(dim=1)
    if "inside_logits" in outputs:
        found["inside_probability"] = outputs["inside_logits"].sigmoid()
    if "countdown" in outputs:
        found["countdown"] = outputs["countdown"] * COUNTDOWN_CLIP_BARS
    if "span_logits" in outputs:
        found = read_posterior(outputs, model.segment_head.first_start) | found
    return found


def read_posterior(outputs, first_start=0):
    """Return the marginals of a segment posterior.

    Parameters
    ----------
    outputs : dict of Tensor
        `span_logits` (batch, n_states, n_starts, time), `null_logit` and `null_slope` (1,).
    first_start : int
        Bar of the first row of starts.

    Returns
    -------
    dict of Tensor
        See `predict_windows`; `type_probability` only where states are told apart.
    """
    logits = outputs["span_logits"]
    evidence = logits.flatten(1).logsumexp(dim=1)
    by_state = (logits - evidence[:, None, None, None]).exp()
    span = by_state.sum(dim=1)
    n, n_starts, time = span.shape
    full = span.new_zeros(n, time, time)
    full[:, first_start : first_start + n_starts] = span
    start, end = full.sum(dim=2), full.sum(dim=1)
    bars = torch.arange(time, device=span.device, dtype=span.dtype)
    mean_start, mean_end = start @ bars, end @ bars
    median = (start.cumsum(dim=1) >= 0.5).float().argmax(dim=1, keepdim=True)
    found = {
        "span_probability": full,
        "log_odds": outputs["null_slope"] * (evidence - outputs["null_logit"]),
        # begun by bar t, less ended before it
        "inside_probability": (start.cumsum(dim=1) - end.cumsum(dim=1) + end).clamp(0, 1),
        "countdown": (median - bars).clamp(-COUNTDOWN_CLIP_BARS, COUNTDOWN_CLIP_BARS),
        "centre": (mean_start + mean_end) / 2 / (time - 1),
        "length": (mean_end - mean_start + 1) / time,
    }
    if by_state.shape[1] > 1:
        found["type_probability"] = by_state.sum(dim=(2, 3))
    return found
