"""Keep the models that fits gave, each with a card of its own."""

from dataclasses import asdict, fields

import numpy as np

from moola_lib.evaluation.cross_validation import fold_model
from moola_lib.files import plain, read_json
from moola_lib.learning.calibrate import set_null
from moola_lib.models.weights import save_model

MODEL_NAME = "model.safetensors"


def save_fits(fits, results, gather, windows, *, features, notes=None):
    """Write the model of every fit that has a folder, as it was scored.

    A checkpoint is not that model: its epoch may not be the chosen one, and it
    knows neither the fit's temperature, nor its threshold, nor "no expansion".

    Parameters
    ----------
    fits : list of Fit
    results : list of FoldResult
        In the same order.
    gather : WindowGatherer
    windows : LabelledWindows
        Those that the fits' folds are of.
    features : dict
        `set_id` and `names`.
    notes : dict, optional
        What all of them share: run id, bars, labels.

    Notes
    -----
    `model.safetensors` and its card `model.json` go to the fit's folder. The
    card's notes gain `arm`, `fit` (label), `fold`, `seed`, `training_days` (trade
    dates, those held out to choose the epoch and the temperature included),
    `n_training_windows`, `n_epochs`, `settings` (those that are not defaults),
    `began_with` (the pre-trained weights' file, fingerprint and run),
    `inside_threshold`, `calibration` and `null`.
    """
    for fit, result in zip(fits, results, strict=True):
        if fit.folder is None:
            continue
        model = fold_model(fit.arm, gather, result)
        if result.null is not None:
            set_null(model.segment_head, result.null["null"], result.null["slope"])
        told = {**(notes or {}), **describe_fit(fit, result, windows)}
        save_model(model, fit.folder / MODEL_NAME, features=features, notes=plain(told))


def describe_fit(fit, result, windows):
    """Return what a card says of one fit; see `save_fits`."""
    return {
        "arm": fit.arm.name,
        "fit": fit.label,
        "fold": int(fit.folder.name.removeprefix("fold")),
        "seed": fit.seed,
        "training_days": np.unique(windows.day[fit.fold.train]).astype(str).tolist(),
        "n_training_windows": len(fit.fold.train),
        "n_epochs": len(result.history),
        "settings": _not_defaults(fit.arm.settings) | {"seed": fit.seed},
        "began_with": _describe_weights(fit.arm.weights or fit.arm.encoder),
        "inside_threshold": float(result.inside_threshold),
        "calibration": result.calibration,
        "null": result.null,
    }


def _not_defaults(settings):
    """Return the settings that differ from their class's defaults."""
    changed = [each.name for each in fields(settings) if getattr(settings, each.name) != each.default]
    given = asdict(settings)
    return {name: given[name] for name in changed}


def _describe_weights(path):
    """Return file name, fingerprint and run of pre-trained weights, or None for a random start."""
    if path is None:
        return None
    card = read_json(path.with_suffix(".json"))
    told = {"file": path.name, "weights_fingerprint": card["weights_fingerprint"]}
    return told | {"run_id": (card.get("notes") or {}).get("run_id")}
