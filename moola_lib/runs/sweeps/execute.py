"""A sweep's runs on a cluster's workers: begun, followed, tried again."""

import contextlib
import time
import uuid
from collections import deque

from moola_lib.errors import UserError
from moola_lib.files import lock_folder
from moola_lib.runs.signals import Stop, signals_interrupt
from moola_lib.runs.sweeps import worker
from moola_lib.runs.sweeps.cluster import find_dashboard, join_cluster, list_workers, open_cluster
from moola_lib.runs.sweeps.ledger import FINISHED, N_TRIES, WAITING, Ledger
from moola_lib.runs.sweeps.plan import grid_points, is_allowed, plan_runs, sweep_folder

STOP_FILE = ".stop"
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_COUNTS = 2.0
SECONDS_WITHOUT_WORKERS = 120.0
SECONDS_TO_STOP = 75.0  # a notebook has 60 to save its checkpoint and clean up
BOUNDED, INTERRUPTED = "bounded", "interrupted"


def run_sweep(
    sweep,
    models,
    *,
    root,
    scheduler=None,
    n_workers=None,
    max_runs=None,
    max_hours=None,
    n_trials=None,
    is_retrying=False,
    on_event=None,
):
    """Do the runs of a sweep that are not done yet.

    Parameters
    ----------
    sweep : Sweep
    models : dict
        Stem to parameter model.
    root : Path
    scheduler : str, optional
        Address of a running Dask scheduler; default workers on this machine.
    n_workers : int, optional
        Of this machine, see `open_cluster`.
    max_runs : int, optional
        Most runs to begin now.
    max_hours : float, optional
        After these the runs at work are stopped, as by Ctrl-C.
    n_trials : int, optional
        Arms of a search, in all its starts together; default the YAML's.
    is_retrying : bool
        Try runs again that have failed three times.
    on_event : callable, optional
        Called with (kind, state): `opened` (`state` has `dashboard`), `looked`
        (five times a second), `ended` (a run), `stopping`.

    Returns
    -------
    dict
        The state at the end, see `Ledger`. `status`: `finished` (nothing is left to
        begin), `bounded` or `interrupted`.

    Raises
    ------
    UserError
        The plan is not allowed, another process works on this sweep, the cluster
        cannot be used or was lost, or a worker cannot write its run's folder.
    """
    folder = sweep_folder(root, sweep.name)
    with lock_folder(folder), contextlib.ExitStack() as stack:
        search = None
        if sweep.search:
            from moola_lib.runs.sweeps.search import Search

            search = Search(sweep, folder, n_trials)
        execution = _Execution(sweep, models, root, folder, search, on_event or (lambda kind, state: None))
        execution.plan(is_retrying)
        execution.bound(max_runs, max_hours)
        if execution.has_work():
            uses_gpu = any(run.resolved.get("device", "cpu") != "cpu" for run in execution.waiting)
            cluster = (
                join_cluster(scheduler, folder)
                if scheduler
                else open_cluster(n_workers, n_losses=N_TRIES, uses_gpu=uses_gpu or search is not None)
            )
            execution.client = stack.enter_context(cluster)
        execution.go()
    return execution.ledger.state


