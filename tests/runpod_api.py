"""RunPod's REST API as documented, on localhost: pods that can be listed, stopped and deleted."""

import contextlib
import http.server
import json
import threading

OWN_KEY = "rpa_" + "KLMNOPQRST9876543210" * 2  # of the account; the shape of RunPod's


class FakeRunPod:
    """The API of one account.

    Attributes
    ----------
    pods : dict of str to dict
        By id; documented fields.
    calls : list of str
        "POST /v1/pods/ID/stop" and so on.
    refusing : dict of str to int
        Answer calls that end so with this status.
    on_stop : callable
        Told of the id of a pod that stops.
    """

    def __init__(self, keys):
        self.keys, self.pods, self.calls, self.refusing = set(keys), {}, [], {}
        self.on_stop = lambda pod_id: None

    def add(self, pod_id, *, host="127.0.0.1", port=None, price=0.69, status="RUNNING"):
        self.pods[pod_id] = {
            "id": pod_id,
            "name": f"pod of {pod_id}",
            "image": "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404",
            "desiredStatus": status,
            "costPerHr": price,
            "adjustedCostPerHr": price,
            "publicIp": host,
            "portMappings": {"22": port} if port else None,
            "ports": ["8888/http", "22/tcp"],
            "lastStartedAt": "2026-11-20T10:00:00.000Z",
            "volumeMountPath": "/workspace",
            "interruptible": False,
        }

    def answer(self, method, path, key):
        """Return (status, content) of a call."""
        self.calls.append(f"{method} {path}")
        if key not in self.keys:
            return 401, {"error": "unauthorized"}
        for end, status in self.refusing.items():
            if path.endswith(end):
                return status, {"error": "try again"}
        words = path.removeprefix("/v1/").split("/")
        if words == ["pods"]:
            return 200, list(self.pods.values())
        pod = self.pods.get(words[1])
        if pod is None:
            return 404, {"error": "pod not found"}
        if method == "POST" and words[2:] == ["stop"]:
            pod["desiredStatus"] = "EXITED"
            self.on_stop(pod["id"])
            return 200, pod
        if method == "DELETE":
            del self.pods[words[1]]
            return 204, None
        return 200, pod


@contextlib.contextmanager
def serve(api):
    """Serve an API; yield its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.headers.get("User-Agent", "").startswith("Python-urllib"):  # as the door-keeper before RunPod does
                self.send_error(403, "Forbidden")
                return
            key = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            status, content = api.answer(self.command, self.path, key)
            body = b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
