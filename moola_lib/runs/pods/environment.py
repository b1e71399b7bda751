"""The packages on a pod: a venv over the image's own torch, made once for a set of pins."""

import json
import tomllib

from moola_lib.errors import UserError
from moola_lib.files import fingerprint

KEPT = "torch"  # the image's, built for its driver

# Runs on the pod. Repeated after a broken line it goes on; the lock keeps out an installation that was left behind.
PROGRAM = r"""
import fcntl, os, pathlib, subprocess, sys
folder = pathlib.Path(wanted["folder"])
lock = open(f"{folder}.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
is_new = not (folder / ".complete").exists()
python = str(folder / "bin" / "python")
if is_new:
    with open(f"{folder}.log", "w") as log:
        def do(*words):
            if subprocess.run(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL).returncode:
                log.flush()
                sys.exit("".join(open(log.name).readlines()[-5:]))
        do(sys.executable, "-m", "venv", "--system-site-packages", str(folder))
        for name in ("constraints", "requirements"):
            (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in wanted[name]))
        do(python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
           "-c", str(folder / "constraints.txt"), "-r", str(folder / "requirements.txt"))
check = "import torch; print(torch.__version__); print(torch.__file__)"
done = subprocess.run([python, "-c", check], capture_output=True, text=True, check=True)
version, place = done.stdout.splitlines()
if version != wanted["torch"] or place.startswith(str(folder)):
    sys.exit(f"torch became {version} in {place}")
(folder / ".complete").touch()
print(f"{'new' if is_new else 'old'}\t{python}")
"""


def plan_environment(root, facts):
    """Return the venv that a project needs on a pod.

    Parameters
    ----------
    root : Path
        Holds `pyproject.toml` and `constraints.txt`.
    facts : Facts

    Returns
    -------
    dict
        `folder` (named after all that decides its content); `requirements` and
        `constraints`, lists of lines, with torch held to what is there; `torch`.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = [line for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    constraints = [line for line in pins if line.split("==")[0] != KEPT] + [f"{KEPT}=={facts.torch_version}"]
    requirements = [name for name in project["dependencies"] if name != KEPT]
    key = fingerprint(json.dumps([requirements, constraints, facts.python, facts.python_version]))
    return {
        "folder": f"{facts.base}/venv-{key}",
        "requirements": requirements,
        "constraints": constraints,
        "torch": facts.torch_version,
    }


def set_up(connection, root, facts):
    """Make the venv on the pod, unless it is there.

    Parameters
    ----------
    connection : Connection
    root : Path
    facts : Facts

    Returns
    -------
    (str, bool)
        Its Python, and whether it is new.

    Raises
    ------
    UserError
        pip failed, or replaced torch.
    """
    program = f"wanted = {plan_environment(root, facts)!r}\n{PROGRAM}"
    answer = connection.run([facts.python, "-"], send=program)
    if answer.returncode:
        raise UserError(f"the packages could not be installed on the pod: {' '.join(answer.stderr.split())[-400:]}")
    age, python = answer.stdout.strip().split("\t")
    return python, age == "new"
