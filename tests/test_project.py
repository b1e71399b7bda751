"""What the project says about itself is true: README, environment, notebooks, parameter files."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from moola_lib.runs.parameters import PARAMETERS
from moola_lib.runs.parameters_check import check_parameters, load_model, read_yaml
from moola_lib.runs.sweeps.description import read_sweep
from moola_lib.runs.sweeps.plan import grid_points

ROOT = Path(__file__).parent.parent
STEMS = sorted(PARAMETERS)
# The gallery's pages are opened from disk, where a browser reads no compressed script.
MAY_BE_LARGE = {"reports/gallery/assets/plotly.min.js"}
SWEEPS = sorted(ROOT.glob("params/sweeps/*.yaml"))
SKYPILOT = ROOT / "params" / "runpod" / "skypilot.yaml"  # a task and no parameters; see test_pods_export
PROFILE_FILES = sorted(set(ROOT.glob("params/*/*.yaml")) - {*SWEEPS, SKYPILOT})
NOTEBOOKS = [ROOT / "notebooks" / f"{stem}.ipynb" for stem in STEMS]


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {name.lower(): version for name, version in (line.split("==") for line in lines if line)}


def direct_dependencies():
    return {name.lower() for name in {*project()["dependencies"], *project()["optional-dependencies"]["test"]}}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_direct_dependency_is_pinned():
    extras = {name.lower() for names in project()["optional-dependencies"].values() for name in names}
    assert direct_dependencies() | extras <= set(pins())


def test_every_direct_dependency_says_why():
    text = (ROOT / "pyproject.toml").read_text()
    for line in re.findall(r'^    "([\w.-]+)",(.*)$', text.split("[project.scripts]")[0], re.M):
        name, comment = line
        assert "#" in comment or name in {"pytest", "ruff"}, f"{name} does not say why it is here"


def test_torch_is_pinned_without_a_local_version():
    assert pins()["torch"] == "2.13.0"
    assert not any("+" in version for version in pins().values())


def test_conda_environment_holds_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip[0] == "-c constraints.txt" and pip[-1] == "-e ."
    given = dict(line.lower().split("==") for line in pip[1:-1])
    assert given == {name: pins()[name] for name in direct_dependencies()}
    assert pip[1].startswith("torch=="), "torch first"


def cells_of(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def assigned(source):
    return {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)
def test_parameters_cell_repeats_the_models_defaults(path):
    (cell,) = [cell for cell in cells_of(path) if "parameters" in cell.metadata.get("tags", [])]
    model = load_model(path.stem, PARAMETERS)
    assert assigned(cell.source) == model().model_dump()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)
def test_notebook_is_committed_executed_and_clean(path):
    cells = cells_of(path)
    assert all(cell.execution_count for cell in cells), "run `make notebooks`"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    text = path.read_text()
    assert not re.search(r"/(home|root|Users|work|tmp)/\w", text), "a machine's path"
    assert "papermill" not in nbformat.read(path, as_version=4).metadata


def figures_of(path):
    outputs = [output for cell in cells_of(path) for output in cell.outputs]
    found = [output.get("data", {}).get("application/vnd.plotly.v1+json") for output in outputs]
    return [figure for figure in found if figure]


def counts_something(values, axis):
    """Tell whether an axis shows numbers; names and marked places speak for themselves."""
    first = values if isinstance(values, dict) else next((v for v in values or () if v is not None), None)
    return not isinstance(first, str) and first is not None and "ticktext" not in axis and axis.get("visible", True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)
def test_every_figure_says_what_its_axes_measure(path):
    figures = figures_of(path)
    assert figures
    for figure in figures:
        layout = figure["layout"]
        for letter in "xy":
            axes = {f"{letter}axis{trace.get(f'{letter}axis', letter)[1:]}": trace for trace in figure["data"]}
            measured = [layout.get(name, {}) for name, trace in axes.items()
                        if counts_something(trace.get(letter), layout.get(name, {}))]  # fmt: skip
            is_named = any(axis.get("title", {}).get("text") for axis in measured) or layout.get("annotations")
            assert is_named or not measured, f"{layout['title']['text']}: what does {letter} measure?"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=STEMS)
def test_notebook_has_the_houses_form(path):
    titles = [line for cell in cells_of(path, "markdown") for line in cell.source.splitlines() if line.startswith("#")]
    assert titles[0].startswith(f"# {path.stem[:2]} · ")
    assert titles[1] == "## Parameters"
    assert titles[-3:] == ["## Findings", "## Gates", "## Run record"]
    longest = max(len(cell.source.splitlines()) for cell in cells_of(path))
    assert longest <= 40, f"a cell of {longest} lines belongs in moola_lib"


@pytest.mark.parametrize("path", PROFILE_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_parameter_file_is_valid_differs_and_gives_reasons(path):
    values = read_yaml(path)
    model = load_model(path.stem, PARAMETERS)
    checked = check_parameters(model, values, str(path))
    defaults = model().model_dump()
    same = [name for name in values if getattr(checked, name) == defaults[name]]
    assert not same, f"{same} repeat the default"
    assert not (bare := lines_without_reason(path)), f"no reason given: {bare}"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_is_valid_in_every_combination_and_gives_reasons(path):
    sweep = read_sweep(path, PARAMETERS, ROOT)
    model = load_model(sweep.stem, PARAMETERS)
    profile = ROOT / "params" / sweep.profile / f"{sweep.stem}.yaml"
    base = read_yaml(profile) if profile.exists() else {}
    corners = {name: each.get("choices") or [each["low"], each["high"]] for name, each in sweep.search.items()}
    for point in grid_points(sweep.grid or corners):
        check_parameters(model, base | sweep.fixed | point, str(path))
    assert not (bare := lines_without_reason(path)), f"no reason given: {bare}"


def lines_without_reason(path):
    lines = path.read_text().splitlines()
    return [line for line in lines if not line.startswith("#") and line and "#" not in line and not line.endswith(":")]


def test_both_profiles_cover_every_notebook():
    for profile in ("research", "runpod"):
        assert sorted(path.stem for path in PROFILE_FILES if path.parent.name == profile) == STEMS


def test_readme_names_only_what_exists():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert len(links) >= 2
    for path in links:
        assert (ROOT / path).exists(), path
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`?make ([a-z]+)", text)) <= targets
    for path in re.findall(r"params/\w+/\w+\.yaml", text):
        assert (ROOT / path).exists(), path
    for stem in STEMS:
        assert stem in text


def test_readme_commands_parse():
    from moola_lib.runs.arguments import build_parser

    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^(?:\.venv/bin/)?moola (.+?)(?:\s+#.*)?$", text, re.M)
    assert len(commands) >= 5
    for command in commands:
        build_parser().parse_args(command.split())


def test_readme_tree_names_every_room():
    text = (ROOT / "README.md").read_text()
    for room in (ROOT / "moola_lib").iterdir():
        if room.is_dir() and room.name != "__pycache__":
            assert f"{room.name}/" in text, room.name


def test_no_large_file_is_tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name and name not in MAY_BE_LARGE]
    large = [str(path.relative_to(ROOT)) for path in paths if path.exists() and path.stat().st_size > 1_000_000]
    assert not large, f"{large} belong to what is built or measured here, not to the project"
