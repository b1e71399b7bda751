"""Batches of labelled windows, and their schema, checked at the door of a training loop."""

import numpy as np
import torch

from moola_lib.errors import UserError
from moola_lib.windows.masks import cut_after


def check_features(gather, model):
    """Refuse features that do not fit the model's input, or that are not finite.

    Parameters
    ----------
    gather : WindowGatherer
    model : Module from `build_model`

    Raises
    ------
    UserError
        Names both widths, or the bar and feature that is not finite.
    """
    wanted = model.spec["n_features"]
    if gather.n_features != wanted:
        raise UserError(f"the features have {gather.n_features} columns, the model reads {wanted}; build it for these")
    # one pass over millions of bars: a sum is finite only if every value is
    if not torch.isfinite(gather.values.sum()):
        bar, column = (~torch.isfinite(gather.values)).nonzero()[0].tolist()
        raise UserError(f"feature {gather.names[column]} is not finite at bar {bar}; look at the bars around it")


def check_batch(batch, *, n_features, n_classes):
    """Refuse a batch whose shapes, dtypes or values a loss would misread.

    Parameters
    ----------
    batch : dict of Tensor
        `x` (batch, time, n_features) float32; `is_valid` (batch, time) bool;
        `type` (batch,) int64 in 0..2, below n_classes where `has_expansion`;
        `pointers` (batch, 2) float32 in [0, 1]; `inside` (batch, time) float32
        in {0, 1}; `countdown` (batch, time) float32 in [-20, 20];
        `has_expansion` (batch,) bool.
    n_features, n_classes : int

    Raises
    ------
    UserError
        Names the entry and what was found.
    """
    size, time = batch["x"].shape[:2]
    wanted = {
        "x": ((size, time, n_features), torch.float32, None),
        "is_valid": ((size, time), torch.bool, None),
        "type": ((size,), torch.int64, (0, 2)),
        "pointers": ((size, 2), torch.float32, (0.0, 1.0)),
        "inside": ((size, time), torch.float32, (0.0, 1.0)),
        "countdown": ((size, time), torch.float32, (-20.0, 20.0)),
        "has_expansion": ((size,), torch.bool, None),
    }
    for name, (shape, dtype, bounds) in wanted.items():
        if name not in batch:
            raise UserError(f"the batch lacks {name}")
        tensor = batch[name]
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise UserError(
                f"batch entry {name} is {tuple(tensor.shape)} {tensor.dtype}, the model needs {shape} {dtype}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            row = int((~torch.isfinite(tensor)).nonzero()[0, 0])
            raise UserError(f"batch entry {name} is not finite in row {row}; look at that window's bars")
        if bounds and size and not bool(((tensor >= bounds[0]) & (tensor <= bounds[1])).all()):
            raise UserError(
                f"batch entry {name} spans {float(tensor.min()):g}..{float(tensor.max()):g}, "
                f"allowed is {bounds[0]:g}..{bounds[1]:g}"
            )
    if not bool(((batch["inside"] == 0) | (batch["inside"] == 1)).all()):
        raise UserError("batch entry inside holds values other than 0 and 1")
    classes = batch["type"][batch["has_expansion"]]
    if len(classes) and int(classes.max()) >= n_classes:
        raise UserError(f"batch entry type holds class {int(classes.max())}, the model has {n_classes} classes")


class LabelledBatches:
    """Labelled windows and their targets on the training device.

    Attributes
    ----------
    encoded : Tensor or None
        Every window as a frozen encoder encodes it, once for all epochs.
    linear : tuple of Tensor or None
        Every window's linear scores, where they stay as they are.
    """

    def __init__(self, gather, windows):
        self.encoded, self.linear = None, None
        self.gather = gather
        self.windows = windows
        self.places = torch.as_tensor(windows.place)
        self.targets = {
            name: torch.as_tensor(np.ascontiguousarray(value)).to(gather.device)
            for name, value in {**windows.targets(), "spans": windows.spans}.items()
        }

    def batch(self, rows):
        """Return the batch of the given rows."""
        x, is_valid = self.gather(self.places[rows])
        batch = {"x": x, "is_valid": is_valid, **{name: value[rows] for name, value in self.targets.items()}}
        if self.encoded is not None:
            batch["encoded"] = self.encoded[rows]
        if self.linear is not None:
            batch["linear"] = tuple(part[rows] for part in self.linear)
        return batch

    def span(self, rows):
        """Return (start, end) of the given rows, int64 arrays."""
        rows = rows.numpy()
        return self.windows.start[rows], self.windows.end[rows]


def cut_windows(batch, first_bar, generator, n_cuts=1):
    """Return the batch with each window cut after `n_cuts` random bars from `first_bar` on."""
    batch = {name: value.repeat_interleave(n_cuts, dim=0) for name, value in batch.items()}
    n, time = batch["x"].shape[:2]
    last_seen = torch.randint(first_bar, time, (n,), generator=generator).to(batch["x"].device)
    return {**batch, "x": cut_after(batch["x"], last_seen), "last_seen": last_seen}
