"""`moola rerun`: a run repeated from its record, and the figures that came out otherwise."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import write_json
from moola_lib.runs import record as records
from moola_lib.runs.engine import RunResult, run_notebooks
from moola_lib.runs.inputs import describe_file, fingerprint_notebooks
from moola_lib.runs.parameters_check import check_parameters, load_model
from moola_lib.runs.project import artifacts_folder, check_run_id, notebook_stems, reports_folder

N_NAMED = 10
# Figures that measure the machine and not the model.
OF_THE_MACHINE = re.compile(r"second|_mb$|memory|_at$|(?:^|_)time$")


@dataclass(frozen=True)
class Plan:
    """What a repetition will run.

    Attributes
    ----------
    root : Path
    original : dict
        The record of the run to repeat.
    run_id : str
        Of the new one.
    given, resolved, upstreams : dict of str to dict
        By notebook, as `run_notebooks` takes them.
    differences : list of str
        Between then and now: code, versions, notebooks, input files.
    """

    root: Path
    original: dict
    run_id: str
    given: dict
    resolved: dict
    upstreams: dict
    differences: list


def plan_rerun(root, original, *, run_id=None, models=None):
    """Read a run's record, check its parameters, and see what has changed since.

    Parameters
    ----------
    root : Path
    original : str
        Run id of a finished run.
    run_id : str, optional
        Of the new one; default `<original>-rerun`, numbered where that exists.
    models : dict, optional
        Stem to parameter model, default `moola_lib.runs.parameters.PARAMETERS`.

    Returns
    -------
    Plan

    Raises
    ------
    UserError
        The run did not finish, a notebook or an input file is gone, a run it built
        on is gone, or a parameter is no longer allowed.
    """
    if models is None:
        from moola_lib.runs.parameters import PARAMETERS as models
    record = records.read_run(root, check_run_id(original))
    if record["status"] != "finished":
        raise UserError(
            f"run {original!r} is {record['status']}, so there is nothing to compare with; "
            f"finish it with `moola run --resume --run-id {original}`"
        )
    stems = record["stems"]
    gone = [stem for stem in stems if stem not in notebook_stems(root)]
    if gone:
        raise UserError(f"run {original!r} ran {', '.join(gone)}, which {root / 'notebooks'} no longer has")
    run_id = check_run_id(run_id) if run_id else _free_run_id(root, original)
    resolved = record["parameters"]
    for stem in stems:
        check_parameters(load_model(stem, models), resolved[stem], f"the record of {original}, {stem}")
    differences = [*_version_differences(root, record), *_input_differences(root, record)]
    # Every parameter is given: a default that has changed since must not slip in.
    return Plan(root, record, run_id, resolved, resolved, _upstreams(root, record, run_id), differences)


def print_plan(plan):
    """Say what will be repeated, and every difference from then, before it starts."""
    print(f"repeating run {plan.original['run_id']} as {plan.run_id}")
    if not plan.differences:
        print("code, versions, notebooks and input files are as they were")
    for sentence in plan.differences:
        print(f"  differs: {sentence}")


def rerun(plan, *, on_event=None, is_strict=False):
    """Repeat a run and compare; what differs is kept in the record under `rerun`.

    Returns
    -------
    RunResult
        Its exit code is 3 where the run finished and a figure differs.
    """
    result = run_notebooks(
        plan.original["stems"],
        plan.given,
        root=plan.root,
        run_id=plan.run_id,
        profile=plan.original["profile"],
        on_event=on_event,
        resolved_by_stem=plan.resolved,
        is_strict=is_strict,
        cell_timeout=plan.original.get("cell_timeout"),
        upstreams_by_stem=plan.upstreams,
    )
    record = result.record
    if record["status"] != "finished":
        return result
    n_compared, different = compare_runs(plan.root, plan.original["run_id"], plan.run_id)
    record["rerun"] = {
        "of": plan.original["run_id"],
        "differences": plan.differences,
        "n_compared": n_compared,
        "n_different": len(different),
        "different": different,
    }
    if different and record["exit_code"] == records.FINISHED:
        record["exit_code"] = records.GATE_FAILED
    write_json(reports_folder(plan.root, plan.run_id) / "run.json", record)
    return RunResult(record, result.folder)


def print_outcome(record):
    """Say whether a repeated run's figures are the same, and name the first that differ; nothing if it did not end."""
    outcome = record.get("rerun")
    if outcome is None:
        return
    if not outcome["different"]:
        print(f"all {outcome['n_compared']:,} figures are bit for bit those of {outcome['of']}")
        return
    print(f"{outcome['n_different']:,} of {outcome['n_compared']:,} figures differ from {outcome['of']}:")
    for row in outcome["different"][:N_NAMED]:
        print(f"  {row['notebook']} {row['figure']}: {row['before']} then, {row['now']} now")
    if outcome["n_different"] > N_NAMED:
        print(f"  … and {outcome['n_different'] - N_NAMED:,} more, in run.json under rerun")


