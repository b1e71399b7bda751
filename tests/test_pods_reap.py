"""RunPod's API: what is asked of it, what it refuses, and the pods that reap stops; against its documented shapes."""

import io

import pytest
import sshd
from pod_project import MODELS
from runpod_api import OWN_KEY

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.runs.pods import api, reaching, wallet
from moola_lib.runs.pods.following import say_cost
from moola_lib.runs.pods.ledger import hours_since, read_entries, write_entry


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
