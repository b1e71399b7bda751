"""Strategies and the audit: shares of the loss and of the gradient."""

import json
import math

import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.learning import STRATEGIES
from moola_lib.learning.audit import measure_shares
from moola_lib.learning.balance import build_balance
from moola_lib.models import build_model
from moola_lib.models.jade import TASKS

NOTES = {"type": 1.22, "pointers": 0.015, "inside": 0.84, "countdown": 0.72}  # the notes' raw losses
SCALE_FREE = ("initial", "ema", "log")


@pytest.fixture
def theta():
    return torch.linspace(0.5, 1.5, 6, requires_grad=True)


def losses_of(theta, scale=None):
    """Four losses of very different sizes that share `theta`."""
    raw = {
        "type": (theta**2).sum(),
        "pointers": 0.01 * (theta[:3] - 2).square().sum(),
        "inside": theta.exp().mean(),
        "countdown": 3 * theta[2:].abs().sum(),
    }
    return {task: loss * (scale or {}).get(task, 1.0) for task, loss in raw.items()}


def log_sigma():
    return torch.tensor([0.0, -0.3, 0.0, 0.0], requires_grad=True)


def test_the_fixture_of_the_notes_contributes_42_4_29_25_percent():
    one = torch.ones(1, requires_grad=True)
    losses = {task: (value * one).sum() for task, value in NOTES.items()}
    shares = measure_shares(losses, build_balance("fixed")(losses), [one])
    assert tuple(shares["loss_share"]) == TASKS == ("type", "pointers", "inside", "countdown")
    assert [round(100 * share, 1) for share in shares["loss_share"].values()] == [42.3, 3.6, 29.1, 25.0]


def test_manual_weights_give_the_pointers_their_part():
    one = torch.ones(1, requires_grad=True)
    losses = {task: (value * one).sum() for task, value in NOTES.items()}
    total = build_balance("manual")(losses)
    assert total.item() == pytest.approx(0.1 * 1.22 + 50 * 0.015 + 0.84 + 0.72)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_sends_a_finite_gradient_of_every_task(name, theta):
    balance, sigma = build_balance(name), log_sigma()
    for _ in range(3):
        losses = losses_of(theta)
        total = balance(losses, sigma)
        assert total.shape == ()
        slopes = torch.autograd.grad(total, list(losses.values()), retain_graph=True)
        assert all(math.isfinite(slope) and slope > 0 for slope in slopes)
        (gradient,) = torch.autograd.grad(total, theta)
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_works_with_a_single_task(name, theta):
    losses = {"pointers": losses_of(theta)["pointers"]}
    assert torch.isfinite(build_balance(name)(losses, log_sigma()))


@pytest.mark.parametrize("name", STRATEGIES)
def test_state_goes_through_json_and_back(name, theta):
    balance, sigma = build_balance(name), log_sigma()
    for step in range(12):
        balance(losses_of(theta * (1 + 0.1 * step)), sigma)
    again = build_balance(name)
    again.load_state_dict(json.loads(json.dumps(balance.state_dict())))
    for step in range(3):
        losses = losses_of(theta * (2 + step))
        assert torch.equal(again(losses, sigma), balance(losses, sigma))


def gradient_shares(name, theta, scale):
    balance = build_balance(name)
    for _ in range(3):
        losses = losses_of(theta, scale)
        total = balance(losses, log_sigma())
    return list(measure_shares(losses, total, [theta])["gradient_share"].values())


@pytest.mark.parametrize("name", SCALE_FREE)
@pytest.mark.parametrize("factor", [1e-3, 400.0])
def test_rescaling_a_loss_changes_no_gradient_share(name, factor, theta):
    plain = gradient_shares(name, theta, None)
    assert gradient_shares(name, theta, {"inside": factor}) == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("name", ["fixed", "manual"])
def test_fixed_weights_lack_that_invariance(name, theta):
    plain = gradient_shares(name, theta, None)
    assert gradient_shares(name, theta, {"inside": 400.0})[2] > plain[2] + 0.3


