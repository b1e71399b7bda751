"""What goes wrong between home and a pod: broken lines, full disks, other keys, files that changed; over real ssh."""

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
import sshd
from chaos_proxy import ChaosProxy
from pod_project import MODELS, send

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import lock_folder, read_json
from moola_lib.runs.pods import launch, ssh, sync
from moola_lib.runs.pods.fetch import fetch
from moola_lib.runs.pods.following import follow_log
from moola_lib.runs.pods.ledger import find_entry, pods_folder
from moola_lib.runs.pods.reaching import connect
from moola_lib.runs.pods.seals import describe, find_differences

pytestmark = pytest.mark.pod
MEGABYTE = 1 << 20


@pytest.fixture
def proxy(pod):
    proxy = ChaosProxy(pod.port)
    yield proxy
    proxy.close()


@pytest.fixture
def connection(home, pod):
    return connection_to(home, pod)


def connection_to(home, pod, port=None):
    entry = {"host": "127.0.0.1", "port": port or pod.port, "user": "root", "alias": "moola/test"}
    return connect(home, entry | {"identity": str(pod.identity)})


@pytest.fixture
def results(tmp_path):
    """A folder with a file of three megabytes and a small one, and their manifest."""
    folder = tmp_path / "results"
    (folder / "deep").mkdir(parents=True)
    (folder / "large.bin").write_bytes(os.urandom(3 * MEGABYTE))
    (folder / "deep" / "a name with spaces").write_text("small")
    return folder, {name: describe(folder / name) for name in ("large.bin", "deep/a name with spaces")}


@pytest.mark.slow
def test_a_log_followed_over_a_line_that_breaks_has_no_gap_and_nothing_twice(home, pod, proxy, capfd):
    def cut_often():
        for _ in range(4):
            time.sleep(1.5)
            proxy.cut()

    options = ["-p", "n_epochs", "60", "-p", "seconds", "0.1"]
    assert send(pod, "3", "--run-id", "torn", "--detach", *options, port=proxy.port) == 0
    capfd.readouterr()
    thread = threading.Thread(target=cut_often)
    thread.start()
    code = main(["pod", "attach", "torn"])
    thread.join()
    assert code == 0 and proxy.n_cut >= 2
    shown = capfd.readouterr().out.encode()
    log = (pod.volume / "runs/torn/log").read_bytes()
    assert b"trying again\n" in shown
    kept = b"".join(line for line in shown.splitlines(keepends=True) if line.startswith((b"line", b"goes on")))
    assert kept == b"".join(line for line in log.splitlines(keepends=True) if line.startswith((b"line", b"goes on")))
    assert read_json(home / "reports/torn/run.json")["status"] == "finished"


@pytest.mark.slow
def test_a_pod_that_stays_silent_is_given_up_on_and_the_run_goes_on(home, pod, proxy, capsys, monkeypatch):
    options = ["-p", "n_epochs", "500", "-p", "seconds", "0.1"]
    assert send(pod, "3", "--run-id", "quiet", "--detach", *options, port=proxy.port) == 0
    monkeypatch.setattr(ssh, "PATIENCE_SECONDS", 1.0)
    proxy.is_down = True
    assert main(["pod", "attach", "quiet"]) == 2
    assert "the run needs no connection" in capsys.readouterr().err
    proxy.is_down = False
    assert main(["pod", "status", "quiet"]) == 0
    assert "quiet: running" in capsys.readouterr().out


@pytest.mark.parametrize("has_rsync", [True, False], ids=["rsync", "tar"])
@pytest.mark.parametrize("direction", ["there", "back"])
def test_a_transfer_that_is_cut_is_taken_up_and_ends_whole(
    home, pod, proxy, results, tmp_path, monkeypatch, direction, has_rsync
):
    folder, manifest = results
    monkeypatch.setattr(ssh, "LONGEST_PAUSE_SECONDS", 0.1)
    proxy.limit, proxy.n_limited = 1.2 * MEGABYTE, 2
    line, said = connection_to(home, pod, proxy.port), []
    if direction == "there":
        there = pod.volume / "sent"
        ssh.insist(
            lambda: sync.send_files(line, folder, list(manifest), str(there), has_rsync=has_rsync), say=said.append
        )
    else:
        there = tmp_path / "fetched"
        ssh.insist(lambda: sync.fetch_files(line, str(folder), manifest, there, has_rsync=has_rsync), say=said.append)
    assert proxy.n_cut == 2 and len(said) == 1, said
    assert find_differences(there, manifest) == []
    assert not list(there.rglob(".rsync-partial/*"))


