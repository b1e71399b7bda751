"""The floors of the house: imports only go down, and naming things imports nothing heavy."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import moola_lib

ROOT = Path(moola_lib.__file__).parent
FLOORS = [
    {"errors"},
    {"files"},
    {"market"},
    {"features", "labels"},
    {"windows"},
    {"models"},
    {"learning"},
    {"evaluation"},
    {"figures"},
    {"widgets"},
    {"runs"},
    {"cli"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SCIENCE = {"market", "features", "labels", "windows", "models", "learning", "evaluation", "figures", "widgets"}
KNOWS_NO_SCIENCE = [
    "engine", "execution", "record", "html", "index", "project", "terminal", "parameters_check", "kernels", "saving",
    "processes", "signals", "opening", "leaks", "inputs", "status", "rerunning",
    "upstream", "rows", "planning",
    "sweeps/description", "sweeps/plan", "sweeps/ledger", "sweeps/execute", "sweeps/worker", "sweeps/cluster",
    *(f"pods/{path.stem}" for path in sorted((ROOT / "runs" / "pods").glob("*.py"))),
]  # fmt: skip
SOURCES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path):
    """Rooms of moola_lib that a file imports, at its top or inside a function."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("moola_lib.")}
    return rooms - {"__version__"}


def modules_loaded_after(statement, watched):
    code = f"import sys\n{statement}\nprint(*[m for m in {watched!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=True)
    return done.stdout.split()


def test_the_walk_sees_every_room():
    rooms = {room_of(path) for path in SOURCES}
    assert rooms <= FLOOR_OF.keys()
    assert rooms >= {"errors", "files", "cli", "runs"} | SCIENCE - {"widgets"}


def test_an_upward_import_would_be_found(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("def f():\n    from moola_lib import models\n    import moola_lib.runs.engine\n")
    assert imported_rooms(path) == {"models", "runs"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_go_down(path):
    room = room_of(path)
    for other in imported_rooms(path) - {room}:
        assert FLOOR_OF[other] < FLOOR_OF[room], f"{room} imports {other}"


def test_errors_imports_no_room():
    assert imported_rooms(ROOT / "errors.py") == set()


@pytest.mark.parametrize("path", sorted((ROOT / "features").glob("*.py")), ids=lambda path: path.name)
def test_features_never_look_at_labels(path):
    assert "labels" not in imported_rooms(path)


@pytest.mark.parametrize("name", KNOWS_NO_SCIENCE)
def test_the_runner_knows_no_science(name):
    assert not imported_rooms(ROOT / "runs" / f"{name}.py") & SCIENCE


def test_the_front_door_opens_on_runs_only():
    assert imported_rooms(ROOT / "cli.py") <= {"runs", "errors"}


@pytest.mark.parametrize("statement", ["import moola_lib", "import moola_lib.cli"])
def test_importing_the_package_loads_nothing_heavy(statement):
    assert modules_loaded_after(statement, ["torch", "plotly", "papermill", "pandas", "numba"]) == []


def test_naming_the_choices_loads_no_torch():
    statement = (
        "from moola_lib.models import MODELS\n"
        "from moola_lib.learning import STRATEGIES\n"
        "from moola_lib.features.sets import FEATURE_SETS\n"
        "assert MODELS and STRATEGIES and FEATURE_SETS"
    )
    assert modules_loaded_after(statement, ["torch"]) == []


def test_every_choice_leads_to_what_it_names():
    from moola_lib.learning import STRATEGIES
    from moola_lib.models import MODELS

    for target in [*MODELS.values(), *STRATEGIES.values()]:
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
