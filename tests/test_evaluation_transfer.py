"""A model on bars it was not trained on: days left out, chance levels that hold, one row a series."""

import numpy as np
import pandas as pd
import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.evaluation.detections import score_detections
from moola_lib.evaluation.transfer import compare_chance, describe_watch, say_transfer, study_events, transfer_table
from moola_lib.evaluation.watching import Series, Watch, label_series, plant_series, watch_series
from moola_lib.features.drift import describe_distributions
from moola_lib.market import trade_dates
from moola_lib.models import build_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(4)
    model = build_model("linear_segments", n_features=11, n_classes=2, start_range=(30, 74))
    with torch.no_grad():
        model.segment_head.start.weight.normal_(0, 0.3)
        model.segment_head.null.fill_(12.0)
        model.segment_head.knows_none.fill_(True)
    return model


@pytest.fixture(scope="module")
def planted(market, table):
    return plant_series(market.bars.frame, table, market.planted)


@pytest.fixture(scope="module")
def days(market):
    return np.unique(trade_dates(market.bars.frame.index))


def found_at(series, first, seen=None):
    seen = np.ones(len(series.frame), bool) if seen is None else seen
    return Watch(series, seen, 0, first, first + 9)


def test_only_days_that_were_not_trained_on_are_watched(model, planted, days, market):
    whole = watch_series(model, planted, threshold=0.1)
    rest = watch_series(model, planted, training_days=days[:4], threshold=0.1)
    dates = trade_dates(market.bars.frame.index)
    assert rest.n_left_out == 4 and set(dates[rest.seen]) == set(days[4:])
    assert rest.first.tolist() == [at for at in whole.first if dates[at] in days[4:]]
    assert rest.labelled.tolist() == [at for at in planted.labelled if dates[at] in days[4:]]
    with pytest.raises(UserError, match="trained on every day"):
        watch_series(model, planted, training_days=days, threshold=0.1)


def test_a_cut_series_keeps_whole_segments_and_what_is_known_there(planted):
    starts = planted.table.starts
    part = planted.cut(int(starts[1]) + 7, int(starts[2]) + 3)
    low, high = int(starts[1]), int(starts[3])
    assert part.frame.index.equals(planted.frame.index[low:high])
    assert np.array_equal(part.table.values, planted.table.values[low:high])
    assert part.labelled.tolist() == [at - low for at in planted.labelled if low <= at < high]


def test_what_is_known_of_labelled_windows_is_their_inner_bars(labelled, market, table):
    series = label_series(market.bars.frame, table, labelled)
    assert series.looked.sum() <= 45 * len(labelled)
    assert set(series.labelled) == set((labelled.place + labelled.start)[labelled.has_expansion])
    assert series.looked[labelled.place + 30].all() and not series.looked[labelled.place[0] + 29]


def test_a_detection_where_nobody_looked_is_neither_right_nor_wrong(labelled, market, table):
    series = label_series(market.bars.frame, table, labelled)
    elsewhere = np.flatnonzero(~series.looked)[100:5000:50]
    found = np.sort(np.r_[series.labelled, elsewhere])
    frame = market.bars.frame
    row = score_detections(frame, table.starts, found, series.labelled, looked=series.looked, n_bootstrap=50).iloc[0]
    assert row["n_found"] == len(found) and row["n_judged"] == len(series.labelled)
    assert row["precision"] == row["recall"] == 1 and row["false_per_session"] == 0
    wrong = labelled.place + 30
    wrong = wrong[np.abs(np.subtract.outer(wrong, series.labelled)).min(axis=1) > 3]
    found = np.sort(np.r_[series.labelled, wrong])
    row = score_detections(frame, table.starts, found, series.labelled, looked=series.looked, n_bootstrap=50).iloc[0]
    assert row["precision"] == pytest.approx(len(series.labelled) / len(found))
    # the looked-at bars' rate, over a session of 1,380 bars
    assert row["false_per_session"] == pytest.approx(len(wrong) / series.looked.sum() * len(frame) / 6)


