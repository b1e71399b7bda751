"""What is particular to each scalariser of TorchJD."""

import math

import pytest
import torch
from tiny_balance import Tiny

from moola_lib.learning.balance import FIXED_WEIGHTS, build_balance
from moola_lib.learning.scalarisers import LEARNED_RATE
from moola_lib.models.jade import TASKS


def constant(values):
    """Losses that are the values of as many parameters, so that weights are gradients."""
    return {task: torch.tensor(float(value), requires_grad=True) * 1 for task, value in zip(TASKS, values, strict=True)}


def weights_of(balance, losses):
    return {task: float(weight) for task, weight in balance.backward(losses).items()}


def test_the_geometric_mean_weighs_by_one_over_the_loss():
    balance, losses = build_balance("geometric_mean"), constant([1, 2, 4, 0.5])
    assert balance(losses).item() == pytest.approx(4 ** (1 / 4))
    weights = weights_of(balance, losses)
    assert [weights[t] * losses[t].item() for t in TASKS] == pytest.approx([weights["type"]] * 4)


def test_stch_nears_the_largest_weighted_loss():
    losses = constant([50, 1, 30, 20])
    assert build_balance("stch")(losses).item() == pytest.approx(FIXED_WEIGHTS["type"] * 50, rel=1e-6)
    assert weights_of(build_balance("stch"), losses)["type"] == pytest.approx(FIXED_WEIGHTS["type"], rel=1e-6)
    given = build_balance("stch", {"type": 0.01, "pointers": 1.0, "inside": 0.01, "countdown": 0.01})
    assert given(losses).item() == pytest.approx(1.0, abs=0.01)


def test_dwa_is_the_plain_sum_for_two_epochs_then_favours_what_falls_slowly():
    balance = build_balance("dwa")
    for values in ([1, 1, 1, 1], [1, 0.5, 0.5, 0.5]):
        for _ in range(3):
            assert weights_of(balance, constant(values)) == dict.fromkeys(TASKS, 1.0)
        balance.after_epoch()
    slow, fast = math.exp(1 / 2), math.exp(0.5 / 2)
    expected = [4 * rate / (slow + 3 * fast) for rate in (slow, fast, fast, fast)]
    assert list(weights_of(balance, constant([9, 9, 9, 9])).values()) == pytest.approx(expected, rel=1e-6)


def test_famo_weighs_by_one_over_the_loss_then_favours_what_a_step_did_not_lower():
    balance, losses = build_balance("famo"), constant([1, 2, 4, 0.5])
    weights = weights_of(balance, losses)
    assert list(weights.values()) == pytest.approx([c / (1 + 0.5 + 0.25 + 2) for c in (1, 0.5, 0.25, 2)], rel=1e-6)
    balance.after_step(None, lambda: constant([0.5, 2, 2, 0.25]))  # all were halved but the pointers
    weights = weights_of(balance, constant([1, 2, 4, 0.5]))
    assert weights["pointers"] * 2 > weights["type"] * 1 == pytest.approx(weights["inside"] * 4)
    assert sum(weights.values()) == pytest.approx(1)


def test_the_scales_of_imtl_l_near_one_over_the_loss():
    balance, values = build_balance("imtl_l"), [1.22, 0.15, 0.84, 2.0]
    for _ in range(round(3 / LEARNED_RATE)):
        weights = weights_of(balance, constant(values))
        balance.after_step()
    assert [weight * value for weight, value in zip(weights.values(), values, strict=True)] == pytest.approx(
        [1] * 4, rel=0.02
    )


def test_imtl_l_begins_as_the_plain_sum_and_follows_its_own_gradient():
    balance = build_balance("imtl_l")
    assert weights_of(balance, constant([3, 0.1, 1, 1])) == dict.fromkeys(TASKS, 1.0)
    balance.after_step()
    weights = weights_of(balance, constant([3, 0.1, 1, 1]))
    assert weights["type"] == pytest.approx(math.exp(-LEARNED_RATE)) and weights["pointers"] == pytest.approx(
        math.exp(LEARNED_RATE)
    )


@pytest.mark.parametrize("name", ["dwa", "famo", "imtl_l"])
def test_another_set_of_tasks_starts_afresh(name):
    tiny, balance = Tiny(), build_balance(name)
    tiny.train(balance, 3)
    assert len(set(weights_of(balance, constant([1, 1, 1, 1])).values())) > 1
    two = {task: loss for task, loss in constant([1, 1, 1, 1]).items() if task in TASKS[:2]}
    assert len(set(weights_of(balance, two).values())) == 1
