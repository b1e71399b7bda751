"""`moola evaluate`: figures of the detections, days that were trained on left out, faults in a sentence."""

import json

import numpy as np
import pandas as pd
import pytest
from test_runs_predicting import save_linear

from moola_lib.cli import main
from moola_lib.features import build_features
from moola_lib.features.drift import describe_distributions
from moola_lib.labels import check_labels, labels_from_planted, load_labels, save_labels
from moola_lib.market import save_bars, simulate_bars, trade_dates
from moola_lib.runs.evaluating import evaluate_bars

N_LABELS = 30


@pytest.fixture(scope="module")
def market():
    return simulate_bars(n_sessions=6, seed=8)


@pytest.fixture
def here(tmp_path, market, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    save_linear(tmp_path / "data" / "models" / "first")
    save_bars(market.bars, tmp_path / "bars.parquet")
    save_labels(labels_from_planted(market.planted, symbol="SIM", n_windows=N_LABELS), tmp_path / "labels.parquet")
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def note(here, **notes):
    path = here / "data" / "models" / "first" / "model.json"
    card = json.loads(path.read_text())
    card["notes"] = {**card["notes"], **notes}
    path.write_text(json.dumps(card))


def test_it_prints_what_the_detections_are_worth(here, market, capsys):
    table = build_features(market.bars)
    note(here, distributions=describe_distributions(table, market.bars.frame.index))
    assert main(["evaluate", "first", "bars.parquet", "labels.parquet", "--threshold", "0.1"]) == 0
    shown = capsys.readouterr().out
    for words in ("Detections by part of the day", "recall", "What followed, in ATR", "stable", "no promise"):
        assert words in shown
    told = evaluate_bars("bars.parquet", "first", "labels.parquet", threshold=0.1)
    every = told["detections"].set_index("group").loc["all"]
    assert every["n_labelled"] == N_LABELS and every["n_found"] > 0
    assert (told["drift"]["psi"] == 0).all()


def test_every_expansion_of_a_window_is_to_be_found(here):
    table = load_labels(here / "labels.parquet").table
    further = table.assign(expansion_start=90, expansion_end=95)
    save_labels(check_labels(pd.concat([table, further])), here / "labels.parquet")
    told = evaluate_bars("bars.parquet", "first", "labels.parquet", threshold=0.1)
    assert told["detections"].set_index("group").loc["all", "n_labelled"] == 2 * N_LABELS


def test_days_that_the_model_was_trained_on_are_left_out(here, market, capsys):
    days = np.unique(trade_dates(market.bars.frame.index))
    whole = evaluate_bars("bars.parquet", "first", threshold=0.1)["detections"]
    note(here, training_days=days[:4].astype(str).tolist())
    rest = evaluate_bars("bars.parquet", "first", threshold=0.1)["detections"]
    assert 0 < rest["n_found"][0] < whole["n_found"][0]
    assert "4 days left out" in capsys.readouterr().out
    note(here, training_days=days.astype(str).tolist())
    assert main(["evaluate", "first", "bars.parquet"]) == 2
    assert "trained on every day of these bars" in capsys.readouterr().err


def test_without_detections_or_distributions_it_says_so(here, capsys):
    assert main(["evaluate", "first", "bars.parquet", "--threshold", "1"]) == 0
    shown = capsys.readouterr().out
    assert "no event study: nothing was detected" in shown and "no drift: the card holds no distributions" in shown


def test_labels_of_other_days_are_a_sentence(here, market, capsys):
    other = simulate_bars(n_sessions=2, seed=9, start_date="2023-05-01")
    save_labels(labels_from_planted(other.planted, symbol="SIM", n_windows=8), here / "other.parquet")
    assert main(["evaluate", "first", "bars.parquet", "other.parquet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("moola: ") and error.count("\n") == 1


def test_a_calibration_is_kept_in_the_card_and_used(here, market, capsys):
    assert main(["predict", "bars.parquet", "--model", "first", "-o", "a.parquet"]) == 0
    assert "not calibrated" in capsys.readouterr().out
    days = np.unique(trade_dates(market.bars.frame.index))
    note(here, training_days=days[:2].astype(str).tolist())
    assert main(["calibrate", "first", "bars.parquet", "--alarms-per-session", "5"]) == 0
    assert "on 4 sessions" in capsys.readouterr().out
    assert main(["predict", "bars.parquet", "--model", "first", "-o", "b.parquet"]) == 0
    assert "for 5 alarms a session" in capsys.readouterr().out
    note(here, training_days=days.astype(str).tolist())
    before = (here / "data" / "models" / "first" / "model.json").read_bytes()
    assert main(["calibrate", "first", "bars.parquet"]) == 2
    assert (here / "data" / "models" / "first" / "model.json").read_bytes() == before
