"""Where to compute: what cannot be had is refused in one sentence."""

import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.learning.device import at_precision, explain_out_of_memory, resolve_device


@pytest.fixture(params=[True, False])
def has_gpu(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    return request.param


def test_auto_takes_a_gpu_where_there_is_one(has_gpu):
    assert resolve_device("auto") == torch.device("cuda" if has_gpu else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


def test_an_absent_gpu_and_an_unknown_device_are_sentences(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="cuda was asked for, but torch sees no GPU; use device: cpu"):
        resolve_device("cuda")
    with pytest.raises(UserError, match="'tpu' is not known; choose auto, cpu or cuda"):
        resolve_device("tpu")


def test_a_gpu_without_bf16_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UserError, match="this GPU lacks it; use precision: fp32"):
        at_precision(torch.device("cuda"), "bf16")


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_running_out_of_memory_names_the_batch_size(error):
    words = r"out of memory with batch_size 64; lower batch_size \(try 32\)"
    with pytest.raises(UserError, match=words), explain_out_of_memory(64):
        raise error


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="something else"), explain_out_of_memory(64):
        raise RuntimeError("something else")
