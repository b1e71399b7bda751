"""Training: gathering batches, a whole pre-training step and its loop, each against a reference in the same run."""

import os
import time
from functools import partial

from benchmarks.inputs import five_years_of_features
from benchmarks.runner import Benchmark

N_WINDOWS = 8192
N_STEPS = 4
LOOP_STEPS = 12  # an epoch's fixed work (its validation, its row) is shared by few steps even so
STEP_BATCH = 64
WINDOW_BARS = 105
SEED = 17
SCAN_SEGMENTS = 2  # sessions


def _random_places(gather, n=N_WINDOWS):
    """Return places anywhere in the series, (n,) int64."""
    import torch

    n_places = len(gather.values) - WINDOW_BARS
    return torch.randint(n_places, (n,), generator=torch.Generator().manual_seed(SEED))


def gather_against_memcpy(batch_size):
    """Gather random windows by index; copy one such batch, which lies in the cache, again and again.

    Both write into new memory, and both move values and validity.
    """
    import torch

    from moola_lib.windows.gather import WindowGatherer

    torch.set_num_threads(1)
    gather = WindowGatherer(five_years_of_features())
    batches = _random_places(gather).split(batch_size)
    hot = gather(batches[0])

    def ours():
        return sum(len(gather(batch)[0]) for batch in batches)

    def reference():
        for _ in batches:
            for part in hot:
                part.clone()
        return N_WINDOWS

    return ours, reference


def assembly_against_step():
    """Gather a batch, draw its mask and jitter, all that happens outside the model; take a whole training step."""
    import numpy as np

    from moola_lib.learning.objectives import draw_mask, jitter_windows
    from moola_lib.learning.pretrain import PretrainSettings, pretrain
    from moola_lib.models import build_model
    from moola_lib.windows.gather import WindowGatherer
    from moola_lib.windows.noise import window_uniforms

    gather = WindowGatherer(five_years_of_features())
    settings = PretrainSettings(n_epochs=1, batch_size=STEP_BATCH, mask="span", n_threads=1, seed=SEED)
    model = build_model("masked_autoencoder", n_features=11)
    batches = _random_places(gather).split(STEP_BATCH)

    def ours():
        for batch in batches:
            clean, is_valid = gather(batch)
            draw_mask(window_uniforms((SEED, 0), batch, WINDOW_BARS), settings)
            jitter_windows(clean, is_valid, batch, settings, epoch=0)
        return len(batches)

    def reference():
        pretrain(model, gather, np.arange(20, 20 + N_STEPS * STEP_BATCH), np.array([100_000]), settings)
        return N_STEPS

    return ours, reference


def gather_against_dataloader(batch_size):
    """Gather random windows by index; fetch the same ones with a DataLoader of two workers, item by item."""
    import torch

    from moola_lib.windows.gather import WindowGatherer

    torch.set_num_threads(1)
    gather = WindowGatherer(five_years_of_features())
    places = _random_places(gather)
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


def loop_against_plain():
    """Run our loop with its log, progress and checks; run a loop as one would write it out, with nothing else."""
    import io
    import json

    import numpy as np
    import torch

    from moola_lib.learning.losses import masked_huber
    from moola_lib.learning.pretrain import PretrainSettings, pretrain
    from moola_lib.models import build_model
    from moola_lib.windows.gather import WindowGatherer

    gather = WindowGatherer(five_years_of_features())
    settings = PretrainSettings(n_epochs=1, batch_size=STEP_BATCH, n_threads=1, seed=SEED)
    places, validation_places = np.arange(20, 20 + LOOP_STEPS * STEP_BATCH), np.array([100_000])
    model, plain = (build_model("masked_autoencoder", n_features=11) for _ in range(2))
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, fused=True)
    log = io.StringIO()

    def show(row):
        log.write(json.dumps(row) + "\n")
        print(f"epoch {row['epoch']}  validation huber {row['validation_huber']:.4g}", file=log)

    def ours():
        pretrain(model, gather, places, validation_places, settings, on_epoch=show)
        return LOOP_STEPS

    def reference():
        plain.train()
        for batch in torch.as_tensor(places).split(STEP_BATCH):
            clean, _ = gather(batch)
            is_masked = torch.rand(clean.shape[:2]) < settings.mask_ratio
            answer = plain(clean + torch.randn_like(clean) * settings.jitter, is_masked)["reconstruction"]
            loss = masked_huber(answer, clean, is_masked)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), settings.clip_norm)
            optimizer.step()
        return LOOP_STEPS

    return ours, reference


