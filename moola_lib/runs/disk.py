"""`moola gc`: what old runs cost on disk, and checkpoints that nobody will need again."""

import datetime
import shutil
import sys
from dataclasses import dataclass

from moola_lib.errors import UserError
from moola_lib.files import lock_folder
from moola_lib.runs.models import list_cards
from moola_lib.runs.project import reports_folder
from moola_lib.runs.record import list_runs

CHECKPOINTS = "checkpoints*"  # folders of a notebook's artifacts


@dataclass(frozen=True)
class Cost:
    """What a run costs on disk, in bytes, and why its checkpoints stay (empty: a rule may take them)."""

    run_id: str
    status: str
    started_at: str
    checkpoints: int
    artifacts: int
    reports: int
    kept_because: str = ""

    @property
    def total(self):
        """Bytes in all; `artifacts` are those beside the checkpoints."""
        return self.checkpoints + self.artifacts + self.reports


def list_costs(root):
    """Return what every run costs, newest first; what has no record (`manual`, `backups`) comes last.

    Raises
    ------
    UserError
        The card of a named model is damaged: which run it needs is not known.
    """
    records, _ = list_runs(root)
    needed = _promoted_runs(root)
    costs = []
    for record in records:
        run_id = record["run_id"]
        reason = "it runs" if record["status"] == "running" else needed.get(run_id, "")
        costs.append(_cost(root, run_id, record["status"], record["started_at"], reason))
    known = {record["run_id"] for record in records}
    others = sorted(p.name for p in (root / "data" / "artifacts").glob("*") if p.is_dir() and p.name not in known)
    return costs + [_cost(root, name, "–", "", "it has no record of a run") for name in others]


def choose_runs(costs, *, keep=None, older_than_days=None, now=None):
    """Return the runs whose checkpoints a rule takes.

    Parameters
    ----------
    costs : list of Cost
        Newest first, from `list_costs`.
    keep : int, optional
        The newest so many runs stay, whatever their age.
    older_than_days : float, optional
        Only runs that began longer ago go. With both, a run must meet both.
    now : datetime, optional
        Default the current time.

    Returns
    -------
    list of Cost
        Empty where no rule is given.
    """
    if keep is None and older_than_days is None:
        return []
    now = now or datetime.datetime.now(datetime.UTC)
    chosen = []
    for place, cost in enumerate(cost for cost in costs if cost.started_at):
        age = (now - datetime.datetime.fromisoformat(cost.started_at)) / datetime.timedelta(days=1)
        is_old = older_than_days is None or age > older_than_days
        if place >= (keep or 0) and is_old and cost.checkpoints and not cost.kept_because:
            chosen.append(cost)
    return chosen


def remove_checkpoints(root, run_id):
    """Remove a run's checkpoints, models of its folds among them; return the bytes freed.

    Raises
    ------
    UserError
        Another process has the run.
    """
    with lock_folder(reports_folder(root, run_id)):
        folders = _checkpoint_folders(root, run_id)
        freed = sum(map(_size, folders))
        for folder in folders:
            shutil.rmtree(folder)
    return freed


def collect(root, *, keep=None, older_than=None, is_dry=False, is_sure=False):
    """Say what runs cost, and remove the checkpoints of those that the rule takes, after asking.

    Parameters
    ----------
    root : Path
    keep : int, optional
        The newest runs to leave alone.
    older_than : float, optional
        Days; newer runs are left alone. Without either nothing is removed.
    is_dry : bool
        Only say what would go.
    is_sure : bool
        Do not ask.

    Returns
    -------
    int
        0, the exit code.
    """
    costs = list_costs(root)
    print_costs(costs)
    print(f"{say_bytes(sum(cost.total for cost in costs))} in all")
    chosen = choose_runs(costs, keep=keep, older_than_days=older_than)
    if keep is None and older_than is None:
        print("give --keep N or --older-than DAYS to remove checkpoints of old runs")
        return 0
    size = say_bytes(sum(cost.checkpoints for cost in chosen))
    names = ", ".join(cost.run_id for cost in chosen) or "no run"
    print(f"{'would remove' if is_dry else 'to remove'}: checkpoints of {names} ({size})")
    if is_dry or not chosen:
        return 0
    if not is_sure:
        print("They cannot be promoted or resumed afterwards. Remove? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing removed")
            return 0
    print(f"freed {say_bytes(sum(remove_checkpoints(root, cost.run_id) for cost in chosen))}")
    return 0


def print_costs(costs, stream=None):
    """Print what runs cost.

    Parameters
    ----------
    costs : list of Cost
    stream : text stream, optional
        Default standard output.
    """
    from rich.table import Table
    from rich.text import Text

    from moola_lib.runs.terminal import open_console

    table = Table(header_style="bold")
    for name in ("run", "status", "started", "checkpoints", "artifacts", "reports", "checkpoints stay because"):
        table.add_column(name, justify="right" if name in ("checkpoints", "artifacts", "reports") else "left")
    for cost in costs:
        sizes = [say_bytes(size) for size in (cost.checkpoints, cost.artifacts, cost.reports)]
        cells = [cost.run_id, cost.status, cost.started_at[:10], *sizes, cost.kept_because]
        table.add_row(*map(Text, cells))
    open_console(stream).print(table)


def say_bytes(size):
    """Return bytes as text: "0 B", "1.5 MB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _promoted_runs(root):
    """Return the reason by run that a named model came from, or was built on."""
    cards, damaged = list_cards(root)
    if damaged:
        raise UserError(f"{damaged[0]}; which run it needs is not known, so nothing is removed")
    found = {}
    for name, card in cards.items():
        steps = [step.get("run_id") for step in card["notes"].get("lineage") or []]
        for run_id in {card["notes"].get("run_id"), *steps}:
            found[run_id] = f"model {name} came from it"
    return found


def _cost(root, run_id, status, started_at, reason):
    artifacts = root / "data" / "artifacts" / run_id
    checkpoints = sum(map(_size, _checkpoint_folders(root, run_id)))
    sizes = checkpoints, _size(artifacts) - checkpoints, _size(reports_folder(root, run_id))
    return Cost(run_id, status, started_at, *sizes, reason)


def _checkpoint_folders(root, run_id):
    return sorted(path for path in (root / "data" / "artifacts" / run_id).glob(f"*/{CHECKPOINTS}") if path.is_dir())


def _size(folder):
    """Return the bytes of the files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
