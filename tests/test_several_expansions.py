"""Several expansions of one window stay together: in placing, folds, targets, figures, audits, snapshots."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moola_lib.evaluation.annotators import pair_readings
from moola_lib.evaluation.causal import CausalScores, score_causal
from moola_lib.evaluation.metrics import Prediction, metric_functions
from moola_lib.evaluation.permutation import move_labels
from moola_lib.evaluation.scores import hit_curve
from moola_lib.labels import audit_labels, check_labels, expansion_targets
from moola_lib.labels.audit import list_flagged
from moola_lib.labels.snapshots import compare_labels, fingerprint_labels
from moola_lib.market import segment_starts
from moola_lib.windows import grouped_folds, place_labels

BARS = np.arange(105)


@st.composite
def span_lists(draw, most=3):
    """Expansions of one window that do not overlap, by their starts."""
    edges = sorted(draw(st.lists(st.integers(0, 104), min_size=2, max_size=2 * most, unique=True)))
    return [(edges[k], edges[k + 1]) for k in range(0, len(edges) - 1, 2)]


@pytest.fixture(scope="module")
def labelled_twice(market):
    """Twelve windows of one to three expansions, four of them labelled again under another id, rows shuffled."""
    frame, rng = market.bars.frame, np.random.default_rng(1)
    places = market.planted["window_start_ts"].iloc[:48:4]
    rows = []
    for number, stamp in enumerate(places):
        for again in range(1 + (number % 3 == 0)):
            starts = np.sort(rng.choice(np.arange(30, 75, 12), size=1 + number % 3, replace=False))
            for start in starts:
                label = str(rng.choice(["consolidation", "retracement"]))
                rows.append((f"w{number}" + "~2" * again, stamp, start, start + 5, label, f"a{again}"))
    columns = ["window_id", "window_start", "expansion_start", "expansion_end", "label", "annotator"]
    table = pd.DataFrame(rows, columns=columns).assign(symbol=frame["symbol"].iloc[0])
    return check_labels(table.sample(frac=1, random_state=2))


@pytest.fixture(scope="module")
def placed(labelled_twice, market):
    frame = market.bars.frame
    return place_labels(labelled_twice, frame, segment_starts(frame))[0]


def same(one, two):
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in vars(one))


def test_a_window_is_one_row_with_its_expansions_by_their_start(labelled_twice, placed):
    assert sorted(placed.window_id) == sorted(labelled_twice["window_id"].unique())
    for row, window_id in enumerate(placed.window_id):
        own = labelled_twice[labelled_twice["window_id"] == window_id].sort_values("expansion_start")
        real = placed.spans[row][placed.spans[row, :, 0] >= 0]
        assert real.tolist() == own[["expansion_start", "expansion_end"]].to_numpy(int).tolist()
        assert (placed.start[row], placed.end[row]) == tuple(real[0])
        assert ("consolidation", "retracement")[placed.state[row]] == own["label"].iloc[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_says_nothing(labelled_twice, placed, market, seed):
    other = labelled_twice.sample(frac=1, random_state=seed).reset_index(drop=True)
    frame = market.bars.frame
    assert same(place_labels(other, frame, segment_starts(frame))[0], placed)
    assert fingerprint_labels(other) == fingerprint_labels(labelled_twice)
    assert str(compare_labels(labelled_twice, other)) == "+0 −0 ~0 windows"
    pd.testing.assert_frame_equal(pair_readings(other), pair_readings(labelled_twice))
    columns = ["check", "count", "of"]
    pd.testing.assert_frame_equal(audit_labels(other)[columns], audit_labels(labelled_twice)[columns])
    assert set(list_flagged(other)["window_id"]) == set(list_flagged(labelled_twice)["window_id"])


def test_one_expansion_changed_is_one_window_changed(labelled_twice):
    moved = labelled_twice.copy()
    last = moved["expansion_start"].idxmax()
    moved.loc[last, "expansion_end"] += 1
    assert str(compare_labels(labelled_twice, moved)) == "+0 −0 ~1 windows"


@pytest.mark.parametrize("n_folds", [2, 3])
def test_no_fold_splits_a_window_nor_parts_it_from_its_repeat(placed, n_folds):
    bars = np.char.partition(placed.window_id.astype(str), "~")[:, 0]
    tested = []
    for fold in grouped_folds(placed.place, placed.day, n_folds=n_folds):
        assert not set(bars[fold.train]) & set(bars[fold.test])
        tested += placed.window_id[fold.test].tolist()
    assert sorted(tested) == sorted(placed.window_id)  # each once


def test_the_notes_heads_are_asked_for_the_first_expansion(placed):
    targets, first = placed.targets(), expansion_targets(placed.start, placed.end)
    np.testing.assert_array_equal(targets["inside"], first.mask)
    np.testing.assert_array_equal(targets["countdown"], first.countdown)


def test_labels_moved_between_days_take_all_expansions_of_a_window_along(placed):
    moved = move_labels(placed, np.random.default_rng(3))
    before = {(tuple(map(tuple, spans)), state) for spans, state in zip(placed.spans, placed.state, strict=True)}
    after = {(tuple(map(tuple, spans)), state) for spans, state in zip(moved.spans, moved.state, strict=True)}
    assert after == before and (moved.start == moved.spans[:, 0, 0]).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans=span_lists(), answer=st.tuples(st.integers(0, 104), st.integers(0, 104)).map(sorted))
def test_an_answer_is_as_good_as_against_the_expansion_it_fits_best(make_windows, spans, answer):
    start, end = (np.array([float(edge)]) for edge in answer)

    def figures(own):
        windows = make_windows([own], [0])
        functions = metric_functions(windows, Prediction(start=start, end=end))
        curve = hit_curve(windows, Prediction(start=start, end=end), n_bootstrap=10)
        found = {name: float(figure(np.ones((1, 1)))[0]) for name, figure in functions.items()}
        return found | {f"{name} curve": curve[name].sum() for name in ("start", "end", "both")}

    together, alone = figures(spans), [figures([span]) for span in spans]
    best_high = ("hit3_start", "hit3_end", "joint3", "hit_mean", "tiou50", "tiou75")
    for name in (*best_high, "start curve", "end curve", "both curve"):
        assert together[name] == max(each[name] for each in alone), name
    assert together["centre_mae"] == min(each["centre_mae"] for each in alone)
    assert together["length_mae"] in [each["length_mae"] for each in alone]


def test_bars_inside_any_expansion_count_as_inside(make_windows):
    windows = make_windows([[(40, 49), (60, 69)]], [0])
    inside = ((BARS >= 40) & (BARS <= 49)) | ((BARS >= 60) & (BARS <= 69))
    found = metric_functions(windows, Prediction(is_inside=inside[None], inside_probability=inside[None].astype(float)))
    assert all(float(found[name](np.ones((1, 1)))[0]) == 1 for name in ("inside_f1", "inside_ap"))


@pytest.mark.parametrize(
    ("alarm", "verdict", "latency"),
    [
        (35, "false_share", None),
        (42, "hit_share", 2),
        (55, "late_share", 15),
        (63, "hit_share", 3),
        (90, "late_share", 30),
    ],
)
def test_an_alarm_inside_any_expansion_is_a_hit_timed_from_its_start(make_windows, alarm, verdict, latency):
    windows = make_windows([[(40, 49), (60, 69)]], [0])
    started = (alarm <= BARS)[None].astype(float)
    found = score_causal(windows, CausalScores(started, started), 0.5, n_bootstrap=10).set_index("figure")["value"]
    assert found[verdict] == 1
    timed = found.filter(like="latency")
    assert np.isnan(timed).all() if latency is None else (timed == latency).all()


def test_further_columns_of_spans_that_hold_nothing_change_no_figure(placed):
    wider = replace(placed, spans=np.concatenate([placed.spans, np.full_like(placed.spans[:, :1], -1)], axis=1))
    answer = Prediction(start=placed.start + 2.0, end=placed.end + 4.0)
    ones = np.ones((1, len(placed)))
    narrow, broad = (metric_functions(each, answer) for each in (placed, wider))
    assert {n: float(f(ones)[0]) for n, f in narrow.items()} == {n: float(f(ones)[0]) for n, f in broad.items()}
