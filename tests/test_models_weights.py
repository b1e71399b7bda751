"""Weights travel with their card, strictly, and are never unpickled."""

import json
import pickle
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

import moola_lib
from moola_lib.errors import UserError
from moola_lib.models import MODELS, build_model
from moola_lib.models.weights import load_encoder, load_model, load_tensors, save_model, save_tensors

NAMES = [f"f{k}" for k in range(11)]
FEATURES = {"set_id": "relativity11.v1/primary/k=3", "names": NAMES}
OTHER_SET = {"set_id": "relative_transform11.v1", "names": NAMES}
SMALL = {"hidden_size": 4}


@pytest.fixture
def saved(tmp_path):
    """A small autoencoder on disk: (model, path)."""
    torch.manual_seed(1)
    model = build_model("masked_autoencoder", n_features=11, **SMALL)
    path = tmp_path / "encoder.safetensors"
    save_model(model, path, features=FEATURES, notes={"seed": 1})
    return model, path


def edit_card(path, **changes):
    card = json.loads(path.with_suffix(".json").read_text())
    for key, value in changes.items():
        inner, *rest = key.split("__")
        if rest:
            card[inner][rest[0]] = value
        else:
            card[inner] = value
    path.with_suffix(".json").write_text(json.dumps(card))


@pytest.mark.parametrize("name", MODELS)
def test_weights_round_trip(name, tmp_path):
    options = {"lead_bars": 2} if name == "linear_segments" else SMALL
    model = build_model(name, n_features=11, **options)
    card = save_model(model, tmp_path / "m.safetensors", features=FEATURES)
    again, read = load_model(tmp_path / "m.safetensors", features=FEATURES)
    assert read == card and not again.training
    assert card["n_tensors"] == len(model.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_a_card_says_what_the_weights_are(saved):
    model, path = saved
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["model"] == model.spec and card["encoder"] == model.encoder.shape
    assert card["features"] == FEATURES and card["notes"] == {"seed": 1}
    assert card["n_parameters"] == sum(p.numel() for p in model.parameters())


def test_an_encoder_transfer_matches_16_tensors_and_leaves_exactly_the_rest(saved):
    source, path = saved
    torch.manual_seed(2)
    target = build_model("jade", n_features=11, **SMALL)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    report = load_encoder(target, path, features=FEATURES)
    assert report["matched"] == report["expected"] == 16
    assert report["largest_change"] > 0
    assert report["left_out"] == ["decoder.bias", "decoder.weight", "log_sigma"]
    for name, value in target.state_dict().items():
        wanted = source.state_dict()[name] if name.startswith("encoder.") else before[name]
        assert torch.equal(value, wanted), name


def test_a_transfer_of_the_same_weights_changes_nothing(saved):
    model, path = saved
    assert load_encoder(model, path)["largest_change"] == 0


@pytest.mark.parametrize(
    ("options", "theirs", "ours"),
    [
        ({"n_features": 11, "hidden_size": 8}, "'hidden_size': 4", "'hidden_size': 8"),
        ({"n_features": 12, "hidden_size": 4}, "'n_features': 11", "'n_features': 12"),
        ({"n_features": 11, "hidden_size": 4, "n_layers": 1}, "'n_layers': 2", "'n_layers': 1"),
    ],
)
def test_an_encoder_of_another_shape_is_refused_naming_both(saved, options, theirs, ours):
    target = build_model("jade", **options)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_encoder(target, saved[1], features=FEATURES)
    assert theirs in str(caught.value) and ours in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())


@pytest.mark.parametrize("load", ["model", "encoder"])
def test_another_feature_set_is_refused_naming_both(saved, load):
    with pytest.raises(UserError) as caught:
        if load == "model":
            load_model(saved[1], features=OTHER_SET)
        else:
            load_encoder(build_model("jade", n_features=11, **SMALL), saved[1], features=OTHER_SET)
    assert FEATURES["set_id"] in str(caught.value) and OTHER_SET["set_id"] in str(caught.value)


def test_the_same_set_with_other_columns_is_refused(saved):
    with pytest.raises(UserError, match=r"11 columns.*12 columns"):
        load_model(saved[1], features={**FEATURES, "names": [*NAMES, "position"]})


def test_a_model_without_encoder_has_none_to_give(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(build_model("simple_lstm", n_features=11, **SMALL), path, features=FEATURES)
    with pytest.raises(UserError, match="simple_lstm, which has no encoder"):
        load_encoder(build_model("jade", n_features=11, **SMALL), path)


def test_a_truncated_file_is_a_sentence(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-100])
    for attempt in (
        lambda: load_tensors(path),
        lambda: load_model(path),
        lambda: load_encoder(build_model("jade", n_features=11, **SMALL), path),
    ):
        with pytest.raises(UserError, match="truncated or not a safetensors file"):
            attempt()


def test_a_missing_file_or_card_is_a_sentence(saved, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_tensors(tmp_path / "absent.safetensors")
    saved[1].with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"encoder\.json does not exist"):
        load_model(saved[1])


def test_a_card_of_other_weights_is_refused(saved, tmp_path):
    _, path = saved
    other = tmp_path / "other.safetensors"
    save_model(build_model("masked_autoencoder", n_features=11, **SMALL), other, features=FEATURES)
    path.with_suffix(".json").write_bytes(other.with_suffix(".json").read_bytes())
    with pytest.raises(UserError, match="does not belong to the card beside it"):
        load_model(path)
    with pytest.raises(UserError, match="does not belong to the card beside it"):
        load_encoder(build_model("jade", n_features=11, **SMALL), path)


def test_a_card_that_promises_another_shape_is_refused(saved):
    _, path = saved
    edit_card(path, model__options={"hidden_size": 8})
    with pytest.raises(UserError, match="do not fit"):
        load_model(path)


def test_a_card_that_is_no_card_is_a_sentence(saved):
    saved[1].with_suffix(".json").write_text("{}")
    with pytest.raises(UserError, match=r"encoder\.json"):
        load_model(saved[1])


class Bomb:
    """Leaves a trace when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_content_is_refused_and_never_run(tmp_path, saved):
    trace = tmp_path / "exploded"
    path = saved[1]
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(UserError, match="not a safetensors file"):
        load_tensors(path)
    torch.save({"bomb": Bomb(trace)}, path)
    with pytest.raises(UserError, match="not a safetensors file"):
        load_encoder(build_model("jade", n_features=11, **SMALL), path)
    assert not trace.exists()


def test_no_module_can_unpickle():
    modules = "pickle|dill|joblib|cloudpickle|marshal"
    forbidden = re.compile(rf"torch\.load|^\s*(import|from) ({modules})|allow_pickle=True", re.MULTILINE)
    root = Path(moola_lib.__file__).parent
    assert not [str(path) for path in root.rglob("*.py") if forbidden.search(path.read_text(encoding="utf-8"))]


def test_foreign_safetensors_load_without_metadata(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    tensors, metadata = load_tensors(tmp_path / "a.safetensors")
    assert torch.equal(tensors["a"], torch.ones(2)) and metadata == {}


def test_metadata_travels_in_the_same_file(tmp_path):
    save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"epoch": 3, "history": [{"loss": 0.5}]})
    assert load_tensors(tmp_path / "a.safetensors")[1] == {"epoch": 3, "history": [{"loss": 0.5}]}
