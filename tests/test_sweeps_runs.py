"""`moola sweep` on this machine: every run once, again only what is missing, failures named, a page to look at."""

import json
import os
import urllib.request

import pandas as pd
import pytest
from chromium import open_page
from sweep_project import METRIC, MODELS, STEM, build_project, draw, write_sweep

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import read_json
from moola_lib.runs.sweeps import cluster
from moola_lib.runs.sweeps.description import read_sweep
from moola_lib.runs.sweeps.execute import _Execution
from moola_lib.runs.sweeps.plan import plan_runs

pytestmark = pytest.mark.sweep


@pytest.fixture
def root(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    build_project(tmp_path)
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{__file__.rpartition('/')[0]}:{cluster.__file__.rpartition('/moola_lib')[0]}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def sweep(root, name="try", *words):
    return main(["sweep", str(root / f"{name}.yaml"), "--workers", "2", *words], models=MODELS)


def read_table(root, name="try"):
    return pd.read_csv(root / "reports" / "sweeps" / name / "results.csv")


def stamps(root):
    return {path: path.stat().st_mtime_ns for path in (root / "reports").glob("try-*/run.json")}


def test_a_sweep_does_every_run_once_and_a_wider_grid_only_the_new_ones(root, capsys):
    write_sweep(root / "try.yaml", "grid: {shift: [0, 1]}\nseeds: [1]")
    assert sweep(root, "try", "--max-runs", "1") == 0
    said = capsys.readouterr()
    assert "dashboard: http://127.0.0.1" in said.out and "1 run left; run the same command again" in said.err
    table = read_table(root)
    assert sorted(table["status"]) == ["finished", "waiting"]
    index = (root / "reports" / "index.html").read_text()
    assert 'href="sweeps/try/index.html"' in index and table.loc[0, "run_id"] in index
    before = stamps(root)
    write_sweep(root / "try.yaml", "grid: {shift: [0, 1]}\nseeds: [1, 2]")
    assert sweep(root) == 0
    assert "1 finished before" in capsys.readouterr().out
    assert before.items() <= stamps(root).items() and len(stamps(root)) == 4
    table = read_table(root)
    assert table["run_id"].is_unique and set(table["status"]) == {"finished"}
    for row in table.itertuples():
        assert row.value == draw(row.seed, row.shift, 100).mean(), "as in this process, to the last bit"
    state = read_json(root / "reports" / "sweeps" / "try" / "sweep.json")
    assert state["status"] == "finished" and state["process"] is None
    before = stamps(root)
    assert sweep(root) == 0 and stamps(root) == before, "nothing is left to do"


@pytest.mark.slow
def test_a_run_that_always_fails_is_tried_three_times_and_the_rest_go_on(root, capsys):
    write_sweep(root / "try.yaml", "grid: {mode: [raise, ok]}")
    assert sweep(root) == 1
    said = capsys.readouterr()
    assert "try 2 of 3 failed" in said.out and "ValueError: never works" in said.out
    assert "1 run failed 3 times" in said.err
    table = read_table(root).set_index("mode")
    assert list(table["status"]) == ["failed", "finished"] and list(table["n_tries"]) == [3, 0]
    log = root / "reports" / table.loc["raise", "run_id"] / "run.log"
    assert log.read_text().count("started") == 3
    assert sweep(root) == 1, "it is not tried for ever"
    assert log.read_text().count("started") == 3
    assert sweep(root, "try", "--retry-failed") == 1
    assert log.read_text().count("started") == 6
    page = (root / "reports" / "sweeps" / "try" / "index.html").read_text()
    assert "ValueError: never works" in page and "<h2>Failed</h2>" in page


@pytest.mark.slow
def test_a_run_that_kills_its_workers_is_recorded_and_the_rest_go_on(root):
    write_sweep(root / "try.yaml", "grid: {mode: [kill, ok]}\nseeds: [1, 2]")
    assert sweep(root) == 1
    table = read_table(root)
    assert (table.loc[table["mode"] == "ok", "status"] == "finished").all()
    killed = table[table["mode"] == "kill"]
    assert (killed["status"] == "failed").all() and (killed["n_tries"] == 3).all()
    assert killed["reason"].str.contains("3 workers died under it").all()


def test_what_is_wrong_with_the_command_is_one_sentence(root, capsys, monkeypatch):
    path = write_sweep(root / "try.yaml", "grid: {shift: [0, 1]}")
    assert main(["sweep", str(path), "--scheduler", "tcp://x:1", "--workers", "2"], models=MODELS) == 2
    assert "leave it out with --scheduler" in capsys.readouterr().err
    assert main(["sweep", str(path), "--trials", "2"], models=MODELS) == 2
    assert "--trials goes with a search" in capsys.readouterr().err
    assert main(["sweep", str(root / "gone.yaml")], models=MODELS) == 2
    assert "cannot read" in capsys.readouterr().err
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 0.5)
    assert main(["sweep", str(path), "--scheduler", "tcp://127.0.0.1:9"], models=MODELS) == 2
    assert "no scheduler answers at tcp://127.0.0.1:9; start one with `dask scheduler`" in capsys.readouterr().err
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    path.write_text(path.read_text() + "parameters: {mode: ok}\n")
    with pytest.raises(UserError, match=r"2 workers would share 1 GPU.*--workers 1 or fewer"):
        cluster.open_cluster(2).__enter__()
    assert not (root / "reports" / "try-0").exists()
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    assert main(["sweep", str(path)], models=MODELS) == 2
    assert "pip install -c constraints.txt -e '.[cluster]'" in capsys.readouterr().err