def scan_against_forward():
    """Scan a series at stride 5 and merge what the windows say; run the bare forward passes of the same windows."""
    import torch

    from moola_lib.features.sets import upside_down
    from moola_lib.learning.scan import scan
    from moola_lib.models import build_model
    from moola_lib.windows.gather import WindowGatherer
    from moola_lib.windows.places import window_places

    torch.set_num_threads(1)
    table = five_years_of_features()
    table = table.cut(0, table.starts[SCAN_SEGMENTS])
    options = {"heads": ("segment",), "start_range": (30, 74), "upside_down": upside_down(table.names)}
    model = build_model("jade", n_features=11, **options).eval()
    gather = WindowGatherer(table)
    places, _ = window_places(table.starts, len(table), stride=5)

    def ours():
        scan(model, table, stride=5)
        return len(places)

    @torch.no_grad()
    def reference():
        for batch in torch.as_tensor(places).split(256):
            model(gather(batch)[0])
        return len(places)

    return ours, reference


def half_against_full_precision():
    """Run the pre-training loop for a few steps in bf16; the same in fp32."""
    from dataclasses import replace

    import numpy as np

    from moola_lib.learning.pretrain import PretrainSettings, pretrain
    from moola_lib.models import build_model
    from moola_lib.windows.gather import WindowGatherer

    gather = WindowGatherer(five_years_of_features())
    full = PretrainSettings(n_epochs=1, batch_size=STEP_BATCH, n_threads=1, seed=SEED)
    model = build_model("masked_autoencoder", n_features=11)
    places, validation_places = np.arange(20, 20 + N_STEPS * STEP_BATCH), np.array([100_000])

    def run(settings):
        pretrain(model, gather, places, validation_places, settings)
        return N_STEPS

    return partial(run, replace(full, precision="bf16")), partial(run, full)


def _lacks_half_precision():
    from moola_lib.learning.device import has_fast_bf16

    return "" if has_fast_bf16() else "this CPU has no bf16 instructions"


def _lacks_cores():
    return "" if (os.cpu_count() or 1) >= 2 else "one core only: two workers need two"


BENCHMARKS = [
    *(
        Benchmark(
            f"gather batches of {size}: time over a hot copy of such a batch",
            "≤ 6",
            partial(gather_against_memcpy, size),
        )
        for size in (64, 256, 1024)
    ),
    *(
        Benchmark(
            f"gather batches of {size}: times faster than a DataLoader with 2 workers",
            "≥ 5",
            partial(gather_against_dataloader, size),
            clock=time.perf_counter,
            missing=_lacks_cores,
        )
        for size in (64, 256, 1024)
    ),
    Benchmark(
        "gather, span mask and jitter of a batch of 64: time over a training step, 1 thread",
        "≤ 0.01",
        assembly_against_step,
    ),
    Benchmark(
        "pre-training step, batch 64, 1 thread: time over its bare LSTM (same dropout) forward and backward",
        "≤ 1.10",
        step_against_lstm,
    ),
    Benchmark(
        "pre-training loop with log, progress and checks, batch 64, 1 thread: time over a plain loop",
        "≤ 1.02",
        loop_against_plain,
    ),
    Benchmark(
        "scan of a series at stride 5, 1 thread: time over its bare forward passes",
        "≤ 1.2",
        scan_against_forward,
    ),
    Benchmark(
        "pre-training step in bf16, batch 64, 1 thread: time over fp32",
        "≤ 0.75",
        half_against_full_precision,
        missing=_lacks_half_precision,
    ),
]
