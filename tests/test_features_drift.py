"""Drift from a model's training bars: none on bars of the same market, found where a market changed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from moola_lib.errors import UserError
from moola_lib.features import build_features
from moola_lib.features.drift import describe_distributions, drift_from
from moola_lib.market import simulate_bars


def features_of(seed, n_sessions=30, **options):
    bars = simulate_bars(n_sessions, seed=seed, **options).bars
    return build_features(bars), bars.frame.index


@pytest.fixture(scope="module")
def trained():
    return features_of(1)


def test_the_same_bars_have_not_drifted_and_the_card_is_plain_json(trained):
    distributions = json.loads(json.dumps(describe_distributions(*trained)))
    found = drift_from(distributions, *trained)
    assert list(found["feature"]) == list(trained[0].names)
    assert (found["psi"] == 0).all() and (found["verdict"] == "stable").all()
    assert (found["n_rows"] == trained[0].is_valid.sum()).all()


def test_bars_of_the_same_market_are_stable(trained):
    found = drift_from(describe_distributions(*trained), *features_of(2))
    assert (found["verdict"] == "stable").all(), found


def test_a_feature_that_changed_is_named_and_the_others_are_not(trained):
    table, index = features_of(2)
    values = table.values.copy()
    column = table.names.index("range_z")
    values[:, column] = np.clip(values[:, column] + 1.0, -3, 3)
    found = drift_from(describe_distributions(*trained), replace(table, values=values), index).set_index("feature")
    assert found.loc["range_z", "verdict"] == "drifted"
    assert (found.drop("range_z")["verdict"] == "stable").all()


def test_too_few_rows_are_said_to_be_too_few(trained):
    table, index = features_of(3, n_sessions=1)
    short = build_features(simulate_bars(1, seed=3).bars.frame.iloc[:60])
    found = drift_from(describe_distributions(*trained), short, index[:60])
    assert (found["verdict"] == "too few rows").any() and (found["noise"] > 0).all()
    assert len(table) > len(short)


def test_a_feature_that_is_missing_is_named(trained):
    distributions = describe_distributions(*trained) | {"moon_phase": {}}
    with pytest.raises(UserError, match="the bars have no feature moon_phase"):
        drift_from(distributions, *trained)