@pytest.mark.slow
def test_what_would_meet_every_run_ends_the_sweep_and_is_no_fault_of_a_run(root, capsys):
    asked = read_sweep(write_sweep(root / "try.yaml", "grid: {shift: [0, 1]}"), MODELS, root)
    blocked = plan_runs(asked, [{"shift": 1}], MODELS, root)[0].run_id
    (root / "reports").mkdir()
    (root / "reports" / blocked).write_text("a file where the run's folder should be")
    assert sweep(root) == 2
    assert "cannot write" in capsys.readouterr().err
    state = read_json(root / "reports" / "sweeps" / "try" / "sweep.json")
    assert state["status"] == "interrupted" and {entry["n_tries"] for entry in state["runs"].values()} == {0}
    (root / "reports" / blocked).unlink()
    assert sweep(root) == 0


@pytest.mark.slow
def test_each_worker_has_a_gpu_of_its_own_and_the_dashboard_answers(root, monkeypatch):
    fake = root / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'GPU 0: one (UUID: a)'\necho 'GPU 1: two (UUID: b)'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert cluster.find_gpus() == ["0", "1"]
    with cluster.open_cluster() as client:
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(seen.values()) == ["0", "1"]
        assert [facts["resources"] for facts in cluster.list_workers(client)] == [{"GPU": 1}] * 2
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert "Dask" in opener.open(cluster.find_dashboard(client), timeout=30).read().decode()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    assert cluster.find_gpus() == ["5", "7"]
    fake.write_text("#!/bin/sh\nexit 9\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert cluster.find_gpus() == []


def test_two_commands_do_not_work_on_one_sweep(root, capsys):
    from moola_lib.files import lock_folder

    write_sweep(root / "try.yaml", "grid: {shift: [0, 1]}")
    with lock_folder(root / "reports" / "sweeps" / "try"):
        assert sweep(root) == 2
    assert "in use by another process" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_continues_its_study(root):
    optuna = pytest.importorskip("optuna")
    text = "search:\n  shift: {low: -1.0, high: 1.0}\n  n_draws: {choices: [10, 50]}\nseeds: [1, 2]\ntrials: 2"
    write_sweep(root / "try.yaml", text)
    assert sweep(root) == 0
    first = read_table(root)
    assert len(first) == 4 and first["arm"].nunique() == 2
    assert sweep(root, "try", "--trials", "3") == 0
    table = read_table(root)
    assert len(table) == 6 and set(first["run_id"]) < set(table["run_id"]) and set(table["status"]) == {"finished"}
    folder = root / "reports" / "sweeps" / "try"
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "study.jsonl"))
    (study,) = optuna.get_all_study_summaries(optuna.storages.JournalStorage(journal))
    assert study.n_trials == 3
    assert study.best_trial.value == table.groupby("arm")["value"].mean().max()


