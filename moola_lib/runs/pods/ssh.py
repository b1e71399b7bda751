"""The one place that runs ssh: how a pod is reached, and what its silence means."""

import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from moola_lib.errors import UserError

# What comes before it was printed by the pod's own start-up files.
MARK = "::moola::"
PATIENCE_SECONDS = 600.0
LONGEST_PAUSE_SECONDS = 15.0


class ConnectionLost(UserError):
    """The pod does not answer, or stopped to: worth another attempt."""


@dataclass(frozen=True)
class Answer:
    """What a command on the pod gave; `noise` is what its start-up files printed before."""

    returncode: int
    stdout: str
    stderr: str
    noise: str


@dataclass(frozen=True)
class Connection:
    """A pod, and the keys on both sides.

    Attributes
    ----------
    host, user, alias : str
        `alias` is the name its host key is kept under.
    port : int
    known_hosts : Path
        The project's own: the user's file stays as it is.
    identity : str or None
        Path of a private key; None leaves it to ssh.
    """

    host: str
    port: int
    user: str
    alias: str
    known_hosts: Path
    identity: str | None = None

    @property
    def options(self):
        """The words between `ssh` and the host."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": 15,
            "ServerAliveInterval": 3,  # a dead line is noticed after 9 s
            "ServerAliveCountMax": 2,
            "HostKeyAlias": self.alias,
            "UserKnownHostsFile": f'"{self.known_hosts}"',
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "accept-new",
            "CheckHostIP": "no",
            "UpdateHostKeys": "no",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "LogLevel": "ERROR",
        }
        if self.identity:
            options["IdentitiesOnly"] = "yes"
        words = ["-p", str(self.port), "-T"]
        words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return words + (["-i", self.identity] if self.identity else [])

    @property
    def remote_shell(self):
        """The `-e` of rsync."""
        return shlex.join(["ssh", *self.options])

    @property
    def place(self):
        """USER@HOST, an IPv6 address in the brackets that rsync wants."""
        return f"{self.user}@[{self.host}]" if ":" in self.host else f"{self.user}@{self.host}"

    def open(self, words, **streams):
        """Start a command on the pod; what its start-up files print comes first, then a line that is `MARK`."""
        command = f"printf '\\n%s\\n' {shlex.quote(MARK)}; exec {shlex.join(map(str, words))}"
        place = f"{self.user}@{self.host}"
        return subprocess.Popen(["ssh", *self.options, place, command], **streams)

    def run(self, words, *, send="", timeout=None):
        """Run a command on the pod to its end.

        Parameters
        ----------
        words : list
            The command; it is quoted, so that no shell reads it.
        send : str
            For its standard input.
        timeout : float, optional
            Seconds.

        Returns
        -------
        Answer

        Raises
        ------
        ConnectionLost
            The pod does not answer, or not to the end.
        UserError
            It answers and is not to be trusted, or refuses the key.
        """
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with self.open(words, **pipes) as process:
            try:
                stdout, stderr = process.communicate(send.encode(), timeout)
            except BaseException as error:
                process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise ConnectionLost(f"{self.host}:{self.port} did not answer within {timeout:g} s") from error
                raise
        stderr = stderr.decode(errors="replace")
        if process.returncode == 255:
            raise self.explain(stderr)
        noise, _, text = stdout.decode(errors="replace").partition(f"\n{MARK}\n")
        return Answer(process.returncode, text, stderr, noise.strip())

    def explain(self, stderr):
        """Return ssh's failure as an error: exit code 255 stands for every one of them."""
        where = f"{self.host}:{self.port}"
        if "HOST IDENTIFICATION HAS CHANGED" in stderr or "Host key verification failed" in stderr:
            forget = shlex.join(["ssh-keygen", "-f", str(self.known_hosts), "-R", self.alias])
            return UserError(
                f"{where} shows another host key than before, so nothing was sent: the pod was created anew or "
                "restarted (a new key each time), its address now belongs to another pod, or somebody stands in "
                f"between; if RunPod's console says that it is yours, forget the old key with `{forget}` and try again"
            )
        if "Permission denied" in stderr or "Too many authentication failures" in stderr:
            key = f"the key {self.identity}" if self.identity else "your ssh keys"
            return UserError(
                f"{where} accepts none of {key} for {self.user}; add the public one to RunPod's settings before the "
                "pod starts, or give another with --identity"
            )
        if "UNPROTECTED PRIVATE KEY" in stderr or "no such identity" in stderr.lower():
            return UserError(f"the key {self.identity} cannot be used: {_last_line(stderr)}")
        return ConnectionLost(f"{where} does not answer ({_last_line(stderr) or 'the connection closed'})")


def insist(action, *, say, patience=None):
    """Repeat an action that may be repeated until the line holds.

    Parameters
    ----------
    action : callable
    say : callable
        Told once that the line is gone.
    patience : float, optional
        Seconds; default `PATIENCE_SECONDS`.

    Raises
    ------
    ConnectionLost
        Not even then.
    """
    deadline = time.monotonic() + (PATIENCE_SECONDS if patience is None else patience)
    pause, is_said = 0.5, False
    while True:
        try:
            return action()
        except ConnectionLost as error:
            if time.monotonic() + pause > deadline:
                raise
            if not is_said:
                say(f"{error}; trying again")
            is_said = True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
