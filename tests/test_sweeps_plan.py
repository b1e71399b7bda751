"""A sweep's YAML: mistakes are one sentence with the line, before anything starts; a run's id is what it is made of."""

import json
from pathlib import Path

import pytest
from sweep_project import MODELS, STEM, build_project, write_sweep

from moola_lib.errors import UserError
from moola_lib.runs.parameters import PARAMETERS
from moola_lib.runs.sweeps.description import read_sweep
from moola_lib.runs.sweeps.plan import grid_points, is_allowed, plan_runs


@pytest.fixture
def root(tmp_path):
    build_project(tmp_path)
    return tmp_path


def plan(root, text, name="try.yaml"):
    sweep = read_sweep(write_sweep(root / name, text), MODELS, root)
    return plan_runs(sweep, grid_points(sweep.grid), MODELS, root)


def test_every_combination_runs_with_every_seed(root):
    runs = plan(root, "grid:\n  shift: [0, 1e-1]\n  n_draws: [10, 20, 30]\nseeds: [1, 2]")
    assert len({run.run_id for run in runs}) == 12
    assert all(run.run_id.startswith("try-") for run in runs)
    assert {(run.arm["shift"], run.arm["n_draws"], run.seed) for run in runs} == {
        (shift, n, seed) for shift in (0.0, 0.1) for n in (10, 20, 30) for seed in (1, 2)
    }
    assert all(run.resolved["mode"] == "ok" and "mode" not in run.given for run in runs)


def test_without_grid_and_seeds_there_is_the_notebooks_own_run(root):
    (run,) = plan(root, "parameters: {shift: 2}")
    assert run.arm == {} and run.seed == 7 and run.given == {"shift": 2.0}


def test_an_id_depends_on_parameters_and_on_what_is_read_but_not_on_its_place(root):
    for folder in ("a", "b"):
        (root / folder).mkdir()
        (root / folder / "bars.csv").write_text("1,2,3")

    def run_id(text):
        return plan(root, text)[0].run_id

    assert run_id("parameters: {shift: 2}") == run_id("parameters: {shift: 2.0, n_draws: 100}")
    assert run_id("parameters: {shift: 2}") != run_id("parameters: {shift: 2.5}")
    before = run_id("parameters: {bars: a/bars.csv}")
    assert before == run_id("parameters: {bars: b/bars.csv}")
    (root / "a" / "bars.csv").write_text("1,2,4")
    assert before != run_id("parameters: {bars: a/bars.csv}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid:\n  shfit: [1]", "try.yaml, line 3: 'shfit' is not a parameter; did you mean 'shift'?"),
        ("grdi: {}", "line 2: 'grdi' is not a part of a sweep; did you mean 'grid'?"),
        ("parameters:\n  n_draws: 1", "line 3: n_draws = 1 is not allowed: give a whole number at least 2"),
        ("grid:\n  n_draws: [5, 1]", "line 3: n_draws = 1 is not allowed"),
        ("grid:\n  n_draws: [5, 5]", "line 3: n_draws lists 5 twice"),
        ("grid:\n  n_draws: 5", "line 3: n_draws needs a list of values"),
        ("grid:\n  n_draws: [5]\n  n_draws: [6]", "line 4: 'n_draws' was given in line 3 already"),
        ("parameters: {shift: 1}\ngrid:\n  shift: [2]", "line 4: shift is among the fixed parameters as well"),
        ("grid:\n  seed: [1, 2]", "line 3: seeds go in a line of their own"),
        ("seeds: [1, -1]", "line 2: seed = -1 is not allowed"),
        ("grid: {shift: [1]}\nsearch: {n_draws: {low: 2, high: 3}}", "line 3: a sweep has a grid or a search"),
        ("search:\n  n_draws: {low: 2}", "line 3: n_draws lacks high"),
        ("search:\n  n_draws: {low: 1, high: 3}", "line 3: n_draws = 1 is not allowed"),
        ("search:\n  shift: {low: 0, high: 3, log: true}", "line 3: shift needs low below high"),
        ("search:\n  mode: {low: a, high: b}", "line 3: low of mode is 'a', not a number"),
        ("trials: 3", "line 2: trials is a whole number from 1, and goes with a search"),
        ("profile: reserch", "line 2: there is no params/reserch/01_tiny.yaml"),
        ("grid: {shift: [1, 1.0e+0]}", "shift lists 1.0 twice"),
        ("grid: {shift: [0.5, '0.5']}", "is listed twice"),
        ("parameters: {bars: gone.csv}", "gone.csv does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(root, text, said):
    with pytest.raises(UserError) as caught:
        plan(root, text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_sweep_says_what_it_is_ranked_by(root):
    path = root / "try.yaml"
    for metric in ("", "metric: hits", "metric: {name: hits, direction: up}"):
        path.write_text(f"notebook: 1\n{metric}\n")
        with pytest.raises(
            UserError, match=r"a sweep needs `metric: \{name: FIGURE, direction: maximize or minimize\}`"
        ):
            read_sweep(path, MODELS, root)
    path.write_text("metric: {name: a, direction: minimize}\n")
    with pytest.raises(UserError, match="does not name its notebook"):
        read_sweep(path, MODELS, root)
    path.write_text("notebook: 7\n")
    with pytest.raises(UserError, match="there is no notebook '7'"):
        read_sweep(path, MODELS, root)


def finish(root, run_id, stem, **others):
    folder = root / "data" / "artifacts" / run_id / stem
    folder.mkdir(parents=True, exist_ok=True)
    record = {"status": "finished", "upstream_runs": {}, "finished_at": "2026-01-01", "data": {}} | others
    (folder / "record.json").write_text(json.dumps(record))


def test_a_sweep_keeps_the_runs_it_was_first_built_on(root):
    source = (root / "notebooks" / f"{STEM}.ipynb").read_text()
    (root / "notebooks" / "02_next.ipynb").write_text(
        source.replace("import os", f"run.upstream('{STEM}')\\nimport os")
    )
    path = root / "try.yaml"
    path.write_text("notebook: 2\nmetric: {name: a, direction: minimize}\n")
    models = MODELS | {"02_next": MODELS[STEM]}
    sweep, known = read_sweep(path, models, root), {}

    def plan_again():
        (run,) = plan_runs(sweep, [{}], models, root, known)
        return run

    with pytest.raises(UserError, match="run `moola run 01_tiny` first"):
        plan_again()
    finish(root, "old", STEM)
    first = plan_again()
    assert first.upstreams == {STEM: "old"} and known == {"": {STEM: "old"}}
    finish(root, "new", STEM, finished_at="2026-02-01")
    assert plan_again() == first
    finish(root, "old", STEM, finished_at="2026-03-01")
    assert plan_again().run_id != first.run_id, "it was run again and may be another"
    known.clear()
    assert plan_again().upstreams == {STEM: "old"}, "the newest finished"


def test_values_that_are_allowed_one_by_one_may_not_go_together():
    root = Path(__file__).parent.parent
    sweep = read_sweep(root / "params" / "sweeps" / "pretraining_search.yaml", PARAMETERS, root)
    together = {"mask": "span", "mask_ratio": 0.9}
    assert is_allowed(sweep, {"mask_ratio": 0.5} | {"mask": "span"}, PARAMETERS, root)
    assert not is_allowed(sweep, together | {"mask_span_bars": 2.0}, PARAMETERS, root)
