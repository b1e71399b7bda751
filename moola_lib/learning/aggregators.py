"""Strategies that make one gradient for the encoder out of each task's own.

Each task's gradient by the shared parameters is computed once, a backward pass
through the encoder per task; its weight comes from their inner products. Heads
learn from the plain sum of the losses, each thus from its own alone.
"""

import torch
from torch.optim import Adam
from torchjd.aggregation import AlignedMTLWeighting, MGDAWeighting, PCGradWeighting, UPGradWeighting

from moola_lib.learning.balance import Fixed
from moola_lib.learning.gradients import gramian, task_gradients, write_gradient
from moola_lib.learning.scalarisers import LEARNED_RATE, adam_state, load_adam_state

LEAST_WEIGHT = 1e-3


class Aggregator(Fixed):
    """What aggregators share: all but the weights."""

    weighs_gradients = True

    def __call__(self, losses, log_sigma=None):
        """Return what the heads minimise: the plain sum."""
        return sum(losses.values())

    def backward(self, losses, shared=(), heads=(), *, log_sigma=None, extra=None, gradients=None):
        """Leave the gradients of one step, see `Fixed.backward`; without shared parameters, those of the heads."""
        extra = extra or {}
        total = sum(extra.values(), self(losses) if losses else 0.0)
        if not shared or not losses:
            total.backward()
            return {task: loss.new_ones(()) for task, loss in {**losses, **extra}.items()}
        if gradients is None:
            gradients = task_gradients({**losses, **extra}, shared)
        weights = self.weigh(losses, gramian(gradients[: len(losses)])).to(gradients)
        weights = torch.cat([weights, weights.new_ones(len(extra))])
        total.backward(inputs=list(heads))
        write_gradient(shared, weights @ gradients)
        return dict(zip({**losses, **extra}, weights, strict=True))

    def weigh(self, losses, products):
        """Return each task's weight.

        Parameters
        ----------
        losses : dict of str to Tensor ()
        products : Tensor (n_tasks, n_tasks), float64
            Inner products of their gradients.

        Returns
        -------
        Tensor (n_tasks,), float64
        """
        raise NotImplementedError

    def preference(self, losses):
        """Return the weights as a vector, float64."""
        return torch.tensor([self.weights[task] for task in losses], dtype=torch.float64)


class PCGrad(Aggregator):
    """Σ g, where of each g what runs against another task's is projected away, in random order; no weights.

    The order comes from torch's global seed.

    Notes
    -----
    Yu et al. 2020, arXiv:2001.06782, by TorchJD. One backward pass through the encoder per task.
    """

    def weigh(self, losses, products):
        """Return each task's weight."""
        return PCGradWeighting()(products)


class Mgda(Aggregator):
    """The shortest vector in the convex hull of the g, found by Frank-Wolfe; no weights.

    It leans to the task with the shortest gradient.

    Notes
    -----
    Sener and Koltun 2018, arXiv:1810.04650, by TorchJD. One backward pass through the encoder per task.
    """

    def weigh(self, losses, products):
        """Return each task's weight."""
        return MGDAWeighting()(products)


class AlignedMtl(Aggregator):
    """Σ w·ĝ, the ĝ being orthogonal, equally long and nearest to the g (polar factor); w as for `fixed`.

    Notes
    -----
    Senushkin et al. 2023, arXiv:2305.19000, by TorchJD. One backward pass through the encoder per task.
    """

    def weigh(self, losses, products):
        """Return each task's weight; it may be negative."""
        return AlignedMTLWeighting(self.preference(losses))(products)


class UPGrad(Aggregator):
    """Σ w·π(g), π projecting onto the directions in which no loss rises; w as for `fixed`.

    Notes
    -----
    Quinton and Rey 2024, arXiv:2406.16232, by TorchJD. One backward pass
    through the encoder per task. Differs: the quadratic program is solved as
    non-negative least squares, which needs no solver beside SciPy's.
    """

    def weigh(self, losses, products):
        """Return each task's weight."""
        return UPGradWeighting(self.preference(losses), projector=project_onto_dual_cone)(products)


def project_onto_dual_cone(wanted, products):
    """Return, for each row u of weights, the v ≥ u of least vᵀ G v.

    Parameters
    ----------
    wanted : Tensor (n, n_tasks), float64
    products : Tensor (n_tasks, n_tasks), float64
        G, positive semi-definite.

    Returns
    -------
    Tensor (n, n_tasks), float64

    Notes
    -----
    With G = Rᵀ R and v = u + s it is: minimise ‖R s + R u‖ over s ≥ 0. G is
    divided by its trace, and 1e-9 is added to its diagonal; TorchJD's 1e-4
    would hide a task whose gradient is a hundredth of another's.
    """
    from scipy.optimize import nnls

    scaled = products / products.trace().clamp(min=torch.finfo(products.dtype).tiny)
    root = torch.linalg.cholesky(scaled + 1e-9 * torch.eye(len(products), dtype=products.dtype)).T.numpy()
    return wanted + torch.stack([torch.from_numpy(nnls(root, -root @ row)[0]) for row in wanted.numpy()])


class GradNorm(Aggregator):
    """Σ w·L with learned w that make w·‖g‖ the longer, the slower a task's loss falls.

    Minimises Σ |w·‖g‖ − n·r^α| by w: n the mean of w·‖g‖, r = L/L₀ over its
    mean, α = 1.5. Σ w stays the number of tasks.

    Notes
    -----
    Chen et al. 2018, arXiv:1711.02257. Differs: ‖g‖ is over the whole encoder,
    which the step needs anyway, and w stays above 0.001. One backward pass
    through the encoder per task.
    """

    alpha = 1.5

    def __init__(self, weights=None):
        super().__init__(weights)
        self.start({})

    def start(self, first):
        """Begin with equal weights from the given first losses, dict of float."""
        self.first = first
        self.learned = torch.nn.Parameter(torch.ones(len(first), dtype=torch.float64))
        self.optimizer = Adam([self.learned], lr=LEARNED_RATE)

    def __call__(self, losses, log_sigma=None):
        """Return the total loss."""
        if list(self.first) != list(losses):
            self.start({task: max(float(loss.detach()), 1e-12) for task, loss in losses.items()})
        return sum(weight * loss for weight, loss in zip(self.learned.tolist(), losses.values(), strict=True))

    def weigh(self, losses, products):
        """Return each task's weight, and learn the next step's."""
        used, norms = self.learned.detach().clone(), products.diagonal().sqrt()
        progress = torch.tensor([float(losses[task].detach()) / first for task, first in self.first.items()])
        pace = progress.double() / progress.double().mean().clamp(min=1e-12)
        target = (used * norms).mean() * pace**self.alpha
        self.learned.grad = norms * torch.sign(used * norms - target)
        self.optimizer.step()
        with torch.no_grad():
            self.learned.clamp_(min=LEAST_WEIGHT)
            self.learned.mul_(len(self.first) / self.learned.sum())
        return used

    def state_dict(self):
        """Return the first losses, the weights and their Adam."""
        return {"first": dict(self.first), **adam_state(self.learned, self.optimizer)}

    def load_state_dict(self, state):
        """Restore them."""
        self.start(dict(state["first"]))
        load_adam_state(self.learned, self.optimizer, state)
