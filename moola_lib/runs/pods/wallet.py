"""What pods cost and who stops them: `moola pod stop` and `moola pod reap`."""

import sys

from moola_lib.errors import UserError
from moola_lib.runs.pods import api, ledger, states
from moola_lib.runs.pods.address import parse_target
from moola_lib.runs.pods.fetch import fetch
from moola_lib.runs.pods.following import read_status, say_cost
from moola_lib.runs.pods.ledger import hours_since
from moola_lib.runs.pods.reaching import connect, find_again, on_pod
from moola_lib.runs.pods.ssh import ConnectionLost, insist


def stop(root, entry, *, at=None, is_deleting=False, say=print):
    """End a run, bring home what it has left, and stop its pod.

    Parameters
    ----------
    root : Path
    entry : dict
        Of the ledger.
    at : str, optional
        HOST:PORT, where the pod is now.
    is_deleting : bool
        Delete the pod and its volume instead; only after a verified fetch of every
        run that was sent there.

    Raises
    ------
    UserError
        Another run was sent to the pod later; or the results are not here and could
        not be fetched, so nothing is deleted.
    """
    later = ledger.find_entry(root, entry["pod_id"] or f"{entry['host']}:{entry['port']}")
    if later["run_id"] != entry["run_id"]:
        raise UserError(
            f"run {later['run_id']!r} was sent to this pod later; `moola pod stop {later['run_id']}` stops it"
        )
    try:
        find_again(entry, parse_target(at) if at else None)
        if read_status(root, entry, say=say, patience=0)["state"] == states.RUNNING:
            say(f"ending run {entry['run_id']}")
            insist(lambda: on_pod(connect(root, entry), entry, "end"), say=say)
        if not entry["fetched_at"]:
            fetch(root, entry, say=say)
    except UserError as error:
        if not entry["fetched_at"]:
            if is_deleting:
                raise UserError(f"nothing is deleted, for the results are not here: {error}") from error
            say(f"not fetched: {error}; the results stay on the pod's volume")
    if is_deleting:
        refuse_unfetched(root, entry["pod_id"], entry)
        api.delete_pod(entry["pod_id"])
        say(f"pod {entry['pod_id']} and its volume are deleted; {say_cost(entry)}")
    elif entry["pod_id"] and api.has_key():
        api.stop_pod(entry["pod_id"])
        say(f"pod {entry['pod_id']} is stopped, its volume stays (and costs a little); {say_cost(entry)}")
    else:
        try:
            on_pod(connect(root, entry), entry, "stop")
            say(f"the pod was asked to stop itself; {say_cost(entry)}")
        except ConnectionLost:
            say("the pod does not answer, so it may have stopped: look into RunPod's console, or set RUNPOD_API_KEY")


def stop_unknown(root, text, *, is_deleting=False, say=print):
    """Stop, or delete, a pod that no run was sent to from here.

    Raises
    ------
    UserError
        It is not given by its id.
    """
    pod_id = parse_target(text).pod_id
    if not pod_id:
        raise UserError(f"no run was sent to {text} from here; give the pod's id to stop it")
    if is_deleting:
        refuse_unfetched(root, pod_id)
        api.delete_pod(pod_id)
    else:
        api.stop_pod(pod_id)
    say(f"pod {pod_id} is {'deleted' if is_deleting else 'stopped, its volume stays'}")


def refuse_unfetched(root, pod_id, entry=None):
    """Refuse to delete a pod that holds results which are not here.

    Raises
    ------
    UserError
        Naming the runs; or the pod's id is not known.
    """
    if not pod_id:
        raise UserError(f"the pod of run {entry['run_id']!r} has no id here; delete it in RunPod's console")
    sent = [each for each in ledger.read_entries(root) if each["pod_id"] == pod_id and each["is_started"]]
    missing = [each["run_id"] for each in sent if not each["fetched_at"]]
    if missing:
        raise UserError(f"pod {pod_id} holds results that are not here; `moola pod fetch {missing[0]}` before it goes")


def reap(root, *, is_sure=False, say=print):
    """List the account's pods, and stop those whose run from here is over.

    Parameters
    ----------
    root : Path
    is_sure : bool
        Do not ask.

    Returns
    -------
    int
        Pods that should have been stopped and were not.
    """
    pods, entries = api.list_pods(), ledger.read_entries(root)
    left = []
    for pod in pods:
        entry = next((entry for entry in entries if entry["pod_id"] == pod["id"]), None)
        reason, is_left = _judge(root, pod, entry)
        price = api.price_of(pod)
        cost = f"${price:.2f} an hour" if price else "price unknown"
        say(f"{pod['id']}  {pod.get('name') or ''}  {pod.get('desiredStatus')}  {cost}  {reason}")
        if is_left:
            left.append((pod["id"], price or 0.0))
    if not left:
        say("no pod is left over" if pods else "this account has no pods")
        return 0
    total = sum(price for _, price in left)
    if not is_sure:
        say(f"Stop {', '.join(pod_id for pod_id, _ in left)} (${total:.2f} an hour)? Volumes stay. [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("nothing stopped")
            return 0
    n_failed = 0
    for pod_id, _ in left:
        try:
            api.stop_pod(pod_id)
            say(f"{pod_id} is stopped")
        except UserError as error:
            n_failed += 1
            say(f"{pod_id} is NOT stopped: {error}")
    return n_failed


def _judge(root, pod, entry):
    """Return what a pod does, in words, and whether it is left over."""
    if pod.get("desiredStatus") != "RUNNING":
        return "its volume costs a little", False
    if entry is None:
        return "no run was sent there from here: not touched", False
    name = f"run {entry['run_id']}"
    is_over_time = hours_since(entry["started_at"]) > entry["max_hours"]
    too_long = f"{name} has had its {entry['max_hours']:g} hours"
    try:
        status = read_status(root, entry, say=lambda text: None, patience=0)
    except UserError as error:
        if is_over_time:
            return too_long, True
        is_silent = isinstance(error, ConnectionLost)
        return f"{name}: {'it does not answer' if is_silent else error}", bool(
            entry["fetched_at"] and not entry["is_kept"]
        )
    state, holder = status["state"], status["holder"]
    if holder and holder != entry["run_id"]:
        return f"run {holder}, which was sent by somebody else, works there: not touched", False
    if is_over_time:
        return too_long, True
    if state in (states.RUNNING, states.PREPARING):
        return f"{name} is {state}", False
    where = "is here" if entry["fetched_at"] else "is still on the pod's volume"
    return f"{name} has {'ended' if state == states.ENDED else 'died'} and {where}", not entry["is_kept"]
