"""Which run's artifacts a notebook builds on: its own run's, those asked for, or the newest that fit one another."""

from moola_lib.errors import UserError
from moola_lib.runs.record import notebook_record


def find_upstream(root, stem, *, reader, run_id, given=None, taken=None):
    """Return the run whose artifacts of a notebook another one builds on.

    Parameters
    ----------
    root : Path
    stem : str
        The notebook whose artifacts are wanted.
    reader : str
        The notebook that wants them.
    run_id : str
        The reader's own run.
    given : str, optional
        Its parameter `upstream_run`.
    taken : dict of str to str, optional
        Stem to run of the upstreams it has already.

    Returns
    -------
    str

    Raises
    ------
    UserError
        As `NotebookRun.upstream`, which says in what order runs are considered.
    """

    def has(candidate):
        return notebook_record(root, candidate, stem) is not None

    is_overridden = run_id == "manual" and given
    if has(run_id) and not is_overridden:
        return run_id
    if given:
        for candidate in (given, *_built_on(root, given, stem)):
            if has(candidate):
                return candidate
        raise UserError(
            f"upstream_run {given!r} has no finished {stem}, which {reader} needs; "
            f"run `moola run {stem} --run-id {given} --resume` or name another run"
        )
    finished = {}
    for path in sorted((root / "data" / "artifacts").glob(f"*/{stem}/record.json")):
        candidate = path.parent.parent.name
        record = notebook_record(root, candidate, stem)
        if record is not None:
            finished[candidate] = record
    if not finished:
        raise UserError(f"{reader} needs the artifacts of {stem}; run `moola run {stem}` first")
    chosen = _newest_fitting(root, stem, finished, taken or {})
    newest = max(finished, key=lambda candidate: finished[candidate].get("finished_at", ""))
    if finished[newest].get("finished_at", "") > finished[chosen].get("finished_at", ""):
        why = ", built on other inputs" if finished[newest].get("upstream_runs") else ""
        print(f"note: a newer {stem} (run {newest}) exists{why}; using run {chosen}")
    return chosen


def _newest_fitting(root, stem, finished, upstream_runs):
    """Return the newest of `finished` (run id to record of `stem`) that fits the upstreams found."""
    found = ", ".join(f"{other} of run {run_id}" for other, run_id in upstream_runs.items())
    lineage = {}  # stem -> run, as the upstreams found were built on
    for other, run_id in upstream_runs.items():
        record = notebook_record(root, run_id, other) or {}
        for below, taken in record.get("upstream_runs", {}).items():
            if lineage.setdefault(below, taken) != taken and below == stem:
                raise UserError(
                    f"{found} were built on different {stem} (runs {lineage[below]} and {taken}); "
                    "name the run to build on with upstream_run"
                )
    expected = {**lineage, **upstream_runs}

    def fits(run_id):
        built_on = finished[run_id].get("upstream_runs", {})
        if stem not in lineage:
            return all(expected.get(below, taken) == taken for below, taken in built_on.items())
        # Another run than theirs must share their bars: one that was built on nothing brings its own.
        is_built_alike = bool(built_on) and all(expected.get(below) == taken for below, taken in built_on.items())
        return run_id == lineage[stem] or is_built_alike

    fitting = [run_id for run_id in finished if fits(run_id)]
    if stem in lineage and not fitting:
        raise UserError(
            f"{stem} of run {lineage[stem]}, which {found} built on, is gone; "
            "name another run to build on with upstream_run, or run `moola run`"
        )
    if not fitting:
        raise UserError(
            f"no finished {stem} was built on {found}; run `moola run {stem}` first, "
            "or name the run to build on with upstream_run"
        )
    return max(fitting, key=lambda run_id: (finished[run_id].get("finished_at", ""), run_id == lineage.get(stem)))


def _built_on(root, run_id, stem):
    """Yield the runs that `run_id`'s notebooks took `stem` from."""
    for path in sorted((root / "data" / "artifacts" / run_id).glob("*/record.json")):
        record = notebook_record(root, run_id, path.parent.name)
        if record is not None and stem in record.get("upstream_runs", {}):
            yield record["upstream_runs"][stem]
