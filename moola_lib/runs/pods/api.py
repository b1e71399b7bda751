"""RunPod's REST API: what a pod is, costs and does; the key comes from the environment and goes nowhere else."""

import json
import os
import urllib.error
import urllib.request

from moola_lib.errors import UserError
from moola_lib.runs.pods import AGENT, API_URL

URL, KEY = "RUNPOD_API_URL", "RUNPOD_API_KEY"
SSH_PORT = "22"


def has_key():
    """Tell whether the environment holds a key."""
    return bool(os.environ.get(KEY))


def get_pod(pod_id):
    """Return a pod: `id`, `name`, `desiredStatus`, `publicIp`, `portMappings`, `costPerHr`, `lastStartedAt`, ….

    Raises
    ------
    UserError
        There is no such pod or no key, or the API does not answer.
    """
    return _ask("GET", f"/pods/{pod_id}")


def list_pods():
    """Return all pods of the account."""
    return _ask("GET", "/pods")


def stop_pod(pod_id):
    """Stop a pod: its GPU is given back, its volume stays and costs a little."""
    _ask("POST", f"/pods/{pod_id}/stop")


def delete_pod(pod_id):
    """Delete a pod with its volume; what lies on a network volume stays."""
    _ask("DELETE", f"/pods/{pod_id}")


def price_of(pod):
    """Return a pod's price an hour in dollars, or None; savings plans included where they are said."""
    for key in ("adjustedCostPerHr", "costPerHr"):
        try:
            price = float(pod.get(key) or 0)
        except (TypeError, ValueError):
            continue
        if price > 0:
            return price
    return None


def ssh_address(pod):
    """Return (host, port) of a pod's SSH over TCP; None while it has none."""
    port = (pod.get("portMappings") or {}).get(SSH_PORT)
    return (pod["publicIp"], int(port)) if pod.get("publicIp") and port else None


def _ask(method, path):
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise UserError(f"RunPod's API needs a key in the environment variable {KEY} (console, Settings, API keys)")
    request = urllib.request.Request(os.environ.get(URL, API_URL) + path, method=method)
    request.add_header("Authorization", f"Bearer {key}")
    request.add_header("User-Agent", AGENT)
    pod = path.split("/")[2] if path.count("/") > 1 else ""
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            said = error.read(200).decode(errors="replace")
            if said.startswith("error code:"):  # of the door-keeper before the API
                raise UserError(f"RunPod's API turned the request away ({' '.join(said.split())})") from None
            raise UserError(f"RunPod's API does not accept the key in {KEY} for this") from None
        if error.code == 404 and pod:
            raise UserError(f"this account has no pod {pod}") from None
        raise UserError(f"RunPod's API refused {method} {path} ({error.code} {error.reason})") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", type(error).__name__)  # its text may hold the key
        raise UserError(f"RunPod's API did not answer {method} {path} ({reason})") from None