def test_perfect_detections_lie_far_above_chance_and_random_ones_at_it(planted, table):
    perfect = compare_chance(found_at(planted, planted.labelled), n_draws=50).set_index("method")
    assert perfect.loc["model", ["precision", "recall"]].tolist() == [1, 1]
    assert perfect.loc["random", "recall_high"] < 0.3
    rng = np.random.default_rng(3)
    at = np.sort(rng.choice(len(planted.frame), len(planted.labelled), replace=False))
    random = compare_chance(found_at(planted, at), n_draws=200).set_index("method")
    assert random.loc["random", "recall_low"] <= random.loc["model", "recall"] <= random.loc["random", "recall_high"]
    # a start is hit by chance at about 7 of all bars for each detection
    assert random.loc["random", "recall"] == pytest.approx(7 * len(at) / len(planted.frame), rel=0.3)


def test_random_bars_have_the_half_hours_of_the_detections(market, table, days):
    frame = market.bars.frame
    local = frame.index.tz_convert("America/New_York")
    is_open = (local.hour == 9) & (local.minute >= 30)
    series = Series(frame, table, np.flatnonzero(is_open)[::3])
    at_open = compare_chance(found_at(series, np.flatnonzero(is_open)[::6]), n_draws=20).set_index("method")
    at_night = compare_chance(found_at(series, np.flatnonzero(local.hour == 2)[::12]), n_draws=20).set_index("method")
    assert at_open.loc["random", "precision"] > 0.6 and at_night.loc["random", "precision"] == 0


def test_the_rule_finds_bars_that_stand_out(planted, market, table):
    frame = market.bars.frame.copy()
    at = np.arange(500, len(frame) - 500, 700)
    frame.iloc[at, frame.columns.get_loc("high")] += 500
    series = Series(frame, table, at)
    rule = compare_chance(found_at(series, at), n_draws=2).set_index("method").loc["ATR rule"]
    assert rule["precision"] == rule["recall"] == 1


def test_each_series_has_a_row_and_its_text(model, planted, market, table, days):
    frame = market.bars.frame
    given = {"known": planted, "unknown": Series(frame, table)}
    known = describe_distributions(table, frame.index)
    watches = {name: watch_series(model, each, training_days=days[:2], threshold=0.1) for name, each in given.items()}
    found = transfer_table(watches, known, n_bootstrap=50)
    assert found["series"].tolist() == ["known", "unknown"] and (found["sessions"] == 4).all()
    one, other = (row for _, row in found.iterrows())
    assert one["first_day"] == str(days[2]) and one["n_found"] == other["n_found"] > 0
    assert one["low"] <= one["per_session"] <= one["high"] and one["per_session"] == one["n_found"] / 4
    assert 0 <= one["precision"] <= 1 and one["n_labelled"] > 0 and np.isnan(other["precision"])
    assert one["n_drifted"] == 0 and one["n_features"] == 11
    assert one["n_events"] > 0 and np.isfinite(one["onward_low"])
    text = say_transfer(found)
    assert text.loc[1, "recall"] == "–" and " to " in text.loc[0, "recall: random bars"]
    assert text.loc[0, "features that drifted"] == "0 of 11"


def test_too_little_for_a_figure_leaves_it_missing(model, planted):
    watch = found_at(planted, np.zeros(0, np.int64))
    assert study_events(watch) == (None, "nothing was detected")
    row = describe_watch(watch, n_bootstrap=20)
    assert row["n_found"] == 0 and row["recall"] == 0 and np.isnan(row["precision"]) and np.isnan(row["random_recall"])
    assert np.isnan(row["size"]) and row["n_events"] == 0 and row["n_drifted"] is pd.NA
    assert say_transfer(pd.DataFrame([{"series": "none", **row}])).loc[0, "precision"] == "–"
