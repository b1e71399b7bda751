"""The runs of a sweep: every arm with every seed, each with an id from what it is made of."""

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import fingerprint, read_json
from moola_lib.runs.inputs import describe_inputs
from moola_lib.runs.leaks import refuse_secret_parameters
from moola_lib.runs.parameters_check import absolute_paths, check_parameters, gather_parameters, load_model, read_yaml
from moola_lib.runs.project import notebook_path, reports_folder
from moola_lib.runs.record import notebook_record
from moola_lib.runs.upstream import find_upstream

FOLDER = "sweeps"
N_ID_DIGITS = 10
UPSTREAM_CALL = re.compile(r"""\.upstream\(\s*["']([^"']+)["']\s*\)""")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes
    ----------
    run_id : str
        The sweep's name and a fingerprint of notebook, parameters and data.
    arm : dict
        The varied parameters.
    seed : int or None
    given, resolved : dict
        What differs from the notebook's defaults, and every parameter.
    upstreams : dict of str to str
        Notebook to the run that this one builds on.
    """

    run_id: str
    arm: dict
    seed: int | None
    given: dict
    resolved: dict
    upstreams: dict


def sweep_folder(root, name):
    """Return the folder of a sweep's state and report."""
    return reports_folder(root, FOLDER) / name


def grid_points(grid):
    """Return every combination of a grid's values, as dicts; one empty point of no grid."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def plan_runs(sweep, points, models, root, known_upstreams=None):
    """Return the runs of some arms: each with every seed.

    Parameters
    ----------
    sweep : Sweep
    points : list of dict
        Values of the varied parameters, one dict an arm.
    models : dict
    root : Path
    known_upstreams : dict, optional
        As of an earlier start; kept where those runs are still there. What was
        found is added.

    Returns
    -------
    list of PlannedRun

    Raises
    ------
    UserError
        A combination is not allowed or holds a key, a file or an upstream run is
        not there, or two runs would be the same.
    """
    model = load_model(sweep.stem, models)
    base = _read_profile(model, sweep, root) | absolute_paths(model, sweep.fixed, root)
    known_upstreams = {} if known_upstreams is None else known_upstreams
    runs = {}
    for point in points:
        for seed in sweep.seeds or [None]:
            own = absolute_paths(model, point, root) | ({} if seed is None else {"seed": seed})
            values = base | own
            told = ", ".join(f"{name} {value}" for name, value in own.items())
            check_parameters(model, values, f"{sweep.path}, {told}" if told else sweep.path)
            given, resolved = gather_parameters([sweep.stem], models, root=root, before={sweep.stem: values})
            refuse_secret_parameters(resolved)
            given, resolved = given[sweep.stem], resolved[sweep.stem]
            upstreams = _settle_upstreams(root, sweep.stem, resolved.get("upstream_run"), known_upstreams)
            run_id = f"{sweep.name}-{fingerprint_run(root, sweep.stem, resolved, upstreams)}"
            if run_id in runs:
                raise UserError(f"{sweep.path}: {told} is listed twice, since two of its values mean the same")
            arm = {name: resolved[name] for name in sweep.varied}
            runs[run_id] = PlannedRun(run_id, arm, resolved.get("seed"), given, resolved, upstreams)
    return list(runs.values())


def is_allowed(sweep, point, models, root):
    """Tell whether a combination of varied values is one that the notebook takes, whatever the seed."""
    model = load_model(sweep.stem, models)
    values = _read_profile(model, sweep, root) | absolute_paths(model, sweep.fixed | point, root)
    try:
        check_parameters(model, values, sweep.path)
    except UserError:
        return False
    return True


def fingerprint_run(root, stem, resolved, upstreams):
    """Return the digits that stand for a notebook, its parameters, and the content of all it reads.

    Parameters
    ----------
    root : Path
    stem : str
    resolved : dict
        Every parameter. Of a file its content counts, not its place.
    upstreams : dict of str to str
        Notebook to run; a notebook that was run again since counts as another.
    """
    inputs = {name: facts["fingerprint"] for name, facts in describe_inputs(resolved).items()}
    built_on = {}
    for other, run_id in upstreams.items():
        record = notebook_record(root, run_id, other) or {}
        built_on[other] = [run_id, record.get("finished_at"), (record.get("data") or {}).get("fingerprint")]
    return fingerprint(json.dumps([stem, resolved | inputs, built_on], sort_keys=True))[:N_ID_DIGITS]


def _read_profile(model, sweep, root):
    """Return the profile's values of the notebook."""
    path = root / "params" / sweep.profile / f"{sweep.stem}.yaml"
    if not path.exists():
        if sweep.profile != "quick":
            raise UserError(f"{sweep.where('profile')}: there is no {path.relative_to(root)}")
        return {}
    return absolute_paths(model, read_yaml(path), root)


def _settle_upstreams(root, stem, given, known):
    """Return the runs that a notebook would build on now, or did at the sweep's first start."""
    before = known.get(given or "")
    if before is not None and all(notebook_record(root, run_id, other) for other, run_id in before.items()):
        return before
    taken = {}
    for other in _upstream_stems(notebook_path(root, stem)):
        taken[other] = find_upstream(root, other, reader=stem, run_id="", given=given, taken=taken)
    known[given or ""] = taken
    return taken


def _upstream_stems(path):
    """Return the notebooks that a notebook asks for, in the order in which it does."""
    content = read_json(Path(path))
    cells = content.get("cells", []) if isinstance(content, dict) else []
    sources = "\n".join("".join(cell.get("source", [])) for cell in cells if cell.get("cell_type") == "code")
    return list(dict.fromkeys(UPSTREAM_CALL.findall(sources)))
