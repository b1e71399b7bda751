"""Loss balance: a training step under every strategy against `fixed`, with the audit against without, re-weighing."""

import tempfile
from functools import partial

from benchmarks.fits import SEED, labelled_windows
from benchmarks.runner import Benchmark

N_STEPS_AN_EPOCH = 5
N_EPOCHS = 4
SCALARISERS = [
    "manual",
    "initial",
    "ema",
    "uncertainty",
    "uncertainty_bounded",
    "log",
    "geometric_mean",
    "dwa",
    "imtl_l",
    "stch",
]
AGGREGATORS = ["pcgrad", "mgda", "aligned_mtl", "upgrad", "gradnorm"]


def strategy_against_fixed(name):
    """Fine-tune the full-size localiser, encoder and all, under a strategy; the same under `fixed`."""
    return _epochs(balance=name), _epochs(balance="fixed")


def audited_against_not():
    """Fine-tune for as many steps as lie between two audits by default, one of them audited; the same without."""
    from moola_lib.learning.finetune import FinetuneSettings

    every = FinetuneSettings.audit_every
    n_epochs = every // N_STEPS_AN_EPOCH
    return _epochs(n_epochs=n_epochs, audit_every=every), _epochs(n_epochs=n_epochs)


def reweighed_against_step():
    """Re-weigh 60 recorded steps under the strategy that takes longest; fine-tune the localiser for a step."""
    from moola_lib.evaluation.reweigh import reweigh

    metrics, train = _record(n_steps=60), _epochs()

    def work():
        reweigh(metrics, "aligned_mtl")
        return 1

    return work, lambda: train() * N_STEPS_AN_EPOCH


def _record(n_steps):
    """Return the audits of a small model's training, one at every step."""
    from moola_lib.evaluation.balance import read_metrics
    from moola_lib.learning.audit import METRICS_NAME
    from moola_lib.learning.checkpoints import Checkpoints
    from moola_lib.learning.finetune import FinetuneSettings, finetune
    from moola_lib.models import build_model

    gather, windows, folds, _ = labelled_windows()
    model = build_model("jade", n_features=gather.n_features, hidden_size=16)
    n_epochs = n_steps // N_STEPS_AN_EPOCH
    settings = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=n_epochs, audit_every=1, n_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder)
        finetune(model, gather, windows.take(folds[0].train), settings, checkpoints=checkpoints)
        return read_metrics(checkpoints.folder / METRICS_NAME)


def _epochs(balance="fixed", audit_every=0, n_epochs=N_EPOCHS):
    """Return a work that trains on one fold for some epochs."""
    import torch

    from moola_lib.learning.finetune import FinetuneSettings, finetune
    from moola_lib.models import build_model

    gather, windows, folds, _ = labelled_windows()
    train = windows.take(folds[0].train)
    settings = FinetuneSettings(
        n_frozen_epochs=0, n_unfrozen_epochs=n_epochs, balance=balance, audit_every=audit_every, n_threads=1
    )

    def work():
        torch.manual_seed(SEED)
        finetune(build_model("jade", n_features=gather.n_features), gather, train, settings)
        return n_epochs

    return work


BENCHMARKS = [
    *(
        Benchmark(f"step under `{name}`: time over `fixed`", "≤ 1.05", partial(strategy_against_fixed, name))
        for name in SCALARISERS
    ),
    # its losses are computed again after the step, a forward pass: three tenths of a step
    Benchmark("step under `famo`: time over `fixed`", "≤ 1.4", partial(strategy_against_fixed, "famo")),
    # four backward passes through the encoder instead of one; a step of forward and four would be 2.5
    *(
        Benchmark(f"step under `{name}`: time over `fixed`", "≤ 3", partial(strategy_against_fixed, name), n_rounds=3)
        for name in AGGREGATORS
    ),
    Benchmark("fine-tuning with the default audit: time over none", "≤ 1.10", audited_against_not),
    Benchmark("re-weighing 60 steps under `aligned_mtl`: time over a training step", "≤ 1", reweighed_against_step),
]
