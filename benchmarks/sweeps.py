"""Sweeps: a dozen runs on two workers against one, the cluster's start included."""

import os
import tempfile
import time
from itertools import count
from pathlib import Path

from benchmarks.runner import Benchmark

N_RUNS = 12
STEM = "01_busy"
CELLS = (
    "seed = 7",
    "import time\nended = time.process_time() + 2.0\nwhile time.process_time() < ended:\n    sum(range(10_000))",
)


def two_workers_against_one():
    """Sweep over twelve seeds of a notebook that works for two seconds, on two workers; on one."""
    folder, seeds = tempfile.TemporaryDirectory(), count()  # removed with the works that hold it
    _build_project(Path(folder.name))
    return (lambda: _sweep(Path(folder.name), seeds, 2)), (lambda: _sweep(Path(folder.name), seeds, 1))


def _build_project(root):
    """Write a project of one notebook."""
    import nbformat

    (root / "notebooks").mkdir()
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, root / "notebooks" / f"{STEM}.ipynb")


def _sweep(root, seeds, n_workers):
    """Run a sweep over seeds that none had before; return how many runs that were."""
    from pydantic import create_model

    from moola_lib.runs.sweeps.description import read_sweep
    from moola_lib.runs.sweeps.execute import run_sweep

    models = {STEM: create_model("Busy", seed=(int, 7))}
    path = root / "busy.yaml"
    wanted = [next(seeds) for _ in range(N_RUNS)]
    path.write_text(f"notebook: 1\nseeds: {wanted}\nmetric: {{name: none, direction: maximize}}\n")
    state = run_sweep(read_sweep(path, models, root), models, root=root, n_workers=n_workers)
    assert all(entry["status"] == "finished" for entry in state["runs"].values())
    return N_RUNS


def _lacks_workers():
    """Return what keeps two workers from being measured here."""
    try:
        import distributed  # noqa: F401
    except ImportError:
        return "distributed is not installed"
    return "" if len(os.sched_getaffinity(0)) > 1 else "one core only"


BENCHMARKS = [
    Benchmark(
        "a sweep on two workers, against one", "≥ 1.6", two_workers_against_one, clock=time.perf_counter,
        missing=_lacks_workers, n_rounds=3,
    ),
]  # fmt: skip
