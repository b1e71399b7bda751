"""Pre-training at full scale on a GPU, beside its floor and a plain loop: `python -m benchmarks.gpu_pretrain`.

Speed: our loop, the same step captured as a CUDA graph, a plain loop with a DataLoader, and the bare LSTM forward and
backward (cuDNN's, the floor), at the same shapes in the same run. Learning: whether epochs of a fraction of the
windows, and large batches, end at the same validation loss. On a machine without a GPU both run at a small scale on the
CPU, and goals that speak of a GPU are not judged.
"""

import argparse
import datetime
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, replace

from benchmarks.runner import meets

SEED = 17
NOTES_SECONDS, NOTES_WINDOWS = 87, 1_800_000  # an epoch, as the notes quote it of an RTX 4090
STRIDE = 8
N_WARM_UP = 3
NOT_MEASURED = "not measured: no CUDA device"


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    Attributes
    ----------
    n_sessions, hidden_size : int
        Of the timed works; every window of these sessions is one to train on.
    dropout : float
    batch_sizes : tuple of int
        Smallest to largest.
    n_steps : int
        Timed of each work.
    learning_sessions, learning_size, learning_dropout, learning_rate, n_epochs
        Of the compared trainings; the rate is that of the smallest batch.
    """

    n_sessions: int
    hidden_size: int
    dropout: float
    batch_sizes: tuple
    n_steps: int
    learning_sessions: int
    learning_size: int
    learning_dropout: float
    learning_rate: float
    n_epochs: int


SCALES = {
    "full": Scale(1305, 128, 0.65, (64, 256, 1024), 200, 1305, 128, 0.65, 1e-3, 3),  # 1.8 million bars
    "small": Scale(25, 128, 0.65, (64, 256, 1024), 2, 25, 16, 0.0, 4e-3, 16),
    "tiny": Scale(2, 4, 0.2, (16, 64), 2, 2, 4, 0.2, 4e-3, 1),
}


class Problem:
    """Bars, their windows and a model to be trained on them, on one device."""

    def __init__(self, n_sessions, hidden_size, dropout, device):
        import torch

        from moola_lib.features import build_features
        from moola_lib.learning.pretrain import PretrainSettings
        from moola_lib.market import simulate_bars
        from moola_lib.windows import window_places
        from moola_lib.windows.gather import WindowGatherer

        self.device = torch.device(device)
        table = build_features(simulate_bars(n_sessions=n_sessions, seed=SEED).bars)
        self.gather = WindowGatherer(table, self.device)
        places, _ = window_places(table.starts, len(table), stride=1)
        n_train = int(0.85 * len(places))
        self.train, self.validation = places[:n_train], places[n_train + 105 :: 26]
        self.shape = {"hidden_size": hidden_size, "n_layers": 2, "dropout": dropout}
        self.settings = PretrainSettings(
            mask="span", patience_epochs=1000, seed=SEED, n_threads=torch.get_num_threads()
        )

    def model(self):
        """Return a fresh model in training mode."""
        import torch

        from moola_lib.models import build_model

        torch.manual_seed(SEED)
        model = build_model("masked_autoencoder", n_features=self.gather.n_features, **self.shape)
        return model.to(self.device).train()


def ours(problem, batch_size, precision, n_steps):
    """Return windows a second of the library's loop, with all that it does beside a step."""
    from moola_lib.learning.pretrain import pretrain

    settings = replace(
        problem.settings, batch_size=batch_size, precision=precision, n_epochs=2, windows_per_epoch=n_steps * batch_size
    )
    history = pretrain(problem.model(), problem.gather, problem.train, problem.validation[:1], settings)
    return history[-1]["windows_per_second"]  # the first epoch warms up


def bare_lstm(problem, batch_size, precision, n_steps):
    """Return windows a second of the encoder's LSTM alone, forward and backward: what no loop can beat."""
    import torch

    from moola_lib.learning.device import at_precision

    lstm = problem.model().encoder.lstm
    x, _ = problem.gather(torch.as_tensor(problem.train[:batch_size]))
    slope = torch.randn(*x.shape[:2], 2 * lstm.hidden_size, device=problem.device)

    def step():
        lstm.zero_grad(set_to_none=True)
        with at_precision(problem.device, precision):
            encoded = lstm(x)[0]
        encoded.backward(slope.to(encoded.dtype))

    return _windows_per_second(step, batch_size, n_steps, problem.device)


