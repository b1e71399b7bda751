"""Before anything is sent: what a pod has, and whether a run can work there."""

import re
from dataclasses import dataclass

from moola_lib.errors import UserError
from moola_lib.runs.pods import sync

LEAST_PYTHON, LEAST_TORCH = (3, 11), (2, 6)
LEAST_FREE_GB = 5.0
IMAGES = "an image as runpod/pytorch:…-cu1281-torch280-ubuntu2404 has both"

# POSIX sh, read from standard input: nothing of it stands in a process list. The container's first process knows what
# a login over SSH does not.
PROBE = r"""
given=$1
of_container() { tr '\0' '\n' < /proc/1/environ 2>/dev/null | sed -n "s/^$1=//p"; }
echo "pod_id=${RUNPOD_POD_ID:-$(of_container RUNPOD_POD_ID)}"
base=${MOOLA_POD_FOLDER:-$(of_container MOOLA_POD_FOLDER)}
if [ -z "$base" ]; then
  if [ -d /workspace ] && [ -w /workspace ]; then base=/workspace/moola; else base=$HOME/moola; fi
fi
mkdir -p "$base" && echo "base=$(cd "$base" && pwd -P)"
echo "is_chosen=${MOOLA_POD_FOLDER:-$(of_container MOOLA_POD_FOLDER)}"
echo "mount=$(df -P "$base" | awk 'NR==2 {print $6}')"
echo "free_kb=$(df -Pk "$base" | awk 'NR==2 {print $4}')"
echo "rsync=$(command -v rsync)"
echo "gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')"
for name in ${given:-python3.13 python3.12 python3.11 python3 python}; do
  path=$(command -v "$name") || continue
  "$path" - <<'END' && break
import sys
facts = [sys.executable, ".".join(map(str, sys.version_info[:3])), "", "0"]
if sys.version_info >= (3, 11):
    try:
        import torch
        facts[2:] = [torch.__version__, str(torch.cuda.device_count())]
    except ImportError:
        pass
print("python=" + "\t".join(facts))
sys.exit(not facts[2])
END
done
exit 0
"""


@dataclass(frozen=True)
class Facts:
    """What a pod has.

    Attributes
    ----------
    base : str
        The folder for everything of ours: on the volume, which survives a stop.
    free_gb : float
    python, python_version, torch_version : str
        The Python to build on; `torch_version` is empty without torch.
    n_gpus : int
        That torch sees.
    has_rsync : bool
        On both sides, and the pod's shell is silent enough for it.
    pod_id : str or None
    noise : str
        What its start-up files print.
    n_gpus_listed : int
        By the driver.
    is_on_volume : bool
        `base` lies on a disk of its own, or where the user wants it; the container's
        is erased when the pod stops.
    """

    base: str
    free_gb: float
    python: str
    python_version: str
    torch_version: str
    n_gpus: int
    has_rsync: bool
    pod_id: str | None
    noise: str
    n_gpus_listed: int = 0
    is_on_volume: bool = True


def probe(connection, python=None):
    """Ask a pod what it has.

    Parameters
    ----------
    connection : Connection
    python : str, optional
        The only Python to look at.

    Raises
    ------
    UserError
        It cannot be reached, or has no folder to write to, or no Python that is
        new enough.
    """
    answer = connection.run(["sh", "-s", "--", python or ""], send=PROBE, timeout=180)
    lines = [line.partition("=")[::2] for line in answer.stdout.splitlines() if "=" in line]
    found = dict(lines)
    if "base" not in found:
        raise UserError(f"the pod has no folder to write to ({answer.stderr.strip()[-200:]})")
    pythons = [value.split("\t") for name, value in lines if name == "python"]
    usable = [each for each in pythons if _numbers(each[1]) >= LEAST_PYTHON]
    if not usable:
        have = ", ".join(each[1] for each in pythons) or "none"
        raise UserError(f"the pod has no Python {_dotted(LEAST_PYTHON)} or newer (it has {have}); {IMAGES}")
    best = max(usable, key=lambda each: (bool(each[2]), _numbers(each[1])))
    return Facts(
        base=found["base"],
        free_gb=float(found.get("free_kb") or 0) * 1024 / 1e9,
        python=best[0],
        python_version=best[1],
        torch_version=best[2],
        n_gpus=int(best[3]),
        has_rsync=bool(found.get("rsync")) and not answer.noise and sync.has_rsync_here(),
        pod_id=found.get("pod_id") or None,
        noise=answer.noise,
        n_gpus_listed=int(found.get("gpus") or 0),
        is_on_volume=bool(found.get("is_chosen")) or found.get("mount") != "/",
    )


def check_facts(facts, wants_gpu, least_free_gb=LEAST_FREE_GB):
    """Refuse a pod on which a run would fail, or train without the GPU that is paid for.

    Parameters
    ----------
    facts : Facts
    wants_gpu : list of str
        The notebooks whose parameters do not say `device: cpu`.
    least_free_gb : float

    Raises
    ------
    UserError
        No torch or an old one, no GPU where the parameters want one, or a full disk.
    """
    if facts.pod_id and not facts.is_on_volume:
        raise UserError(
            f"{facts.base} lies on the pod's container disk, which is erased when the pod stops; start a pod with a "
            "volume at /workspace, or set MOOLA_POD_FOLDER in its environment"
        )
    if not facts.torch_version:
        raise UserError(f"{facts.python} on the pod has no torch, and it is not installed by us; {IMAGES}")
    if _numbers(facts.torch_version) < LEAST_TORCH:
        raise UserError(
            f"the pod's torch is {facts.torch_version} and {_dotted(LEAST_TORCH)} is the oldest that works; {IMAGES}"
        )
    if wants_gpu and not facts.n_gpus:
        why = "its driver does not fit that torch" if facts.n_gpus_listed else "a restarted pod may have none left"
        raise UserError(
            f"torch sees no GPU on the pod, which {', '.join(wants_gpu)} would use ({why}); start another pod, or give "
            "-p device cpu"
        )
    if facts.free_gb < least_free_gb:
        raise UserError(f"{facts.base} on the pod has {facts.free_gb:.2f} GB free and a run wants {least_free_gb:.2f}")


def describe_facts(facts):
    """Return the facts as one line."""
    gpus = f"{facts.n_gpus} GPU{'' if facts.n_gpus == 1 else 's'}" if facts.n_gpus else "no GPU"
    way = "rsync" if facts.has_rsync else "tar over ssh"
    return (
        f"Python {facts.python_version}, torch {facts.torch_version or 'none'}, {gpus}, "
        f"{facts.free_gb:.0f} GB free in {facts.base}, {way}"
    )


def _numbers(version):
    """Return a version's first two numbers: "2.8.0+cu128" gives (2, 8)."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _dotted(numbers):
    return ".".join(map(str, numbers))
