"""On the pod and at home: the list of a run's files with their SHA-256, by which a copy is judged."""

import hashlib
import json
from pathlib import Path

from moola_lib.runs.pods.states import read_job

MANIFEST = "manifest.json"


def seal(folder):
    """Write and return the manifest of what a run has left: by path below the project, `[bytes, sha256]`."""
    job = read_job(folder)
    project, run_id = Path(job["project"]), job["run_id"]
    roots = [Path("reports", run_id), Path("data", "artifacts", run_id), Path("reports", "assets")]
    names = sorted(name for root in roots for name in list_files(project, root))
    manifest = {name: describe(project / name) for name in [*names, *filter(is_file_in(project), job["extras"])]}
    text = json.dumps(manifest, indent=0)
    path = Path(folder) / MANIFEST
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
    return manifest


def list_files(project, root):
    """Yield the paths of the files below `root`, counted from the project; what is temporary is left out."""
    for path in (project / root).rglob("*"):
        name = path.relative_to(project)
        if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix()


def is_file_in(project):
    """Return a test for names of files below the project."""
    return lambda name: (project / name).is_file()


def describe(path):
    """Return `[bytes, sha256]` of a file."""
    digest, n_bytes = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            n_bytes += len(block)
    return [n_bytes, digest.hexdigest()]


def find_differences(folder, manifest):
    """Return the names whose file below `folder` is missing or another, by content and not by date."""
    different = []
    for name, (n_bytes, digest) in manifest.items():
        path = Path(folder) / name
        if not path.is_file() or path.stat().st_size != n_bytes or describe(path)[1] != digest:
            different.append(name)
    return different
