"""Apply a trained localiser to windows."""

import torch

from moola_lib.labels.targets import COUNTDOWN_CLIP_BARS


@torch.no_grad()
def predict_windows(model, gather, places, *, batch_size=256):
    """Return a model's outputs for windows, in plain units.

    Parameters
    ----------
    model : Module
        On the gatherer's device.
    gather : WindowGatherer
    places : ndarray (n,), int64
    batch_size : int

    Returns
    -------
    dict of ndarray
        Those the model has of `type_probability` (n, n_classes), `centre` (n,)
        and `length` (n,) in [0, 1], `inside_probability` (n, time) and
        `countdown` (n, time) in bars; and `is_valid` (n, time) bool.
    """
    model.eval()
    parts = []
    for part in torch.as_tensor(places).split(batch_size):
        x, is_valid = gather(part)
        outputs = model(x)
        row = {"is_valid": is_valid}
        if "type_logits" in outputs:
            row["type_probability"] = outputs["type_logits"].softmax(dim=1)
        if "pointers" in outputs:
            row["centre"], row["length"] = outputs["pointers"].unbind(dim=1)
        if "inside_logits" in outputs:
            row["inside_probability"] = outputs["inside_logits"].sigmoid()
        if "countdown" in outputs:
            row["countdown"] = outputs["countdown"] * COUNTDOWN_CLIP_BARS
        parts.append(row)
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
