"""The audit: shares of the loss and of the gradient, its file, and who is silenced."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_balance import Tiny
from tiny_finetuning import SETTINGS, Interrupted, copy_of, moved, stop_after, tiny_jade, without_clock

from moola_lib.errors import UserError
from moola_lib.evaluation.balance import gramian_of, read_metrics
from moola_lib.learning import STRATEGIES
from moola_lib.learning.audit import (
    append_metrics,
    keep_metrics,
    measure_shares,
    name_extremes,
    read_lines,
    refuse_extremes,
)
from moola_lib.learning.balance import FIXED_WEIGHTS, build_balance
from moola_lib.learning.checkpoints import Checkpoints
from moola_lib.learning.finetune import finetune
from moola_lib.learning.gradients import gramian, task_gradients
from moola_lib.models import build_model
from moola_lib.models.jade import TASKS

NOTES = {"type": 1.22, "pointers": 0.015, "inside": 0.84, "countdown": 0.72}  # the notes' raw losses
UNFROZEN = replace(SETTINGS, balance="fixed", n_frozen_epochs=1, n_unfrozen_epochs=3, audit_every=1)


@pytest.fixture
def train(labelled):
    return labelled.take(np.arange(12))


def measured(balance, losses, shared, **options):
    gradients = task_gradients(losses, shared)
    weights = balance.backward(losses, shared, [], gradients=gradients)
    return measure_shares(losses, weights, gradients, **options)


def test_the_fixture_of_the_notes_contributes_42_4_29_25_percent():
    one = torch.ones(1, requires_grad=True)
    losses = {task: (value * one).sum() for task, value in NOTES.items()}
    shares = measured(build_balance("fixed"), losses, [one])
    assert tuple(shares["loss_share"]) == TASKS == ("type", "pointers", "inside", "countdown")
    assert [round(100 * share, 1) for share in shares["loss_share"].values()] == [42.3, 3.6, 29.1, 25.0]
    assert shares["weight"] == pytest.approx(FIXED_WEIGHTS) and shares["loss"] == pytest.approx(NOTES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_shares_sum_to_one_and_effective_rates_to_the_rate(name):
    tiny, balance = Tiny(), build_balance(name)
    losses = tiny.losses()
    gradients = task_gradients(losses, tiny.shared)
    options = {"log_sigma": tiny.log_sigma, "gradients": gradients}
    weights = balance.backward(losses, tiny.shared, tiny.heads, **options)
    shares = measure_shares(losses, weights, gradients, learning_rate=3e-4)
    for kind, total in [("loss_share", 1), ("gradient_share", 1), ("effective_rate", 3e-4)]:
        assert sum(shares[kind].values()) == pytest.approx(total), kind
    assert len(shares["cosine"]) == 6 and all(-1.0001 <= value <= 1.0001 for value in shares["cosine"].values())
    # the weights explain the gradient that was left
    combined = sum(weights[task] * row for task, row in zip(losses, gradients, strict=True))
    torch.testing.assert_close(tiny.theta.grad, combined, rtol=1e-5, atol=1e-6)


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
    flat = {
        task: torch.cat([g.flatten() for g in torch.autograd.grad(losses[task], shared, retain_graph=True)])
        for task in TASKS
    }
    shares = measured(build_balance("fixed"), losses, shared, learning_rate=0.1)
    norms = {task: gradient.norm().item() for task, gradient in flat.items()}
    weighted = {task: FIXED_WEIGHTS[task] * norm for task, norm in norms.items()}
    assert shares["gradient_norm"] == pytest.approx(norms, rel=1e-4)
    assert shares["gradient_share"]["inside"] == pytest.approx(weighted["inside"] / sum(weighted.values()), rel=1e-4)
    cosine = torch.cosine_similarity(flat["type"], flat["countdown"], dim=0).item()
    assert shares["cosine"]["type~countdown"] == pytest.approx(cosine, abs=1e-4)
    whole = torch.cat([parameter.grad.flatten() for parameter in shared])
    part = FIXED_WEIGHTS["type"] * (flat["type"] @ whole / (whole @ whole)).item()
    assert shares["effective_rate"]["type"] == pytest.approx(0.1 * part, rel=1e-3)


def test_a_task_that_does_not_reach_the_encoder_has_no_gradient_share():
    theta, alone = torch.ones(3, requires_grad=True), torch.ones(1, requires_grad=True)
    shares = measured(build_balance("fixed"), {"type": (theta**2).sum(), "inside": (alone * 5).sum()}, [theta])
    assert shares["gradient_share"] == {"type": 1.0, "inside": 0.0}
    assert shares["loss_share"]["inside"] > 0 and shares["cosine"]["type~inside"] == 0


@pytest.mark.parametrize("name", ["fixed", "pcgrad", "gradnorm"])
def test_measuring_changes_no_bit_of_a_training(gather, train, name):
    found = []
    for every in (0, 1):
        model = tiny_jade()
        finetune(model, gather, train, replace(UNFROZEN, balance=name, audit_every=every))
        found.append(model)
    assert moved(copy_of(found[0]), found[1]) == set()


def test_every_kth_step_that_trains_the_encoder_is_a_line(gather, train, tmp_path):
    settings = replace(UNFROZEN, n_unfrozen_epochs=5, batch_size=4, audit_every=4)
    history = finetune(tiny_jade(), gather, train, settings, checkpoints=Checkpoints(tmp_path))
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [(line["epoch"], line["step"]) for line in lines] == [(2, 0), (3, 4), (4, 8), (6, 12)]
    assert ["gradient_share_type" in row for row in history] == [False, True, True, True, False, True]
    assert history[1]["gradient_share_type"] == lines[0]["gradient_share"]["type"]


def test_one_task_alone_is_not_audited(gather, train, tmp_path):
    settings = replace(UNFROZEN, n_frozen_epochs=0, n_pointer_epochs=2)
    finetune(tiny_jade(), gather, train, settings, checkpoints=Checkpoints(tmp_path))
    assert {line["epoch"] for line in read_lines(tmp_path / "metrics.jsonl")} == {3}


def test_one_frame_reads_the_file(gather, train, tmp_path):
    settings = replace(UNFROZEN, balance="ema", batch_size=4)
    finetune(tiny_jade(), gather, train, settings, checkpoints=Checkpoints(tmp_path))
    table = read_metrics(tmp_path / "metrics.jsonl")
    assert len(table) == 9 * 4 and table["task"].tolist() == [*TASKS] * 9
    assert table.groupby("step")[["loss_share", "gradient_share"]].sum().to_numpy() == pytest.approx(1)
    assert table.groupby("step")["effective_rate"].sum().to_numpy() == pytest.approx(settings.unfrozen_learning_rate)
    assert (table["sigma"] > 0).all() and (table["running_mean"] > 0).all()
    rows = table[table["step"] == 3]
    cosine = rows[[f"cosine_{task}" for task in TASKS]].to_numpy()
    assert (cosine == cosine.T).all() and (cosine.diagonal() == 1).all()
    assert read_metrics(tmp_path / "nothing.jsonl").empty


def test_inner_products_can_be_rebuilt_and_shares_under_other_weights_with_them(tmp_path):
    tiny = Tiny()
    losses, weights = tiny.backward(build_balance("fixed"))
    gradients = task_gradients(tiny.losses(), tiny.shared)
    shares = measure_shares(losses, weights, gradients)
    append_metrics(tmp_path / "m.jsonl", {"epoch": 1, "step": 0, **shares})
    rows = read_metrics(tmp_path / "m.jsonl")
    np.testing.assert_allclose(gramian_of(rows), gramian(gradients), rtol=1e-9)
    other, gradients = Tiny(), task_gradients(losses := tiny.losses(), tiny.shared)
    expected = measure_shares(losses, other.backward(build_balance("manual"))[1], gradients)["gradient_share"]
    weighted = rows["gradient_norm"] * [build_balance("manual").weights[task] for task in TASKS]
    assert (weighted / weighted.sum()).tolist() == pytest.approx(list(expected.values()))


@pytest.mark.parametrize("name", ["fixed", "famo", "pcgrad"])
def test_a_resumed_training_writes_the_same_file(gather, train, tmp_path, name):
    settings = replace(UNFROZEN, balance=name, batch_size=4)
    whole, broken = Checkpoints(tmp_path / "whole"), Checkpoints(tmp_path / "broken")
    finetune(tiny_jade(), gather, train, settings, checkpoints=whole)
    with pytest.raises(Interrupted):
        finetune(tiny_jade(), gather, train, settings, checkpoints=broken, on_epoch=stop_after(3))
    path = broken.folder / "metrics.jsonl"
    killed_in_epoch_4 = json.dumps({**read_lines(path)[-1], "epoch": 4})
    path.write_text(path.read_text() + killed_in_epoch_4 + "\n" + killed_in_epoch_4[:50])
    finetune(tiny_jade(9), gather, train, settings, checkpoints=broken, resume=True)
    assert path.read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()


def test_a_gradient_that_is_not_finite_does_not_break_the_file(tmp_path):
    path = tmp_path / "new" / "m.jsonl"
    append_metrics(path, {"epoch": 1, "step": 0, "loss": {"type": 1.0}, "weight": {"type": np.nan}, "cosine": {}})
    assert "NaN" not in path.read_text() and read_metrics(path)["weight"].isna().all()


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*: Is a directory"):
        append_metrics(tmp_path, {"epoch": 1})
    keep_metrics(tmp_path / "nothing.jsonl", 3)
    assert not (tmp_path / "nothing.jsonl").exists()


def test_silenced_is_under_a_twentieth_and_dominating_over_four_fifths():
    def row(*shares):
        return {f"gradient_share_{task}": share for task, share in zip(TASKS, shares, strict=True)}

    assert name_extremes(row(0.05, 0.05, 0.80, 0.10)) == {"silenced": [], "dominating": []}
    assert name_extremes(row(0.049, 0.101, 0.801, 0.049)) == {
        "silenced": ["type", "countdown"],
        "dominating": ["inside"],
    }
    assert name_extremes({"epoch": 1}) == {}


def test_a_training_stops_on_a_silenced_task_once_its_epoch_is_saved(gather, train, tmp_path):
    only_inside = {"type": 1e-9, "pointers": 1.0, "inside": 100.0, "countdown": 1.0}
    settings = replace(UNFROZEN, weights=only_inside, on_silenced="stop")
    checkpoints = Checkpoints(tmp_path)
    rows = []
    with pytest.raises(UserError, match=r"in epoch 2 type is silenced \(0.0% of the encoder's gradient\) and .*inside"):
        finetune(tiny_jade(), gather, train, settings, checkpoints=checkpoints, on_epoch=rows.append)
    assert checkpoints.latest.exists() and len(rows) == 2
    assert "type" in rows[1]["silenced"] and rows[1]["dominating"] == ["inside"]


def test_what_is_silenced_is_named_unless_it_is_ignored(gather, train):
    named, ignored = (
        finetune(tiny_jade(), gather, train, replace(UNFROZEN, on_silenced=choice)) for choice in ("warn", "ignore")
    )
    assert all("silenced" in row for row in named[1:]) and "silenced" not in named[0]
    left = [{name: v for name, v in row.items() if name not in ("silenced", "dominating")} for row in named]
    assert without_clock(left) == without_clock(ignored)
    with pytest.raises(UserError, match="on_silenced 'stopp' is not known"):
        finetune(tiny_jade(), gather, train, replace(UNFROZEN, on_silenced="stopp"))


def test_nobody_silenced_is_no_reason_to_stop():
    refuse_extremes({"epoch": 1, "silenced": [], "dominating": []})
    refuse_extremes({"epoch": 1})
