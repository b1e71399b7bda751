"""Small pre-trainings for one rank or several, shared by tests; a script that torchrun starts.

`torchrun --standalone --nproc_per_node=2 tests/tiny_ranks.py FOLDER` runs all of CASES; each rank
writes what came of them to `FOLDER/rank<k>.json`.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tiny_training import SETTINGS, TRAIN, VALIDATION, noise_gather, tiny_model, without_clock

from moola_lib.errors import UserError
from moola_lib.labels import PRETEXT_TASKS
from moola_lib.learning.checkpoints import Checkpoints
from moola_lib.learning.objectives import BarClassification, Reconstruction
from moola_lib.learning.pretrain import pretrain
from moola_lib.learning.ranks import join_ranks, rank
from moola_lib.models import build_model

# enough rate for differences to show, two epochs
QUICK = replace(SETTINGS, n_epochs=2, learning_rate=2e-2, final_learning_rate=1e-2, warmup_frac=0.0)
HALF_BLIND = [0, 1000, 40, 1040, 80, 1080, 1120, 1160, 120, 1200]  # windows from bar 1000 on have no valid bar


def gather_blind_from(bar):
    gather = noise_gather()
    gather.is_valid[bar:] = False
    gather.is_valid[1400:] = True  # but for validation
    return gather


def classified(gather, settings):
    """The second pretext, with classes drawn at random, some of them unknown."""
    rng = np.random.default_rng(5)
    columns = {task: rng.integers(-1, len(names), 2000) for task, names in PRETEXT_TASKS.items()}
    targets = pd.DataFrame(columns).replace(-1, -100).astype(np.int8)
    torch.manual_seed(1)
    model = build_model("multitask_pretrainer", n_features=gather.n_features, hidden_size=4, dropout=0.0)
    return model, BarClassification(gather, targets, settings)


class InterruptsLastRank(Reconstruction):
    """Sends SIGINT to one rank only, in the fifth step."""

    n_steps = 0

    def losses(self, *arguments):
        self.n_steps += 1
        if self.n_steps == 5 and rank() == int(os.environ.get("WORLD_SIZE", "1")) - 1:
            signal.raise_signal(signal.SIGINT)
        return super().losses(*arguments)


class Watched:
    """A gatherer that remembers which windows were asked for."""

    def __init__(self, gather):
        self.gather, self.seen = gather, []

    def __getattr__(self, name):
        return getattr(self.gather, name)

    def __call__(self, places):
        self.seen.append(places.tolist())
        return self.gather(places)


def reconstruct(settings=QUICK, gather=None, places=TRAIN, objective=Reconstruction, model=None, **options):
    """Train and return what came of it: the history, and what the weights sum to."""
    gather = gather or noise_gather()
    model = model or tiny_model(dropout=0.0)
    made = objective(gather, places, settings)
    history = pretrain(model, gather, np.array(places), VALIDATION, settings, objective=made, **options)
    weights = torch.cat([value.flatten() for value in model.state_dict().values()])
    return {"history": without_clock(history), "weights": weights.tolist()}


def watch(folder):
    gather = Watched(noise_gather())
    settings = replace(QUICK, batch_size=6, n_epochs=3)
    found = reconstruct(settings, gather)
    return found | {"seen": gather.seen}


def classify(folder):
    settings = replace(QUICK, batch_size=7)
    gather = noise_gather()
    model, objective = classified(gather, settings)
    history = pretrain(model, gather, TRAIN, VALIDATION, settings, objective=objective)
    return {"history": without_clock(history)}


def break_down(folder):
    model = tiny_model()
    with torch.no_grad():
        model.decoder.bias.fill_(float("inf"))
    try:
        return reconstruct(model=model)
    except UserError as error:
        return {"error": str(error)}


def interrupt(folder):
    checkpoints = Checkpoints(folder / "interrupted")
    try:
        return reconstruct(objective=InterruptsLastRank, checkpoints=checkpoints)
    except KeyboardInterrupt:
        return {"interrupted": checkpoints.latest.exists()}


CASES = {
    "batches of 8, 8 and 4": lambda _: reconstruct(),
    "uneven batches": lambda _: reconstruct(replace(QUICK, batch_size=7, mask="span")),
    "a last batch of one window": lambda _: reconstruct(replace(QUICK, batch_size=19)),
    "batches of one window": lambda _: reconstruct(replace(QUICK, batch_size=1)),
    "ranks without a scored bar": lambda _: reconstruct(
        replace(QUICK, batch_size=2, windows_per_epoch=8), gather_blind_from(1000), HALF_BLIND
    ),
    "a strided epoch": lambda _: reconstruct(replace(QUICK, epoch_stride=3, batch_size=4)),
    "gradient checkpointing": lambda _: reconstruct(replace(QUICK, gradient_checkpointing=True, seed=4)),
    "classification": classify,
    "windows watched": watch,
    "no patience": lambda _: reconstruct(
        replace(QUICK, n_epochs=9, patience_epochs=2, learning_rate=0.0, final_learning_rate=0.0)
    ),
    "stopped by rank 0": lambda _: reconstruct(on_epoch=lambda row: rank() == 0),
    "a loss that is not finite": break_down,
    "interrupted on the last rank": interrupt,
}


def run_cases(folder, names=tuple(CASES)):
    return {name: CASES[name](Path(folder)) for name in names}


if __name__ == "__main__":
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with join_ranks("cpu"):
        found = run_cases(sys.argv[1])
        Path(sys.argv[1], f"rank{rank()}.json").write_text(json.dumps(found))
