"""Detections held against labels: by hand on a few bars, by brute force on many."""

import itertools

import numpy as np
import pytest

from moola_lib.evaluation.detections import PARTS, REGIMES, match_starts, say_detections, score_detections
from moola_lib.market import simulate_bars


def test_each_label_is_matched_once_and_nearest_first():
    assert match_starts([10, 12, 30], [11, 33]).tolist() == [0, -1, 1]
    assert match_starts([10, 13], [12]).tolist() == [-1, 0]
    assert match_starts([10], [14]).tolist() == [-1] and match_starts([], [1]).tolist() == []
    assert match_starts([10], [14], tolerance_bars=4).tolist() == [0]


@pytest.mark.parametrize("seed", range(20))
def test_no_pairing_has_a_nearer_first_pair(seed):
    rng = np.random.default_rng(seed)
    found, labelled = (np.unique(rng.integers(0, 60, 8)) for _ in range(2))
    matched = match_starts(found, labelled)
    used = matched[matched >= 0]
    assert len(set(used)) == len(used)
    assert all(abs(found[row] - labelled[k]) <= 3 for row, k in enumerate(matched) if k >= 0)
    for row, k in itertools.product(range(len(found)), range(len(labelled))):
        distance = abs(found[row] - labelled[k])
        if distance > 3 or matched[row] == k:
            continue  # a pair that was not made lost a partner to a pair as near or nearer
        rivals = [abs(found[row] - labelled[matched[row]])] if matched[row] >= 0 else []
        rivals += [abs(found[other] - labelled[k]) for other in np.flatnonzero(matched == k)]
        assert rivals and min(rivals) <= distance


@pytest.fixture(scope="module")
def market():
    return simulate_bars(8, seed=3)


def test_perfect_detections_recall_all_and_alarm_falsely_never(market):
    frame = market.bars.frame
    starts = np.flatnonzero(np.r_[True, np.diff(frame.index.asi8) > 10 * np.diff(frame.index.asi8).min()])
    labelled = np.sort(frame.index.get_indexer(market.planted["start_ts"]))
    table = score_detections(frame, starts, labelled, labelled, n_bootstrap=50).set_index("group")
    assert (table["recall"].dropna() == 1).all() and (table["false_per_session"] == 0).all()
    assert table.loc["all", "per_session"] == pytest.approx(len(labelled) / 8)
    assert table.loc[list(PARTS), "n_found"].sum() == table.loc["all", "n_found"] == len(labelled)
    assert table.loc[list(REGIMES), "n_found"].sum() <= len(labelled)


def test_false_ones_lower_precision_alone_and_bars_not_seen_count_for_nothing(market):
    frame, starts = market.bars.frame, np.array([0])
    labelled = np.sort(frame.index.get_indexer(market.planted["start_ts"]))
    wrong = np.sort(np.r_[labelled, labelled + 15])
    row = score_detections(frame, starts, wrong, labelled, n_bootstrap=50).set_index("group").loc["all"]
    assert row["recall"] == 1 and row["precision"] == pytest.approx(0.5)
    assert row["false_per_session"] == pytest.approx(len(labelled) / 8)
    seen = np.zeros(len(frame), bool)
    seen[: len(frame) // 2] = True
    half = score_detections(frame, starts, wrong, labelled, seen=seen, n_bootstrap=50).set_index("group").loc["all"]
    assert half["n_labelled"] == (labelled < len(frame) // 2).sum()
    unlabelled = score_detections(frame, starts, wrong, n_bootstrap=50)
    assert "recall" not in unlabelled and "recall" not in say_detections(unlabelled)
    text = say_detections(score_detections(frame, starts, wrong, labelled, n_bootstrap=50))
    assert text.loc[0, "precision"].startswith("0.50 (") and text.loc[0, "labelled"] == len(labelled)
