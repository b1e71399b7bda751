"""A card says how its model was trained: the arm comes back whole, its encoder by fingerprint wherever it lies."""

import shutil
from dataclasses import asdict, replace

import promoted
import pytest

from moola_lib.errors import UserError
from moola_lib.evaluation.fitted import _not_defaults
from moola_lib.files import plain, read_json, write_json
from moola_lib.learning.finetune import FinetuneSettings
from moola_lib.learning.linear_fit import NEAR
from moola_lib.runs.models import read_card
from moola_lib.runs.promoting import promote
from moola_lib.runs.recipe import find_weights, rebuild_arm, seen_days, validation_frac


@pytest.fixture
def named(project):
    promote(project, "first", "nq1")
    return project


def test_the_arm_is_the_one_that_was_trained(named):
    arm = rebuild_arm(named, read_card(named, "nq1"))
    assert arm.name == "pre-trained" and arm.model == "jade" and arm.options["hidden_size"] == 4
    assert arm.settings == replace(promoted.SETTINGS, seed=17)
    assert arm.encoder == named / "data/artifacts/first/03_pretraining/encoder.safetensors" and arm.weights is None
    promote(named, "first", "scratch", arm="random start")
    assert rebuild_arm(named, read_card(named, "scratch")).encoder is None


def test_settings_survive_their_card(named):
    card = read_card(named, "nq1")
    for settings in (
        FinetuneSettings(n_unfrozen_epochs=0, linear_penalty=NEAR),
        FinetuneSettings(linear_penalty=None, class_weights=(1.0, 1.17), weights={"type": 0.1}),
    ):
        card["notes"]["settings"] = plain(_not_defaults(settings))
        assert asdict(rebuild_arm(named, card).settings) == asdict(settings)
    card["notes"]["settings"] = {"n_warm_epochs": 3}
    with pytest.raises(UserError, match="settings of training that are not known here: n_warm_epochs"):
        rebuild_arm(named, card)


def test_an_encoder_is_found_by_its_fingerprint_where_it_moved_to(named):
    began_with = read_card(named, "nq1")["notes"]["began_with"]
    promote(named, "first", "enc", encoder="encoder")
    beside = named / "data/artifacts/first/03_pretraining/encoder.json"
    write_json(beside, read_json(beside) | {"weights_fingerprint": "0" * 16})  # trained again since
    assert find_weights(named, began_with) == named / "data/models/enc/model.safetensors"
    shutil.rmtree(named / "data/models/enc")
    with pytest.raises(UserError, match=r"encoder\.safetensors of run first, .* are not on this machine"):
        find_weights(named, began_with)


def test_a_card_that_does_not_tell_is_a_sentence(named):
    card = read_card(named, "nq1")
    del card["notes"]["settings"]
    with pytest.raises(UserError, match="does not say how it was trained \\(it lacks settings\\)"):
        rebuild_arm(named, card)


def test_days_that_pretraining_saw_and_parts_held_out_are_read_where_they_are_known(named):
    folder = named / "data/artifacts/first/03_pretraining"
    assert seen_days(folder / "encoder.safetensors") is None
    write_json(folder / "training_results.json", {"seen_days": ["2024-01-02"]})
    assert seen_days(folder / "encoder.safetensors") == ["2024-01-02"]
    card = read_card(named, "nq1")
    assert validation_frac(card) == {}
    card["notes"]["lineage"][0]["parameters"]["validation_frac"] = 0.3
    assert validation_frac(card) == {"validation_frac": 0.3}
