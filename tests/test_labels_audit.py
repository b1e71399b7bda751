"""The audit of a label table: what is flagged, which windows share bars, how unsure annotators were."""

import pandas as pd
import pytest

from moola_lib.labels import audit_labels, check_labels
from moola_lib.labels.audit import NO_REASONS, describe_soft_edges, find_overlaps, list_flagged


def rows(*cells, **columns):
    """A checked table of (window_id, minute of the day, start, end, label); no start: no expansion."""
    names = ["window_id", "minute", "expansion_start", "expansion_end", "label"]
    frame = pd.DataFrame(cells, columns=names).assign(symbol="NQ", **columns)
    day = pd.Timestamp("2024-03-05 15:00", tz="UTC")
    frame["window_start"] = [day + pd.Timedelta(minutes=minute) for minute in frame.pop("minute")]
    return check_labels(frame)


@pytest.fixture
def table():
    return rows(
        ("a", 0, 40, 45, "consolidation"),
        ("b", 200, 32, 39, "retracement"),
        ("b", 200, 60, 104, "retracement"),
        ("c", 300, None, None, "none"),
        ("d", 390, 74, 74, "retracement"),
        ("a again", 0, 38, 45, "consolidation"),
    )


FLAGGED = {
    "start outside the inner bars 30..74": [],
    "end outside the inner bars 30..74": ["b"],
    "expansion of a single bar": ["d"],
    "expansion longer than 30 bars": ["b"],
    "further expansion in the same window": ["b"],
    "expansions of one window overlap": [],
    "one window id, several annotators": [],
    "window labelled again under another id": ["a", "a again"],
    "window shares bars with another": ["b", "b", "d"],
    "soft edge beside its own interval": [],
    "soft edge half given": [],
    "time of labelling missing": ["a", "b", "b", "d", "a again"],
    "made by a rule (proposal)": [],
}


def test_the_audit_flags_without_refusing(table):
    audit = audit_labels(table).set_index("check")
    assert audit["count"].to_dict() == {check: len(ids) for check, ids in FLAGGED.items()} | {"no expansion": 1}
    for check, ids in FLAGGED.items():
        assert audit.loc[check, "of"] == 5 and audit.loc[check, "example"] == (ids[0] if ids else "")


def test_what_is_flagged_is_a_queue_with_the_most_flagged_first(table):
    queue = list_flagged(table)
    wanted = {window_id for check, ids in FLAGGED.items() if check not in NO_REASONS for window_id in ids}
    assert queue["window_id"].tolist()[0] == "b" and set(queue["window_id"]) == wanted
    assert queue["window_id"].is_unique and queue["why"][0].count(";") == 2


def test_a_clean_table_has_nothing_to_look_at(table):
    queue = list_flagged(table.iloc[:1])
    assert queue.empty and queue.columns.tolist() == ["window_id", "why"]


def test_expansions_of_one_window_that_overlap_are_flagged_whatever_the_order_of_rows():
    table = rows(("a", 0, 50, 60, "retracement"), ("a", 0, 40, 50, "retracement"), ("a", 0, 61, 70, "retracement"))
    for each in (table, table.iloc[::-1].reset_index(drop=True)):
        assert audit_labels(each).set_index("check")["count"]["expansions of one window overlap"] == 1


def test_an_edge_beside_its_interval_and_half_an_interval_are_flagged(table):
    soft = table.assign(start_low=[41, 30, 60, None, 74, None], start_high=[42, 33, 61, None, 74, 40])
    counts = audit_labels(check_labels(soft)).set_index("check")["count"]
    assert counts["soft edge beside its own interval"] == 1 and counts["soft edge half given"] == 1


def test_several_annotators_under_one_window_id_are_flagged(table):
    named = check_labels(table.assign(annotator=["me", "me", "you", "me", "me", "me"]))
    assert audit_labels(named).set_index("check")["count"]["one window id, several annotators"] == 2


def test_windows_that_share_bars_are_found_with_how_many(table):
    found = find_overlaps(table).set_index(["window_id", "other_id"])["shared_minutes"].to_dict()
    assert found == {("b", "c"): 5, ("c", "d"): 15}  # a and "a again" are one window
    other = table.assign(symbol=["NQ", "NQ", "NQ", "ES", "NQ", "ES"])
    assert find_overlaps(other).empty


def test_soft_edges_are_described_by_hand(table):
    soft = table.assign(end_low=[44, 30, None, None, 74, None], end_high=[46, 40, None, None, 74, None])
    found = describe_soft_edges(check_labels(soft)).set_index("edge")
    assert found.loc["end"].tolist() == [3, 5, 2.0, 10.0]
    assert found.loc["start", "count"] == 0 and pd.isna(found.loc["start", "median_bars"])
