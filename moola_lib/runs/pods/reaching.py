"""How a pod is reached: from what the user named, or from what was noted when its run was started."""

import time
from dataclasses import dataclass
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.runs.pods import api, ledger
from moola_lib.runs.pods.ssh import Connection

BOOT_SECONDS = 600.0
BOOT_POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Wishes:
    """What the user wants besides the run itself.

    Attributes
    ----------
    identity : str or None
        Private key for ssh.
    python : str or None
        The pod's Python to use as it is, instead of a venv of ours.
    is_kept : bool
        The pod goes on after the run.
    max_hours : float
        After which it is stopped in any case.
    """

    identity: str | None = None
    python: str | None = None
    is_kept: bool = False
    max_hours: float = 24.0


def find_pod(target, wishes, say):
    """Return what a ledger's entry says of the pod itself; a pod given by its id is waited for."""
    facts = {
        "user": target.user, "pod_id": target.pod_id, "alias": target.alias, "identity": wishes.identity,
        "host": target.host, "port": target.port, "price_per_hour": None, "max_hours": wishes.max_hours,
        "is_kept": wishes.is_kept,
    }  # fmt: skip
    if wishes.identity:
        facts["identity"] = str(Path(wishes.identity).expanduser().resolve())
        if not Path(facts["identity"]).is_file():
            raise UserError(f"there is no key {wishes.identity}; give the path of a private key with --identity")
    if target.pod_id:
        pod = await_address(target.pod_id, say)
        facts["host"], facts["port"] = api.ssh_address(pod)
        facts["price_per_hour"] = api.price_of(pod)
    return facts


def await_address(pod_id, say):
    """Return a pod once it has an address for SSH.

    Raises
    ------
    UserError
        It is stopped, or has none after `BOOT_SECONDS`: it costs money all the same.
    """
    deadline, is_said = time.monotonic() + BOOT_SECONDS, False
    while True:
        pod = api.get_pod(pod_id)
        if pod.get("desiredStatus") != "RUNNING":
            raise UserError(f"pod {pod_id} is {pod.get('desiredStatus')}; start it with `runpodctl pod start {pod_id}`")
        if api.ssh_address(pod):
            return pod
        if time.monotonic() > deadline:
            raise UserError(
                f"pod {pod_id} has no address for SSH after {BOOT_SECONDS / 60:.0f} minutes and costs money; expose "
                f"TCP port 22, or end it with `moola pod stop {pod_id} --delete`"
            )
        if not is_said:
            say(f"waiting for pod {pod_id} to start")
        is_said = True
        time.sleep(BOOT_POLL_SECONDS)


def find_again(entry, at=None):
    """Bring the address and price of an entry up to date: both may change when a pod is restarted.

    Parameters
    ----------
    entry : dict
        Changed in place.
    at : Target, optional
        Where the user says that the pod is now; default RunPod's API is asked, where
        there is a key.

    Raises
    ------
    UserError
        The pod is stopped.
    """
    if at:
        entry.update(host=at.host, port=at.port, user=at.user)
        return
    if not (entry["pod_id"] and api.has_key()):
        return
    pod_id, pod = entry["pod_id"], api.get_pod(entry["pod_id"])
    if pod.get("desiredStatus") != "RUNNING":
        raise UserError(
            f"pod {pod_id} is stopped, and the results of run {entry['run_id']} on its volume; start it with "
            f"`runpodctl pod start {pod_id}`, then try again (its host key will be a new one)"
        )
    entry["price_per_hour"] = entry["price_per_hour"] or api.price_of(pod)
    if api.ssh_address(pod):
        entry["host"], entry["port"] = api.ssh_address(pod)


def connect(root, entry):
    """Return the connection of a ledger's entry."""
    folder = ledger.pods_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    return Connection(
        entry["host"], entry["port"], entry["user"], entry["alias"], folder / "known_hosts", entry["identity"]
    )


def on_pod(connection, entry, verb, *more, **options):
    """Call `onpod` for a run's folder on its pod."""
    return connection.run(onpod_words(entry, verb, *more), **options)


def onpod_words(entry, verb, *more):
    """Return the command that calls `onpod` on the pod."""
    words = ["env", f"PYTHONPATH={entry['project']}", entry["python"], "-m", "moola_lib.runs.pods.onpod"]
    return [*words, verb, entry["folder"], *more]
