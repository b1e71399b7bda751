"""Training, whole fits: two workers against one after the other, a hundred fits against five, frozen against full."""

import os
import time
from functools import cache

from benchmarks.runner import Benchmark

N_SESSIONS = 30
N_FOLDS = 5
N_EPOCHS = 4
SEED = 17
ARM_OPTIONS = {"hidden_size": 96}


def two_workers_against_one():
    """Run five folds in two worker processes, their start included; run them one after the other."""
    return _fits(n_seeds=2, n_workers=2), _fits(n_seeds=2, n_workers=1)


def hundred_fits_against_five():
    """Run twenty seeds of five folds of twenty epochs in workers; run one seed's folds one after the other."""
    options = {"n_epochs": 20, "n_units": 1}
    return _fits(n_seeds=20, n_workers=2, **options), _fits(n_seeds=1, n_workers=1, **options)


def frozen_against_full(heads):
    """Return the benchmark's works: epochs of a frozen encoder, its activations cached; as many that train all."""
    return lambda: (_epochs(heads, n_frozen=10), _epochs(heads, n_unfrozen=10))


@cache
def labelled_windows():
    """Return (gatherer, windows, folds, features) of 174 simulated labels on 30 sessions."""
    import numpy as np

    from moola_lib.features import build_features
    from moola_lib.labels import labels_from_planted
    from moola_lib.market import simulate_bars, trade_dates
    from moola_lib.windows import grouped_folds, place_labels
    from moola_lib.windows.gather import WindowGatherer

    market = simulate_bars(n_sessions=N_SESSIONS, seed=SEED)
    table = build_features(market.bars)
    frame = market.bars.frame
    windows, _ = place_labels(labels_from_planted(market.planted, symbol="SIM"), frame, table.starts)
    sessions = np.unique(trade_dates(frame.index))
    folds = grouped_folds(windows.place, windows.day, n_folds=N_FOLDS, embargo_days=1, sessions=sessions)
    gather = WindowGatherer(table)
    return gather, windows, folds, {"set_id": table.set_id, "names": gather.names}


def _fits(n_seeds, n_workers, *, n_epochs=N_EPOCHS, n_units=None):
    """Return a work that runs every fold from every seed, each fit a unit unless told otherwise."""
    from moola_lib.evaluation.cross_validation import Arm
    from moola_lib.evaluation.fits import plan_fits, run_fits
    from moola_lib.learning.finetune import FinetuneSettings

    gather, windows, folds, features = labelled_windows()
    settings = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=n_epochs, n_threads=1)
    arm = Arm("jade_compact", "jade_compact", settings, ARM_OPTIONS)
    fits = plan_fits([arm], folds, range(n_seeds))

    def work():
        run_fits(fits, gather, windows, features=features, n_workers=n_workers)
        return n_units or len(fits)

    return work


def _epochs(heads, n_frozen=0, n_unfrozen=0):
    """Return a work that fine-tunes the full-size localiser on one fold for some epochs."""
    import torch

    from moola_lib.learning.finetune import FinetuneSettings, finetune
    from moola_lib.models import build_model
    from moola_lib.models.jade import HEADS

    gather, windows, folds, _ = labelled_windows()
    train = windows.take(folds[0].train)
    settings = FinetuneSettings(n_frozen_epochs=n_frozen, n_unfrozen_epochs=n_unfrozen, n_threads=1)

    def work():
        torch.manual_seed(SEED)
        model = build_model("jade", n_features=gather.n_features, heads=HEADS[heads])
        finetune(model, gather, train, settings)
        return n_frozen + n_unfrozen

    return work


def _lacks_cores():
    return "" if len(os.sched_getaffinity(0)) >= 2 else "one core only: two workers need two"


BENCHMARKS = [
    Benchmark(
        "fits in two worker processes, start included: time over one after the other",
        "≤ 0.75",
        two_workers_against_one,
        clock=time.perf_counter,
        missing=_lacks_cores,
    ),
    Benchmark(
        "100 fits (20 seeds, 5 folds, 20 epochs) in two workers: time over 5 fits one after the other",
        "≤ 10",
        hundred_fits_against_five,
        n_rounds=1,  # two minutes, and as many for the first call
        clock=time.perf_counter,
        missing=_lacks_cores,
    ),
    Benchmark(
        "frozen phase with cached activations, the notes' heads: time over the full phase",
        "≤ 0.15",
        frozen_against_full("notes"),
    ),
    Benchmark(
        "frozen phase with cached activations, segment posterior: time over the full phase",
        "≤ 0.15",
        frozen_against_full("segment"),
    ),
]
