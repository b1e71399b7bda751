"""`moola evaluate`: figures of the detections, days that were trained on left out, faults in a sentence."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from test_runs_models import edit_labels
from test_runs_predicting import save_linear

from moola_lib.cli import main
from moola_lib.evaluation.walk_forward import FIGURES
from moola_lib.features import build_features
from moola_lib.features.drift import describe_distributions
from moola_lib.labels import check_labels, labels_from_planted, load_labels, save_labels
from moola_lib.market import save_bars, simulate_bars, trade_dates
from moola_lib.runs.evaluating import evaluate_bars
from moola_lib.runs.models import label_mark, read_card
from moola_lib.runs.promoting import promote

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
    told = evaluate_bars("bars.parquet", "first", "labels.parquet", threshold=0.1)
    shown = capsys.readouterr().out
    for words in ("Detections by part of the day", "recall", "What followed, in ATR", "stable", "no promise"):
        assert words in shown
    assert "30 windows on 6 days that the model was not trained on (0 left out)" in shown
    assert "cross-fitted on these windows" in shown
    assert "no walk-forward: the model's card does not say how it was trained (it lacks arm" in shown
    assert set(told["windows"]["metric"]) == set(FIGURES) and "rescored" not in told
    assert told["chance"]["method"].tolist() == ["model", "ATR rule", "random"]
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


def test_labels_that_changed_are_scored_again_and_the_card_keeps_it(project, capsys):
    promote(project, "first", "nq1")
    edit_labels(project)
    told = evaluate_bars(project / "data/raw/SIM.parquet", "nq1", project / "data/raw/labels.parquet", walk_forward=1)
    shown = capsys.readouterr().out
    assert "the labels changed since the model was trained: +3 −1 ~2 windows" in shown
    assert "fitted on the labels that the model was trained on" in shown and "kept in the card of nq1" in shown
    assert set(told["rescored"]["metric"]) == set(FIGURES)
    card = read_card(project, "nq1")
    kept, scored = card["notes"]["rescored"], told["windows"].iloc[0]
    assert kept["n_windows"] > 0 and kept["metrics"][0]["value"] == scored["value"]
    assert f"re-scored on them: start within 3 bars {scored['value']:.3g}" in label_mark(project, card)
    walked = told["walk_forward"].set_index("block")
    assert (walked.loc["1", "n_train"] > 0).all() and (walked["arm"] == "pre-trained").all()
    # labels that changed again since are not taken for those
    table = load_labels(project / "data/raw/labels.parquet").table
    save_labels(table.iloc[:-1], project / "data/raw/labels.parquet")
    assert "re-score it with: moola evaluate nq1" in label_mark(project, read_card(project, "nq1"))


def test_labels_of_training_days_alone_leave_windows_out_and_a_lost_encoder_leaves_walk_forward_out(project, capsys):
    promote(project, "first", "nq1")
    days = read_card(project, "nq1")["notes"]["training_days"]
    table = load_labels(project / "data/raw/labels.parquet").table
    is_trained = np.isin(trade_dates(pd.DatetimeIndex(table["window_start"])), np.array(days, "datetime64[D]"))
    save_labels(table[is_trained], project / "old.parquet")
    shutil.rmtree(project / "data/artifacts/first/03_pretraining")
    told = evaluate_bars(project / "data/raw/SIM.parquet", "nq1", project / "old.parquet")
    shown = capsys.readouterr().out
    assert (
        f"no labelled window is scored: the model was trained on all {len(days)} labelled days of these bars" in shown
    )
    assert "no labelled expansion lies on a day that the model was not trained on" in shown
    assert "no walk-forward: the weights that its training began with (encoder.safetensors of run first" in shown
    assert set(told) == {"detections", "events"} and "recall" not in told["detections"]
    assert "rescored" not in read_card(project, "nq1")["notes"]


def test_walk_forward_without_labels_or_below_none_is_a_sentence(here, capsys):
    assert main(["evaluate", "first", "bars.parquet", "--walk-forward", "2"]) == 2
    assert "--walk-forward trains and tests on labels; give LABELS" in capsys.readouterr().err
    assert main(["evaluate", "first", "bars.parquet", "labels.parquet", "--walk-forward", "-1"]) == 2
    assert "walk-forward over -1 blocks is not possible" in capsys.readouterr().err


def test_features_that_drifted_are_counted(here, market, capsys):
    table = build_features(market.bars)
    known = describe_distributions(table, market.bars.frame.index)
    known["body_pct"]["counts"] = known["body_pct"]["counts"][:1] + [1] * (len(known["body_pct"]["counts"]) - 1)
    note(here, distributions=known)
    evaluate_bars("bars.parquet", "first", threshold=0.1)
    assert "1 of 11 features drifted: these bars are unlike" in capsys.readouterr().out
