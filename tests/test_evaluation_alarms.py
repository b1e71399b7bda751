"""False alarms and the annotator's ceiling, worked by hand and simulated."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.evaluation.alarms import alarm_curve, false_alarms
from moola_lib.evaluation.annotators import annotator_ceiling, hit_ceiling
from moola_lib.labels.table import check_labels

LABELLED = np.array([0.9, 0.8, 0.7, 0.6, 0.1])
ORDINARY = np.array([0.65, 0.2, 0.6, 0.59, 0.95, 0.3])
SESSION = np.array([1, 1, 1, 2, 3, 3])


def test_alarms_by_hand():
    found = false_alarms([LABELLED], [ORDINARY], SESSION, recall=0.8)
    assert found.recall == 0.8  # from 0.6 on
    assert found.per_session == pytest.approx((2 + 0 + 1) / 3) and found.n_sessions == 3
    assert 0 <= found.low <= found.per_session <= found.high <= 2


def test_the_threshold_is_the_highest_that_reaches_the_recall():
    for recall in (0.01, 0.2, 0.5, 0.61, 1.0):
        found = false_alarms([LABELLED], [ORDINARY], SESSION, recall=recall)
        assert recall <= found.recall < recall + 1 / len(LABELLED)
    tied = false_alarms([np.full(5, 0.5)], [ORDINARY], SESSION, recall=0.2)
    assert tied.recall == 1.0  # the recall that is reached is told, not the one asked for


def test_each_model_has_a_threshold_of_its_own():
    alone = false_alarms([LABELLED], [ORDINARY], SESSION)
    louder = false_alarms([LABELLED, 100 + 10 * LABELLED], [ORDINARY, 100 + 10 * ORDINARY], SESSION)
    assert (louder.per_session, louder.recall, louder.n_labelled) == (alone.per_session, alone.recall, 10)


def test_windows_that_share_bars_alarm_once():
    place = np.array([0, 52, 104, 156, 209, 400])
    every = np.ones(6)
    assert false_alarms([LABELLED], [every], np.ones(6)).per_session == 6
    assert false_alarms([LABELLED], [every], np.ones(6), place).per_session == 3  # at 0, 156, 400
    assert false_alarms([LABELLED], [every[::-1]], np.ones(6), place[::-1]).per_session == 3


def test_more_recall_costs_more_alarms():
    rng = np.random.default_rng(1)
    table = alarm_curve([rng.normal(1, 1, 174)], [rng.normal(0, 1, 1300)], np.arange(1300) // 13)
    assert (table["recall"].diff().dropna() > 0).all() and (table["per_session"].diff().dropna() >= 0).all()
    assert ((table["low"] <= table["per_session"]) & (table["per_session"] <= table["high"])).all()


def test_the_interval_is_by_session():
    rng = np.random.default_rng(1)
    busy = np.repeat(rng.random(40) < 0.5, 13)  # sessions alarm all day or not at all
    mixed = rng.permutation(busy)
    session = np.repeat(np.arange(40), 13)
    widths = [
        np.ptp([found.low, found.high])
        for found in (false_alarms([LABELLED], [scores.astype(float)], session) for scores in (busy, mixed))
    ]
    assert widths[0] > 2 * widths[1]


@pytest.mark.parametrize(
    ("labelled", "ordinary", "words"),
    [([np.nan], [1.0], "1 of 1 alarm scores of labelled"), ([1.0], [], "0 of 0 alarm scores of ordinary")],
)
def test_scores_that_cannot_be_ranked_are_a_sentence(labelled, ordinary, words):
    with pytest.raises(UserError, match=words):
        false_alarms([labelled], [ordinary], np.zeros(len(ordinary)))


@pytest.mark.parametrize(("sd", "ceiling"), [(0, 1.0), (3, 0.76), (4, 0.62), (5, 0.52)])
def test_the_ceiling_by_repeat_noise(sd, ceiling):
    assert hit_ceiling(sd) == pytest.approx(ceiling, abs=0.005)
    if sd:
        noise = np.round(np.random.default_rng(1).normal(0, sd, 100_000))
        assert hit_ceiling(sd) == pytest.approx((np.abs(noise) <= 3).mean(), abs=0.006)


def label_rows(starts_by_reading, label="consolidation"):
    """A checked table: per window, the starts of its readings, each by another annotator."""
    rows = []
    for number, starts in enumerate(starts_by_reading):
        for reader, start in enumerate(starts):
            stamp = pd.Timestamp("2024-03-05 15:00", tz="UTC") + pd.Timedelta(days=number)
            row = {"window_id": f"w{number}-{reader}", "symbol": "NQ", "window_start": stamp, "label": label}
            rows.append(row | {"expansion_start": start, "expansion_end": start + 9, "annotator": f"a{reader}"})
    return check_labels(pd.DataFrame(rows))


def test_the_ceiling_by_hand():
    found = annotator_ceiling(label_rows([(40, 42), (50, 56), (60,), (30, 30, 33)]))
    squares = [4, 36, 0, 9, 9]
    assert (found.n_windows, found.n_pairs) == (3, 5)
    assert found.repeat_sd == pytest.approx(np.sqrt(np.mean(squares) / 2))
    assert found.agreement == pytest.approx(4 / 5)
    assert found.ceiling == pytest.approx(hit_ceiling(found.repeat_sd))
    assert found.low <= found.ceiling <= found.high


def test_the_ceiling_finds_the_noise_that_was_put_in():
    rng = np.random.default_rng(1)
    starts = 50 + np.round(rng.normal(0, 4, (400, 2))).astype(int)
    found = annotator_ceiling(label_rows(starts.tolist()), n_bootstrap=200)
    assert found.repeat_sd == pytest.approx(4, abs=0.3) and found.ceiling == pytest.approx(0.62, abs=0.04)
    assert found.agreement < found.ceiling  # two noisy labels agree less than one with the truth


def test_without_repeats_the_ceiling_is_not_known():
    assert annotator_ceiling(label_rows([(40,), (50,)])) is None


def test_two_expansions_of_one_reading_are_no_repeat():
    table = label_rows([(40, 60)]).assign(window_id="w0", annotator="one")
    assert annotator_ceiling(table) is None