def test_a_combination_that_is_not_allowed_counts_and_ends_no_search(root, monkeypatch):
    pytest.importorskip("optuna")
    from moola_lib.runs.sweeps import execute

    write_sweep(root / "odd.yaml", "search:\n  shift: {low: -1.0, high: 1.0}\nseeds: [1]\ntrials: 3")
    monkeypatch.setattr(execute, "is_allowed", lambda *arguments: False)
    assert sweep(root, "odd") == 0 and sweep(root, "odd") == 0
    folder = root / "reports" / "sweeps" / "odd"
    assert read_json(folder / "sweep.json")["runs"] == {}


@pytest.mark.slow
def test_a_figure_that_no_run_has_is_said_with_those_they_have(root):
    path = write_sweep(root / "try.yaml", "grid: {shift: [0, 1]}")
    path.write_text(path.read_text().replace(METRIC, "median draw"))
    assert sweep(root) == 0
    page = (root / "reports" / "sweeps" / "try" / "index.html").read_text()
    assert "no figure named “median draw”. They have: mean draw." in page
    path.write_text(path.read_text().replace("median draw", METRIC))
    before = stamps(root)
    assert sweep(root) == 0 and stamps(root) == before
    assert "Best of 2 arms: shift 1.0" in (root / "reports" / "sweeps" / "try" / "index.html").read_text()


def test_only_as_many_runs_are_given_out_as_there_are_workers(root):
    """A killed worker takes the blame for its queue with it."""

    class Future:
        status = "finished"

        def done(self):
            return False

    asked = read_sweep(write_sweep(root / "try.yaml", "grid: {shift: [0, 1, 2, 3]}"), MODELS, root)
    execution = _Execution(asked, MODELS, root, root / "reports" / "sweeps" / "try", None, None)
    execution.plan(is_retrying=False)
    execution._n_workers, execution._submit = 2, lambda run: Future()
    execution._fill()
    execution._fill()
    assert len(execution.at_work) == 2 and len(execution.waiting) == 2


def write_state(root, n_shifts=4, seeds=(1, 2, 3)):
    """A sweep's state and records, as if its runs had been."""
    runs = {}
    for shift in range(n_shifts):
        for seed in seeds:
            run_id = f"try-{shift}{seed}"
            is_failed = shift == 3 and seed == 3
            entry = {"arm": {"shift": shift / 10, "mode": "ok" if shift % 2 else "a_rather_long_mode"}, "seed": seed}
            entry |= {"status": "failed" if is_failed else "finished", "n_tries": 3 * is_failed, "n_lost": 0}
            runs[run_id] = entry | {"reason": "out of <b>memory</b>" * is_failed, "worker": "x", "seconds": 2.0}
            folder = root / "data" / "artifacts" / run_id / STEM
            folder.mkdir(parents=True)
            value = draw(seed, shift / 10, 20).mean()
            gate = {"name": METRIC, "value": value, "low": value - 0.1, "high": value + 0.1, "verdict": "PASS"}
            (folder / "record.json").write_text(json.dumps({"status": "finished", "gates": [gate]}))
    state = {"name": "try", "file": "try.yaml", "notebook": STEM, "profile": "quick", "metric": METRIC, "fixed": {}}
    state |= {"is_higher_better": True, "varied": ["shift", "mode"], "upstreams": {}, "status": "finished"}
    return state | {"started_at": "2026-11-20T03:15:00Z", "runs": runs}


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_holds_every_arm_and_run_and_axe_finds_nothing(tmp_path, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    from moola_lib.runs.sweeps.report import write_report

    page = write_report(tmp_path, write_state(tmp_path))
    with open_page(page, width=width, scheme=scheme) as (tab, requests, errors):
        assert tab.locator("svg.main-svg").count() >= 4
        assert tab.locator("table.arms tbody tr").count() == 4 and tab.locator("table.runs-all tbody tr").count() == 12
        assert "out of <b>memory</b>" in tab.inner_text("table.failed")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert [found["id"] for found in Axe().run(tab).response["violations"]] == []
        assert not requests and not errors
