"""Windows are views of the table, inside segments, with their labels."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moola_lib.errors import UserError
from moola_lib.features import build_features
from moola_lib.labels import check_labels, expansion_targets, labels_from_planted
from moola_lib.market import segment_starts
from moola_lib.windows import place_labels, window_places
from moola_lib.windows.gather import WindowGatherer, density_by_step


def test_gathering_equals_fancy_indexing(table, gather):
    places = torch.tensor([0, 7, 1300, 7, len(table) - 105])
    x, is_valid = gather(places)
    rows = places.numpy()[:, None] + np.arange(105)
    expected = np.where(table.is_valid[rows][..., None], table.values[rows], 0)
    np.testing.assert_array_equal(x.numpy(), expected)
    np.testing.assert_array_equal(is_valid.numpy(), table.is_valid[rows])
    assert x.dtype == torch.float32 and is_valid.dtype == torch.bool


def test_invalid_rows_enter_as_zero(table, gather):
    assert table.values[:20].any()
    x, is_valid = gather(torch.tensor([0]))
    assert not is_valid[0, :20].any() and is_valid[0, 20:].all()
    assert (x[0, :20] == 0).all() and (x[0, 20:] != 0).any()


def test_the_table_is_held_once(gather, table):
    assert gather._values_view.data_ptr() == gather.values.data_ptr()
    assert gather.values.numel() == table.values.size


def test_position_is_appended_last_and_only_when_asked(table, gather):
    with_position = WindowGatherer(table, with_position=True)
    places = torch.tensor([30, 900])
    x, _ = with_position(places)
    assert with_position.n_features == gather.n_features + 1 == 12
    assert with_position.names == (*table.names, "position") and gather.names == table.names
    torch.testing.assert_close(x[:, :, -1], (torch.arange(105) / 104).expand(2, -1))
    assert torch.equal(x[:, :, :-1], gather(places)[0])
    x, is_valid = with_position(torch.tensor([0]))  # a segment's first bars are not valid yet
    assert not is_valid[0, :20].any() and (x[0, :20] == 0).all() and (x[0, 20:, -1] > 0).all()


def test_a_series_shorter_than_a_window_is_a_sentence(tiny):
    short = build_features(tiny.frame.iloc[:104])
    with pytest.raises(UserError, match="104 bars, fewer than one window of 105"):
        WindowGatherer(short)
    assert len(WindowGatherer(build_features(tiny.frame.iloc[:105]))(torch.tensor([0]))[0]) == 1


SEGMENTS = st.lists(st.integers(1, 30), min_size=1, max_size=8)


@given(SEGMENTS, st.integers(1, 12), st.integers(1, 5))
def test_places_are_exactly_those_inside_one_segment(lengths, window_bars, stride):
    starts = np.cumsum([0, *lengths[:-1]])
    n = sum(lengths)
    segment = np.repeat(np.arange(len(lengths)), lengths)
    fitting = [p for p in range(n - window_bars + 1) if segment[p] == segment[p + window_bars - 1]]
    wanted = [p for p in fitting if (p - starts[segment[p]]) % stride == 0]
    if not fitting:
        with pytest.raises(UserError, match=f"no window of {window_bars} bars fits"):
            window_places(starts, n, stride=stride, window_bars=window_bars)
        return
    places, n_lost = window_places(starts, n, stride=stride, window_bars=window_bars)
    assert places.tolist() == wanted
    assert n_lost == max(n - window_bars + 1, 0) - len(fitting)


def test_no_window_of_the_tiny_bars_crosses_a_break(tiny):
    starts = segment_starts(tiny.frame)
    places, n_lost = window_places(starts, len(tiny.frame))
    for edge in starts[1:]:
        assert not ((places < edge) & (places + 105 > edge)).any()
    assert len(places) + n_lost == len(tiny.frame) - 104


def test_labels_land_on_the_bars_they_were_made_on(market, labelled):
    frame = market.bars.frame
    planted = market.planted.set_index("window_start_ts")
    for row in range(len(labelled)):
        truth = planted.loc[frame.index[labelled.place[row]]]
        assert frame.index[labelled.place[row] + labelled.start[row]] == truth["start_ts"]
        assert frame.index[labelled.place[row] + labelled.end[row]] == truth["end_ts"]
        assert ("consolidation", "retracement")[labelled.state[row]] == truth["state"]
    assert (np.diff(labelled.place) > 0).all()


def make_table(frame, rows):
    columns = ["window_id", "window_start", "expansion_start", "expansion_end", "label"]
    table = pd.DataFrame(rows, columns=columns).assign(symbol=frame["symbol"].iloc[0])
    table["window_start"] = [frame.index[p] if isinstance(p, int) else p for p in table["window_start"]]
    return check_labels(table)


def test_several_expansions_and_none_are_kept_apart(tiny):
    table = make_table(
        tiny.frame,
        [
            ("two", 10, 40, 45, "retracement"),
            ("two", 10, 60, 70, "retracement"),
            ("empty", 200, None, None, "none"),
        ],
    )
    windows, lost = place_labels(table, tiny.frame, segment_starts(tiny.frame))
    assert len(lost) == 0 and windows.window_id.tolist() == ["two", "empty"]
    assert windows.spans.tolist() == [[[40, 45], [60, 70]], [[-1, -1], [-1, -1]]]
    assert windows.has_expansion.tolist() == [True, False]
    assert windows.start.tolist() == [40, -1] and windows.state.tolist() == [1, 2]
    targets = windows.targets()
    np.testing.assert_array_equal(targets["inside"][0], expansion_targets(40, 45).mask)  # the first only
    for name in ("inside", "countdown", "pointers"):
        assert not targets[name][1].any()


def test_windows_that_cannot_be_placed_are_listed_with_a_reason(tiny):
    frame = tiny.frame
    table = make_table(
        frame,
        [
            ("good", 0, 40, 45, "retracement"),
            ("gap", tiny.weekend - 50, 40, 45, "retracement"),
            ("late", len(frame) - 50, 40, 45, "retracement"),
            ("unknown", frame.index[0] - pd.Timedelta(days=1), 40, 45, "retracement"),
        ],
    )
    windows, lost = place_labels(table, frame, segment_starts(frame))
    assert windows.window_id.tolist() == ["good"]
    reasons = lost.set_index("window_id")["reason"]
    assert "gap or roll" in reasons["gap"] and "series ends" in reasons["late"] and "no bar at" in reasons["unknown"]


def test_labels_of_another_symbol_are_refused(market, tiny):
    table = labels_from_planted(market.planted, symbol="SIM", n_windows=10)
    with pytest.raises(UserError, match="labels are for SIM, the bars are NQH4"):
        place_labels(table, tiny.frame, segment_starts(tiny.frame))


def test_labels_of_another_time_are_refused(market, tiny):
    table = labels_from_planted(market.planted, symbol="NQH4", n_windows=10)
    with pytest.raises(UserError, match="none of the 10 labelled windows lies in the bars"):
        place_labels(table, tiny.frame, segment_starts(tiny.frame))


def test_taking_rows_keeps_every_column_aligned(labelled):
    rows = np.array([3, 1])
    part = labelled.take(rows)
    for name in labelled.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(part, name), getattr(labelled, name)[rows])


def test_targets_are_those_of_each_span(labelled):
    targets = labelled.targets()
    known = expansion_targets(labelled.start, labelled.end)
    np.testing.assert_array_equal(targets["countdown"], known.countdown)
    np.testing.assert_allclose(targets["pointers"][:, 0], known.centre, atol=1e-7)
    assert {name: str(value.dtype) for name, value in targets.items()} == {
        "pointers": "float32",
        "inside": "float32",
        "countdown": "float32",
        "type": "int64",
        "has_expansion": "bool",
    }


def test_density_sees_each_time_step(table):
    values = np.zeros_like(table.values)
    values[500] = 1.0  # one bar only
    gather = WindowGatherer(type(table)(**{**vars(table), "values": values}))
    density = density_by_step(gather, np.array([500 - 104, 500 - 50]))
    assert density.shape == (105, 11)
    assert (density[104] == 0.5).all() and (density[50] == 0.5).all() and density.sum() == 11
