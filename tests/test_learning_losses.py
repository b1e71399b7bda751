"""Losses against hand computations."""

import math

import pytest
import torch
from torch.nn import functional

from moola_lib.errors import UserError
from moola_lib.learning.batches import check_batch
from moola_lib.learning.device import explain_out_of_memory, resolve_device
from moola_lib.learning.losses import focal_loss, masked_huber, sigma_loss, task_losses
from moola_lib.models.jade import TASKS


def huber(error, delta):
    error = abs(error)
    return error**2 / 2 if error <= delta else delta * (error - delta / 2)


@pytest.fixture
def batch():
    """Three windows of four bars; the last has no expansion, and some bars are not valid."""
    return {
        "x": torch.zeros(3, 4, 2),
        "is_valid": torch.tensor([[True] * 4, [False, True, True, True], [True] * 4]),
        "has_expansion": torch.tensor([True, True, False]),
        "type": torch.tensor([0, 1, 2]),
        "pointers": torch.tensor([[0.5, 0.1], [0.6, 0.2], [0.0, 0.0]]),
        "inside": torch.tensor([[0.0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]),
        "countdown": torch.tensor([[1.0, 0, -1, -2], [3, 2, 1, 0], [0, 0, 0, 0]]),
    }


@pytest.fixture
def outputs():
    return {
        "type_logits": torch.tensor([[2.0, 0.0], [1.0, 1.0], [9.0, -9.0]]),
        "pointers": torch.tensor([[0.54, 0.3], [0.6, 0.2], [0.9, 0.9]]),
        "inside_logits": torch.zeros(3, 4),
        "countdown": torch.tensor([[0.0, 0, 0, 0], [2.0, 0.1, 0.05, 0], [5, 5, 5, 5]]),
    }


def test_every_loss_by_hand(batch, outputs):
    losses = task_losses(outputs, batch)
    assert tuple(losses) == TASKS
    assert losses["type"].item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(2)) / 2)
    assert losses["pointers"].item() == pytest.approx((huber(0.04, 0.08) + huber(0.2, 0.08)) / 4, abs=1e-7)
    assert losses["inside"].item() == pytest.approx(math.log(2))
    # bar 0 of the second window is not valid: its error of 1.85 does not count
    errors = [0.05, 0, 0.05, 0.1, 0, 0, 0]
    assert losses["countdown"].item() == pytest.approx(sum(huber(e, 1) for e in errors) / 7, abs=1e-7)


def test_the_countdown_in_bars_is_not_divided(batch, outputs):
    losses = task_losses(outputs, batch, countdown_unit="bars")
    errors = [1, 0, 1, 2, 0, 0, 0]
    assert losses["countdown"].item() == pytest.approx(sum(huber(e, 1) for e in errors) / 7, abs=1e-5)


def test_switched_off_heads_have_no_loss(batch, outputs):
    del outputs["pointers"], outputs["type_logits"]
    assert tuple(task_losses(outputs, batch)) == ("inside", "countdown")


def changed(tensor, where):
    return torch.where(where, tensor + 3.0, tensor)


def test_losses_are_blind_to_bars_that_are_not_valid(batch, outputs):
    before = task_losses(outputs, batch)
    for name in ("inside_logits", "countdown"):
        outputs[name] = changed(outputs[name], ~batch["is_valid"])
    assert all(torch.equal(before[task], loss) for task, loss in task_losses(outputs, batch).items())


def test_losses_are_blind_to_windows_without_expansion_but_for_inside(batch, outputs):
    before = task_losses(outputs, batch)
    none = ~batch["has_expansion"][:, None]
    outputs = {name: changed(value, none) for name, value in outputs.items()}
    after = task_losses(outputs, batch)
    assert all(torch.equal(before[task], after[task]) for task in ("type", "pointers", "countdown"))
    assert after["inside"] > before["inside"]  # its bars are all outside, and that is known


def test_with_three_classes_none_is_an_answer(batch, outputs):
    outputs["type_logits"] = torch.zeros(3, 3)
    assert task_losses(outputs, batch)["type"].item() == pytest.approx(math.log(3))


def test_a_batch_without_expansions_has_losses_of_zero_with_a_gradient(batch, outputs):
    batch["has_expansion"][:] = False
    outputs = {name: value.requires_grad_() for name, value in outputs.items()}
    losses = task_losses(outputs, batch)
    assert losses["type"] == losses["pointers"] == losses["countdown"] == 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(value.grad).all() for value in outputs.values())


def test_pos_weight_counts_inside_bars_more(batch, outputs):
    plain = task_losses(outputs, batch)["inside"]
    heavy = task_losses(outputs, batch, pos_weight=10.0)["inside"]
    share = batch["inside"][batch["is_valid"]].mean()
    assert (heavy / plain).item() == pytest.approx(1 + 9 * share.item())


def test_focal_loss_without_focus_is_cross_entropy():
    logits, target = torch.randn(20, 3), torch.randint(0, 3, (20,))
    weights = torch.tensor([1.0, 1.17, 0.5])
    torch.testing.assert_close(focal_loss(logits, target, 0.0), functional.cross_entropy(logits, target))
    torch.testing.assert_close(
        focal_loss(logits, target, 0.0, weights), functional.cross_entropy(logits, target, weight=weights)
    )


def test_focal_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    expected = (0.75**2 * math.log(4) + 0.25**2 * math.log(4 / 3)) / 2
    assert focal_loss(logits, torch.tensor([0, 1]), 2.0).item() == pytest.approx(expected)


