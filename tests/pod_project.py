"""A project to send to a pod: the real library, the notebooks of `toy_project`, and one that trains from a file."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import toy_project
from pydantic import Field

import moola_lib
from moola_lib.cli import main


class Third(toy_project.First):
    n_epochs: int = Field(2, ge=1, le=1000)
    bars: str | None = Field(None, json_schema_extra={"path": True})
    seconds: float = Field(0.0, ge=0)
    upstream_run: str | None = None
    n_bytes: int = 0
    is_failing: bool = False


class Fourth(Third):
    device: str = "auto"


MODELS = {**toy_project.MODELS, "03_third": Third, "04_fourth": Fourth}

TRAINING = """import time
from moola_lib.files import read_json, write_json
saved = run.folder / "checkpoint.json"
begun = read_json(saved)["epoch"] if saved.exists() else 0
print("goes on after epoch", begun, "with", len(open(bars).read()) if bars else "no", "letters", flush=True)
for epoch in range(begun + 1, n_epochs + 1):
    time.sleep(seconds)
    write_json(saved, {"epoch": epoch})
    run.progress({"epoch": epoch, "n_epochs": n_epochs, "train_loss": 1 / epoch})
    print(f"line {epoch:04}", flush=True)"""


# In the place of `moola run`: no kernel, no notebook, the same files and signals.
RUNNER = """import json, pathlib, sys, time
words = sys.argv[2:]
def read(text):
    try:
        return json.loads(text)
    except ValueError:
        return text
run_id = words[words.index("--run-id") + 1]
given = {words[i + 1]: read(words[i + 2]) for i, word in enumerate(words) if word == "-p"}
report, folder = pathlib.Path("reports", run_id), pathlib.Path("data/artifacts", run_id, "03_third")
for each in (report, folder):
    each.mkdir(parents=True, exist_ok=True)
saved = folder / "checkpoint.json"
state = json.loads(saved.read_text()) if saved.exists() else {"epoch": 0, "given": given}
def write(path, value):
    path.with_suffix(".new").write_text(json.dumps(value))
    path.with_suffix(".new").replace(path)
def record(status, code):
    write(report / "run.json", {"run_id": run_id, "status": status, "exit_code": code, "stems": ["03_third"],
          "started_at": "2026-11-20T10:00:00Z", "notebooks": {"03_third": {"status": status}}})
    return code
record("running", None)
print("goes on after epoch", state["epoch"], flush=True)
given = state["given"]
bars = open(given["bars"]).read() if given.get("bars") else ""
(folder / "table.bin").write_bytes(b"x" * given.get("n_bytes", 0))
try:
    for epoch in range(state["epoch"] + 1, given.get("n_epochs", 2) + 1):
        time.sleep(given.get("seconds", 0))
        write(saved, {"epoch": epoch, "given": given, "letters": len(bars)})
        print(f"line {epoch:04} " + "." * 60, flush=True)
except KeyboardInterrupt:
    sys.exit(record("interrupted", 130))
if given.get("is_failing"):
    sys.exit(record("failed", 1))
sys.exit(record("finished", 0))
"""


def build_pod_project(root, *, is_quick=False):
    """Write the project below `root`; quick, what would run notebooks is `RUNNER`."""
    here, library = Path(__file__).parent, Path(moola_lib.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    if is_quick:
        (root / "moola_lib" / "runs").mkdir(parents=True)
        for name in ("__init__.py", "runs/__init__.py", "runs/processes.py"):
            shutil.copy(library / name, root / "moola_lib" / name)
        shutil.copytree(library / "runs" / "pods", root / "moola_lib" / "runs" / "pods", ignore=ignored)
        (root / "moola_lib" / "cli.py").write_text(RUNNER)
    else:
        shutil.copytree(library, root / "moola_lib", ignore=ignored)
        (root / "moola_lib" / "runs" / "parameters.py").write_text("from pod_project import MODELS as PARAMETERS\n")
        for name in ("toy_project.py", "pod_project.py"):
            shutil.copy(here / name, root)
    toy_project.build_project(root)
    for stem in ("03_third", "04_fourth"):
        device = "\ndevice = 'auto'" if stem == "04_fourth" else ""
        cells = [
            "# The third question",
            f"seed = 7\nn_epochs = 2\nbars = None\nseconds = 0.0\nupstream_run = None\nn_bytes = 0{device}\n"
            "is_failing = False",
            toy_project.SETUP.format(stem=stem).replace("toy_project", "pod_project"),
            TRAINING,
            toy_project.FINISH.replace("VERDICT", "'PASS'"),
        ]
        nbformat.write(toy_project.notebook(*cells), root / "notebooks" / f"{stem}.ipynb")
    (root / "pyproject.toml").write_text('[project]\nname = "toy"\ndependencies = ["torch"]\n')
    (root / "constraints.txt").write_text("torch==2.13.0\n")
    (root / ".gitignore").write_text("/data/\n/reports/\n__pycache__/\n")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def send(pod, *words, port=None, python=sys.executable):
    """`moola pod run` in this process; by default on a pod that has Python and packages already."""
    options = ["--python", python] if python else []
    words = ["pod", "run", f"127.0.0.1:{port or pod.port}", *words, *options, "--identity", str(pod.identity)]
    return main(words, models=MODELS)
