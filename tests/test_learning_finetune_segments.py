"""Fine-tuning a segment posterior: linear scores first and kept, then what the encoder adds; windows that are cut."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_finetuning import (
    SEGMENT_OPTIONS,
    SEGMENT_SETTINGS,
    SETTINGS,
    Interrupted,
    copy_of,
    moved,
    stop_after,
    tiny_jade,
    without_clock,
)

from moola_lib.errors import UserError
from moola_lib.learning.checkpoints import Checkpoints
from moola_lib.learning.finetune import finetune
from moola_lib.learning.linear_fit import STEADY
from moola_lib.models import build_model
from moola_lib.models.jade import TASKS
from moola_lib.models.weights import load_model, save_model

LINEAR = {f"segment_head.{name}" for name in ("start.weight", "end.weight", "inside.weight", "inside.bias", "length")}
CONTRIBUTION = {"segment_head.contribution.weight", "segment_head.contribution.bias"}
LENT = {"segment_head.start.bias", "segment_head.null"}  # given an expansion they move nothing but rounding
SCALES = {f"segment_head.{name}" for name in ("mean", "scale", "around_scale")}


@pytest.fixture
def train(labelled):
    return labelled.take(np.arange(12))


@pytest.fixture
def held(labelled):
    return labelled.take(np.arange(24, 32))


@pytest.fixture
def copies():
    """Collects the model's tensors after each epoch: `copies.score` goes into `finetune`."""

    class Copies(list):
        def score(self, model):
            self.append(copy_of(model))
            return {}

    return Copies()


def changed(one, two):
    return {name for name in one if not torch.equal(one[name], two[name])}


def test_the_linear_scores_are_fitted_first_and_kept(gather, train, copies):
    model = tiny_jade(**SEGMENT_OPTIONS)
    before = copy_of(model)
    finetune(model, gather, train, SEGMENT_SETTINGS, score=copies.score)
    encoder = {name for name in before if name.startswith("encoder.")}
    assert changed(before, copies[0]) - LENT == LINEAR | SCALES | CONTRIBUTION  # frozen: the encoder stays
    assert changed(copies[0], copies[1]) == encoder | CONTRIBUTION  # unfrozen: the linear scores stay


def test_without_a_linear_fit_its_scores_train_with_the_rest(gather, train, copies):
    model = tiny_jade(**SEGMENT_OPTIONS)
    before = copy_of(model)
    finetune(model, gather, train, replace(SEGMENT_SETTINGS, linear_penalty=None), score=copies.score)
    assert changed(before, copies[0]) - LENT == LINEAR | SCALES | CONTRIBUTION
    encoder = {name for name in before if name.startswith("encoder.")}
    assert changed(copies[0], copies[1]) - LENT == LINEAR | CONTRIBUTION | encoder


def test_both_kinds_of_heads_move_in_their_phases(gather, train, copies):
    model = tiny_jade(**SEGMENT_OPTIONS | {"heads": (*TASKS, "segment")})
    before = copy_of(model)
    finetune(model, gather, train, SEGMENT_SETTINGS, score=copies.score)
    notes = {name for name in before if name.startswith("heads.")}
    encoder = {name for name in before if name.startswith("encoder.")}
    assert changed(before, copies[0]) - LENT == notes | LINEAR | SCALES | CONTRIBUTION  # `fixed` has no use for sigma
    assert changed(copies[0], copies[1]) == notes | CONTRIBUTION | encoder


def test_a_linear_model_needs_no_epoch(gather, train):
    model = build_model("linear_segments", n_features=11, lead_bars=2, start_range=(30, 74))
    before = copy_of(model)
    settings = replace(SEGMENT_SETTINGS, n_frozen_epochs=0, n_unfrozen_epochs=0)
    assert finetune(model, gather, train, settings) == []
    assert moved(before, model) - LENT == LINEAR | SCALES
    with pytest.raises(UserError, match="has nothing to train after its linear fit; set both phases to 0 epochs"):
        finetune(model, gather, train, replace(settings, n_unfrozen_epochs=1))


