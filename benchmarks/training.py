"""Training: gathering batches against a DataLoader, and a whole pre-training step against its LSTM alone."""

import os
import time
from functools import partial

from benchmarks.inputs import five_years_of_features
from benchmarks.runner import Benchmark

N_WINDOWS = 8192
N_STEPS = 4
STEP_BATCH = 64
WINDOW_BARS = 105
SEED = 17


def gather_against_dataloader(batch_size):
    """Gather random windows by index; fetch the same ones with a DataLoader of two workers, item by item."""
    import torch

    from moola_lib.windows.gather import WindowGatherer

    torch.set_num_threads(1)
    gather = WindowGatherer(five_years_of_features())
    n_places = len(gather.values) - WINDOW_BARS
    places = torch.randint(n_places, (N_WINDOWS,), generator=torch.Generator().manual_seed(SEED))
    loader = torch.utils.data.DataLoader(
        _Windows(gather.values, gather.is_valid),
        batch_size=batch_size,
        sampler=places.tolist(),
        num_workers=2,
        persistent_workers=True,  # their start is not timed
    )

    def ours():
        return sum(len(gather(batch)[0]) for batch in places.split(batch_size))

    def reference():
        return sum(len(x) for x, _ in loader)

    return ours, reference


class _Windows:
    """A data set as one would write it: one window per item."""

    def __init__(self, values, is_valid):
        self.values, self.is_valid = values, is_valid

    def __len__(self):
        return len(self.values) - WINDOW_BARS

    def __getitem__(self, place):
        part = slice(place, place + WINDOW_BARS)
        return self.values[part], self.is_valid[part]


def step_against_lstm():
    """Run the pre-training loop for a few steps; run its LSTM alone, forward and backward, at the same shapes.

    Ours includes all that surrounds a step: gathering, masks, jitter, decoder,
    loss, clipping, AdamW, and the validation of one window per call.
    """
    import numpy as np
    import torch

    from moola_lib.learning.pretrain import PretrainSettings, pretrain
    from moola_lib.models import build_model
    from moola_lib.windows.gather import WindowGatherer

    gather = WindowGatherer(five_years_of_features())
    settings = PretrainSettings(n_epochs=1, batch_size=STEP_BATCH, n_threads=1, seed=SEED)
    model = build_model("masked_autoencoder", n_features=11)
    places, validation_places = np.arange(20, 20 + N_STEPS * STEP_BATCH), np.array([100_000])
    options = model.encoder.lstm
    lstm = torch.nn.LSTM(
        11, options.hidden_size, options.num_layers, batch_first=True, bidirectional=True, dropout=options.dropout
    )
    x, _ = gather(torch.as_tensor(places[:STEP_BATCH]))
    slope = torch.randn(STEP_BATCH, WINDOW_BARS, 2 * options.hidden_size)

    def ours():
        pretrain(model, gather, places, validation_places, settings)
        return N_STEPS

    def reference():
        for _ in range(N_STEPS):
            lstm.zero_grad(set_to_none=True)
            lstm(x)[0].backward(slope)
        return N_STEPS

    return ours, reference


def _lacks_cores():
    return "" if (os.cpu_count() or 1) >= 2 else "one core only: two workers need two"


BENCHMARKS = [
    *(
        Benchmark(
            f"gather batches of {size}: times faster than a DataLoader with 2 workers",
            "≥ 5",
            partial(gather_against_dataloader, size),
            clock=time.perf_counter,
            missing=_lacks_cores,
        )
        for size in (64, 256)
    ),
    Benchmark(
        "pre-training step, batch 64, 1 thread: time over its bare LSTM (same dropout) forward and backward",
        "≤ 1.10",
        step_against_lstm,
    ),
]