def plain_loop(problem, batch_size, precision, n_steps):
    """Return windows a second of a loop as one would write it: a DataLoader of items, masks by `torch.rand`, AdamW."""
    import torch

    from benchmarks.training import _Windows
    from moola_lib.learning.device import at_precision

    data = _Windows(problem.gather.values.cpu(), problem.gather.is_valid.cpu())
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(data, problem.train.tolist()),
        batch_size=batch_size,
        shuffle=True,
        num_workers=min(8, os.cpu_count() or 1),
        pin_memory=problem.device.type == "cuda",
        drop_last=True,
    )
    model, batches = problem.model(), iter(loader)
    optimizer = torch.optim.AdamW(model.parameters(), lr=problem.settings.learning_rate)

    def step():
        clean, is_valid = (part.to(problem.device, non_blocking=True) for part in next(batches))
        is_masked = torch.rand(is_valid.shape, device=problem.device) < problem.settings.mask_ratio
        with at_precision(problem.device, precision):
            answer = model(clean + torch.randn_like(clean) * problem.settings.jitter, is_masked)["reconstruction"]
        is_scored = is_masked & is_valid
        loss = torch.nn.functional.huber_loss(answer.float()[is_scored], clean[is_scored])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), problem.settings.clip_norm)
        optimizer.step()

    return _windows_per_second(step, batch_size, n_steps, problem.device)


def captured(problem, batch_size, precision, n_steps):
    """Return windows a second of our step captured as a CUDA graph and replayed on other windows.

    The epoch is part of what is captured: a training would capture anew at each of its epochs.
    """
    import torch

    places = torch.as_tensor(problem.train[:batch_size]).to(problem.device)
    step = training_step(problem, places, precision)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a capture wants a warm step, on a stream of its own
        for _ in range(N_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    pool = torch.as_tensor(problem.train).to(problem.device)

    def replay():
        places.copy_(pool[torch.randint(len(pool), (batch_size,), device=problem.device)])
        graph.replay()

    return _windows_per_second(replay, batch_size, n_steps, problem.device)


def training_step(problem, places, precision):
    """Return a training step on the windows at `places` that never waits for the device: it can be captured."""
    import torch

    from moola_lib.learning.objectives import Reconstruction
    from moola_lib.learning.pretrain import build_optimizer

    settings = replace(problem.settings, precision=precision)
    model, objective = problem.model(), Reconstruction(problem.gather, problem.train, settings)
    optimizer = build_optimizer(model, settings)
    for group in optimizer.param_groups:
        group["capturable"] = problem.device.type == "cuda"

    def step():
        optimizer.zero_grad(set_to_none=True)
        sums, counts = objective.losses(model, places, epoch=0)
        loss = objective.combine(sums / counts.clamp(min=1))
        (loss + objective.side_loss(model, loss.detach())).backward()
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], settings.clip_norm)
        optimizer.step()

    return step


def _windows_per_second(step, batch_size, n_steps, device):
    """Return the pace of a step, the first ones not timed."""
    import torch

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(min(N_WARM_UP, n_steps)):
        step()
    wait()
    began = time.perf_counter()
    for _ in range(n_steps):
        step()
    wait()
    return batch_size * n_steps / (time.perf_counter() - began)


WORKS = {"ours": ours, "ours, captured": captured, "plain loop with a DataLoader": plain_loop, "bare LSTM": bare_lstm}


def measure_speed(scale, device):
    """Return a row for each work, batch size and precision: its pace, an epoch's length and the peak memory."""
    import torch

    problem = Problem(scale.n_sessions, scale.hidden_size, scale.dropout, device)
    rows = []
    for batch_size in scale.batch_sizes:
        for precision in ("fp32", "bf16"):
            for name, work in WORKS.items():
                if name == "ours, captured" and problem.device.type != "cuda":
                    continue
                print(f"timing {name}, batch {batch_size}, {precision}", file=sys.stderr, flush=True)
                if problem.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                torch.use_deterministic_algorithms(False)  # our loop asks for them itself; the others need not pay
                pace = work(problem, batch_size, precision, scale.n_steps)
                row = {"work": name, "batch": batch_size, "precision": precision, "windows/s": pace}
                row["epoch of 1.8 million windows (s)"] = NOTES_WINDOWS / pace
                if problem.device.type == "cuda":
                    row["peak memory (GiB)"] = torch.cuda.max_memory_allocated() / 2**30
                rows.append(row)
    return rows


