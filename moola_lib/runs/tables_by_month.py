"""Features of many instruments, one table a month, in several processes; a killed run continues."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import numpy as np
import pyarrow

from moola_lib.errors import UserError
from moola_lib.features.sets import describe_set
from moola_lib.features.table import build_features
from moola_lib.files import fingerprint, lock_folder, read_json, replace_folder_atomically, write_json
from moola_lib.market.bars import Bars, load_bars
from moola_lib.market.segments import trade_dates
from moola_lib.market.vendors import find_symbols
from moola_lib.runs.tables import describe_origin
from moola_lib.runs.terminal import say_count

BAR_FILES = (".parquet", ".csv", ".txt", ".gz", ".zst", ".dbn")
MANIFEST = "manifest.json"
NAME = re.compile(r"(?!\.)[A-Za-z0-9._=-]+")  # of an instrument's folder, which no name leads out of
MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")


def write_tables(
    source,
    folder,
    *,
    reading=None,
    options=None,
    n_workers=None,
    scheduler=None,
    overwrite=False,
    on_instrument=None,
):
    """Featurise every instrument in a folder of bar files; continue where a killed run stopped.

    `folder/INSTRUMENT/YYYY-MM/` is a feature table. A month holds the segments
    that begin in it (by trade date), so that each row is the same as in the
    whole series. `manifest.json` lists what is done. A finished month is
    written again only if its bars, or the file they are in, have changed. What
    the manifest lists of an instrument that no file holds any more is named,
    and removed with `overwrite`.

    Parameters
    ----------
    source : str or Path
        A folder: one instrument a file, or several symbols in one, in any
        layout of `load_bars`. A file without symbols is named by its stem.
    folder : str or Path
    reading, options : dict, optional
        Arguments of `load_bars` and `build_features`, the same for every file.
    n_workers : int, optional
        Processes of one thread each, default one per core; each holds one
        file in memory, and reads it once for each of its symbols.
    scheduler : str, optional
        Address of a Dask scheduler whose workers do it instead; they see both
        folders under the same paths.
    overwrite : bool
        Start anew where the manifest was made with other arguments; remove
        instruments whose bars are gone.
    on_instrument : callable(str), optional
        Called with a line about each instrument that is done, or removed.

    Returns
    -------
    list of str
        A sentence for each file or instrument that could not be built, and for
        each instrument whose bars are gone.

    Raises
    ------
    UserError
        There is no bar file, the folder holds something else, its manifest is
        damaged, an option is wrong, a worker was killed, or there is no such
        scheduler.
    """
    source, folder, reading, options = Path(source), Path(folder), reading or {}, options or {}
    if scheduler:  # its workers have other current folders
        source, folder = source.absolute(), folder.absolute()
    n_workers = os.cpu_count() or 1 if n_workers is None else n_workers
    if n_workers < 1:
        raise UserError(f"{n_workers} workers cannot work; give 1 or more")
    described = describe_set(**options)
    # as JSON gives it back, to be compared with a manifest
    settings = {"set_id": described["set_id"], "options": described["options"], "reading": reading}
    files = sorted(path for path in source.iterdir() if path.is_file() and path.suffix.lower() in BAR_FILES)
    if not files:
        raise UserError(f"{source} holds no bar file ({', '.join(BAR_FILES)}); give the folder that does")
    before = _begin_manifest(folder, settings, overwrite)
    with _hold_folder(folder), _cluster(scheduler, folder) if scheduler else _processes(n_workers) as run:
        if before["settings"] != settings:
            _remove_instruments(folder, before["instruments"], list(before["instruments"]))
        done = before["instruments"]
        _write_manifest(folder, settings, done)
        jobs, broken, gone = _plan_jobs(files, run(_look_into, files), done)
        for name in gone:
            if overwrite:
                _remove_instruments(folder, done, [name])
                if on_instrument:
                    on_instrument(f"{name}: removed, since no file holds its bars any more")
            else:
                broken.append(f"{name}: no file holds its bars any more; remove its features with --overwrite")
        _write_manifest(folder, settings, done)
        build = partial(_build_instrument, folder=folder, reading=reading, options=options)
        for job, (entry, line) in zip(jobs, run(build, jobs), strict=True):
            if entry is None:
                broken.append(line)
                continue
            done[job["name"]] = entry
            _write_manifest(folder, settings, done)
            if on_instrument:
                on_instrument(f"{job['name']} ({job['path'].name}): {line}")
    return broken


def month_parts(index, starts):
    """Return the months of a series, cut at segments: each holds the segments that begin in it.

    Parameters
    ----------
    index : DatetimeIndex, UTC
        Stamps of the series.
    starts : ndarray (n_segments,), int64

    Returns
    -------
    list of (str, int, int)
        Month "YYYY-MM" (of trade dates), first bar, bar after the last.
    """
    months = trade_dates(index[starts]).astype("datetime64[M]")
    at = np.flatnonzero(np.r_[True, months[1:] != months[:-1]])
    edges = [*starts[at].tolist(), len(index)]
    return [(str(months[row]), *pair) for row, pair in zip(at, itertools.pairwise(edges), strict=True)]


def read_manifest(folder):
    """Read the manifest of `write_tables`.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict
        `settings` (dict), and `instruments`: by the name of a folder in this
        one, `source`, `content`, and `months` (dict by month).

    Raises
    ------
    UserError
        It cannot be read, is of something else, or names a folder that
        `write_tables` cannot have made, such as one outside.
    """
    path = folder / MANIFEST
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not all(
        isinstance(manifest.get(name), dict) for name in ("settings", "instruments")
    ):
        raise UserError(f"{path} is not a manifest of features; choose another folder")
    for name, entry in manifest["instruments"].items():
        is_sound = (
            NAME.fullmatch(name)
            and isinstance(entry, dict)
            and all(isinstance(entry.get(key), str) for key in ("source", "content"))
            and isinstance(entry.get("months"), dict)
            and all(MONTH.fullmatch(month) for month in entry["months"])
        )
        if not is_sound:
            raise UserError(f"{path} is damaged at {name!r}; build the features in another folder")
    return manifest


def _plan_jobs(files, found, done):
    """Return a job for each instrument, a sentence for each file in the way, and what is done of bars that are gone."""
    jobs, broken, owners, unread = [], [], {}, set()
    for path, (symbols, content, sentence) in zip(files, found, strict=True):
        if sentence:
            unread.add(path.name)
            broken.append(sentence)
        for symbol in symbols:
            name = re.sub(r"[^A-Za-z0-9._=-]+", "_", symbol).lstrip(".") or "_"
            if name in owners:
                broken.append(f"{path.name}: {name} is in {owners[name]} as well; keep one file an instrument")
                continue
            owners[name] = path.name
            jobs.append({"path": path, "symbol": symbol, "name": name, "content": content, "known": done.get(name)})
    gone = [name for name, entry in done.items() if name not in owners and entry["source"] not in unread]
    return jobs, broken, gone


def _look_into(path):
    """Return a file's symbols (its stem where it has none) and fingerprint; of an unreadable one, a sentence."""
    try:
        return find_symbols(path) or [_stem(path)], fingerprint(path), ""
    except UserError as error:
        return [], "", str(error)


