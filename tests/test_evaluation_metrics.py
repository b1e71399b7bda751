"""Metrics worked by hand, intervals over whole days, and decoding."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_lib.evaluation.intervals import corrected_interval, day_block_weights, interval
from moola_lib.evaluation.metrics import METRICS, Prediction, best_threshold, decode_spans, metric_functions
from moola_lib.evaluation.scores import (
    compare_over_folds,
    compare_predictions,
    describe_score,
    hit_curve,
    score_prediction,
)
from moola_lib.labels import expansion_targets
from moola_lib.windows import repeated_folds

BARS = np.arange(105)


@pytest.fixture
def windows(make_windows):
    """One expansion; two; none; one."""
    return make_windows([[(40, 49)], [(30, 35), (60, 69)], [], [(50, 59)]], [0, 1, 2, 1])


def between(first, last):
    return (first <= BARS) & (last >= BARS)


@pytest.fixture
def prediction(windows):
    countdown = np.clip(windows.start[:, None] - BARS, -20, 20).astype(float)
    countdown[1] = 0.0
    countdown[2] = 99.0
    return Prediction(
        start=np.array([42, 61, 0, 54]),
        end=np.array([49, 68, 5, 60]),
        countdown=countdown,
        is_inside=np.stack([between(42, 49), between(61, 68), between(10, 14), between(54, 60)]),
        type_probability=np.array([[0.8, 0.2], [0.3, 0.7], [0.5, 0.5], [0.6, 0.4]]),
    )


def perfect(windows):
    inside = (windows.spans[..., 0, None] <= BARS) & (windows.spans[..., 1, None] >= BARS)
    inside = (inside & (windows.spans[..., 0, None] >= 0)).any(axis=1)
    return Prediction(
        start=windows.start,
        end=windows.end,
        countdown=np.clip(windows.start[:, None] - BARS, -20, 20),
        inside_probability=inside.astype(float),
        is_inside=inside,
        type_probability=np.eye(3)[windows.state][:, :2],
        start_probability=np.eye(105)[windows.start],
    )


def figures(windows, prediction, **options):
    ones = np.ones((1, len(windows)))
    return {name: float(f(ones)[0]) for name, f in metric_functions(windows, prediction, **options).items()}


def test_every_figure_by_hand(windows, prediction):
    found = figures(windows, prediction)
    countdown = np.abs(np.clip(30 - BARS, -20, 20)).mean() / 3
    expected = {
        "hit3_start": 2 / 3,  # 2 bars off; on the second expansion; 4 bars off
        "hit3_end": 1.0,
        "joint3": 2 / 3,
        "joint3_type": 2 / 3,
        "hit_mean": (9 + 10 + 7) / 33,
        "onset_bias": (2 + 1 + 4) / 3,
        "tiou50": 1.0,  # 8 of 10 bars; 8 of 10 of the second expansion; 6 of 11
        "tiou75": 2 / 3,
        "centre_mae": (1 + 0 + 2.5) / 3,
        "length_mae": (2 + 2 + 3) / 3,
        "countdown_mae": countdown,
        "inside_f1": 2 * 22 / (28 + 36),
        "inside_precision": 22 / 28,
        "inside_recall": 22 / 36,
        "type_macro_f1": 2 / 3,
        "type_balanced_accuracy": 0.75,
        "type_min_recall": 0.5,
        "type_min_share": 1 / 3,
        "type_recall_consolidation": 1.0,
        "type_recall_retracement": 0.5,
        "type_share_consolidation": 2 / 3,
        "type_share_retracement": 1 / 3,
        "type_brier": (0.08 + 0.18 + 0.72) / 3,
        "type_log_score": -math.log(0.8 * 0.7 * 0.4) / 3,
    }
    assert found == pytest.approx(expected)


def test_a_perfect_prediction_scores_one_or_zero(windows):
    found = figures(windows, perfect(windows))
    assert set(found) == set(METRICS)
    for name, value in found.items():
        shares = {"type_min_share": 1 / 3, "type_share_consolidation": 1 / 3, "type_share_retracement": 2 / 3}
        shares |= {"start_coverage": 1, "start_width": 1, "onset_bias": 0}
        shares |= {"start_brier_skill": math.nan}  # every window hit: no rate to beat
        best = shares[name] if name in shares else float(METRICS[name].is_higher_better)
        assert value == pytest.approx(best, abs=1e-5, nan_ok=True), name


def test_a_hit_on_any_expansion_counts_but_no_mixture(windows):
    mixed = Prediction(start=np.array([0, 30, 0, 0]), end=np.array([9, 69, 9, 9]))
    found = figures(windows, mixed)
    assert found["hit3_start"] == found["hit3_end"] == pytest.approx(1 / 3)
    assert found["joint3"] == 0


def test_windows_without_expansion_are_left_out_of_spans_types_and_countdowns(windows, prediction):
    before = figures(windows, prediction)
    other = Prediction(
        start=np.where(windows.has_expansion, prediction.start, 90),
        end=np.where(windows.has_expansion, prediction.end, 99),
        countdown=np.where(windows.has_expansion[:, None], prediction.countdown, -7.0),
        type_probability=np.where(windows.has_expansion[:, None], prediction.type_probability, [0.0, 1.0]),
    )
    found = figures(windows, other)
    assert found == {name: before[name] for name in found}


def test_false_alarms_in_windows_without_expansion_cost_precision(windows, prediction):
    quiet = prediction.is_inside & windows.has_expansion[:, None]
    assert figures(windows, Prediction(is_inside=quiet))["inside_precision"] == pytest.approx(22 / 23)


def test_bars_that_are_not_valid_do_not_count(windows, prediction):
    is_valid = ~prediction.is_inside  # hides every claim
    found = figures(windows, prediction, is_valid=is_valid)
    assert math.isnan(found["inside_precision"])
    assert found["inside_recall"] == 0


def test_only_what_a_method_defines_is_scored(windows):
    assert set(figures(windows, Prediction(start=windows.start, end=windows.end))) == {
        "hit3_start", "hit3_end", "joint3", "hit_mean", "tiou50", "tiou75", "centre_mae", "length_mae", "onset_bias",
    }  # fmt: skip
    assert figures(windows, Prediction()) == {}


def average_precision(make_windows, scores, span):
    windows = make_windows([[span]], [0])
    p, is_valid = np.zeros((1, 105)), np.zeros((1, 105), bool)
    p[0, : len(scores)] = scores
    is_valid[0, : len(scores)] = True
    return figures(windows, Prediction(inside_probability=p), is_valid=is_valid)["inside_ap"]


def test_average_precision_is_sklearns(make_windows):
    # sklearn's own example: labels 0 0 1 1, scores .1 .4 .35 .8
    assert average_precision(make_windows, [0.1, 0.4, 0.35, 0.8], (2, 3)) == pytest.approx(0.8333333333)
    assert average_precision(make_windows, [0.1, 0.2, 0.35, 0.8], (2, 3)) == pytest.approx(1)
    assert average_precision(make_windows, [0.5] * 4, (2, 3)) == pytest.approx(0.5)  # ties are one step


def test_figures_of_weights_are_figures_of_repeated_windows(windows, prediction):
    rows = np.array([0, 0, 1, 3, 3, 3])
    weights = np.bincount(rows, minlength=4)[None].astype(float)
    repeated = Prediction(**{k: v[rows] for k, v in vars(prediction).items() if v is not None})
    direct = figures(windows.take(rows), repeated)
    for name, figure in metric_functions(windows, prediction).items():
        assert figure(weights)[0] == pytest.approx(direct[name]), name


def test_a_hit_curve_rises_to_its_headline(windows, prediction):
    curve = hit_curve(windows, prediction)
    assert curve["within_bars"].tolist() == list(range(11))
    assert (curve["start"].diff().dropna() >= 0).all() and (curve["start"] >= curve["both"]).all()
    assert curve["start"].tolist()[:5] == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    found = figures(windows, prediction)
    assert curve["both"][3] == pytest.approx(found["joint3"])
    assert curve["start"].mean() == pytest.approx(found["hit_mean"])
    for name in ("start", "end", "both"):
        assert ((curve[f"{name}_low"] <= curve[name]) & (curve[name] <= curve[f"{name}_high"])).all()


def test_scores_stand_beside_their_baselines(windows, prediction):
    rival = Prediction(start=windows.start + 2, end=windows.end + 5)
    table = score_prediction(windows, {"model": prediction, "rival": rival}, n_bootstrap=200)
    assert list(table.columns) == [
        "metric", "meaning", "unit", "value", "low", "high", "n", "rival", "best_baseline", "difference",
        "difference_low", "difference_high",
    ]  # fmt: skip
    row = table.set_index("metric").loc["hit3_start"]
    assert row["value"] == pytest.approx(2 / 3) and row["rival"] == 1 and row["n"] == 3
    assert row["difference"] == pytest.approx(-1 / 3) and row["best_baseline"] == "rival"
    assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    centre = table.set_index("metric").loc["centre_mae"]
    assert centre["difference"] == pytest.approx(3.5 - 3.5 / 3)  # positive would be better
    assert np.isnan(table.set_index("metric").loc["type_brier", "rival"])


def many_windows(make_windows):
    starts = np.arange(30, 70)
    return make_windows([[(s, s + 9)] for s in starts], np.arange(40) % 2, days=np.arange(40) // 4)


def test_a_comparison_names_the_better_method_or_none(make_windows):
    windows = many_windows(make_windows)
    bad = Prediction(start=np.full(40, 0), end=np.full(40, 3))
    good = Prediction(start=windows.start, end=windows.end)
    verdicts = {
        name: set(compare_predictions(windows, *pair, n_bootstrap=200)["verdict"])
        for name, pair in {"up": (good, bad), "down": (bad, good), "same": (good, good)}.items()
    }
    assert verdicts == {"up": {"BETTER"}, "down": {"WORSE"}, "same": {"INCONCLUSIVE"}}


def test_over_repeated_folds_the_interval_is_the_corrected_one(make_windows):
    windows = many_windows(make_windows)
    repeats = repeated_folds(windows.place, windows.day, n_folds=5, n_repeats=2)
    good = Prediction(start=windows.start, end=windows.end)
    near = np.where(np.arange(40) % 3 == 0, 9, 0)
    fair = Prediction(start=windows.start + near, end=windows.end + near)
    table = compare_over_folds(windows, [good] * 2, [fair] * 2, repeats).set_index("metric")
    differences = [np.mean(near[fold.test] > 3) for folds in repeats for fold in folds]
    train = np.mean([len(fold.train) for folds in repeats for fold in folds])
    mean, low, high = corrected_interval(differences, n_train=train, n_test=8)
    row = table.loc["hit3_start"]
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((mean, low, high))
    assert row["n_folds"] == 10 and row["verdict"] == "BETTER"
    back = compare_over_folds(windows, [fair] * 2, [good] * 2, repeats).set_index("metric")
    assert back.loc["centre_mae", "verdict"] == "WORSE"


def test_a_score_is_said_by_its_interval(make_windows):
    windows = many_windows(make_windows)
    good = Prediction(start=windows.start, end=windows.end)
    bad = Prediction(start=np.full(40, 0), end=np.full(40, 3))
    for method, rival, words in [(good, bad, "better than"), (bad, good, "worse than"), (good, good, "not distin")]:
        row = score_prediction(windows, {"m": method, "constant": rival}, n_bootstrap=200).iloc[0]
        assert words in describe_score(row) and "constant" in describe_score(row)


def test_bootstrap_weights_are_whole_days():
    days = np.array([3, 3, 1, 1, 1, 2])
    weights = day_block_weights(days, n_bootstrap=300, seed=1)
    assert weights.shape == (300, 6)
    for day in (1, 2, 3):
        block = weights[:, days == day]
        assert (block == block[:, :1]).all()
    assert (weights[:, [0, 2, 5]].sum(axis=1) == 3).all()  # as many days as there are
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.15)
    np.testing.assert_array_equal(weights, day_block_weights(days, n_bootstrap=300, seed=1))
    assert not np.array_equal(weights, day_block_weights(days, n_bootstrap=300, seed=2))


def test_windows_of_one_day_make_wider_intervals(make_windows):
    hits = np.repeat([0.0, 1.0], 20)
    widths = []
    for days in (np.arange(40), np.repeat(np.arange(4), 10)):
        low, high = interval(day_block_weights(days) @ hits / 40)
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_an_interval_is_the_central_95_percent():
    assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert interval(np.r_[np.nan, np.arange(101.0)]) == pytest.approx((2.5, 97.5))
    assert np.isnan(interval(np.full(5, np.nan))).all()


SPANS = st.tuples(st.integers(0, 104), st.integers(0, 104)).map(sorted).filter(lambda s: s[1] - s[0] < 60)


@given(st.lists(SPANS, min_size=1, max_size=4))
def test_every_decoder_reads_back_what_a_perfect_model_says(spans):
    start, end = np.array(spans).T
    targets = expansion_targets(start, end)
    outputs = {
        "inside_probability": 0.02 + 0.96 * targets.mask,
        "centre": targets.centre,
        "length": targets.length,
        "countdown": targets.countdown,
    }
    for decoder in ("inside", "pointers", "countdown"):
        assert np.array_equal(decode_spans(outputs, decoder), (start, end)), decoder


def test_the_inside_decoder_takes_the_heavier_of_two_runs():
    p = np.full((1, 105), 0.05)
    p[0, 20:23], p[0, 60:70], p[0, 65] = 0.95, 0.9, 0.4  # one doubtful bar does not cut a run
    assert np.array_equal(np.ravel(decode_spans({"inside_probability": p})), [60, 69])


@pytest.mark.parametrize(("outside", "inside"), [(0.02, 0.2), (0.6, 0.9)])
def test_the_inside_decoder_forgives_a_model_that_is_biased_as_a_whole(outside, inside):
    p = np.full((1, 105), outside)
    p[0, 40:52] = inside
    assert np.array_equal(np.ravel(decode_spans({"inside_probability": p})), [40, 51])


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_an_undecided_model_still_gives_a_span_inside_the_window(value):
    start, end = decode_spans({"inside_probability": np.full((2, 105), value)})
    assert ((start >= 0) & (start <= end) & (end < 105)).all()


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-20, 20))
def test_decoded_spans_lie_inside_the_window(centre, length, countdown):
    outputs = {
        "centre": np.array([centre]),
        "length": np.array([length]),
        "countdown": np.full((1, 105), countdown),
    }
    for decoder in ("pointers", "countdown"):
        start, end = decode_spans(outputs, decoder)
        assert 0 <= start[0] <= end[0] <= 104


def test_the_best_threshold_maximises_f1():
    rng = np.random.default_rng(1)
    p = np.round(rng.random((3, 105)), 1)
    truth = rng.random((3, 105)) < p / 2
    is_valid = rng.random((3, 105)) < 0.8
    y, q = truth[is_valid], p[is_valid]

    def f1(threshold):
        claimed = q >= threshold
        return 2 * (claimed & y).sum() / (claimed.sum() + y.sum())

    assert f1(best_threshold(p, truth, is_valid)) == max(f1(level) for level in np.unique(q))
