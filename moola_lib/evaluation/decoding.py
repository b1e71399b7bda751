"""From a model's outputs to one span a window."""

import numpy as np

from moola_lib.errors import UserError
from moola_lib.evaluation.posteriors import best_start_then_end
from moola_lib.labels.targets import WINDOW_BARS, span_from_pointers, start_from_countdown

TOLERANCE_BARS = 3
NEEDED = {
    "inside": ["inside_probability"],
    "pointers": ["centre", "length"],
    "countdown": ["countdown", "centre", "length"],
    "segment": ["span_probability"],
}
DECODERS = tuple(NEEDED)


def decode_spans(outputs, decoder="inside"):
    """Turn a model's outputs into spans.

    Parameters
    ----------
    outputs : dict of ndarray
        From `learning.outputs.predict_windows`.
    decoder : {"inside", "pointers", "countdown", "segment"}
        `inside`: the run of bars with the largest sum of log-odds over the
        window's own mean; `pointers`: centre and length; `countdown`: the
        start the countdowns agree on, with the length of the pointers;
        `segment`: the start whose box of ±3 bars holds the most of the posterior,
        as the headline rewards it, and the end whose box does so beside that start.

    Returns
    -------
    (start, end) : ndarray (n,), int64, inside the window.

    Raises
    ------
    UserError
        The model does not give what the decoder reads.
    """
    missing = [name for name in NEEDED[decoder] if name not in outputs]
    if missing:
        raise UserError(f"decoder {decoder} needs {missing[0]}, which the model does not give; switch its head on")
    if decoder == "segment":
        return best_start_then_end(outputs["span_probability"], TOLERANCE_BARS)
    if decoder == "inside":
        p = np.clip(outputs["inside_probability"].astype(np.float64), 1e-6, 1 - 1e-6)
        mean = p.mean(axis=1, keepdims=True)
        return _best_run(np.log(p / (1 - p)) - np.log(mean / (1 - mean)))
    start, end = span_from_pointers(outputs["centre"], outputs["length"])
    if decoder == "countdown":
        extent = end - start
        start = start_from_countdown(outputs["countdown"])
        end = start + extent
    start = np.clip(np.round(start), 0, WINDOW_BARS - 1).astype(np.int64)
    end = np.clip(np.round(end), start, WINDOW_BARS - 1).astype(np.int64)
    return start, end


def _best_run(scores):
    """Return (start, end) of the run with the largest sum in each row, int64."""
    total = np.concatenate([np.zeros((len(scores), 1)), np.cumsum(scores, axis=1)], axis=1)
    lowest = np.minimum.accumulate(total[:, :-1], axis=1)
    gain = total[:, 1:] - lowest
    end = gain.argmax(axis=1)
    is_before = np.arange(scores.shape[1]) <= end[:, None]
    start = np.where(is_before, total[:, :-1], np.inf).argmin(axis=1)
    return start.astype(np.int64), end.astype(np.int64)
