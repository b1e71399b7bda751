"""Strategies that balance the tasks, behind one interface; here those of the notes.

A strategy is called with the raw losses and returns the total to minimise; its
`backward` leaves the gradients of a step. What a task contributes is its loss
times its weight, the derivative of the total by it: for `fixed` that is weight
x loss, for `log` simply the weight. Strategies from papers are in `scalarisers`
(one total, as here) and `aggregators` (one gradient out of each task's own).
All cost one backward pass through the encoder a step, where nothing else is said.
"""

import importlib
import math

import torch

from moola_lib.errors import UserError
from moola_lib.learning import STRATEGIES
from moola_lib.learning.losses import sigma_loss
from moola_lib.models.jade import TASKS

FIXED_WEIGHTS = {"type": 0.1, "pointers": 0.7, "inside": 0.1, "countdown": 0.1}
MANUAL_WEIGHTS = {"type": 0.1, "pointers": 50.0, "inside": 1.0, "countdown": 1.0}
SIGMA_BOUNDS = (0.5, 2.0)
BOUNDED_TASKS = ("type", "pointers")


def build_balance(name, weights=None):
    """Build a strategy by its name.

    Parameters
    ----------
    name : str
        A key of STRATEGIES.
    weights : dict of str to float, optional
        Weight per task, for the strategies that have weights.

    Raises
    ------
    UserError
        The name is not known.
    """
    if name not in STRATEGIES:
        raise UserError(f"balance strategy {name!r} is not known; choose one of {', '.join(STRATEGIES)}")
    module, _, attribute = STRATEGIES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)(weights)


class Fixed:
    """Σ w·L with w = .7 for pointers and .1 for each other task.

    On the notes' loss scales the pointers then contribute 3.6 %.

    Attributes
    ----------
    weighs_gradients : bool
        The strategy needs each task's gradient, so losses alone do not tell what a task contributes.
    """

    start_weights = FIXED_WEIGHTS
    weighs_gradients = False

    def __init__(self, weights=None):
        self.weights = dict(weights or self.start_weights)

    def __call__(self, losses, log_sigma=None):
        """Return the total loss.

        Parameters
        ----------
        losses : dict of str to Tensor ()
            Raw losses by task.
        log_sigma : Tensor (4,), optional
            The model's log σ in the order of TASKS; used by `uncertainty` only.

        Returns
        -------
        Tensor ()
        """
        return sum(self.weights[task] * loss for task, loss in losses.items())

    def backward(self, losses, shared=(), heads=(), *, log_sigma=None, extra=None, gradients=None):
        """Leave the gradients of one step in the parameters' `.grad`, which must be empty.

        Parameters
        ----------
        losses : dict of str to Tensor ()
            Raw losses by task.
        shared, heads : sequence of Parameter
            What all tasks train (empty while the encoder is frozen), and all
            else that trains. Scalarisers ask for neither.
        log_sigma : Tensor (4,), optional
        extra : dict of str to Tensor (), optional
            Losses that are added as they are.
        gradients : Tensor (n_losses + n_extra, n_parameters), optional
            `task_gradients` of all of them, where they are known already.

        Returns
        -------
        dict of str to Tensor ()
            By loss, the weight with which its gradient went into the shared
            parameters: d total / d loss, or what an aggregator gave; 1 for an extra one.
        """
        extra = extra or {}
        for loss in (*losses.values(), *extra.values()):
            loss.retain_grad()
        total = self(losses, log_sigma) if losses else 0.0
        sum(extra.values(), total).backward()
        return {task: loss.grad for task, loss in {**losses, **extra}.items()}

    def after_step(self, log_sigma=None, recompute=None):
        """Do what must follow an optimiser step (nothing, for most).

        Parameters
        ----------
        log_sigma : Parameter (4,), optional
        recompute : callable() -> dict of str to Tensor (), optional
            Computes the step's losses again, with the weights after it.
        """

    def after_epoch(self):
        """Do what must follow an epoch (nothing, for most)."""

    def state_dict(self):
        """Return plain JSON from which `load_state_dict` restores the strategy, between two epochs."""
        return {}

    def load_state_dict(self, state):
        """Restore what `state_dict` returned."""


class Manual(Fixed):
    """Σ w·L with the notes' hand-set weights: pointers 50, type 0.1, inside 1, countdown 1."""

    start_weights = MANUAL_WEIGHTS


class Initial(Fixed):
    """Σ w·L / L₀, where L₀ is the task's loss on the first batch."""

    def __init__(self, weights=None):
        super().__init__(weights)
        self.scale = {}

    def __call__(self, losses, log_sigma=None):
        """Return the total loss; the first call sets the scales."""
        for task, loss in losses.items():
            self.scale.setdefault(task, max(float(loss.detach()), 1e-12))
        return sum(self.weights[task] * loss / self.scale[task] for task, loss in losses.items())

    def state_dict(self):
        """Return the scales."""
        return {"scale": dict(self.scale)}

    def load_state_dict(self, state):
        """Restore the scales."""
        self.scale = dict(state["scale"])


class RunningMean(Fixed):
    """Σ w·L / mean(L): the plain mean of the first 10 steps, then momentum .95.

    Its gradient is w·∇L/L up to the smoothing, as for `log`.
    """

    momentum, warm_up_steps = 0.95, 10

    def __init__(self, weights=None):
        super().__init__(weights)
        self.mean, self.step = {}, 0

    def __call__(self, losses, log_sigma=None):
        """Return the total loss and move the means (in training only: when a gradient is wanted)."""
        if torch.is_grad_enabled():
            self.step += 1
            keep = 1 - 1 / self.step if self.step <= self.warm_up_steps else self.momentum
            for task, loss in losses.items():
                value = float(loss.detach())
                self.mean[task] = keep * self.mean.get(task, value) + (1 - keep) * value
        return sum(self.weights[task] * loss / max(self.mean[task], 1e-12) for task, loss in losses.items())

    def state_dict(self):
        """Return the means and the step."""
        return {"mean": dict(self.mean), "step": self.step}

    def load_state_dict(self, state):
        """Restore the means and the step."""
        self.mean, self.step = dict(state["mean"]), state["step"]


class Uncertainty(Fixed):
    """Σ L / (2 σ²) + log σ with learned σ (Kendall et al. 2018, arXiv:1705.07115).

    With about 100 Adam steps log σ hardly moves unless it has a learning rate
    of its own, about 100 times larger.
    """

    def __call__(self, losses, log_sigma=None):
        """Return the total loss; `log_sigma` is needed."""
        return sum(sigma_loss(loss, log_sigma[TASKS.index(task)]) for task, loss in losses.items())


class UncertaintyBounded(Uncertainty):
    """`uncertainty` with σ kept in [0.5, 2] for pointers and type.

    The bound is a projection after each step: a clamp inside the loss would
    stop the gradient at the bound and never let σ return.
    """

    def after_step(self, log_sigma=None, recompute=None):
        """Project log σ into its bounds, in place."""
        low, high = map(math.log, SIGMA_BOUNDS)
        with torch.no_grad():
            for task in BOUNDED_TASKS:
                log_sigma[TASKS.index(task)].clamp_(low, high)


class Log(Fixed):
    """Σ w·log(L + ε): the gradient is w·∇L/L, so no loss's scale matters."""

    epsilon = 1e-8

    def __call__(self, losses, log_sigma=None):
        """Return the total loss (it may be negative)."""
        return sum(self.weights[task] * torch.log(loss + self.epsilon) for task, loss in losses.items())
