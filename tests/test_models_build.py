"""The five models: exact counts, shapes, and what they must not see."""

import inspect

import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.models import MODELS, PRETRAINERS, build_model
from moola_lib.models.encoder import Encoder
from moola_lib.models.jade import TASKS
from moola_lib.models.pretrainers import hide

COUNTS = [  # name, n_features, n_classes, parameters, tensors, encoder's parameters, its tensors
    ("jade_compact", 12, 3, 97_547, None, None, 8),
    ("jade_compact", 11, 2, 96_714, None, None, 8),
    ("jade", 11, 2, 556_874, None, 539_648, 16),
    ("masked_autoencoder", 11, None, 542_476, 19, 539_648, 16),
    ("multitask_pretrainer", 11, None, 590_089, None, 539_648, 16),
    ("simple_lstm", 4, 2, 409_186, 18, None, None),
]
SMALL = {"hidden_size": 4}
OPTIONS = {name: SMALL for name in MODELS} | {"linear_segments": {"lead_bars": 2}}
HEADS = {
    "type": ("type_logits", (3, 2)),
    "pointers": ("pointers", (3, 2)),
    "inside": ("inside_logits", (3, 105)),
    "countdown": ("countdown", (3, 105)),
}


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("name", "n_features", "n_classes", "total", "tensors", "encoder", "encoder_tensors"), COUNTS)
def test_counts_are_exact(name, n_features, n_classes, total, tensors, encoder, encoder_tensors):
    model = build_model(name, n_features=n_features, n_classes=n_classes)
    assert n_parameters(model) == total
    assert tensors is None or len(list(model.parameters())) == tensors
    assert encoder is None or n_parameters(model.encoder) == encoder
    assert encoder_tensors is None or len(list(model.encoder.parameters())) == encoder_tensors
    assert len(model.state_dict()) == len(list(model.parameters()))  # no hidden buffers


@pytest.mark.parametrize("name", ["jade", "jade_compact"])
def test_a_localiser_answers_with_every_key(name):
    model = build_model(name, n_features=5, **SMALL).eval()
    outputs = model(torch.randn(3, 105, 5))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == dict(HEADS.values()) | {"log_sigma": (4,)}
    assert ((outputs["pointers"] > 0) & (outputs["pointers"] < 1)).all()
    torch.testing.assert_close(outputs["log_sigma"].detach(), torch.tensor([0.0, -0.30, 0.0, 0.0]))


@pytest.mark.parametrize("task", TASKS)
def test_each_head_can_be_switched_off(task):
    others = [other for other in TASKS if other != task]
    model = build_model("jade", n_features=5, heads=others, **SMALL).eval()
    outputs = model(torch.randn(3, 105, 5))
    assert set(outputs) == {HEADS[other][0] for other in others} | {"log_sigma"}
    assert model.tasks == tuple(others)
    assert not any(f"{task}_head" in name for name in model.state_dict())


def test_heads_keep_their_order_and_the_trunk_goes_when_nobody_needs_it():
    model = build_model("jade", n_features=5, heads=["countdown", "inside"], **SMALL)
    assert model.tasks == ("inside", "countdown")
    assert not any("trunk" in name for name in model.state_dict())


def test_pretrainers_answer_per_bar():
    x, is_masked = torch.randn(3, 105, 5), torch.zeros(3, 105, dtype=torch.bool)
    outputs = build_model("masked_autoencoder", n_features=5, **SMALL)(x, is_masked)
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "reconstruction": (3, 105, 5),
        "log_sigma": (1,),
    }
    outputs = build_model("multitask_pretrainer", n_features=5, **SMALL)(x)
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "expansion_logits": (3, 105, 2),
        "swing_logits": (3, 105, 3),
        "candle_logits": (3, 105, 4),
    }


def test_simple_lstm_sends_gradient_to_all_its_tensors():
    model = build_model("simple_lstm", n_features=4, hidden_size=8)
    outputs = model(torch.randn(3, 105, 4))
    assert outputs["type_logits"].shape == (3, 2) and model.tasks == ("type",)
    outputs["type_logits"].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_classes_default_to_two_and_may_be_three():
    assert build_model("jade", n_features=5, **SMALL).spec["n_classes"] == 2
    model = build_model("jade", n_features=5, n_classes=3, **SMALL).eval()
    assert model(torch.randn(2, 105, 5))["type_logits"].shape == (2, 3)