def _stem(path):
    """Return a file's name without the endings that only say its format."""
    while path.suffix.lower() in BAR_FILES:
        path = path.with_suffix("")
    return path.name


def _build_instrument(job, *, folder, reading, options):
    """Write an instrument's months that are not there yet; return its entry and a line, or None and a sentence."""
    path, content, known, target = job["path"], job["content"], job["known"], folder / job["name"]
    try:
        is_known = known is not None and known["source"] == path.name and known["content"] == content
        if is_known and all((target / month / "metadata.json").is_file() for month in known["months"]):
            n_known = len(known["months"])
            return known, f"{say_count(n_known, 'month')} {'was' if n_known == 1 else 'were'} there"
        bars = load_bars(path, **reading, symbol=job["symbol"])
        table = build_features(bars, **options)
        months, n_written = {}, 0
        for month, first, last in month_parts(bars.frame.index, table.starts):
            part = table.cut(first, last)
            own = Bars(bars.frame.iloc[first:last], bars.report)
            facts = {"bars_fingerprint": own.fingerprint, "month": month, **describe_origin(path, own.frame)}
            months[month] = {"n_bars": len(part), "bars_fingerprint": facts["bars_fingerprint"]}
            if not _is_written(target / month, part, facts):
                with replace_folder_atomically(target / month) as temporary:
                    part.save(temporary, **facts)
                n_written += 1
        for gone in set(known["months"] if known else ()) - set(months):
            shutil.rmtree(target / gone, ignore_errors=True)
    except UserError as error:
        return None, str(error) if path.name in str(error) else f"{path.name}: {error}"
    entry = {"source": path.name, "content": content, "n_bars": len(table), "months": months}
    n_kept = len(months) - n_written
    kept = f", {n_kept} {'was' if n_kept == 1 else 'were'} there" if n_kept else ""
    return entry, f"{say_count(len(table), 'bar')}, {say_count(n_written, 'month')} written{kept}"


