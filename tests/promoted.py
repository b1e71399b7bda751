"""A small project whose notebooks have run: what 01 to 04 leave, made in seconds from real bars and fits."""

import numpy as np
import torch

from moola_lib.evaluation.cross_validation import Arm
from moola_lib.evaluation.fits import plan_fits, run_fits
from moola_lib.evaluation.fitted import save_fits
from moola_lib.features import build_features
from moola_lib.files import fingerprint, write_json
from moola_lib.labels import labels_from_planted, load_labels, save_labels
from moola_lib.labels.snapshots import snapshot_labels
from moola_lib.learning.finetune import FinetuneSettings
from moola_lib.market import load_bars, save_bars, simulate_bars
from moola_lib.models import build_model
from moola_lib.models.cards import describe_bars
from moola_lib.models.jade import HEADS
from moola_lib.models.weights import save_model
from moola_lib.runs.lineage import snapshots_folder
from moola_lib.runs.notebook import start_notebook
from moola_lib.runs.parameters import PARAMETERS
from moola_lib.runs.parameters_check import load_model as parameter_model
from moola_lib.windows import grouped_folds, place_labels
from moola_lib.windows.gather import WindowGatherer

SETTINGS = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=1, batch_size=8, n_threads=1)
ARMS = ("pre-trained", "random start")
GATE = {
    "name": "start within 3 bars", "kind": "learning", "value": 0.9, "low": 0.8, "high": 0.95, "target": "≥ 0.6",
    "baseline": "logistic regression 0.85", "verdict": "FAIL",
}  # fmt: skip
SCORE = {
    "metric": "hit3_start", "meaning": "start within 3 bars", "unit": "share", "value": 0.9, "low": 0.8, "high": 0.95,
    "n": 36, "constant": 0.2, "logistic regression": 0.85, "best_baseline": "logistic regression", "difference": 0.05,
    "difference_low": -0.01, "difference_high": 0.1,
}  # fmt: skip


def build_run(root):
    """Do what matters of notebooks 01 to 04 at `root`; MOOLA_HOME and MOOLA_RUN_ID must name it and the run."""
    raw, own_labels = root / "data" / "raw" / "SIM.parquet", root / "data" / "raw" / "labels.parquet"
    market = simulate_bars(n_sessions=6, seed=5)
    (root / "notebooks").mkdir(exist_ok=True)
    save_bars(market.bars, raw)
    save_labels(labels_from_planted(market.planted, symbol="SIM", n_windows=36), own_labels)
    bars = load_bars(raw)
    table = build_features(bars)
    features = {"set_id": table.set_id, "names": list(table.names)}

    run = open_notebook("01_feature_validation", bars=str(raw))
    facts = {"fingerprint": bars.fingerprint, "symbol": "SIM", "first_bar": bars.frame.index[0].isoformat()}
    facts |= {"last_bar": bars.frame.index[-1].isoformat(), "n_bars": len(bars), "raw_fingerprint": fingerprint(raw)}
    run.finish([], [], facts | {"is_simulated": False})

    run = open_notebook("02_label_generation", labels=str(own_labels))
    run.upstream("01_feature_validation")
    labels = load_labels(own_labels).table
    run.finish([], [], {"is_proposed": False})

    run = open_notebook("03_pretraining", hidden_size=4)
    for stem in ("02_label_generation", "01_feature_validation"):
        run.upstream(stem)
    torch.manual_seed(2)
    encoder = build_model("masked_autoencoder", n_features=11, hidden_size=4)
    notes = {"run_id": run.run_id, "seed": 17, "validation_huber": 0.5}
    save_model(encoder, run.folder / "encoder.safetensors", features=features, notes=notes)
    run.finish([], [], {"fingerprint": bars.fingerprint, "symbol": "SIM", "is_simulated": False})

    run = open_notebook("04_fine_tuning", n_folds=3, batch_size=8)
    pretrained = run.upstream("03_pretraining")
    for stem in ("02_label_generation", "01_feature_validation"):
        run.upstream(stem)
    windows, _ = place_labels(labels, bars.frame, table.starts)
    folds = grouped_folds(windows.place, windows.day, n_folds=3)
    options = {"hidden_size": 4, "heads": HEADS["segment"], "start_range": (30, 74)}
    gather = WindowGatherer(table)
    arms = [Arm(ARMS[0], "jade", SETTINGS, options, pretrained / "encoder.safetensors")]
    arms.append(Arm(ARMS[1], "jade", SETTINGS, options))
    model_notes = {
        "run_id": run.run_id,
        "bars": describe_bars(bars),
        "labels": snapshot_labels(labels, snapshots_folder(root)),
    }
    model_notes |= {"feature_options": table.options, "feature_version": table.version, "decoder": "segment"}
    fits = plan_fits(arms, folds, [17], folder=run.folder / "checkpoints" / "repeat1")
    results = run_fits(fits, gather, windows, features=features, n_workers=1)
    save_fits(fits, results, gather, windows, features=features, notes=model_notes)
    write_json(run.folder / "cv_summary.json", {"arms": {name: [SCORE] for name in ARMS}, "is_exam": False})
    run.finish([GATE], [], {"fingerprint": bars.fingerprint, "symbol": "SIM", "is_simulated": False})
    return {"folds": folds, "windows": windows, "gather": gather}


def open_notebook(stem, **values):
    """Start a notebook with its default parameters but for `values`."""
    model = parameter_model(stem, PARAMETERS)
    return start_notebook(stem, {name: field.default for name, field in model.model_fields.items()} | values)


def training_days(project):
    """Trade dates of each fold's training windows."""
    return [np.unique(project["windows"].day[fold.train]).astype(str).tolist() for fold in project["folds"]]
