"""Weights with a card: safetensors beside JSON, loaded strictly, never unpickled."""

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from moola_lib import __version__
from moola_lib.errors import UserError
from moola_lib.files import fingerprint, read_json, replace_atomically, write_json
from moola_lib.models import build_model

ENCODER = "encoder."


def save_tensors(tensors, path, *, metadata=None):
    """Write named tensors, and a JSON-ready dict in the same file, atomically.

    Parameters
    ----------
    tensors : dict of str to Tensor
    path : str or Path
    metadata : dict, optional
        Plain JSON; read back by `load_tensors`.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = {"moola": json.dumps(metadata or {})}
    with replace_atomically(path) as temporary:
        # its bytes are written here: on a full disk its own writer raises an error that is no OSError
        temporary.write_bytes(safetensors.torch.save(contiguous, metadata=text))


def load_tensors(path):
    """Read what `save_tensors` wrote: (dict of Tensor on CPU, metadata dict).

    Raises
    ------
    UserError
        The file is missing, truncated, or not safetensors.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the path of a saved model or checkpoint (.safetensors)")
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as stream:
            metadata = json.loads((stream.metadata() or {}).get("moola", "{}"))
            return {name: stream.get_tensor(name) for name in stream.keys()}, metadata  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is truncated or not a safetensors file ({error}); use another checkpoint") from error


def save_model(model, path, *, features, notes=None):
    """Write weights to `path` and their card to the same name with `.json`.

    Parameters
    ----------
    model : Module from `build_model`
    path : str or Path
        Ends in `.safetensors`.
    features : dict
        `set_id` (str) and `names` (list of str) of the input.
    notes : dict, optional
        Anything else the card should say (run id, metrics, seed).

    Returns
    -------
    dict, the card.
    """
    path = Path(path)
    state = model.state_dict()
    card = {
        "model": model.spec,
        "encoder": model.encoder.shape if hasattr(model, "encoder") else None,
        "features": {"set_id": features["set_id"], "names": list(features["names"])},
        "n_parameters": sum(tensor.numel() for tensor in model.parameters()),
        "n_tensors": len(state),
        "weights_fingerprint": fingerprint(*(state[name].detach().cpu().numpy() for name in sorted(state))),
        "moola": __version__,
        "notes": notes or {},
    }
    save_tensors(state, path, metadata={"weights_fingerprint": card["weights_fingerprint"]})
    write_json(path.with_suffix(".json"), card)
    return card


def load_model(path, *, features=None):
    """Build the model a card describes and load its weights.

    Returns
    -------
    (Module, dict)
        The model in eval mode, and its card.

    Raises
    ------
    UserError
        Card and weights disagree, a file is damaged, or `features` is another set.
    """
    path = Path(path)
    tensors, metadata = load_tensors(path)
    card = _read_card(path, metadata)
    _check_features(card, features, path)
    spec = card["model"]
    model = build_model(spec["name"], n_features=spec["n_features"], n_classes=spec["n_classes"], **spec["options"])
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip().rstrip(".")
        raise UserError(f"{path}: the weights do not fit the {spec['name']} of its card ({first})") from error
    return model.eval(), card


def load_encoder(model, path, *, features=None):
    """Copy a pre-trained encoder into `model`, strictly.

    Parameters
    ----------
    model : Module with an `encoder`
    path : str or Path
        Weights of a model with an encoder (a pre-trainer or a jade).
    features : dict, optional
        `set_id` and `names` of the features the model will read.

    Returns
    -------
    dict
        `matched`, `expected` (tensors), `largest_change` (float), `left_out`
        (the file's tensors outside the encoder), `card`.

    Raises
    ------
    UserError
        The encoder has another shape, or was trained on another feature set.
    """
    path = Path(path)
    tensors, metadata = load_tensors(path)
    card = _read_card(path, metadata)
    _check_features(card, features, path)
    wanted = model.encoder.shape
    if card["encoder"] is None:
        raise UserError(f"{path} holds a {card['model']['name']}, which has no encoder to transfer")
    if card["encoder"] != wanted:
        raise UserError(f"{path} holds an encoder of shape {card['encoder']}, the model needs {wanted}")
    given = {name.removeprefix(ENCODER): value for name, value in tensors.items() if name.startswith(ENCODER)}
    own = model.encoder.state_dict()
    missing, surplus = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    if missing or surplus:
        raise UserError(f"{path}: encoder tensors do not match (missing {missing}, not expected {surplus})")
    change = max(float((given[name] - own[name].cpu()).abs().max()) for name in own)
    with torch.no_grad():
        model.encoder.load_state_dict(given, strict=True)
    return {
        "matched": len(given),
        "expected": len(own),
        "largest_change": change,
        "left_out": sorted(name for name in tensors if not name.startswith(ENCODER)),
        "card": card,
    }


def _read_card(path, metadata):
    """Return the card beside the weights; refuse one that is incomplete or belongs to other weights."""
    beside = path.with_suffix(".json")
    card = read_json(beside)
    missing = [name for name in ("model", "encoder", "features", "weights_fingerprint") if name not in card]
    if missing:
        raise UserError(f"{beside} is not the card of a model: it lacks {', '.join(missing)}")
    if metadata.get("weights_fingerprint") != card["weights_fingerprint"]:
        raise UserError(f"{path} does not belong to the card beside it ({beside.name})")
    return card


def _check_features(card, features, path):
    """Refuse weights trained on another feature set, naming both."""
    if features is None:
        return
    theirs, ours = card["features"], features
    if theirs["set_id"] != ours["set_id"] or list(theirs["names"]) != list(ours["names"]):
        raise UserError(
            f"{path} was trained on the feature set {theirs['set_id']} ({len(theirs['names'])} columns), "
            f"the data is {ours['set_id']} ({len(ours['names'])} columns); build that set or train again"
        )
