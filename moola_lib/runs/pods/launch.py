"""`moola pod run`: look, send, set up, start; each step may be repeated, and the watchdog is there before the work."""

import json
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import fingerprint
from moola_lib.runs import record as records
from moola_lib.runs.disk import say_bytes
from moola_lib.runs.leaks import refuse_secret_parameters
from moola_lib.runs.parameters_check import load_model, path_fields
from moola_lib.runs.pods import api, ledger, states, sync
from moola_lib.runs.pods.environment import set_up
from moola_lib.runs.pods.preflight import LEAST_FREE_GB, check_facts, describe_facts, probe
from moola_lib.runs.pods.reaching import connect, find_pod, on_pod
from moola_lib.runs.pods.ssh import ConnectionLost, insist
from moola_lib.runs.project import artifacts_folder, reports_folder

# What the pod is told of time; a job carries it along.
TIMES = {
    "heartbeat_seconds": 5.0,
    "stale_seconds": 120.0,
    "stop_seconds": 60.0,
    "poll_seconds": 10.0,
    "retry_seconds": 60.0,
    "grace_minutes": 15.0,
    "idle_minutes": 30.0,
    "prepare_minutes": 60.0,
}
EXTRAS = ["data/trials.jsonl"]  # of the project, and grown by a run
FIRST_PATIENCE_SECONDS = 60.0


class PodInUse(UserError):
    """Another run has the pod: try again later."""


def launch(root, target, plan, pairs, models, wishes, *, say=print):
    """Start a run on a pod.

    Parameters
    ----------
    root : Path
    target : Target
    plan : RunPlan
    pairs : list of (str, str)
        The parameters given by hand, as the plan was made from.
    models : dict
        Stem to parameter model.
    wishes : Wishes
    say : callable
        Told of each step.

    Returns
    -------
    dict
        The ledger's entry; the run is under way.

    Raises
    ------
    UserError
        The pod is not fit, or does not answer (what was sent stays there); the run
        is here already, or a parameter holds a key.
    PodInUse
        Another run has it.
    """
    run_id = plan.run_id
    if reports_folder(root, run_id).exists() or artifacts_folder(root, run_id, "").exists():
        raise UserError(f"run {run_id!r} is here already; choose another --run-id")
    if any(each["run_id"] == run_id and each["is_started"] for each in ledger.read_entries(root)):
        raise UserError(f"run {run_id!r} was sent to a pod already; continue it with --resume, or choose another name")
    refuse_secret_parameters(plan.resolved)  # they would stand in files and process lists of the pod
    paths = name_paths(plan, models)
    data = sorted({path for value in paths.values() for path in _listed(value)})
    entry = {
        "run_id": run_id, "stems": plan.stems, "profile": plan.profile, "started_at": records.utc_now(),
        "wants_gpu": [stem for stem in plan.stems if plan.resolved[stem].get("device", "cpu") != "cpu"],
        "log_offset": 0, "fetched_at": None, "is_started": False,
    }  # fmt: skip
    entry |= find_pod(target, wishes, say)
    connection, facts = _look(root, entry, wishes, sum(Path(path).stat().st_size for path in data) / 1e9, say)
    folder = f"{facts.base}/runs/{run_id}"
    places = {path: f"{facts.base}/data/{fingerprint(Path(path))}/{Path(path).name}" for path in data}
    entry.update(folder=folder, project=f"{folder}/project", places=places)
    moved = {name: json.dumps(_moved(value, places)) for name, value in paths.items()}
    words = [*plan.stems, "--profile", plan.profile, "--run-id", run_id]
    for name, text in [*((name, text) for name, text in pairs if name not in moved), *moved.items()]:
        words += ["-p", name, text]
    job = {
        "run_id": run_id, "project": entry["project"], "python": facts.python, "arguments": words,
        "continuing": ["--resume", "--run-id", run_id], "extras": EXTRAS, **_times(wishes),
    }  # fmt: skip
    _send_code(root, connection, entry, facts, say)
    _arm(connection, entry, job, say)
    ledger.write_entry(root, entry)
    for path, place in places.items():
        n_bytes = _send(connection, facts, Path(path).parent, [Path(path).name], str(Path(place).parent), say)
        say(f"data: {path}, {say_bytes(n_bytes)}")
    others = name_upstreams(root, plan) + [name for name in EXTRAS if (root / name).is_file()]
    if others:
        n_bytes = _send(connection, facts, root, others, entry["project"], say)
        say(f"earlier results: {len(others)} files, {say_bytes(n_bytes)}")
    return _start(root, connection, entry, job, facts, wishes, say)


def relaunch(root, entry, target, wishes, *, say=print):
    """Continue a run that lies on a pod's volume: the pod was restarted, or the run was killed.

    Parameters
    ----------
    entry : dict
        Of the run.
    target : Target
        Where the volume is now.

    Returns
    -------
    dict
        The new entry.

    Raises
    ------
    UserError
        As `launch`; or the run is not there.
    """
    entry = entry | find_pod(target, wishes, say) | {"fetched_at": None, "started_at": records.utc_now()}
    connection, facts = _look(root, entry, wishes, 0.0, say)
    answer = insist(lambda: connection.run(["cat", f"{entry['folder']}/job.json"]), say=say)
    if answer.returncode:
        raise UserError(f"run {entry['run_id']!r} is not on this pod ({entry['folder']} is missing)")
    job = json.loads(answer.stdout) | _times(wishes)
    _send_code(root, connection, entry, facts, say)
    _arm(connection, entry, job, say)
    return _start(root, connection, entry, job, facts, wishes, say)


