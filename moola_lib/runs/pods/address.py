"""Where a pod is: HOST:PORT of its SSH over TCP, or its id."""

import re
from dataclasses import dataclass

from moola_lib.errors import UserError

ADVICE = "give HOST:PORT (RunPod's Connect tab, SSH over exposed TCP), as 203.0.113.7:22017, or a pod's id"
_POD_ID = re.compile(r"[a-z0-9]{8,24}")
_HOST = re.compile(r"(?:(?P<user>[A-Za-z_][\w.-]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?P<port>\d{1,5})")
_COMMAND = re.compile(r"(?:ssh\s+)?(?P<place>[\w.-]+@[\w.-]+)\s+-p\s*(?P<port>\d+)(?:\s+-i\s+\S+)?")


@dataclass(frozen=True)
class Target:
    """A pod as the user names it: an address, or an id whose address is asked for; `user` is who logs in."""

    host: str | None = None
    port: int | None = None
    user: str = "root"
    pod_id: str | None = None

    @property
    def alias(self):
        """The name its host key is kept under: the pod's, for an address is another pod's tomorrow."""
        return f"moola/runpod-{self.pod_id}" if self.pod_id else f"moola/{self.host}-{self.port}"


def parse_target(text):
    """Read HOST:PORT, USER@HOST:PORT, the ssh command that RunPod shows, or a pod's id.

    Raises
    ------
    UserError
        It is none of them, or the address of RunPod's proxy, through which no
        file can be sent.
    """
    text = text.strip()
    if "ssh.runpod.io" in text:
        raise UserError(
            "ssh.runpod.io is RunPod's proxy, which takes no files; use the pod's own address instead: open TCP port "
            f"22 of the pod, then {ADVICE}"
        )
    if match := _COMMAND.fullmatch(text):
        text = f"{match['place']}:{match['port']}"
    if match := _HOST.fullmatch(text):
        port = int(match["port"])
        if not 0 < port < 65536:
            raise UserError(f"{text}: {port} is no port; {ADVICE}")
        return Target(match["host"].strip("[]"), port, match["user"] or "root")
    if _POD_ID.fullmatch(text):
        return Target(pod_id=text)
    raise UserError(f"{text!r} is neither an address with a port nor a pod's id; {ADVICE}")
