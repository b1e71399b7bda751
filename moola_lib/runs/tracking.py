"""One-way export of a run to MLflow or TensorBoard, for teams that keep their runs there."""

import datetime
import json
import os
import re
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import check_writable, replace_folder_atomically
from moola_lib.runs.exporting import read_finished
from moola_lib.runs.project import artifacts_folder, reports_folder
from moola_lib.runs.rows import read_rows

EXPERIMENT = "moola"
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "lost": "KILLED"}
_MOST_PARAMETERS, _MOST_METRICS = 100, 1000  # of one call, by MLflow's own limits


def export_to_mlflow(root, run_id, store):
    """Write a run's parameters, curves, gates and report to an MLflow store.

    Parameters
    ----------
    root : Path
    run_id : str
    store : str
        A folder, or the address of a tracking server. Nothing is read back.

    Returns
    -------
    str
        MLflow's id of the run.

    Raises
    ------
    UserError
        MLflow is not installed, the store cannot be used, or has this run already.
    """
    record = read_finished(root, run_id)
    client, mlflow = _mlflow_client(store)
    try:
        return _write_to_mlflow(root, record, store, client, mlflow)
    except mlflow.exceptions.MlflowException as error:
        raise _unusable_store(store, error) from error


def _write_to_mlflow(root, record, store, client, mlflow):
    """Write a run to an open store; what fails half-way is deleted there. Return MLflow's id."""
    run_id = record["run_id"]
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    if client.search_runs([experiment], f"tags.`moola.run_id` = '{run_id}'"):
        raise UserError(f"{store} has run {run_id} already; delete it there to export it again")
    began = _milliseconds(record["started_at"])
    made = client.create_run(experiment, start_time=began, tags=_tags(record), run_name=run_id).info.run_id
    try:
        parameters = [mlflow.entities.Param(name, value) for name, value in flat_parameters(record).items()]
        figures = [(name, value, 0) for name, value in gate_figures(record).items()]
        metrics = [
            mlflow.entities.Metric(re.sub(r"[^\w\-. :/]", "_", name), value, began, step)
            for name, value, step in [*figures, *curve_points(root, record)]
        ]
        for at in range(0, len(parameters), _MOST_PARAMETERS):
            client.log_batch(made, params=parameters[at : at + _MOST_PARAMETERS])
        for at in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(made, metrics=metrics[at : at + _MOST_METRICS])
        for path in sorted(reports_folder(root, run_id).glob("*.[hj]*")):
            if path.suffix in (".html", ".json"):
                client.log_artifact(made, str(path))
    except BaseException:
        client.delete_run(made)
        raise
    client.set_terminated(made, _STATUS.get(record["status"], "FAILED"), _milliseconds(record.get("finished_at")))
    return made


def export_to_tensorboard(root, run_id, folder):
    """Write a run's curves, gates and parameters as TensorBoard events.

    Parameters
    ----------
    root : Path
    run_id : str
    folder : str or Path
        A log directory; the run gets a folder of its name in it.

    Returns
    -------
    Path
        The run's folder.

    Raises
    ------
    UserError
        TensorBoard is not installed, or the folder has this run already.
    """
    record = read_finished(root, run_id)
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _not_installed("tensorboard") from error
    target = Path(folder) / run_id
    if target.exists():
        raise UserError(f"{target} exists; remove it to export the run again")
    began = _milliseconds(record["started_at"]) / 1000
    with replace_folder_atomically(target) as temporary, SummaryWriter(str(temporary)) as writer:
        for name, value, step in curve_points(root, record):
            writer.add_scalar(name, value, step, walltime=began)
        for name, value in gate_figures(record).items():
            writer.add_scalar(name, value, 0, walltime=began)
        facts = _tags(record) | flat_parameters(record)
        table = "|name|value|\n|-|-|\n" + "".join(f"|{name}|{value}|\n" for name, value in facts.items())
        writer.add_text("run", table, 0, walltime=began)
    return target


def flat_parameters(record):
    """Return a run's parameters as texts by `notebook.name`."""
    given = record.get("parameters") or {}
    return {f"{stem}.{name}": _say(value) for stem, values in given.items() for name, value in values.items()}


def gate_figures(record):
    """Return the numbers of a run's gates by `gates/notebook/name`, the ends of an interval beside them."""
    found = {}
    for gate in record.get("gates") or []:
        for key in ("value", "low", "high"):
            if isinstance(gate.get(key), (int, float)):
                name = f"gates/{gate['notebook']}/{gate['name']}" + ("" if key == "value" else f", {key}")
                found[name] = float(gate[key])
    return found


def curve_points(root, record):
    """Return (name, value, epoch) for every number that a run's trainings logged."""
    points = []
    for stem in record["stems"]:
        path = artifacts_folder(root, record["run_id"], stem) / "metrics.jsonl"
        for row in read_rows(path):
            if not isinstance(row.get("epoch"), int):
                continue
            place = "/".join(part for part in (stem, row.get("label")) if part)
            numbers = {k: v for k, v in row.items() if isinstance(v, float) or (type(v) is int and k != "epoch")}
            points += [(f"{place}/{name}", float(value), row["epoch"]) for name, value in numbers.items()]
    return points


def _mlflow_client(store):
    """Return a client of a store and the module, which then tells nobody that it is used."""
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ALLOW_FILE_STORE="true")
    try:
        import mlflow
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise _not_installed("mlflow") from error
    if "://" not in store:
        check_writable(Path(store))
        store = Path(store).resolve().as_uri()
    try:
        return MlflowClient(tracking_uri=store), mlflow
    except mlflow.exceptions.MlflowException as error:
        raise _unusable_store(store, error) from error


def _unusable_store(store, error):
    reason = " ".join(str(error).split()).split(". ")[0][:200]
    return UserError(f"MLflow cannot use {store} ({reason}); give a folder or the address of a running server")


def _not_installed(extra):
    return UserError(f"{extra} is not installed; install it with: pip install -c constraints.txt -e '.[{extra}]'")


def _tags(record):
    """Return what a run is, as texts."""
    git, data = record.get("git") or {}, record.get("data") or {}
    facts = {"run_id": record["run_id"], "profile": record.get("profile"), "status": record["status"]}
    facts |= {"commit": git.get("commit"), "uncommitted": git.get("is_dirty"), "bars": data.get("fingerprint")}
    facts |= {"simulated": data.get("is_simulated"), "symbol": data.get("symbol")}
    return {f"moola.{name}": _say(value) for name, value in facts.items() if value is not None}


def _say(value):
    return value if isinstance(value, str) else json.dumps(value)


def _milliseconds(stamp):
    """Return an ISO stamp as milliseconds since 1970; None for none."""
    return None if stamp is None else int(datetime.datetime.fromisoformat(stamp).timestamp() * 1000)