def name_paths(plan, models):
    """Return the path parameters that are set: by name, a path or a list of them.

    Raises
    ------
    UserError
        Two notebooks have different ones under one name.
    """
    found = {}
    for stem in plan.stems:
        for name in path_fields(load_model(stem, models)):
            value = plan.resolved[stem][name]
            if value and found.setdefault(name, value) != value:
                raise UserError(f"{name} is {found[name]} and {value} for different notebooks; give one with -p {name}")
    return found


def name_upstreams(root, plan):
    """Return the names, below the root, of the artifacts of the run to build on and of those it was built on."""
    runs, waiting = set(), {values.get("upstream_run") for values in plan.resolved.values()} - {None}
    while waiting:
        run_id = waiting.pop()
        runs.add(run_id)
        for folder in (root / "data" / "artifacts" / run_id).glob("*"):
            record = records.notebook_record(root, run_id, folder.name) or {}
            waiting |= set(record.get("upstream_runs", {}).values()) - runs
    paths = [path for run_id in sorted(runs) for path in sorted((root / "data" / "artifacts" / run_id).rglob("*"))]
    names = [path.relative_to(root) for path in paths if path.is_file()]
    return [name.as_posix() for name in names if not any(part.startswith((".", "checkpoints")) for part in name.parts)]


def _look(root, entry, wishes, data_gb, say):
    """Return the connection, and the facts of a pod that is fit."""
    connection = connect(root, entry)
    facts = insist(lambda: probe(connection, wishes.python), say=say, patience=FIRST_PATIENCE_SECONDS)
    say(f"{entry['host']}:{entry['port']}: {describe_facts(facts)}")
    if facts.noise:
        say("the pod's start-up files print text, which breaks rsync: taking tar over ssh")
    check_facts(facts, entry["wants_gpu"], LEAST_FREE_GB + 2 * data_gb)
    entry["pod_id"] = entry["pod_id"] or facts.pod_id
    if not entry["pod_id"]:
        say("this machine is no RunPod pod (RUNPOD_POD_ID is missing): nothing but you will stop it")
    elif entry["price_per_hour"] is None and api.has_key():
        entry["price_per_hour"] = api.price_of(api.get_pod(entry["pod_id"]))
    entry.update(python=facts.python, torch=facts.torch_version, has_rsync=facts.has_rsync)
    return connection, facts


def _send_code(root, connection, entry, facts, say):
    """Send the code, and what git says of it: the pod has no git."""
    code = sync.list_code(root)
    say(f"code: {len(code)} files, {say_bytes(_send(connection, facts, root, code, entry['project'], say))}")
    _write(connection, f"{entry['project']}/{records.GIT_STATE}", records.git_state(root), say)


def _arm(connection, entry, job, say):
    """Tell the pod what to do, and start its watchdog: from here on it stops by itself."""
    _write(connection, f"{entry['folder']}/job.json", job, say)
    _refuse_in_use(insist(lambda: on_pod(connection, entry, "arm"), say=say))


def _start(root, connection, entry, job, facts, wishes, say):
    """Set up the packages, start the run, and note it."""
    if not wishes.python:
        say("packages: some minutes where they are new")
        entry["python"], is_new = insist(lambda: set_up(connection, root, facts), say=say)
        say(f"packages: {'installed' if is_new else 'as they were'}, torch {facts.torch_version} is the image's own")
    _write(connection, f"{entry['folder']}/job.json", job | {"python": entry["python"]}, say)
    entry["is_started"] = True  # from here on it may be at work, even if the answer never arrives
    ledger.write_entry(root, entry)
    try:
        _refuse_in_use(insist(lambda: on_pod(connection, entry, "start"), say=say))
    except ConnectionLost:
        raise
    except UserError:
        ledger.write_entry(root, entry | {"is_started": False})
        raise
    say(f"run {entry['run_id']} is under way; it needs no connection")
    return entry


def _send(connection, facts, source, names, destination, say):
    return insist(lambda: sync.send_files(connection, source, names, destination, has_rsync=facts.has_rsync), say=say)


def _write(connection, path, content, say):
    """Write a small JSON file on the pod, whole or not at all."""
    script = 'mkdir -p "$(dirname "$1")" && cat > "$1.new" && mv "$1.new" "$1"'
    words = ["sh", "-c", script, "sh", path]
    answer = insist(lambda: connection.run(words, send=json.dumps(content, indent=1)), say=say)
    if answer.returncode:
        raise UserError(f"the pod cannot write {path}: {' '.join(answer.stderr.split())[-200:]}")


def _refuse_in_use(answer):
    if answer.returncode == states.IN_USE:
        raise PodInUse(f"run {answer.stdout.strip() or 'of somebody'} has this pod; wait for it, or take another pod")
    if answer.returncode:
        raise UserError(f"the pod refused to start the run: {' '.join(answer.stderr.split())[-400:]}")


def _times(wishes):
    return {**TIMES, "max_hours": wishes.max_hours, "is_kept": wishes.is_kept}


def _listed(value):
    return value if isinstance(value, list) else [value]


def _moved(value, places):
    return [places[each] for each in value] if isinstance(value, list) else places[value]
