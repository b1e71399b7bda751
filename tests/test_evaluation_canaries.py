"""Each canary sings for the leak it is there for, and stays silent for a method that reads its bars honestly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from moola_lib.evaluation.baselines import answer_baseline, constant_baseline
from moola_lib.evaluation.canaries import (
    DISTURBANCES,
    canary_table,
    cross_fit_canaries,
    disturb,
    future_canary,
    mirrored_share,
)
from moola_lib.evaluation.causal import CausalScores, causal_scores
from moola_lib.evaluation.inputs import bare_study
from moola_lib.evaluation.spans import answer_points
from moola_lib.market import REFERENCE, simulate_windows
from moola_lib.windows import grouped_folds

LOUD = replace(REFERENCE, strength=3.0)


@pytest.fixture(scope="module")
def study():
    """Two hundred loud windows: (windows, folds, inputs)."""
    windows, inputs = bare_study(simulate_windows(200, seed=3, law=LOUD))
    return windows, grouped_folds(windows.place, windows.day, n_folds=2, purge_bars=0), inputs


def leaks(baseline, study):
    """Names of the canaries that sing."""
    windows, folds, inputs = study
    tested, answers = cross_fit_canaries(baseline, windows, folds, inputs)
    _, constant = cross_fit_canaries(lambda train, test, _: constant_baseline(train, test), windows, folds, inputs)
    table = canary_table(tested, answers, constant["as they are"], n_bootstrap=200).set_index("canary")
    return set(table.index[table["is_leak"]])


def span_from(start):
    return answer_points(start, np.minimum(start + 9, 104))


@pytest.mark.parametrize("name", ["logistic regression", "change points", "ATR rule"])
def test_an_honest_method_sings_only_where_it_may(name, study):
    assert leaks(lambda *given: answer_baseline(name, *given), study) == {"as they are"}


def test_the_constant_never_sings(study):
    assert leaks(lambda train, test, _: constant_baseline(train, test), study) == set()


def test_a_method_that_looks_the_answer_up_sings_everywhere(study):
    assert leaks(lambda train, test, _: span_from(test.start), study) == {"as they are", *DISTURBANCES}


def with_column(study, column):
    windows, folds, inputs = study
    x = np.concatenate([inputs.x, column.astype(np.float32)[..., None]], axis=2)
    return windows, folds, replace(inputs, x=x, names=(*inputs.names, "extra"))


def test_a_column_that_holds_the_answer_in_every_bar_is_found_by_moving_the_bars(study):
    planted = with_column(study, np.tile(study[0].start[:, None], 105))
    found = leaks(lambda train, test, inputs: span_from(inputs.of(test).x[:, 50, -1].astype(int)), planted)
    assert found == {"as they are", "bars reversed", "bars shuffled"}


def test_validity_that_gives_the_answer_away_is_found_by_blanking(study):
    windows, folds, inputs = study
    is_valid = np.arange(105) >= windows.start[:, None]
    found = leaks(
        lambda train, test, shown: span_from(shown.of(test).is_valid.argmax(axis=1)),
        (windows, folds, replace(inputs, is_valid=is_valid)),
    )
    assert found == {"as they are", "bars blanked"}


def test_the_index_stays_where_it_is_when_bars_move(study):
    windows, _, inputs = study
    inputs = replace(inputs, x=np.tile(np.arange(105, dtype=np.float32)[:, None], (200, 1, 1)), names=("position",))
    for name in DISTURBANCES:
        assert np.array_equal(disturb(inputs, windows, name).x, inputs.x), name


@pytest.mark.parametrize("name", DISTURBANCES)
def test_only_the_windows_meant_are_disturbed(name, study):
    windows, _, inputs = study
    before = inputs.x.copy()
    changed = disturb(inputs, windows.take(slice(50, 60)), name)
    is_same = (changed.x == inputs.x).all(axis=(1, 2))
    assert np.flatnonzero(~is_same).tolist() == list(range(50, 60))
    assert np.array_equal(inputs.x, before)


def test_bars_reversed_twice_are_as_they_were(study):
    windows, _, inputs = study
    again = disturb(disturb(inputs, windows, "bars reversed"), windows, "bars reversed")
    assert all(np.array_equal(getattr(again, name), getattr(inputs, name)) for name in ("x", "log_return", "log_range"))


def test_shuffled_bars_are_the_same_bars_and_moves_stay_with_them(study):
    windows, _, inputs = study
    mixed = disturb(inputs, windows, "bars shuffled")
    np.testing.assert_array_equal(np.sort(mixed.x, axis=1), np.sort(inputs.x, axis=1))
    np.testing.assert_allclose(mixed.x[..., 0], mixed.log_return, atol=1e-6)
    assert np.array_equal(mixed.x, disturb(inputs, windows, "bars shuffled").x)


def test_position_sings_where_starts_crowd_and_the_constant_misses(make_windows):
    start = np.where(np.arange(80) % 2, 35, 70)
    windows = make_windows([[(s, s + 5)] for s in start], np.zeros(80, int))
    answers = {"position only": answer_baseline("position only", windows, windows, None)}
    table = canary_table(windows, answers, constant_baseline(windows, windows), n_bootstrap=200)
    assert table["is_leak"].tolist() == [True]


def test_a_mirror_image_is_answered_by_the_mirror_image():
    start, end = np.array([40, 49, 60]), np.array([45, 55, 70])
    assert mirrored_share(answer_points(start, end), answer_points(104 - end, 104 - start)) == 1
    assert mirrored_share(answer_points(start, end), answer_points(start, end)) == pytest.approx(1 / 3)


def whole_window(x):
    level = x.mean(dim=(1, 2))[:, None].expand(-1, x.shape[1])
    return {"inside_probability": level.sigmoid()}


def test_causal_scores_do_not_know_the_future(study):
    table = future_canary(lambda x: causal_scores(whole_window, x, stride=5), study[2].x[:20])
    assert not table["is_leak"].any() and (table["value"] == 0).all()


@pytest.mark.parametrize("leak", ["not cut", "cut a bar late", "scaled by the window"])
def test_scores_that_know_the_future_are_found(leak, study):
    def score(x):
        x = torch.as_tensor(np.asarray(x))
        if leak == "not cut":
            inside = whole_window(x)["inside_probability"].numpy().astype(np.float64)
            return CausalScores(inside, inside)
        if leak == "scaled by the window":
            return causal_scores(whole_window, x / x.std(dim=1, keepdim=True), stride=5)
        shifted = torch.cat([x[:, 1:], x[:, -1:]], dim=1)
        return causal_scores(whole_window, shifted)

    assert future_canary(score, study[2].x[:20])["is_leak"].all()
