"""Each task's own gradient by the shared parameters: what the audit measures and aggregators combine."""

import torch


def task_gradients(losses, shared):
    """Return the gradient of each loss by the shared parameters.

    Parameters
    ----------
    losses : dict of str to Tensor ()
        Raw losses of one graph, which is kept. Each costs one backward pass through what is shared.
    shared : list of Tensor
        Shared parameters, or the shared representation.

    Returns
    -------
    Tensor (n_losses, n_parameters)
        In the order of `losses`; zeros where a loss does not reach a parameter.
    """
    rows = []
    for loss in losses.values():
        parts = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    torch.zeros_like(tensor).flatten() if part is None else part.flatten()
                    for part, tensor in zip(parts, shared, strict=True)
                ]
            )
        )
    return torch.stack(rows)


def gramian(gradients):
    """Return all inner products of the rows, (n_losses, n_losses) float64 on the CPU: losses differ in scale."""
    rows = gradients.detach().double()
    return (rows @ rows.T).cpu()


def write_gradient(shared, flat):
    """Make one vector (n_parameters,) the `.grad` of the shared parameters, whatever was there."""
    for parameter, part in zip(shared, flat.split([parameter.numel() for parameter in shared]), strict=True):
        parameter.grad = part.view_as(parameter)
