"""Pre-training: reproducible, resumable, and it learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import SETTINGS, TRAIN, VALIDATION, assert_equal_weights, tiny_model, without_clock

from moola_lib.errors import UserError
from moola_lib.learning.device import at_precision
from moola_lib.learning.epochs import learning_rate_at
from moola_lib.learning.objectives import Reconstruction, feature_moments
from moola_lib.learning.pretrain import PretrainSettings, pretrain
from moola_lib.models import build_model
from moola_lib.windows.gather import WindowGatherer


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


def test_training_stops_when_nothing_improves(gather):
    settings = replace(SETTINGS, n_epochs=12, patience_epochs=2, learning_rate=0.0, final_learning_rate=0.0)
    history = pretrain(tiny_model(), gather, TRAIN, VALIDATION, settings)
    assert len(history) == 3  # without any learning the first epoch stays the best


def test_half_precision_is_opened_for_every_step(gather, monkeypatch):
    opened = []

    def watch(device, precision):
        opened.append(precision)
        return at_precision(device, precision)

    monkeypatch.setattr("moola_lib.learning.objectives.at_precision", watch)
    pretrain(tiny_model(), gather, TRAIN, VALIDATION, replace(SETTINGS, precision="bf16"))
    assert opened.count("bf16") == SETTINGS.n_epochs * math.ceil(len(TRAIN) / SETTINGS.batch_size)
    assert opened.count("fp32") == 1 + SETTINGS.n_epochs  # validation, before training too


# enough rate and steps for weights that stay behind to show
QUICK = replace(SETTINGS, n_epochs=15, learning_rate=2e-2, final_learning_rate=1e-2, warmup_frac=0.0, jitter=0.0)


def losses_of(gather, **changes):
    model = tiny_model(hidden_size=16, dropout=0.0)
    return [row["train_huber"] for row in pretrain(model, gather, TRAIN, VALIDATION, replace(QUICK, **changes))]


def test_half_precision_learns_as_full_precision_does(gather):
    full, half = losses_of(gather), losses_of(gather, precision="bf16")
    assert full[-1] < 0.7 * full[0]
    assert half != full
    assert half == pytest.approx(full, rel=0.02)


def test_a_callers_own_autocast_does_not_stop_the_learning(gather):
    with torch.autocast("cpu", torch.bfloat16):  # around the loop its cache of weights goes stale
        inside = losses_of(gather, precision="bf16")
    assert inside == pytest.approx(losses_of(gather), rel=0.02)


@pytest.mark.slow
def test_half_precision_ends_within_one_percent_of_full_precision(gather, market):
    places = np.arange(20, len(market.bars.frame) - 104, 13)
    train, validation = places[places < 6000], places[places > 6300]
    settings = PretrainSettings(n_epochs=8, batch_size=16, learning_rate=4e-3, mask="span", mask_ratio=0.3, n_threads=1)
    full, half = (
        min(
            row["validation_huber"]
            for row in pretrain(
                tiny_model(hidden_size=64, dropout=0.2),
                gather,
                train,
                validation,
                replace(settings, precision=precision),
            )
        )
        for precision in ("fp32", "bf16")
    )
    assert half == pytest.approx(full, rel=0.01)


def test_an_unknown_precision_is_a_sentence(gather):
    with pytest.raises(UserError, match="precision 'fp16' is not known; choose fp32 or bf16"):
        pretrain(tiny_model(), gather, TRAIN, VALIDATION, replace(SETTINGS, precision="fp16"))


def test_gradient_checkpointing_changes_nothing(gather):
    models = [tiny_model(dropout=0.5), tiny_model(dropout=0.5)]
    histories = [
        without_clock(pretrain(model, gather, TRAIN, VALIDATION, replace(SETTINGS, gradient_checkpointing=is_on)))
        for model, is_on in zip(models, (False, True), strict=True)
    ]
    assert histories[0] == histories[1]
    assert_equal_weights(*models)


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


def test_the_leak_is_learned_by_copying(gather):
    settings = replace(QUICK, n_epochs=30, hide_input=False)
    model = tiny_model(hidden_size=16, dropout=0.0)
    history = pretrain(model, gather, TRAIN, VALIDATION, settings)
    leaky, honest = (
        Reconstruction(gather, TRAIN, replace(settings, hide_input=is_hidden)).validate(model, VALIDATION)
        for is_hidden in (False, True)
    )
    assert leaky == min(row["validation_huber"] for row in history)
    assert leaky < 0.6 * honest  # nothing it knows is of use once hiding is on


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU is needed")
def test_bf16_on_a_gpu_is_bf16_in_the_lstm_too():
    lstm = torch.nn.LSTM(4, 8, batch_first=True).cuda()
    with at_precision(torch.device("cuda"), "bf16"):
        assert lstm(torch.randn(2, 5, 4, device="cuda"))[0].dtype == torch.bfloat16
