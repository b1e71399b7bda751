"""Detections as proposals: windows inside segments, edges that point at the same bars, stamps after the last bar."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.labels import check_labels
from moola_lib.labels.detections import propose_detections, stamp_bars
from moola_lib.labels.table import Labels
from moola_lib.windows import place_labels

STARTS = np.array([0, 700, 900])


@pytest.fixture
def frame(tools):
    stamps = [tools.minutes("2024-03-05 00:00", 700), tools.minutes("2024-03-05 12:00", 200)]
    return tools.walk_frame(stamps[0].append([stamps[1], tools.minutes("2024-03-06 00:00", 400)]))


def detections(spans, state="retracement", seen_to=-1):
    start, end = np.array(spans).T
    return pd.DataFrame(
        {
            "start": start, "end": end, "start_low": start - 2, "start_high": start + 1, "end_low": end + 1,
            "end_high": end + 90, "state": pd.array([state] * len(start), dtype="str"), "state_probability": 0.7,
            "confidence": 0.9, "none_probability": 0.1, "log_odds": 2.0, "seen_to": seen_to,
        }
    )  # fmt: skip


SPANS = [(30, 104), (31, 31), (400, 410), (669, 699), (730, 760), (869, 875), (950, 1000), (1269, 1299)]


def test_proposals_are_a_label_table_that_lies_on_the_bars(frame):
    table = propose_detections(detections(SPANS), frame.index, STARTS, symbol="NQH4", model="one")
    pd.testing.assert_frame_equal(check_labels(table), table)
    windows, lost = place_labels(table, frame, STARTS)
    assert len(lost) == 0
    found = [
        (place + start, place + end)
        for place, start, end in zip(windows.place, windows.start, windows.end, strict=True)
    ]
    assert sorted(found) == SPANS
    assert table["expansion_start"].between(30, 74).all()
    assert Labels(table).is_proposed and set(table["annotator"]) == {"model:one"}
    assert (table["start_low"] <= table["expansion_start"]).all() and (table["end_high"] <= 104).all()
    assert (table["end_low"] == table["expansion_end"]).all()  # an interval that leaves out the answer is widened to it


def test_where_in_its_window_a_detection_lies_says_nothing(frame):
    spans = [(start, start + 5) for start in range(110, 590, 7)]
    table = propose_detections(detections(spans), frame.index, STARTS, symbol="NQH4", model="one")
    start = table["expansion_start"].to_numpy(int)
    assert start.min() < 35 and start.max() > 69 and len(set(start)) > 25


def test_a_proposal_depends_on_its_own_detection_alone(frame):
    kept = {"symbol": "NQH4", "model": "one", "is_causal": True}
    every = propose_detections(detections(SPANS), frame.index, STARTS, **kept)
    some = propose_detections(detections(SPANS[:3]), frame.index[:450], STARTS[:1], **kept)
    pd.testing.assert_frame_equal(some, every.iloc[:3])
    assert set(every["mode"]) == {"causal"}


def test_no_detections_are_a_table_without_rows(frame):
    table = propose_detections(detections([(1, 2)]).iloc[:0], frame.index, STARTS, symbol="NQH4", model="one")
    full = propose_detections(detections(SPANS), frame.index, STARTS, symbol="NQH4", model="one")
    assert len(table) == 0 and table.columns.tolist() == full.columns.tolist()


def test_without_a_state_there_is_no_label(frame):
    with pytest.raises(UserError, match="is not one of consolidation, retracement, none"):
        propose_detections(detections(SPANS, state=None), frame.index, STARTS, symbol="NQH4", model="one")


def test_bars_after_the_last_one_seen_are_stamped_by_the_clock(frame):
    stamps = stamp_bars(np.array([5, 699, 702, 702]), frame.index, np.array([10, 699, 699, -1]))
    expected = [*frame.index[[5, 699]], frame.index[699] + pd.Timedelta(minutes=3), frame.index[702]]
    assert stamps.tolist() == expected
