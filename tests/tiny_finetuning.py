"""A fine-tuning of some milliseconds, shared by tests."""

from dataclasses import replace

import torch

from moola_lib.learning.finetune import FinetuneSettings
from moola_lib.models import build_model

SETTINGS = FinetuneSettings(
    n_frozen_epochs=2, n_unfrozen_epochs=2, batch_size=6, balance="uncertainty", seed=3, n_threads=1
)
SEGMENT_SETTINGS = replace(SETTINGS, balance="fixed", n_frozen_epochs=1, n_unfrozen_epochs=1, is_class_balanced=False)
SEGMENT_OPTIONS = {"heads": ("segment",), "n_layers": 1, "start_range": (30, 74)}


def tiny_jade(seed=1, **options):
    torch.manual_seed(seed)
    return build_model("jade", n_features=11, **{"hidden_size": 4} | options)


def without_clock(history):
    return [{name: value for name, value in row.items() if name != "windows_per_second"} for row in history]


def copy_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def moved(before, model):
    return {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}


class Interrupted(Exception):
    pass


def stop_after(n):
    def on_epoch(row):
        if row["epoch"] == n:
            raise Interrupted

    return on_epoch