@pytest.mark.slow
def test_rsync_goes_on_where_it_was_cut(home, pod, proxy, results, monkeypatch):
    folder, manifest = results
    monkeypatch.setattr(ssh, "LONGEST_PAUSE_SECONDS", 0.1)
    proxy.limit = 1.5 * MEGABYTE  # no line ever carries the whole file
    line = connection_to(home, pod, proxy.port)
    sent = ssh.insist(
        lambda: sync.send_files(line, folder, list(manifest), str(pod.volume / "sent"), has_rsync=True), say=print
    )
    assert sent == 3 * MEGABYTE + 5 and find_differences(pod.volume / "sent", manifest) == []


@pytest.mark.parametrize("has_rsync", [True, False], ids=["rsync", "tar"])
def test_a_file_of_the_same_size_and_date_with_another_content_is_found(
    home, pod, connection, results, tmp_path, has_rsync
):
    folder, manifest = results

    def corrupt(path):
        status = path.stat()
        path.write_bytes(b"\0" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    there, back = pod.volume / "sent", tmp_path / "back"
    for _ in range(2):
        sync.send_files(connection, folder, list(manifest), str(there), has_rsync=has_rsync)
        assert find_differences(there, manifest) == []
        corrupt(there / "large.bin")
    for _ in range(2):
        sync.fetch_files(connection, str(folder), manifest, back, has_rsync=has_rsync)
        assert find_differences(back, manifest) == []
        corrupt(back / "large.bin")
    with pytest.raises(UserError, match=r"large\.bin arrives from the pod as another file than was sealed"):
        sync.fetch_files(connection, str(there), manifest, back, has_rsync=has_rsync)


def test_a_name_that_leads_out_of_the_project_is_refused(connection, tmp_path):
    for name in ("../outside", "/etc/passwd", "a/../../b"):
        with pytest.raises(UserError, match="leads out of the project"):
            sync.fetch_files(connection, "/", {name: [1, "0" * 64]}, tmp_path / "in", has_rsync=True)
    assert not (tmp_path / "in").exists()


def test_results_that_do_not_fit_are_not_begun(connection, tmp_path):
    with pytest.raises(UserError, match="make room"):
        sync.fetch_files(connection, "/", {"large": [10**18, "0" * 64]}, tmp_path / "in", has_rsync=True)


@pytest.mark.slow
def test_a_half_fetched_run_is_not_listed_and_a_second_client_waits(home, pod, capsys):
    assert send(pod, "3", "--run-id", "half", "--detach") == 0
    entry = find_entry(home, "half")
    follow_log(home, entry)
    with lock_folder(pods_folder(home) / "half.partial"), pytest.raises(UserError, match="in use by another process"):
        fetch(home, entry)
    assert not (home / "reports/half").exists()
    assert main(["pod", "fetch"]) == 0
    assert (home / "reports/half/run.json").exists()
    assert main(["pod", "fetch"]) == 0, "again is allowed: it is the same run"


@pytest.mark.slow
def test_a_pod_with_another_host_key_is_refused_and_the_advice_helps(home, pod, capsys):
    assert send(pod, "3", "--run-id", "before") == 0
    pod.kill()
    pod.make_key("host_key")
    shutil.rmtree(pod.volume)
    pod.volume.mkdir()
    pod.start()
    capsys.readouterr()
    assert send(pod, "3", "--run-id", "after") == 2
    err = capsys.readouterr().err
    assert "another host key" in err and "created anew or restarted" in err and err.count("\n") == 1
    assert not list(pod.volume.iterdir()), "nothing was sent"
    assert main(["pod", "status", "before"]) == 2
    assert "another host key" in capsys.readouterr().err
    subprocess.run(err.split("`")[1], shell=True, check=True, capture_output=True)
    assert send(pod, "3", "--run-id", "after") == 0


def test_a_key_that_is_not_accepted_is_said(home, pod, tmp_path, capsys):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    words = ["pod", "run", pod.address, "3", "--identity", str(tmp_path / "other")]
    assert main(words, models=MODELS) == 2
    assert "accepts none of the key" in capsys.readouterr().err


@pytest.mark.slow
def test_a_pod_without_rsync_is_served_by_tar(home, tmp_path, capsys):
    sshd.require()
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in [*Path("/usr/bin").iterdir(), *Path("/bin").iterdir()]:
        if tool.name != "rsync" and not (tools / tool.name).exists():
            (tools / tool.name).symlink_to(tool)
    pod = sshd.LocalPod(tmp_path / "pod", PATH=tools).start()
    try:
        bars = tmp_path / "bars.csv"
        bars.write_text("1,2,3")
        assert send(pod, "3", "--run-id", "tarred", "-p", "bars", str(bars)) == 0
        assert "tar over ssh" in capsys.readouterr().out
        assert read_json(home / "data/artifacts/tarred/03_third/checkpoint.json")["letters"] == 5
    finally:
        pod.kill()


@pytest.mark.slow
def test_start_up_files_that_print_break_nothing(home, pod, capsys):
    (pod.home / ".bashrc").write_text("echo Welcome to your pod; echo ::moola:: almost; printf 'base=/nowhere\\n'\n")
    assert send(pod, "3", "--run-id", "loud") == 0
    out = capsys.readouterr().out
    assert "start-up files print text" in out and "Welcome" not in out


@pytest.fixture
def small_volume(tmp_path):
    """A volume of twelve megabytes."""
    sshd.require()
    pod = sshd.LocalPod(tmp_path / "pod")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(pod.volume)], check=True)
    yield pod.start()
    pod.kill()
    subprocess.run(["umount", "-l", str(pod.volume)], check=True)


