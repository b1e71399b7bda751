"""The five real notebooks, end to end through the command line, at the smallest scale that still means something."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chromium import open_page

from moola_lib.labels import propose_labels
from moola_lib.market import simulate_bars
from moola_lib.runs.parameters import FineTuning

ROOT = Path(__file__).parent.parent
TINY = {
    "n_sessions": 18,
    "n_checks": 3,
    "n_labels": 50,
    "label_sessions": 10,
    "hidden_size": 8,
    "stride_bars": 52,
    "n_epochs": 2,
    "n_frozen_epochs": 1,
    "n_unfrozen_epochs": 2,
    "n_folds": 2,
    "n_bootstrap": 100,
    "n_control_epochs": 1,
    "n_multitask_epochs": 1,
    "n_amortised_epochs": 1,
    "amortised_windows_per_epoch": 64,
    "n_lstm_epochs": 1,
    "label_sizes": "[10]",
    "n_permutations": 2,
    "n_ordinary_windows": 26,
    "causal_stride_bars": 35,
    "n_skill_windows": 200,
    "strategies": "[fixed, uncertainty_bounded]",
    "learning_rates": "[0.001]",
    "pointer_weights": "[1.0, 50.0]",
    "in_use": "fixed",
}
FINE_TUNING = [name for name in TINY if name in FineTuning.model_fields]
pytestmark = pytest.mark.slow


def moola(home, *arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "moola_lib.cli", *map(str, arguments)],
        cwd=cwd or home,
        env={**os.environ, "MOOLA_HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def tiny(**changes):
    pairs = []
    for name, value in {**TINY, **changes}.items():
        pairs += ["-p", name, value]
    return pairs


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    shutil.copytree(ROOT / "params", folder / "params")
    return folder


@pytest.fixture(scope="module")
def first(home):
    result = moola(home, "run", "--run-id", "first", *tiny())
    assert result.returncode == 0, result.stderr
    return result


def metrics(home, run_id):
    folder = home / "data" / "artifacts" / run_id
    summary = json.loads((folder / "04_fine_tuning" / "cv_summary.json").read_text())
    training = json.loads((folder / "03_pretraining" / "training_results.json").read_text())
    for row in training["history"]:
        del row["windows_per_second"]
    return summary, training["history"], training["skill"]


def test_chain_ends_with_the_gates_and_the_index(home, first):
    assert "95% interval" in first.stdout and "FAIL" in first.stdout
    assert first.stdout.rstrip().endswith(str(home / "reports" / "index.html"))
    record = json.loads((home / "reports" / "first" / "run.json").read_text())
    assert record["status"] == "finished"
    assert len(record["gates"]) > 20
    for stem in record["stems"]:
        assert (home / "reports" / "first" / f"{stem}.html").stat().st_size > 10_000


def test_equal_seeds_give_bit_identical_metrics(home, first):
    result = moola(home, "run", "--run-id", "second", *tiny())
    assert result.returncode == 0, result.stderr
    assert metrics(home, "second") == metrics(home, "first")
    other = moola(home, "run", "03", "--run-id", "other", "-p", "seed", 18, *tiny_for_03())
    assert other.returncode == 0, other.stderr
    assert metrics_of_03(home, "other") != metrics_of_03(home, "first")


def tiny_for_03():
    return ["-p", "hidden_size", 8, "-p", "stride_bars", 52, "-p", "n_epochs", 2, "-p", "upstream_run", "first"]


def metrics_of_03(home, run_id):
    path = home / "data" / "artifacts" / run_id / "03_pretraining" / "training_results.json"
    return [row["validation_huber"] for row in json.loads(path.read_text())["history"]]


@pytest.mark.parametrize(
    "options",
    [
        {"heads": "notes", "decoder": "inside"},
        {"heads": "both", "n_repeats": 2, "n_seeds": 2},
        {"exam": "true", "n_permutations": 0, "n_lstm_epochs": 0},
    ],
    ids=["notes heads", "both heads, repeated", "exam"],
)
def test_fine_tuning_runs_with_other_settings(home, first, options):
    own = {name: TINY[name] for name in FINE_TUNING} | options
    given = [part for name, value in own.items() for part in ("-p", name, value)]
    result = moola(home, "run", "04", "-p", "upstream_run", "first", *given)
    assert result.returncode == 0, result.stderr
    assert "start within 3 bars" in result.stdout


def test_strict_turns_a_failed_gate_into_exit_3(home, first):
    arguments = ["-p", "upstream_run", "first", "-p", "max_samples", 30]
    small = ["-p", "n_frozen_epochs", 1, "-p", "n_unfrozen_epochs", 1, "-p", "n_folds", 2, "-p", "n_bootstrap", 100]
    result = moola(home, "run", "04", "--strict", "--run-id", "strict", *arguments, *small)
    assert result.returncode == 3, result.stderr


def test_unlabelled_real_bars_run_on_proposals_and_say_so(home, tmp_path):
    simulate_bars(18, drift=0.5).bars.frame.to_parquet(tmp_path / "bars.parquet")
    result = moola(home, "run", "--run-id", "real", *tiny(bars="bars.parquet"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    record = json.loads((home / "reports" / "real" / "run.json").read_text())
    learning = [gate for gate in record["gates"] if gate["kind"] == "learning"]
    assert learning and {gate["verdict"] for gate in learning} == {"OFF"}
    page = (home / "reports" / "real" / "04_fine_tuning.html").read_text()
    assert "agreement with that rule" in page


def test_the_older_label_layout_runs_to_the_end(home, first, tmp_path):
    frame = simulate_bars(18, drift=0.5).bars.frame
    table = propose_labels(frame, n_windows=30)
    places = frame.index.get_indexer(table["window_start"])
    prices = frame[["open", "high", "low", "close"]].to_numpy()
    older = pd.DataFrame(
        {
            "window_id": [f"w{k}" for k in range(len(table))],
            "label": table["label"],
            "expansion_start": table["expansion_start"].astype(int),
            "expansion_end": table["expansion_end"].astype(int),
            "features": [[row.tolist() for row in prices[place : place + 105]] for place in places],
        }
    )
    older.to_parquet(tmp_path / "older.parquet")
    result = moola(home, "run", "--run-id", "older", *tiny(labels=tmp_path / "older.parquet"))
    assert result.returncode == 0, result.stderr
    predictions = np.load(home / "data" / "artifacts" / "older" / "04_fine_tuning" / "predictions.npz")
    assert len(predictions["start"]) == 24  # the last fifth is reserved


@pytest.mark.parametrize("labels", ["symbol", "range"])
def test_unfit_labels_stop_with_one_sentence(home, first, tmp_path, labels):
    table = propose_labels(simulate_bars(4, drift=0.5).bars.frame, n_windows=12)
    if labels == "symbol":
        table["symbol"] = "ES"
    else:
        table.loc[3, "expansion_end"] = 105
    table.to_parquet(tmp_path / "labels.parquet")
    run = ["run", "02", "--run-id", f"bad-{labels}", "-p", "upstream_run", "first", "-p", "labels"]
    result = moola(home, *run, tmp_path / "labels.parquet")
    assert result.returncode == 2
    expected = "the labels are for ES, the bars are SIM" if labels == "symbol" else "row 4: span"
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert (home / "reports" / f"bad-{labels}" / "02_label_generation.html").exists()


def test_a_notebook_alone_says_what_it_lacks(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    result = moola(tmp_path, "run", "04")
    assert result.returncode == 2
    assert "run `moola run 03_pretraining` first" in result.stderr


def test_plain_papermill_from_another_folder_checks_parameters(home, first, tmp_path):
    def papermill(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "papermill", "-k", "python3", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "MOOLA_HOME": str(home), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    notebook = home / "notebooks" / "01_feature_validation.ipynb"
    good = papermill(notebook, "out.ipynb", "-p", "n_sessions", 3, "-p", "n_checks", 2)
    assert good.returncode == 0, good.stderr
    assert (home / "data" / "artifacts" / "manual" / "01_feature_validation" / "record.json").exists()
    typo = papermill(notebook, "typo.ipynb", "-p", "n_session", 3)
    assert typo.returncode != 0
    assert "did you mean 'n_sessions'" in typo.stderr


@pytest.mark.browser
def test_reports_draw_every_figure_without_a_request(home, first):
    for stem in json.loads((home / "reports" / "first" / "run.json").read_text())["stems"]:
        with open_page(home / "reports" / "first" / f"{stem}.html") as (tab, requests, errors):
            figures = tab.locator(".figure").count()
            drawn = tab.evaluate("[...document.querySelectorAll('.figure')].filter(f => f.querySelector('svg')).length")
            width = tab.evaluate("document.documentElement.scrollWidth")
        assert figures > 0 and drawn == figures, stem
        assert requests == [] and errors == [] and width <= 390, stem