def _is_written(folder, table, facts):
    """Tell whether a month's folder holds this table: folders appear whole, so their metadata is enough."""
    try:
        card = read_json(folder / "metadata.json")
    except UserError:
        return False
    same = {**facts, "set_id": table.set_id, "options": table.options}
    same |= {name: facts[name].isoformat() for name in ("first_bar", "last_bar")}
    return all(card.get(name) == value for name, value in same.items())


def _begin_manifest(folder, settings, overwrite):
    """Return the folder's manifest, an empty one for a new folder; refuse what is not ours to continue."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder for the features")
    if not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir()):
        return {"settings": settings, "instruments": {}}
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} holds files but no {MANIFEST}; choose another folder for the features")
    before = read_manifest(folder)
    if before["settings"] != settings and not overwrite:
        raise UserError(
            f"{folder} was made with other settings: {_name_differences(before['settings'], settings)}; "
            "choose another folder, or build it anew with --overwrite"
        )
    return before


def _name_differences(before, now):
    """Return the settings that differ, old and new; the set's name only where no option explains it."""
    unset = "not given"
    pairs = []
    for part in ("options", "reading"):
        old, new = (settings.get(part) if isinstance(settings.get(part), dict) else {} for settings in (before, now))
        pairs += [(name, old.get(name, unset), new.get(name, unset)) for name in {**old, **new}]
    pairs = [pair for pair in pairs if pair[1] != pair[2]] or [("set", before.get("set_id", unset), now["set_id"])]
    return ", ".join(f"{name.replace('_', '-')} was {old}, now {new}" for name, old, new in pairs)


def _remove_instruments(folder, instruments, names):
    """Remove instruments from a manifest, and their folders."""
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
        del instruments[name]


@contextlib.contextmanager
def _hold_folder(folder):
    """Lock the folder; remove what a killed run had begun to write, and what this one has if it is interrupted."""
    with lock_folder(folder):
        _remove_leftovers(folder)
        try:
            yield
        finally:
            _remove_leftovers(folder)


def _remove_leftovers(folder):
    """Remove what was begun to be written; the lock says that nobody else writes now."""
    for leftover in (*folder.glob("*/.*.partial"), *folder.glob("*/.*.old")):
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in folder.glob(f".{MANIFEST}.*"):
        leftover.unlink()


def _write_manifest(folder, settings, done):
    """Write the manifest, instruments in order of name, so that equal work gives equal bytes."""
    write_json(folder / MANIFEST, {"settings": settings, "instruments": dict(sorted(done.items()))})


@contextlib.contextmanager
def _processes(n_workers):
    """Yield a `map` over worker processes, or the plain one for a single worker."""
    if n_workers <= 1:
        yield map
        return
    context = get_context("spawn")  # a fork would copy locks of threads that are not there
    others = set(active_children())
    try:
        with ProcessPoolExecutor(n_workers, mp_context=context, initializer=_begin_worker) as pool:
            try:
                yield pool.map
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in set(active_children()) - others:  # else each would finish its instrument
                    worker.kill()
                raise
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, perhaps for want of memory; run the same command again to continue, "
            "with fewer --workers"
        ) from error


@contextlib.contextmanager
def _cluster(scheduler, folder):
    """Yield a `map` over the workers of a Dask scheduler, results in order."""
    from moola_lib.runs.sweeps.cluster import join_cluster

    with join_cluster(scheduler, folder) as client:
        from distributed import KilledWorker

        def run(function, items):
            return (future.result() for future in client.map(function, items, pure=False))

        try:
            yield run
        except KilledWorker as error:
            raise UserError(
                "workers of the cluster died under an instrument, perhaps for want of memory; run the same command "
                "again to continue"
            ) from error


def _begin_worker():
    """Use one thread, leave Ctrl-C to the parent, and end with it: killed, it cannot tell its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pyarrow.set_cpu_count(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    parent_process().join()
    os._exit(1)
