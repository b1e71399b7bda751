"""The live view: a training in a Jupyter kernel that draws it, against the same without."""

import atexit
from functools import cache, partial

from benchmarks.runner import Benchmark

SETUP = """
import numpy as np
from benchmarks.inputs import five_years_of_features
from moola_lib.learning.pretrain import PretrainSettings, pretrain
from moola_lib.models import build_model
from moola_lib.widgets.live import LiveTraining
from moola_lib.windows.gather import WindowGatherer

gather = WindowGatherer(five_years_of_features())
settings = PretrainSettings(n_epochs=20, batch_size=64, n_threads=1)
places, validation = np.arange(20, 20 + 2 * 64), np.arange(100_000, 100_032)

def show(row):
    return view.add("", {name: row[name] for name in ("epoch", "train_huber", "validation_huber")}, str(row))
"""
TRAIN = "pretrain(build_model('masked_autoencoder', n_features=11), gather, places, validation, settings{})"
N_EPOCHS = 20


def view_against_none():
    """Train twenty short epochs with the view, its messages sent from a kernel; the same without it."""
    client, _ = _kernel()
    return (
        partial(_run, client, "view = LiveTraining()\n" + TRAIN.format(", on_epoch=show")),
        partial(_run, client, TRAIN.format("")),
    )


@cache
def _kernel():
    """Return a client of a kernel that is set up, and the kernel's process."""
    import psutil
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel()
    atexit.register(manager.shutdown_kernel, now=True)
    _run(client, SETUP)
    return client, psutil.Process(manager.provisioner.pid)


def _cpu_seconds():
    """Return the CPU time of the kernel, that of the threads which send its messages included."""
    used = _kernel()[1].cpu_times()
    return used.user + used.system


def _run(client, code):
    """Run code in the kernel; return the number of epochs."""
    reply = client.execute_interactive(code, timeout=600, output_hook=lambda message: None)["content"]
    if reply["status"] != "ok":
        raise RuntimeError(f"{reply['ename']}: {reply['evalue']}")
    return N_EPOCHS


BENCHMARKS = [
    Benchmark(
        "twenty short epochs drawn live in a Jupyter kernel, 1 thread: CPU time over the same without a view",
        "≤ 1.02",
        view_against_none,
        clock=_cpu_seconds,
        n_rounds=5,
    )
]
