"""In which order windows are shown."""

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler


def shuffled_batches(n, batch_size, generator):
    """Yield index tensors of a random permutation of n rows, the last batch possibly smaller.

    Parameters
    ----------
    n, batch_size : int
    generator : torch.Generator (cpu)
    """
    yield from torch.randperm(n, generator=generator).split(batch_size)


def epoch_batches(n, batch_size, *, seed, epoch, n_drawn=None):
    """Return the batches of one epoch: rows in random order, the last batch possibly smaller.

    A function of seed and epoch alone, so that a training resumed in the
    middle of an epoch finds the batches that are left.

    Parameters
    ----------
    n, batch_size : int
    seed, epoch : int
    n_drawn : int, optional
        Rows drawn for the epoch, without replacement; None takes all.

    Returns
    -------
    tuple of Tensor, int64
    """
    rows = np.random.default_rng((seed, epoch)).permutation(n)[:n_drawn]
    return torch.from_numpy(rows).split(batch_size)


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
