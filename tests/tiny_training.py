"""A pre-training of some milliseconds a step, shared by tests; run as a script it trains until it is killed.

`python tests/tiny_training.py FOLDER EVERY` prints a line after each step.
"""

import signal
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from moola_lib.features.table import FeatureTable
from moola_lib.learning.checkpoints import Checkpoints
from moola_lib.learning.objectives import Reconstruction
from moola_lib.learning.pretrain import PretrainSettings, pretrain
from moola_lib.models import build_model
from moola_lib.windows.gather import WindowGatherer

SETTINGS = PretrainSettings(n_epochs=4, batch_size=8, seed=3, n_threads=1)
TRAIN, VALIDATION = np.arange(0, 800, 40), np.arange(1400, 1800, 50)
STEPS_PER_EPOCH = 3
CLOCK = "windows_per_second"


def tiny_model(seed=1, **options):
    torch.manual_seed(seed)
    return build_model("masked_autoencoder", **{"n_features": 11, "hidden_size": 4} | options)


def noise_gather(**options):
    """Windows of a table of noise: a feature table without bars."""
    values = np.random.default_rng(5).standard_normal((2000, 11), np.float32)
    table = FeatureTable(
        values=values,
        is_valid=np.ones(2000, bool),
        starts=np.zeros(1, np.int64),
        names=tuple(f"f{k}" for k in range(11)),
        ranges=np.tile([-5.0, 5.0], (11, 1)),
        set_id="noise",
        version=1,
        is_flip=np.zeros(2000, bool),
        options={"extra": ()},
    )
    return WindowGatherer(table, **options)


def without_clock(history):
    return [{name: value for name, value in row.items() if name != CLOCK} for row in history]


def assert_equal_weights(one, two):
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


class Announced(Reconstruction):
    """Says each step, and takes its time, so that a signal lands in the middle of something."""

    def losses(self, model, places, epoch):
        print("step", flush=True)
        time.sleep(0.02)
        return super().losses(model, places, epoch)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts a background process with SIGINT ignored
    gather = noise_gather()
    settings = replace(SETTINGS, checkpoint_every_steps=int(sys.argv[2]))
    objective = Announced(gather, TRAIN, settings)
    checkpoints = Checkpoints(sys.argv[1])
    pretrain(tiny_model(), gather, TRAIN, VALIDATION, settings, objective=objective, checkpoints=checkpoints)
