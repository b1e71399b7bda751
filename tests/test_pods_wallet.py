"""Who stops a pod, and when: the watchdog there, stop and reap here, and never before the results are safe."""

import io
import json
import sys
import threading
import time
from pathlib import Path

import pytest
import sshd
from pod_project import MODELS, send
from runpod_api import FakeRunPod, serve

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import read_json
from moola_lib.runs.pods import api, launch, reaching, states, wallet
from moola_lib.runs.pods.following import say_cost
from moola_lib.runs.pods.ledger import find_entry, hours_since, read_entries, write_entry
from moola_lib.runs.pods.watchdog import Watchdog, stop_pod

OWN_KEY = "rpa_" + "KLMNOPQRST9876543210" * 2
ENDED, RUNNING, LOST, PREPARING = states.ENDED, states.RUNNING, states.LOST, states.PREPARING


@pytest.fixture
def runpod():
    """RunPod's API with the keys of the account and of the pod."""
    account = FakeRunPod({OWN_KEY, sshd.KEY})
    with serve(account) as account.url:
        yield account


@pytest.fixture
def rented(runpod, home, tmp_path, monkeypatch):
    """A pod that RunPod's API knows, and stops."""
    sshd.require()
    pod = sshd.LocalPod(tmp_path / "pod", api_url=runpod.url).start()
    runpod.add(sshd.POD_ID, port=pod.port)
    runpod.on_stop = lambda pod_id: threading.Timer(0.2, pod.kill).start()
    monkeypatch.setenv("RUNPOD_API_URL", runpod.url)
    yield pod
    pod.kill()


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
    monkeypatch.setattr("moola_lib.runs.pods.watchdog.API", runpod.url)
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
def test_a_pod_stops_itself_once_its_results_are_home(rented, home, runpod):
    assert send(rented, "3", "--run-id", "done") == 0
    wait_until_stopped(runpod)
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


def entry_of(run_id, pod_id, **facts):
    return {
        "run_id": run_id, "host": "127.0.0.1", "port": sshd.free_port(), "user": "root", "alias": f"moola/{pod_id}",
        "identity": None, "places": {}, "pod_id": pod_id, "folder": "/x", "project": "/x/project", "python": "python3",
        "started_at": "2026-11-20T10:00:00Z", "price_per_hour": 1.5, "max_hours": 10**6, "is_kept": False,
        "fetched_at": None, "is_started": True, "log_offset": 0, **facts,
    }  # fmt: skip


@pytest.fixture
def account(runpod, home, monkeypatch):
    """Five pods: fetched, over its time, silent, not ours, stopped."""
    monkeypatch.setenv("RUNPOD_API_URL", runpod.url)
    monkeypatch.setenv("RUNPOD_API_KEY", OWN_KEY)
    for name in ("fetchedpod", "overduepod", "silentpod1", "foreignpod"):
        runpod.add(name, price=0.5)
    runpod.add("stoppedpod", status="EXITED")
    write_entry(home, entry_of("a", "fetchedpod", fetched_at="2026-11-20T12:00:00Z"))
    write_entry(home, entry_of("b", "overduepod", max_hours=0.001))
    write_entry(home, entry_of("c", "silentpod1"))
    write_entry(home, entry_of("d", "stoppedpod"))
    return runpod


def statuses(runpod):
    return {name: pod["desiredStatus"] for name, pod in runpod.pods.items()}


def test_reap_lists_all_and_stops_only_what_a_run_from_here_left_over(account, home, capsys):
    assert main(["pod", "reap", "--yes"]) == 0
    out = capsys.readouterr().out
    assert statuses(account) == {
        "fetchedpod": "EXITED",
        "overduepod": "EXITED",
        "silentpod1": "RUNNING",
        "foreignpod": "RUNNING",
        "stoppedpod": "EXITED",
    }
    assert all(name in out for name in account.pods) and "not touched" in out and "$0.50 an hour" in out


def test_reap_asks_first(account, home, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["pod", "reap"]) == 0
    assert "$1.00 an hour" in capsys.readouterr().out
    assert statuses(account)["overduepod"] == "RUNNING"


def test_reap_goes_on_past_a_pod_that_does_not_stop(account, home, capsys):
    account.refusing["/fetchedpod/stop"] = 500
    assert main(["pod", "reap", "--yes"]) == 2
    assert "fetchedpod is NOT stopped" in capsys.readouterr().out
    assert statuses(account)["overduepod"] == "EXITED"


def test_without_a_key_the_variable_is_named(home, capsys):
    assert main(["pod", "reap"]) == 2
    assert "RUNPOD_API_KEY" in capsys.readouterr().err
    assert main(["pod", "run", sshd.POD_ID, "3"], models=MODELS) == 2
    assert "RUNPOD_API_KEY" in capsys.readouterr().err


def test_a_wrong_key_and_a_pod_that_is_not_there_are_said_without_the_key(runpod, monkeypatch):
    monkeypatch.setenv("RUNPOD_API_URL", runpod.url)
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_wrong")
    with pytest.raises(UserError, match="does not accept the key in RUNPOD_API_KEY") as refusal:
        api.list_pods()
    assert "rpa_wrong" not in str(refusal.value)
    monkeypatch.setenv("RUNPOD_API_KEY", OWN_KEY)
    with pytest.raises(UserError, match="has no pod nosuchpod1"):
        api.get_pod("nosuchpod1")
    monkeypatch.setenv("RUNPOD_API_URL", "http://127.0.0.1:1")
    with pytest.raises(UserError, match="did not answer"):
        api.list_pods()


def test_a_pod_that_never_boots_is_named_with_the_way_to_end_it(runpod, home, monkeypatch, capsys):
    monkeypatch.setenv("RUNPOD_API_URL", runpod.url)
    monkeypatch.setenv("RUNPOD_API_KEY", OWN_KEY)
    monkeypatch.setattr(reaching, "BOOT_SECONDS", 0.3)
    monkeypatch.setattr(reaching, "BOOT_POLL_SECONDS", 0.1)
    runpod.add("bootingpod1", port=None)
    assert main(["pod", "run", "bootingpod1", "3"], models=MODELS) == 2
    captured = capsys.readouterr()
    assert "waiting for pod bootingpod1" in captured.out and "moola pod stop bootingpod1 --delete" in captured.err
    assert main(["pod", "stop", "bootingpod1", "--delete"]) == 0
    assert "bootingpod1" not in runpod.pods


def test_a_stopped_pod_is_not_waited_for(runpod, home, monkeypatch, capsys):
    monkeypatch.setenv("RUNPOD_API_URL", runpod.url)
    monkeypatch.setenv("RUNPOD_API_KEY", OWN_KEY)
    runpod.add("stoppedpod", status="EXITED")
    assert main(["pod", "run", "stoppedpod", "3"], models=MODELS) == 2
    assert "runpodctl pod start stoppedpod" in capsys.readouterr().err


def test_hours_are_counted_from_stamps():
    assert hours_since("2026-11-20T10:00:00Z", "2026-11-20T12:30:00Z") == 2.5
    assert hours_since("2026-11-20T10:00:00.000Z", "2026-11-20T09:00:00Z") == 0.0


def test_a_fetched_pod_that_is_not_kept_costs_until_then(home):
    entry = entry_of("a", "p", fetched_at="2026-11-20T12:00:00Z")
    assert say_cost(entry) == "$3.00 so far: 2:00:00 at $1.50 an hour"
    assert read_entries(home) == []
    with pytest.raises(UserError, match="has no id here"):
        wallet.refuse_unfetched(home, None, entry)


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
