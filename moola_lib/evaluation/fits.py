"""All fits of an experiment, arms by folds by seeds, in worker processes.

One fit is too small for two threads (they can be four times slower), so each
process runs whole fits on one thread. What a fit gives does not depend on where
it ran: it seeds itself, and its bits are those of the sequential run.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from moola_lib.errors import UserError
from moola_lib.evaluation.cross_validation import run_fold
from moola_lib.learning.device import usable_cores
from moola_lib.learning.linear_fit import share_linear_fits

SECONDS_BETWEEN_LOOKS = 0.05
SHARED_MEMORY = Path("/dev/shm")  # of Linux
# read once, in two to three seconds (the first optimiser of a process reads torch._dynamo); our own modules are read
# afresh in every worker, as one edits them
PRELOADED = ["numba", "pandas", "torch", "torch._dynamo"]
_worker = {}  # what a worker process holds: gather, windows, options, progress, stop


@dataclass(frozen=True)
class Fit:
    """One training: an arm on a fold from a seed.

    Attributes
    ----------
    label : str
        Names the fit in progress rows.
    arm : Arm
    fold : Fold
    seed : int
    folder : Path or None
        Where its checkpoints go.
    """

    label: str
    arm: object
    fold: object
    seed: int = 17
    folder: Path | None = None


def plan_fits(arms, folds, seeds=(17,), *, folder=None):
    """List every fit of an experiment: for each arm, each seed, each fold.

    Parameters
    ----------
    arms : list of Arm
    folds : list of Fold
    seeds : sequence of int
    folder : Path, optional
        Checkpoints go to `folder/<arm>/fold<k>`, with several seeds to
        `folder/<arm>/seed<seed>/fold<k>`. Repeats of the folds need a folder and a
        seed each.

    Returns
    -------
    list of Fit
    """
    fits = []
    for arm in arms:
        for seed in seeds:
            one = "" if len(seeds) == 1 else f"seed {seed}, "
            place = None if folder is None else Path(folder) / arm.name.replace(", ", "_").replace(" ", "_")
            if place is not None and len(seeds) > 1:
                place = place / f"seed{seed}"
            for k, fold in enumerate(folds, 1):
                label = f"{arm.name}, {one}fold {k}/{len(folds)}"
                fits.append(Fit(label, arm, fold, seed, None if place is None else place / f"fold{k}"))
    return fits


def results_by_arm(fits, results):
    """Return {arm name: {seed: [FoldResult of each fold]}}, in the order of the plan."""
    found = {}
    for fit, result in zip(fits, results, strict=True):
        found.setdefault(fit.arm.name, {}).setdefault(fit.seed, []).append(result)
    return found


def run_fits(
    fits,
    gather,
    windows,
    *,
    features,
    validation_frac=0.15,
    ordinary=None,
    resume=False,
    n_workers=None,
    n_threads=1,
    on_epoch=None,
):
    """Run every fit and return what each gave, in the order of the plan.

    Parameters
    ----------
    fits : list of Fit
    gather : WindowGatherer
        Its table moves to shared memory, which the workers map: it is not copied.
    windows : LabelledWindows
    features : dict
        `set_id` and `names`, checked against the encoder's card.
    validation_frac, ordinary
        See `run_fold`.
    resume : bool
        Finished fits are read from their checkpoints, others go on from theirs.
    n_workers : int, optional
        Processes; default one per core that this process may use, and one where
        the table lies on a GPU. One runs here, without a further process.
    n_threads : int
        Intra-op threads of each worker.
    on_epoch : callable(dict) -> bool or None, optional
        Called in this process for each epoch of each fit, its `label` added; True
        ends the experiment, see below.

    Returns
    -------
    list of FoldResult

    Raises
    ------
    UserError
        The first that a fit raised, as it was said; a worker was killed; shared
        memory is too small for the table; `on_epoch` ended it, and arms trained for
        unequal times could not be compared. The other fits stop after their current
        epoch, as they do at an interrupt; what has a folder can be resumed.
    """
    options = {"features": features, "validation_frac": validation_frac, "ordinary": ordinary, "resume": resume}
    n_workers = min(n_workers or _default_workers(gather.device), max(len(fits), 1))
    if n_workers == 1:
        return _run_in_turn(fits, gather, windows, options, on_epoch)
    # a fork of a process that has run torch or CUDA may hang; the server forks from one that has only imported
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    _check_shared_memory(gather)
    progress, stop = context.SimpleQueue(), context.Event()
    shared = tempfile.TemporaryDirectory(prefix="moola-", ignore_cleanup_errors=True)
    given = (gather, windows, options, n_threads, progress, stop, shared.name)
    pool = ProcessPoolExecutor(n_workers, context, _start_worker, given)
    try:
        with _interrupts_held():
            waiting = futures = [pool.submit(_run_in_worker, fit) for fit in fits]
        while waiting:
            done, waiting = wait(waiting, SECONDS_BETWEEN_LOOKS)
            if _report(progress, on_epoch):
                raise _stopped(len(futures) - len(waiting), len(fits))
            for future in done:
                future.result()  # a fit's error is raised at once
        _report(progress, on_epoch)
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {n_workers} worker processes was killed, as happens when memory runs out; lower n_workers"
        ) from error
    finally:
        stop.set()
        _report(progress, None)  # none waits at a full pipe
        pool.shutdown(wait=True, cancel_futures=True)
        progress.close()
        shared.cleanup()


class _Stopped(Exception):
    """The experiment was given up; this fit's checkpoint is written."""


