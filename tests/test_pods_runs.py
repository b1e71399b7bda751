"""A run sent to a pod and back, over a real sshd on this machine."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import sshd
from pod_project import MODELS, build_pod_project, send

from moola_lib.cli import main
from moola_lib.files import read_json
from moola_lib.runs.pods.ledger import find_entry

pytestmark = pytest.mark.pod
HERE = Path(__file__).parent


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_of_notebooks_goes_to_the_pod_and_its_results_come_home(home, pod, tmp_path, monkeypatch, capfd):
    root = build_pod_project(tmp_path / "real")
    monkeypatch.setenv("MOOLA_HOME", str(root))
    bars = tmp_path / "bars.csv"
    bars.write_text("twelve bytes")
    assert send(pod, "1", "3", "--run-id", "there", "-p", "bars", str(bars)) == 0
    out = capfd.readouterr().out
    assert "goes on after epoch 0 with 12 letters" in (root / "reports/there/run.log").read_text()
    record = read_json(root / "reports/there/run.json")
    assert record["status"] == "finished" and record["stems"] == ["01_first", "03_third"]
    assert read_json(root / "data/artifacts/there/03_third/checkpoint.json") == {"epoch": 2}
    assert ">there<" in (root / "reports/index.html").read_text()
    assert "each as it was sealed on the pod" in out and "2/2 03_third finished" in out
    assert not list((root / "data/pods").glob("*.partial")), "nothing half-fetched is left"
    assert record["inputs"]["03_third"]["bars"]["path"] == str(bars), "records name the files here"
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{HERE.parent}")
    assert main(["rerun", "there", "--run-id", "again"], models=MODELS) == 0
    assert main(["run", "2", "--run-id", "after", "-p", "upstream_run", "there"], models=MODELS) == 0


@pytest.mark.slow
def test_a_notebook_of_the_project_runs_on_a_pod(home, tmp_path, monkeypatch):
    sshd.require()
    root = tmp_path / "whole"
    for name in ("moola_lib", "notebooks", "params"):
        shutil.copytree(HERE.parent / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(HERE.parent / name, root)
    monkeypatch.setenv("MOOLA_HOME", str(root))
    pod = sshd.LocalPod(tmp_path / "pod", PYTHONPATH="").start()  # with the torch that is installed
    try:
        words = ["pod", "run", pod.address, "01", "--run-id", "real", "-p", "n_sessions", "4"]
        assert main([*words, "--python", sys.executable, "--identity", str(pod.identity)]) == 0
    finally:
        pod.kill()
    record = read_json(root / "reports/real/run.json")
    assert record["status"] == "finished" and record["parameters"]["01_feature_validation"]["n_sessions"] == 4
    assert record["gates"] and (root / "reports/real/01_feature_validation.html").exists()
    assert (root / "reports/assets/plotly.min.js").exists()
    assert "ModuleNotFoundError" not in (root / "reports/real/run.log").read_text()


@pytest.mark.slow
def test_only_the_files_that_parameters_name_are_sent_and_each_once(home, pod, tmp_path):
    bars = home / "data/raw/named.csv"
    bars.parent.mkdir(parents=True)
    bars.write_text("1,2,3")
    (home / "data/raw/other.csv").write_text("not asked for")
    assert send(pod, "3", "--run-id", "one", "-p", "bars", str(bars)) == 0
    assert send(pod, "3", "4", "--run-id", "two", "-p", "bars", str(bars)) == 0
    stored = [path.name for path in pod.volume.rglob("*.csv")]
    assert stored == ["named.csv"]
    assert read_json(home / "data/artifacts/two/03_third/checkpoint.json")["letters"] == 5


@pytest.mark.slow
def test_the_runs_built_on_go_along_with_what_they_were_built_on(home, pod):
    for run_id, others in (("base", {}), ("mid", {"01_first": "base"}), ("apart", {})):
        folder = home / "data/artifacts" / run_id / "01_first"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "heavy").write_text("x")
        (folder / "record.json").write_text(json.dumps({"status": "finished", "upstream_runs": others}))
        (folder / "table").write_text(run_id)
    assert send(pod, "3", "--run-id", "top", "-p", "upstream_run", "mid") == 0
    sent = {path.parts[-3] for path in pod.volume.rglob("data/artifacts/*/01_first/table")}
    assert sent == {"base", "mid"}
    assert not list(pod.volume.rglob("heavy")), "checkpoints stay at home"


@pytest.mark.slow
def test_a_failed_run_comes_home_with_its_exit_code(home, pod):
    assert send(pod, "3", "--run-id", "bad", "-p", "is_failing", "true") == 1
    assert read_json(home / "reports/bad/run.json")["status"] == "failed"


def test_a_detached_run_is_seen_followed_and_fetched_later(home, pod, capfd):
    assert send(pod, "3", "--run-id", "later", "--detach", "-p", "n_epochs", "20", "-p", "seconds", "0.05") == 0
    assert main(["pod", "fetch", "later"]) == 2
    assert "goes on" in capfd.readouterr().err
    assert main(["pod", "status"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("later: running on 127.0.0.1") and "heartbeat 0:0" in out and "the price is not known" in out
    assert main(["pod", "attach", "later"]) == 0
    out = capfd.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("line ")]
    assert [int(line.split()[1]) for line in lines] == list(range(1, 21))
    assert main(["pod", "logs", pod.address]) == 0
    assert capfd.readouterr().out.count("line 0") == 20
    assert (home / "reports/later/run.json").exists()


def test_a_run_id_that_is_taken_is_refused_before_anything_is_sent(home, pod, capsys):
    (home / "reports/mine").mkdir(parents=True)
    assert send(pod, "3", "--run-id", "mine") == 2
    assert "is here already" in capsys.readouterr().err
    assert not list(pod.volume.iterdir())


def test_a_mistake_in_a_parameter_is_said_before_anything_is_sent(home, pod, capsys):
    assert send(pod, "3", "-p", "n_epohcs", "3") == 2
    assert "did you mean 'n_epochs'" in capsys.readouterr().err
    assert not list(pod.volume.iterdir())


def test_a_parameter_that_holds_a_key_is_not_sent(home, pod, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_TOKEN", "very-secret-word")
    (tmp_path / "very-secret-word.csv").touch()
    assert send(pod, "3", "-p", "bars", str(tmp_path / "very-secret-word.csv")) == 2
    err = capsys.readouterr().err
    assert "holds a key or password" in err and "very-secret-word" not in err
    assert not list(pod.volume.iterdir())


def test_of_two_runs_at_once_the_second_is_told_to_try_later(home, pod, capsys):
    assert send(pod, "3", "--run-id", "first", "--detach", "-p", "n_epochs", "50", "-p", "seconds", "0.1") == 0
    assert send(pod, "3", "--run-id", "second", "--detach") == 75
    assert "run first has this pod" in capsys.readouterr().err
    assert main(["pod", "status", "first"]) == 0
    assert capsys.readouterr().out.startswith("first: running")


@pytest.mark.slow
def test_a_killed_pod_loses_the_run_and_its_restart_resumes_from_the_checkpoint(home, pod, capfd):
    long = ["-p", "n_epochs", "40", "-p", "seconds", "0.05"]
    assert send(pod, "3", "--run-id", "cut", "--detach", *long) == 0
    saved = pod.volume / "runs/cut/project/data/artifacts/cut/03_third/checkpoint.json"
    wait_until(lambda: saved.exists() and read_json(saved)["epoch"] >= 5)
    pod.kill()
    epoch = read_json(saved)["epoch"]
    assert epoch < 40
    assert main(["pod", "status", "cut"]) == 2
    assert "does not answer" in capfd.readouterr().err
    pod.start()
    assert main(["pod", "attach", "cut"]) == 137
    err = capfd.readouterr().err
    assert "run cut is lost" in err and "--resume --run-id cut" in err
    assert send(pod, "--resume", "--run-id", "cut") == 0
    assert f"goes on after epoch {epoch}" in capfd.readouterr().out
    assert read_json(home / "data/artifacts/cut/03_third/checkpoint.json")["epoch"] == 40


@pytest.mark.slow
def test_a_killed_run_is_reported_lost_while_the_pod_lives(home, pod, capfd):
    assert send(pod, "3", "--run-id", "shot", "--detach", "-p", "n_epochs", "50", "-p", "seconds", "0.1") == 0
    state = read_json(pod.volume / "runs/shot/state.json")
    kill = "kill -9 {} {}".format(state["supervisor"]["pid"], state["run"]["pid"])
    pod.shell(kill)
    capfd.readouterr()
    assert main(["pod", "status", "shot"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("shot: lost") and "continue from its last checkpoint" in out


@pytest.mark.slow
def test_a_supervisor_that_is_killed_takes_nothing_along(home, pod, capfd):
    assert send(pod, "3", "--run-id", "alone", "--detach", "-p", "n_epochs", "20", "-p", "seconds", "0.1") == 0
    pod.shell("kill -9 {}".format(read_json(pod.volume / "runs/alone/state.json")["supervisor"]["pid"]))
    assert main(["pod", "attach", "alone"]) == 0
    assert read_json(home / "reports/alone/run.json")["status"] == "finished"


@pytest.mark.slow
def test_what_git_said_of_the_code_goes_along(home, pod):
    assert send(pod, "3", "--run-id", "known") == 0
    state = read_json(pod.volume / "runs/known/project/.git-state.json")
    assert set(state) == {"commit", "is_dirty"}


@pytest.mark.slow
def test_a_pod_is_the_same_by_name_run_or_address(home, pod):
    assert send(pod, "3", "--run-id", "known", "--detach") == 0
    for name in ("known", sshd.POD_ID, pod.address, None):
        assert find_entry(home, name)["run_id"] == "known"
    assert find_entry(home)["python"] == sys.executable
