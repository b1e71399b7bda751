"""Distributions over (start, end): marginals and boxes by brute force, claims that are as often right as they say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_lib.errors import UserError
from moola_lib.evaluation import decisions, oracle
from moola_lib.evaluation.calibration import predict_from_span, reliability_table
from moola_lib.evaluation.cross_validation import FoldResult, assemble
from moola_lib.evaluation.decoding import decode_spans
from moola_lib.evaluation.metrics import Prediction, metric_functions
from moola_lib.evaluation.posteriors import (
    best_start_then_end,
    box_mass,
    central_interval,
    claimed_mass,
    end_marginal,
    full_span,
    start_marginal,
)
from moola_lib.evaluation.scores import compare_with_each
from moola_lib.market import REFERENCE
from moola_lib.windows import Fold


def random_span(seed, n=6, n_bars=105, share=1.0):
    """Distributions with start ≤ end, a few cells heavy; `share` of the mass, the rest for no expansion."""
    rng = np.random.default_rng(seed)
    mass = np.triu(rng.gamma(0.1, size=(n, n_bars, n_bars)))
    return (share * mass / mass.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


@given(st.integers(0, 1000), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_boxes_by_brute_force(seed, reach):
    mass = np.random.default_rng(seed).random((2, 9, 7))
    for axis in (1, 2):
        found = box_mass(mass, reach, axis=axis)
        for at in range(mass.shape[axis]):
            near = np.abs(np.arange(mass.shape[axis]) - at) <= reach
            np.testing.assert_allclose(found.take(at, axis), mass.compress(near, axis).sum(axis=axis))


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_start_has_the_heaviest_box_and_the_end_beside_it(seed):
    span = random_span(seed, n=2, n_bars=12)
    start, end = best_start_then_end(span, 1)
    for row in range(2):
        boxes = [span[row, max(s - 1, 0) : s + 2].sum() for s in range(12)]
        assert boxes[start[row]] == pytest.approx(max(boxes), rel=1e-5)
        near = span[row, max(start[row] - 1, 0) : start[row] + 2].sum(axis=0)
        boxes = [near[max(e - 1, 0) : e + 2].sum() for e in range(start[row], 12)]
        assert boxes[end[row] - start[row]] == pytest.approx(max(boxes), rel=1e-5)


def test_marginals_are_given_an_expansion():
    whole, part = random_span(1), random_span(1, share=0.3)
    for marginal in (start_marginal, end_marginal):
        np.testing.assert_allclose(marginal(whole).sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(marginal(part), marginal(whole), rtol=1e-5)
    assert (start_marginal(np.zeros((1, 5, 5))) == 0).all()


def test_the_segment_decoder_reads_the_posterior():
    span = random_span(2)
    assert np.array_equal(decode_spans({"span_probability": span}, "segment"), best_start_then_end(span, 3))
    with pytest.raises(UserError, match="decoder segment needs span_probability"):
        decode_spans({"centre": np.zeros(1)}, "segment")


def test_an_oracles_posterior_is_read_as_a_models():
    rng = np.random.default_rng(1)
    known = oracle.prior(REFERENCE, 4)
    span = known.span * rng.gamma(0.3, size=known.span.shape)
    known = oracle.Posterior(span / span.sum(axis=(1, 2), keepdims=True), None, known.starts, np.zeros(4))
    answer = predict_from_span(full_span(known))
    assert np.array_equal(answer.start, decisions.best_start(known))
    np.testing.assert_allclose(
        claimed_mass(answer.start_probability, answer.start, 3), decisions.hit_probability(known)
    )
    np.testing.assert_allclose(answer.start_probability, known.start, atol=1e-6)
    np.testing.assert_allclose(answer.inside_probability, known.inside, atol=1e-5)


def test_a_central_interval_by_hand():
    p = np.array([[0.05, 0.05, 0.1, 0.6, 0.1, 0.1], [0, 0, 1.0, 0, 0, 0], [0.5, 0, 0, 0, 0, 0.5]])
    first, last = central_interval(p, 0.8)
    assert first.tolist() == [2, 2, 0] and last.tolist() == [4, 2, 5]


@given(st.integers(0, 1000), st.floats(0.1, 0.99))
@settings(max_examples=30, deadline=None)
def test_a_central_interval_holds_its_mass_and_no_bar_too_many(seed, mass):
    p = start_marginal(random_span(seed, n=3))
    first, last = central_interval(p, mass)
    for row in range(3):
        assert p[row, first[row] : last[row] + 1].sum() >= mass - 1e-6
        assert p[row, : first[row]].sum() <= (1 - mass) / 2 + 1e-6
        assert p[row, last[row] + 1 :].sum() <= (1 - mass) / 2 + 1e-6


def drawn_windows(make_windows, p, seed=3):
    """Windows whose starts are drawn from the given distributions."""
    rng = np.random.default_rng(seed)
    start = [rng.choice(105, p=row) for row in p]
    return make_windows([[(int(s), 104)] for s in start], [0] * len(start))


def figures(windows, prediction):
    ones = np.ones((1, len(windows)))
    return {name: float(f(ones)[0]) for name, f in metric_functions(windows, prediction).items()}


def test_claims_by_hand(make_windows):
    windows = make_windows([[(40, 49)], [(50, 59)], [(60, 69)], []], [0, 0, 0, 2])
    p = np.zeros((4, 105))
    p[0, [38, 42, 60]] = 0.5, 0.3, 0.2  # claims .8, hit, interval 38 to 60
    p[1, [50, 80]] = 0.4, 0.6  # claims .6 at 80, missed, interval 50 to 80
    p[2, 30] = 1.0  # claims 1, missed, interval 30 alone
    p[3, 50] = 1.0
    found = figures(windows, Prediction(start=np.array([40, 80, 30, 50]), end=np.full(4, 90), start_probability=p))
    brier = (0.2**2 + 0.6**2 + 1) / 3
    assert found["start_brier"] == pytest.approx(brier)
    assert found["start_log_score"] == pytest.approx(-(math.log(0.8) + math.log(0.4) + math.log(1e-6)) / 3)
    assert found["start_brier_skill"] == pytest.approx(1 - brier / (1 / 3 * 2 / 3))
    assert found["start_coverage"] == pytest.approx(2 / 3)
    assert found["start_width"] == pytest.approx((23 + 31 + 1) / 3)


def test_a_posterior_that_is_right_claims_what_it_hits(make_windows):
    span = random_span(7, n=1500)
    answer = predict_from_span(span)
    p = answer.start_probability / answer.start_probability.sum(axis=1, keepdims=True)
    windows = drawn_windows(make_windows, p)
    table = reliability_table(windows, answer, n_bins=4)
    assert table["n"].sum() == 1500 and (table["claimed"].diff().dropna() > 0).all()
    assert (np.abs(table["claimed"] - table["realised"]) < 0.06).all()
    assert ((table["low"] < table["realised"]) & (table["realised"] < table["high"])).all()
    found = figures(windows, answer)
    assert found["start_coverage"] > 0.78  # whole bars hold a little more than 80%
    assert found["start_brier_skill"] > 0
    flat = Prediction(start=answer.start, end=answer.end, start_probability=np.full((1500, 105), 1 / 105))
    assert figures(windows, flat)["start_brier"] > found["start_brier"]
    assert figures(windows, flat)["start_log_score"] > found["start_log_score"]


def test_a_claim_too_bold_is_seen_in_its_table(make_windows):
    p = start_marginal(random_span(7, n=600))
    windows = drawn_windows(make_windows, p / p.sum(axis=1, keepdims=True))
    bold = p**4 / (p**4).sum(axis=1, keepdims=True)
    start = box_mass(bold, 3).argmax(axis=1)
    table = reliability_table(windows, Prediction(start=start, end=start, start_probability=bold), n_bins=3)
    assert (table["claimed"] > table["high"]).all()


def test_each_baseline_is_compared_and_the_tests_adjusted(make_windows):
    starts = np.arange(30, 70)
    windows = make_windows([[(s, s + 9)] for s in starts], np.arange(40) % 2, days=np.arange(40) // 2)
    near = np.where(np.arange(40) % 8 == 0, 20, 0)

    def at(offset):
        return Prediction(start=windows.start + offset, end=windows.end + offset)

    table = compare_with_each(windows, at(0), {"far": at(20), "near": at(near), "same": at(0)}, n_bootstrap=999)
    rows = table[table["metric"] == "hit3_start"].set_index("baseline")
    assert rows["verdict"].to_dict() == {"far": "BETTER", "near": "BETTER", "same": "INCONCLUSIVE"}
    assert rows["p_holm"]["far"] == pytest.approx(3 * rows["p"]["far"])
    assert rows["p"]["far"] == pytest.approx(2 / 1000)
    back = compare_with_each(windows, at(20), {"near": at(0)}, n_bootstrap=999)
    assert set(back[back["metric"] == "centre_mae"]["verdict"]) == {"WORSE"}
    assert compare_with_each(windows, at(0), {}).empty


def test_folds_of_a_segment_model_are_assembled_with_its_posterior(make_windows):
    span = random_span(4, n=6)
    windows = make_windows([[(40, 49)]] * 6, [0, 1] * 3)
    folds = [Fold(np.arange(3, 6), np.arange(3), 0), Fold(np.arange(3), np.arange(3, 6), 0)]
    results = [FoldResult([], {"span_probability": span[fold.test]}, 0.5, None, {}) for fold in folds]
    answer, outputs = assemble(results, folds, len(windows), decoder="segment")
    whole = predict_from_span(span)
    assert np.array_equal(answer.start, whole.start) and np.array_equal(answer.end, whole.end)
    np.testing.assert_array_equal(answer.start_probability, whole.start_probability)
    np.testing.assert_array_equal(outputs["span_probability"], span)
    assert answer.inside_probability is None  # the model did not give it
