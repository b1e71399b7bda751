"""In which order windows are shown."""

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
