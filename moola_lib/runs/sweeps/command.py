"""`moola sweep`: the command line's part, and what it shows."""

import argparse

from moola_lib.errors import UserError


def add_arguments(commands):
    """Add `moola sweep` to the command line's parsers."""
    sweep = commands.add_parser("sweep", help="run a notebook over a grid of parameters and seeds, or search")
    sweep.add_argument("file", metavar="FILE", help="for example params/sweeps/balance.yaml; the same again goes on")
    sweep.add_argument("--scheduler", metavar="ADDRESS", help="tcp://HOST:PORT of a Dask scheduler (default: here)")
    sweep.add_argument(
        "--workers", type=_count, metavar="N", help="processes here (default one a GPU, else one a core)"
    )
    sweep.add_argument("--max-runs", type=_count, metavar="N", help="begin at most N runs now")
    sweep.add_argument("--max-hours", type=_hours, metavar="H", help="stop after H hours, as Ctrl-C does")
    sweep.add_argument("--trials", type=_count, metavar="N", help="arms of a search, over all its starts")
    sweep.add_argument("--retry-failed", action="store_true", help="try runs again that have failed three times")


def sweep(arguments, models=None):
    """Do what is left of a sweep; return the exit code: 0, 1 where runs have failed, 130 interrupted."""
    from moola_lib.runs.project import find_root
    from moola_lib.runs.sweeps.description import read_sweep
    from moola_lib.runs.sweeps.display import SweepDisplay
    from moola_lib.runs.sweeps.execute import run_sweep
    from moola_lib.runs.terminal import steady_output

    if models is None:
        from moola_lib.runs.parameters import PARAMETERS as models
    if arguments.scheduler and arguments.workers:
        raise UserError("--workers are started here; leave it out with --scheduler, which has its own")
    root = find_root()
    asked = read_sweep(arguments.file, models, root)
    if arguments.trials and not asked.search:
        raise UserError(f"--trials goes with a search, and {arguments.file} has a grid")
    with steady_output():
        with SweepDisplay(root, asked) as display:
            state = run_sweep(
                asked,
                models,
                root=root,
                scheduler=arguments.scheduler,
                n_workers=arguments.workers,
                max_runs=arguments.max_runs,
                max_hours=arguments.max_hours,
                n_trials=arguments.trials,
                is_retrying=arguments.retry_failed,
                on_event=display.show,
            )
        return display.close(state)


def _count(text):
    """Read a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _hours(text):
    """Read a duration above 0."""
    hours = float(text)
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours above 0")
    return hours
