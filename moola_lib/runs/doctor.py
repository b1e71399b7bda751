"""The readiness report: is this machine, with these versions, fit to train?

Five checks run the real parts on simulated bars, from raw prices to a
transferred encoder. Every line shows the figures it was judged by.
"""

import shutil
import tempfile
import time
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import check_writable
from moola_lib.runs.project import LEAST_DISK_GB, find_root
from moola_lib.runs.terminal import open_console

GO, NO_GO = 0, 3
MIN_MEMORY_GB = 2.0
MAX_SCALE_CHANGE = 1e-4
N_WINDOWS, N_SESSIONS, SEED = 8, 3, 17


def doctor(device="auto", stream=None):
    """Print the readiness report.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
    stream : text file, optional
        Default the standard output.

    Returns
    -------
    int
        0 (GO: every line passes) or 3 (NO-GO).

    Raises
    ------
    UserError
        `cuda` is asked for and absent.
    """
    from moola_lib.learning.device import resolve_device

    began = time.perf_counter()
    device = resolve_device(device)
    console = open_console(stream)
    console.print(_versions(), markup=False)
    root = find_root()
    lines = [("device", None, _describe_device(device)), *_measure_resources(), _check_folders(root)]
    lines += [(name, *_run_check(check, device)) for name, check in CHECKS.items()]
    console.print(_table(lines))
    failed = [name for name, has_passed, _ in lines if has_passed is False]
    seconds = f"{time.perf_counter() - began:.1f} s"
    if failed:
        console.print(f"NO-GO in {seconds}: {', '.join(failed)}", style="bold red", markup=False)
        return NO_GO
    console.print(f"GO in {seconds}", style="bold green")
    return GO


def _check_folders(root):
    """Return the line that says whether runs can be written."""
    try:
        for name in ("reports", "data"):
            check_writable(root / name)
    except UserError as error:
        return "folders", False, str(error)
    return "folders", True, f"reports and data in {root} can be written"


def check_raw_pipeline(device):
    """Feed raw prices through the simple LSTM and the focal loss, and see which tensors a gradient reaches.

    Returns
    -------
    (bool, str)
        Whether it passed, and the figures; so do the other checks.
    """
    import torch

    from moola_lib.features import build_features
    from moola_lib.learning.losses import focal_loss
    from moola_lib.models import build_model
    from moola_lib.windows import window_places
    from moola_lib.windows.gather import WindowGatherer

    table = build_features(_bars(), feature_set="ohlc4")
    places, _ = window_places(table.starts, len(table), stride=105)
    x, _ = WindowGatherer(table, device)(torch.as_tensor(places[-N_WINDOWS:]))  # the first hold rows that are not valid
    torch.manual_seed(SEED)
    model = build_model("simple_lstm", n_features=4, dropout=0.0).to(device)
    logits = model(x)["type_logits"]
    target = torch.arange(len(x), device=device) % 2
    loss = focal_loss(logits, target, 2.0, torch.tensor([1.0, 1.17]))
    loss.backward()
    tensors = list(model.parameters())
    n_reached = sum(_has_gradient(tensor) for tensor in tensors)
    n_parameters = sum(tensor.numel() for tensor in tensors)
    has_passed = (
        n_parameters == 409_186
        and n_reached == len(tensors) == 18
        and tuple(logits.shape) == (len(x), 2)
        and bool(torch.isfinite(loss))
    )
    return has_passed, (
        f"simple_lstm {n_parameters:,} parameters, {_shape(x)} to {_shape(logits)}, focal loss {loss.item():.4f}, "
        f"gradient to {n_reached}/{len(tensors)} tensors"
    )


def check_scale_invariance(device):
    """Raise every price by 30% and see how far the older feature set moves."""
    from moola_lib.features.checks import check_scale

    row = check_scale(_bars().frame, factors=(1.3,), feature_set="relative_transform11").iloc[0]
    change = float(row["largest_change"])
    return change <= MAX_SCALE_CHANGE, (
        f"relative_transform11, prices +30%: largest difference {change:.2g} in {row['feature']} "
        f"(at most {MAX_SCALE_CHANGE:g})"
    )


def check_multitask_shapes(device):
    """Classify every bar three times."""
    import torch

    from moola_lib.models import build_model

    model = build_model("multitask_pretrainer", n_features=11).to(device)
    n_tensors = len(model.encoder.state_dict())
    with torch.no_grad():
        outputs = model(_noise(device))
    has_passed = n_tensors == 16
    figures = []
    for task, n_classes in [("expansion", 2), ("swing", 3), ("candle", 4)]:
        logits = outputs[f"{task}_logits"]
        has_passed &= tuple(logits.shape) == (N_WINDOWS, 105, n_classes) and bool(torch.isfinite(logits).all())
        figures.append(f"{task} {_shape(logits)}")
    return has_passed, f"multitask_pretrainer: {', '.join(figures)}; encoder {n_tensors} tensors"


