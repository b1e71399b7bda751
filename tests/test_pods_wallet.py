"""Who stops a pod, and when: the watchdog there, stop and reap here, and never before the results are safe."""

import json
import sys
import threading
import time
from pathlib import Path

import pytest
import sshd
from pod_project import MODELS, send
from runpod_api import OWN_KEY

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import read_json
from moola_lib.runs.pods import launch, states
from moola_lib.runs.pods import watchdog as watchdog_module
from moola_lib.runs.pods.api import list_pods
from moola_lib.runs.pods.ledger import find_entry
from moola_lib.runs.pods.watchdog import Watchdog, stop_pod

ENDED, RUNNING, LOST, PREPARING = states.ENDED, states.RUNNING, states.LOST, states.PREPARING


def wait_until_stopped(runpod, seconds=30):
    deadline = time.monotonic() + seconds
    while runpod.pods[sshd.POD_ID]["desiredStatus"] == "RUNNING":
        assert time.monotonic() < deadline, runpod.calls
        time.sleep(0.05)


def wait_until_ended(pod, run_id):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and read_json(pod.volume / "runs" / run_id / "state.json")["state"] != ENDED:
        time.sleep(0.05)


@pytest.fixture
def watchdog(tmp_path):
    """A watchdog with minutes to wait, in a folder of its own; nothing is started."""
    job = {**launch.TIMES, "run_id": "r", "project": str(tmp_path), "max_hours": 2.0, "is_kept": False}
    (tmp_path / "job.json").write_text(json.dumps(job))
    return Watchdog(tmp_path)


def decisions(watchdog, state, *minutes):
    """What is decided at these minutes after the start."""
    return [watchdog.decide(state, watchdog.began + 60 * minute) for minute in minutes]


def test_the_watchdog_waits_for_the_results_to_be_fetched_but_not_for_ever(watchdog):
    assert decisions(watchdog, ENDED, 1, 15, 17) == [None, None, "the run has ended"]


def test_a_run_whose_files_are_gone_is_lost_to_the_watchdog_and_the_pod_stops(watchdog):
    assert watchdog.look() == PREPARING
    (watchdog.folder / "job.json").unlink()
    assert watchdog.look() == LOST
    assert decisions(watchdog, LOST, 1, 17)[1] == "the run has died"


def test_a_fetch_that_has_begun_is_waited_for_longer(watchdog):
    (watchdog.folder / "fetching").touch()
    assert decisions(watchdog, ENDED, 1, 30, 60, 62) == [None, None, None, "the run has ended"]


def test_the_watchdog_stops_at_once_what_is_fetched(watchdog):
    (watchdog.folder / "fetched").touch()
    assert decisions(watchdog, ENDED, 1) == ["the run has ended and its results were fetched"]


def test_the_watchdog_stops_a_run_that_died_and_one_that_was_never_started(watchdog):
    assert decisions(watchdog, LOST, 1, 17) == [None, "the run has died"]
    assert decisions(watchdog, PREPARING, 18, 70, 79) == [None, None, "nothing was started"]


def test_the_longest_time_holds_whatever_the_state_and_the_wish_to_keep(watchdog):
    watchdog.job["is_kept"] = True
    for state in (PREPARING, RUNNING, ENDED, LOST):
        assert decisions(watchdog, state, 100, 119, 121) == [None, None, "2 hours are over"]


def test_a_pod_that_is_kept_outlives_its_run(watchdog):
    watchdog.job["is_kept"] = True
    (watchdog.folder / "fetched").touch()
    assert decisions(watchdog, ENDED, 1, 100) == [None, None]


def test_a_run_that_uses_no_cpu_is_idle_and_one_that_works_is_not(watchdog, monkeypatch):
    used = iter([5.0, 6.0, 6.0, 6.0, 7.0, 7.0, 7.0])
    monkeypatch.setattr("moola_lib.runs.pods.watchdog.cpu_seconds", lambda process: next(used))
    assert decisions(watchdog, RUNNING, 1, 2, 20, 31) == [None] * 4
    assert decisions(watchdog, RUNNING, 32, 61) == [None, None]
    assert decisions(watchdog, RUNNING, 63) == ["idle for 30 minutes"]


