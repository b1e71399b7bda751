"""Amortised pre-training: it learns from simulated labels alone, reproducibly, and what it learned moves whole."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_training import assert_equal_weights, without_clock

from moola_lib.errors import UserError
from moola_lib.features.sets import describe_set, upside_down
from moola_lib.learning import amortise as amortise_module
from moola_lib.learning.amortise import AmortiseSettings, amortise, amortise_notes
from moola_lib.learning.checkpoints import Checkpoints
from moola_lib.learning.finetune import FinetuneSettings, finetune
from moola_lib.learning.linear_fit import NEAR, STEADY
from moola_lib.learning.losses import segment_loss
from moola_lib.models import build_model
from moola_lib.models.weights import load_model, save_model
from moola_lib.windows.simulated import simulate_labelled

FEATURES = describe_set()
SETTINGS = AmortiseSettings(
    n_epochs=2, windows_per_epoch=24, validation_windows=20, batch_size=8, sessions_per_market=1, seed=3, n_threads=1
)


def tiny_localiser(heads=("segment",), **options):
    torch.manual_seed(1)
    options = {"hidden_size": 4, "start_range": [30, 74], "head_dropout": 0.0} | options
    return build_model(
        "jade_compact", n_features=11, heads=list(heads), upside_down=upside_down(FEATURES["names"]), **options
    )


def without_seconds(history):
    return [{k: v for k, v in row.items() if k != "drawing_seconds"} for row in without_clock(history)]


@pytest.fixture(scope="module")
def trained():
    model = tiny_localiser()
    return model, amortise(model, {}, SETTINGS)


def test_equal_seeds_give_equal_weights_bit_for_bit(trained):
    model, history = trained
    again = tiny_localiser()
    assert without_seconds(amortise(again, {}, SETTINGS)) == without_seconds(history)
    assert_equal_weights(model, again)


def test_another_seed_meets_other_markets(trained):
    _, history = trained
    other = amortise(tiny_localiser(), {}, replace(SETTINGS, seed=4))
    assert other[0]["start_loss"] != history[0]["start_loss"]


def test_it_learns_about_markets_that_it_has_not_met():
    settings = replace(SETTINGS, n_epochs=3, windows_per_epoch=300, validation_windows=100)
    history = amortise(tiny_localiser(hidden_size=12), {}, settings)
    # below knowing the starts and lengths alone, log(45) + log(20) or so
    assert history[-1]["validation_loss"] < 5.5 < history[0]["start_loss"]


def test_every_part_of_the_localiser_is_trained(trained):
    before, after = dict(tiny_localiser().named_parameters()), dict(trained[0].named_parameters())
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert still == {"segment_head.null"}  # all windows hold an expansion: nothing is said of those without


@pytest.mark.parametrize("stop_at", [2, 4])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(trained, tmp_path, monkeypatch, stop_at):
    steps = []

    def stop_there(*args):
        steps.append(args)
        if len(steps) == stop_at + 1:
            raise RuntimeError("the power went")
        return loss(*args)

    loss = amortise_module._loss
    settings = replace(SETTINGS, checkpoint_every_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(amortise_module, "_validate", lambda *args: 1.0)
        patch.setattr(amortise_module, "_loss", stop_there)
        with pytest.raises(RuntimeError, match="the power went"):
            amortise(tiny_localiser(), {}, settings, checkpoints=Checkpoints(tmp_path))
        patch.setattr(amortise_module, "_loss", loss)
        whole, resumed = tiny_localiser(), tiny_localiser()
        amortise(whole, {}, settings)
        amortise(resumed, {}, settings, checkpoints=Checkpoints(tmp_path), resume=True)
    assert_equal_weights(whole, resumed)


def test_only_a_segment_posterior_is_trained():
    with pytest.raises(UserError, match="heads=\\['segment'\\]"):
        amortise(tiny_localiser(heads=("inside", "segment")), {}, SETTINGS)


def test_the_whole_localiser_moves_and_its_card_says_what_it_has_seen(trained, tmp_path):
    model, history = trained
    path = tmp_path / "amortised.safetensors"
    save_model(model, path, features=FEATURES, notes=amortise_notes(SETTINGS, history))
    moved, card = load_model(path, features=FEATURES)
    assert_equal_weights(model, moved)
    assert card["notes"]["n_windows"] in (24, 48)
    assert json.loads(path.with_suffix(".json").read_text())["notes"]["settings"]["ranges"]["strength"] == [1.4, 3.5]


def test_fine_tuning_goes_on_from_what_was_learned(trained, tmp_path):
    model, _ = trained
    path = tmp_path / "amortised.safetensors"
    save_model(model, path, features=FEATURES)
    moved, _ = load_model(path)
    gather, windows = simulate_labelled(16, [9, 9], sessions_per_market=1)
    settings = FinetuneSettings(
        n_frozen_epochs=0, n_unfrozen_epochs=1, unfrozen_learning_rate=0.0, linear_penalty=None, n_threads=1
    )
    finetune(moved, gather, windows, settings)
    assert_equal_weights(model, moved)  # at a rate of 0, nothing was fitted or scaled anew on the way


def test_a_linear_fit_goes_on_from_a_trained_head_and_keeps_its_encoder(trained, tmp_path):
    model, _ = trained
    path = tmp_path / "amortised.safetensors"
    save_model(model, path, features=FEATURES)
    gather, windows = simulate_labelled(24, [9, 9], sessions_per_market=1)
    settings = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=0, n_threads=1)
    batch = {
        "x": gather(torch.as_tensor(windows.place))[0],
        "spans": torch.as_tensor(windows.spans),
        "type": torch.as_tensor(windows.state),
        "has_expansion": torch.as_tensor(windows.has_expansion),
    }
    losses = []
    for penalty in (NEAR, STEADY):
        moved, _ = load_model(path)
        finetune(moved, gather, windows, replace(settings, linear_penalty=penalty))
        assert_equal_weights(model.encoder, moved.encoder)
        losses.append(segment_loss(moved.eval()(batch["x"]), batch, first_start=30).item())
    before = segment_loss(model.eval()(batch["x"]), batch, first_start=30).item()
    assert before > losses[0] > losses[1]  # the weaker the hold, the closer to these windows