def test_initial_keeps_the_scales_of_its_first_batch(theta):
    balance = build_balance("initial")
    assert balance(losses_of(theta)).item() == pytest.approx(1.0)  # the weights sum to 1
    assert balance({task: 2 * loss for task, loss in losses_of(theta).items()}).item() == pytest.approx(2.0)


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


def test_uncertainty_weighs_by_its_sigmas(theta):
    sigma = torch.tensor([0.1, -0.3, 0.5, 0.0])
    losses = losses_of(theta)
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


def test_a_sigma_at_its_bound_still_receives_a_gradient(theta):
    sigma = torch.tensor([9.0, 9.0, 0.0, 0.0], requires_grad=True)
    balance = build_balance("uncertainty_bounded")
    balance.after_step(sigma)
    balance(losses_of(theta), sigma).backward()
    assert (sigma.grad[:2] != 0).all()


def test_weights_can_be_given(theta):
    weights = {"type": 1.0, "pointers": 0.0, "inside": 0.0, "countdown": 0.0}
    losses = losses_of(theta)
    assert torch.equal(build_balance("fixed", weights)(losses), losses["type"])


def test_an_unknown_strategy_lists_the_known_ones():
    with pytest.raises(UserError, match="'pcgradd' is not known") as caught:
        build_balance("pcgradd")
    assert all(name in str(caught.value) for name in STRATEGIES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_shares_sum_to_one(name, theta):
    losses = losses_of(theta)
    shares = measure_shares(losses, build_balance(name)(losses, log_sigma()), [theta])
    assert sum(shares["loss_share"].values()) == pytest.approx(1)
    assert sum(shares["gradient_share"].values()) == pytest.approx(1)
    assert all(-1.0001 <= value <= 1.0001 for value in shares["cosine"].values())
    assert len(shares["cosine"]) == 6


def test_the_audit_equals_autograd_by_hand_on_a_model():
    from moola_lib.learning.losses import task_losses

    torch.manual_seed(3)
    model = build_model("jade", n_features=3, hidden_size=4, dropout=0.0, head_dropout=0.0)
    batch = {
        "is_valid": torch.ones(4, 105, dtype=torch.bool),
        "has_expansion": torch.ones(4, dtype=torch.bool),
        "type": torch.tensor([0, 1, 1, 0]),
        "pointers": torch.rand(4, 2),
        "inside": (torch.rand(4, 105) < 0.1).float(),
        "countdown": torch.rand(4, 105) * 20,
    }
    losses = task_losses(model(torch.randn(4, 105, 3)), batch)
    shared = list(model.encoder.parameters())
    total = build_balance("fixed")(losses)
    shares = measure_shares(losses, total, shared)
    weights = {"type": 0.1, "pointers": 0.7, "inside": 0.1, "countdown": 0.1}
    flat = {
        task: torch.cat(
            [g.flatten() for g in torch.autograd.grad(weights[task] * losses[task], shared, retain_graph=True)]
        )
        for task in TASKS
    }
    norms = {task: gradient.norm().item() for task, gradient in flat.items()}
    assert shares["gradient_norm"] == pytest.approx(norms, rel=1e-4)
    assert shares["gradient_share"]["inside"] == pytest.approx(norms["inside"] / sum(norms.values()), rel=1e-4)
    cosine = torch.cosine_similarity(flat["type"], flat["countdown"], dim=0).item()
    assert shares["cosine"]["type~countdown"] == pytest.approx(cosine, abs=1e-4)
    total.backward()  # the graph was kept, and the parts add up to the whole
    whole = torch.cat([parameter.grad.flatten() for parameter in shared])
    torch.testing.assert_close(sum(flat.values()), whole, rtol=1e-3, atol=1e-7)


def test_a_task_that_does_not_reach_the_encoder_has_no_gradient_share(theta):
    alone = torch.ones(1, requires_grad=True)
    losses = {"type": (theta**2).sum(), "inside": (alone * 5).sum()}
    shares = measure_shares(losses, build_balance("fixed")(losses), [theta])
    assert shares["gradient_share"] == {"type": 1.0, "inside": 0.0}
    assert shares["loss_share"]["inside"] > 0 and shares["cosine"]["type~inside"] == 0