def test_masked_huber_is_blind_to_visible_errors():
    predicted, target = torch.randn(2, 6, 3), torch.randn(2, 6, 3)
    is_masked = torch.zeros(2, 6, dtype=torch.bool)
    is_masked[0, 2:4] = is_masked[1, 5] = True
    before = masked_huber(predicted, target, is_masked)
    visible = ~is_masked.unsqueeze(-1)
    assert torch.equal(masked_huber(predicted + 100 * visible, target, is_masked), before)
    assert masked_huber(predicted + 100 * ~visible, target, is_masked) > before


def test_masked_huber_by_hand_with_a_scale():
    predicted = torch.tensor([[[1.0, 8.0], [9.0, 9.0]]])
    target = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    is_masked = torch.tensor([[True, False]])
    loss = masked_huber(predicted, target, is_masked, scale=torch.tensor([2.0, 4.0]))
    assert loss.item() == pytest.approx((huber(0.5, 1) + huber(2, 1)) / 2)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [(((2, 6, 3), (2, 6, 2), (2, 6)), "shapes disagree"), (((2, 6, 3), (2, 6, 3), (2, 5)), "shapes disagree")],
)
def test_masked_huber_refuses_other_shapes(shapes, sentence):
    predicted, target, mask = shapes
    with pytest.raises(ValueError, match=sentence):
        masked_huber(torch.zeros(predicted), torch.zeros(target), torch.ones(mask, dtype=torch.bool))


def test_masked_huber_of_parts_sums_to_the_whole():
    predicted, target = torch.randn(6, 9, 2), torch.randn(6, 9, 2)
    is_masked = torch.rand(6, 9) < 0.4
    is_masked[:2] = False  # a part without anything hidden counts nothing
    parts = [part.split(2) for part in (predicted, target, is_masked)]
    total = sum(masked_huber(*part, reduction="sum") for part in zip(*parts, strict=True))
    assert float(total / (is_masked.sum() * 2)) == pytest.approx(float(masked_huber(predicted, target, is_masked)))


def test_masked_huber_sends_no_gradient_to_visible_bars_however_wrong_they_are():
    predicted, target = torch.full((2, 5, 3), 1e30, requires_grad=True), torch.zeros(2, 5, 3)
    is_masked = torch.zeros(2, 5, dtype=torch.bool)
    is_masked[0, 1] = True
    masked_huber(predicted, target, is_masked, reduction="sum").backward()
    assert torch.equal(predicted.grad != 0, is_masked.unsqueeze(-1).expand(2, 5, 3))


def test_masked_huber_needs_something_hidden():
    with pytest.raises(ValueError, match="nothing is masked"):
        masked_huber(torch.zeros(2, 6, 3), torch.zeros(2, 6, 3), torch.zeros(2, 6, dtype=torch.bool))


@pytest.mark.parametrize("value", [0.001, 0.3, 5.0])
def test_a_sigma_loss_is_half_plus_half_log_at_its_optimum(value):
    loss = torch.tensor(value)
    best = torch.log(loss) / 2
    optimum = sigma_loss(loss, best)
    assert optimum.item() == pytest.approx(0.5 + 0.5 * math.log(value))
    assert sigma_loss(loss, best + 0.1) > optimum < sigma_loss(loss, best - 0.1)


def test_a_good_batch_passes_the_door(batch):
    check_batch(batch, n_features=2, n_classes=2)


@pytest.mark.parametrize(
    ("name", "edit", "sentence"),
    [
        ("x", lambda v: v[:, :, :1], r"entry x is \(3, 4, 1\).*needs \(3, 4, 2\)"),
        ("x", lambda v: v.double(), "entry x is .*float64.*needs .*float32"),
        ("x", lambda v: v.index_fill(0, torch.tensor([1]), float("nan")), "entry x is not finite in row 1"),
        ("is_valid", lambda v: v.float(), "entry is_valid"),
        ("type", lambda v: v + 1, "entry type spans 1..3, allowed is 0..2"),
        ("type", lambda v: torch.tensor([2, 1, 2]), "holds class 2, the model has 2 classes"),
        ("pointers", lambda v: v * 2, r"entry pointers spans 0..1.2, allowed is 0..1"),
        ("pointers", lambda v: v[:2], "entry pointers is"),
        ("inside", lambda v: v - 1, "entry inside spans -1..0, allowed is 0..1"),
        ("inside", lambda v: v / 2, "entry inside"),
        ("countdown", lambda v: v * 20, r"entry countdown spans -40..60, allowed is -20..20"),
        ("countdown", lambda v: v * float("inf"), "entry countdown is not finite"),
        ("has_expansion", lambda v: v.long(), "entry has_expansion"),
    ],
)
def test_a_bad_entry_is_refused_at_the_door(batch, name, edit, sentence):
    batch[name] = edit(batch[name])
    with pytest.raises(UserError, match=sentence):
        check_batch(batch, n_features=2, n_classes=2)


def test_a_missing_entry_is_refused(batch):
    del batch["countdown"]
    with pytest.raises(UserError, match="the batch lacks countdown"):
        check_batch(batch, n_features=2, n_classes=2)


def test_cuda_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="sees no GPU; use device: cpu"):
        resolve_device("cuda")
    with pytest.raises(UserError, match="'tpu' is not known; choose auto, cpu or cuda"):
        resolve_device("tpu")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_names_the_batch_size(error):
    with pytest.raises(UserError, match=r"batch_size 64; lower batch_size \(try 32\)"), explain_out_of_memory(64):
        raise error


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(64):
        raise RuntimeError("shapes")
