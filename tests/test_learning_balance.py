"""Every strategy by one set of properties; then those of the notes one by one."""

import json
import math

import pytest
import torch
from tiny_balance import Tiny

from moola_lib.errors import UserError
from moola_lib.learning import STRATEGIES
from moola_lib.learning.balance import build_balance
from moola_lib.learning.gradients import task_gradients
from moola_lib.models.jade import TASKS

NOTES = {"type": 1.22, "pointers": 0.015, "inside": 0.84, "countdown": 0.72}  # the notes' raw losses
AGGREGATORS = ("pcgrad", "mgda", "aligned_mtl", "upgrad", "gradnorm")

# Whether a loss's scale matters to the direction in which the encoder goes, from the first steps on. Of those it
# matters to, `uncertainty`, `imtl_l` and `gradnorm` learn it away in time, the others never do.
IS_SCALE_FREE = {
    "fixed": False,
    "manual": False,
    "initial": True,
    "ema": True,
    "uncertainty": False,
    "uncertainty_bounded": False,
    "log": True,
    "geometric_mean": True,
    "dwa": False,
    "famo": True,
    "imtl_l": False,
    "stch": False,
    "pcgrad": False,
    "mgda": False,
    "aligned_mtl": False,
    "upgrad": False,
    "gradnorm": False,
}


def by_hand(losses, tensors, weights):
    """Sums of weighted gradients of the losses, by autograd."""
    total = sum(float(weights[task]) * loss for task, loss in losses.items())
    parts = torch.autograd.grad(total, tensors, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if part is None else part for part, t in zip(parts, tensors, strict=True)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_sends_a_finite_gradient_of_every_task(name):
    tiny, balance = Tiny(), build_balance(name)
    for _ in range(3):
        _, weights = tiny.step(balance)
        assert tuple(weights) == TASKS and all(math.isfinite(weight) for weight in weights.values())
        assert torch.isfinite(tiny.theta.grad).all() and tiny.theta.grad.abs().sum() > 0
        assert all(math.isfinite(head.grad) and head.grad != 0 for head in tiny.heads)


@pytest.mark.parametrize("with_extra", [False, True])
@pytest.mark.parametrize("name", STRATEGIES)
def test_gradients_equal_autograd_by_hand_and_nothing_is_added_twice(name, with_extra):
    torch.manual_seed(0)
    tiny, balance = Tiny(), build_balance(name)
    tiny.train(balance, 1)
    segment = torch.ones((), requires_grad=True)
    losses = tiny.losses()
    extra = {"segment": (segment * tiny.theta).square().sum()} if with_extra else {}
    heads = [*tiny.heads, segment]
    for parameter in tiny.parameters:
        parameter.grad = None
    weights = balance.backward(losses, tiny.shared, heads, log_sigma=tiny.log_sigma, extra=extra)
    found = [parameter.grad for parameter in (tiny.theta, *tiny.heads)]

    again = tiny.losses()
    again |= {"segment": (segment * tiny.theta).square().sum()} if with_extra else {}
    assert list(weights) == list(again) and float(weights.get("segment", 1)) == 1
    # a head of an aggregator has its own raw loss's gradient
    of_heads = dict.fromkeys(again, 1.0) if name in AGGREGATORS and name != "gradnorm" else weights
    expected = by_hand(again, tiny.shared, weights) + by_hand(again, tiny.heads, of_heads)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)
    if with_extra:
        torch.testing.assert_close(segment.grad, by_hand(again, [segment], weights)[0])


