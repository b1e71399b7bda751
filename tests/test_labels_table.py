"""The label table: both layouts, every violation, the simulator's labels."""

import warnings

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.labels import check_labels, labels_from_planted, load_labels, save_labels
from moola_lib.labels.older import find_stamps
from moola_lib.labels.table import OPTIONAL, REQUIRED, find_violations
from moola_lib.market import segment_starts, simulate_bars

OHLC = ["open", "high", "low", "close"]


@pytest.fixture
def good():
    return pd.DataFrame(
        {
            "window_id": ["a", "b", "b", "c"],
            "symbol": "NQ",
            "window_start": pd.to_datetime(
                ["2024-01-02 15:00", *["2024-01-02 17:00"] * 2, "2024-01-03 15:00"], utc=True
            ),
            "expansion_start": [40, 32, 60, None],
            "expansion_end": [45, 39, 104, None],
            "label": ["consolidation", "retracement", "retracement", "none"],
        }
    )


@pytest.fixture
def older(tiny):
    """Three windows in the layout without stamps."""
    prices = tiny.frame[OHLC].to_numpy()
    windows = [prices[first : first + 105] for first in (0, 200, 320)]
    return pd.DataFrame(
        {
            "features": [[np.array(bar) for bar in window] for window in windows],
            "expansion_start": [40, 50, 60],
            "expansion_end": [45, 50, 75],
            "label": ["consolidation", "retracement", "consolidation"],
        }
    )


def test_a_good_table_passes_and_gets_every_column(good):
    table = check_labels(good)
    assert list(table.columns) == [*REQUIRED, *OPTIONAL]
    assert table["expansion_start"].tolist()[:3] == [40, 32, 60] and table["expansion_start"].isna()[3]
    assert str(table["expansion_start"].dtype) == "Int64"
    assert str(table["window_start"].dt.tz) == "UTC"


def test_checking_is_idempotent(good):
    table = check_labels(good)
    pd.testing.assert_frame_equal(check_labels(table), table)


def test_a_saved_table_comes_back(good, tmp_path):
    table = check_labels(good.assign(annotator="me", source="hand", seconds=[1.0, 2.5, None, 4.0]))
    save_labels(table, tmp_path / "labels.parquet")
    labels = load_labels(tmp_path / "labels.parquet")
    pd.testing.assert_frame_equal(labels.table, table, check_dtype=False)
    assert labels.n_windows == 3 and labels.bars is None and not labels.is_proposed


VIOLATIONS = [
    ("expansion_start", 0, 46, "row 1: span 46..45 is not within 0..104"),
    ("expansion_start", 0, -1, "row 1: span -1..45 is not within 0..104"),
    ("expansion_end", 2, 105, "row 3: span 60..105 is not within 0..104"),
    ("expansion_end", 1, None, "row 2: span 32..empty is not within 0..104"),
    ("expansion_start", 1, 32.5, "row 2: expansion_start = 32.5 is not a whole bar"),
    ("expansion_end", 1, "late", "row 2: expansion_end = 'late' is not a whole bar"),
    ("label", 0, "breakout", "row 1: label = 'breakout' is not one of consolidation, retracement, none"),
    ("label", 0, None, "row 1: label ="),
    ("label", 0, "none", "row 1: label is none but a span 40..45 is given"),
    ("window_start", 3, None, "row 4: window_start is empty"),
    ("window_id", 0, None, "row 1: window_id is empty"),
    ("symbol", 1, None, "row 2: symbol is empty"),
    ("symbol", 1, "ES", "window b: 2 different symbol"),
    ("start_low", 0, 41.0, "row 1: soft start 41..40 is not within 0..104"),
    ("end_high", 2, 105, "row 3: soft end empty..105 is not within 0..104"),
    ("seconds", 3, "long", "row 4: seconds = 'long' is not a number"),
    ("expansion_start", 2, 32, "row 3: the key (window_id, expansion_start) = (b, 32) occurs twice"),
]


def with_cell(frame, column, row, value):
    if column in OPTIONAL:
        frame = frame.assign(**{column: None, "start_high": 40})
    frame = frame.astype({column: object}) if column != "window_start" else frame.copy()
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(("column", "row", "value", "sentence"), VIOLATIONS)
def test_each_violation_is_named_with_its_row_and_value(good, column, row, value, sentence):
    with pytest.raises(UserError) as caught:
        check_labels(with_cell(good, column, row, value), source="labels.parquet")
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("labels.parquet breaks the rules of a label table in ")


def test_all_violations_are_listed_at_once(good):
    frame = with_cell(with_cell(good, "label", 0, "up"), "expansion_end", 2, 400)
    with pytest.raises(UserError, match=r"in 2 place\(s\).*row 1: label = 'up'.*row 3: span 60..400"):
        check_labels(frame)


def test_violations_are_listed_as_a_frame_too(good):
    frame = with_cell(with_cell(good, "label", 0, "up"), "expansion_end", 2, 400)
    found = find_violations(frame)
    assert found["where"].tolist() == ["row 1", "row 3"] and "span 60..400" in found["violation"][1]
    assert find_violations(good).empty


def test_missing_columns_are_named(good):
    with pytest.raises(UserError, match="lacks the columns symbol, label"):
        check_labels(good.drop(columns=["symbol", "label"]))


