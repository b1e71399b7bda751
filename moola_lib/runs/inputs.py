"""What a run was fed: the files its parameters name, and the notebooks as they were."""

import functools
import json
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.files import fingerprint, read_json
from moola_lib.runs.project import notebook_path


def describe_inputs(parameters):
    """Return the files that parameters name by an absolute path, each with its size and fingerprint.

    Parameters
    ----------
    parameters : dict
        JSON-safe.

    Returns
    -------
    dict of str to dict
        By parameter (`transfer[0]` in a list): `path`, `bytes`, `fingerprint`. A
        folder's is of the names and sizes below it.
    """
    described = {}
    for name, value in parameters.items():
        items = {f"{name}[{k}]": item for k, item in enumerate(value)} if isinstance(value, list) else {name: value}
        for place, item in items.items():
            if isinstance(item, str) and item.startswith("/") and Path(item).exists():
                described[place] = {"path": item, **describe_file(Path(item))}
    return described


def describe_file(path):
    """Return the size in bytes and the fingerprint of a file, or of what lies in a folder.

    Raises
    ------
    UserError
        It cannot be read.
    """
    try:
        if not path.is_dir():
            status = path.stat()
            return {"bytes": status.st_size, "fingerprint": _read_fingerprint(path, status.st_size, status.st_mtime_ns)}
        sizes = {str(each.relative_to(path)): each.stat().st_size for each in sorted(path.rglob("*")) if each.is_file()}
        return {"bytes": sum(sizes.values()), "fingerprint": fingerprint(json.dumps(sizes))}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); change its permissions") from error


@functools.lru_cache(maxsize=64)
def _read_fingerprint(path, n_bytes, mtime_ns):
    """Read a file once, though five notebooks name it."""
    return fingerprint(path)


def fingerprint_notebooks(root, stems):
    """Return the fingerprint of each notebook's cells: what was executed, not what it showed."""
    fingerprints = {}
    for stem in stems:
        content = read_json(notebook_path(root, stem))
        cells = content.get("cells", []) if isinstance(content, dict) else []
        # one that is no notebook is refused when it is run
        sources = [["".join(c.get("source", [])), c.get("cell_type")] for c in cells if isinstance(c, dict)]
        fingerprints[stem] = fingerprint(json.dumps(sources))
    return fingerprints
