"""The two objectives: what counts in their losses, and what does not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import SETTINGS, TRAIN, VALIDATION, assert_equal_weights, tiny_model, without_clock

from moola_lib.labels import PRETEXT_TASKS, pretext_targets
from moola_lib.labels.pretext import UNKNOWN
from moola_lib.learning.objectives import BarClassification, Reconstruction, jitter_windows, pretext_losses
from moola_lib.learning.pretrain import pretrain
from moola_lib.models import build_model
from moola_lib.models.pretrainers import MaskedAutoencoder

WEIGHTS = {"expansion": 0.5, "swing": 0.3, "candle": 0.2}


@pytest.fixture(scope="module")
def targets(market, table):
    return pretext_targets(market.bars.frame, table.starts, table.is_valid)


def classifier(seed=1, **options):
    torch.manual_seed(seed)
    return build_model("multitask_pretrainer", n_features=11, **{"hidden_size": 4} | options)


def uniform_outputs(shape):
    return {f"{task}_logits": torch.zeros(*shape, len(names)) for task, names in PRETEXT_TASKS.items()}


def classes_of(shape, value):
    return {task: torch.full(shape, value) for task in PRETEXT_TASKS}


def pretext_loss(outputs, classes):
    sums, counts = pretext_losses(outputs, classes)
    return BarClassification.combine(None, sums / counts.clamp(min=1))


def test_the_loss_of_uniform_answers_is_the_weighted_log_of_the_class_counts():
    expected = sum(WEIGHTS[task] * math.log(len(names)) for task, names in PRETEXT_TASKS.items())
    assert float(pretext_loss(uniform_outputs((2, 5)), classes_of((2, 5), 1))) == pytest.approx(expected)


def test_bars_without_target_do_not_count():
    outputs, classes = uniform_outputs((1, 4)), classes_of((1, 4), 0)
    outputs["swing_logits"][0, 3] = torch.tensor([-50.0, 50.0, 0.0])  # very wrong
    wrong = float(pretext_loss(outputs, classes))
    classes["swing"][0, 3] = UNKNOWN
    right = float(pretext_loss(outputs, classes))
    assert wrong > 5 > right
    for task in PRETEXT_TASKS:
        classes[task][:] = UNKNOWN
    assert float(pretext_loss(outputs, classes)) == 0


def test_targets_are_gathered_with_their_windows(gather, targets):
    places = torch.tensor([0, 1300, 7])
    found = BarClassification(gather, targets, SETTINGS).targets_at(places)
    rows = places.numpy()[:, None] + np.arange(105)
    for task in PRETEXT_TASKS:
        np.testing.assert_array_equal(found[task], targets[task].to_numpy()[rows])
        assert found[task].dtype == torch.int64


def test_classification_trains_reproducibly_through_the_same_loop(gather, targets):
    models = [classifier(), classifier()]
    histories = [
        pretrain(model, gather, TRAIN, VALIDATION, SETTINGS, objective=BarClassification(gather, targets, SETTINGS))
        for model in models
    ]
    assert without_clock(histories[0]) == without_clock(histories[1])
    assert_equal_weights(*models)
    row = histories[0][-1]
    assert row["validation_loss"] < row["start_loss"] and "validation_huber" not in row


def test_what_is_seen_as_it_is_trains_every_head(gather, targets):
    model = classifier()
    sums, counts = BarClassification(gather, targets, SETTINGS).losses(model, torch.as_tensor(TRAIN), epoch=0)
    sums.sum().backward()
    assert (counts > 0).all()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_jitter_leaves_the_clean_values_and_invalid_bars_alone():
    clean, is_valid = torch.zeros(3, 40, 2), torch.ones(3, 40, dtype=torch.bool)
    is_valid[:, :10] = False
    settings = replace(SETTINGS, jitter=0.5)
    jittered = jitter_windows(clean, is_valid, torch.tensor([4, 70, 9]), settings, epoch=0)
    assert (clean == 0).all() and (jittered[:, :10] == 0).all()
    assert jittered[:, 10:].std().item() == pytest.approx(0.5, rel=0.2)


class Remembers(torch.nn.Module):
    """Keeps what it is shown, and answers with it."""

    def __init__(self):
        super().__init__()
        self.log_sigma = torch.nn.Parameter(torch.zeros(1))
        self.inputs, self.masks = [], []

    def forward(self, x, is_masked):
        self.inputs.append(x)
        self.masks.append(is_masked)
        return {"reconstruction": x + self.log_sigma, "log_sigma": self.log_sigma}


def shown(gather, places, epoch=0, split=1000, **changes):
    """What a training step shows of windows, drawn in parts."""
    model = Remembers()
    objective = Reconstruction(gather, TRAIN, replace(SETTINGS, mask="span", **changes))
    for part in torch.as_tensor(places).split(split):
        objective.losses(model, part, epoch)
    return torch.cat(model.inputs), torch.cat(model.masks)


@pytest.mark.parametrize("split", [1, 3, 7])
def test_what_a_step_shows_of_a_window_follows_from_seed_epoch_and_place_alone(gather, split):
    x, mask = shown(gather, TRAIN)
    order = torch.randperm(len(TRAIN), generator=torch.Generator().manual_seed(1))
    again = shown(gather, TRAIN[order.numpy()], split=split)
    assert torch.equal(again[0], x[order]) and torch.equal(again[1], mask[order])
    for changed in ({"epoch": 1}, {"seed": 4}):
        other = shown(gather, TRAIN, **changed)
        assert not torch.equal(other[0], x) and not torch.equal(other[1], mask)


def test_validation_shows_the_same_masks_in_any_order_and_at_any_time(gather):
    objective = Reconstruction(gather, TRAIN, SETTINGS)
    model = tiny_model()
    loss = objective.validate(model, VALIDATION)
    model.requires_grad_(False)
    assert objective.validate(model, VALIDATION[::-1].copy()) == pytest.approx(loss, rel=1e-6)
    first, second = (objective._validation_losses(model, torch.as_tensor(part)) for part in np.split(VALIDATION, [3]))
    assert float((first[0] + second[0]) / (first[1] + second[1])) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("hide_input", [True, False])
def test_the_encoder_sees_hidden_bars_only_in_the_deliberate_leak(gather, hide_input, monkeypatch):
    seen = []

    def watch(self, x, is_masked):
        seen.append(is_masked)
        return {"reconstruction": x, "log_sigma": self.log_sigma}

    monkeypatch.setattr(MaskedAutoencoder, "forward", watch)
    settings = SETTINGS.__class__(hide_input=hide_input, jitter=0.0)
    objective = Reconstruction(gather, TRAIN, settings)
    objective.losses(tiny_model(), torch.as_tensor(TRAIN), epoch=0)
    objective.validate(tiny_model(), VALIDATION)
    assert [bool(is_masked.any()) for is_masked in seen] == [hide_input] * 2
