"""How a kept model was trained, so that it can be trained again: the arm that its card describes."""

from dataclasses import fields
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import read_json
from moola_lib.runs import lineage
from moola_lib.runs.project import artifacts_folder

WEIGHTS = ("data/artifacts/*/03_pretraining/*.json", "data/models/*/model.json")  # cards of pre-trained weights


def rebuild_arm(root, card):
    """Return the way of training that a card describes.

    Parameters
    ----------
    root : Path
    card : dict

    Returns
    -------
    Arm

    Raises
    ------
    UserError
        The card does not tell, or the weights that training began with are not on this machine.
    """
    from moola_lib.evaluation.cross_validation import Arm

    notes = card["notes"]
    missing = [name for name in ("arm", "settings", "began_with") if name not in notes]
    if missing:
        raise UserError(f"the model's card does not say how it was trained (it lacks {', '.join(missing)})")
    began_with, start = notes["began_with"], {}
    if began_with is not None:
        is_encoder = began_with["file"].startswith("encoder")
        start["encoder" if is_encoder else "weights"] = find_weights(root, began_with)
    return Arm(
        notes["arm"], card["model"]["name"], _read_settings(notes["settings"]), card["model"]["options"], **start
    )


def find_weights(root, began_with):
    """Return the path of the pre-trained weights with a fingerprint, wherever a run or a name keeps them.

    Parameters
    ----------
    root : Path
    began_with : dict
        `file`, `run_id` and `weights_fingerprint`, from a card.

    Raises
    ------
    UserError
        They are not on this machine.
    """
    known = artifacts_folder(root, str(began_with["run_id"]), lineage.PRETRAINING) / began_with["file"]
    others = [path for pattern in WEIGHTS for path in sorted(root.glob(pattern))]
    for card in (known.with_suffix(".json"), *others):
        path = card.with_suffix(".safetensors")
        if path.exists() and card.exists() and _fingerprint_of(card) == began_with["weights_fingerprint"]:
            return path
    raise UserError(
        f"the weights that its training began with ({began_with['file']} of run {began_with['run_id']}, "
        f"{began_with['weights_fingerprint']}) are not on this machine"
    )


def seen_days(path):
    """Return the trade dates (list of str) that pre-training saw; None where nothing beside the weights tells."""
    beside = Path(path).parent / "training_results.json"
    return read_json(beside).get("seen_days") if beside.exists() else None


def validation_frac(card):
    """Return the share of training windows that was held out, as an option of `run_fits`; empty for the default."""
    step = lineage.find_step(card["notes"].get("lineage") or [], lineage.FINE_TUNING)
    given = step.get("parameters") or {}
    return {name: given[name] for name in ("validation_frac",) if name in given}


def _fingerprint_of(card):
    """Return the fingerprint that a card states; None of a damaged one."""
    try:
        return read_json(card).get("weights_fingerprint")
    except (UserError, AttributeError):
        return None


def _read_settings(given):
    """Return settings from those of a card, which holds what is not a default as plain JSON."""
    from moola_lib.learning.finetune import FinetuneSettings
    from moola_lib.learning.linear_fit import LinearPenalty

    unknown = sorted(given.keys() - {each.name for each in fields(FinetuneSettings)})
    if unknown:
        raise UserError(f"the model's card has settings of training that are not known here: {', '.join(unknown)}")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if isinstance(given.get("linear_penalty"), dict):
        given["linear_penalty"] = LinearPenalty(**given["linear_penalty"])
    return FinetuneSettings(**given)
