"""Where to compute, how to seed, and what to say when memory runs out."""

import contextlib
import os

import torch

from moola_lib.errors import UserError


def resolve_device(name="auto"):
    """Return the torch device for `auto`, `cpu` or `cuda`.

    Raises
    ------
    UserError
        `cuda` is asked for and absent, or the name is unknown.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not known; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but torch sees no GPU; use device: cpu, or check nvidia-smi")
    return torch.device(name)


def usable_cores():
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seed_everything(seed, n_threads=None):
    """Seed torch's global generator and ask for deterministic algorithms.

    Parameters
    ----------
    seed : int
    n_threads : int, optional
        Intra-op threads; results on CPU are bit-identical for equal numbers of threads.
    """
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # deterministic mode also fills every new tensor with NaN, to expose reads of unset memory: a tenth of a step
    torch.utils.deterministic.fill_uninitialized_memory = False
    if n_threads:
        torch.set_num_threads(n_threads)


def at_precision(device, precision):
    """Return the context in which one forward pass computes: open a new one for every step.

    Opened once around a loop, autocast keeps casting the weights of the first
    step, and learning silently stops. Its cache of cast weights is off as well
    (each weight is cast once a pass anyhow), so that not even a caller's own
    autocast can bring that about.

    Parameters
    ----------
    device : torch.device
    precision : {"fp32", "bf16"}
        bf16 has the range of fp32, so losses need no scaling. A CPU without
        bf16 instructions computes it too, slowly. On a GPU torch's autocast may give
        cuDNN's LSTM fp16 whatever type is asked for, whose small gradients would be
        lost: not measured, a test for a GPU looks at it.

    Raises
    ------
    UserError
        The precision is not known, or the GPU lacks it.
    """
    if precision not in ("fp32", "bf16"):
        raise UserError(f"precision {precision!r} is not known; choose fp32 or bf16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("precision bf16 was asked for, but this GPU lacks it; use precision: fp32")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def has_fast_bf16():
    """Tell whether this CPU has instructions for bf16 (AVX-512 BF16, or AMX); without them it is slower than fp32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextlib.contextmanager
def explain_out_of_memory(batch_size):
    """Turn an out-of-memory error into a sentence that names the batch size."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        is_cpu_memory = "can't allocate memory" in str(error) or "not enough memory" in str(error)
        is_memory = is_cpu_memory or isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not is_memory:
            raise
        raise UserError(
            f"out of memory with batch_size {batch_size}; lower batch_size (try {max(batch_size // 2, 1)}), "
            "then hidden_size or max_samples"
        ) from error