class _Execution:
    """One command's work on a sweep."""

    def __init__(self, sweep, models, root, folder, search, on_event):
        self.sweep, self.models, self.root, self.search, self.on_event = sweep, models, root, search, on_event
        self.ledger, self.client = Ledger(sweep, root, folder), None
        self.waiting, self.at_work = deque(), {}
        self._begun, self._most_runs, self._deadline = set(), float("inf"), float("inf")
        self._counted_at, self._n_workers, self._resources = float("-inf"), 0, {}
        self._seen_at = time.monotonic()
        self._stop = folder / STOP_FILE
        self._stop.unlink(missing_ok=True)

    def plan(self, is_retrying):
        """Queue every run that is not done."""
        if self.search is None:
            self._take_up(grid_points(self.sweep.grid), is_retrying)
        else:
            for number, point in self.search.trials():
                self._take_up_trial(number, point, is_retrying)
        self.ledger.save()

    def bound(self, max_runs, max_hours):
        """Set how many runs may begin, and how long they may take."""
        if max_runs is not None:
            self._most_runs = max_runs
        if max_hours is not None:
            self._deadline = time.monotonic() + 3600 * max_hours

    def has_work(self):
        """Tell whether anything is left to begin."""
        return bool(self.waiting) or (self.search is not None and self.search.n_left() > 0)

    def go(self):
        """Work until nothing is left, a bound is reached, or Ctrl-C; whatever happens, the ledger says how it ended."""
        status, stop = INTERRUPTED, Stop()
        try:
            with signals_interrupt(stop, _interrupt):
                try:
                    self._tell_search()
                    status = self._work() if self.client is not None else FINISHED
                except (KeyboardInterrupt, UserError) as error:
                    stop.hear()
                    with contextlib.suppress(KeyboardInterrupt):  # a second one does not wait
                        self._end_all()
                    if isinstance(error, UserError):
                        raise
        finally:
            for run_id in self.at_work:
                self.ledger.interrupt(run_id)
            self.ledger.close(status)

    def _take_up(self, points, is_retrying=False):
        """Enter the runs of some arms, and queue those that are not done; return their ids."""
        runs = plan_runs(self.sweep, points, self.models, self.root, self.ledger.state["upstreams"])
        for run in runs:
            is_new = run.run_id not in self.ledger.state["runs"]
            if is_new and self.ledger.take_up(run, is_retrying=is_retrying) == WAITING:
                self.waiting.append(run)
        return [run.run_id for run in runs]

    def _take_up_trial(self, number, point, is_retrying=False):
        """Enter the runs of a search's arm, unless its values, each of them allowed, do not go together."""
        if is_allowed(self.sweep, point, self.models, self.root):
            self.search.follow(number, self._take_up([point], is_retrying))
        else:
            self.search.refuse(number)

    def _work(self):
        """Keep every worker at one run; return why it ended."""
        self._count_workers()
        self.on_event("opened", self.ledger.state | {"dashboard": find_dashboard(self.client)})
        while True:
            self._fill()
            if not self.at_work and self._n_workers:
                return BOUNDED if self.has_work() else FINISHED
            if time.monotonic() > self._deadline:
                self._end_all()
                return BOUNDED
            time.sleep(SECONDS_BETWEEN_LOOKS)
            self._land_ended()
            self._count_workers()
            self.on_event("looked", self.ledger.state)

    def _fill(self):
        """Give each idle worker a run. No more: the queue of a killed worker would count as failed with its run."""
        while len(self.at_work) < self._n_workers and (run := self._next_run()) is not None:
            self._begun.add(run.run_id)
            self.ledger.begin(run.run_id)
            self.at_work[run.run_id] = run, self._submit(run)

    def _next_run(self):
        """Take a run from the queue, of a search a new arm's where it is empty; None where none may begin."""
        may_begin = len(self._begun) < self._most_runs
        while may_begin and not self.waiting and self.search is not None and self.search.n_left():
            self._take_up_trial(*self.search.ask())
            self._tell_search()  # its runs may be those of another trial
        for run in self.waiting:
            if may_begin or run.run_id in self._begun:  # another try of one that has begun
                self.waiting.remove(run)
                return run
        return None

    def _submit(self, run):
        job = {"root": str(self.root), "stop": str(self._stop), "stem": self.sweep.stem, "profile": self.sweep.profile}
        job |= {name: getattr(run, name) for name in ("run_id", "given", "resolved", "upstreams")}
        key = f"{run.run_id}-{uuid.uuid4().hex[:8]}"  # the result of an earlier client's must not answer
        return self.client.submit(worker.execute_run, job, key=key, pure=False, resources=self._resources)

    def _land_ended(self):
        """Take up the runs that have ended; queue those to be tried again."""
        for run_id in [run_id for run_id, (_, future) in self.at_work.items() if future.done()]:
            run, future = self.at_work.pop(run_id)
            if future.status == "finished":
                status = self.ledger.end(run_id, future.result())
            elif future.status == "error" and isinstance(future.exception(), UserError):
                self.ledger.put_back(run_id)  # a full disk, say: it would meet every run
                raise future.exception()
            elif future.status == "error":
                status = self.ledger.fail(run_id, **_describe_failure(future.exception()))
            else:  # the scheduler was started again, or is gone: no fault of the run
                status = self.ledger.put_back(run_id)
            if status == WAITING:
                self.waiting.append(run)
            self._tell_search()
            self.on_event("ended", self.ledger.state)

    def _tell_search(self):
        """Tell the search of every arm that is complete."""
        if self.search is not None:
            self.search.tell(self.root, self.ledger.state)

    def _end_all(self):
        """Stop the runs at work as Ctrl-C in each would, and wait for them."""
        self._stop.touch()
        self.on_event("stopping", self.ledger.state)
        deadline = time.monotonic() + SECONDS_TO_STOP
        while self.at_work and time.monotonic() < deadline:
            for run_id in [run_id for run_id, (_, future) in self.at_work.items() if future.done()]:
                _, future = self.at_work.pop(run_id)
                self.ledger.interrupt(run_id, future.result() if future.status == "finished" else None)
            time.sleep(SECONDS_BETWEEN_LOOKS)
        self._stop.unlink(missing_ok=True)

    def _count_workers(self):
        """Count the workers that can take a run: those with a GPU, where there are any."""
        if time.monotonic() - self._counted_at < SECONDS_BETWEEN_COUNTS:
            return
        workers = list_workers(self.client)
        with_gpu = [facts for facts in workers if facts.get("resources", {}).get("GPU")]
        self._resources = {"GPU": 1} if with_gpu else {}
        self._n_workers = len(with_gpu or workers)
        self._counted_at = time.monotonic()
        self._seen_at = self._counted_at if workers else self._seen_at
        if self._counted_at - self._seen_at > SECONDS_WITHOUT_WORKERS:
            address = self.client.scheduler.address
            raise UserError(f"no worker is left at {address}; start one, and give the same command again")


def _interrupt():
    raise KeyboardInterrupt


def _describe_failure(error):
    """Return why a run came back without a result, and for how many tries that counts."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        n_lost = error.allowed_failures + 1
        return {"reason": f"{n_lost} workers died under it (killed, or out of memory)", "n_tries": N_TRIES}
    return {"reason": f"{type(error).__name__}: {' '.join(str(error).split())}"}
