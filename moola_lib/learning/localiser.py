"""A trained localiser as it is used on new bars: its weights, its card, and the features that bars must become."""

from dataclasses import dataclass
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.features.set_ids import options_of
from moola_lib.features.sets import describe_set
from moola_lib.learning import MODES
from moola_lib.learning.device import resolve_device
from moola_lib.learning.scan import check_scannable
from moola_lib.models.weights import load_model

DEFAULT_GAP_MINUTES = 5.0  # of cards that do not say it
UNCALIBRATED_THRESHOLD = 0.5  # where a card has no threshold and none is asked for: more likely than not


@dataclass(frozen=True)
class Localiser:
    """A model that is ready to scan.

    Attributes
    ----------
    name : str
    model : Module
        In eval mode on its device.
    card : dict
    features : dict
        Options of `build_features`.
    """

    name: str
    model: object
    card: dict
    features: dict

    @property
    def was_cut(self):
        """Whether it was trained on windows cut at random bars, as a causal scan shows them."""
        return bool((self.card["notes"].get("settings") or {}).get("is_causal"))

    @property
    def max_gap_minutes(self):
        """Longest gap inside a segment, as it was trained."""
        return self.features["max_gap_minutes"]

    def alarms(self, is_causal):
        """Return what its card says of its threshold in that mode (see `evaluation.thresholds`), or None."""
        return self.card["notes"].get("alarms", {}).get(MODES[is_causal])


def open_localiser(path, *, name=None, device="auto"):
    """Load a model from its file of weights, with its card beside it.

    Parameters
    ----------
    path : str or Path
        A `.safetensors` file.
    name : str, optional
        What to call it; default the file's name, or its folder's where the file is called `model`.
    device : str

    Raises
    ------
    UserError
        It is missing, damaged or no such model, its features cannot be made
        from bars, or the device is absent.
    """
    path, device = Path(path), resolve_device(device)
    beside = path.with_suffix(".json")
    if path.exists() and not beside.exists():
        raise UserError(
            f"{path} has no card {beside.name} beside it (a checkpoint of training has none); save the model"
        )
    try:
        model, card = load_model(path)
        set_id, names = card["features"]["set_id"], list(card["features"]["names"])
        n_features, notes = card["model"]["n_features"], dict(card["notes"])
        longest_gap = (notes.get("feature_options") or {}).get("max_gap_minutes")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{beside} is not the card of a model ({error!r}); save the model again") from error
    options = options_of(set_id)
    made = [*describe_set(**options)["names"], *(["position"] if "position" in options["extra"] else [])]
    if names != made or n_features != len(made):
        raise UserError(
            f"{path} reads {n_features} columns ({', '.join(names)}), the feature set {set_id} of its card has "
            f"{len(made)} ({', '.join(made)}); train the model again"
        )
    if check_scannable(model, 1).n_states < 2:
        raise UserError(f"{path} does not tell the states before an expansion apart; train a model of two classes")
    options["max_gap_minutes"] = DEFAULT_GAP_MINUTES if longest_gap is None else longest_gap
    name = name or (path.parent.name if path.stem == "model" else path.stem)
    return Localiser(name, model.to(device), {**card, "notes": notes}, options)