def test_the_linear_fit_alone_is_kept_where_what_follows_is_worse(gather, train, held):
    linear, ruined = (tiny_jade(**SEGMENT_OPTIONS) for _ in range(2))
    finetune(linear, gather, train, replace(SEGMENT_SETTINGS, n_frozen_epochs=0, n_unfrozen_epochs=0), validation=held)
    settings = replace(SEGMENT_SETTINGS, n_frozen_epochs=0, n_unfrozen_epochs=2, unfrozen_learning_rate=10.0)
    history = finetune(ruined, gather, train, settings, validation=held)
    assert all(row["validation_loss"] > 1 for row in history)
    assert moved(copy_of(linear), ruined) == set()


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_segment_model_is_trained_alike_twice_and_across_an_interruption(
    gather, train, held, tmp_path, is_causal
):  # fmt: skip
    settings = replace(SEGMENT_SETTINGS, is_causal=is_causal, linear_penalty=None if is_causal else STEADY)
    whole, again, resumed = tiny_jade(**SEGMENT_OPTIONS), tiny_jade(**SEGMENT_OPTIONS), tiny_jade(9, **SEGMENT_OPTIONS)
    wanted = without_clock(finetune(whole, gather, train, settings, validation=held))
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Interrupted):
        finetune(again, gather, train, settings, validation=held, checkpoints=checkpoints, on_epoch=stop_after(1))
    finetune(again := tiny_jade(**SEGMENT_OPTIONS), gather, train, settings, validation=held)
    found = finetune(resumed, gather, train, settings, validation=held, checkpoints=checkpoints, resume=True)
    assert moved(copy_of(whole), again) == set()
    assert without_clock(found)[1] == wanted[1]


def test_what_the_encoder_adds_can_learn_the_windows_by_heart(gather, labelled):
    model = tiny_jade(**SEGMENT_OPTIONS | {"hidden_size": 16, "dropout": 0.0, "head_dropout": 0.0})
    settings = replace(
        SEGMENT_SETTINGS, n_frozen_epochs=0, n_unfrozen_epochs=80, unfrozen_learning_rate=3e-2, weight_decay=0.0,
        clip_norm=5.0,
    )  # fmt: skip
    history = finetune(model, gather, labelled.take(np.arange(6)), settings)
    assert history[-1]["loss_segment"] < 0.3 * history[0]["loss_segment"]


def test_causal_training_cuts_every_window_anew(gather, train):
    model, seen = tiny_jade(**SEGMENT_OPTIONS), []
    settings = replace(SEGMENT_SETTINGS, is_causal=True, n_frozen_epochs=0, n_unfrozen_epochs=2, linear_penalty=None)

    def note_last_bars(module, inputs):
        if module.training:
            is_there = (inputs[0] != 0).any(dim=-1)
            seen.extend((is_there * torch.arange(105)).amax(dim=1).tolist())

    model.encoder.register_forward_pre_hook(note_last_bars)
    finetune(model, gather, train, settings)
    assert len(seen) == 2 * len(train) and min(seen) >= 30 and len(set(seen)) > 10
    assert sorted(seen[:12]) != sorted(seen[12:])


def test_a_causal_loss_knows_what_cannot_be_known_yet(gather, train):
    """Cut windows ask for less: their loss lies below that of whole windows, which are asked for every cell."""
    losses = []
    for is_causal in (False, True):
        model = build_model("linear_segments", n_features=11, lead_bars=2, start_range=(30, 74))
        settings = replace(SEGMENT_SETTINGS, linear_penalty=None, n_frozen_epochs=0, is_causal=is_causal)
        losses.append(finetune(model, gather, train, settings)[0]["loss_segment"])
    assert losses[1] < losses[0]


def test_the_notes_heads_do_not_train_on_cut_windows(gather, train):
    with pytest.raises(UserError, match="cut windows train the segment posterior alone"):
        finetune(tiny_jade(), gather, train, replace(SETTINGS, is_causal=True))


def test_what_is_known_of_none_travels_with_the_weights(tmp_path):
    model = tiny_jade(**SEGMENT_OPTIONS)
    model.segment_head.knows_none.fill_(True)
    model.segment_head.temperature.fill_(1.7)
    features = {"set_id": "s", "names": [f"f{k}" for k in range(11)]}
    save_model(model, tmp_path / "m.safetensors", features=features)
    again, _ = load_model(tmp_path / "m.safetensors", features=features)
    assert bool(again.segment_head.knows_none) and moved(copy_of(model), again) == set()
