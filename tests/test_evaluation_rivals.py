"""The baselines beside a model: each is called alike, knows its training windows only, and finds what it can see."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import ruptures.metrics

from moola_lib.errors import UserError
from moola_lib.evaluation.baselines import BASELINES, answer_baseline, constant_baseline
from moola_lib.evaluation.decisions import attainable_skill, best_span
from moola_lib.evaluation.inputs import bare_study, collect_inputs
from moola_lib.evaluation.likelihoods import bare_log_likelihoods
from moola_lib.evaluation.metrics import Prediction, metric_functions
from moola_lib.evaluation.oracle import posterior
from moola_lib.evaluation.posteriors import best_end_of
from moola_lib.evaluation.spans import STARTS, answer_spans, span_posterior
from moola_lib.market import REFERENCE, simulate_windows

N_TRAIN = 60
LOUD = replace(REFERENCE, strength=3.0)


@pytest.fixture(scope="module")
def bare():
    """Windows of the bare law whose expansions are easy to see: (train, test, inputs)."""
    windows, inputs = bare_study(simulate_windows(260, seed=3, law=LOUD))
    return windows.take(slice(0, N_TRAIN)), windows.take(slice(N_TRAIN, None)), inputs


@pytest.fixture(scope="module")
def bars(market, gather, labelled):
    """Simulated bars: (train, test, inputs)."""
    return (
        labelled.take(slice(0, 24)),
        labelled.take(slice(24, 36)),
        collect_inputs(labelled, gather, market.bars.frame),
    )


def figure(name, windows, answer):
    return float(metric_functions(windows, answer)[name](np.ones((1, len(windows))))[0])


def with_other_labels(windows, seed=1):
    rng = np.random.default_rng(seed)
    start = rng.integers(30, 70, len(windows))
    spans = np.stack([start, start + 9], axis=1)[:, None]
    return replace(windows, start=start, end=start + 9, spans=spans, state=rng.integers(0, 2, len(windows)))


def same(one, two, atol=0.0):
    return all(
        np.allclose(one_value, two_value, rtol=0, atol=atol) if one_value is not None else two_value is None
        for one_value, two_value in ((getattr(one, name), getattr(two, name)) for name in vars(one))
    )


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_answers_alike_and_knows_its_training_windows_only(name, bars):
    train, test, inputs = bars
    answer = answer_baseline(name, train, test, inputs)
    assert isinstance(answer, Prediction)
    assert all(
        len(value) == len(test) and np.isfinite(value).all() for value in vars(answer).values() if value is not None
    )
    if answer.start is not None:
        assert (answer.start >= 30).all() and (answer.start <= 74).all() and (answer.end >= answer.start).all()
        assert (answer.end <= 104).all()
    assert same(answer, answer_baseline(name, train, with_other_labels(test), inputs))
    others = [answer_baseline(name, with_other_labels(train, seed), test, inputs) for seed in range(3)]
    assert not all(same(answer, other) for other in others)


@pytest.mark.parametrize("name", BASELINES)
def test_equal_inputs_give_equal_answers_whatever_windows_stand_beside(name, bars):
    train, test, inputs = bars
    alone = answer_baseline(name, train, test.take(slice(0, 1)), inputs)
    assert same(alone, answer_baseline(name, train, test, inputs).take(slice(0, 1)), atol=1e-9)  # sums are rounded


def test_an_unknown_baseline_is_named(bars):
    with pytest.raises(UserError, match="baseline 'luck' is not known; choose one of constant"):
        answer_baseline("luck", *bars)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("ATR rule", 0.35),
        ("change points", 0.65),
        ("linear segments", 0.9),
        ("logistic regression", 0.9),
        ("gradient boosting", 0.85),
    ],
)
def test_on_loud_expansions_whoever_looks_at_bars_finds_starts(name, least, bare):
    assert figure("hit3_start", bare[1], answer_baseline(name, *bare)) > least


@pytest.mark.parametrize("name", ["linear segments", "logistic regression", "gradient boosting"])
def test_learned_baselines_find_ends_and_bars_inside_too(name, bare):
    answer = answer_baseline(name, *bare)
    assert figure("joint3", bare[1], answer) > 0.75
    assert figure("inside_f1", bare[1], answer) > 0.85
    assert figure("countdown_mae", bare[1], answer) < 1


@pytest.mark.parametrize(
    "name", ["ATR rule", "change points", "linear segments", "logistic regression", "gradient boosting"]
)
def test_without_expansions_no_baseline_beats_the_constant(name):
    windows, inputs = bare_study(simulate_windows(560, seed=4, law=replace(REFERENCE, strength=1.0)))
    train, test = windows.take(slice(0, N_TRAIN)), windows.take(slice(N_TRAIN, None))
    assert figure("hit3_start", test, answer_baseline(name, train, test, inputs)) == pytest.approx(7 / 45, abs=0.05)


def test_position_answers_where_training_starts_crowd(make_windows):
    train = make_windows([[(s, s + 5)] for s in (33, 60, 61, 62, 63, 74)], np.zeros(6, int))
    answer = answer_baseline("position only", train, train.take(slice(0, 2)), None)
    assert answer.start.tolist() == [61, 61] or answer.start.tolist() == [62, 62]
    assert (answer.end - answer.start).tolist() == [5, 5]


@pytest.mark.parametrize("leak", ["the bar", "the clock"])
def test_a_clock_that_gives_the_start_away_is_found(leak, bars, make_windows):
    n = 60
    rng = np.random.default_rng(1)
    minute = rng.permutation(np.arange(n) * 2 % 44 + 500)
    start = 30 + minute % 40 if leak == "the bar" else 575 - minute
    windows = make_windows([[(s, s + 5)] for s in start], np.zeros(n, int), places=np.arange(n) * 200)
    inputs = replace(bars[2].take(np.zeros(n, int)), place=windows.place, minute=minute)
    train, test = windows.take(slice(0, 40)), windows.take(slice(40, n))
    assert figure("hit3_start", test, answer_baseline("timestamp only", train, test, inputs)) > 0.8
    blind = replace(inputs, minute=rng.permutation(minute))
    assert figure("hit3_start", test, answer_baseline("timestamp only", train, test, blind)) < 0.5


def test_windows_without_stamps_have_no_timestamp_baseline(bare):
    with pytest.raises(UserError, match="these windows have no stamps"):
        answer_baseline("timestamp only", *bare)


@pytest.mark.parametrize("name", ["position only", "ATR rule", "change points", "logistic regression"])
def test_training_windows_without_an_expansion_are_refused_in_a_sentence(name, bare, make_windows):
    train = make_windows([[], []], [2, 2], places=[0, 105])
    with pytest.raises(UserError, match="none of the 2 training windows holds an expansion"):
        answer_baseline(name, train, bare[1], bare[2])


def test_the_tolerance_of_ruptures_is_strict():
    """Its margin is `<`: for ±3 bars it must be given 4."""
    truth, answer = [50, 105], [53, 105]
    assert ruptures.metrics.precision_recall(truth, answer, margin=3) == (0, 0)
    assert ruptures.metrics.precision_recall(truth, answer, margin=4) == (1, 1)


def test_change_points_agree_with_ruptures_own_scoring(bare):
    train, test, inputs = bare
    answer = answer_baseline("change points", train, test, inputs)
    recalls = [
        ruptures.metrics.precision_recall([int(true), 105], [int(start), 105], margin=4)[1]
        for true, start in zip(test.start, answer.start, strict=True)
    ]
    assert np.mean(recalls) == figure("hit3_start", test, answer)


def test_a_span_posterior_is_the_softmax_over_spans_that_start_in_the_inner_part():
    start, end, length = np.zeros((1, len(STARTS))), np.zeros((1, 105)), np.full(105, -np.inf)
    length[4] = 0.0  # five bars
    start[0, 10], start[0, 11] = 2.0, 1.0
    known = span_posterior(start, end, length)
    weights = np.exp(start[0])
    assert known.span.sum() == pytest.approx(1)
    np.testing.assert_allclose(known.span[0, np.arange(45), STARTS + 4], weights / weights.sum())
    answer = answer_spans(known, 0.5)
    assert abs(answer.start[0] - 40) <= 3 and answer.end[0] == answer.start[0] + 4


def test_inputs_are_found_by_place_and_missing_ones_are_an_error(bars):
    train, test, inputs = bars
    rows = [3, 0, 2]
    assert np.array_equal(inputs.of(train.take(rows)).x, inputs.x[rows])
    with pytest.raises(ValueError, match="no inputs"):
        inputs.of(replace(test, place=test.place + 1))


def test_moves_come_from_the_bars_of_the_window_alone(bars, market, gather):
    train, _, inputs = bars
    frame = market.bars.frame.copy()
    place = int(train.place[5])
    frame.iloc[:place, :4] *= 3
    again = collect_inputs(train.take([5]), gather, frame)
    assert np.array_equal(again.log_return, inputs.log_return[[5]])
    assert np.array_equal(again.log_range, inputs.log_range[[5]])
    close = market.bars.frame["close"].to_numpy()
    assert inputs.log_return[5, 7] == pytest.approx(np.log(close[place + 7] / close[place + 6]))


def test_moves_come_from_the_columns_that_name_them(bare):
    _, test, inputs = bare

    class Gathered:
        names = ("log_return", "log_range")

        def __call__(self, places):
            import torch

            part = inputs.take(np.searchsorted(inputs.place, places.numpy()))
            return torch.from_numpy(part.x), torch.from_numpy(part.is_valid)

    found = collect_inputs(test, Gathered())
    np.testing.assert_allclose(found.log_range, inputs.of(test).log_range, atol=1e-6)
    Gathered.names = ("a", "b")
    with pytest.raises(UserError, match="need the bars, or the columns log_return and log_range"):
        collect_inputs(test, Gathered())


def test_flat_bars_are_finite_everywhere(tools):
    from moola_lib.evaluation.hand_features import bar_features, state_features

    frame = pd.DataFrame(
        {name: 100.0 for name in ("open", "high", "low", "close")}, index=tools.minutes("2024-03-05 18:00", 105)
    )

    class Gathered:
        names = ()

        def __call__(self, places):
            import torch

            return torch.zeros(len(places), 105, 0), torch.ones(len(places), 105, dtype=torch.bool)

    class Places:
        place = np.array([0])

    inputs = collect_inputs(Places, Gathered(), frame)
    assert np.isfinite(bar_features(inputs)).all()
    assert np.isfinite(state_features(inputs, np.array([50]))).all()


def test_given_the_best_spans_start_the_best_end_is_the_best_spans():
    rng = np.random.default_rng(1)
    known = span_posterior(rng.normal(size=(50, 45)), rng.normal(size=(50, 105)), rng.normal(size=105))
    start, end = best_span(known)
    assert np.array_equal(best_end_of(known.span, start, 3, first_start=30), end)


@pytest.mark.slow
@pytest.mark.parametrize(("strength", "least"), [(1.5, 0.9), (2.0, 0.94)])
def test_logistic_regression_comes_near_what_can_be_attained(strength, least):
    law = replace(REFERENCE, strength=strength)
    simulated = simulate_windows(2139, seed=77, law=law)
    windows, inputs = bare_study(simulated)
    train, test = windows.take(slice(0, 139)), windows.take(slice(139, None))
    known = posterior(bare_log_likelihoods(simulated.log_return[139:], simulated.log_range[139:], law))
    levels = [
        figure("hit3_start", test, answer)
        for answer in (
            answer_baseline("logistic regression", train, test, inputs),
            constant_baseline(train, test),
            answer_spans(known, 0.5),
        )
    ]
    assert attainable_skill(*levels) > least
