"""Training checkpoints: one safetensors file each, written atomically, never unpickled."""

import contextlib
import json
import signal
import threading
from dataclasses import asdict
from pathlib import Path

import torch

from moola_lib.errors import UserError
from moola_lib.files import plain
from moola_lib.models.weights import load_tensors, save_tensors


class Checkpoints:
    """The checkpoints of one training in one folder.

    `checkpoint_latest` after every epoch, `checkpoint_best` when the score is
    the lowest so far, and the `top_k` lowest by name.

    Parameters
    ----------
    folder : str or Path
    top_k : int
        How many of the best epochs to keep beside best and latest.
    """

    def __init__(self, folder, *, top_k=2):
        self.folder = Path(folder)
        self.top_k = top_k

    @property
    def latest(self):
        """Path of the newest checkpoint."""
        return self.folder / "checkpoint_latest.safetensors"

    @property
    def best(self):
        """Path of the checkpoint with the lowest score."""
        return self.folder / "checkpoint_best.safetensors"

    def to_resume(self, resume):
        """Return the checkpoint to go on from, or None for a fresh start.

        Raises
        ------
        UserError
            A fresh start is asked for in a folder that holds another training's
            checkpoints: its best epochs would be mixed with ours.
        """
        if not self.latest.exists():
            return None
        if not resume:
            raise UserError(
                f"{self.folder} holds checkpoints of an earlier training; resume it or choose another folder"
            )
        return self.latest

    def save(self, state, *, score, epoch):
        """Write the state of an epoch.

        Parameters
        ----------
        state : dict
            As from `training_state`.
        score : float
            Lower is better.
        epoch : int

        Raises
        ------
        UserError
            A file cannot be written, for example on a full disk; those before it are kept.
        """
        tensors, metadata = state["tensors"], {**state["metadata"], "score": score, "epoch": epoch}
        kept = sorted({*self._kept(), (score, epoch)})
        if kept[0] == (score, epoch):
            _write(self.best, tensors, metadata)
        if (score, epoch) in kept[: self.top_k]:
            _write(self._path(score, epoch), tensors, metadata)
        for old in kept[self.top_k :]:
            self._path(*old).unlink(missing_ok=True)
        # last, so that whatever a resumed training reads beside it is there already
        self.save_latest({"tensors": tensors, "metadata": metadata})

    def save_latest(self, state):
        """Write a state to resume from, in the middle of an epoch: it has no score yet. Raises as `save`."""
        _write(self.latest, state["tensors"], state["metadata"])

    def clear(self):
        """Delete all checkpoints: a finished training whose model is kept elsewhere needs none."""
        for path in self.folder.glob("checkpoint_*.safetensors"):
            path.unlink()

    def _kept(self):
        """Return (score, epoch) of the top-k files on disk."""
        found = []
        for path in self.folder.glob("checkpoint_epoch*_score*.safetensors"):
            epoch, score = path.stem.removeprefix("checkpoint_epoch").split("_score")
            found.append((float(score), int(epoch)))
        return found

    def _path(self, score, epoch):
        """Return the file name of a top-k checkpoint."""
        return self.folder / f"checkpoint_epoch{epoch:04d}_score{score!r}.safetensors"


def _write(path, tensors, metadata):
    """Write a checkpoint; where that fails, say so and that the one before it is whole."""
    try:
        save_tensors(tensors, path, metadata=metadata)
    except UserError as error:
        raise UserError(
            f"no checkpoint was written ({error}); the one before it is kept: make room there and resume"
        ) from error


@contextlib.contextmanager
def hold_interrupts():
    """Hold SIGINT back, so that a training can finish its step and save it; a second SIGINT is not held.

    Yields
    ------
    callable
        Tells whether SIGINT has come. Where signals cannot be held (outside
        the main thread) or are ignored, it is never held and this is False.
    """
    before, received = signal.getsignal(signal.SIGINT), []

    def hold(number, frame):
        if received:
            before(number, frame)
        received.append(number)

    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGINT, before)


def training_state(model, optimizer, generators, extra):
    """Collect everything a resumed training needs.

    Parameters
    ----------
    model : Module
    optimizer : torch.optim.Optimizer
    generators : dict of str to torch.Generator
        Those of the loop; torch's global one is always included.
    extra : dict
        Plain JSON: epoch, history, balance state.

    Returns
    -------
    dict with `tensors` and `metadata`.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    saved = optimizer.state_dict()
    for index, slots in saved["state"].items():
        for name, value in slots.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    tensors["rng.global"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    for name, generator in generators.items():
        tensors[f"rng.{name}"] = generator.get_state()
    copied = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    return {"tensors": copied, "metadata": {**extra, "param_groups": saved["param_groups"]}}


def read_weights(path, model):
    """Return the model's tensors of a checkpoint, dict by name, on the model's device."""
    tensors, _ = load_tensors(path)
    device = next(model.parameters()).device
    return {name.removeprefix("model."): v.to(device) for name, v in tensors.items() if name.startswith("model.")}


def restore_training(path, model, optimizer, generators, settings=None):
    """Put a saved state back; return its metadata.

    Raises
    ------
    UserError
        The file is damaged, belongs to another model, or was trained with
        other settings: one training cannot have two.
    """
    tensors, metadata = load_tensors(path)
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    own = model.state_dict()
    different = [
        f"{name}: {tuple(own[name].shape) if name in own else 'absent'} here, "
        f"{tuple(state[name].shape) if name in state else 'absent'} in the file"
        for name in sorted(own.keys() | state.keys())
        if name not in own or name not in state or own[name].shape != state[name].shape
    ]
    if different:
        raise UserError(f"{path} is a checkpoint of another model ({different[0]}, {len(different)} tensors in all)")
    _refuse_other_settings(path, metadata.get("settings"), settings)
    model.load_state_dict(state, strict=True)
    slots = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".", 2)
            slots.setdefault(int(index), {})[slot] = value
    groups = json.loads(json.dumps(metadata["param_groups"]))
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    for name, generator in generators.items():
        generator.set_state(tensors[f"rng.{name}"])
    torch.set_rng_state(tensors["rng.global"])
    if torch.cuda.is_available() and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return metadata


def _refuse_other_settings(path, saved, settings):
    """Refuse to go on with other settings than the checkpoint's (None: do not compare)."""
    if settings is None or saved is None:
        return
    now = plain(asdict(settings))
    changed = [
        f"{name} ({saved.get(name)}, now {now.get(name)})"
        for name in {**saved, **now}
        if saved.get(name) != now.get(name)
    ]
    if changed:
        raise UserError(
            f"{path} was trained with another {', '.join(changed)}; resume with the same, or start a new run"
        )
