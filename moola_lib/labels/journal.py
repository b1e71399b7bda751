"""The journal beside a label table: every action on disk before it is shown as done, and the table made from it.

Each labelling session writes a file of its own, `labels.journal/STAMP-HOST-PID.jsonl`
beside `labels.parquet`, one JSON object a line. Nobody writes into another's
file, so that two people, or two kernels, cannot overwrite each other; the table
is made from all of them.
"""

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import filelock
import pandas as pd

from moola_lib import __version__
from moola_lib.errors import UserError
from moola_lib.files import check_writable, plain
from moola_lib.labels.table import SOFT_EDGES, check_labels, load_labels, save_labels

LOCK_SECONDS = 10.0  # writing a table takes a fraction of one
_KNOWN = {}  # journal -> (inode, bytes read, its events): journals only grow
ROW = ["expansion_start", "expansion_end", "label", *SOFT_EDGES]  # what a save says of each expansion


def journal_folder(path):
    """Return where the journals of the label table `path` lie."""
    path = Path(path)
    return path.with_name(f"{path.stem}.journal")


class Journal:
    """The file of one labelling session; opened by its first action.

    Parameters
    ----------
    path : str or Path
        The label table.
    annotator : str

    Attributes
    ----------
    path : Path or None
        The session's own file; None before its first action.

    Raises
    ------
    UserError
        The folder, or a table that is there, may not be written.
    """

    def __init__(self, path, annotator):
        self._table, self.annotator = Path(path), annotator
        self.path = self._handle = None
        self._size = self._n = 0
        if self._table.exists() and not os.access(self._table, os.W_OK):
            raise UserError(f"{self._table} may not be written; change its permissions, or label into another table")
        check_writable(self._table.parent)
        check_writable(journal_folder(self._table))

    def append(self, action, **facts):
        """Write one action to the disk; when this returns, it is there.

        Parameters
        ----------
        action : str
        **facts
            Plain values.

        Returns
        -------
        dict
            The event as written: `at` (UTC), `n` (from 1), `annotator`, `action` and the facts.

        Raises
        ------
        UserError
            The disk is full or gone. Nothing of the action is in the file then.
        """
        now = datetime.now(UTC)
        event = {"at": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}", "n": self._n + 1, "annotator": self.annotator}
        event |= {"action": action, **plain(facts)}
        line = (json.dumps(event, ensure_ascii=False) + "\n").encode()
        try:
            if self._handle is None:
                self._open(now)
            _write_whole(self._handle, line)
        except OSError as error:
            self._forget_torn()
            raise UserError(
                f"this action is not saved, the ones before it are: cannot write {self.path or self._table.parent}: "
                f"{error.strerror or error}; make room, then do it again"
            ) from error
        self._size += len(line)
        self._n += 1
        return event

    def close(self):
        """Close the file; a later action opens a new one."""
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None
        self._size = 0

    def _open(self, now):
        """Make a file that nobody has, with the session's facts as its first line."""
        folder = journal_folder(self._table)
        host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname()) or "host"
        self.path = folder / f"{now:%Y%m%dT%H%M%S%f}Z-{host}-{os.getpid()}.jsonl"
        self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        self._size = 0
        _sync_folder(folder)
        facts = {"action": "open", "at": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}", "n": 0, "annotator": self.annotator}
        facts |= {"host": host, "pid": os.getpid(), "tool_version": __version__}
        line = (json.dumps(facts, ensure_ascii=False) + "\n").encode()
        _write_whole(self._handle, line)
        self._size = len(line)

    def _forget_torn(self):
        """Cut off what a failed write left behind; what cannot be cut is left out when the journal is read."""
        if self._handle is None:
            return
        try:
            os.ftruncate(self._handle, self._size)
        except OSError:
            self.close()
        if self._size == 0:
            self.close()  # not even its first line could be written


def read_journals(path):
    """Return every action on a label table, in the order of their time.

    A line that is no whole JSON object, as the last one of a session that was
    killed while it wrote, is left out.

    Parameters
    ----------
    path : str or Path
        The label table, which need not exist yet.

    Returns
    -------
    list of dict
        As `Journal.append` returns them, each with its `session` (file name).

    Raises
    ------
    UserError
        A journal may not be read.
    """
    events = []
    for journal in sorted(journal_folder(path).glob("*.jsonl")):
        try:
            events += _read_journal(journal)
        except OSError as error:
            raise UserError(f"{journal} cannot be read: {error.strerror or error}") from error
    return sorted(events, key=lambda event: (event["at"], event["session"], event["n"]))


def read_table(path):
    """Return the checked label table, or None where there is none yet.

    Raises
    ------
    UserError
        It cannot be read, or is no table that labels can be added to.
    """
    path = Path(path)
    if not path.exists():
        return None
    if path.suffix != ".parquet":
        raise UserError(
            f"the label table {path} is no parquet file; make one of it: moola labels {path} -o NEW.parquet"
        )
    labels = load_labels(path)
    if labels.bars is not None:
        raise UserError(
            f"{path} has the older layout, which carries its own bars; "
            f"make a table of it first: moola labels {path} -o NEW.parquet --bars BARS"
        )
    return labels.table


