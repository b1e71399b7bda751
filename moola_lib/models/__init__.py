"""The models, by name. Naming them imports nothing heavy."""

from moola_lib.errors import UserError

MODELS = {
    "jade_compact": "moola_lib.models.jade:JadeCompact",
    "jade": "moola_lib.models.jade:Jade",
    "masked_autoencoder": "moola_lib.models.pretrainers:MaskedAutoencoder",
    "multitask_pretrainer": "moola_lib.models.pretrainers:MultitaskPretrainer",
    "simple_lstm": "moola_lib.models.simple_lstm:SimpleLSTM",
    "linear_segments": "moola_lib.models.segments:LinearSegments",
}
PRETRAINERS = ("masked_autoencoder", "multitask_pretrainer")
LOCALISERS = ("jade", "jade_compact")  # an encoder under the notes' four heads, the segment posterior, or both


def build_model(name, *, n_features, n_classes=None, **options):
    """Build a model by its name.

    Parameters
    ----------
    name : str
        A key of MODELS.
    n_features : int
        Columns of the input.
    n_classes : int, optional
        Classes of the state before an expansion, default 2. Pre-trainers take none.
    **options
        The model's own (hidden_size, dropout, heads, ...).

    Returns
    -------
    torch.nn.Module
        With `spec`: the arguments that build it again, plain JSON.

    Raises
    ------
    UserError
        The name or an option is not known.
    """
    import importlib
    import inspect

    if name not in MODELS:
        raise UserError(f"model {name!r} is not known; choose one of {', '.join(MODELS)}")
    module, _, attribute = MODELS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    known = set(inspect.signature(kind).parameters) - {"n_features", "n_classes"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UserError(f"{name} has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
    if name in PRETRAINERS:
        if n_classes is not None:
            raise UserError(f"{name} is a pre-trainer and has no classes; leave n_classes out")
        model = kind(n_features, **options)
    else:
        n_classes = 2 if n_classes is None else n_classes
        model = kind(n_features, n_classes, **options)
    model.spec = {"name": name, "n_features": n_features, "n_classes": n_classes, "options": dict(options)}
    return model
