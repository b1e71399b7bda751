"""The processes that train together: who this one is, and sums over all.

Alone, without `torchrun`, a process is rank 0 of 1, and all of this costs next to nothing.
"""

import contextlib
import os

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from moola_lib.errors import UserError


def n_ranks():
    """Return how many processes train together."""
    return distributed.get_world_size() if _is_joined() else 1


def rank():
    """Return this process's number among them, from 0; rank 0 writes."""
    return distributed.get_rank() if _is_joined() else 0


def share(rows):
    """Return this rank's part of a batch, and what it counts.

    Parameters
    ----------
    rows : Tensor (n,)

    Returns
    -------
    own : Tensor
        Every `n_ranks`-th row, so that parts differ by one row at most. Where
        there are fewer rows than ranks, a rank without any takes the first one:
        it has to go through the same motions as the others.
    weight : int
        1, or 0 for a row that is another rank's.
    """
    own = rows[rank() :: n_ranks()]
    return (own, 1) if len(own) else (rows[:1], 0)


def sum_over_ranks(values):
    """Return the sum of a tensor over all ranks, the same number on each of them; no gradient goes through."""
    total = values.detach().clone()
    if _is_joined():
        distributed.all_reduce(total)
    return total


def is_any_rank(flag, device="cpu"):
    """Tell whether the flag is up on any rank: what one process alone knows becomes what all of them do."""
    if not _is_joined():
        return bool(flag)
    return bool(sum_over_ranks(torch.tensor(int(bool(flag)), device=device)))


def wait_for_ranks():
    """Return once all ranks have come here."""
    if _is_joined():
        distributed.barrier()


def average_gradients(model):
    """Return the model to be called in training: its gradients become the mean over ranks (DDP).

    The model itself, alone.
    """
    if not _is_joined():
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


@contextlib.contextmanager
def join_ranks(device_type):
    """Join the processes that `torchrun` started; it yields the torch device of this one.

    Parameters
    ----------
    device_type : {"cpu", "cuda"}
        Each rank computes on a GPU of its own, and talks by NCCL; on a CPU by gloo.

    Raises
    ------
    UserError
        Not started by `torchrun`, or there are fewer GPUs than ranks.
    """
    if "LOCAL_RANK" not in os.environ:
        raise UserError("several ranks are started by torchrun: torchrun --standalone --nproc_per_node=2 -m …")
    device = torch.device(device_type)
    if device_type == "cuda":
        check_gpus(int(os.environ["LOCAL_WORLD_SIZE"]))
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield device
        wait_for_ranks()  # gloo aborts a rank that is left by another while it takes its connections down
    finally:
        distributed.destroy_process_group()


def check_gpus(n):
    """Refuse more ranks on GPUs than there are GPUs."""
    n_found = torch.cuda.device_count()
    if n > n_found:
        raise UserError(f"{n} ranks need a GPU each, torch sees {n_found}; lower n_ranks, or use device: cpu")


def _is_joined():
    return distributed.is_available() and distributed.is_initialized()
