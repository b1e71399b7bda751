"""The rule beside labels, with what chance would give; classes and spans by time of day and volatility."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from moola_lib.evaluation.labels import balance_by_group, compare_with_rule, describe_spans
from moola_lib.labels import labels_from_planted, propose_labels
from moola_lib.market.segments import ZONE
from moola_lib.windows import place_labels


@pytest.fixture(scope="module")
def proposed(market, table):
    frame = market.bars.frame
    return place_labels(propose_labels(frame, n_windows=30), frame, table.starts)[0]


@pytest.fixture(scope="module")
def agreement(market, proposed):
    return compare_with_rule(proposed, market.bars.frame).set_index("figure")


def test_the_rule_agrees_with_its_own_proposals(agreement):
    assert agreement.loc["recall", "value"] == agreement.loc["same state", "value"] == 1
    per_window = agreement.loc["surges per window", "value"]
    assert per_window >= 1 and agreement.loc["precision", "value"] == pytest.approx(1 / per_window)
    assert agreement.loc["recall", "n"] == agreement.loc["surges per window", "n"] == 30


def test_its_agreement_is_far_above_chance_with_an_interval_around_it(agreement):
    found = agreement.loc[["recall", "precision"]]
    assert (found["chance"] < found["low"] - 0.1).all() and (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()
    assert agreement.loc["surges per window", "chance"] == pytest.approx(agreement.loc["surges per window", "value"])


def test_labels_placed_at_random_are_found_as_often_as_by_chance(market, table):
    frame = market.bars.frame
    labels = labels_from_planted(market.planted, symbol="SIM", n_windows=36)
    windows = place_labels(labels, frame, table.starts)[0]
    found = []
    for seed in range(20):
        start = np.random.default_rng(seed).integers(30, 75, len(windows))
        spans = np.stack([start, start + 6], axis=1)[:, None]
        moved = replace(windows, start=start, end=start + 6, spans=spans)
        found.append(compare_with_rule(moved, frame, n_bootstrap=100).set_index("figure").loc["recall"])
    found = pd.DataFrame(found)
    assert found["value"].mean() == pytest.approx(found["chance"].mean(), abs=0.05)


def test_every_expansion_of_a_window_is_wanted_and_each_surge_finds_one(proposed, market):
    twice = np.concatenate([proposed.spans, np.minimum(proposed.spans + 1, 104)], axis=1)
    found = compare_with_rule(replace(proposed, spans=twice), market.bars.frame).set_index("figure")
    assert found.loc["recall", "n"] == 60 and 0.5 <= found.loc["recall", "value"] < 0.75


def test_the_groups_hold_every_window_once_by_time_and_once_by_volatility(proposed, market, table):
    groups = balance_by_group(proposed, market.bars.frame, table.starts).set_index("group")
    for column in ("windows", "consolidation", "retracement", "none"):
        parts = groups[column]
        assert parts[["night", "London", "New York"]].sum() == parts[["calm", "usual", "lively"]].sum() == parts["all"]
    both = groups.loc["all", ["consolidation", "retracement"]]
    assert groups.loc["all", "share"] == both.max() / both.sum() and groups.loc["all", "windows"] == 30


def test_windows_without_an_expansion_are_counted_but_have_no_state(make_windows, market, table):
    windows = make_windows([[], [(40, 45)]], [2, 0], places=[300, 800])
    groups = balance_by_group(windows, market.bars.frame, table.starts).set_index("group")
    assert groups.loc["all", ["windows", "none", "consolidation", "share"]].tolist() == [2, 1, 1, 1.0]


def test_every_expansion_is_described_at_its_own_time(make_windows, market):
    frame = market.bars.frame
    windows = make_windows([[(40, 45), (70, 104)], []], [1, 2], places=[100, 500])
    spans = describe_spans(windows, frame)
    assert spans["start_ts"].tolist() == frame.index[[140, 170]].tolist() and spans["length"].tolist() == [6, 35]
    local = frame.index[140].tz_convert(ZONE)
    assert spans["session_hour"][0] == pytest.approx((local.hour + local.minute / 60 + 6) % 24)
    assert spans["session_hour"].between(0, 24, inclusive="left").all()
    assert spans["label"].tolist() == ["retracement"] * 2 and spans["window_id"].tolist() == ["w0", "w0"]
