"""moola labels: any format in, checked, any format out, with the audit's counts; nothing half-written."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.cli import main
from moola_lib.labels import check_labels, load_labels, save_labels
from moola_lib.market import save_bars


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch):
    """labels.parquet, bars.parquet and old.parquet (the older layout of the same labels); returns the table too."""
    table = check_labels(
        pd.DataFrame(
            {
                "window_id": ["a", "b"], "symbol": "NQH4", "window_start": tiny.frame.index[[0, 200]],
                "expansion_start": [40, 60], "expansion_end": [45, 104], "label": ["consolidation", "retracement"],
            }
        )
    )  # fmt: skip
    save_labels(table, tmp_path / "labels.parquet")
    save_bars(tiny.bars, tmp_path / "bars.parquet")
    prices = tiny.frame[["open", "high", "low", "close"]].to_numpy(np.float32)
    older = table[["window_id", "expansion_start", "expansion_end", "label"]]
    older.assign(features=[list(prices[at : at + 105]) for at in (0, 200)]).to_parquet(tmp_path / "old.parquet")
    monkeypatch.chdir(tmp_path)
    return table


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
@pytest.mark.parametrize("bars", [[], ["--bars", "bars.parquet"]])
def test_labels_go_to_every_format_and_back(folder, capsys, ending, bars):
    assert main(["labels", "labels.parquet", "-o", f"out.{ending}", *bars]) == 0
    printed = capsys.readouterr().out
    assert "2 windows (2 rows), in out." in printed and "end outside the inner bars" in printed
    assert ("<TimeSeriesLabels" in printed) == (ending == "json")
    assert main(["labels", f"out.{ending}", "-o", "back.parquet"]) == 0
    pd.testing.assert_frame_equal(load_labels("back.parquet").table, folder, check_dtype=False)


def test_the_older_layout_finds_its_stamps_in_the_bars(folder, capsys):
    assert main(["labels", "old.parquet", "-o", "new.csv", "--bars", "bars.parquet"]) == 0
    pd.testing.assert_frame_equal(load_labels("new.csv").table, folder)


def test_without_an_output_labels_are_checked(folder, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    assert main(["labels", "old.parquet"]) == 0
    assert "2 windows (2 rows), no violation" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["absent.csv"], "absent.csv does not exist"),
        (["."], ". is a folder; give the file"),
        (["labels.parquet", "-o", "out.xlsx"], "no known ending"),
        (["labels.parquet", "-o", "bars.parquet"], "bars.parquet exists; choose another name"),
        (["old.parquet", "-o", "out.csv"], "older layout, without time stamps; give the bars"),
        (["bars.parquet", "-o", "out.csv"], "bars.parquet lacks the columns window_id"),
        (["labels.parquet", "-o", "out.json", "--bars", "old.parquet"], "moola: "),
        (["labels.parquet", "-o", "absent.csv/out.csv"], "cannot write"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(folder, tmp_path, capsys, words, sentence):
    (tmp_path / "absent.csv").touch() if words[-1].startswith("absent.csv/") else None
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(["labels", *words]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_older_windows_that_are_not_in_the_bars_are_counted(folder, tiny, capsys):
    frame = tiny.frame.iloc[:150]
    save_bars(type(tiny.bars)(frame, tiny.bars.report), "short.parquet")
    assert main(["labels", "old.parquet", "-o", "new.csv", "--bars", "short.parquet"]) == 2
    assert "1 of 2 windows of the older layout are not in the bars (the first is b)" in capsys.readouterr().err
