"""Labels as they were trained on: named by their content, never overwritten, compared window by window."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.labels import check_labels, labels_from_planted, load_labels, save_labels
from moola_lib.labels.snapshots import compare_labels, fingerprint_labels, read_snapshot, snapshot_labels


@pytest.fixture(scope="module")
def labels(market):
    return labels_from_planted(market.planted, symbol="SIM", n_windows=12)


def edited(labels, row, **values):
    table = labels.copy()
    for name, value in values.items():
        table.loc[row, name] = value
    return check_labels(table)


def test_only_what_is_learned_from_counts(labels):
    known = fingerprint_labels(labels)
    shuffled = labels.sample(frac=1, random_state=1).reset_index(drop=True)
    assert fingerprint_labels(shuffled) == known
    told = edited(labels, 3, annotator="Ann", seconds=4.5, labelled_at=pd.Timestamp("2024-05-01", tz="UTC"))
    assert fingerprint_labels(told) == known
    other = "retracement" if labels["label"][3] == "consolidation" else "consolidation"
    changes = [
        {"expansion_end": labels["expansion_end"][3] + 1},
        {"label": other},
        {"window_start": labels["window_start"][3] + pd.Timedelta(minutes=1)},
        {"symbol": "NQ"},
    ]
    found = {fingerprint_labels(edited(labels, 3, **change)) for change in changes}
    assert len(found | {known}) == 5


def test_a_snapshot_is_written_once_and_reads_back(labels, tmp_path):
    facts = snapshot_labels(labels, tmp_path)
    path = tmp_path / f"{facts['fingerprint']}.parquet"
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert snapshot_labels(labels.iloc[::-1], tmp_path) == facts
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    pd.testing.assert_frame_equal(read_snapshot(tmp_path, facts["fingerprint"]), labels, check_dtype=False)
    assert facts["n_windows"] == 12 and sum(facts["by_state"].values()) == 12 and not facts["is_proposed"]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_snapshot_that_holds_something_else_is_refused_and_kept(labels, tmp_path):
    path = tmp_path / f"{fingerprint_labels(labels)}.parquet"
    save_labels(labels.iloc[1:], path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="holds other labels than its name says"):
        snapshot_labels(labels, tmp_path)
    path.write_bytes(before[:200])
    with pytest.raises(UserError, match="cannot be read"):
        snapshot_labels(labels, tmp_path)
    assert path.read_bytes() == before[:200]
    with pytest.raises(UserError, match="does not exist"):
        read_snapshot(tmp_path, "0" * 16)


def test_a_table_that_went_through_a_file_keeps_its_fingerprint(labels, tmp_path):
    save_labels(labels, tmp_path / "labels.parquet")
    assert fingerprint_labels(load_labels(tmp_path / "labels.parquet").table) == fingerprint_labels(labels)


def test_changes_are_counted_in_windows(labels):
    nothing = check_labels(labels.iloc[:1].assign(label="none", expansion_start=np.nan, expansion_end=np.nan))
    more = labels.iloc[[0, 1, 2]].assign(window_id=["x", "y", "z"])
    twice = labels.iloc[[5]].assign(expansion_start=100, expansion_end=102)  # a second expansion in a window
    newer = check_labels(pd.concat([nothing, labels.iloc[2:], more, twice]))
    assert str(compare_labels(labels, newer)) == "+3 −1 ~2 windows"
    assert str(compare_labels(newer, labels)) == "+1 −3 ~2 windows"
    assert str(compare_labels(labels, labels.iloc[::-1])) == "+0 −0 ~0 windows"
