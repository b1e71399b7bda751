"""The two objectives: what counts in their losses, and what does not."""

import math

import numpy as np
import pytest
import torch
from tiny_training import SETTINGS, TRAIN, VALIDATION, assert_equal_weights, tiny_model, without_clock

from moola_lib.labels import PRETEXT_TASKS, pretext_targets
from moola_lib.labels.pretext import UNKNOWN
from moola_lib.learning.objectives import BarClassification, Reconstruction, add_jitter, pretext_loss
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
    loss, reported = BarClassification(gather, targets, SETTINGS).losses(
        model, torch.as_tensor(TRAIN), torch.Generator().manual_seed(1)
    )
    loss.backward()
    assert reported is loss
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_jitter_leaves_the_clean_values_and_invalid_bars_alone():
    clean, is_valid = torch.zeros(3, 40, 2), torch.ones(3, 40, dtype=torch.bool)
    is_valid[:, :10] = False
    jittered = add_jitter(clean, is_valid, 0.5, torch.Generator().manual_seed(1))
    assert (clean == 0).all() and (jittered[:, :10] == 0).all()
    assert jittered[:, 10:].std().item() == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize("hide_input", [True, False])
def test_the_encoder_sees_hidden_bars_only_in_the_deliberate_leak(gather, hide_input, monkeypatch):
    seen = []

    def watch(self, x, is_masked):
        seen.append(is_masked)
        return {"reconstruction": x, "log_sigma": self.log_sigma}

    monkeypatch.setattr(MaskedAutoencoder, "forward", watch)
    settings = SETTINGS.__class__(hide_input=hide_input, jitter=0.0)
    objective = Reconstruction(gather, TRAIN, settings)
    objective.losses(tiny_model(), torch.as_tensor(TRAIN), torch.Generator().manual_seed(1))
    objective.validate(tiny_model(), VALIDATION)
    assert [bool(is_masked.any()) for is_masked in seen] == [hide_input] * 2
