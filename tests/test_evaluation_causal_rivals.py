"""The causal rivals look back only, and raise alarms where expansions are loud."""

from dataclasses import replace

import numpy as np
import pytest

from moola_lib.evaluation.canaries import disturb
from moola_lib.evaluation.causal import alarm_threshold, score_causal
from moola_lib.evaluation.causal_rivals import causal_atr_scores, causal_logistic_scores
from moola_lib.evaluation.inputs import bare_study
from moola_lib.market import REFERENCE, simulate_windows

RIVALS = [causal_atr_scores, causal_logistic_scores]


@pytest.fixture(scope="module")
def study():
    windows, inputs = bare_study(simulate_windows(240, seed=5, law=replace(REFERENCE, strength=3.0)))
    return windows.take(slice(0, 80)), windows.take(slice(80, None)), inputs


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("t", [35, 60, 90])
def test_no_later_bar_changes_a_score(rival, t, study):
    train, test, inputs = study
    other = disturb(inputs, test, "bars shuffled")
    mixed = {}
    for name in ("x", "log_return", "log_range"):
        mixed[name] = getattr(inputs, name).copy()
        mixed[name][:, t + 1 :] = getattr(other, name)[:, t + 1 :]
    rows = inputs.place < test.place[0]  # training windows stay as they are
    for name, values in mixed.items():
        values[rows] = getattr(inputs, name)[rows]
    one, two = rival(train, test, inputs), rival(train, test, replace(inputs, **mixed))
    assert np.array_equal(one.inside[:, : t + 1], two.inside[:, : t + 1])
    assert np.array_equal(one.started[:, : t + 1], two.started[:, : t + 1])
    assert not np.array_equal(one.inside[:, t + 1 :], two.inside[:, t + 1 :])


@pytest.mark.parametrize(("rival", "least_hits"), [(causal_atr_scores, 0.3), (causal_logistic_scores, 0.6)])
def test_on_loud_expansions_alarms_come_early_and_few_are_false(rival, least_hits, study):
    train, test, inputs = study
    threshold = alarm_threshold(train, rival(train, train, inputs), 0.1)
    found = score_causal(test, rival(train, test, inputs), threshold, n_bootstrap=50).set_index("figure")["value"]
    assert found["hit_share"] > least_hits
    assert found["false_share"] < 0.2
    assert found["latency_median"] <= 6


@pytest.mark.parametrize("rival", RIVALS)
def test_no_start_is_claimed_before_the_inner_part(rival, study):
    assert (rival(*study).started[:, :30] == 0).all()