def gather_labellings(table, events):
    """Return every answer that anyone gave, repeats and second opinions included.

    Parameters
    ----------
    table : DataFrame or None
        A checked label table.
    events : list of dict
        Of `read_journals`.

    Returns
    -------
    DataFrame
        Columns of the label table, and `labelling` (one name per answer; its
        rows are the expansions of that answer) and `is_repeat`. An answer that
        was corrected later is given as corrected. Rows of the table that no
        journal knows have the labelling `table:` and their annotator.
    """
    saves = {event["labelling"]: event for event in events if event["action"] == "save"}
    frames = [_label_rows(saves.values())]
    if table is not None:
        known = {(event["window_id"], event["annotator"]) for event in saves.values()}
        pairs = zip(table["window_id"], table["annotator"].fillna(""), strict=True)
        others = table[[pair not in known for pair in pairs]]
        frames.append(others.assign(labelling="table:" + others["annotator"].fillna("").astype(str), is_repeat=False))
    frames = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat(frames, ignore_index=True)


def merge_labels(table, events):
    """Return a label table with what the journals say.

    A window belongs to who labelled it first: the last answer of that person
    counts. Silent repeats and the answers of others stay in the journals (see
    `gather_labellings`), except where an answer was given to decide. Proposals
    belong to nobody. Merging twice changes nothing.

    Parameters
    ----------
    table : DataFrame or None
        Checked.
    events : list of dict
        Of `read_journals`.

    Returns
    -------
    DataFrame or None
        Checked, in time order; None where there is no label at all.
    """
    owner, last = {}, {}
    if table is not None:
        is_given = ~table["source"].fillna("").str.startswith("proposal")
        given = table[is_given]
        owner = dict(zip(given["window_id"], given["annotator"].fillna(""), strict=True))
    for event in events:
        if event["action"] != "save" or event["is_repeat"]:
            continue
        window_id, annotator = event["window_id"], event["annotator"]
        if owner.get(window_id, annotator) == annotator or event["is_deciding"]:
            owner[window_id], last[window_id] = annotator, event
    frames = [_label_rows(last.values())]
    if table is not None:
        frames.insert(0, table[~table["window_id"].isin(list(last))])
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return None
    merged = check_labels(pd.concat(frames, ignore_index=True), source="the journals and the table together")
    return merged.sort_values(["window_start", "window_id", "expansion_start"], ignore_index=True)


def compact(path):
    """Write the label table that the journals make, atomically.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    table : DataFrame or None
        None where there is no label at all; then no file is written.
    events : list of dict
        Of `read_journals`.

    Raises
    ------
    UserError
        The table cannot be written; the labels are safe in the journals.
    """
    path = Path(path)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS)
    try:
        with lock:
            before, events = read_table(path), read_journals(path)
            merged = merge_labels(before, events)
            if merged is not None and (before is None or not merged.equals(before)):
                _save_safely(merged, path)
            return merged, events
    except filelock.Timeout as error:
        raise UserError(
            f"another process has been writing {path} for {LOCK_SECONDS:g} seconds; your labels are safe in the "
            "journals, the table follows with the next one"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot lock {path}: {error.strerror or error}; the labels are safe in the journals"
        ) from error


def _save_safely(table, path):
    """Write the table; where that fails, say that no label is lost."""
    try:
        save_labels(table, path)
    except UserError as error:
        raise UserError(f"{error}; the labels are safe in the journals") from error


def _label_rows(events):
    """Return the rows of a label table that saves stand for, with `labelling` and `is_repeat`."""
    shared = ("window_id", "symbol", "window_start", "annotator", "seconds", "mode", "tool_version")
    more = ("labelling", "is_repeat")
    rows = [
        {**{name: event[name] for name in (*shared, *more)}, "labelled_at": event["at"], **dict.fromkeys(ROW), **row}
        for event in events
        for row in event["rows"]
    ]
    names = [*shared, "labelled_at", *ROW, *more]
    frame = pd.DataFrame(rows, columns=names).assign(source="studio")
    for name in ("window_start", "labelled_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601").astype("datetime64[ns, UTC]")
    return frame


def _read_journal(journal):
    """Return the events of one journal; of one that has grown, only what is new is read."""
    facts = journal.stat()
    inode, size, events = _KNOWN.get(journal, (None, 0, []))
    if inode != facts.st_ino or facts.st_size < size:
        size, events = 0, []
    with open(journal, "rb") as stream:
        stream.seek(size)
        lines = stream.read().splitlines(keepends=True)
    found = [_parse(line) for line in lines]
    events = events + [{**event, "session": journal.stem} for event in found if event is not None]
    # a last line without its end may still be being written: it is looked at again
    whole = lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines
    if len(whole) == len(lines):
        _KNOWN[journal] = (facts.st_ino, size + sum(map(len, whole)), events)
    return events


def _parse(line):
    """Return the event in a line, or None where there is none whole."""
    try:
        event = json.loads(line)
    except (ValueError, UnicodeDecodeError):
        return None
    is_event = isinstance(event, dict) and {"at", "n", "annotator", "action"} <= event.keys()
    return event if is_event else None


def _write_whole(handle, line):
    """Write all of a line and wait until the disk has it."""
    while line:
        line = line[os.write(handle, line) :]
    os.fsync(handle)


def _sync_folder(folder):
    """Wait until the disk knows a new file's name."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
