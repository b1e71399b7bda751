"""Fit the linear part of a segment head to labelled windows: by L-BFGS, to within a fraction of a nat."""

from dataclasses import dataclass
from pathlib import Path

import torch

from moola_lib.errors import UserError
from moola_lib.files import fingerprint
from moola_lib.learning.losses import segment_loss
from moola_lib.models.weights import load_tensors, save_tensors

N_KEPT = 16  # linear fits that a process remembers
_fits = {}
_shared = {}  # "folder": where the processes of an experiment share theirs
NULL_L2 = 1e-3  # keeps the score of "no expansion" finite where every window holds one


@dataclass(frozen=True)
class LinearPenalty:
    """What holds the linear scores down where few windows speak; on standardised columns.

    Attributes
    ----------
    l2 : float
        On every weight's distance from where it started (0, or what pre-training left).
    mirror : float
        On the difference between a start's weights and an end's, mirrored in time.
    length_l2, length_roughness : float
        On the length table, and on the differences between neighbouring lengths.
    """

    l2: float = 1.0
    mirror: float = 0.0
    length_l2: float = 1.0
    length_roughness: float = 0.0


PLAIN = LinearPenalty()
# Chosen on simulated windows of other seeds than those that are reported (reports/LOG.md).
STEADY = LinearPenalty(l2=30.0, length_l2=0.1, length_roughness=30.0)
# For a head that was trained on simulated labels: stay near what it knows.
NEAR = LinearPenalty(l2=300.0, length_l2=1.0, length_roughness=30.0)


def fit_linear(head, batch, penalty=PLAIN, *, encoded=None, knows_none=False, n_windows=None, seed=17, n_iterations=80):
    """Fit the scores that are linear in the features; the encoder plays no part unless `encoded` is given.

    Parameters
    ----------
    head : SegmentHead
        Its scale is set from the batch first.
    batch : dict of Tensor
        All training windows: `x` (n, time, feature), `spans` (n, m, 2), `type`
        (n,), `has_expansion` (n,).
    penalty : LinearPenalty
    encoded : Tensor (n, n_readings, time, width), optional
        What a trained encoder says of the windows. Its contribution is then
        part of the scores and fitted with them, held by the same penalty to
        where it started.
    knows_none : bool
        See `segment_loss`.
    n_windows : int, optional
        How many windows the batch counts for, against the penalty; default its
        rows. Several cuts of one window are one window.
    seed : int
        Of the small random weights that a head with two readings starts from:
        at 0 the two directions are alike, and nothing would tell them apart.
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
    is_new = not bool(head.start.weight.any())
    if is_new:
        head.set_scale(batch["x"])
    n_windows = len(batch["x"]) if n_windows is None else n_windows
    around = head.look_around(batch["x"])
    is_kept = {"contribution.weight", "contribution.bias"} if encoded is None else set()
    parameters = [parameter for name, parameter in head.named_parameters() if name not in is_kept]
    start = {name: value.detach().clone() for name, value in head.named_parameters()}
    if is_new and head.n_readings > 1:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in (head.start.weight, head.end.weight, head.inside.weight):
                weight.add_(torch.randn(weight.shape, generator=generator).to(weight.device) * 0.01)
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
        outputs = head(head.score_linearly(around), encoded)
        loss = segment_loss(outputs, batch, first_start=head.first_start, knows_none=knows_none)
        loss = n_windows * loss + _penalise(head, start, penalty)
        loss.backward()
        losses.append(float(loss.detach()))
        return loss

    optimizer.step(evaluate)
    optimizer.zero_grad(set_to_none=True)
    if not all(bool(torch.isfinite(p).all()) for p in parameters):
        raise UserError("the linear fit diverged; look for extreme feature values in the labelled windows")
    return {"n_evaluations": len(losses), "start": losses[0], "end": min(losses)}


def fit_linear_once(head, batch, penalty, **options):
    """Fit as `fit_linear`, or copy the fit where this experiment has done the same before.

    The arms of an experiment differ in their encoders and share the linear fit
    of each fold; it is the same to the last bit.

    Parameters
    ----------
    head, batch, penalty, **options
        Of `fit_linear`, without `encoded`.
    """
    shape = (head.first_start, head.last_start, head.lead_bars, head.contrast_bars, head.outer_bars, head.upside_down)
    given = [*batch.values(), *_linear_state(head).values()]
    key = fingerprint(repr((penalty, sorted(options.items()), shape)), *(value.cpu().numpy() for value in given))
    path = _shared["folder"] / f"{key}.safetensors" if _shared else None
    if key not in _fits and path is not None and path.exists():
        _fits[key], _ = load_tensors(path)
    if key not in _fits:
        fit_linear(head, batch, penalty, **options)
        _fits[key] = {name: value.clone() for name, value in _linear_state(head).items()}
        if path is not None:
            save_tensors(_fits[key], path)
    head.load_state_dict(_fits[key], strict=False)
    while len(_fits) > N_KEPT:
        del _fits[next(iter(_fits))]  # the oldest


def share_linear_fits(folder):
    """Let this process take linear fits from a folder, and leave its own there for others.

    Parameters
    ----------
    folder : str or Path
    """
    _shared["folder"] = Path(folder)


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


def _penalise(head, start, penalty):
    """Return the penalty, half of each weighted sum of squares."""
    moved = {name: value - start[name] for name, value in head.named_parameters()}
    weights = (moved["start.weight"], moved["end.weight"], moved["inside.weight"])
    total = penalty.l2 * sum((weight**2).sum() for weight in weights)
    if "contribution.weight" in moved:
        total = total + penalty.l2 * (moved["contribution.weight"] ** 2).sum()
    total = total + penalty.mirror * ((weights[0].mean(dim=0) - weights[1][0]) ** 2).sum()
    length = moved["length"]
    total = total + penalty.length_l2 * (length**2).sum() + penalty.length_roughness * (length.diff() ** 2).sum()
    return (total + NULL_L2 * (moved["null"] ** 2).sum()) / 2


def _linear_state(head):
    """Return the head's tensors but for the encoder's contribution."""
    return {name: value for name, value in head.state_dict().items() if not name.startswith("contribution")}
