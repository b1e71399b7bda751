"""The models that fits gave, kept with their cards: what was scored is what is read back."""

import numpy as np
import pytest
import torch

from moola_lib.evaluation.cross_validation import Arm
from moola_lib.evaluation.fits import plan_fits, run_fits
from moola_lib.evaluation.fitted import save_fits
from moola_lib.learning.finetune import FinetuneSettings
from moola_lib.learning.outputs import predict_windows
from moola_lib.models import build_model
from moola_lib.models.jade import HEADS
from moola_lib.models.weights import load_model, save_model
from moola_lib.windows import grouped_folds
from moola_lib.windows.ordinary import ordinary_windows

SETTINGS = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=1, batch_size=8, n_threads=1)
OPTIONS = {"hidden_size": 4, "heads": HEADS["segment"], "start_range": (30, 74)}


@pytest.fixture(scope="module")
def features(table, gather):
    return {"set_id": table.set_id, "names": gather.names}


@pytest.fixture(scope="module")
def kept(labelled, market, table, gather, features, tmp_path_factory):
    """Fits of a pre-trained and a random start: (fits, results)."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(2)
    encoder = build_model("masked_autoencoder", n_features=11, hidden_size=4)
    save_model(encoder, folder / "encoder.safetensors", features=features, notes={"run_id": "first"})
    arms = [
        Arm("pre-trained", "jade", SETTINGS, OPTIONS, folder / "encoder.safetensors"),
        Arm("random start", "jade", SETTINGS, OPTIONS),
    ]
    folds = grouped_folds(labelled.place, labelled.day, n_folds=2)
    fits = plan_fits(arms, folds, (5,), folder=folder / "checkpoints")
    ordinary = ordinary_windows(labelled, market.bars.frame.index, table.starts, n=40)
    options = {"validation_frac": 0.3, "ordinary": ordinary, "n_workers": 1}
    results = run_fits(fits, gather, labelled, features=features, **options)
    save_fits(fits, results, gather, labelled, features=features, notes={"run_id": "second"})
    return fits, results


def test_what_is_read_back_answers_as_what_was_scored(kept, gather, labelled, features):
    for fit, result in zip(*kept, strict=True):
        model, _ = load_model(fit.folder / "model.safetensors", features=features)
        again = predict_windows(model, gather, labelled.place[fit.fold.test])
        assert again.keys() == result.outputs.keys()
        spans = again.keys() - {"log_odds"}
        assert all(np.array_equal(again[name], result.outputs[name]) for name in spans)
        assert float(model.segment_head.temperature) == pytest.approx(result.calibration["temperature"])


def test_a_kept_model_knows_no_expansion_from_ordinary_windows_of_its_training_days(kept, gather, labelled, features):
    for fit, result in zip(*kept, strict=True):
        head = load_model(fit.folder / "model.safetensors", features=features)[0].segment_head
        assert bool(head.knows_none) and float(head.null_slope) == pytest.approx(result.null["slope"])
        assert 0 < result.null["n_ordinary"] < 40, "of the training days alone"
        assert not result.weights["segment_head.knows_none"], "what was scored asks where, not whether"


def test_the_card_tells_how_the_fit_was_made(kept, labelled, features):
    fits, results = kept
    for fit, result in zip(fits, results, strict=True):
        notes = load_model(fit.folder / "model.safetensors", features=features)[1]["notes"]
        assert notes["run_id"] == "second" and notes["arm"] == fit.arm.name and notes["fit"] == fit.label
        days = np.array(notes["training_days"], "datetime64[D]")
        assert set(days) == set(labelled.day[fit.fold.train]) and not set(days) & set(labelled.day[fit.fold.test])
        assert notes["calibration"]["n_windows"] > 0 and notes["inside_threshold"] == result.inside_threshold
        assert notes["settings"] == {
            "n_frozen_epochs": 0, "n_unfrozen_epochs": 1, "batch_size": 8, "n_threads": 1, "seed": 5
        }  # fmt: skip
    began = [load_model(fit.folder / "model.safetensors")[1]["notes"]["began_with"] for fit in fits]
    encoder = load_model(fits[0].arm.encoder)[1]
    assert began[0] == began[1] == {
        "file": "encoder.safetensors", "weights_fingerprint": encoder["weights_fingerprint"], "run_id": "first"
    }  # fmt: skip
    assert began[2:] == [None, None]


def test_fits_without_a_folder_are_not_kept(kept, gather, labelled, features, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fits = plan_fits([kept[0][0].arm], [kept[0][0].fold], (5,))
    save_fits(fits, kept[1][:1], gather, labelled, features=features)
    assert list(tmp_path.iterdir()) == []
