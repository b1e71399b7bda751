"""How a pod is named, and what ssh's and the pod's answers are taken for; without a connection."""

import pytest

from moola_lib.errors import UserError
from moola_lib.runs.pods.address import Target, parse_target
from moola_lib.runs.pods.preflight import Facts, check_facts, describe_facts
from moola_lib.runs.pods.ssh import Connection, ConnectionLost, insist

GOOD = Facts("/workspace/moola", 40.0, "/usr/bin/python3", "3.12.3", "2.8.0+cu128", 1, True, "abc", "")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("203.0.113.7:22017", Target("203.0.113.7", 22017)),
        ("me@host.example:22", Target("host.example", 22, "me")),
        ("[2001:db8::7]:22017", Target("2001:db8::7", 22017)),
        ("ssh root@203.0.113.7 -p 22017 -i ~/.ssh/id_ed25519", Target("203.0.113.7", 22017)),
        (" root@203.0.113.7 -p 22017", Target("203.0.113.7", 22017)),
        ("9vw8qx5k3d2h1a", Target(pod_id="9vw8qx5k3d2h1a")),
    ],
)
def test_an_address_is_read_in_every_form_that_runpod_shows(text, target):
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "203.0.113.7", "host:", "host:0", "host:70000", "a b:22", "-oProxyCommand=x:22"])
def test_what_is_no_address_is_refused_with_the_form_that_works(text):
    with pytest.raises(UserError, match=r"203\.0\.113\.7:22017"):
        parse_target(text)


@pytest.mark.parametrize(
    "text", ["9vw8qx5k3d2h1a-64411@ssh.runpod.io", "ssh 9vw@ssh.runpod.io -i ~/.ssh/id", "ssh.runpod.io:22"]
)
def test_runpods_proxy_is_refused_with_the_form_that_works(text):
    with pytest.raises(UserError, match=r"takes no files.*203\.0\.113\.7:22017"):
        parse_target(text)


def test_host_keys_are_kept_by_the_pod_and_not_by_its_address():
    assert parse_target("9vw8qx5k3d2h1a").alias == "moola/runpod-9vw8qx5k3d2h1a"
    assert parse_target("203.0.113.7:22017").alias == "moola/203.0.113.7-22017"


def test_a_pod_that_is_fit_passes_and_is_described():
    check_facts(GOOD, ["03_pretraining"])
    assert describe_facts(GOOD) == ("Python 3.12.3, torch 2.8.0+cu128, 1 GPU, 40 GB free in /workspace/moola, rsync")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"torch_version": ""}, "has no torch"),
        ({"torch_version": "2.4.0+cu124"}, r"torch is 2\.4\.0\+cu124 and 2\.6 is the oldest"),
        ({"n_gpus": 0}, r"no GPU on the pod.*restarted.*-p device cpu"),
        ({"n_gpus": 0, "n_gpus_listed": 1}, "driver does not fit"),
        ({"pod_id": "abc", "is_on_volume": False}, "is erased when the pod stops; start a pod with a volume"),
        ({"free_gb": 1.0}, r"1\.00 GB free and a run wants 5\.00"),
    ],
)
def test_each_lack_is_named_with_what_to_do(change, sentence):
    with pytest.raises(UserError, match=sentence):
        check_facts(Facts(**{**GOOD.__dict__, **change}), ["03_pretraining"])


def test_a_run_on_the_cpu_needs_no_gpu():
    check_facts(Facts(**{**GOOD.__dict__, "n_gpus": 0}), [])


def test_a_torch_of_two_digits_is_newer(monkeypatch):
    check_facts(Facts(**{**GOOD.__dict__, "torch_version": "2.13.0"}), ["03_pretraining"])


@pytest.fixture
def connection(tmp_path):
    return Connection("203.0.113.7", 22017, "root", "moola/x", tmp_path / "known hosts", "/home/me/key")


def test_silence_is_worth_another_attempt_and_a_refusal_is_not(connection):
    lost = [
        "ssh: connect to host 203.0.113.7 port 22017: Connection refused",
        "ssh: connect to host 203.0.113.7 port 22017: Connection timed out",
        "kex_exchange_identification: read: Connection reset by peer",
        "Timeout, server 203.0.113.7 not responding.",
        "",
    ]
    refused = [
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.",
        "root@203.0.113.7: Permission denied (publickey).",
        "Permissions 0644 for '/home/me/key' are too open. UNPROTECTED PRIVATE KEY FILE!",
    ]
    assert all(isinstance(connection.explain(text), ConnectionLost) for text in lost)
    assert not any(isinstance(connection.explain(text), ConnectionLost) for text in refused)


def test_attempts_are_repeated_while_there_is_patience():
    answers, said = iter([ConnectionLost("gone"), ConnectionLost("gone"), "here"]), []

    def action():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert insist(action, say=said.append, patience=60) == "here"
    assert said == ["gone; trying again"]

    def lose():
        raise ConnectionLost("gone")

    with pytest.raises(ConnectionLost):
        insist(lose, say=said.append, patience=0)


def test_a_refusal_is_not_repeated():
    def refuse():
        attempts.append(1)
        raise UserError("another host key")

    attempts = []
    with pytest.raises(UserError):
        insist(refuse, say=print, patience=60)
    assert len(attempts) == 1
