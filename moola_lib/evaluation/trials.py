"""Every configuration that was tried, a line each: the best of many looks good by luck."""

import json
from datetime import UTC, datetime
from pathlib import Path

import filelock

from moola_lib.errors import UserError
from moola_lib.evaluation.power import luck_of_the_best
from moola_lib.files import fingerprint, plain

LOCK_SECONDS = 10


def log_trial(path, *, run_id, notebook, parameters, figures):
    """Append a configuration to `trials.jsonl`, at once and whole.

    Parameters
    ----------
    path : str or Path
        One file for the whole project. Its folder is created.
    run_id, notebook : str
    parameters : dict
        The settings, as plain JSON; their fingerprint tells configurations apart.
    figures : dict of str to float
        The headline figures.

    Returns
    -------
    dict
        The line: `when` (UTC), `run_id`, `notebook`, `fingerprint`, `parameters`, `figures`.

    Raises
    ------
    UserError
        The file cannot be written.
    """
    path = Path(path)
    settings = plain(parameters)
    line = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_id": run_id,
        "notebook": notebook,
        "fingerprint": fingerprint(notebook, json.dumps(settings, sort_keys=True, allow_nan=False)),
        "parameters": settings,
        "figures": plain(figures),
    }
    text = json.dumps(line, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # it waits: another notebook appends for a moment only
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS), open(path, "a+b") as stream:
            if stream.tell() and not _ends_line(stream):
                text = "\n" + text  # a killed writer left half a line
            stream.write(text.encode())
    except (OSError, filelock.Timeout) as error:
        raise UserError(f"cannot write {path}: {error}") from error
    return line


def read_trials(path):
    """Return every line of `trials.jsonl` as a dict, oldest first; a half-written line is left out."""
    path = Path(path)
    if not path.exists():
        return []
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return found


def count_trials(path, *, notebook=None):
    """Return how many ways to train were scored: each figure of each configuration; repeated settings count once.

    Parameters
    ----------
    path : str or Path
        Of `trials.jsonl`; a missing file holds none.
    notebook : str, optional
        Count those of one notebook only.
    """
    scored = {
        each["fingerprint"]: len(each["figures"]) for each in read_trials(path) if notebook in (None, each["notebook"])
    }
    return sum(scored.values())


def describe_trials(n_trials, n_windows, share=0.5):
    """Say how many ways to train were scored in this project folder and what luck alone adds to the best of them."""
    if n_trials <= 1:
        return f"{n_trials} way to train was scored in this folder: nothing was chosen among several."
    luck = luck_of_the_best(n_trials, n_windows, share)
    return (
        f"{n_trials} ways to train were scored in this folder (arms times configurations): the best of as many equal "
        f"ones stands up to {100 * luck:.0f} points above its true share by chance alone ({n_windows} windows, a share "
        f"of {share:.2g})."
    )


def _ends_line(stream):
    """Tell whether a file that is open for reading ends with a line's end."""
    stream.seek(-1, 2)
    return stream.read(1) == b"\n"
