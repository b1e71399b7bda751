"""Strategies of TorchJD that make one total of the losses.

What a strategy learns stays on the CPU, four numbers, whatever the model is on.
Where the set of tasks changes (after epochs of pointers alone), it starts afresh.
"""

import torch
from torch.optim import Adam
from torchjd import scalarization

from moola_lib.learning.balance import Fixed

EPSILON = 1e-8  # added to every loss: TorchJD takes logarithms and ratios of them
LEARNED_RATE = 0.025  # FAMO's, by which all learned weights move


class GeometricMean(Fixed):
    """(Π L)^(1/K): the gradient is ∇L/L of every task alike, as for `log`; it has no weights.

    Notes
    -----
    Chennupati et al. 2019, MultiNet++ (CVPR workshops), by TorchJD. Differs: ε = 1e-8 is added to each loss.
    """

    def __call__(self, losses, log_sigma=None):
        """Return the total loss."""
        return _reduce(scalarization.GeometricMean(), losses)


class SmoothTchebycheff(Fixed):
    """μ·log Σ exp(w·L/μ), a smooth maximum of w·L, with μ = 0.1 and the weights of `fixed`.

    Notes
    -----
    Lin et al. 2024, arXiv:2402.19078, by TorchJD.
    """

    smoothing = 0.1

    def __call__(self, losses, log_sigma=None):
        """Return the total loss."""
        preference = torch.tensor([self.weights[task] for task in losses])
        return _reduce(scalarization.STCH(self.smoothing, preference), losses)


class Stateful(Fixed):
    """What scalarisers share that remember something of their tasks; `start(tasks)` says how each begins."""

    def __init__(self, weights=None):
        super().__init__(weights)
        self.tasks, self.scalariser = [], None

    def __call__(self, losses, log_sigma=None):
        """Return the total loss."""
        if self.tasks != list(losses):
            self.start(list(losses))
        return _reduce(self.scalariser, losses)


class DynamicWeightAverage(Stateful):
    """Σ w·L with w = K·softmax(r/2), r the ratio of a task's mean losses in the last two epochs.

    Equal weights for two epochs. A loss's scale cancels in r, but not in the
    sum; about equal weights, so no remedy where scales differ.

    Notes
    -----
    Liu et al. 2019, arXiv:1803.10704, by TorchJD. Differs: ε = 1e-8 is added to each loss.
    """

    def start(self, tasks):
        """Begin without a history."""
        self.tasks, self.scalariser = tasks, scalarization.DWA()

    def after_epoch(self):
        """Close the epoch's mean losses."""
        if self.tasks:
            self.scalariser.step()

    def state_dict(self):
        """Return the mean losses of the last two epochs."""
        # TorchJD 0.18 offers no other way to them
        averages = self.scalariser._previous_averages if self.tasks else []
        return {"tasks": self.tasks, "averages": [average.tolist() for average in averages]}

    def load_state_dict(self, state):
        """Restore them: an epoch of one batch has its losses as means."""
        self.start(state["tasks"])
        for average in state["averages"]:
            self.scalariser(torch.tensor(average))
            self.scalariser.step()


class Famo(Stateful):
    """c·Σ z·log L with z = softmax(learned), so that all log L fall at one rate; c makes Σ c·z/L one.

    The logits follow what a step did to the losses, which are computed again
    after it: one more forward pass, 1.3 times the time of a step. `finetune`
    draws the same dropout masks for it (on the CPU). Under fresh ones, as in the
    original, noise rules: measured at the notes' size, masks then move a loss
    4 to 34 times as far as the step does.

    Notes
    -----
    Liu et al. 2023, arXiv:2306.03792, by TorchJD.
    """

    def start(self, tasks):
        """Begin with equal weights."""
        self.tasks, self.scalariser = tasks, scalarization.FAMO(len(tasks), lr=LEARNED_RATE)

    def after_step(self, log_sigma=None, recompute=None):
        """Move the logits by what the step did to the losses."""
        losses = recompute()
        self.scalariser.update(_stack({task: losses[task] for task in self.tasks}))

    def state_dict(self):
        """Return the logits and their Adam."""
        if not self.tasks:
            return {"tasks": []}
        # TorchJD 0.18 keeps its Adam to itself, from the first update on
        return {"tasks": self.tasks, **adam_state(self.scalariser._w, self.scalariser._optimizer)}

    def load_state_dict(self, state):
        """Restore the logits and their Adam."""
        self.start(state["tasks"])
        if "moments" in state:
            own = self.scalariser
            own._optimizer = Adam([own._w], lr=own.lr, weight_decay=own.weight_decay)
            load_adam_state(own._w, own._optimizer, state)


class ImtlL(Stateful):
    """Σ exp(s)·L − s with learned s, each by the gradient of that total: exp(s) nears 1/L.

    With s = −2 log σ it is twice `uncertainty`. Differs: s has an Adam of its
    own at rate 0.025, as at the model's rate 100 steps hardly move it.

    Notes
    -----
    Liu et al. 2021, Towards Impartial Multi-Task Learning (ICLR), by TorchJD.
    """

    def start(self, tasks):
        """Begin with the plain sum."""
        self.tasks, self.scalariser = tasks, scalarization.IMTLL(len(tasks))
        self.optimizer = Adam(self.scalariser.parameters(), lr=LEARNED_RATE)

    def after_step(self, log_sigma=None, recompute=None):
        """Move the scales by their gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self):
        """Return the scales and their Adam."""
        return {"tasks": self.tasks, **(adam_state(self.scalariser.log_scale, self.optimizer) if self.tasks else {})}

    def load_state_dict(self, state):
        """Restore the scales and their Adam."""
        self.start(state["tasks"])
        if self.tasks:
            load_adam_state(self.scalariser.log_scale, self.optimizer, state)


def adam_state(parameter, optimizer):
    """Return a parameter and its Adam (None: no step yet) as plain JSON."""
    slots = optimizer.state[parameter] if optimizer is not None else {}
    moments = {"moments": {name: slot.tolist() for name, slot in slots.items()}} if slots else {}
    return {"value": parameter.tolist(), **moments}


def load_adam_state(parameter, optimizer, state):
    """Restore what `adam_state` returned."""
    with torch.no_grad():
        parameter.copy_(torch.tensor(state["value"], dtype=torch.float64))
    if "moments" in state:
        slots = {name: torch.tensor(slot, dtype=torch.float64) for name, slot in state["moments"].items()}
        optimizer.load_state_dict({"state": {0: slots}, "param_groups": optimizer.state_dict()["param_groups"]})


def _stack(losses):
    """Return the losses as one vector on the CPU."""
    return torch.stack(list(losses.values())).cpu() + EPSILON


def _reduce(scalariser, losses):
    """Return a scalariser's total, where the losses are."""
    return scalariser(_stack(losses)).to(next(iter(losses.values())).device)
