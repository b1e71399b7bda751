"""A fitted model's windows scored again: its own answers, baselines of its own labels, the difference a label makes."""

import numpy as np
import pytest
import torch

from moola_lib.evaluation.cross_validation import Arm, assemble, fold_model, run_fold
from moola_lib.evaluation.metrics import Prediction
from moola_lib.evaluation.rescoring import answer_windows, rescore, score_new_windows, shared_rows
from moola_lib.evaluation.walk_forward import FIGURES
from moola_lib.learning.finetune import FinetuneSettings
from moola_lib.models.jade import HEADS
from moola_lib.windows import grouped_folds

SETTINGS = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=1, batch_size=8, n_threads=1)
ARM = Arm("small", "jade", SETTINGS, {"hidden_size": 4, "heads": HEADS["segment"], "start_range": (30, 74)})


@pytest.fixture(scope="module")
def halves(labelled):
    fold = grouped_folds(labelled.place, labelled.day, n_folds=2)[1]
    return fold, labelled.take(fold.train), labelled.take(fold.test)


def test_a_kept_model_answers_as_its_fold_did(labelled, gather, table, halves):
    fold, _, test = halves
    result = run_fold(ARM, gather, labelled, fold, features={"set_id": table.set_id, "names": gather.names})
    expected, _ = assemble([result], [fold], len(labelled), decoder="segment")
    model = fold_model(ARM, gather, result)
    own, is_valid = answer_windows(model, gather, test.place, inside_threshold=result.inside_threshold)
    for name in ("start", "end", "is_inside", "type_probability"):
        np.testing.assert_array_equal(getattr(own, name), getattr(expected.take(fold.test), name))
    assert is_valid.shape == (len(test), 105) and torch.is_grad_enabled()


def test_new_windows_are_scored_beside_baselines_of_the_trained_ones(gather, market, halves):
    _, train, test = halves
    n = len(test)
    guess = Prediction(start=np.full(n, int(np.median(train.start))), end=np.full(n, int(np.median(train.end))))
    table = score_new_windows(test, guess, train, gather, market.bars.frame, n_bootstrap=50).set_index("metric")
    assert table.index.tolist() == ["hit3_start", "joint3"]
    assert (table["value"] == table["constant"]).all()  # the constant is fitted on just these windows
    assert (table["baseline"] >= table[["constant", "ATR rule"]].max(axis=1)).all()


def test_without_trained_windows_baselines_are_cross_fitted_and_on_one_day_there_are_none(gather, market, halves):
    _, _, test = halves
    guess = Prediction(start=np.full(len(test), 50), end=np.full(len(test), 58))
    table = score_new_windows(test, guess, None, gather, market.bars.frame, n_bootstrap=50)
    assert table["baseline"].notna().all()
    rows = test.day == test.day[0]
    alone = score_new_windows(test.take(rows), guess.take(rows), None, gather, market.bars.frame, n_bootstrap=50)
    assert alone["best_baseline"].isna().all() and alone["low"].isna().all()
    assert (alone["verdict"] == "INCONCLUSIVE").all()


def test_only_windows_of_the_same_bars_are_shared(make_windows):
    before = make_windows([[(40, 49)]] * 4, [0] * 4)
    now = make_windows([[(40, 49)]] * 3, [0] * 3, places=[0, 2000, 4001])
    assert [rows.tolist() for rows in shared_rows(before, now)] == [[0, 1], [0, 1]]


def test_a_label_moved_to_the_answer_raises_its_figures(make_windows):
    before = make_windows([[(40, 49)]] * 6, [0, 1] * 3, days=[0, 0, 1, 1, 2, 2])
    now = make_windows([[(40, 49)]] * 3 + [[(60, 69)]] * 3, [0, 1] * 3, days=[0, 0, 1, 1, 2, 2])
    answer = Prediction(
        start=np.full(6, 60),
        end=np.full(6, 69),
        is_inside=np.tile((np.arange(105) >= 60) & (np.arange(105) < 70), (6, 1)),
    )
    table = rescore(before, now, answer, n_bootstrap=100).set_index("metric")
    assert table.loc["joint3", ["as_were", "as_now", "difference"]].tolist() == [0, 0.5, 0.5]
    assert table.loc["inside_f1", "as_now"] == pytest.approx(0.5)
    assert 0 <= table.loc["joint3", "difference_low"] < 0.5 < table.loc["joint3", "difference_high"] <= 1
    same = rescore(before, before, answer, n_bootstrap=100)
    assert (same[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert set(same["metric"]) < set(FIGURES)


def test_a_single_day_has_no_interval_and_other_windows_are_an_error(make_windows):
    one = make_windows([[(40, 49)]] * 2, [0, 1], days=[0, 0])
    answer = Prediction(start=np.full(2, 40), end=np.full(2, 49))
    assert rescore(one, one, answer, n_bootstrap=10)[["as_now_low", "difference_high"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="other windows"):
        rescore(one, make_windows([[(40, 49)]] * 2, [0, 1], days=[0, 0], places=[1, 2000]), answer)
