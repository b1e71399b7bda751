"""What was started where: one small file a run below `data/pods/`, so that later its name is enough."""

import datetime

from moola_lib.errors import UserError
from moola_lib.files import read_json, write_json


def pods_folder(root):
    """Return where these files are, the host keys beside them."""
    return root / "data" / "pods"


def write_entry(root, entry):
    """Write a run's entry.

    Parameters
    ----------
    root : Path
    entry : dict
        `run_id`; `host`, `port`, `user`, `alias`, `identity`, `pod_id` (how to reach
        it); `python`, `folder`, `project` (on the pod); `places` (of each file sent,
        where it is there); `stems`, `profile`;
        `started_at`, `price_per_hour`, `max_hours`, `is_kept`; `is_started`; `log_offset` (shown so
        far), `fetched_at` (verified), `is_merged` (its files are among ours).
    """
    write_json(pods_folder(root) / f"{entry['run_id']}.json", entry)


def read_entries(root):
    """Return all entries, newest first."""
    entries = [read_json(path) for path in pods_folder(root).glob("*.json")]
    return sorted(entries, key=lambda entry: entry["started_at"], reverse=True)


def find_entry(root, text=None):
    """Return the entry that a run id, a HOST:PORT or a pod's id names; default the newest.

    Raises
    ------
    UserError
        Nothing was started there from here.
    """
    entries = read_entries(root)
    if not entries:
        raise UserError(f"no run was sent to a pod from {root}; start one with `moola pod run HOST:PORT`")
    if text is None:
        return entries[0]
    for entry in entries:
        if text in names_of(entry):
            return entry
    known = ", ".join(entry["run_id"] for entry in entries[:5])
    raise UserError(f"no run was sent to {text!r} from here (runs on pods: {known})")


def names_of(entry):
    """Return what an entry is known by: its run, its pod, and its address in two forms."""
    address = f"{entry['host']}:{entry['port']}"
    return {entry["run_id"], entry["pod_id"], address, f"{entry['user']}@{address}"} - {None}


def hours_since(stamp, until=None):
    """Return the hours from one ISO stamp to another, by default to now."""
    now = datetime.datetime.fromisoformat(until) if until else datetime.datetime.now(datetime.UTC)
    return max((now - datetime.datetime.fromisoformat(stamp)) / datetime.timedelta(hours=1), 0.0)