def test_runpodctl_is_asked_first_in_both_its_languages_and_then_the_api(runpod, tmp_path, monkeypatch):
    runpod.add("abcdef123456xy")
    monkeypatch.setattr("moola_lib.runs.pods.watchdog.API_URL", runpod.url)
    tool = tmp_path / "runpodctl"
    said = tmp_path / "said"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {said}\n[ "$1" = stop ] && [ -n "$RUNPOD_API_KEY" ]\n')
    tool.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RUNPOD_POD_ID": "abcdef123456xy", "RUNPOD_API_KEY": sshd.KEY}
    assert stop_pod(environment) is None
    assert said.read_text().splitlines() == ["pod stop abcdef123456xy", "stop pod abcdef123456xy"]
    assert runpod.calls == []
    tool.unlink()
    assert stop_pod(environment) is None
    assert runpod.calls == ["POST /v1/pods/abcdef123456xy/stop"]


def test_a_pod_that_cannot_stop_says_why_without_its_key(runpod):
    environment = {"PATH": "", "RUNPOD_POD_ID": "gone", "RUNPOD_API_KEY": sshd.KEY, "RUNPOD_API_URL": runpod.url}
    reason = stop_pod(environment)
    assert "404" in reason and sshd.KEY not in reason
    assert "no RUNPOD_API_KEY" in stop_pod({"RUNPOD_POD_ID": "x", "PATH": ""})
    assert "no RUNPOD_POD_ID" in stop_pod({})


@pytest.mark.pod
@pytest.mark.parametrize("end", ["\r", "\n", " \r\n"])
def test_a_key_with_a_line_end_works_and_one_that_cannot_be_sent_is_not_repeated(runpod, monkeypatch, end):
    runpod.add(sshd.POD_ID)
    given = {"RUNPOD_POD_ID": sshd.POD_ID, "RUNPOD_API_URL": runpod.url, "PATH": ""}
    assert stop_pod(given | {"RUNPOD_API_KEY": sshd.KEY + end}) is None
    monkeypatch.setenv("RUNPOD_API_URL", runpod.url)
    monkeypatch.setenv("RUNPOD_API_KEY", OWN_KEY + end)
    assert [pod["id"] for pod in list_pods()] == [sshd.POD_ID]
    broken = OWN_KEY + end + "x"
    monkeypatch.setenv("RUNPOD_API_KEY", broken)
    if end != " \r\n":
        with pytest.raises(UserError) as caught:
            list_pods()
        told = [str(caught.value), stop_pod(given | {"RUNPOD_API_KEY": broken})]
        assert all(OWN_KEY not in text and "ValueError" in text for text in told)


def test_a_watchdog_stops_the_pod_though_the_run_cannot_be_asked_to_end(watchdog, monkeypatch):
    stopped = []

    def stop(environment):
        stopped.append(environment)
        watchdog.job["run_id"] = "another"  # it is no longer in charge: the loop ends
        return

    def refuse(folder):
        raise OSError("stale file handle")

    states.lock_path().with_suffix(".run").unlink(missing_ok=True)
    monkeypatch.setattr(states, "newest_run", lambda: "r")
    monkeypatch.setattr(watchdog_module, "stop_pod", stop)
    monkeypatch.setattr(watchdog_module.supervisor, "end", refuse)
    monkeypatch.setattr(watchdog, "look", lambda: RUNNING)
    watchdog.job |= {"max_hours": 0.0, "poll_seconds": 0.0, "retry_seconds": 0.0}
    watchdog.watch()
    assert len(stopped) == 1 and "stale file handle" in watchdog.notes["trouble"]


