"""Check parameters against a notebook's pydantic model; say mistakes in one sentence."""

import datetime
import difflib
import importlib
import types
import typing
from pathlib import Path

from moola_lib.errors import UserError

_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def load_model(stem, models):
    """Return the parameter model of notebook `stem`.

    Parameters
    ----------
    stem : str
    models : dict of str to (str or class)
        Stem to `"package.module:Class"`, or to the class itself.
    """
    if stem not in models:
        raise UserError(f"{stem} has no parameter model (models exist for {', '.join(models)})")
    reference = models[stem]
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def check_parameters(model, values, source, *, is_part=False):
    """Return `model` built from `values`.

    Numbers written as text are read as numbers (YAML reads `1e-3` as text),
    and `"true"` / `"false"` as truth values, where the field wants them. A
    truth value is never taken for a number.

    Parameters
    ----------
    model : type
        A pydantic model with `extra="forbid"`.
    values : dict
    source : str
        Where the values come from: a file, `-p`, the notebook's parameters cell.
    is_part : bool
        More values follow: what must hold between several is not judged yet, and
        nothing is returned where it does not hold.

    Raises
    ------
    UserError
        One sentence with the source, each key, what was given and what is
        allowed, and the nearest name for an unknown one.
    """
    from pydantic import ValidationError

    checked = None
    mistakes = [_unknown(model, key) for key in values if key not in model.model_fields]
    ready = {}
    for key, value in values.items():
        if key in model.model_fields:
            ready[key] = _coerce(value, model.model_fields[key])
            if isinstance(ready[key], bool) and not _accepts(model.model_fields[key], bool):
                mistakes.append(_not_allowed(model, key, value))
                del ready[key]
    try:
        checked = model(**ready)
    except ValidationError as error:
        for item in error.errors():
            place = item["loc"]
            if not place:
                mistakes += [] if is_part else [item["msg"].removeprefix("Value error, ")]
            elif place[0] in values:
                mistakes.append(_not_allowed(model, place[0], values[place[0]], item))
            else:
                mistakes.append(f"{place[0]} is missing")
    if mistakes:
        raise UserError(f"{source}: {'; '.join(dict.fromkeys(mistakes))}")
    return checked


def read_yaml(path):
    """Read a YAML mapping of parameters.

    Raises
    ------
    UserError
        The file is missing, is not YAML, or is not a mapping of names.
    """
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} must be a mapping of parameter names to values")
    return values


def gather_parameters(stems, models, *, root, profile="quick", file=None, pairs=(), before=None):
    """Collect and check what the user gave: profile, then file, then pairs.

    Parameters
    ----------
    stems : list of str
        The notebooks to run. With several, a name from `file` or `pairs` goes
        to those that know it, and must be known to at least one.
    models : dict
        See `load_model`.
    root : Path
        Relative paths in the profile's files count from here; those in `file`
        and `pairs` from the caller's current folder.
    profile : str
        Reads `params/<profile>/<stem>.yaml` where it exists.
    file : Path, optional
        A YAML mapping.
    pairs : list of (str, str)
        Names and values, values in YAML.
    before : dict of str to dict, optional
        What an earlier start of the run was given, by stem; it stands in the
        place of the profile's file.

    Returns
    -------
    given, resolved : dict of str to dict
        By stem: what differs from the defaults, and every parameter.
    """
    by_stem = {stem: load_model(stem, models) for stem in stems}
    given = {stem: {} for stem in stems}
    for stem, model in by_stem.items():
        if before is not None and stem in before:
            given[stem].update(before[stem])
            continue
        path = root / "params" / profile / f"{stem}.yaml"
        if path.exists():
            values = absolute_paths(model, read_yaml(path), root)
            check_parameters(model, values, _short(path, root), is_part=True)
            given[stem].update(values)
    # Each source is checked alone, so that a mistake is blamed on the right one;
    # what must hold between values, when all are known.
    if file is not None:
        _hand_out(by_stem, given, read_yaml(file), str(file))
    for name, text in pairs:
        known = [m.model_fields[name] for m in by_stem.values() if name in m.model_fields]
        value = _read_pair(name, text, known[0] if known else None)
        _hand_out(by_stem, given, {name: value}, "-p")
    resolved = {}
    for stem, model in by_stem.items():
        resolved[stem] = check_parameters(model, given[stem], stem).model_dump(mode="json")
        _check_places(model, resolved[stem], root)
        default = model().model_dump(mode="json")
        given[stem] = {k: resolved[stem][k] for k in given[stem] if resolved[stem][k] != default[k]}
    return given, resolved


