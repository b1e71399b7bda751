"""Set what a trained segment posterior leaves open: how sure it may be, and when to say "no expansion"."""

import math

import torch
from torch.nn import functional

from moola_lib.errors import UserError
from moola_lib.learning.losses import segment_loss

BLOCK = 256
LOG_TEMPERATURE_SD = 0.5  # a few windows that are all right, or all wrong, must not set it to 0 or infinity


def fit_temperature(model, gather, windows):
    """Set the temperature of a segment posterior by windows that it was not trained on.

    Parameters
    ----------
    model : Module with `segment_head`
        Left with `segment_head.temperature` = T: scores are divided by it, so
        that which spans are likelier than others stays.
    gather : WindowGatherer
    windows : LabelledWindows
        Held out of training, of the training fold: never the test fold's.

    Returns
    -------
    dict
        `temperature`; `before` and `after`, mean negative log-likelihood in nats a
        window at T = 1 and at T, never higher; `n_windows`. Where no window
        counts, T is 1 and both are 0.

    Notes
    -----
    Guo et al. 2017, arXiv:1706.04599. Differs: log T has a normal prior of
    deviation 0.5, worth about as much as a few windows.
    """
    head, batch = model.segment_head, _span_targets(windows, gather.device)
    head.temperature.fill_(1.0)
    cold = _score(model, gather, windows.place)
    n_windows = len(windows) if head.knows_none else int(windows.has_expansion.sum())
    log_temperature = torch.zeros((), dtype=torch.float64, device=gather.device, requires_grad=True)

    def loss():
        warm = {name: value / log_temperature.exp() for name, value in cold.items()}
        return segment_loss(warm, batch, first_start=head.first_start, knows_none=bool(head.knows_none))

    def evaluate():
        optimizer.zero_grad(set_to_none=True)
        total = n_windows * loss() + (log_temperature / LOG_TEMPERATURE_SD) ** 2 / 2
        total.backward()
        return total

    optimizer = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn="strong_wolfe")
    before = float(loss().detach())
    optimizer.step(evaluate)
    after, temperature = float(loss().detach()), math.exp(float(log_temperature.detach()))
    if not after <= before:  # as at an optimum of 1, up to rounding
        after, temperature = before, 1.0
    head.temperature.fill_(temperature)
    return {"temperature": temperature, "before": before, "after": after, "n_windows": n_windows}


def fit_null(model, gather, windows, ordinary):
    """Set the score of "no expansion" by windows of ordinary tape, where the labels hold none.

    The log-odds of an expansion become slope * (evidence - null), a logistic
    regression between labelled and ordinary windows on the evidence, the log of
    all spans' summed scores. Each side counts half: at log-odds 0 a window looks
    as much like the one as like the other. Where expansions are rarer, subtract
    the log of how many times. The slope is needed because training given an
    expansion compares the spans of one window, never two windows.

    Parameters
    ----------
    model : Module with `segment_head`
        Left with `segment_head.null` and `null_slope` set and `knows_none` True.
        What it says given an expansion does not change. Fit the temperature first.
    gather : WindowGatherer
    windows : LabelledWindows
        Of the training fold. Better held out of training: the evidence of
        windows that were trained on is higher than of new ones.
    ordinary : OrdinaryWindows (m)
        Of the training fold's days.

    Returns
    -------
    dict
        `null` and `slope`; `auc`, the share of (labelled, ordinary) pairs in which
        the labelled window has the higher evidence; `n_labelled`, `n_ordinary`.

    Raises
    ------
    UserError
        One of the sides is empty.

    Notes
    -----
    Ordinary windows are unlabelled, not empty: a labeller who stopped after a
    few a day left expansions among them. The two sides then look more alike
    than they are: the slope comes out too flat, the odds too near to even, and
    alarms on those windows are counted as false though they are not. Which
    windows rank above which, and with it the alarms at a given recall, does not
    depend on null and slope.
    """
    head, known = model.segment_head, windows.place[windows.has_expansion]
    if len(known) == 0 or len(ordinary) == 0:
        raise UserError(
            f"{len(known)} windows with an expansion and {len(ordinary)} ordinary ones cannot set the score of "
            "'no expansion'; give some of both"
        )
    evidence = [find_evidence(model, gather, places).double() for places in (known, ordinary.place)]
    z = torch.cat(evidence)
    is_known = torch.cat([torch.ones_like(evidence[0]), torch.zeros_like(evidence[1])])
    share = torch.cat([torch.full_like(part, 0.5 / len(part)) for part in evidence])
    null, slope = _fit_logistic(z, is_known, share)
    set_null(head, null, slope)
    above = evidence[0][:, None] - evidence[1]
    auc = float(((above > 0).double() + 0.5 * (above == 0).double()).mean())
    counts = {"n_labelled": len(known), "n_ordinary": len(ordinary)}
    return {"null": null, "auc": auc, "slope": slope, **counts}


@torch.no_grad()
def set_null(head, null, slope):
    """Give a segment head the null and slope that `fit_null` found for its model."""
    head.null.fill_(null * float(head.temperature))
    head.null_slope.fill_(slope)
    head.knows_none.fill_(True)


def find_evidence(model, gather, places):
    """Return log of the summed exponential scores of all spans, (n,) float32 Tensor: how much looks like an expansion.

    Parameters
    ----------
    model : Module with `segment_head`
    gather : WindowGatherer
    places : ndarray (n,), int64
    """
    return _score(model, gather, places)["span_logits"].flatten(1).logsumexp(dim=1)


@torch.no_grad()
def _score(model, gather, places):
    """Return the scores of windows in eval mode: `span_logits` and `null_logit`."""
    model.eval()
    blocks = [model(gather(part)[0]) for part in torch.as_tensor(places).split(BLOCK)]
    spans = torch.cat([outputs["span_logits"] for outputs in blocks])
    return {"span_logits": spans, "null_logit": blocks[0]["null_logit"].detach()}


def _span_targets(windows, device):
    """Return what `segment_loss` reads of labelled windows."""
    columns = {"spans": windows.spans, "type": windows.state, "has_expansion": windows.has_expansion}
    return {name: torch.as_tensor(value).to(device) for name, value in columns.items()}


def _fit_logistic(z, is_known, share):
    """Return (null, slope) of the weighted logistic regression on slope * (z - null)."""
    centre, spread = float(z.mean()), max(float(z.std()), 1e-6)
    # standardised, so that L-BFGS sees a round bowl; a little ridge, since the sides may not overlap at all
    u = (z - centre) / spread
    slope, offset = (torch.tensor(start, dtype=z.dtype, device=z.device, requires_grad=True) for start in (1.0, 0.0))
    optimizer = torch.optim.LBFGS([slope, offset], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def evaluate():
        optimizer.zero_grad(set_to_none=True)
        loss = functional.binary_cross_entropy_with_logits(slope * u - offset, is_known, weight=share, reduction="sum")
        loss = loss + 1e-4 * slope**2
        loss.backward()
        return loss

    optimizer.step(evaluate)
    slope, offset = float(slope.detach()), float(offset.detach())
    return centre + offset / slope * spread, slope / spread