def test_a_pod_stops_itself_once_its_results_are_home(rented, home, runpod):
    assert send(rented, "3", "--run-id", "done") == 0
    wait_until_stopped(runpod)
    while rented.is_up():
        time.sleep(0.05)
    rented.start()
    assert main(["pod", "status", "done"]) == 0
    time.sleep(1)
    assert rented.is_up(), "who has started it again has a reason"
    assert runpod.calls[-1] == f"POST /v1/pods/{sshd.POD_ID}/stop"
    assert (home / "reports/done/run.json").exists()


@pytest.mark.pod
@pytest.mark.slow
def test_a_pod_stops_itself_while_the_client_sleeps_and_the_results_stay(rented, home, runpod, monkeypatch, capsys):
    monkeypatch.setitem(launch.TIMES, "grace_minutes", 0.01)
    assert send(rented, "3", "--run-id", "slept", "--detach") == 0
    wait_until_stopped(runpod)
    while rented.is_up():
        time.sleep(0.05)
    job = rented.volume / "runs/slept/job.json"
    job.write_text(json.dumps(read_json(job) | {"grace_minutes": 15.0}))
    rented.start()
    assert main(["pod", "fetch", "slept"]) == 0
    assert (home / "reports/slept/run.json").exists()


@pytest.mark.pod
@pytest.mark.slow
def test_the_longest_time_ends_the_run_cleanly_and_stops_a_pod_that_is_kept(rented, home, runpod, monkeypatch):
    options = ["-p", "n_epochs", "500", "-p", "seconds", "0.1", "--max-hours", "0.001", "--keep"]
    assert send(rented, "3", "--run-id", "long", "--detach", *options) == 0
    wait_until_stopped(runpod)
    record = read_json(rented.volume / "runs/long/project/reports/long/run.json")
    assert record["status"] == "interrupted", "the notebook was told, not killed"
    assert read_json(rented.volume / "runs/long/state.json")["exit_code"] == 130


@pytest.mark.pod
@pytest.mark.slow
def test_a_pod_whose_stop_fails_tries_again_and_says_so(rented, home, runpod, capsys):
    runpod.refusing["/stop"] = 500
    assert send(rented, "3", "--run-id", "stuck") == 0
    deadline = time.monotonic() + 20
    while sum(call.endswith("/stop") for call in runpod.calls) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    capsys.readouterr()
    assert main(["pod", "status"]) == 0
    assert "THE POD DOES NOT STOP: REST: HTTP Error 500" in capsys.readouterr().out
    runpod.refusing.clear()
    wait_until_stopped(runpod)


