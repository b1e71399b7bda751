"""What a sweep shows while it runs: progress in the terminal, its report and the index on disk."""

import sys
import time

from moola_lib.errors import UserError
from moola_lib.runs.index import build_index
from moola_lib.runs.notebook import format_seconds
from moola_lib.runs.record import read_run
from moola_lib.runs.sweeps.ledger import FAILED, FINISHED, INTERRUPTED, N_TRIES, RUNNING, WAITING
from moola_lib.runs.sweeps.results import count_statuses, say_arm
from moola_lib.runs.terminal import open_console, say_count

SECONDS_BETWEEN_PAGES = 10.0  # of the report and of the index
MOST_SHARE_OF_TIME = 0.05  # of a sweep of many runs pages are written less often
SECONDS_BETWEEN_LOOKS = 1.0  # at the records of runs at work
N_AT_WORK = 12  # runs that are shown
BAR_LETTERS = 60


class SweepDisplay:
    """Show `run_sweep`'s events; pass `display.show` as its `on_event`.

    On a terminal a live block tells how many runs have ended and which cell each
    run at work is in. Elsewhere a line for each run that ended. Report and index
    are written again as runs end, every ten seconds at most.
    """

    def __init__(self, root, sweep, stream=None):
        self._root, self._sweep = root, sweep
        self.console = open_console(stream)
        self._told, self._looked_at, self._due = {}, 0.0, 0.0
        self._state, self._at_work, self._began, self._live = None, [], time.monotonic(), None

    def __enter__(self):
        """Start the live block, on a terminal."""
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(self, console=self.console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exception):
        """Leave the terminal as it was."""
        self._state = None
        if self._live:
            self._live.stop()

    def __rich__(self):
        """Return the live block: a bar, the counts, and the runs at work."""
        from rich.text import Text

        if self._state is None:
            return Text("")
        counts, total = count_statuses(self._state), len(self._state["runs"])
        ended = counts[FINISHED] + counts[FAILED]
        line = f"{self._sweep.name}  {ended}/{total} runs  {format_seconds(time.monotonic() - self._began)}"
        failed = f"  {counts[FAILED]} failed" if counts[FAILED] else ""
        n_filled = round(BAR_LETTERS * ended / max(total, 1))
        block = Text.assemble((line, "bold"), (failed, "bold red"), "\n")
        block.append("━" * n_filled, "green").append("━" * (BAR_LETTERS - n_filled), "dim")
        return block.append("".join(f"\n  {text}" for text in self._at_work), "dim")

    def show(self, kind, state):
        """Show one event of `run_sweep`."""
        self._state = state
        if kind == "opened":
            counts = count_statuses(state)
            what = say_count(len(state["runs"]), "run")
            if self._sweep.search:
                what = f"a search over {', '.join(self._sweep.search)}, {what} so far"
            done = f", {counts[FINISHED]} finished before" if counts[FINISHED] else ""
            self._print(f"{self._sweep.name} of {self._sweep.stem}: {what}{done}")
            if state["dashboard"]:
                self._print(f"dashboard: {state['dashboard']}")
            self._told = {run_id: self._facts(entry) for run_id, entry in state["runs"].items()}
            self._write_pages(state)
        elif kind == "ended":
            self._tell_changes(state)
            if time.monotonic() > self._due:
                self._write_pages(state)
        elif kind == "stopping":
            self._print("stopping: runs at work save what they have")
        elif self._live and time.monotonic() - self._looked_at > SECONDS_BETWEEN_LOOKS:
            self._look_at_runs(state)

    def close(self, state):
        """Write the pages, say how it ended, and return the exit code."""
        page = self._write_pages(state)
        counts = count_statuses(state)
        parts = [f"{counts[status]} {status}" for status in (FINISHED, FAILED, INTERRUPTED, WAITING) if counts[status]]
        self._print(f"{self._sweep.name}: {', '.join(parts) or 'no runs'}")
        self._print(str(page))
        left = counts[INTERRUPTED] + counts[WAITING]
        if state["status"] != FINISHED:
            reason = "interrupted" if state["status"] == INTERRUPTED else "the bound is reached"
            rest = f", {say_count(left, 'run')} left" if left else ""
            print(f"moola: {reason}{rest}; run the same command again to go on", file=sys.stderr)
        if counts[FAILED]:
            print(
                f"moola: {say_count(counts[FAILED], 'run')} failed {N_TRIES} times; the report says why, "
                "--retry-failed tries again",
                file=sys.stderr,
            )
        return 130 if state["status"] == INTERRUPTED else 1 if counts[FAILED] else 0

    def _tell_changes(self, state):
        """Print a line for each run that has ended or is to be tried again."""
        for run_id, entry in state["runs"].items():
            facts = self._facts(entry)
            if facts == self._told.get(run_id):
                continue
            self._told[run_id] = facts
            what = f"{run_id}  {say_arm(entry['arm'])}, seed {entry['seed']}"
            if entry["status"] == FINISHED:
                lost = f", {say_count(entry['n_lost'], 'worker')} lost" if entry["n_lost"] else ""
                self._print(f"✓ {what}  {format_seconds(entry['seconds'])}{lost}", "green")
            elif entry["status"] == FAILED:
                self._print(f"✗ {what}  failed: {entry['reason']}", "bold red")
            elif entry["n_tries"]:
                self._print(f"  {what}  try {entry['n_tries']} of {N_TRIES} failed: {entry['reason']}", "yellow")

    @staticmethod
    def _facts(entry):
        """Return what of a run is worth a line when it changes."""
        return entry["n_tries"], entry["status"] in (FINISHED, FAILED)

    def _look_at_runs(self, state):
        """Read how far the runs at work are."""
        self._looked_at, self._at_work = time.monotonic(), []
        at_work = [run_id for run_id, entry in state["runs"].items() if entry["status"] == RUNNING]
        for run_id in at_work[:N_AT_WORK]:
            try:
                entry = read_run(self._root, run_id)["notebooks"][self._sweep.stem]
                place = f"cell {entry['cell']}/{entry['n_cells']}" if entry.get("cell") else "starting"
            except (UserError, KeyError):
                place = "starting"
            self._at_work.append(f"{run_id}  {say_arm(state['runs'][run_id]['arm'])}  {place}")

    def _write_pages(self, state):
        """Write the report and the index; return the report's path."""
        from moola_lib.runs.sweeps.report import write_report

        began = time.monotonic()
        page = write_report(self._root, state)
        build_index(self._root)
        ended = time.monotonic()
        self._due = ended + max(SECONDS_BETWEEN_PAGES, (ended - began) / MOST_SHARE_OF_TIME)
        return page

    def _print(self, text, style=None):
        self.console.print(text, style=style, markup=False, soft_wrap=True)
