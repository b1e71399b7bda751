"""What each task sends into the shared encoder: measured every so many steps, written as lines, judged by epoch."""

import json
from pathlib import Path

import numpy as np

from moola_lib.errors import UserError
from moola_lib.files import plain, write_text
from moola_lib.learning.gradients import gramian

SILENCED_SHARE = 0.05
DOMINATING_SHARE = 0.80
METRICS_NAME = "metrics.jsonl"


def measure_shares(losses, weights, gradients, *, learning_rate=1.0):
    """Measure what every task contributes to the loss and to the gradient.

    Parameters
    ----------
    losses : dict of str to Tensor ()
        Raw losses.
    weights : dict of str to Tensor ()
        As `backward` of a strategy returns them.
    gradients : Tensor (n_losses, n_parameters)
        `task_gradients` of the raw losses, in the same order.
    learning_rate : float
        Of the encoder.

    Returns
    -------
    dict of dict of float
        By task: `loss` and `gradient_norm`, both raw; `weight`; `loss_share`
        and `gradient_share`, of |weight x loss| and |weight| x norm, which sum
        to 1; `effective_rate`, the part of the learning rate that goes the way
        of the task's weighted gradient: its projection on their sum over that
        sum's length. They sum to the rate; a negative one is overruled.
        By pair "a~b": `cosine`. Norms and cosines give every inner product
        back, so that shares under other weights need no model.
    """
    tasks = list(losses)
    loss = np.array([float(losses[task].detach()) for task in tasks])
    weight = np.array([float(weights[task]) for task in tasks])
    products = gramian(gradients).numpy()
    norm = np.sqrt(products.diagonal())
    lengths = np.outer(norm, norm)
    cosine = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    along = weight * (products @ weight)
    figures = {
        "loss": loss,
        "weight": weight,
        "loss_share": _shares(np.abs(weight * loss)),
        "gradient_norm": norm,
        "gradient_share": _shares(np.abs(weight) * norm),
        "effective_rate": learning_rate * _shares(along),
    }
    shares = {name: dict(zip(tasks, values.tolist(), strict=True)) for name, values in figures.items()}
    pairs = zip(*np.triu_indices(len(tasks), 1), strict=True)
    return {**shares, "cosine": {f"{tasks[i]}~{tasks[j]}": float(cosine[i, j]) for i, j in pairs}}


def summarise_audits(audits):
    """Return an epoch's means, flat: `loss_share_<task>`, `gradient_share_<task>` and `cosine_<a>~<b>`."""
    row = {}
    for kind in ("loss_share", "gradient_share", "cosine"):
        for name in audits[0][kind] if audits else ():
            row[f"{kind}_{name}"] = float(np.mean([audit[kind][name] for audit in audits if name in audit[kind]]))
    return row


def name_extremes(row):
    """Return `silenced` and `dominating`, lists of tasks, by the gradient shares of an epoch's row; {} without any."""
    prefix = "gradient_share_"
    shares = {name.removeprefix(prefix): share for name, share in row.items() if name.startswith(prefix)}
    if not shares:
        return {}
    return {
        "silenced": [task for task, share in shares.items() if share < SILENCED_SHARE],
        "dominating": [task for task, share in shares.items() if share > DOMINATING_SHARE],
    }


def refuse_extremes(row):
    """Stop a training whose epoch has a silenced or dominating task.

    Raises
    ------
    UserError
        Names the tasks and their shares of the gradient.
    """
    named = [
        f"{task} is {kind} ({row[f'gradient_share_{task}']:.1%} of the encoder's gradient)"
        for kind in ("silenced", "dominating")
        for task in row.get(kind, ())
    ]
    if named:
        raise UserError(
            f"in epoch {row['epoch']} {' and '.join(named)}; choose another balance or other weights, "
            "or set on_silenced to warn to train on"
        )


def append_metrics(path, line):
    """Append one audit to a file of JSON lines, a whole line at once; its folder is created.

    What is not finite becomes null, as in `files.write_json`.

    Raises
    ------
    UserError
        The file cannot be written.
    """
    text = json.dumps(plain(line), allow_nan=False) + "\n"
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def read_lines(path):
    """Return the audits of a file, list of dict; a last line without an end (a killed run's) is left out."""
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def keep_metrics(path, n_epochs):
    """Leave the audits of the first epochs alone in a file: a resumed training writes the others again."""
    if Path(path).exists():
        kept = [line for line in read_lines(path) if line["epoch"] <= n_epochs]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def _shares(values):
    """Return values over their sum, or zeros."""
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)