@pytest.mark.pod
@pytest.mark.slow
def test_an_abandoned_pod_stops_though_nothing_was_started(rented, home, runpod, monkeypatch):
    monkeypatch.setitem(launch.TIMES, "prepare_minutes", 0.01)

    def vanish(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_start", vanish)
    assert send(rented, "3", "--run-id", "never") == 130
    assert main(["pod", "attach", "never"]) == 2
    wait_until_stopped(runpod)


@pytest.mark.pod
@pytest.mark.slow
def test_a_watchdog_leaves_the_pod_to_a_run_that_came_later(rented, home, runpod, monkeypatch):
    monkeypatch.setitem(launch.TIMES, "grace_minutes", 0.25)
    assert send(rented, "3", "--run-id", "first", "--detach") == 0
    wait_until_ended(rented, "first")
    monkeypatch.setitem(launch.TIMES, "grace_minutes", 0.01)
    assert send(rented, "3", "--run-id", "next", "--detach", "-p", "n_epochs", "200", "-p", "seconds", "0.1") == 0
    time.sleep(15)
    assert runpod.pods[sshd.POD_ID]["desiredStatus"] == "RUNNING"
    wait_until_stopped(runpod)


@pytest.mark.pod
@pytest.mark.slow
def test_by_its_id_a_pod_is_found_priced_and_its_key_stands_nowhere(
    rented, home, runpod, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("RUNPOD_API_KEY", OWN_KEY)
    seen, is_over = set(), threading.Event()

    def look():
        while not is_over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    words = ["pod", "run", sshd.POD_ID, "3", "--run-id", "named", "--identity", str(rented.identity)]
    code = main([*words, "--python", sys.executable], models=MODELS)
    wait_until_stopped(runpod)
    is_over.set()
    thread.join()
    assert code == 0
    out = capsys.readouterr().out
    assert "$0.00 so far: 0:0" in out and "at $0.69 an hour" in out
    assert len(seen) > 10 and any(b"moola_lib.runs.pods.onpod" in each for each in seen)
    for key in (OWN_KEY, sshd.KEY):
        assert not [each for each in seen if key.encode() in each], "a process list shows the key"
        files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
        assert not [path for path in files if key.encode() in path.read_bytes()], "a file holds the key"
        assert key not in out
    assert find_entry(home)["alias"] == f"moola/runpod-{sshd.POD_ID}"


@pytest.mark.pod
@pytest.mark.slow
def test_stop_ends_the_run_brings_what_it_has_and_stops_the_pod(rented, home, runpod, monkeypatch, capsys):
    monkeypatch.setenv("RUNPOD_API_KEY", OWN_KEY)
    assert send(rented, "3", "--run-id", "enough", "--detach", "-p", "n_epochs", "500", "-p", "seconds", "0.1") == 0
    assert main(["pod", "stop", "enough"]) == 0
    assert read_json(home / "reports/enough/run.json")["status"] == "interrupted"
    assert runpod.pods[sshd.POD_ID]["desiredStatus"] == "EXITED"


@pytest.mark.pod
def test_deleting_before_a_verified_fetch_is_refused(rented, home, runpod, monkeypatch, capsys):
    monkeypatch.setenv("RUNPOD_API_KEY", OWN_KEY)
    assert send(rented, "3", "--run-id", "precious", "--detach", "--keep") == 0
    wait_until_ended(rented, "precious")
    rented.kill()
    assert main(["pod", "stop", "precious", "--delete"]) == 2
    assert "nothing is deleted, for the results are not here" in capsys.readouterr().err
    assert main(["pod", "stop", sshd.POD_ID, "--delete"]) == 2
    assert sshd.POD_ID in runpod.pods and not [call for call in runpod.calls if call.startswith("DELETE")]
    rented.start()
    assert main(["pod", "stop", "precious", "--delete"]) == 0
    assert (home / "reports/precious/run.json").exists() and sshd.POD_ID not in runpod.pods


@pytest.mark.pod
@pytest.mark.slow
def test_a_pod_that_was_restarted_elsewhere_is_found_again_and_watched_again(rented, home, runpod, monkeypatch, capsys):
    monkeypatch.setenv("RUNPOD_API_KEY", OWN_KEY)
    assert send(rented, "3", "--run-id", "moved", "--detach") == 0
    wait_until_ended(rented, "moved")
    runpod.pods[sshd.POD_ID]["desiredStatus"] = "EXITED"
    rented.kill()
    assert main(["pod", "fetch", "moved"]) == 2
    assert f"runpodctl pod start {sshd.POD_ID}" in capsys.readouterr().err
    rented.port = sshd.free_port()
    rented.start()
    runpod.pods[sshd.POD_ID].update(desiredStatus="RUNNING", portMappings={"22": rented.port})
    assert main(["pod", "fetch", "moved"]) == 0
    assert "it watches again" in capsys.readouterr().out
    wait_until_stopped(runpod)


@pytest.mark.pod
@pytest.mark.slow
def test_without_a_key_the_new_address_can_be_given(pod, home, capsys):
    assert send(pod, "3", "--run-id", "moved", "--detach") == 0
    wait_until_ended(pod, "moved")
    pod.kill()
    pod.port = sshd.free_port()
    pod.start()
    assert main(["pod", "fetch", "moved", "--at", "somewhere"]) == 2
    assert main(["pod", "fetch", "moved", "--at", f"root@127.0.0.1:{pod.port}"]) == 0
    assert main(["pod", "status", "moved"]) == 0, "and is remembered"
