"""A sweep's YAML: read, and checked against the notebook's parameter model before anything starts."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.runs.parameters_check import check_parameters, load_model, nearest_name, read_yaml
from moola_lib.runs.project import resolve_stem

KEYS = ("notebook", "profile", "parameters", "grid", "search", "trials", "seeds", "metric")
DIRECTIONS = ("maximize", "minimize")
RANGE_KEYS = ("low", "high", "log", "choices")


@dataclass(frozen=True)
class Sweep:
    """What a sweep's YAML asks for.

    Attributes
    ----------
    name : str
        The file's stem; also of the sweep's folder below `reports/sweeps`.
    path : str
        As given.
    stem : str
        The notebook.
    profile : str
    fixed : dict
        Parameters that every run has, beside the profile's.
    grid : dict of str to list
        Values of each varied parameter; every combination is an arm.
    search : dict of str to dict
        Instead of a grid: by parameter `low`, `high` and `log`, or `choices`.
    n_trials : int or None
        Of a search.
    seeds : list of int
        Every arm is run with each; empty: with the notebook's own.
    metric : str
        A gate's name, or a figure of `scores.parquet`.
    is_higher_better : bool
    lines : dict of tuple to int
        Where in the file a key stands.
    """

    name: str
    path: str
    stem: str
    profile: str
    fixed: dict
    grid: dict
    search: dict
    n_trials: int | None
    seeds: list
    metric: str
    is_higher_better: bool
    lines: dict = field(repr=False, default_factory=dict)

    @property
    def varied(self):
        """The names of the varied parameters, in the file's order."""
        return list(self.grid or self.search)

    def where(self, *keys):
        """Return the place of a key in the file, for a message."""
        return f"{self.path}, line {self.lines[keys]}" if keys in self.lines else self.path


def read_sweep(path, models, root):
    """Read a sweep's YAML and check every value in it.

    Parameters
    ----------
    path : str or Path
    models : dict
        Stem to parameter model, see `parameters_check.load_model`.
    root : Path

    Returns
    -------
    Sweep

    Raises
    ------
    UserError
        One sentence with the file and the line: an unknown key or parameter, a
        value that is not allowed, a parameter given twice.
    """
    path = Path(path)
    values, lines = read_yaml(path), _find_lines(path)

    def where(*keys):
        return f"{path}, line {lines[keys]}" if keys in lines else str(path)

    for key in values:
        if key not in KEYS:
            raise UserError(f"{where(key)}: {key!r} is not a part of a sweep{nearest_name(key, KEYS)}")
    if "notebook" not in values:
        raise UserError(f"{path} does not name its notebook; add a line such as `notebook: 05`")
    stem = resolve_stem(str(values["notebook"]), root)
    model = load_model(stem, models)
    profile = values.get("profile", "quick")
    if not isinstance(profile, str):
        raise UserError(f"{where('profile')}: profile = {profile!r} is not allowed: give a name such as quick")
    fixed, grid, search = (_mapping(values, key, where) for key in ("parameters", "grid", "search"))
    if grid and search:
        raise UserError(f"{where('search')}: a sweep has a grid or a search, not both")
    _refuse_given_twice(fixed, grid or search, "grid" if grid else "search", where)
    for key, value in fixed.items():
        check_parameters(model, {key: value}, where("parameters", key), is_part=True)
    for key, listed in grid.items():
        _check_values(model, key, listed, where("grid", key))
    search = {key: _check_range(model, key, given, where("search", key)) for key, given in search.items()}
    seeds = values.get("seeds") or []
    if seeds:
        _check_values(model, "seed", seeds, where("seeds"))
    metric, is_higher_better = _check_metric(values.get("metric"), where)
    n_trials = values.get("trials")
    if n_trials is not None and (type(n_trials) is not int or n_trials < 1 or not search):
        raise UserError(f"{where('trials')}: trials is a whole number from 1, and goes with a search")
    name = path.name.removesuffix(".yaml")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise UserError(f"{path} names a sweep {name!r}; use letters, digits, '.', '_' and '-' and end it in .yaml")
    return Sweep(name, str(path), stem, profile, fixed, grid, search, n_trials, seeds, metric, is_higher_better, lines)


def _find_lines(path):
    """Return the line of each key and of the keys one level below; refuse a key that stands twice."""
    import yaml

    lines = {}

    def walk(node, above):
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            place, line = (*above, key.value), key.start_mark.line + 1
            if place in lines:
                raise UserError(f"{path}, line {line}: {key.value!r} was given in line {lines[place]} already")
            lines[place] = line
            walk(value, place)

    walk(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), ())
    return lines


def _mapping(values, key, where):
    """Return a part of the file that is a mapping of parameter names; empty where it is left out."""
    part = values.get(key) or {}
    if not isinstance(part, dict) or not all(isinstance(name, str) for name in part):
        raise UserError(f"{where(key)}: {key} is a mapping of parameter names")
    return part


def _refuse_given_twice(fixed, varied, part, where):
    """Refuse a parameter that is both fixed and varied, and a seed outside `seeds`."""
    for name in varied:
        if name in fixed:
            raise UserError(f"{where(part, name)}: {name} is among the fixed parameters as well")
    for key, given in (("parameters", fixed), (part, varied)):
        if "seed" in given:
            raise UserError(f"{where(key, 'seed')}: seeds go in a line of their own, such as `seeds: [17, 18, 19]`")


def _check_values(model, key, listed, where):
    """Refuse what is not a list of different values that the parameter takes."""
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{where}: {key} needs a list of values, such as [1, 2]")
    for number, value in enumerate(listed):
        check_parameters(model, {key: value}, where, is_part=True)
        if value in listed[:number]:
            raise UserError(f"{where}: {key} lists {value!r} twice")


def _check_range(model, key, given, where):
    """Return a range of a search, its ends as numbers."""
    if not isinstance(given, dict) or not given or not set(given) <= set(RANGE_KEYS):
        raise UserError(f"{where}: {key} needs {{low: , high: , log: true or false}} or {{choices: [...]}}")
    if "choices" in given:
        if len(given) > 1:
            raise UserError(f"{where}: {key} has choices; leave out {', '.join(set(given) - {'choices'})}")
        _check_values(model, key, given["choices"], where)
        return {"choices": given["choices"]}
    ends = {}
    for end in ("low", "high"):
        if end not in given:
            raise UserError(f"{where}: {key} lacks {end}")
        check_parameters(model, {key: given[end]}, where, is_part=True)
        try:
            ends[end] = given[end] if type(given[end]) is int else float(given[end])
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: {end} of {key} is {given[end]!r}, not a number; give choices instead") from error
    is_log = given.get("log", False)
    if type(is_log) is not bool or not ends["low"] < ends["high"] or (is_log and ends["low"] <= 0):
        raise UserError(f"{where}: {key} needs low below high (above 0 with log: true)")
    return {**ends, "log": is_log}


def _check_metric(given, where):
    """Return the figure's name and whether more of it is better."""
    if not isinstance(given, dict) or set(given) != {"name", "direction"} or given["direction"] not in DIRECTIONS:
        raise UserError(
            f"{where('metric')}: a sweep needs `metric: {{name: FIGURE, direction: maximize or minimize}}`, with a "
            "figure of the notebook's gates table"
        )
    return str(given["name"]), given["direction"] == "maximize"
