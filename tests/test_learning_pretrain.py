"""Pre-training: reproducible, resumable, and it learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.learning.checkpoints import Checkpoints, restore_training, training_state
from moola_lib.learning.objectives import feature_moments
from moola_lib.learning.pretrain import PretrainSettings, learning_rate_at, pretrain
from moola_lib.models import build_model
from moola_lib.models.weights import load_tensors
from moola_lib.windows.gather import WindowGatherer

SETTINGS = PretrainSettings(n_epochs=4, batch_size=8, seed=3, n_threads=1)
# a rate that destroys what the first epochs learned, so that the best epoch is not the last
RUINOUS = replace(SETTINGS, n_epochs=6, learning_rate=50.0, final_learning_rate=50.0, warmup_frac=1.0)
TRAIN, VALIDATION = np.arange(0, 800, 40), np.arange(1400, 1800, 50)
CLOCK = "windows_per_second"


def tiny_model(seed=1, **options):
    torch.manual_seed(seed)
    return build_model("masked_autoencoder", n_features=11, **{"hidden_size": 4} | options)


def without_clock(history):
    return [{name: value for name, value in row.items() if name != CLOCK} for row in history]


def assert_equal_weights(one, two):
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


class Interrupted(Exception):
    pass


def stop_after(n):
    def on_epoch(row):
        if row["epoch"] == n:
            raise Interrupted

    return on_epoch


def test_equal_seeds_give_equal_histories_bit_for_bit(gather):
    models = [tiny_model(), tiny_model(), tiny_model()]
    seeds = [3, 3, 4]
    histories = [
        without_clock(pretrain(model, gather, TRAIN, VALIDATION, replace(SETTINGS, seed=seed)))
        for model, seed in zip(models, seeds, strict=True)
    ]
    assert histories[0] == histories[1] != histories[2]
    assert_equal_weights(*models[:2])


def test_one_batch_overfits(gather):
    settings = PretrainSettings(
        n_epochs=80, batch_size=4, learning_rate=2e-2, final_learning_rate=2e-3, jitter=0.0, patience_epochs=80,
        warmup_frac=0.05, weight_decay=0.0, n_threads=1,
    )  # fmt: skip
    history = pretrain(tiny_model(hidden_size=24, dropout=0.0), gather, TRAIN[:4], VALIDATION, settings)
    losses = [row["train_huber"] for row in history]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


@pytest.mark.parametrize("mask", ["single", "span"])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(gather, tmp_path, mask):
    settings = replace(SETTINGS, mask=mask)
    whole = tiny_model()
    wanted = pretrain(whole, gather, TRAIN, VALIDATION, settings, checkpoints=Checkpoints(tmp_path / "whole"))
    checkpoints = Checkpoints(tmp_path / "parts")
    with pytest.raises(Interrupted):
        pretrain(
            tiny_model(), gather, TRAIN, VALIDATION, settings, checkpoints=checkpoints, on_epoch=stop_after(2)
        )  # fmt: skip
    resumed = tiny_model(seed=99)
    torch.rand(7)  # whatever happened in between
    found = pretrain(resumed, gather, TRAIN, VALIDATION, settings, checkpoints=checkpoints, resume=True)
    assert without_clock(found) == without_clock(wanted)
    assert_equal_weights(resumed, whole)


def test_resuming_a_finished_run_gives_its_best_weights(gather, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    model = tiny_model()
    wanted = pretrain(model, gather, TRAIN, VALIDATION, RUINOUS, checkpoints=checkpoints)
    again = tiny_model(seed=99)
    assert pretrain(again, gather, TRAIN, VALIDATION, RUINOUS, checkpoints=checkpoints, resume=True) == wanted
    assert_equal_weights(model, again)


def test_the_best_epoch_is_kept(gather, tmp_path):
    model, checkpoints = tiny_model(), Checkpoints(tmp_path, top_k=2)
    history = pretrain(model, gather, TRAIN, VALIDATION, RUINOUS, checkpoints=checkpoints)
    losses = [row["validation_huber"] for row in history]
    best = int(np.argmin(losses))
    assert best < len(losses) - 1
    tensors, metadata = load_tensors(checkpoints.best)
    assert metadata["epoch"] == best + 1 and metadata["score"] == losses[best]
    for name, value in model.state_dict().items():
        assert torch.equal(tensors[f"model.{name}"], value)
    assert load_tensors(checkpoints.latest)[1]["epoch"] == len(history)


def test_best_latest_and_the_top_k_lie_in_the_folder(gather, tmp_path):
    history = pretrain(
        tiny_model(), gather, TRAIN, VALIDATION, SETTINGS, checkpoints=Checkpoints(tmp_path / "c", top_k=2)
    )
    ranked = sorted((row["validation_huber"], row["epoch"]) for row in history)[:2]
    expected = {"checkpoint_best.safetensors", "checkpoint_latest.safetensors"}
    expected |= {f"checkpoint_epoch{epoch:04d}_score{score!r}.safetensors" for score, epoch in ranked}
    assert {path.name for path in (tmp_path / "c").iterdir()} == expected


def test_training_stops_when_nothing_improves(gather):
    settings = replace(SETTINGS, n_epochs=12, patience_epochs=2, learning_rate=0.0, final_learning_rate=0.0)
    history = pretrain(tiny_model(), gather, TRAIN, VALIDATION, settings)
    assert len(history) == 3  # without any learning the first epoch stays the best


def test_nan_features_are_refused_at_the_door(table):
    values = table.values.copy()
    values[300] = np.nan
    gather = WindowGatherer(type(table)(**{**vars(table), "values": values}))
    with pytest.raises(UserError, match="feature open_norm is not finite at bar 300"):
        pretrain(tiny_model(), gather, TRAIN, VALIDATION, SETTINGS)


def test_a_loss_that_is_not_finite_names_epoch_batch_and_window(gather):
    model = tiny_model()
    with torch.no_grad():
        model.decoder.bias.fill_(float("inf"))
    with pytest.raises(UserError, match=r"became \w+ in epoch 1, batch 1 \(first window at bar \d+\)"):
        pretrain(model, gather, TRAIN, VALIDATION, SETTINGS)


def test_features_of_another_width_are_refused(gather):
    with pytest.raises(UserError, match="11 columns, the model reads 4"):
        pretrain(build_model("masked_autoencoder", n_features=4, hidden_size=4), gather, TRAIN, VALIDATION, SETTINGS)


def test_a_training_is_resumed_with_its_own_settings_only(gather, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    pretrain(tiny_model(), gather, TRAIN, VALIDATION, replace(SETTINGS, n_epochs=1), checkpoints=checkpoints)
    other = replace(SETTINGS, n_epochs=1, learning_rate=0.5)
    with pytest.raises(UserError, match=r"another learning_rate \(\S+, now 0.5\)"):
        pretrain(tiny_model(), gather, TRAIN, VALIDATION, other, checkpoints=checkpoints, resume=True)


def test_an_epoch_may_draw_fewer_windows(gather):
    seen = []
    watched = WindowGatherer.__call__

    class Watched(WindowGatherer):
        def __init__(self):
            self.__dict__ = dict(gather.__dict__)

        def __call__(self, places):
            seen.append(places.tolist())
            return watched(self, places)

    settings = replace(SETTINGS, n_epochs=1, windows_per_epoch=10, batch_size=5)
    pretrain(tiny_model(), Watched(), TRAIN, VALIDATION, settings)
    trained = [place for places in seen for place in places if len(places) == 5]
    assert len(set(trained)) == 10 and set(trained) <= set(TRAIN.tolist())


def test_the_sigma_loss_is_reported_beside_its_huber(gather):
    (row,) = pretrain(tiny_model(), gather, TRAIN, VALIDATION, replace(SETTINGS, n_epochs=1))
    expected = row["validation_huber"] * math.exp(-2 * row["log_sigma"]) / 2 + row["log_sigma"]
    assert row["validation_sigma_loss"] == pytest.approx(expected, rel=1e-4)


def test_sigma_cannot_change_what_the_encoder_learns(gather):
    one, two = tiny_model(), tiny_model()
    with torch.no_grad():
        two.log_sigma.fill_(2.0)
    settings = replace(SETTINGS, clip_norm=1e9)
    histories = [pretrain(model, gather, TRAIN, VALIDATION, settings) for model in (one, two)]
    assert [r["train_huber"] for r in histories[0]] == pytest.approx([r["train_huber"] for r in histories[1]])


def test_jitter_is_on_the_input_and_never_in_validation(gather):
    settings = replace(SETTINGS, learning_rate=0.0, final_learning_rate=0.0, n_epochs=1)
    plain, jittered = (
        pretrain(tiny_model(), gather, TRAIN, VALIDATION, replace(settings, jitter=jitter))[0] for jitter in (0.0, 3.0)
    )
    assert plain["validation_huber"] == jittered["validation_huber"]
    assert plain["train_huber"] != jittered["train_huber"]


def test_moments_are_those_of_valid_bars(table, gather):
    mean, sd = feature_moments(gather, np.array([0, 500]))
    rows = np.r_[0:105, 500:605]
    rows = rows[table.is_valid[rows]]
    np.testing.assert_allclose(mean, table.values[rows].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(sd, table.values[rows].std(axis=0), atol=1e-5)


def test_a_constant_feature_has_a_deviation_of_one(table):
    values = table.values.copy()
    values[:, 3] = 0.25
    gather = WindowGatherer(type(table)(**{**vars(table), "values": values}))
    assert feature_moments(gather, TRAIN)[1][3] == 1


def test_the_rate_warms_up_then_follows_a_cosine_to_its_end():
    settings = PretrainSettings(learning_rate=1e-3, final_learning_rate=1e-4, warmup_frac=0.25)
    rates = np.array([learning_rate_at(step, 100, settings) for step in range(100)])
    assert rates[0] == pytest.approx(1e-3 / 25)  # the first step already moves
    assert rates[24] == pytest.approx(1e-3) == rates.max()
    assert rates[99] == pytest.approx(1e-4)
    np.testing.assert_allclose(np.diff(rates[:25]), 1e-3 / 25)
    assert (np.diff(rates[24:]) < 0).all()
    assert rates[62] == pytest.approx((1e-3 + 1e-4) / 2, rel=0.05)
    assert (rates[25:] >= 1e-4).all()


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_the_shortest_schedules_have_rates(n_steps):
    settings = PretrainSettings(learning_rate=1.0, final_learning_rate=0.1, warmup_frac=0.25)
    rates = [learning_rate_at(step, n_steps, settings) for step in range(n_steps)]
    assert rates[0] == 1.0 and all(0.1 <= rate <= 1.0 for rate in rates)


def saved_state(folder):
    model = tiny_model()
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(folder)
    checkpoints.save(training_state(model, optimizer, {}, {"history": []}), score=0.5, epoch=1)
    return checkpoints


def test_a_truncated_checkpoint_is_a_sentence(tmp_path):
    checkpoints = saved_state(tmp_path)
    checkpoints.latest.write_bytes(checkpoints.latest.read_bytes()[:-50])
    model = tiny_model()
    with pytest.raises(UserError, match="truncated or not a safetensors file"):
        restore_training(checkpoints.latest, model, torch.optim.AdamW(model.parameters()), {})


@pytest.mark.parametrize("options", [{"hidden_size": 6}, {"n_layers": 1}])
def test_a_checkpoint_of_another_shape_is_a_sentence(tmp_path, options):
    checkpoints = saved_state(tmp_path)
    model = tiny_model(**options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"checkpoint of another model \(.* here, .* in the file, \d+ tensors in all\)"):
        restore_training(checkpoints.latest, model, torch.optim.AdamW(model.parameters()), {})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_resuming_from_a_checkpoint_of_another_shape_is_a_sentence(gather, tmp_path):
    checkpoints = saved_state(tmp_path)
    with pytest.raises(UserError, match="checkpoint of another model"):
        pretrain(
            tiny_model(hidden_size=6), gather, TRAIN, VALIDATION, SETTINGS, checkpoints=checkpoints, resume=True
        )  # fmt: skip
