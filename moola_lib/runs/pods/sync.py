"""Files to a pod and back: rsync, or tar over ssh where it is missing; a copy counts once its SHA-256 agrees."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.runs.pods import seals
from moola_lib.runs.pods.ssh import MARK, ConnectionLost

NOT_SENT = ("tests", "reports", "benchmarks")  # beside what git ignores
SENT_WITHOUT_GIT = ("moola_lib", "notebooks", "params", "pyproject.toml", "constraints.txt")
RSYNC_TIMEOUT = 30  # seconds without a byte; without it the far end lingers after a broken line
RSYNC_LOST = (10, 12, 20, 30, 35, 255)
N_ROUNDS = 3
NO_SPACE = "No space left on device"
# Messages are read, so they come in one language; and tar on a Mac adds no files of its own.
ENVIRONMENT = {**os.environ, "LC_ALL": "C", "COPYFILE_DISABLE": "1"}
IN_ENGLISH = ["env", "LC_ALL=C"]


def has_rsync_here():
    """Tell whether this machine has rsync 3; a Mac comes with another program of that name."""
    with contextlib.suppress(OSError):
        said = subprocess.run(["rsync", "--version"], capture_output=True, text=True).stdout
        return said.startswith("rsync  version 3")
    return False


def list_code(root):
    """Return the names of the files that a run needs, below `root`: what git has or would take, without tests."""
    words = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, capture_output=True, text=True)
    if listed.returncode == 0 and (root / ".git").exists():
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        paths = [path for name in SENT_WITHOUT_GIT for path in [root / name, *(root / name).rglob("*")]]
        names = [path.relative_to(root).as_posix() for path in paths if "__pycache__" not in path.parts]
    names = [name for name in names if name.split("/")[0] not in NOT_SENT and (root / name).is_file()]
    return sorted(set(names))


def send_files(connection, root, names, destination, *, has_rsync):
    """Copy files to the pod and compare them there, by content; repeated, it sends what is missing.

    Parameters
    ----------
    connection : Connection
    root : Path
        Of the names.
    names : list of str
    destination : str
        A folder on the pod; it is made.
    has_rsync : bool
        As the preflight found.

    Returns
    -------
    int
        Bytes, of all files.

    Raises
    ------
    ConnectionLost
        On the way.
    UserError
        The pod's disk is full, or a file arrives as another each time.
    """
    manifest = {name: seals.describe(root / name) for name in names}
    _on_pod(connection, ["mkdir", "-p", destination])
    wrong = _differing(connection, manifest, destination)
    for number in range(N_ROUNDS):
        if not wrong:
            return sum(n_bytes for n_bytes, _ in manifest.values())
        if has_rsync:
            _rsync(connection, [f"{root}/"], f"{connection.place}:{destination}/", wrong, is_by_content=number > 0)
        else:
            _send_tar(connection, root, wrong, destination)
        wrong = _differing(connection, manifest, destination)
    raise UserError(f"{wrong[0]} arrives on the pod as another file each time; look at the disks on both sides")


def fetch_files(connection, source, manifest, folder, *, has_rsync):
    """Copy files from the pod and compare them here, by content; repeated, it takes what is missing.

    Parameters
    ----------
    connection : Connection
    source : str
        A folder on the pod.
    manifest : dict of str to [int, str]
        Of the names below it, from `seals.seal`.
    folder : Path
        Takes them; what else lies there is removed.

    Raises
    ------
    ConnectionLost
        On the way; what arrived stays.
    UserError
        The disk is full, a name leads elsewhere, or a file is another each time.
    """
    for name in manifest:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"the pod offers a file {name!r}, which leads out of the project; nothing was taken")
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(folder, manifest)
    wrong = seals.find_differences(folder, manifest)
    for number in range(N_ROUNDS):
        if not wrong:
            break
        if has_rsync:
            _rsync(connection, [f"{connection.place}:{source}/"], f"{folder}/", wrong, is_by_content=number > 0)
        else:
            _fetch_tar(connection, source, wrong, folder)
        wrong = seals.find_differences(folder, manifest)
    if wrong:
        raise UserError(f"{wrong[0]} arrives from the pod as another file than was sealed there; keep the pod and look")
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in manifest:
            path.unlink()


def _check_room(folder, manifest):
    needed, free = sum(n_bytes for n_bytes, _ in manifest.values()), shutil.disk_usage(folder).free
    have = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if needed - have > free:
        raise UserError(f"{folder} has {free / 1e9:.2f} GB free and the results are {needed / 1e9:.2f} GB; make room")


def _differing(connection, manifest, destination):
    """Return the names whose file on the pod is missing or another."""
    lines = "".join(f"{digest}  {name}\n" for name, (_, digest) in manifest.items())
    script = 'cd "$1" && LC_ALL=C sha256sum --check --quiet - 2>/dev/null'
    answer = connection.run(["sh", "-c", script, "sh", destination], send=lines)
    ends = ": FAILED", ": FAILED open or read"
    failed = {line.removesuffix(end) for line in answer.stdout.splitlines() for end in ends if line.endswith(end)}
    if answer.returncode and not failed:
        raise UserError(f"the pod cannot compare files ({answer.stdout.strip()[-200:] or 'sha256sum is missing'})")
    return [name for name in manifest if name in failed]


def _rsync(connection, sources, destination, names, *, is_by_content):
    """Copy names below a folder; what a broken line leaves is taken up again."""
    words = ["rsync", "-lt", "--partial-dir=.rsync-partial", f"--timeout={RSYNC_TIMEOUT}", "--from0", "--files-from=-"]
    words += ["--checksum"] if is_by_content else []
    words += ["-e", connection.remote_shell, *sources, destination]
    done = subprocess.run(words, input="\0".join(names).encode(), capture_output=True, env=ENVIRONMENT)
    stderr = done.stderr.decode(errors="replace")
    if NO_SPACE in stderr:
        raise UserError(f"no space is left for {destination}")
    if done.returncode == 255 and "IDENTIFICATION" in stderr:
        raise connection.explain(stderr)
    if done.returncode in RSYNC_LOST:
        raise ConnectionLost(f"the connection to {connection.host} broke while files were copied")
    if done.returncode:
        raise UserError(f"rsync failed ({done.returncode}): {' '.join(stderr.split())[-300:]}")


def _send_tar(connection, root, names, destination):
    packing = subprocess.Popen(
        ["tar", "-C", root, "--null", "-T", "-", "-cf", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip
    unpacking = connection.open(
        [*IN_ENGLISH, "tar", "-C", destination, "-xf", "-"],
        stdin=packing.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    packing.stdout.close()
    _feed(packing, names)
    stderr = unpacking.communicate()[1].decode(errors="replace")
    packing.wait()
    _judge_tar(connection, unpacking.returncode, stderr, destination)


def _fetch_tar(connection, source, names, folder):
    packing = connection.open(
        [*IN_ENGLISH, "tar", "-C", source, "--null", "-T", "-", "-cf", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    _feed(packing, names)
    while (line := packing.stdout.readline()) and line != f"{MARK}\n".encode():
        pass  # what the pod's start-up files print
    words = ["tar", "-C", folder, "-xf", "-"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as unpacking:
        with contextlib.suppress(BrokenPipeError):  # it says why it ended
            shutil.copyfileobj(packing.stdout, unpacking.stdin)
        said = unpacking.communicate()[1].decode(errors="replace")
    stderr = packing.communicate()[1].decode(errors="replace")
    _judge_tar(connection, packing.returncode, stderr + said, folder)


def _feed(process, names):
    """Write the names; a process that is gone already says why itself."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("\0".join(names).encode())
        process.stdin.close()
    process.stdin = None


def _judge_tar(connection, returncode, stderr, destination):
    if NO_SPACE in stderr:
        raise UserError(f"no space is left for {destination}")
    if returncode == 255:
        raise connection.explain(stderr)
    if returncode:
        raise UserError(f"tar failed ({returncode}): {' '.join(stderr.split())[-300:]}")


def _on_pod(connection, words):
    answer = connection.run(words)
    if answer.returncode:
        raise UserError(f"the pod refused `{words[0]}`: {' '.join(answer.stderr.split())[-300:]}")