def measure_learning(scale, device):
    """Return a row for each way to train: its windows, seconds and best validation loss."""
    from moola_lib.learning.pretrain import pretrain

    problem = Problem(scale.learning_sessions, scale.learning_size, scale.learning_dropout, device)
    smallest, *larger = scale.batch_sizes
    rates = {"learning_rate": scale.learning_rate, "final_learning_rate": scale.learning_rate / 10}
    all_windows = replace(problem.settings, n_epochs=scale.n_epochs, batch_size=smallest, **rates)
    ways = {
        "every window": all_windows,
        f"one window in {STRIDE}, random offsets": replace(all_windows, epoch_stride=STRIDE),
    }
    for batch_size in larger:  # You et al. 2019, arXiv:1901.08256; the warm-up is a share of the epochs already
        scaled = {name: rate * (batch_size / smallest) ** 0.5 for name, rate in rates.items()}
        ways[f"batch {batch_size:,}, √-scaled rate"] = replace(all_windows, batch_size=batch_size, **scaled)
    rows = []
    for name, settings in ways.items():
        print(f"training: {name}", file=sys.stderr, flush=True)
        began = time.perf_counter()
        history = pretrain(problem.model(), problem.gather, problem.train, problem.validation, settings)
        row = {"way": name, "windows": len(problem.train) // settings.epoch_stride * len(history)}
        row |= {"seconds": time.perf_counter() - began, "best": min(row["validation_huber"] for row in history)}
        rows.append(row)
    return rows


def judge(speed, learning, scale, has_gpu):
    """Return a row for each goal: its figure, the goal and the verdict.

    Goals of learning are judged on any device; those of speed on a GPU only.
    """
    smallest, largest = scale.batch_sizes[0], scale.batch_sizes[-1]
    pace = {(row["work"], row["batch"], row["precision"]): row["windows/s"] for row in speed}
    goals = []
    if speed:
        name = f"windows/s at batch {largest:,} over batch {smallest}"
        goals.append((name, pace["ours", largest, "fp32"] / pace["ours", smallest, "fp32"], "≥ 8", True))
        for work, batch, precision in pace:
            if work == "ours":
                ratio = pace["bare LSTM", batch, precision] / pace[work, batch, precision]
                goals.append((f"step over the bare LSTM, batch {batch:,}, {precision}", ratio, "≤ 1.15", True))
        graph = pace.get(("ours, captured", smallest, "fp32"))
        ratio = graph / pace["ours", smallest, "fp32"] if graph else None
        goals.append((f"captured over eager windows/s, batch {smallest}", ratio, "≥ 1.3", True))
        fastest = min(row["epoch of 1.8 million windows (s)"] for row in speed if row["work"] == "ours")
        goals.append((f"the notes' {NOTES_SECONDS} s an epoch over ours", NOTES_SECONDS / fastest, "≥ 5", True))
    for row in learning[1:]:
        excess = row["best"] / learning[0]["best"] - 1
        goals.append((f"validation loss above that of {learning[0]['way']}: {row['way']}", excess, "≤ 0.01", False))
    rows = []
    for name, value, goal, needs_gpu in goals:
        is_judged = has_gpu or not needs_gpu
        verdict = ("PASS" if meets(value, goal) else "FAIL") if is_judged else NOT_MEASURED
        rows.append({"goal": name, "figure": value, "bound": goal, "verdict": verdict})
    return rows


def main(argv=None):
    """Run the command line; return its exit code: 0 every judged goal met, 1 one missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_pretrain", description="Measure pre-training.")
    parser.add_argument("--scale", choices=SCALES, help="default: full on a GPU, small without")
    parser.add_argument("--only", choices=("speed", "learning"), help="one part, where a lease is short")
    parser.add_argument("--json", metavar="FILE", help="write all rows there as well")
    arguments = parser.parse_args(argv)
    import torch

    from moola_lib.files import write_json

    has_gpu = torch.cuda.is_available()
    name = arguments.scale or ("full" if has_gpu else "small")
    scale, device = SCALES[name], "cuda" if has_gpu else "cpu"
    what = torch.cuda.get_device_name() if has_gpu else f"CPU, {torch.get_num_threads()} thread"
    told = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": f"{what}, {platform.machine()}, torch {torch.__version__}, scale {name}",
        "load before": os.getloadavg()[0],
    }
    speed = measure_speed(scale, device) if arguments.only != "learning" else []
    learning = measure_learning(scale, device) if arguments.only != "speed" else []
    goals = judge(speed, learning, scale, has_gpu)
    told["load after"] = os.getloadavg()[0]
    print("\n".join(f"{key}: {value}" for key, value in told.items()))
    for rows in (speed, learning, goals):
        print(_table(rows))
    if arguments.json:
        write_json(arguments.json, {**told, "speed": speed, "learning": learning, "goals": goals, **asdict(scale)})
    return int(any(row["verdict"] == "FAIL" for row in goals))


def _table(rows):
    """Return rows as a Markdown table."""
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[f"{value:,.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    return "\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