def check_encoder_transfer(device):
    """Save a masked autoencoder and load its encoder into a jade."""
    import torch

    from moola_lib.models import build_model
    from moola_lib.models.weights import load_encoder, save_model

    torch.manual_seed(SEED)
    features = {"set_id": "doctor", "names": [f"column_{i}" for i in range(11)]}
    source = build_model("masked_autoencoder", n_features=11).to(device)
    target = build_model("jade", n_features=11).to(device).eval()
    with tempfile.TemporaryDirectory(prefix="moola-doctor-") as folder:
        path = Path(folder) / "encoder.safetensors"
        save_model(source, path, features=features)
        report = load_encoder(target, path, features=features)
    with torch.no_grad():
        outputs = target(_noise(device))
    is_finite = all(bool(torch.isfinite(value).all()) for value in outputs.values())
    has_passed = report["matched"] == report["expected"] == 16 and report["largest_change"] > 0 and is_finite
    return has_passed, (
        f"masked_autoencoder to jade: {report['matched']}/{report['expected']} tensors matched, largest weight change "
        f"{report['largest_change']:.4f}, forward pass {'finite' if is_finite else 'not finite'}"
    )


def check_time_warp_off(device):
    """See that the augmentation is off by default, and that off means untouched."""
    import torch

    from moola_lib.runs.parameters import FineTuning
    from moola_lib.windows.augment import warp_batch

    probability = FineTuning.model_fields["time_warp_probability"].default
    batch = {"x": _noise(device)}
    before = batch["x"].clone()
    after = warp_batch(batch, (None, None), 0.0, torch.Generator().manual_seed(SEED))
    is_unchanged = after.keys() == batch.keys() and torch.equal(after["x"], before)
    return probability == 0 and is_unchanged, (
        f"default probability {probability:g}; at 0 the batch is {'unchanged' if is_unchanged else 'changed'}"
    )


CHECKS = {
    "1 raw OHLC pipeline": check_raw_pipeline,
    "2 scale invariance": check_scale_invariance,
    "3 multitask shapes": check_multitask_shapes,
    "4 encoder transfer": check_encoder_transfer,
    "5 time warp off": check_time_warp_off,
}


def _run_check(check, device):
    """Return a check's verdict and figures; one that raises has failed, with its message."""
    try:
        return check(device)
    except Exception as error:  # whatever is wrong with this machine is what the report is for
        return False, f"{type(error).__name__}: {error}"


def _measure_resources():
    """Return the lines on memory and disk."""
    import psutil

    from moola_lib.runs.project import find_root

    try:
        folder = find_root()
    except UserError:
        folder = Path.cwd()
    memory = psutil.virtual_memory()
    available_gb, disk_gb = memory.available / 1e9, shutil.disk_usage(folder).free / 1e9
    return [
        (
            "memory",
            available_gb >= MIN_MEMORY_GB,
            f"{available_gb:.1f} of {memory.total / 1e9:.1f} GB available (at least {MIN_MEMORY_GB:g})",
        ),
        ("disk", disk_gb >= LEAST_DISK_GB, f"{disk_gb:.1f} GB free in {folder} (at least {LEAST_DISK_GB:g})"),
    ]


def _describe_device(device):
    """Return the device in words: a GPU with its memory, or the processor's cores."""
    import os

    import torch

    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        return f"cuda: {gpu.name}, {gpu.total_memory / 1e9:.1f} GB, CUDA {torch.version.cuda}"
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"cpu: {n_cores} cores, {torch.get_num_threads()} threads an operation"


def _versions():
    """Return the versions as one line."""
    from moola_lib.runs.record import package_versions

    return ", ".join(f"{name} {version}" for name, version in package_versions().items())


def _table(lines):
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Readiness", title_justify="left", title_style="bold", header_style="bold")
    table.add_column("line", no_wrap=True)
    table.add_column("figures", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    verdicts = {True: Text("PASS", "green"), False: Text("FAIL", "bold red"), None: Text("")}
    for name, has_passed, figures in lines:
        table.add_row(name, Text(figures), verdicts[has_passed])
    return table


def _bars():
    from moola_lib.market import simulate_bars

    return simulate_bars(n_sessions=N_SESSIONS, seed=SEED).bars


def _noise(device):
    """Return windows of noise, (8, 105, 11) float32."""
    import torch

    return torch.randn(N_WINDOWS, 105, 11, generator=torch.Generator().manual_seed(SEED)).to(device)


def _has_gradient(tensor):
    """Tell whether any gradient other than 0 has reached a parameter, and no NaN."""
    import torch

    return tensor.grad is not None and bool(torch.isfinite(tensor.grad).all()) and bool((tensor.grad != 0).any())


def _shape(tensor):
    return f"[{', '.join(map(str, tensor.shape))}]"
