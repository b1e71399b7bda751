"""Fine-tuning: frozen then unfrozen, reproducible, resumable, and it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.learning import STRATEGIES
from moola_lib.learning.checkpoints import Checkpoints
from moola_lib.learning.finetune import FinetuneSettings, finetune
from moola_lib.learning.linear_fit import STEADY
from moola_lib.learning.predict import answer_so_far, predict_windows
from moola_lib.learning.start import set_head_biases
from moola_lib.models import build_model
from moola_lib.models.jade import TASKS
from moola_lib.models.weights import load_model, save_model
from moola_lib.windows.gather import WindowGatherer

SETTINGS = FinetuneSettings(
    n_frozen_epochs=2, n_unfrozen_epochs=2, batch_size=6, balance="uncertainty", seed=3, n_threads=1
)


@pytest.fixture
def train(labelled):
    return labelled.take(np.arange(12))


@pytest.fixture
def held(labelled):
    return labelled.take(np.arange(24, 32))


def tiny_jade(seed=1, **options):
    torch.manual_seed(seed)
    return build_model("jade", n_features=11, **{"hidden_size": 4} | options)


def without_clock(history):
    return [{name: value for name, value in row.items() if name != "windows_per_second"} for row in history]


def copy_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def moved(before, model):
    return {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}


class Interrupted(Exception):
    pass


def stop_after(n):
    def on_epoch(row):
        if row["epoch"] == n:
            raise Interrupted

    return on_epoch


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
    assert len(calls) == 2 and not any(calls)  # the losses before training, and the cache


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_resumed_run_equals_the_uninterrupted_one_across_the_border(gather, train, held, tmp_path, n):
    whole = tiny_jade()
    settings = replace(SETTINGS, balance="ema")
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


def test_predictions_are_in_plain_units_and_do_not_depend_on_the_batch(gather, train):
    model = tiny_jade()
    one, many = (predict_windows(model, gather, train.place, batch_size=size) for size in (5, 256))
    assert {name: value.shape for name, value in one.items()} == {
        "is_valid": (12, 105),
        "type_probability": (12, 2),
        "centre": (12,),
        "length": (12,),
        "inside_probability": (12, 105),
        "countdown": (12, 105),
    }
    for name in one:
        np.testing.assert_allclose(one[name], many[name], atol=1e-5)
    np.testing.assert_allclose(one["type_probability"].sum(axis=1), 1, atol=1e-6)
    assert ((one["inside_probability"] > 0) & (one["inside_probability"] < 1)).all()
    with torch.no_grad():
        raw = model.eval()(gather(torch.as_tensor(train.place))[0])["countdown"].numpy()
    np.testing.assert_allclose(one["countdown"], 20 * raw, atol=1e-5)


SEGMENT_SETTINGS = replace(SETTINGS, balance="fixed", n_frozen_epochs=1, n_unfrozen_epochs=1, is_class_balanced=False)
SEGMENT_OPTIONS = {"heads": ("segment",), "n_layers": 1, "start_range": (30, 74)}
LINEAR = {f"segment_head.{name}" for name in ("start.weight", "end.weight", "inside.weight", "inside.bias", "length")}
CONTRIBUTION = {"segment_head.contribution.weight", "segment_head.contribution.bias"}
LENT = {"segment_head.start.bias", "segment_head.null"}  # given an expansion they move nothing but rounding
SCALES = {f"segment_head.{name}" for name in ("mean", "scale", "around_scale")}


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


def test_a_posterior_is_predicted_with_its_marginals(gather, train):
    model = tiny_jade(**SEGMENT_OPTIONS)
    found = predict_windows(model, gather, train.place, batch_size=5)
    assert {name: value.shape[1:] for name, value in found.items()} == {
        "span_probability": (105, 105), "log_odds": (), "inside_probability": (105,), "countdown": (105,),
        "centre": (), "length": (), "type_probability": (2,), "is_valid": (105,),
    }  # fmt: skip
    both = tiny_jade(**SEGMENT_OPTIONS | {"heads": (*TASKS, "segment")})
    answers = predict_windows(both, gather, train.place)
    with torch.no_grad():
        raw = both.eval()(gather(torch.as_tensor(train.place))[0])
    np.testing.assert_allclose(answers["inside_probability"], raw["inside_logits"].sigmoid(), atol=1e-6)  # the notes'
    assert "span_probability" in answers


def test_answers_so_far_count_none_in_where_it_is_known(gather, train):
    model, x = tiny_jade(**SEGMENT_OPTIONS), gather(torch.as_tensor(train.place))[0]
    before = answer_so_far(model, x)
    torch.testing.assert_close(before["start_probability"].sum(dim=1), torch.ones(12))
    model.segment_head.knows_none.fill_(True)
    after = answer_so_far(model, x)
    has = torch.from_numpy(predict_windows(model, gather, train.place)["log_odds"]).sigmoid()[:, None]
    for name in before:
        torch.testing.assert_close(after[name], before[name] * has)
    notes = answer_so_far(tiny_jade(heads=("inside",)), x)
    assert set(notes) == {"inside_probability"}


def test_what_is_known_of_none_travels_with_the_weights(tmp_path):
    model = tiny_jade(**SEGMENT_OPTIONS)
    model.segment_head.knows_none.fill_(True)
    model.segment_head.temperature.fill_(1.7)
    features = {"set_id": "s", "names": [f"f{k}" for k in range(11)]}
    save_model(model, tmp_path / "m.safetensors", features=features)
    again, _ = load_model(tmp_path / "m.safetensors", features=features)
    assert bool(again.segment_head.knows_none) and moved(copy_of(model), again) == set()
