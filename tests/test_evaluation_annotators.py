"""Label against label: pairs of readings, kappa as scikit-learn has it, quantiles by hand, chance at zero."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from moola_lib.evaluation.annotators import annotator_ceiling, measure_agreement, pair_readings, weighted_kappa
from moola_lib.labels import check_labels

STATES = np.array(["consolidation", "retracement", "none"])


def readings(*cells):
    """A checked table of (window, annotator, start, end, label); each reading under an id of its own."""
    names = ["window", "annotator", "expansion_start", "expansion_end", "label"]
    frame = pd.DataFrame(cells, columns=names).assign(symbol="NQ")
    day = pd.Timestamp("2024-03-05 15:00", tz="UTC")
    frame["window_start"] = [day + pd.Timedelta(days=window) for window in frame["window"]]
    ids = frame.groupby(["window", "annotator"]).ngroup() if frame["window"].duplicated().any() else frame.index
    return check_labels(frame.assign(window_id=[f"w{k}" for k in ids]))


@pytest.fixture
def table():
    return readings(
        (0, "ann", 40, 45, "consolidation"),
        (0, "bob", 42, 45, "retracement"),
        (1, "ann", 50, 60, "retracement"),
        (1, "bob", 50, 52, "retracement"),
        (2, "ann", None, None, "none"),
        (2, "bob", 50, 52, "retracement"),
        (3, "ann", 30, 40, "consolidation"),
    )


def test_pairs_are_read_off(table):
    pairs = pair_readings(table)
    assert pairs["window_start"].dt.day.tolist() == [5, 6, 7] and set(pairs["kind"]) == {"two annotators"}
    assert pairs["start_difference"].tolist()[:2] == [2, 0] and pairs["end_difference"].tolist()[:2] == [0, -8]
    assert pairs.iloc[2][["start_difference", "end_difference"]].isna().all()
    assert (pairs["annotator_first"] == "ann").all() and pairs["label_second"].tolist() == ["retracement"] * 3


def test_the_order_of_rows_changes_nothing(table):
    more = readings(
        (0, "ann", 40, 45, "consolidation"), (0, "ann", 60, 66, "retracement"), (0, "bob", 61, 66, "retracement")
    )
    for each in (table, more):
        shuffled = each.sample(frac=1, random_state=3).reset_index(drop=True)
        pd.testing.assert_frame_equal(pair_readings(shuffled), pair_readings(each))


def test_of_a_reading_with_several_expansions_the_first_counts():
    table = readings(
        (0, "ann", 60, 66, "retracement"), (0, "ann", 40, 45, "consolidation"), (0, "bob", 41, 45, "retracement")
    )
    pairs = pair_readings(table)
    assert len(pairs) == 1 and pairs["start_difference"][0] == 1 and pairs["label_first"][0] == "consolidation"


def test_a_silent_repeat_is_a_reading_of_the_same_annotator(table):
    again = table.iloc[[0, 0]].assign(labelling=["one", "two"], expansion_start=[40, 44])
    pairs = pair_readings(again)
    assert pairs["kind"].tolist() == ["same annotator"] and abs(pairs["start_difference"][0]) == 4


def test_proposals_are_nobodys_reading(table):
    assert pair_readings(check_labels(table.assign(source="proposal:surge"))).empty
    assert measure_agreement(check_labels(table.assign(source="proposal:surge"))).empty
    assert annotator_ceiling(check_labels(table.assign(source="proposal:surge"))) is None


def test_agreement_by_hand(table):
    found = measure_agreement(table, n_bootstrap=100)
    assert set(found["pairs"]) == {"all", "two annotators"}
    values = found[found["pairs"] == "all"].set_index("figure")
    assert values.loc["same state", "value"] == pytest.approx(1 / 3)
    # chance: ann c, r, none once each; bob r always: 1/3, so kappa is 0
    assert values.loc["kappa of the state", "value"] == pytest.approx(0)
    assert values.loc["start within 3 bars", ["value", "n"]].tolist() == [1.0, 2]
    assert values.loc["end within 3 bars", "value"] == values.loc["both edges within 3 bars", "value"] == 0.5
    assert values.loc["start: half within (bars)", "value"] == 0 and values.loc["end: 95% within (bars)", "value"] == 8
    is_known = values["low"].notna()
    assert (values["low"] <= values["value"])[is_known].all() and (values["value"] <= values["high"])[is_known].all()


def test_kappa_is_scikit_learns_for_any_weights():
    rng = np.random.default_rng(1)
    first = rng.choice(STATES, 60)
    second = np.where(rng.random(60) < 0.6, first, rng.choice(STATES, 60))
    weights = rng.integers(0, 4, (20, 60)).astype(float)
    expected = [cohen_kappa_score(first, second, sample_weight=row) for row in weights]
    np.testing.assert_allclose(weighted_kappa(first, second, weights), expected)


def test_independent_readings_have_no_kappa_and_equal_ones_have_all():
    rng = np.random.default_rng(2)
    first, second = rng.choice(STATES, (2, 5000))
    ones = np.ones((1, 5000))
    assert abs(weighted_kappa(first, second, ones)[0]) < 0.03 and weighted_kappa(first, first, ones)[0] == 1
    assert np.isnan(weighted_kappa(np.full(9, "none"), np.full(9, "none"), np.ones((1, 9)))[0])


def test_the_interval_of_kappa_covers_the_truth():
    rng = np.random.default_rng(3)
    covered = 0
    for draw in range(40):
        first = rng.choice(STATES[:2], 60)
        second = np.where(rng.random(60) < 0.5, first, rng.choice(STATES[:2], 60))  # kappa 0.5
        cells = [(k, who, 40, 45, label) for k in range(60) for who, label in (("a", first[k]), ("b", second[k]))]
        found = measure_agreement(readings(*cells), n_bootstrap=200, seed=draw).set_index("figure").iloc[0]
        covered += found["low"] <= 0.5 <= found["high"]
    assert covered >= 34
