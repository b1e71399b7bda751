"""Skill studies: nothing is shared between training and test, the oracle is the top and the constant the bottom."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from moola_lib.evaluation.baselines import answer_baseline
from moola_lib.evaluation.metrics import metric_functions
from moola_lib.evaluation.segment_baselines import answer_posterior, fit_segments
from moola_lib.evaluation.skill import (
    BASELINES_OF_RECORD,
    LINEAR,
    answer_study,
    best_rival,
    compare_answers,
    skill_frame,
    skill_table,
    study_bare_law,
    study_bars,
)
from moola_lib.evaluation.skill_methods import (
    MIRRORED,
    answer_by_encoder,
    answer_by_scores,
    attain_bare_law,
    baselines,
    lay_out,
    mean_posterior,
)
from moola_lib.market import NQ_LIKE

N_LABELS = 40
QUICK = baselines(("constant", LINEAR, "logistic regression"))


@pytest.fixture(scope="module")
def study():
    """Loud expansions of the bare law: two training sets, 200 test windows."""
    return study_bare_law(3.0, n_labels=N_LABELS, n_test=200, n_draws=2, seed=21)


@pytest.fixture(scope="module")
def answers(study):
    """Answers of three baselines and of our linear scores."""
    return answer_study(study, [*QUICK, partial(answer_by_scores, penalty=MIRRORED)])


@pytest.mark.parametrize("draw", [study_bare_law, study_bars])
def test_no_two_sets_share_a_window_and_the_oracle_speaks_of_the_test_windows(draw):
    drawn = draw(3.0, n_labels=20, n_test=24, n_draws=2, seed=22)
    places = np.concatenate([part.place for part in (*drawn.draws, drawn.test)])
    assert len(np.unique(places)) == len(places) and [len(part) for part in drawn.draws] == [20, 20]
    assert np.diff(np.sort(places)).min() >= 105
    assert not set(drawn.test.day) & {day for part in drawn.draws for day in part.day}
    assert len(drawn.known) == len(drawn.test) >= 24
    inside = drawn.known.span[np.arange(len(drawn.test)), drawn.test.start - 30, drawn.test.end]
    assert np.median(inside) > 10 * np.median(drawn.known.span)
    again = draw(3.0, n_labels=20, n_test=24, n_draws=2, seed=22)
    assert np.array_equal(again.inputs.x, drawn.inputs.x) and np.array_equal(again.known.span, drawn.known.span)


def test_the_oracle_attains_all_and_the_constant_nothing(study, answers):
    frame = skill_frame(study, answers, n_bootstrap=100)
    assert frame.loc[["oracle", "constant"], "skill"].tolist() == pytest.approx([1, 0])
    learned = frame.loc[[LINEAR, "logistic regression", "linear scores"]]
    assert (learned["skill"] > 0.85).all() and (learned["joint"] > 0.75).all()
    for figure in ("start", "joint", "skill"):
        inner = frame.drop(["oracle", "constant"])
        assert (inner[f"{figure}_low"] <= inner[figure]).all() and (inner[figure] <= inner[f"{figure}_high"]).all()
    assert frame.loc[LINEAR, "n_draws"] == 2 and frame.loc["oracle", "n_draws"] == 1


def test_a_figure_is_the_mean_over_training_sets_and_its_spread_is_theirs(study, answers):
    row = skill_frame(study, answers, n_bootstrap=50).loc[LINEAR]
    shares = answers[LINEAR]["start"].mean(axis=1)
    assert row["start"] == pytest.approx(shares.mean())
    assert row["start_spread"] == pytest.approx(shares.std(ddof=1))


def test_the_table_shows_figures_with_half_their_interval_and_their_spread(study, answers):
    frame = skill_frame(study, answers, n_bootstrap=50)
    table = skill_table(frame)
    assert list(table.columns) == ["start within 3", "both within 3", "attainable skill"]
    row = frame.loc[LINEAR]
    half = (row["joint_high"] - row["joint_low"]) / 2
    assert table.loc[LINEAR, "both within 3"] == f"{row['joint']:.3f} ± {half:.3f}, {row['joint_spread']:.3f}"
    assert "," not in table.loc["oracle", "both within 3"]
    assert skill_table(frame.assign(skill=np.nan)).loc[LINEAR, "attainable skill"] == "–"


def test_methods_are_compared_on_the_same_windows_and_training_sets(study, answers):
    own = compare_answers(study, answers, LINEAR, LINEAR)
    by_draw = own.pop("by_draw")
    assert own == {"difference": 0, "low": 0, "high": 0, "verdict": "INCONCLUSIVE"} and not by_draw.any()
    gain = compare_answers(study, answers, LINEAR, "constant", n_bootstrap=100)
    loss = compare_answers(study, answers, "constant", LINEAR, n_bootstrap=100)
    assert (gain["verdict"], loss["verdict"]) == ("BETTER", "WORSE") and (gain["by_draw"] > 0).all()
    assert gain["difference"] == pytest.approx(-loss["difference"])
    first = answers | {"once": {figure: hits[:1] for figure, hits in answers[LINEAR].items()}}
    assert compare_answers(study, first, "once", LINEAR)["difference"] == 0
    assert best_rival(answers) == "logistic regression"


def test_the_baseline_answers_as_its_posterior_says(study):
    train = study.draws[0]
    answer = answer_baseline(LINEAR, train, study.test, study.inputs)
    found = metric_functions(study.test, answer)
    one = np.ones((1, len(study.test)))
    assert found["joint3"](one)[0] > 0.8 and found["inside_f1"](one)[0] > 0.9
    assert np.allclose(fit_segments(train, study.inputs)(study.test).inside, answer.inside_probability)


def test_labels_that_start_outside_the_inner_part_are_left_out_of_the_linear_fit(study):
    train = study.draws[0]
    spans = train.spans.copy()
    spans[:3, 0] = 10, 20
    changed = replace(train, start=spans[:, 0, 0], end=spans[:, 0, 1], spans=spans)
    rest = fit_segments(train.take(slice(3, None)), study.inputs)(study.test)
    assert np.array_equal(fit_segments(changed, study.inputs)(study.test).span, rest.span)


def test_without_an_epoch_the_localiser_answers_its_linear_scores(study):
    (name, scores), *_ = answer_by_scores(study, study.draws[0], penalty=MIRRORED)
    (other, untrained), *_ = answer_by_encoder(study, study.draws[0], penalty=MIRRORED, n_epochs=0)
    assert (name, other) == ("linear scores", "with encoder")
    np.testing.assert_allclose(untrained.span, scores.span, atol=1e-5)


def test_an_ensemble_is_the_mean_of_its_members(study):
    found = dict(answer_by_encoder(study, study.draws[0], penalty=MIRRORED, n_epochs=1, seeds=(1, 2)))
    (_, second), *_ = answer_by_encoder(study, study.draws[0], penalty=MIRRORED, n_epochs=1, seeds=(2,))
    members = [found["with encoder"], second]
    assert not np.array_equal(members[0].span, members[1].span)
    np.testing.assert_array_equal(found["ensemble of 2"].span, mean_posterior(members).span)
    np.testing.assert_allclose(found["ensemble of 2"].span.sum(axis=(1, 2)), 1, atol=1e-5)


def test_windows_laid_end_to_end_are_the_same_windows(study):
    import torch

    chosen = study.draws[0].take(slice(5, 9))
    gather, moved = lay_out(study.inputs, chosen)
    assert np.array_equal(gather(torch.as_tensor(moved.place))[0].numpy(), study.inputs.of(chosen).x)


def test_states_are_scored_where_there_are_any():
    bars = study_bars(3.0, n_labels=N_LABELS, n_test=40, seed=23)
    found = answer_study(bars, [*QUICK, answer_by_scores])
    assert "state" in found["oracle"] and "state" in found["linear scores"] and "state" not in found["constant"]
    null = study_bars(1.0, 0.0, law=replace(NQ_LIKE, has_states=False), n_labels=N_LABELS, n_test=40, seed=23)
    assert "state" not in answer_study(null, [answer_by_scores])["linear scores"]


def test_a_notebooks_table_has_the_baselines_and_ours_beside_the_oracle():
    frame = attain_bare_law(3.0, n_labels=30, n_test=60, n_bootstrap=50)
    assert list(frame.index) == ["oracle", "constant", LINEAR, "logistic regression", "linear scores"]
    assert np.isfinite(frame[["start", "start_low", "joint_high", "skill"]]).all(axis=None)


@pytest.mark.slow
def test_on_a_null_market_no_method_is_better_than_the_constant():
    null = study_bars(1.0, 0.0, law=replace(NQ_LIKE, has_states=False), n_test=1600, n_draws=2, seed=24)
    methods = [*baselines(BASELINES_OF_RECORD), answer_by_scores, partial(answer_by_encoder, n_epochs=4)]
    answers = answer_study(null, methods)
    for name in set(answers) - {"oracle", "constant"}:
        for figure in ("start", "joint"):
            assert compare_answers(null, answers, name, "constant", figure)["verdict"] != "BETTER", (name, figure)


def test_a_posterior_of_a_model_sums_to_one(study):
    from moola_lib.models.segments import LinearSegments

    known = answer_posterior(LinearSegments(2, start_range=(30, 74)), study.inputs.x[:5])
    np.testing.assert_allclose(known.span.sum(axis=(1, 2)), 1, atol=1e-5)
    assert known.state is None
