"""In which order windows are shown."""

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

from moola_lib.errors import UserError


def shuffled_batches(n, batch_size, generator):
    """Yield index tensors of a random permutation of n rows, the last batch possibly smaller.

    Parameters
    ----------
    n, batch_size : int
    generator : torch.Generator (cpu)
    """
    yield from torch.randperm(n, generator=generator).split(batch_size)


def count_drawn(n, windows_per_epoch=None, stride=1):
    """Return how many of n rows an epoch draws: one in `stride`, at most `windows_per_epoch`.

    Raises
    ------
    UserError
        The stride leaves none.
    """
    if stride > n:
        raise UserError(f"epoch_stride {stride} leaves none of {n} windows; lower it")
    return min(windows_per_epoch or n, n // stride)


def epoch_batches(n, batch_size, *, seed, epoch, n_drawn=None, stride=1):
    """Return the batches of one epoch: rows in random order, the last batch possibly smaller.

    A function of seed and epoch alone, so that a training resumed in the
    middle of an epoch finds the batches that are left. No row comes twice.

    Parameters
    ----------
    n, batch_size : int
    seed, epoch : int
    n_drawn : int, optional
        Rows drawn for the epoch, without replacement; None takes all.
    stride : int
        Draw from every so many-th row only, from an offset that is drawn first.

    Returns
    -------
    tuple of Tensor, int64
    """
    rng = np.random.default_rng((seed, epoch))
    rows = stride * rng.permutation(n // stride)[:n_drawn]
    offset = rng.integers(stride + n % stride)  # 0 where every row may be drawn
    return torch.from_numpy(rows + offset).split(batch_size)


def balanced_batches(classes, batch_size, generator):
    """Yield index tensors drawn with replacement, each row weighted by 1 / its class's count.

    Parameters
    ----------
    classes : Tensor (n,), int64
    batch_size : int
    generator : torch.Generator (cpu)
    """
    counts = torch.bincount(classes)
    weights = 1.0 / counts[classes].double()
    sampler = WeightedRandomSampler(weights, len(classes), replacement=True, generator=generator)
    yield from torch.tensor(list(sampler)).split(batch_size)