def _stopped(n_finished, n_fits):
    """Return the sentence about an experiment that `on_epoch` ended."""
    return UserError(
        f"the experiment was stopped with {n_finished} of {n_fits} fits finished; "
        "run it again with resume=True, and fits that have a folder go on from their last epoch"
    )


def _run_in_turn(fits, gather, windows, options, on_epoch):
    """Run the fits here, one after the other."""
    results = []

    def tell(row):
        if on_epoch is not None and on_epoch(row):
            raise _Stopped

    for fit in fits:
        try:
            results.append(_run(fit, gather, windows, options, tell))
        except _Stopped:
            raise _stopped(len(results), len(fits)) from None
    return results


def _run(fit, gather, windows, options, on_epoch):
    """Run one fit, telling of each epoch under the fit's label."""
    return run_fold(
        fit.arm,
        gather,
        windows,
        fit.fold,
        seed=fit.seed,
        folder=fit.folder,
        on_epoch=lambda row: on_epoch({"label": fit.label, **row}),
        **options,
    )


def _start_worker(gather, windows, options, n_threads, progress, stop, shared):
    """Prepare a worker process: keep what its fits share, leave interrupts to the parent, end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(n_threads)
    share_linear_fits(shared)
    _worker.update(gather=gather, windows=windows, options=options, progress=progress, stop=stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _run_in_worker(fit):
    """Run one fit in a worker process."""

    def on_epoch(row):
        _worker["progress"].put(row)
        if _worker["stop"].is_set():
            raise _Stopped

    if _worker["stop"].is_set():  # the pool hands out one fit more than it has workers
        raise _Stopped
    return _run(fit, _worker["gather"], _worker["windows"], _worker["options"], on_epoch)


def _end_with_parent():
    """End this process with its parent: a killed run must not go on writing checkpoints."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _report(progress, on_epoch):
    """Pass on the rows that have arrived; tell whether one was answered by True: stop."""
    is_stopped = False
    while not progress.empty():
        row = progress.get()
        is_stopped |= on_epoch is not None and bool(on_epoch(row))
    return is_stopped


def _check_shared_memory(gather):
    """Refuse a table larger than the shared memory that is left: writing past it would kill this process."""
    if gather.device.type != "cpu" or gather.values.is_shared() or not SHARED_MEMORY.exists():
        return
    needed, free = gather.values.nbytes + gather.is_valid.nbytes, shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise UserError(
            f"workers share the feature table through {SHARED_MEMORY}: it needs {needed / 1e6:.0f} MB, "
            f"{free / 1e6:.0f} MB are free; set n_workers to 1, or give the container more (docker: --shm-size)"
        )


@contextlib.contextmanager
def _interrupts_held():
    """Hold SIGINT back while processes start, which inherit that: Ctrl-C reaches a whole group, the parent decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _default_workers(device):
    """Return one worker per usable core; on a GPU fits share its memory, so one."""
    return usable_cores() if device.type == "cpu" else 1