def test_hidden_values_never_reach_the_autoencoder():
    torch.manual_seed(0)
    model = build_model("masked_autoencoder", n_features=5, **SMALL).eval()
    x = torch.randn(4, 105, 5)
    is_masked = torch.rand(4, 105) < 0.2
    changed = torch.where(is_masked.unsqueeze(-1), torch.randn_like(x) * 1e6, x)
    assert not torch.equal(changed, x)
    assert torch.equal(hide(changed, is_masked), hide(x, is_masked))
    assert torch.equal(model(changed, is_masked)["reconstruction"], model(x, is_masked)["reconstruction"])
    changed = torch.where(is_masked.unsqueeze(-1), x, x + 1)
    assert not torch.equal(model(changed, is_masked)["reconstruction"], model(x, is_masked)["reconstruction"])


def test_even_nan_is_hidden():
    x = torch.full((1, 4, 2), float("nan"))
    assert torch.equal(hide(x, torch.ones(1, 4, dtype=torch.bool)), torch.zeros(1, 4, 2))


def test_hiding_passes_visible_bars_unchanged():
    x, is_masked = torch.randn(2, 9, 3), torch.zeros(2, 9, dtype=torch.bool)
    is_masked[0, 3] = True
    hidden = hide(x, is_masked)
    assert (hidden[0, 3] == 0).all() and torch.equal(hidden[~is_masked], x[~is_masked])


def test_the_frozen_path_equals_the_whole():
    model = build_model("jade", n_features=5, **SMALL).eval()
    x = torch.randn(2, 105, 5)
    whole, parts = model(x), model.decode(model.encode(x), model.score_linearly(x))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def encode(encoder, x, is_checkpointed):
    """Outputs, gradients, and the bytes kept for the backward pass."""
    kept = []
    encoder.is_checkpointed = is_checkpointed
    encoder.zero_grad()
    torch.manual_seed(3)  # dropout
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        encoded = encoder(x)
    encoded.square().sum().backward()
    return encoded.detach(), [parameter.grad.clone() for parameter in encoder.parameters()], sum(kept)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_gradient_checkpointing_gives_the_same_numbers_for_less_memory(n_layers):
    torch.manual_seed(0)
    encoder = Encoder(5, hidden_size=16, n_layers=n_layers, dropout=0.5).train()
    x = torch.randn(8, 105, 5)
    plain, saving = (encode(encoder, x, is_on) for is_on in (False, True))
    assert torch.equal(plain[0], saving[0])
    assert all(torch.equal(one, two) for one, two in zip(plain[1], saving[1], strict=True))
    assert saving[2] < 0.5 * plain[2]


def test_gradient_checkpointing_changes_no_answer_without_gradients():
    encoder = Encoder(5, hidden_size=4).eval()
    x = torch.randn(2, 105, 5)
    with torch.no_grad():
        expected = encoder(x)
        encoder.is_checkpointed = True
        assert torch.equal(encoder(x), expected)
    assert torch.equal(encoder(x).detach(), expected)


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(UserError, match="'jadee' is not known") as caught:
        build_model("jadee", n_features=5)
    assert all(name in str(caught.value) for name in MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_option_lists_the_known_ones(name):
    with pytest.raises(UserError, match="has no option 'hiden_size'") as caught:
        build_model(name, n_features=5, hiden_size=3)
    assert all(option in str(caught.value) for option in OPTIONS[name])


@pytest.mark.parametrize("name", PRETRAINERS)
def test_a_pretrainer_takes_no_classes(name):
    with pytest.raises(UserError, match="has no classes"):
        build_model(name, n_features=5, n_classes=2)


@pytest.mark.parametrize("heads", [["type", "colour"], []])
def test_unknown_or_no_heads_are_refused(heads):
    with pytest.raises(UserError, match="one or more of type, pointers, inside, countdown"):
        build_model("jade", n_features=5, heads=heads, **SMALL)


@pytest.mark.parametrize("name", MODELS)
def test_a_spec_builds_the_same_shapes_again(name):
    model = build_model(name, n_features=6, **OPTIONS[name])
    spec = model.spec
    again = build_model(spec["name"], n_features=spec["n_features"], n_classes=spec["n_classes"], **spec["options"])
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (model, again)]
    assert shapes[0] == shapes[1]


def test_the_default_shapes_are_those_of_the_specification():
    from moola_lib.models.jade import Jade, JadeCompact
    from moola_lib.models.pretrainers import MaskedAutoencoder

    def defaults(kind):
        return {k: p.default for k, p in inspect.signature(kind).parameters.items() if p.default is not p.empty}

    assert defaults(JadeCompact)["input_dropout"] == 0.3 and defaults(JadeCompact)["head_dropout"] == 0.6
    assert defaults(Jade)["dropout"] == defaults(MaskedAutoencoder)["dropout"] == 0.65