def absolute_paths(model, values, *folders):
    """Return `values` with the relative ones of path fields made absolute.

    Parameters
    ----------
    model : type
        Its path fields are those with `json_schema_extra={"path": True}`.
    values : dict
    *folders : Path
        Tried in order; where none holds such a path, it counts from the first.
    """
    result = dict(values)

    def absolute(value):
        if not (isinstance(value, str) and value):
            return value
        places = [(Path(folder) / Path(value).expanduser()).resolve() for folder in folders]
        return str(next((place for place in places if place.exists()), places[0]))

    for name in set(path_fields(model)) & values.keys():
        value = values[name]
        result[name] = [absolute(each) for each in value] if isinstance(value, list) else absolute(value)
    return result


def _check_places(model, values, root):
    """Refuse a file or an upstream run that is not there, before any kernel starts."""
    for name in path_fields(model):
        paths = values[name] if isinstance(values[name], list) else [values[name]]
        for path in paths:
            if path is not None and not Path(path).exists():
                raise UserError(f"{name}: {path} does not exist; give the path of a file")
            if path is not None and Path(path).is_dir():
                raise UserError(f"{name}: {path} is a folder; give the path of a file")
    upstream = values.get("upstream_run")
    if upstream is not None and not (root / "data" / "artifacts" / upstream).is_dir():
        raise UserError(f"upstream_run: there is no run {upstream!r}; the runs are listed in reports/index.html")


def path_fields(model):
    """Return the names of the fields that hold paths."""
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return [name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("path")]


def nearest_name(name, names):
    """Return `"; did you mean 'x'?"` for the closest of `names`, else an empty text."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _hand_out(by_stem, given, values, source):
    """Give `values` to the models that know them; refuse a name nobody knows."""
    for name in values:
        if not any(name in model.model_fields for model in by_stem.values()):
            names = sorted({n for model in by_stem.values() for n in model.model_fields})
            whose = next(iter(by_stem)) if len(by_stem) == 1 else "any of the notebooks"
            raise UserError(f"{source}: {name!r} is not a parameter of {whose}{nearest_name(name, names)}")
    for stem, model in by_stem.items():
        mine = {n: v for n, v in values.items() if n in model.model_fields}
        mine = absolute_paths(model, mine, Path.cwd())
        check_parameters(model, mine, source, is_part=True)
        given[stem].update(mine)


def _read_pair(name, text, field):
    """Read a `-p` value as YAML, but keep text for a field that takes text only."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"-p: the value of {name} is not valid YAML: {text!r}") from error
    scalar = value is not None and not isinstance(value, (dict, list, str))
    if scalar and field is not None and not _accepts(field, int, float, bool):
        return text  # a run id such as 20261120 or a date is not a number here
    return value


def _short(path, root):
    """Return `path` from the root where it lies below it."""
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _members(annotation):
    """Return the plain types and literals inside an annotation, unions unfolded."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [m for part in typing.get_args(annotation) for m in _members(part)]
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    return [annotation]


def _accepts(field, *kinds):
    """Return whether the field takes one of `kinds`, a literal of that kind included."""
    for member in _members(field.annotation):
        literals = typing.get_args(member) if typing.get_origin(member) is typing.Literal else ()
        if member in kinds or any(type(value) in kinds for value in literals):
            return True
    return False


def _coerce(value, field):
    """Turn text into the number or truth value the field wants; leave the rest."""
    if isinstance(value, (datetime.date, datetime.datetime)) and _accepts(field, str):
        return value.isoformat()
    if not isinstance(value, str) or _accepts(field, str):
        return value
    if _accepts(field, bool) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if _accepts(field, int, float):
        try:
            number = float(value)
        except ValueError:
            return value
        is_whole = number.is_integer() and _accepts(field, int)
        return int(number) if is_whole else number
    return value


def _unknown(model, key):
    return f"{key!r} is not a parameter{nearest_name(key, model.model_fields)}"


def _not_allowed(model, key, value, item=None):
    """Say what was given and what is allowed for one field."""
    said = f"{key} = {value!r} is not allowed: "
    if item is not None and item["type"] in ("value_error", "assertion_error"):
        return said + item["msg"].partition(", ")[2]  # a validator of the model's own
    allowed, choices = _allowed(model.model_fields[key])
    nearest = nearest_name(value, choices) if isinstance(value, str) else ""
    return f"{said}give {allowed}{nearest}"


def _allowed(field):
    """Return what a field takes, in words, and its choices."""
    kinds, choices, bounds, is_optional = [], [], [], False
    for member in _members(field.annotation):
        if typing.get_origin(member) is typing.Literal:
            choices += [str(choice) for choice in typing.get_args(member)]
        elif member is type(None):
            is_optional = True
        else:
            kinds.append(_TYPE_NAMES.get(member, str(member).removeprefix("typing.")))
    for rule in field.metadata:
        for name, words in _BOUNDS.items():
            if getattr(rule, name, None) is not None:
                bounds.append(f"{words} {getattr(rule, name):g}")
    parts = [" ".join([" or ".join(kinds), " and ".join(bounds)]).strip()] if kinds else []
    if choices:
        parts.append("one of " + ", ".join(choices))
    if is_optional:
        parts.append("null")
    return " or ".join(parts), choices
