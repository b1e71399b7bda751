"""A run on a pod, seen from home: its state, its log without gaps, and what it has cost."""

import json
import subprocess
import sys
import time

from moola_lib.errors import UserError
from moola_lib.runs.notebook import format_seconds
from moola_lib.runs.pods import ledger, ssh, states
from moola_lib.runs.pods.ledger import hours_since
from moola_lib.runs.pods.reaching import connect, on_pod, onpod_words
from moola_lib.runs.pods.ssh import MARK, ConnectionLost, insist


def read_status(root, entry, *, say=print, patience=None):
    """Return what the pod says of a run: `settle_state`, and `watchdog`.

    Raises
    ------
    ConnectionLost
        It says nothing.
    """
    connection = connect(root, entry)
    answer = insist(lambda: on_pod(connection, entry, "status"), say=say, patience=patience)
    if answer.returncode:
        raise UserError(f"run {entry['run_id']!r} is not on this pod ({entry['folder']} cannot be read there)")
    status = json.loads(answer.stdout)
    if not status["watchdog"]["is_watching"]:
        insist(lambda: on_pod(connection, entry, "watch"), say=say, patience=patience)
        say("the pod's watchdog was gone (a restart ends it); it watches again")
    return status


def follow_log(root, entry, *, stream=None, say=print):
    """Show the log from where it was last shown to its end; a line that breaks is taken up where it broke.

    Parameters
    ----------
    root : Path
    entry : dict
        `log_offset`, the bytes shown so far, is kept in the ledger.
    stream : binary stream, optional
        Default standard output.

    Returns
    -------
    dict
        The last status.

    Raises
    ------
    ConnectionLost
        The pod has been silent for `ssh.PATIENCE_SECONDS`; the run needs nobody.
    """
    stream = stream or sys.stdout.buffer
    connection, heard_at = connect(root, entry), time.monotonic()
    is_said = False
    while True:
        before = entry["log_offset"]
        try:
            _show(connection, entry, stream)
            return read_status(root, entry, say=say)
        except ConnectionLost as error:
            if entry["log_offset"] > before:
                heard_at, is_said = time.monotonic(), False
            if time.monotonic() - heard_at > ssh.PATIENCE_SECONDS:
                raise ConnectionLost(
                    f"{error}; the run needs no connection, see the rest with `moola pod attach {entry['run_id']}`"
                ) from error
            if not is_said:
                say(f"{error}; trying again")
            is_said = True
            time.sleep(1.0)
        finally:
            ledger.write_entry(root, entry)


def _show(connection, entry, stream):
    """Copy the log to a stream until the pod says that it is complete."""
    words = onpod_words(entry, "follow", str(entry["log_offset"]))
    with connection.open(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            while (line := process.stdout.readline()) and line != f"{MARK}\n".encode():
                pass
            while block := process.stdout.read1(1 << 16):
                stream.write(block)
                stream.flush()
                entry["log_offset"] += len(block)
            stderr = process.stderr.read().decode(errors="replace")
        except BaseException:
            process.kill()
            raise
    if process.returncode == 255:
        raise connection.explain(stderr)
    if process.returncode:
        raise ConnectionLost(f"the pod shows no log ({' '.join(stderr.split())[-200:]})")


def print_log(root, entry, *, stream=None, say=print):
    """Print the whole log as it is now."""
    connection = connect(root, entry)
    answer = insist(lambda: connection.run(["cat", f"{entry['folder']}/log"]), say=say)
    (stream or sys.stdout).write(answer.stdout)


def print_status(root, entry, *, say=print):
    """Print how far a run on a pod is, when it last gave a sign, what it costs, and when the pod stops."""
    where = f"{entry['host']}:{entry['port']}" + (f" (pod {entry['pod_id']})" if entry["pod_id"] else "")
    try:
        status = read_status(root, entry, say=say, patience=0)
    except ConnectionLost:
        say(f"{entry['run_id']}: not known on {where}, started {entry['started_at']}; {say_cost(entry)}")
        raise
    code = f", exit code {status['exit_code']}" if status.get("exit_code") is not None else ""
    say(f"{entry['run_id']}: {status['state']}{code} on {where}")
    signs = [("heartbeat", status["heartbeat_age"]), ("line, cell or epoch", status["progress_age"])]
    said = [f"{name} {format_seconds(age)} ago" for name, age in signs if age is not None]
    if said:
        say(f"  last {', last '.join(said)}")
    if status["state"] == states.LOST:
        say(f"  {advise_lost(entry)}")
    words = ["env", f"MOOLA_HOME={entry['project']}", f"PYTHONPATH={entry['project']}", entry["python"]]
    answer = connect(root, entry).run([*words, "-m", "moola_lib.cli", "status", entry["run_id"]])
    for line in answer.stdout.splitlines()[1:]:
        say(line)
    say(f"  {say_cost(entry)}")
    for line in _say_watchdog(entry, status):
        say(f"  {line}")


def say_cost(entry):
    """Return what a run has cost so far, where the price is known; a pod that is not kept stops once it is fetched."""
    hours = hours_since(entry["started_at"], None if entry["is_kept"] else entry["fetched_at"])
    time_said = format_seconds(3600 * hours)
    if entry["price_per_hour"] is None:
        return f"{time_said} so far; the price is not known (RunPod's API tells it, with RUNPOD_API_KEY set)"
    return f"${hours * entry['price_per_hour']:.2f} so far: {time_said} at ${entry['price_per_hour']:.2f} an hour"


def advise_lost(entry):
    """Say what to do about a run that is lost."""
    return (
        "nothing of it lives on the pod (it was killed, or the pod was restarted); continue from its last checkpoint "
        f"with `moola pod run HOST:PORT --resume --run-id {entry['run_id']}`"
    )


def _say_watchdog(entry, status):
    """Yield lines on when the pod stops."""
    notes = status["watchdog"]
    if notes.get("error"):
        yield f"THE POD DOES NOT STOP: {notes['error']}; stop it in RunPod's console or with `moola pod stop`"
    elif notes.get("stopping"):
        yield f"the pod is being stopped: {notes['stopping']}"
    elif not notes.get("can_stop"):
        yield "nothing stops this machine but you"
    else:
        hours = max(notes["deadline_at"] - status["now"], 0) / 3600
        rule = "" if entry["is_kept"] else "when the results are fetched, soon after the end, or idle; "
        yield f"the pod stops itself: {rule}at the latest in {hours:.1f} h"
