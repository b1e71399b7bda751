"""What is made of trained arms: their mean, their answers to other bars, their causal scores, their worth by labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from moola_lib.evaluation.causal_arms import causal_table, cross_fit_causal_rivals, score_causal_arm
from moola_lib.evaluation.cross_validation import Arm, assemble, ensemble, fold_model, model_answers, run_fold
from moola_lib.evaluation.inputs import collect_inputs
from moola_lib.evaluation.label_efficiency import HAND_FEATURES, label_efficiency, label_gains
from moola_lib.features.sets import upside_down
from moola_lib.learning import linear_fit
from moola_lib.learning.finetune import FinetuneSettings, finetune
from moola_lib.learning.linear_fit import STEADY, _fits, fit_linear, fit_linear_once, share_linear_fits
from moola_lib.learning.outputs import predict_windows
from moola_lib.models import build_model
from moola_lib.windows import grouped_folds, subset_folds

SETTINGS = FinetuneSettings(
    n_frozen_epochs=0,
    n_unfrozen_epochs=1,
    batch_size=8,
    is_class_balanced=False,
    frozen_learning_rate=1e-2,
    n_threads=1,
)


@pytest.fixture(scope="module")
def arm(gather):
    options = {
        "hidden_size": 4,
        "heads": ("segment",),
        "start_range": (30, 74),
        "upside_down": upside_down(gather.names),
    }
    return Arm("posterior", "jade_compact", SETTINGS, options)


@pytest.fixture(scope="module")
def folds(labelled):
    return grouped_folds(labelled.place, labelled.day, n_folds=2)


@pytest.fixture(scope="module")
def results(arm, gather, table, labelled, folds):
    features = {"set_id": table.set_id, "names": gather.names}
    return [run_fold(arm, gather, labelled, fold, features=features, validation_frac=0) for fold in folds]


@pytest.fixture(scope="module")
def inputs(labelled, gather, market):
    return collect_inputs(labelled, gather, market.bars.frame)


def test_a_fold_s_model_can_be_had_again(arm, gather, labelled, folds, results):
    again = predict_windows(fold_model(arm, gather, results[0]), gather, labelled.place[folds[0].test])
    for name, value in results[0].outputs.items():
        np.testing.assert_array_equal(again[name], value)


def test_models_answer_the_inputs_they_are_given(arm, gather, labelled, folds, results, inputs):
    answer = model_answers(arm, gather, labelled, folds, results)
    whole, _ = assemble(results, folds, len(labelled), decoder="segment")
    test = labelled.take(folds[1].test)
    given = answer(None, test, inputs)
    np.testing.assert_array_equal(given.start, whole.start[folds[1].test])
    np.testing.assert_array_equal(given.is_inside, whole.is_inside[folds[1].test])
    blank = answer(None, test, replace(inputs, x=np.zeros_like(inputs.x)))
    assert len(np.unique(blank.start)) == 1  # without bars all windows are alike


def test_an_ensemble_is_the_mean_of_its_posteriors(labelled, folds, results):
    _, one = assemble(results, folds, len(labelled), decoder="segment")
    other = one | {name: one[name][::-1] for name in ("span_probability", "inside_probability", "type_probability")}
    alone, both = ensemble([one]), ensemble([one, other])
    plain, _ = assemble(results, folds, len(labelled), decoder="segment")
    np.testing.assert_array_equal(alone.start, plain.start)
    np.testing.assert_allclose(alone.countdown, plain.countdown)
    mean = (one["inside_probability"] + other["inside_probability"]) / 2
    np.testing.assert_allclose(both.inside_probability, mean, rtol=1e-6)
    np.testing.assert_allclose(both.start_probability.sum(axis=1), 1, rtol=1e-4)


def test_smaller_draws_are_parts_of_larger_ones_and_test_the_same(folds):
    subsets = subset_folds(folds[0], [2, 4, 10_000], n_draws=2, seed=3)
    assert [size for size, _ in subsets] == [2, 2, 4, 4]
    for draw in (0, 1):
        small, large = subsets[draw][1], subsets[2 + draw][1]
        assert set(small.train) <= set(large.train) <= set(folds[0].train)
        assert list(large.train) == sorted(large.train)
        assert np.array_equal(small.test, folds[0].test)
    assert set(subsets[2][1].train) != set(subsets[3][1].train)


def test_label_efficiency_averages_draws_beside_hand_features(labelled, folds, results, inputs):
    subsets = [(5, folds[0]), (5, folds[0]), (7, folds[0])]
    table = label_efficiency(labelled, subsets, {"ours": [results[0]] * 3}, inputs, n_bootstrap=50)
    assert list(table["arm"]) == ["ours", "ours", HAND_FEATURES, HAND_FEATURES]
    rows = table.set_index(["arm", "n_labels"])
    answer, _ = assemble([results[0]], [folds[0]], len(labelled), decoder="segment")
    hits = np.abs(answer.start - labelled.start)[folds[0].test] <= 3
    assert rows.loc[("ours", 5), "value"] == pytest.approx(hits.mean())
    assert rows.loc[("ours", 5), "n_draws"] == 2 and rows.loc[("ours", 5), "sd_of_draws"] == 0
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_gains_by_labels_are_paired(labelled, folds, results, inputs):
    subsets = [(5, folds[0]), (5, folds[0]), (7, folds[0])]
    given = {"ours": [results[0]] * 3, "theirs": [results[0]] * 3}
    rivals = ("theirs", HAND_FEATURES)
    table = label_gains(labelled, subsets, given, inputs, "ours", rivals, n_bootstrap=50).set_index(
        ["n_labels", "against"]
    )
    same = table.loc[(5, "theirs")]  # the marginal intervals are wide, the paired one has no width
    assert (same["difference"], same["low"], same["high"], same["verdict"]) == (0, 0, 0, "INCONCLUSIVE")
    worth = label_efficiency(labelled, subsets, given, inputs, n_bootstrap=50).set_index(["n_labels", "arm"])["value"]
    for size in (5, 7):
        difference = worth[size, "ours"] - worth[size, HAND_FEATURES]
        assert table.loc[(size, HAND_FEATURES), "difference"] == pytest.approx(difference)
    assert (table["n_days"] == len(np.unique(labelled.day[folds[0].test]))).all()


def test_causal_scores_of_an_arm_stand_beside_rivals_that_look_back(arm, gather, labelled, folds, results, inputs):
    ours = score_causal_arm(arm, results, folds, gather, labelled, stride=35, n_bootstrap=20)
    rivals = cross_fit_causal_rivals(labelled, folds, inputs, n_bootstrap=20)
    assert set(rivals["arm"]) == {"ATR ratio", "logistic regression"}
    assert (ours["n"].iloc[0] == len(labelled)) and ours["value"].iloc[0] > 0
    shown = causal_table(pd.concat([ours, rivals]))
    assert list(shown.columns) == ["meaning", "posterior", "ATR ratio", "logistic regression"]
    assert len(shown) == ours["figure"].nunique()


def head_and_batch(gather, labelled):
    head = build_model("linear_segments", n_features=gather.n_features, start_range=(30, 74)).segment_head
    x, _ = gather(torch.as_tensor(labelled.place))
    batch = {"x": x, "spans": torch.as_tensor(labelled.spans), "type": torch.as_tensor(labelled.state)}
    return head, batch | {"has_expansion": torch.as_tensor(labelled.has_expansion)}


def test_a_linear_fit_done_before_is_the_same_to_the_bit(gather, labelled):
    _fits.clear()
    heads = [head_and_batch(gather, labelled)[0] for _ in range(3)]
    batch = head_and_batch(gather, labelled)[1]
    fit_linear(heads[0], batch, STEADY, n_iterations=5)
    for head in heads[1:]:
        fit_linear_once(head, batch, STEADY, n_iterations=5)
    assert len(_fits) == 1
    for name, value in heads[0].state_dict().items():
        assert torch.equal(heads[1].state_dict()[name], value) and torch.equal(heads[2].state_dict()[name], value)
    other, _ = head_and_batch(gather, labelled)
    fit_linear_once(other, batch | {"x": batch["x"] * 2}, STEADY, n_iterations=5)
    assert len(_fits) == 2 and not torch.equal(other.mean, heads[0].mean)


def test_processes_share_linear_fits_through_a_folder(gather, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(linear_fit, "_shared", {})
    head, batch = head_and_batch(gather, labelled)
    share_linear_fits(tmp_path)
    _fits.clear()
    fit_linear_once(head, batch, STEADY, n_iterations=5)
    assert len(list(tmp_path.iterdir())) == 1
    _fits.clear()  # as in another process
    monkeypatch.setattr(linear_fit, "fit_linear", lambda *_, **__: pytest.fail("fitted a second time"))
    other, _ = head_and_batch(gather, labelled)
    fit_linear_once(other, batch, STEADY, n_iterations=5)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in head.state_dict().items())
    _fits.clear()


def test_the_encoder_learns_at_a_rate_of_its_own(gather, labelled):
    moved = {}
    for factor in (1.0, 1e-3):
        torch.manual_seed(3)
        model = build_model(
            "jade_compact", n_features=gather.n_features, hidden_size=4, input_dropout=0, head_dropout=0
        )
        before = {name: value.clone() for name, value in model.named_parameters()}
        finetune(model, gather, labelled, replace(SETTINGS, encoder_rate_factor=factor))
        moved[factor] = {
            name: float((value - before[name]).detach().abs().max()) for name, value in model.named_parameters()
        }
    name = "encoder.lstm.weight_hh_l0"
    assert 0 < moved[1e-3][name] < 0.01 * moved[1.0][name]
    assert moved[1e-3]["heads.trunk.weight"] > 0.1 * moved[1.0]["heads.trunk.weight"]
