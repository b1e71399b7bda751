"""What is particular to each aggregator: on gradients worked by hand, from their inner products."""

import pytest
import torch
from tiny_balance import Tiny

from moola_lib.learning.aggregators import LEAST_WEIGHT, project_onto_dual_cone
from moola_lib.learning.balance import FIXED_WEIGHTS, build_balance
from moola_lib.learning.gradients import gramian, task_gradients, write_gradient
from moola_lib.models.jade import TASKS

CONFLICT = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])  # the example of TorchJD's documentation


def weigh(name, gradients, weights=None):
    tasks = TASKS[: len(gradients)]
    losses = {task: torch.ones(()) for task in tasks}
    return build_balance(name, weights).weigh(losses, gramian(gradients))


def orthogonal(*lengths):
    return torch.diag(torch.tensor(lengths))


def test_task_gradients_are_rows_and_zero_where_a_loss_does_not_reach():
    a, b = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    rows = task_gradients({"type": (a**2).sum(), "inside": a[0] * b}, [a, b])
    assert rows.tolist() == [[2, 4, 0], [3, 0, 1]]
    assert gramian(rows).tolist() == [[20, 6], [6, 10]]


def test_a_written_gradient_replaces_what_was_there():
    parameters = [torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(()))]
    parameters[0].grad = torch.full((2, 2), 9.0)
    write_gradient(parameters, torch.arange(5.0))
    assert parameters[0].grad.tolist() == [[0, 1], [2, 3]] and parameters[1].grad.item() == 4


def test_pcgrad_is_the_plain_sum_without_conflict_and_removes_it_where_there_is():
    assert weigh("pcgrad", orthogonal(1.0, 5.0, 0.1, 2.0)).tolist() == [1, 1, 1, 1]
    combined = weigh("pcgrad", CONFLICT).float() @ CONFLICT
    assert (CONFLICT @ combined >= 0).all()


def test_pcgrad_draws_its_order_from_the_global_seed():
    torch.manual_seed(1)
    gradients = torch.randn(4, 3)

    def draws(seed):
        torch.manual_seed(seed)
        return [weigh("pcgrad", gradients).tolist() for _ in range(5)]

    assert draws(1) == draws(1) != draws(2)


def test_mgda_finds_the_shortest_convex_combination():
    weights = weigh("mgda", orthogonal(1.0, 2.0))
    assert weights.tolist() == pytest.approx([0.8, 0.2], abs=0.01)  # by one over the squared length
    assert weights.sum() == pytest.approx(1)


def test_aligned_mtl_gives_orthogonal_gradients_one_length_and_the_preference():
    weights = weigh("aligned_mtl", orthogonal(1.0, 5.0, 0.5, 2.0))
    preferred = [FIXED_WEIGHTS[task] for task in TASKS]
    lengths = (weights * torch.tensor([1.0, 5.0, 0.5, 2.0])).tolist()
    assert lengths == pytest.approx([0.5 * weight for weight in preferred])
    even = weigh("aligned_mtl", orthogonal(1.0, 5.0), {"type": 0.5, "pointers": 0.5})
    assert even.tolist() == pytest.approx([0.5, 0.1])


def test_upgrad_agrees_with_the_example_of_its_authors():
    weights = weigh("upgrad", CONFLICT, {"type": 0.5, "pointers": 0.5})
    assert weights.tolist() == pytest.approx([1.1109, 0.7894], abs=3e-4)  # they add more to the diagonal


def test_upgrad_raises_no_loss_and_keeps_the_preference_without_conflict():
    torch.manual_seed(2)
    for _ in range(20):
        gradients = torch.randn(4, 6) * torch.tensor([[10.0], [0.01], [1.0], [3.0]])
        combined = weigh("upgrad", gradients).float() @ gradients
        lengths = gradients.norm(dim=1) * combined.norm()
        assert (gradients @ combined >= -1e-3 * lengths).all()
    preferred = [FIXED_WEIGHTS[task] for task in TASKS]
    assert weigh("upgrad", orthogonal(1.0, 5.0, 0.1, 2.0)).tolist() == pytest.approx(preferred)


def test_the_projection_is_the_quadratic_programs_solution():
    torch.manual_seed(3)
    for _ in range(20):
        rows = torch.randn(4, 6, dtype=torch.float64)
        products = rows @ rows.T
        wanted = torch.rand(1, 4, dtype=torch.float64)
        found = project_onto_dual_cone(wanted, products)[0]
        slope = (products / products.trace() + 1e-9 * torch.eye(4)) @ found
        # Karush-Kuhn-Tucker: feasible, and a weight above its bound has no slope left
        assert (found >= wanted[0] - 1e-12).all() and (slope >= -1e-9).all()
        assert (slope * (found - wanted[0])).abs().max() < 1e-9


def test_short_gradients_are_projected_as_long_ones_are():
    weights = {"type": 0.5, "pointers": 0.5}
    assert weigh("upgrad", 1e-6 * CONFLICT, weights).tolist() == pytest.approx(
        weigh("upgrad", CONFLICT, weights).tolist()
    )


def test_gradnorm_brings_the_weighted_lengths_together_where_all_losses_fall_alike():
    balance = build_balance("gradnorm")
    losses = {task: torch.ones(()) for task in TASKS}
    balance(losses)
    lengths = torch.tensor([1.0, 1.5, 2.0, 0.7])
    for _ in range(200):
        weights = balance.weigh(losses, gramian(torch.diag(lengths)))
        assert weights.sum() == pytest.approx(4)
    weighted = weights * lengths
    assert weighted.max() / weighted.min() < 1.1


def test_gradnorm_lengthens_the_gradient_of_the_task_that_falls_behind():
    balance = build_balance("gradnorm")
    balance({task: torch.ones(()) for task in TASKS})
    behind = {task: torch.tensor(0.9 if task == "pointers" else 0.3) for task in TASKS}
    for _ in range(3):
        weights = dict(zip(TASKS, balance.weigh(behind, gramian(torch.eye(4))).tolist(), strict=True))
    assert weights["pointers"] > 1 > weights["type"] == weights["inside"]


def test_the_weights_of_gradnorm_stay_positive():
    balance = build_balance("gradnorm")
    losses = {task: torch.ones(()) for task in TASKS}
    balance(losses)
    for _ in range(300):
        weights = balance.weigh(losses, gramian(orthogonal(1000.0, 1.0, 1.0, 1.0)))
    assert weights.min() >= 0.5 * LEAST_WEIGHT


def test_heads_of_aggregators_learn_at_full_weight_whatever_the_encoder_does():
    tiny = Tiny()
    _, weights = tiny.backward(build_balance("mgda"))
    assert min(weights.values()) < 0.05
    grads = {task: head.grad.clone() for task, head in tiny.head.items()}
    for task, loss in tiny.losses().items():
        (raw,) = torch.autograd.grad(loss, tiny.head[task])
        torch.testing.assert_close(grads[task], raw)
