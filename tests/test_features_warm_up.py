"""Windows cut out of their series: with their segment's bars before them the same, without them nearly or not."""

import numpy as np
import pandas as pd
import pytest
from feature_reference import sample_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from test_features_properties import SAMPLE, VARIANTS

from moola_lib.features import build_features
from moola_lib.features.warm_up import compare_cold_to_warm, count_cold_rows
from moola_lib.labels import load_labels
from moola_lib.windows import window_places

WINDOW = 105
quick = settings(max_examples=30, deadline=None, derandomize=True)
LONG, _ = sample_frame(n_bars=3000, seed=4)
# of relativity11: the bar's own shape; of the older set: all, for no column looks back more than 19 bars
SHORT_MEMORY = {
    "relativity11": {"open_norm", "close_norm", "body_pct", "upper_wick_pct", "lower_wick_pct"},
    "relative_transform11": set(build_features(SAMPLE, "relative_transform11").names),
    "ohlc4": {"open", "high", "low", "close"},
}


def places_in(frame):
    table = build_features(frame)
    return window_places(table.starts, len(table))[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_its_whole_segment_before_it_nothing_differs(variant):
    found = compare_cold_to_warm(LONG, places_in(LONG)[::50], window_bars=WINDOW, n_before=None, **VARIANTS[variant])
    assert (found["equal_share"] == 1).all() and (found["largest_difference"] == 0).all()
    assert (found["n_rows"] > 0).all()


@pytest.mark.parametrize("feature_set", SHORT_MEMORY)
def test_twenty_bars_suffice_for_columns_with_a_short_memory(feature_set):
    found = compare_cold_to_warm(
        LONG, places_in(LONG)[::50], window_bars=WINDOW, n_before=20, feature_set=feature_set
    ).set_index("feature")
    assert set(found.index[found["equal_share"] == 1]) == SHORT_MEMORY[feature_set]


def test_more_bars_before_bring_a_window_nearer_to_its_series():
    places = places_in(LONG)[::50]
    shares, ranges = [], []
    for n_before in (0, 20, 105, 400):
        found = compare_cold_to_warm(LONG, places, window_bars=WINDOW, n_before=n_before).set_index("feature")
        shares.append(found.loc["bars_since_SH_norm", "equal_share"])
        ranges.append(found.loc["range_z", "largest_difference"])
    assert shares == sorted(shares) and shares[0] < 0.99 < shares[-1]
    # the running mean's start fades by 19/21 a bar; with none before, only rows from the twentieth on are compared
    assert ranges[1:] == sorted(ranges[1:], reverse=True)
    assert ranges[1] > 0.01 > 1e-3 > ranges[2]


@quick
@given(data=st.data())
def test_a_cut_window_equals_the_batch_of_its_bars(data):
    place = data.draw(st.sampled_from(places_in(LONG).tolist()))
    n_before = data.draw(st.integers(0, 200))
    warm = build_features(LONG)
    first = max(place - n_before, warm.starts[warm.starts <= place].max())
    cold = build_features(LONG.iloc[first : place + WINDOW])
    rows = cold.is_valid[place - first :] & warm.is_valid[place : place + WINDOW]
    ours, theirs = cold.values[place - first :][rows], warm.values[place : place + WINDOW][rows]
    found = compare_cold_to_warm(LONG, [place], window_bars=WINDOW, n_before=n_before)
    assert (found["n_rows"] == rows.sum()).all()
    assert np.allclose(found["equal_share"], (ours == theirs).mean(axis=0))
    assert np.allclose(found["largest_difference"], np.abs(ours - theirs).max(axis=0))


def test_rows_that_are_not_valid_are_counted():
    table = build_features(LONG)
    first, inside = int(table.starts[1]), int(table.starts[1]) + 50
    found = count_cold_rows(table, [first, first + 8, inside], window_bars=WINDOW)
    assert found.loc["warm"].tolist() == [3 * 105, 20 + 12, 32 / 315, 2]
    assert found.loc["cold"].tolist() == [3 * 105, 60, 60 / 315, 3]


def test_no_windows_touch_no_rows():
    table = build_features(LONG)
    assert (count_cold_rows(table, np.empty(0, int), window_bars=WINDOW) == 0).all(axis=None)
    found = compare_cold_to_warm(LONG, [], window_bars=WINDOW)
    assert (found["n_rows"] == 0).all() and found["equal_share"].isna().all()


def test_the_older_label_layout_is_cold(tmp_path):
    # its windows carry their bars and no stamps: each is read as a segment of its own
    places = places_in(LONG)[::200]
    prices = LONG[["open", "high", "low", "close"]].to_numpy()
    windows = [prices[place : place + WINDOW].tolist() for place in places]
    spans = {"expansion_start": 40, "expansion_end": 45, "label": "retracement"}
    pd.DataFrame({"features": windows, "symbol": "NQH4", **spans}).to_parquet(tmp_path / "older.parquet")
    labels = load_labels(tmp_path / "older.parquet")
    cold = build_features(labels.bars)
    assert cold.starts.tolist() == list(range(0, len(places) * WINDOW, WINDOW))
    counts = count_cold_rows(cold, cold.starts, window_bars=WINDOW)
    assert (
        counts.loc["warm"].tolist()
        == counts.loc["cold"].tolist()
        == [len(places) * 105, len(places) * 20, 20 / 105, len(places)]
    )
    alone = [build_features(LONG.iloc[place : place + WINDOW]) for place in places]
    assert cold.values.tobytes() == b"".join(one.values.tobytes() for one in alone)
