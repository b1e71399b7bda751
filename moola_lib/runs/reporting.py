"""`moola report`: write the pages of a run that is over, again or elsewhere."""

from pathlib import Path

from moola_lib.errors import UserError
from moola_lib.runs.html import render_report
from moola_lib.runs.project import check_run_id, find_root, reports_folder, resolve_stem
from moola_lib.runs.record import notebook_record, read_run

_ORIGIN = ("first_bar", "last_bar", "is_proposed", "label_source")


def report_run(run_id, notebooks=(), *, output=None, is_single_file=False, is_code_shown=False, root=None):
    """Write the pages of a run's executed notebooks; return their paths.

    Parameters
    ----------
    run_id : str
    notebooks : sequence of str
        Stems, numbers or paths; default every notebook that the run executed.
    output : str or Path, optional
        A folder, or for one notebook a file that ends in `.html`, which then
        holds everything. Default the run's own folder.
    is_single_file, is_code_shown : bool
        As in `render_report`.
    root : Path, optional
        Default the project's.

    Returns
    -------
    list of Path

    Raises
    ------
    UserError
        There is no such run, a notebook was not executed or its report is
        withheld (a key was found in it), or the output cannot be written.
    """
    root = root or find_root()
    record = read_run(root, check_run_id(run_id))
    source = reports_folder(root, run_id)
    withheld = record.get("withheld") or {}  # a key was found in what they wrote
    executed = [s for s in record["stems"] if (source / f"{s}.ipynb").exists() and s not in withheld]
    stems = [resolve_stem(name, root) for name in notebooks] or executed
    missing = [stem for stem in stems if stem not in executed]
    if missing or not stems:
        kept = [stem for stem in missing or record["stems"] if stem in withheld]
        if kept:
            raise UserError(
                f"the report of {kept[0]} is withheld: {'; '.join(withheld[kept[0]])}; resume the run first"
            )
        raise UserError(f"run {run_id!r} has not executed {', '.join(missing) or 'any notebook'}; see {source}")
    target = Path(output) if output is not None else source
    is_file = target.suffix == ".html"
    if is_file and len(stems) > 1:
        raise UserError(
            f"{target} is one page and run {run_id!r} has {len(stems)}; name the notebook, or give a folder"
        )
    folder = target.parent if is_file else target
    is_own = folder.resolve() == source.resolve()
    pages = []
    for stem in stems:
        info = report_info(root, record, stem)
        near = stems if not is_own else [s for s in record["stems"] if s in stems or (folder / f"{s}.html").exists()]
        pages.append(target if is_file else folder / f"{stem}.html")
        render_report(
            source / f"{stem}.ipynb",
            pages[-1],
            assets=(root / "reports" if is_own else folder) / "assets",
            run_info={**info, "siblings": near, "has_index": is_own},
            is_single_file=is_single_file or is_file,
            is_code_shown=is_code_shown,
        )
    return pages


def report_info(root, record, stem):
    """Return what the records of a run say about one of its notebooks, for its page.

    Parameters
    ----------
    root : Path
    record : dict
        The run's `run.json`.
    stem : str

    Returns
    -------
    dict
        As `render_report` takes it. The range of the bars and the origin of the
        labels come from the notebooks it was built on, where those had the same
        bars.
    """
    own = notebook_record(root, record["run_id"], stem) or {}
    entry, error = record["notebooks"].get(stem, {}), record.get("error")
    git = own.get("git") or record.get("git")
    return {
        "run_id": record["run_id"],
        "stem": stem,
        "status": entry.get("status"),
        "started_at": entry.get("started_at"),
        "seconds": record.get("timings", {}).get(stem),
        "profile": record.get("profile"),
        "data": _data_of(root, own) or record.get("data"),
        "seed": record.get("parameters", {}).get(stem, {}).get("seed", record.get("seed")),
        "git": git,
        "versions": own.get("versions") or record.get("versions"),
        "device": own.get("device"),
        "peak_memory_mb": own.get("peak_memory_mb", entry.get("peak_memory_mb")),
        "gpu_peak_memory_mb": own.get("gpu_peak_memory_mb"),
        "error": error if error is not None and error.get("stem") == stem else None,
    }


def _data_of(root, own):
    """Return a notebook's data facts, completed by those of its upstreams with the same bars."""
    data = dict(own.get("data") or {})
    for stem, run_id in (own.get("upstream_runs") or {}).items() if data else ():
        upstream = (notebook_record(root, run_id, stem) or {}).get("data") or {}
        if upstream.get("fingerprint") == data.get("fingerprint"):
            data = {**{key: upstream[key] for key in _ORIGIN if key in upstream}, **data}
    return data
