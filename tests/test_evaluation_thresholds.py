"""Thresholds by alarms per session: hand-made alarms, sessions not trained on, and what the card keeps."""

import numpy as np
import pandas as pd
import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.evaluation.thresholds import alarm_rates, calibrate_alarms, choose_threshold, store_alarms
from moola_lib.files import read_json
from moola_lib.learning.causal_scan import scan_causally
from moola_lib.learning.scan import scan
from moola_lib.market.segments import trade_dates
from moola_lib.models import build_model
from moola_lib.models.weights import load_model, save_model

DAYS = np.datetime64("2024-03-04") + np.arange(4)
ALARMS = [(0.2, 0), (0.4, 0), (0.6, 1), (0.6, 1), (0.9, 3), (0.95, 30)]  # confidence, day; day 2 has none


def hand_made(threshold):
    return np.array([DAYS[0] + day for confidence, day in ALARMS if confidence >= threshold], "datetime64[D]")


@pytest.fixture(scope="module")
def model(table):
    """A linear model of random weights that knows none."""
    torch.manual_seed(4)
    model = build_model("linear_segments", n_features=11, start_range=(30, 74)).eval()
    with torch.no_grad():
        model.segment_head.start.weight.normal_(0, 0.3)
        model.segment_head.null.fill_(12.0)
        model.segment_head.knows_none.fill_(True)
    return model


def test_rates_count_sessions_without_alarms_and_leave_out_other_days():
    rates = alarm_rates(hand_made, DAYS, thresholds=(0.1, 0.5, 0.8, 0.99))
    np.testing.assert_allclose(rates["alarms_per_session"], [5 / 4, 3 / 4, 1 / 4, 0])
    assert (rates["low"] <= rates["alarms_per_session"]).all() and (rates["high"] >= rates["alarms_per_session"]).all()
    pd.testing.assert_frame_equal(rates, alarm_rates(hand_made, DAYS, thresholds=(0.1, 0.5, 0.8, 0.99)))


def test_the_lowest_threshold_that_stays_within_is_chosen():
    rows = zip((0.1, 0.3, 0.5, 0.7, 0.9), (4.0, 1.0, 2.0, 0.5, 0.1), (2, 0, 1, 0, 0), (8, 3, 3, 0.9, 0.5), strict=True)
    rates = pd.DataFrame(rows, columns=["threshold", "alarms_per_session", "low", "high"])
    chosen = choose_threshold(rates, 1.0)
    assert (chosen["threshold"], chosen["threshold_low"], chosen["threshold_high"]) == (0.7, 0.3, 0.7)
    assert (chosen["expected"], chosen["expected_low"], chosen["expected_high"]) == (0.5, 0.0, 0.9)
    assert choose_threshold(rates, 0.3)["threshold_high"] is None
    with pytest.raises(UserError, match=r"still 0\.10 alarms a session, more than 0\.05"):
        choose_threshold(rates.to_dict("records"), 0.05)
    with pytest.raises(UserError, match="give a number above 0"):
        choose_threshold(rates, 0)


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_scan_at_the_threshold_raises_the_alarms_it_expects(model, market, table, is_causal):
    index = market.bars.frame.index
    sessions = np.unique(trade_dates(index))
    found = calibrate_alarms(model, table, index, sessions[:2], alarms_per_session=3.0, is_causal=is_causal)
    run = scan_causally if is_causal else scan
    start = run(model, table, threshold=found["threshold"]).detections["start"].to_numpy()
    counted = np.isin(trade_dates(index[start]), sessions[2:]).sum() / 4
    assert found["expected"] == counted <= 3.0
    assert found["sessions"] == 4 and found["first_session"] == str(sessions[2])
    assert choose_threshold(found["rates"], 3.0)["threshold"] == found["threshold"]


def test_sessions_trained_on_set_no_threshold(model, market, table):
    index = market.bars.frame.index
    with pytest.raises(UserError, match="trained on all 6 sessions"):
        calibrate_alarms(model, table, index, np.unique(trade_dates(index)))


def test_the_card_keeps_a_threshold_for_each_mode(model, tmp_path, table):
    path = tmp_path / "model.safetensors"
    save_model(model, path, features={"set_id": table.set_id, "names": table.names}, notes={"seed": 3})
    store_alarms(path, {"threshold": 0.5})
    store_alarms(path, {"threshold": np.float32(0.25)}, is_causal=True)
    notes = read_json(tmp_path / "model.json")["notes"]
    assert notes == {"seed": 3, "alarms": {"retrospective": {"threshold": 0.5}, "causal": {"threshold": 0.25}}}
    load_model(path)
