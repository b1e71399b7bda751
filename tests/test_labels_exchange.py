"""Label tables to CSV and Label Studio and back: nothing is lost, and what cannot be read is a sentence."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moola_lib.errors import UserError
from moola_lib.labels import check_labels, load_labels
from moola_lib.labels.exchange import ENDINGS, write_table
from moola_lib.labels.label_studio import write_label_studio

WORDS = st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
BARS = st.integers(0, 104)


@st.composite
def label_tables(draw):
    """Checked tables with several expansions a window, windows without one, and any of the optional columns."""
    rows = []
    for number in range(draw(st.integers(1, 5))):
        stamp = pd.Timestamp("2024-03-05 15:00", tz="UTC") + pd.Timedelta(minutes=draw(st.integers(0, 10_000)))
        window = {"window_id": f'w {number},"é', "symbol": "NQ", "window_start": stamp}
        extras = {"annotator": draw(WORDS), "quality": draw(WORDS), "mode": draw(WORDS)}
        extras["source"] = draw(st.sampled_from([None, "hand", "proposal:surge"]))
        starts = draw(st.lists(BARS, max_size=3, unique=True))
        for start in starts:
            soft = {"start_low": draw(st.integers(0, start)), "start_high": draw(st.integers(start, 104))}
            seconds = draw(st.none() | st.floats(0, 1e6))
            label = draw(st.sampled_from(["consolidation", "retracement"]))
            span = {"expansion_start": start, "expansion_end": draw(st.integers(start, 104)), "label": label}
            rows.append(window | extras | span | {"seconds": seconds} | (soft if draw(st.booleans()) else {}))
        if not starts:
            rows.append(window | extras | {"expansion_start": None, "expansion_end": None, "label": "none"})
    frame = pd.DataFrame(rows)
    frame["labelled_at"] = [
        None if draw(st.booleans()) else pd.Timestamp(draw(st.integers(0, 2**60)), tz="UTC") for _ in rows
    ]
    return check_labels(frame)


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=label_tables())
def test_every_format_gives_the_table_back(ending, table, tmp_path):
    path = tmp_path / f"labels{ending}"
    write_table(table, path)
    pd.testing.assert_frame_equal(load_labels(path).table, table)


@pytest.fixture
def table(tiny):
    stamps = tiny.frame.index[[0, 0, 200]]
    return check_labels(
        pd.DataFrame(
            {
                "window_id": ["a", "a", "b"], "symbol": "NQH4", "window_start": stamps, "annotator": "me",
                "expansion_start": [40, 60, None], "expansion_end": [45, 104, None],
                "label": ["consolidation", "retracement", "none"],
            }
        )
    )  # fmt: skip


def test_with_bars_the_tasks_show_their_prices_and_edges_are_times(table, tiny, tmp_path):
    write_label_studio(table, tmp_path / "labels.json", tiny.frame)
    pd.testing.assert_frame_equal(load_labels(tmp_path / "labels.json").table, table)
    first, second = json.loads((tmp_path / "labels.json").read_text())
    window = tiny.frame.iloc[200:305]
    assert second["data"]["ts"]["close"] == window["close"].tolist() and len(second["data"]["ts"]["time"]) == 105
    edges = [region["value"] for region in first["annotations"][0]["result"]]
    stamps = tiny.frame.index.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert [(each["start"], each["end"]) for each in edges] == [(stamps[40], stamps[45]), (stamps[60], stamps[104])]
    assert second["annotations"][0]["result"][0]["value"] == {"choices": ["none"]}


def test_proposals_are_suggestions_in_label_studio(table, tmp_path):
    write_label_studio(check_labels(table.assign(source="proposal:surge")), tmp_path / "labels.json")
    tasks = json.loads((tmp_path / "labels.json").read_text())
    assert all("annotations" not in task and task["predictions"][0]["model_version"] == "me" for task in tasks)


def task(*regions, data=None, **annotation):
    """A task as Label Studio exports it, with a region for each value."""
    result = [
        {"type": "timeserieslabels", "from_name": "label", "to_name": "ts", "value": {"instant": False, **value}}
        for value in regions
    ]
    data = {"symbol": "NQH4", "window_start": "2024-03-08T19:00:00Z"} | (data or {})
    return {"id": 7, "data": data, "annotations": [{"result": result, **annotation}]}


def region(start=40, end=45, label="Retracement"):
    return {"start": start, "end": end, "timeserieslabels": [label]}


def read(tmp_path, *tasks, **options):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    return load_labels(path, **options).table


def test_what_an_annotator_marked_there_is_read(tmp_path):
    by = {"completed_by": 3, "lead_time": 4.25, "created_at": "2024-05-01T10:00:00Z"}
    table = read(tmp_path, task(region(40.4, 45.6), region(60, 70, "consolidation"), **by))
    assert table["window_id"].tolist() == ["NQH4-20240308-1900"] * 2
    assert table[["expansion_start", "expansion_end"]].to_numpy(int).tolist() == [[40, 46], [60, 70]]
    assert table["label"].tolist() == ["retracement", "consolidation"]
    assert set(table["annotator"]) == {"label-studio:3"} and set(table["seconds"]) == {4.25}
    assert set(table["labelled_at"]) == {pd.Timestamp("2024-05-01 10:00", tz="UTC")}


@pytest.mark.parametrize("as_time", [
    lambda stamp: stamp.isoformat(),
    lambda stamp: stamp.timestamp(),
    lambda stamp: stamp.timestamp() * 1000 + 12_345.6,  # a drag ends between two bars
])  # fmt: skip
def test_times_lead_to_the_nearest_bars_also_where_minutes_are_missing(tmp_path, tiny, as_time):
    frame = tiny.frame.iloc[:180].drop(tiny.frame.index[10:13])
    marked = task(region(as_time(frame.index[40]), as_time(frame.index[45])))
    from_bars = read(tmp_path, marked, frame=frame)
    marked["data"]["ts"] = {"time": [stamp.isoformat() for stamp in frame.index[:105]]}
    for table in (from_bars, read(tmp_path, marked)):
        assert table[["expansion_start", "expansion_end"]].to_numpy(int).tolist() == [[40, 45]]


def test_a_second_annotation_is_a_reading_of_its_own_and_a_cancelled_one_none(tmp_path):
    first = task(region(40, 45), completed_by=1)
    first["annotations"] += [{"was_cancelled": True, "result": []}, {"result": [], "completed_by": 2}]
    untouched = {"data": {"symbol": "NQH4", "window_start": "2024-03-08T19:00:00Z"}, "annotations": []}
    table = read(tmp_path, first, untouched)
    assert table["window_id"].tolist() == ["NQH4-20240308-1900", "NQH4-20240308-1900~2"]
    assert table["label"].tolist() == ["retracement", "none"]  # the second annotator marked nothing
    assert table["annotator"].tolist() == ["label-studio:1", "label-studio:2"]


def test_a_region_drawn_beside_ours_does_not_take_its_columns(table, tmp_path):
    path = tmp_path / "labels.json"
    write_label_studio(table, path)
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"][0]["result"].append({"type": "timeserieslabels", "value": region(80, 82)})
    path.write_text(json.dumps(tasks))
    read_back = load_labels(path).table.set_index("expansion_start")
    assert read_back.loc[40, "annotator"] == "me" and pd.isna(read_back.loc[80, "annotator"])


MALFORMED = {
    "is no list of tasks with `data`; export": [{"image": "x"}],
    "task 7: label ['Breakout'] is not one of consolidation, retracement": task(region(label="Breakout")),
    "task 7: label [] is not one of": task({"start": 1, "end": 2, "timeserieslabels": []}),
    "task 7: the region from bar 90 to 140 is not within 0..104": task(region(90, 140)),
    "task 7: the region from bar 50 to 40 is not within 0..104": task(region(50, 40)),
    "task 7: start = None is neither a bar nor a time": task(region(None)),
    "task 1 in the list: annotations.0.result.0.value.end = True cannot be read": task(region(end=True)),
    "task 1 in the list: annotations.0.result = 'x' cannot be read": {"data": {}, "annotations": [{"result": "x"}]},
    "holds no times (ts.time); give the bars with --bars": task(region("2024-03-08T19:40:00Z")),
    "task 7: 'teatime' is not a time": task(region("teatime"), data={"ts": {"time": ["2024-03-08T19:00:00Z"]}}),
    "lies outside the window that begins at": task(
        region("2025-03-08T19:40:00Z"), data={"ts": {"time": ["2024-03-08T19:00:00Z"]}}
    ),
    "task 7: the time '2024-03-08 19:00' carries no zone": task(region(), data={"window_start": "2024-03-08 19:00"}),
    "task 7: `data` names no symbol": task(region(), data={"symbol": None}),
    "holds neither window_start nor times": task(region(), data={"window_start": None}),
    "export the project from Label Studio as JSON": {"id": 7, "data": "x"},
}


@pytest.mark.parametrize("sentence", MALFORMED)
def test_malformed_json_is_a_sentence_with_file_task_and_value(tmp_path, sentence):
    with pytest.raises(UserError) as caught:
        read(tmp_path, MALFORMED[sentence])
    assert sentence in str(caught.value) and str(tmp_path / "export.json") in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def places_in(node, path=()):
    """Yield the path of every value in a JSON document."""
    yield path
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, part in parts:
        yield from places_in(part, (*path, name))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_the_place_of_any_other_is_read_or_refused_in_a_sentence(tmp_path, data):
    ours = {"tool": "moola", "annotator": "me", "seconds": 1.5, "start_low": 39, "labelled_at": "2024-05-01T10:00:00Z"}
    document = [task(region(), completed_by=3, data={"ts": {"time": ["2024-03-08T19:00:00Z"]}, "window_id": "w"})]
    document[0]["annotations"][0]["result"][0]["meta"] = ours
    *path, last = data.draw(st.sampled_from([path for path in places_in(document) if path]))
    node = document
    for name in path:
        node = node[name]
    node[last] = data.draw(JSON)
    path = tmp_path / "export.json"
    path.write_text(json.dumps(document))
    try:
        table = load_labels(path).table
    except UserError as error:
        assert "\n" not in str(error)[:200]
    else:
        pd.testing.assert_frame_equal(check_labels(table), table)


def test_an_export_without_an_answer_holds_no_labels(tmp_path):
    with pytest.raises(UserError, match="holds no labels"):
        read(tmp_path, {"data": {"symbol": "NQ", "window_start": "2024-03-08T19:00:00Z"}})


def test_csv_that_breaks_a_rule_is_refused_with_the_row(table, tmp_path):
    path = tmp_path / "labels.csv"
    write_table(table, path)
    path.write_text(path.read_text().replace(",40,45,", ",40,450,"))
    with pytest.raises(UserError, match=r"labels.csv breaks the rules .*row 1: span 40..450"):
        load_labels(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00bad", b'a,b\n"1,2\n3'])
def test_a_file_that_is_no_csv_is_a_sentence(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"labels.csv (cannot be read as CSV|lacks the column)"):
        load_labels(tmp_path / "labels.csv")


def test_windows_that_are_not_in_the_bars_cannot_be_shown(table, tiny, tmp_path):
    moved = check_labels(table.assign(window_start=table["window_start"] + np.timedelta64(1, "s")))
    with pytest.raises(UserError, match=r"window a .* does not lie in the bars"):
        write_label_studio(moved, tmp_path / "labels.json", tiny.frame)
    assert not list(tmp_path.iterdir())