def test_a_small_disk_is_refused_before_anything_is_sent(home, small_volume, monkeypatch, capsys):
    monkeypatch.setattr(launch, "LEAST_FREE_GB", 5.0)
    assert send(small_volume, "3", "--run-id", "tight") == 2
    assert "0.01 GB free and a run wants 5.00" in capsys.readouterr().err
    assert not list(small_volume.volume.iterdir())


@pytest.mark.slow
def test_a_disk_that_fills_while_data_is_sent_is_said(home, small_volume, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch, "LEAST_FREE_GB", -1.0)
    bars = tmp_path / "bars.csv"
    bars.write_bytes(os.urandom(20 * MEGABYTE))
    assert send(small_volume, "3", "--run-id", "big", "-p", "bars", str(bars)) == 2
    assert "no space is left" in capsys.readouterr().err
    bars.write_text("fits")
    assert send(small_volume, "3", "--run-id", "big", "-p", "bars", str(bars)) == 2
    assert "No space left on device" in capsys.readouterr().err, "what arrived is kept for the next try"


@pytest.mark.slow
def test_a_disk_that_fills_while_it_runs_still_says_how_it_ended(home, small_volume, capsys):
    code = send(small_volume, "3", "--run-id", "full", "-p", "n_bytes", str(20 * MEGABYTE))
    assert code == 1
    state = read_json(small_volume.volume / "runs/full/state.json")
    assert state["state"] == "ended" and state["exit_code"] == 1
    assert "No space left" in capsys.readouterr().out


@pytest.mark.slow
def test_no_gpu_is_refused_where_one_would_be_used(home, tmp_path, capsys):
    sshd.require()
    pod = sshd.LocalPod(tmp_path / "pod", FAKE_GPUS="0").start()
    try:
        assert send(pod, "4", "--run-id", "dark") == 2
        assert "no GPU on the pod, which 04_fourth would use" in capsys.readouterr().err
        assert send(pod, "4", "--run-id", "dark", "-p", "device", "cpu") == 0
    finally:
        pod.kill()


def test_an_address_that_does_not_answer_is_said_soon(home, monkeypatch, capsys):
    monkeypatch.setattr(launch, "FIRST_PATIENCE_SECONDS", 0.5)
    began = time.monotonic()
    words = ["pod", "run", f"127.0.0.1:{sshd.free_port()}", "3"]
    assert main(words, models=MODELS) == 2
    assert "does not answer" in capsys.readouterr().err and time.monotonic() - began < 60


@pytest.mark.slow
def test_a_run_is_sent_started_once_and_fetched_over_a_line_that_keeps_breaking(home, pod, proxy, tmp_path, capfd):
    def cut_often():
        for _ in range(12):
            time.sleep(0.8)
            proxy.cut()

    bars = tmp_path / "bars.bin"
    bars.write_bytes(b"x" * MEGABYTE)
    thread = threading.Thread(target=cut_often)
    thread.start()
    code = send(pod, "3", "--run-id", "rough", "-p", "bars", str(bars), "-p", "n_epochs", "30", port=proxy.port)
    thread.join()
    assert code == 0 and proxy.n_cut >= 2
    assert (pod.volume / "runs/rough/log").read_text().count("goes on after epoch") == 1
    assert read_json(home / "data/artifacts/rough/03_third/checkpoint.json")["letters"] == MEGABYTE
