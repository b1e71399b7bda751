"""Fine-tuning: frozen then unfrozen, reproducible, resumable, and it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_finetuning import (
    SETTINGS,
    Interrupted,
    copy_of,
    moved,
    stop_after,
    tiny_jade,
    without_clock,
)

from moola_lib.errors import UserError
from moola_lib.learning import STRATEGIES
from moola_lib.learning.balance import Fixed
from moola_lib.learning.checkpoints import Checkpoints, read_weights
from moola_lib.learning.finetune import FinetuneSettings, finetune
from moola_lib.learning.start import set_head_biases
from moola_lib.models import build_model
from moola_lib.models.jade import TASKS
from moola_lib.models.segments import SEGMENT
from moola_lib.windows.gather import WindowGatherer


@pytest.fixture
def train(labelled):
    return labelled.take(np.arange(12))


@pytest.fixture
def held(labelled):
    return labelled.take(np.arange(24, 32))


def test_equal_seeds_give_equal_histories_bit_for_bit(gather, train, held):
    histories, models = [], []
    for seed in (3, 3, 4):
        models.append(tiny_jade())
        settings = replace(SETTINGS, seed=seed)
        histories.append(without_clock(finetune(models[-1], gather, train, settings, validation=held)))
    assert histories[0] == histories[1] != histories[2]
    assert moved(copy_of(models[0]), models[1]) == set()


def test_one_batch_overfits(gather, labelled):
    settings = FinetuneSettings(
        n_frozen_epochs=0, n_unfrozen_epochs=120, unfrozen_learning_rate=2e-2, batch_size=6, weight_decay=0.0,
        is_class_balanced=False, balance="manual", clip_norm=5.0, n_threads=1,
    )  # fmt: skip
    model = tiny_jade(hidden_size=24, n_layers=1, dropout=0.0, head_dropout=0.0)
    history = finetune(model, gather, labelled.take(np.arange(6)), settings)
    for task in TASKS:
        assert history[-1][f"loss_{task}"] < 0.1 * history[0][f"loss_{task}"], task


def test_a_frozen_phase_moves_no_encoder_tensor(gather, train):
    model = tiny_jade()
    before = copy_of(model)
    history = finetune(model, gather, train, replace(SETTINGS, n_unfrozen_epochs=0))
    assert [row["phase"] for row in history] == ["frozen", "frozen"]
    assert moved(before, model) == {name for name in before if not name.startswith("encoder.")}


def test_an_unfrozen_phase_moves_every_tensor(gather, train):
    model = tiny_jade()
    before = copy_of(model)
    history = finetune(model, gather, train, replace(SETTINGS, n_frozen_epochs=0, n_unfrozen_epochs=1))
    assert [row["phase"] for row in history] == ["unfrozen"]
    assert moved(before, model) == set(before)


def test_unfreezing_fires_at_its_epoch(gather, train):
    encoders = []

    def score(model):
        encoders.append(torch.cat([parameter.detach().flatten() for parameter in model.encoder.parameters()]))
        return {}

    finetune(tiny_jade(), gather, train, SETTINGS, score=score)
    assert torch.equal(encoders[0], encoders[1])
    assert not torch.equal(encoders[1], encoders[2]) and not torch.equal(encoders[2], encoders[3])


def test_a_frozen_encoder_is_encoded_once_and_without_dropout(gather, train):
    model = tiny_jade(input_dropout=0.5)
    calls = []
    model.encoder.register_forward_hook(lambda module, *_: calls.append(module.training))
    finetune(model, gather, train, replace(SETTINGS, n_frozen_epochs=3, n_unfrozen_epochs=0))
    assert calls == [False]  # once, in eval mode


@pytest.mark.parametrize(("balance", "n"), [("ema", 1), ("ema", 2), *((name, 3) for name in STRATEGIES)])
def test_a_resumed_run_equals_the_uninterrupted_one_across_the_border(gather, train, held, tmp_path, balance, n):
    whole = tiny_jade()
    settings = replace(SETTINGS, balance=balance, n_pointer_epochs=1)
    wanted = finetune(whole, gather, train, settings, validation=held)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Interrupted):
        finetune(
            tiny_jade(), gather, train, settings, validation=held, checkpoints=checkpoints, on_epoch=stop_after(n)
        )  # fmt: skip
    resumed = tiny_jade(seed=99)
    found = finetune(resumed, gather, train, settings, validation=held, checkpoints=checkpoints, resume=True)
    assert without_clock(found) == without_clock(wanted)
    assert moved(copy_of(whole), resumed) == set()


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_stopped_run_is_the_beginning_of_the_whole_one_and_goes_on_to_its_end(gather, train, held, tmp_path, after):
    whole = tiny_jade()
    wanted = without_clock(finetune(whole, gather, train, SETTINGS, validation=held))
    stopped, checkpoints = tiny_jade(), Checkpoints(tmp_path)
    given = {"validation": held, "checkpoints": checkpoints}
    found = finetune(stopped, gather, train, SETTINGS, **given, on_epoch=lambda row: row["epoch"] == after)
    assert found[-1].pop("is_stopped") is True
    assert without_clock(found) == wanted[:after]
    best = read_weights(checkpoints.best, stopped)
    assert all(torch.equal(value, best[name]) for name, value in stopped.state_dict().items())
    resumed = tiny_jade(seed=99)
    assert without_clock(finetune(resumed, gather, train, SETTINGS, **given, resume=True)) == wanted
    assert moved(copy_of(whole), resumed) == set()


def test_validation_chooses_the_epoch(gather, train, held):
    copies = []

    def score(model):
        copies.append(copy_of(model))
        return {}

    model = tiny_jade(head_dropout=0.0)
    settings = replace(SETTINGS, n_frozen_epochs=0, n_unfrozen_epochs=6, unfrozen_learning_rate=0.3)
    history = finetune(model, gather, train, settings, validation=held, score=score)
    best = int(np.argmin([row["validation_loss"] for row in history]))
    assert best < len(history) - 1
    assert moved(copies[best], model) == set()


def test_a_resumed_run_is_left_with_its_best_epoch_too(gather, train, held, tmp_path):
    settings = replace(SETTINGS, n_frozen_epochs=0, n_unfrozen_epochs=6, unfrozen_learning_rate=0.3)
    checkpoints = Checkpoints(tmp_path)
    model = tiny_jade(head_dropout=0.0)
    finetune(model, gather, train, settings, validation=held, checkpoints=checkpoints)
    again = tiny_jade(head_dropout=0.0)
    finetune(again, gather, train, settings, validation=held, checkpoints=checkpoints, resume=True)
    assert moved(copy_of(model), again) == set()


def test_without_validation_the_last_epoch_is_kept(gather, train):
    copies = []

    def score(model):
        copies.append(copy_of(model))
        return {}

    model = tiny_jade()
    finetune(model, gather, train, SETTINGS, score=score)
    assert moved(copies[-1], model) == set()


@pytest.mark.parametrize("balance", STRATEGIES)
def test_every_strategy_trains(gather, train, balance):
    settings = replace(SETTINGS, balance=balance, n_frozen_epochs=1, n_unfrozen_epochs=1, audit_every=1)
    history = finetune(tiny_jade(), gather, train, settings)
    assert all(np.isfinite(row["train_loss"]) for row in history)
    last = history[-1]
    for kind in ("loss_share", "gradient_share"):
        assert sum(last[f"{kind}_{task}"] for task in TASKS) == pytest.approx(1)
    assert -1 <= last["cosine_type~pointers"] <= 1
    if balance == "uncertainty_bounded":
        assert 0.5 - 1e-6 <= last["sigma_pointers"] <= 2 + 1e-6


@pytest.mark.parametrize("balance", ["fixed", "famo", "pcgrad", "gradnorm"])
def test_the_segment_posterior_trains_beside_balanced_heads(gather, train, balance):
    model = tiny_jade(heads=(*TASKS, SEGMENT), n_layers=1, start_range=(30, 74))
    settings = replace(SETTINGS, balance=balance, n_frozen_epochs=1, n_unfrozen_epochs=2, audit_every=1)
    history = finetune(model, gather, train, settings)
    last = history[-1]
    assert sum(last[f"gradient_share_{task}"] for task in (*TASKS, SEGMENT)) == pytest.approx(1)
    assert last[f"gradient_share_{SEGMENT}"] > 0


def test_famo_sees_a_step_under_the_dropout_masks_it_was_taken_with(gather, train, monkeypatch):
    changes = []

    def record(self, log_sigma=None, recompute=None):
        changes.append(recompute() == recompute())

    monkeypatch.setattr(Fixed, "after_step", record)
    model = tiny_jade(input_dropout=0.5)
    settings = replace(SETTINGS, balance="fixed", n_frozen_epochs=0, n_unfrozen_epochs=1)
    without = tiny_jade(input_dropout=0.5)
    finetune(model, gather, train, settings)
    monkeypatch.undo()
    finetune(without, gather, train, settings)
    assert changes == [True, True] and moved(copy_of(model), without) == set()


def test_sigma_has_a_rate_of_its_own(gather, train):
    slow, fast = (
        finetune(tiny_jade(), gather, train, replace(SETTINGS, sigma_rate_factor=factor))[-1]["sigma_pointers"]
        for factor in (1.0, 100.0)
    )
    start = np.exp(-0.3)
    assert abs(fast - start) > 20 * abs(slow - start) > 0


def test_pointer_epochs_train_on_pointers_alone(gather, train):
    history = finetune(tiny_jade(), gather, train, replace(SETTINGS, n_pointer_epochs=1))
    assert {name for name in history[0] if name.startswith("loss_")} == {"loss_pointers"}
    assert {name for name in history[1] if name.startswith("loss_")} == {f"loss_{task}" for task in TASKS}


def test_switched_off_heads_train_the_others(gather, train):
    history = finetune(tiny_jade(heads=("inside",)), gather, train, SETTINGS)
    assert {name for name in history[0] if name.startswith("loss_")} == {"loss_inside"}


def test_the_time_warp_changes_training_only_when_asked(gather, train):
    off, zero, on = (
        without_clock(finetune(tiny_jade(), gather, train, replace(SETTINGS, time_warp_probability=p)))
        for p in (SETTINGS.time_warp_probability, 0.0, 1.0)
    )
    assert off == zero != on


def test_simple_lstm_trains_on_the_state_alone(gather, train):
    torch.manual_seed(0)
    model = build_model("simple_lstm", n_features=11, hidden_size=4)
    settings = replace(SETTINGS, n_frozen_epochs=0, balance="fixed", focal_gamma=2.0)
    history = finetune(model, gather, train, settings)
    assert {name for name in history[0] if name.startswith("loss_")} == {"loss_type"}


def test_nan_features_are_refused_at_the_door(table, train):
    values = table.values.copy()
    values[train.place[2] + 50] = np.nan
    gather = WindowGatherer(type(table)(**{**vars(table), "values": values}))
    with pytest.raises(UserError, match=r"feature open_norm is not finite at bar \d+"):
        finetune(tiny_jade(), gather, train, SETTINGS)


def test_a_loss_that_is_not_finite_names_task_epoch_batch_and_windows(gather, train):
    model = tiny_jade()
    with torch.no_grad():
        model.heads.countdown_head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"the countdown loss is not finite in epoch 1, batch 1 \(windows SIM-2024"):
        finetune(model, gather, train, SETTINGS)


def test_heads_start_at_the_training_windows_statistics(train, make_windows):
    model = tiny_jade()
    weights = {name: value.clone() for name, value in model.state_dict().items() if "bias" not in name}
    windows = make_windows([[(40, 49)], [(50, 59)], [(60, 69)], []], [0, 0, 1, 2])
    set_head_biases(model, windows)
    heads = model.heads
    share = torch.softmax(heads.type_head.bias, dim=0)
    assert share.tolist() == pytest.approx([3 / 5, 2 / 5])  # one window added to each class
    pointers = torch.sigmoid(heads.pointers_head.bias)
    assert pointers.tolist() == pytest.approx([54.5 / 104, 10 / 105])
    assert torch.sigmoid(heads.inside_head.bias).item() == pytest.approx(30 / 420)
    assert heads.countdown_head.bias.item() == pytest.approx(
        np.mean([np.clip(s - np.arange(105), -20, 20).mean() for s in (40, 50, 60)]) / 20, abs=1e-6
    )
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
