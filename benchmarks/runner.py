"""Measure pairs, compute figures, print the table, say which goals are met."""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

GROUPS = ("features", "market", "training", "skill", "balance", "sweeps")
MODULES = {"training": ("training", "fits", "live")}  # a group has a module of its name, unless it says otherwise
N_ROUNDS = 7


@dataclass(frozen=True)
class Benchmark:
    """A pair of works, ours and a reference.

    Attributes
    ----------
    name : str
    goal : str
        "≤ 2.5": our time over the reference's is at most that. "≥ 5": the
        reference's time over ours is at least that.
    prepare : callable
        Returns (ours, reference); each does its work once and returns how many
        units it did. Times are compared per unit, so the slower of the two may
        do a slice. The first call of each is not timed.
    clock : callable
        CPU time of this process, unless work is done in other processes too.
    missing : callable
        Returns what this machine lacks for the benchmark, or "".
    n_rounds : int
        Pairs measured, of whose ratios the median counts.
    """

    name: str
    goal: str
    prepare: Callable
    clock: Callable = time.process_time
    missing: Callable = lambda: ""
    n_rounds: int = N_ROUNDS

    def is_met(self, ratio):
        """Tell whether a ratio meets the goal."""
        return meets(ratio, self.goal)

    def ratio(self, ours_seconds, reference_seconds):
        """Return the ratio that the goal speaks of."""
        return ours_seconds / reference_seconds if self.goal.startswith("≤") else reference_seconds / ours_seconds


@dataclass(frozen=True)
class Figure:
    """A figure that is computed, not timed; it stands in the table where others have their ratio.

    Attributes
    ----------
    name : str
    goal : str
        "≥ 0.95" or "≤ 0".
    compute : callable
        Returns the figure.
    missing : callable
        As for Benchmark.
    """

    name: str
    goal: str
    compute: Callable
    missing: Callable = lambda: ""

    def is_met(self, figure):
        """Tell whether the figure meets the goal."""
        return meets(figure, self.goal)


def meets(value, goal):
    """Tell whether a value meets a goal such as "≤ 2.5" or "≥ 10,000"."""
    bound = float(goal[1:].replace(",", ""))
    return value <= bound if goal.startswith("≤") else value >= bound


def main(argv=None, load=None):
    """Run the command line; return its exit code.

    Parameters
    ----------
    argv : list of str, optional
    load : callable(str), optional
        Returns the benchmarks of a group.

    Returns
    -------
    int
        0 every goal met (or skipped), 1 a goal missed, 2 bad input.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure against the goals.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)} (default all)")
    parser.add_argument("--json", metavar="FILE", help="write the rows there as well")
    arguments = parser.parse_args(argv)
    unknown = [group for group in arguments.groups if group not in GROUPS]
    if unknown:
        print(f"benchmarks: group {unknown[0]!r} is not known; choose from {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    rows = []
    for group in GROUPS:
        if not arguments.groups or group in arguments.groups:
            rows += [_row(group, benchmark) for benchmark in (load or load_group)(group)]
    _print_table(rows)
    if arguments.json:
        from moola_lib.errors import UserError
        from moola_lib.files import write_json

        try:
            write_json(arguments.json, [{key: row[key] for key in row if key != "reason"} for row in rows])
        except UserError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 2
    return int(any(row["verdict"] == "FAIL" for row in rows))


def load_group(group):
    """Return the benchmarks of a group; a group without a module has none yet."""
    found = []
    for module in MODULES.get(group, (group,)):
        try:
            found += importlib.import_module(f"benchmarks.{module}").BENCHMARKS
        except ModuleNotFoundError as error:
            if error.name != f"benchmarks.{module}":
                raise
    return found


def measure(benchmark, n_rounds=None):
    """Return the median ratio of paired rounds: both works in turn, so that a busy minute slows both."""
    works = benchmark.prepare()
    for work in works:
        work()  # compiles, and fills caches
    ratios = []
    for _ in range(n_rounds or benchmark.n_rounds):
        seconds = []
        for work in works:
            began = benchmark.clock()
            n_units = work()
            seconds.append((benchmark.clock() - began) / n_units)
        ratios.append(benchmark.ratio(*seconds))
    return statistics.median(ratios)


def _row(group, benchmark):
    reason = benchmark.missing()
    row = {"group": group, "name": benchmark.name, "ratio": None, "goal": benchmark.goal}
    if reason:
        return {**row, "verdict": "SKIP", "reason": reason}
    print(f"measuring {group}: {benchmark.name}", file=sys.stderr, flush=True)
    ratio = benchmark.compute() if isinstance(benchmark, Figure) else measure(benchmark)
    return {**row, "ratio": ratio, "verdict": "PASS" if benchmark.is_met(ratio) else "FAIL", "reason": ""}


def _print_table(rows):
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Benchmarks", title_justify="left", title_style="bold", header_style="bold")
    table.add_column("group", no_wrap=True)
    table.add_column("name")
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("goal", justify="right", no_wrap=True)
    table.add_column("verdict")
    colours = {"PASS": "green", "FAIL": "bold red", "SKIP": "yellow"}
    for row in rows:
        verdict = Text(row["verdict"], colours[row["verdict"]])
        if row["reason"]:
            verdict.append(f" ({row['reason']})", style="dim")
        table.add_row(row["group"], Text(row["name"]), _number(row["ratio"]), row["goal"], verdict)
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(table)


def _number(ratio):
    """Return a ratio as text; verdicts compare the unrounded one."""
    if ratio is None:
        return "–"
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.4g}"