def compare_runs(root, before, now):
    """Compare two runs figure by figure, by exact equality.

    Parameters
    ----------
    root : Path
    before, now : str
        Run ids; the notebooks of the first are looked at.

    Returns
    -------
    (int, list of dict)
        How many figures were compared; and those that differ: `notebook`,
        `figure`, `before`, `now` (null where a run lacks it). Figures are the
        gates, the epochs' rows, and the data's fingerprints; what measures the
        machine (seconds, memory) is left out.
    """
    n_compared, different = 0, []
    for stem in records.read_run(root, before)["stems"]:
        first, second = _figures(root, before, stem), _figures(root, now, stem)
        n_compared += len({**first, **second})
        for name in {**first, **second}:
            if first.get(name) != second.get(name):
                row = {"notebook": stem, "figure": name, "before": first.get(name), "now": second.get(name)}
                different.append(row)
    return n_compared, different


def _figures(root, run_id, stem):
    """Return a notebook's figures by name."""
    own = records.notebook_record(root, run_id, stem) or {}
    figures = {}
    for gate in own.get("gates") or []:
        for key in ("value", "low", "high", "verdict"):
            figures[f"gate {gate.get('name')}, {key}"] = gate.get(key)
    for name, value in (own.get("data") or {}).items():
        figures[f"data {name}"] = value
    metrics = artifacts_folder(root, run_id, stem) / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    for number, line in enumerate(lines, 1):
        row = json.loads(line)
        # Trainings side by side may end in another order, and a resumed one shows an epoch twice: the last counts.
        words = [value for key, value in row.items() if isinstance(value, str)]
        place = " ".join([*words, f"epoch {row['epoch']}" if "epoch" in row else f"row {number}"])
        figures.update({f"{place}, {key}": value for key, value in _flat(row)})
    return figures


def _flat(row, prefix=""):
    """Yield the names and values of nested figures, without those of the machine."""
    for key, value in row.items():
        if OF_THE_MACHINE.search(key):
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _version_differences(root, record):
    """Return sentences on code and packages that are others now."""
    before, now = record.get("versions") or {}, records.package_versions()
    differences = [
        f"{name} was {before.get(name, 'absent')}, is {now.get(name, 'absent')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    then, current = record.get("git") or {}, records.git_state(root)
    if then.get("commit") != current["commit"]:
        differences.append(f"the code was at commit {then.get('commit')}, is at {current['commit']}")
    for state, word in ((then, "then"), (current, "now")):
        if state.get("is_dirty"):
            differences.append(f"the code had uncommitted changes {word}")
    sources = record.get("sources") or {}
    now = fingerprint_notebooks(root, record["stems"])
    for stem in record["stems"]:
        if stem in sources and sources[stem] != now[stem]:
            differences.append(f"notebook {stem} has other cells")
    return differences


def _input_differences(root, record):
    """Return sentences on input files with another content; refuse one that is gone."""
    differences = []
    for stem, inputs in (record.get("inputs") or {}).items():
        for name, before in inputs.items():
            path = Path(before["path"])
            if not path.exists():
                raise UserError(f"{path}, the {name} of {stem}, is gone; put it back to repeat {record['run_id']!r}")
            now = describe_file(path)
            if now["fingerprint"] != before["fingerprint"]:
                differences.append(
                    f"{path}, the {name} of {stem}: fingerprint was {before['fingerprint']} "
                    f"({before['bytes']:,} bytes), is {now['fingerprint']} ({now['bytes']:,} bytes)"
                )
    return differences


def _upstreams(root, record, run_id):
    """Return the runs each notebook built on, the repeated run in the place of the original."""
    upstreams = {}
    for stem in record["stems"]:
        own = records.notebook_record(root, record["run_id"], stem) or {}
        upstreams[stem] = {}
        for other, taken in own.get("upstream_runs", {}).items():
            is_own = taken == record["run_id"]
            if not is_own and records.notebook_record(root, taken, other) is None:
                raise UserError(f"{stem} of run {record['run_id']!r} built on {other} of run {taken!r}, which is gone")
            upstreams[stem][other] = run_id if is_own else taken
    return upstreams


def _free_run_id(root, original):
    number = 1
    while True:
        run_id = f"{original[:90]}-rerun{number if number > 1 else ''}"
        if not reports_folder(root, run_id).exists() and not (root / "data" / "artifacts" / run_id).exists():
            return run_id
        number += 1