@pytest.mark.parametrize("name", STRATEGIES)
def test_known_gradients_change_nothing(name):
    found = []
    for is_known in (False, True):
        torch.manual_seed(0)
        tiny, balance = Tiny(), build_balance(name)
        losses = tiny.losses()
        extra = {"segment": tiny.theta.sum()}
        gradients = task_gradients({**losses, **extra}, tiny.shared) if is_known else None
        options = {"log_sigma": tiny.log_sigma, "extra": extra, "gradients": gradients}
        balance.backward(losses, tiny.shared, tiny.heads, **options)
        found.append([parameter.grad for parameter in (tiny.theta, *tiny.heads)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_extra_loss_alone_is_added_as_it_is(name):
    tiny = Tiny()
    weights = build_balance(name).backward({}, tiny.shared, tiny.heads, extra={"segment": tiny.theta.square().sum()})
    assert torch.equal(tiny.theta.grad, 2 * tiny.theta) and weights == {"segment": 1}


@pytest.mark.parametrize("name", STRATEGIES)
def test_without_shared_parameters_the_heads_learn_alone(name):
    tiny = Tiny()
    build_balance(name).backward(tiny.losses(), [], tiny.heads, log_sigma=tiny.log_sigma)
    assert all(math.isfinite(head.grad) and head.grad != 0 for head in tiny.heads)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_works_with_a_single_task(name):
    tiny = Tiny()
    losses = {"pointers": tiny.losses()["pointers"]}
    build_balance(name).backward(losses, tiny.shared, tiny.heads, log_sigma=tiny.log_sigma)
    assert torch.isfinite(tiny.theta.grad).all() and tiny.theta.grad.abs().sum() > 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_task_may_join_later(name):
    tiny, balance = Tiny(), build_balance(name)
    losses = {"pointers": tiny.losses()["pointers"]}
    balance.backward(losses, tiny.shared, tiny.heads, log_sigma=tiny.log_sigma)
    balance.after_step(tiny.log_sigma, tiny.losses)
    balance.after_epoch()
    tiny.train(balance, 1)
    assert torch.isfinite(tiny.theta).all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_losses_at_zero_send_finite_gradients(name):
    for zero in [("pointers",), TASKS]:
        tiny, balance = Tiny(scale=dict.fromkeys(zero, 0.0)), build_balance(name)
        tiny.train(balance, 4)
        assert all(torch.isfinite(parameter).all() for parameter in tiny.parameters)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_restored_strategy_goes_on_as_the_other_would(name):
    tiny, balance = Tiny(), build_balance(name)
    tiny.train(balance, 3)
    again = build_balance(name)
    again.load_state_dict(json.loads(json.dumps(balance.state_dict())))
    other = Tiny()
    with torch.no_grad():
        for mine, its in zip(other.parameters, tiny.parameters, strict=True):
            mine.copy_(its)
    torch.manual_seed(5)
    tiny.train(balance, 3)
    torch.manual_seed(5)
    other.train(again, 3)
    assert all(torch.equal(mine, its) for mine, its in zip(other.parameters, tiny.parameters, strict=True))
    assert again.state_dict() == balance.state_dict()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_gpu_gives_what_the_cpu_gives(name):
    thetas = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        tiny = Tiny(device=device)
        tiny.train(build_balance(name), 3)
        thetas.append(tiny.theta.detach().cpu())
    torch.testing.assert_close(*thetas, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_fresh_strategy_has_a_state_too(name):
    again = build_balance(name)
    again.load_state_dict(json.loads(json.dumps(build_balance(name).state_dict())))
    Tiny().train(again, 1)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("task", ["type", "inside"])
def test_rescaling_a_loss_turns_the_encoders_update_only_where_documented(name, task):
    updates = []
    for scale in ({}, {task: 100.0}):
        torch.manual_seed(0)
        tiny, balance = Tiny(scale), build_balance(name)
        tiny.train(balance, 4, n_steps=2)
        tiny.backward(balance)
        updates.append(tiny.theta.grad)
    assert (torch.cosine_similarity(*updates, dim=0) > 1 - 1e-5).item() is IS_SCALE_FREE[name]


def test_the_table_of_scales_names_every_strategy():
    assert list(IS_SCALE_FREE) == list(STRATEGIES)


def test_weights_can_be_given():
    weights = {"type": 1.0, "pointers": 0.0, "inside": 0.0, "countdown": 0.0}
    losses = Tiny().losses()
    assert torch.equal(build_balance("fixed", weights)(losses), losses["type"])


def test_an_unknown_strategy_lists_the_known_ones():
    with pytest.raises(UserError, match="'pcgradd' is not known") as caught:
        build_balance("pcgradd")
    assert all(name in str(caught.value) for name in STRATEGIES)


def test_manual_weights_give_the_pointers_their_part():
    one = torch.ones((), requires_grad=True)
    total = build_balance("manual")({task: value * one for task, value in NOTES.items()})
    assert total.item() == pytest.approx(0.1 * 1.22 + 50 * 0.015 + 0.84 + 0.72)


def test_initial_keeps_the_scales_of_its_first_batch():
    balance, losses = build_balance("initial"), Tiny().losses()
    assert balance(losses).item() == pytest.approx(1.0)  # the weights sum to 1
    assert balance({task: 2 * loss for task, loss in losses.items()}).item() == pytest.approx(2.0)


def test_ema_is_a_plain_mean_for_ten_steps_then_moves_by_a_twentieth():
    balance = build_balance("ema")
    values = torch.arange(1.0, 11.0, requires_grad=True)
    for value in values:
        balance({"type": value})
    assert balance.mean["type"] == pytest.approx(5.5)
    balance({"type": values[0] * 100})
    assert balance.mean["type"] == pytest.approx(0.95 * 5.5 + 0.05 * 100)


def test_ema_does_not_learn_from_evaluation():
    balance = build_balance("ema")
    value = torch.tensor(2.0, requires_grad=True)
    balance({"type": value})
    with torch.no_grad():
        balance({"type": value * 100})
    assert balance.mean["type"] == 2.0 and balance.step == 1


def test_uncertainty_weighs_by_its_sigmas():
    sigma, losses = torch.tensor([0.1, -0.3, 0.5, 0.0]), Tiny().losses()
    expected = sum(
        loss.item() / (2 * math.exp(2 * s)) + s for loss, s in zip(losses.values(), sigma.tolist(), strict=True)
    )
    assert build_balance("uncertainty")(losses, sigma).item() == pytest.approx(expected, rel=1e-5)


def test_bounds_are_a_projection_of_pointers_and_type_only():
    sigma = torch.tensor([-3.0, 3.0, -3.0, 3.0], requires_grad=True)
    build_balance("uncertainty").after_step(sigma)
    assert sigma.tolist() == [-3, 3, -3, 3]
    build_balance("uncertainty_bounded").after_step(sigma)
    assert sigma.detach().exp().tolist()[:2] == pytest.approx([0.5, 2.0])
    assert sigma.tolist()[2:] == [-3, 3]
    inside = torch.tensor([0.2, -0.3, 0.0, 0.0], requires_grad=True)
    build_balance("uncertainty_bounded").after_step(inside)
    assert inside.tolist() == pytest.approx([0.2, -0.3, 0, 0])


def test_a_sigma_at_its_bound_still_receives_a_gradient():
    sigma = torch.tensor([9.0, 9.0, 0.0, 0.0], requires_grad=True)
    balance = build_balance("uncertainty_bounded")
    balance.after_step(sigma)
    balance(Tiny().losses(), sigma).backward()
    assert (sigma.grad[:2] != 0).all()
