"""A throwaway project whose one notebook draws random numbers in a few epochs, for the tests of sweeps."""

import nbformat
import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from toy_project import notebook

STEM = "01_tiny"
METRIC = "mean draw"


class Tiny(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: int = Field(7, ge=0)
    shift: float = Field(0.0, ge=-10, le=10)
    n_draws: int = Field(100, ge=2, le=10_000)
    mode: str = "ok"
    seconds: float = Field(0.0, ge=0, le=60)
    bars: str | None = Field(None, json_schema_extra={"path": True})


MODELS = {STEM: Tiny}

SETUP = f"""import os, time
import numpy as np
from moola_lib.runs.notebook import start_notebook
from sweep_project import Tiny, draw
run = start_notebook({STEM!r}, globals(), model=Tiny)"""

WORK = """if mode == "raise":
    raise ValueError("never works")
if mode == "kill":
    os.kill(os.getppid(), 9)
    time.sleep(60)
for epoch in range(1, 4):
    time.sleep(seconds / 3)
    run.progress({"epoch": epoch, "n_epochs": 3, "train_loss": float(draw(seed + epoch, shift, n_draws).mean())})
draws = draw(seed, shift, n_draws)
np.save(run.folder / "draws.npy", draws)"""

FINISH = f"""error = draws.std(ddof=1) / len(draws) ** 0.5
value = float(draws.mean())
gates = [{{"name": {METRIC!r}, "kind": "learning", "value": value, "low": value - 2 * error, "high": value + 2 * error,
          "target": "> 0", "baseline": None, "verdict": "PASS"}}]
run.finish(gates, ["Drawn."], {{"fingerprint": "abcdef0123456789", "is_simulated": True}})"""


def draw(seed, shift, n_draws):
    """Return the random numbers of a seed."""
    return shift + np.random.default_rng(seed).standard_normal(n_draws)


def build_project(root):
    """Write the project below `root`."""
    (root / "notebooks").mkdir(parents=True)
    parameters = "seed = 7\nshift = 0.0\nn_draws = 100\nmode = 'ok'\nseconds = 0.0\nbars = None"
    tiny = notebook("# The question", parameters, SETUP, WORK, FINISH)
    nbformat.write(tiny, root / "notebooks" / f"{STEM}.ipynb")


def write_sweep(path, text):
    """Write a sweep's YAML about the notebook, with its metric; return the path."""
    path.write_text(f"notebook: 1\n{text}\nmetric: {{name: {METRIC}, direction: maximize}}\n")
    return path
