"""A pre-training in one file, and the process that takes part in it:

`torchrun --standalone --nproc_per_node=2 -m moola_lib.learning.job FOLDER`

The folder holds `job.safetensors` and the checkpoints. A job goes on from the
latest of them, whatever number of ranks wrote it; rank 0 prints each epoch's
row as a line of JSON.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from moola_lib.errors import UserError
from moola_lib.files import plain
from moola_lib.labels.pretext import PRETEXT_TASKS
from moola_lib.learning.checkpoints import Checkpoints
from moola_lib.learning.objectives import BarClassification
from moola_lib.learning.pretrain import PretrainSettings, pretrain
from moola_lib.learning.ranks import join_ranks, rank
from moola_lib.models import build_model
from moola_lib.models.weights import load_tensors, save_tensors
from moola_lib.windows.gather import WindowGatherer

NAME = "job.safetensors"
IS_LAUNCHED = "MOOLA_RANKS_LAUNCHED"  # set where another process reads what this one prints, and answers
GO_ON = "go on"
SECONDS_TO_END = 60


@dataclass(frozen=True)
class _Rows:
    """What `WindowGatherer` reads of a feature table."""

    values: np.ndarray
    is_valid: np.ndarray
    names: tuple
    has_position: bool

    def __len__(self):
        return len(self.values)


def save_job(checkpoints, model, gather, train_places, validation_places, settings, *, objective=None):
    """Write everything that a pre-training starts from; all but the checkpoints' folder as in `pretrain`.

    Parameters
    ----------
    checkpoints : Checkpoints
        The job is written into their folder.

    Returns
    -------
    Path of the job.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {"values": gather.values, "is_valid": gather.is_valid}
    tensors |= {"train": torch.as_tensor(train_places), "validation": torch.as_tensor(validation_places)}
    if isinstance(objective, BarClassification):
        tensors["classes"] = objective.classes
    n_columns = gather.values.shape[1]
    description = {
        "model": model.spec,
        "settings": asdict(settings),
        "device": gather.device.type,
        "top_k": checkpoints.top_k,
        "names": gather.names[:n_columns],
        "has_position": gather.n_features > n_columns,
        "window_bars": gather(torch.zeros(1, dtype=torch.int64))[0].shape[1],
    }
    path = checkpoints.folder / NAME
    save_tensors(tensors, path, metadata=plain(description))
    return path


def load_job(folder, device):
    """Return the arguments of `pretrain` that a job describes.

    Parameters
    ----------
    folder : str or Path
    device : torch.device

    Returns
    -------
    (arguments, options) : tuple and dict

    Raises
    ------
    UserError
        There is no job, or its file is damaged.
    """
    tensors, job = load_tensors(Path(folder) / NAME)
    spec = job["model"]
    model = build_model(spec["name"], n_features=spec["n_features"], n_classes=spec["n_classes"], **spec["options"])
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights)
    rows = _Rows(tensors["values"].numpy(), tensors["is_valid"].numpy(), tuple(job["names"]), job["has_position"])
    gather = WindowGatherer(rows, device, window_bars=job["window_bars"])
    settings = PretrainSettings(**job["settings"])
    objective = None
    if "classes" in tensors:
        classes = pd.DataFrame(tensors["classes"].numpy(), columns=list(PRETEXT_TASKS))
        objective = BarClassification(gather, classes, settings)
    checkpoints = Checkpoints(folder, top_k=job["top_k"])
    arguments = (model.to(device), gather, tensors["train"].numpy(), tensors["validation"].numpy(), settings)
    return arguments, {"objective": objective, "checkpoints": checkpoints, "resume": True}


def run_job(folder):
    """Take part in a job as one of the ranks that `torchrun` started, and print what comes of it.

    Parameters
    ----------
    folder : str or Path

    Raises
    ------
    UserError
        As `pretrain` and `join_ranks` do.
    KeyboardInterrupt
        SIGINT came to any rank; the step was finished and saved first.
    """
    device_type = load_tensors(Path(folder) / NAME)[1]["device"]
    with join_ranks(device_type) as device:
        arguments, options = load_job(folder, device)
        history = pretrain(*arguments, **options, on_epoch=_report)
        if rank() == 0:
            _tell("history", history)


def _report(row):
    """Print an epoch's row; where another process reads it, its answer says whether to stop."""
    _tell("row", row)
    return IS_LAUNCHED in os.environ and sys.stdin.readline().strip() != GO_ON


def _tell(kind, content):
    sys.stdout.write(json.dumps({kind: plain(content)}) + "\n")  # at once: ranks share the pipe
    sys.stdout.flush()


def _end_when_alone():
    """Interrupt this process, as Ctrl-C would, once torchrun has died or the launcher has closed the pipe or died."""
    parent, launcher = os.getppid(), select.poll()
    if IS_LAUNCHED in os.environ:
        launcher.register(sys.stdin.fileno(), 0)  # a hang-up is always told; what is written is rank 0's
    while os.getppid() == parent and not launcher.poll(1000):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(SECONDS_TO_END)
    os._exit(1)


def main(arguments=None):
    """Run the job of a folder; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        print("give the folder of a job: torchrun … -m moola_lib.learning.job FOLDER", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes have it ignored
    threading.Thread(target=_end_when_alone, daemon=True).start()
    try:
        run_job(arguments[0])
    except UserError as error:
        if IS_LAUNCHED in os.environ:
            _tell("error", str(error))
        else:
            print(f"moola: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