def test_a_stamp_that_is_no_time_is_a_sentence(good):
    with pytest.raises(UserError, match="row 1: window_start = 'teatime' is not a time"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_labels(good.assign(window_start="teatime"))


def test_stamps_may_differ_in_how_fine_they_are(good):
    texts = ["2024-05-01T10:00:00+00:00", "2024-05-01T10:00:00.123+00:00", None, "2024-05-01T12:00:00+02:00"]
    read = check_labels(good.assign(labelled_at=texts))["labelled_at"]
    assert read[0] == read[3] and read[1] - read[0] == pd.Timedelta("123ms") and pd.isna(read[2])


@pytest.mark.parametrize("stamp", ["teatime", 0, 2.5, "0001-01-01", {"at": 1}])
def test_a_time_of_labelling_that_is_no_time_is_a_sentence(good, stamp):
    with pytest.raises(UserError, match=r"row 2: labelled_at = .* is not a time like 2024"):
        check_labels(good.assign(labelled_at=[None, stamp, None, None]))


def test_the_older_layout_brings_its_own_bars(older, tmp_path, tiny):
    older.to_parquet(tmp_path / "old.parquet")
    labels = load_labels(tmp_path / "old.parquet")
    assert labels.n_windows == 3
    assert labels.table["expansion_end"].tolist() == [45, 50, 75]
    np.testing.assert_array_equal(labels.bars.frame[OHLC].to_numpy()[105:210], tiny.frame[OHLC].to_numpy()[200:305])
    first = labels.bars.frame.index.get_indexer(labels.table["window_start"])
    assert first.tolist() == [0, 105, 210]  # each window is a segment of its own
    assert segment_starts(labels.bars.frame).tolist() == [0, 105, 210]


def test_older_windows_with_the_same_bars_are_one_window_labelled_twice(older, tmp_path):
    again = older.iloc[[1]].assign(expansion_start=48)
    pd.concat([older, again], ignore_index=True).to_parquet(tmp_path / "old.parquet")
    labels = load_labels(tmp_path / "old.parquet")
    assert labels.n_windows == 4 and len(labels.bars) == 3 * 105
    stamps = labels.table["window_start"]
    assert stamps[1] == stamps[3] and stamps.nunique() == 3


def test_older_windows_are_found_in_a_series_by_their_bars(older, tmp_path, tiny):
    other = [bar + 5 for bar in older["features"][2]]
    narrow = [[bar.astype(np.float32) for bar in window] for window in (*older["features"][:2], other)]
    older.assign(features=narrow).to_parquet(tmp_path / "old.parquet")
    own = load_labels(tmp_path / "old.parquet")
    found = find_stamps(own.bars.frame, tiny.frame)[own.table["window_start"]]
    assert found[:2].tolist() == tiny.frame.index[[0, 200]].tolist() and found.isna().tolist() == [False, False, True]


@pytest.mark.parametrize("cut", [lambda window: window[:104], lambda window: [bar[:3] for bar in window]])
def test_an_older_window_of_another_shape_is_refused(older, tmp_path, cut):
    older.assign(features=[cut(window) for window in older["features"]]).to_parquet(tmp_path / "old.parquet")
    with pytest.raises(UserError, match="must hold 105 rows of"):
        load_labels(tmp_path / "old.parquet")


def test_an_older_window_with_uneven_rows_is_refused(older, tmp_path):
    older.at[1, "features"] = [np.array([1.0, 2.0]), *older.at[1, "features"][1:]]
    older.to_parquet(tmp_path / "old.parquet")
    with pytest.raises(UserError, match="must hold 105 rows of"):
        load_labels(tmp_path / "old.parquet")


@pytest.mark.parametrize(("content", "sentence"), [(None, "does not exist"), (b"PAR1", "cannot be read as parquet")])
def test_unreadable_files_are_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "labels.parquet"
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        load_labels(path)


def test_an_empty_file_is_a_sentence(good, tmp_path):
    good.iloc[:0].to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(UserError, match="holds no labels"):
        load_labels(tmp_path / "labels.parquet")


@pytest.fixture(scope="module")
def plan():
    return simulate_bars(n_sessions=40, seed=11)


def test_simulated_labels_keep_the_notes_proportions(plan):
    table = labels_from_planted(plan.planted, symbol="SIM")
    assert table["label"].value_counts().to_dict() == {"consolidation": 81, "retracement": 93}
    assert table["window_start"].is_monotonic_increasing
    assert (table["source"] == "simulated").all() and table["window_id"].is_unique


def test_simulated_labels_say_where_the_spans_were_planted(plan):
    table = labels_from_planted(plan.planted, symbol="SIM", n_windows=50)
    planted = plan.planted.set_index("window_start_ts").loc[table["window_start"]]
    minute = pd.Timedelta(minutes=1)
    start = table["window_start"] + table["expansion_start"].astype(int) * minute
    end = table["window_start"] + table["expansion_end"].astype(int) * minute
    assert (start.to_numpy() == planted["start_ts"].to_numpy()).all()
    assert (end.to_numpy() == planted["end_ts"].to_numpy()).all()
    assert table["label"].tolist() == planted["state"].tolist()


def test_labels_may_begin_late_and_are_reproducible(plan):
    first = plan.planted["window_start_ts"].iloc[100]
    one, two = (labels_from_planted(plan.planted, symbol="SIM", n_windows=60, first_ts=first) for _ in range(2))
    assert (one["window_start"] >= first).all()
    pd.testing.assert_frame_equal(one, two)


def test_too_few_planted_windows_are_a_sentence(plan):
    with pytest.raises(UserError, match=r"simulated windows hold a consolidation, \d+ are needed"):
        labels_from_planted(plan.planted, symbol="SIM", n_windows=1000)
