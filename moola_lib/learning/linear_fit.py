"""Fit the linear part of a segment head to labelled windows: a convex problem, solved to its end by L-BFGS."""

from dataclasses import dataclass

import torch

from moola_lib.errors import UserError
from moola_lib.learning.losses import segment_loss


@dataclass(frozen=True)
class LinearPenalty:
    """What holds the linear scores down where few windows speak; all on standardised features.

    Attributes
    ----------
    l2 : float
        On every weight's distance from where it started (0, or what pre-training left).
    roughness : float
        On differences between the weights of neighbouring bars.
    length_l2, length_roughness : float
        The same for the length table.
    mirror : float
        On differences between a start's weights and an end's, mirrored in time.
    """

    l2: float = 1.0
    roughness: float = 0.0
    length_l2: float = 1.0
    length_roughness: float = 0.0
    mirror: float = 0.0


PLAIN = LinearPenalty()
# Chosen on simulated windows of other seeds than those that are reported (reports/LOG.md).
SMOOTH = LinearPenalty(l2=3.0, roughness=10.0, length_l2=0.1, length_roughness=30.0, mirror=0.0)


def fit_linear(head, batch, penalty=PLAIN, *, knows_none=False, n_iterations=200):
    """Fit the scores that are linear in the features, in double precision; the encoder plays no part.

    Parameters
    ----------
    head : SegmentHead
        Its `mean` and `scale` are set from the batch first.
    batch : dict of Tensor
        All training windows: `x` (n, time, feature), `spans` (n, m, 2), `type`
        (n,), `has_expansion` (n,).
    penalty : LinearPenalty
    knows_none : bool
        See `segment_loss`.
    n_iterations : int

    Returns
    -------
    dict
        `n_evaluations` (int), `start` and `end` of the penalised loss (nats).

    Raises
    ------
    UserError
        A labelled start lies outside the head's range, or the fit diverges.
    """
    check_starts(head, batch["spans"])
    device, dtype = head.length.device, head.length.dtype
    set_scale(head, batch["x"])
    head.double()
    x = batch["x"].double()
    parameters = [p for name, p in head.named_parameters() if not name.startswith("contribution")]
    start = {name: value.detach().clone() for name, value in head.named_parameters()}
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=n_iterations,
        history_size=20,
        tolerance_grad=1e-3,  # of a sum over windows
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )
    losses = []

    def evaluate():
        optimizer.zero_grad(set_to_none=True)
        loss = len(x) * segment_loss(head(x), batch, first_start=head.first_start, knows_none=knows_none)
        loss = loss + _penalise(head, start, penalty)
        loss.backward()
        losses.append(float(loss.detach()))
        return loss

    optimizer.step(evaluate)
    head.to(device=device, dtype=dtype).requires_grad_(True).zero_grad(set_to_none=True)
    if not all(bool(torch.isfinite(p).all()) for p in parameters):
        raise UserError("the linear fit diverged; look for extreme feature values in the labelled windows")
    return {"n_evaluations": len(losses), "start": losses[0], "end": min(losses)}


def check_starts(head, spans):
    """Refuse labels whose expansion starts where the head's range has no start.

    Raises
    ------
    UserError
        Names the first window's row and start.
    """
    start = spans[..., 0]
    is_outside = (start >= 0) & ((start < head.first_start) | (start > head.last_start))
    if is_outside.any():
        row, which = is_outside.nonzero()[0].tolist()
        raise UserError(
            f"labelled window {row} has an expansion that starts at bar {int(start[row, which])}, outside "
            f"{head.first_start} to {head.last_start}; widen start_range, or correct the label"
        )


@torch.no_grad()
def set_scale(head, x):
    """Set the head's mean and scale to those of the bars that are present (training windows only)."""
    readings = head.readings(x)
    rows = readings[(readings != 0).any(dim=-1)].double()
    head.mean.copy_(rows.mean(dim=0))
    deviation = rows.std(dim=0)
    head.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))


def _penalise(head, start, penalty):
    """Return the penalty, half of each weighted sum of squares."""
    moved = {name: value - start[name] for name, value in head.named_parameters()}
    opening, closing = moved["start.weight"], moved["end.weight"]
    total = penalty.l2 * sum((moved[name] ** 2).sum() for name in ("start.weight", "end.weight", "inside.weight"))
    total = total + penalty.roughness * ((opening.diff(dim=2) ** 2).sum() + (closing.diff(dim=2) ** 2).sum())
    length = moved["length"]
    total = total + penalty.length_l2 * (length**2).sum() + penalty.length_roughness * (length.diff() ** 2).sum()
    if penalty.mirror:
        mean_opening = opening.mean(dim=0, keepdim=True)
        total = total + penalty.mirror * ((mean_opening - closing.flip(dims=(2,))) ** 2).sum()
    total = total + (moved["null"] ** 2).sum() * 1e-3  # only where no window speaks of it
    return total / 2
