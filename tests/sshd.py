"""A pod on this machine: an sshd in a PID namespace of its own, with throw-away keys, a home and a volume."""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

POD_ID = "abcdef123456xy"
KEY = "rpa_" + "ABCDEFGHIJ0123456789" * 2  # of the pod; the shape of RunPod's
FAKE_TORCH = """__version__ = "2.8.0+cu128"
class cuda:
    def device_count():
        import os
        return int(os.environ.get("FAKE_GPUS", "1"))
"""
CONFIG = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
LogLevel ERROR
SetEnv {environment}
"""


def require():
    """Skip where a pod cannot be played on this machine; fail where CI lacks a program that it should have."""
    missing = [name for name in ("ssh", "rsync", "unshare", "ssh-keygen") if not shutil.which(name)]
    missing += [] if _sshd() else ["sshd"]
    if missing:
        reason = f"{', '.join(missing)} missing"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    if os.geteuid() != 0 or subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("a pod is a namespace of its own, which this user may not make")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LocalPod:
    """A pod that is started, killed with everything on it, and started again on the same volume.

    Parameters
    ----------
    folder : Path
    api_url : str, optional
        Of the RunPod API that its watchdog talks to.
    **environment
        Further variables of a login over SSH.
    """

    def __init__(self, folder, *, api_url=None, pod_id=POD_ID, **environment):
        self.folder, self.port, self.process = folder, free_port(), None
        self.home, self.volume = folder / "home", folder / "workspace"
        self.temporary = folder / "tmp"
        for each in (self.home, self.volume, folder / "fake" / "torch"):
            each.mkdir(parents=True)
        (folder / "fake" / "torch" / "__init__.py").write_text(FAKE_TORCH)
        info = folder / "fake" / "torch-2.8.0+cu128.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.8.0+cu128\n")
        self.login = {
            "HOME": self.home,
            "TMPDIR": self.temporary,
            "MOOLA_POD_FOLDER": self.volume,
            "PYTHONPATH": folder / "fake",
            "PATH": os.environ["PATH"],
            **environment,
        }
        # Of the container's first process only, as on RunPod.
        self.container = {"PATH": str(self.login["PATH"]), "TMPDIR": str(self.temporary), "RUNPOD_API_KEY": KEY}
        self.container |= {"RUNPOD_POD_ID": pod_id} if pod_id else {}
        self.container |= {"RUNPOD_API_URL": api_url} if api_url else {}
        self.identity = folder / "key"
        self.make_key("key")
        self.make_key("host_key")

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def make_key(self, name):
        for path in (self.folder / name, self.folder / f"{name}.pub"):
            path.unlink(missing_ok=True)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
        subprocess.run(words, check=True)

    def start(self):
        shutil.rmtree(self.temporary, ignore_errors=True)  # the container's disk does not survive
        self.temporary.mkdir()
        environment = " ".join(f"{name}={value}" for name, value in self.login.items())
        config = self.folder / "sshd_config"
        config.write_text(CONFIG.format(port=self.port, folder=self.folder, environment=environment))
        Path("/run/sshd").mkdir(exist_ok=True)
        first = f"{_sshd()} -D -e -f {shlex.quote(str(config))} & wait; sleep 600"
        words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", first]
        log = open(self.folder / "sshd.log", "ab")  # noqa: SIM115 (the process's)
        self.process = subprocess.Popen(words, env=self.container, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.02)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def kill(self):
        """Kill the pod and everything on it, as RunPod does."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def shell(self, script):
        """Run a script on the pod; return what it prints."""
        words = ["ssh", "-p", str(self.port), "-i", str(self.identity), "-o", "StrictHostKeyChecking=no"]
        words += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "127.0.0.1", script]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    def is_up(self):
        return self.process is not None and self.process.poll() is None


def _sshd():
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
