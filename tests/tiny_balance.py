"""Four losses of very different sizes that share a vector, each with a head of its own."""

import torch

from moola_lib.models.jade import LOG_SIGMA_START, TASKS

RATE = 0.01


class Tiny:
    """What a strategy trains: `shared`, `heads` (one number a task) and `log_sigma`.

    `scale` multiplies losses by task.
    """

    def __init__(self, scale=None, device="cpu"):
        self.theta = torch.linspace(0.5, 1.5, 6, device=device).requires_grad_()
        self.head = {task: torch.ones((), device=device, requires_grad=True) for task in TASKS}
        self.log_sigma = torch.tensor(LOG_SIGMA_START, device=device, requires_grad=True)
        self.scale = scale or {}

    @property
    def shared(self):
        return [self.theta]

    @property
    def heads(self):
        return list(self.head.values())

    @property
    def parameters(self):
        return [self.theta, *self.heads, self.log_sigma]

    def losses(self):
        theta, head = self.theta, self.head
        raw = {
            "type": (head["type"] * theta**2).sum(),
            "pointers": 0.01 * (head["pointers"] * theta[:3] - 2).square().sum(),
            "inside": (head["inside"] * theta).exp().mean(),
            "countdown": 3 * (head["countdown"] * theta[2:] - 0.2).abs().sum(),
        }
        return {task: loss * self.scale.get(task, 1.0) for task, loss in raw.items()}

    def backward(self, balance, **options):
        """Leave the gradients of a step; return (losses, weights)."""
        for parameter in self.parameters:
            parameter.grad = None
        losses = self.losses()
        return losses, balance.backward(losses, self.shared, self.heads, log_sigma=self.log_sigma, **options)

    def step(self, balance):
        """Take a whole step: every parameter moves RATE against its gradient, however long that is."""
        found = self.backward(balance)
        with torch.no_grad():
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter -= RATE * parameter.grad / parameter.grad.norm().clamp(min=1e-12)
        balance.after_step(self.log_sigma, self.losses)
        return found

    def train(self, balance, n_epochs, n_steps=4):
        for _ in range(n_epochs):
            for _ in range(n_steps):
                self.step(balance)
            balance.after_epoch()
