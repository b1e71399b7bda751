"""Two runs' answers about the same windows, paired: were they asked the same, and which answered better?"""

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.runs.lineage import BARS, FINE_TUNING, LABELS
from moola_lib.runs.project import artifacts_folder
from moola_lib.runs.record import notebook_record

FEWEST_DAYS = 2  # to resample


class NotPaired(Exception):
    """Two runs' figures cannot be paired; the text says why."""


def compare_answers(root, run_id, baseline, *, n_bootstrap=1000, seed=17):
    """Compare the out-of-fold answers of two runs' notebook 04, paired by window, whole days resampled.

    Parameters
    ----------
    root : Path
    run_id, baseline : str
        Both with a finished notebook 04.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        As `evaluation.scores.compare_predictions`: positive differences are for
        `run_id`. `attrs` holds `n_windows` and `n_days`.

    Raises
    ------
    NotPaired
        Other bars, other labels, no window in common, or what is needed to tell
        is gone.
    """
    from moola_lib.evaluation.scores import compare_predictions
    from moola_lib.evaluation.suspicion import read_predictions

    _refuse_other_questions(root, run_id, baseline)
    paths = [artifacts_folder(root, each, FINE_TUNING) / "predictions.npz" for each in (run_id, baseline)]
    try:
        windows, is_valid = _place_windows(root, baseline)
        known, _ = read_predictions(paths[0], windows)
        known, theirs = read_predictions(paths[1], known)
        known, ours = read_predictions(paths[0], known)
    except UserError as error:
        raise NotPaired(str(error)) from error
    n_days = len(np.unique(known.day))
    if n_days < FEWEST_DAYS:
        raise NotPaired(f"both answered {len(known)} windows of {n_days} day; at least {FEWEST_DAYS} days are needed")
    rows = np.isin(windows.window_id.astype(str), known.window_id.astype(str))
    table = compare_predictions(known, ours, theirs, is_valid=is_valid[rows], n_bootstrap=n_bootstrap, seed=seed)
    table.attrs |= {"n_windows": len(known), "n_days": n_days}
    return table


def label_facts(root, run_id):
    """Return what a run's labels are in a word or two and their fingerprint; empty where the run has none."""
    record = notebook_record(root, run_id, FINE_TUNING) or notebook_record(root, run_id, LABELS)
    if record is None:
        return ""
    is_proposed = (record.get("data") or {}).get("is_proposed")
    try:
        known = _fingerprint(_read_labels(root, run_id))
    except NotPaired:
        known = "gone"
    return f"{'proposed by a rule, ' if is_proposed else ''}{known}"


def _refuse_other_questions(root, run_id, baseline):
    """Raise where two runs were asked about other bars or by other labels."""
    from moola_lib.labels.snapshots import compare_labels

    bars = [
        (notebook_record(root, each, FINE_TUNING).get("data") or {}).get("fingerprint") for each in (baseline, run_id)
    ]
    if bars[0] != bars[1]:
        raise NotPaired(f"other bars ({bars[0]}, {bars[1]})")
    before, after = (_read_labels(root, each) for each in (baseline, run_id))
    if _fingerprint(before) != _fingerprint(after):
        raise NotPaired(f"other labels ({compare_labels(before, after)})")


def _fingerprint(labels):
    from moola_lib.labels.snapshots import fingerprint_labels

    return fingerprint_labels(labels)


def _upstream(root, run_id, stem):
    """Return the artifacts of `stem` that a run's notebook 04 was built on."""
    record = notebook_record(root, run_id, FINE_TUNING) or {}
    return artifacts_folder(root, record.get("upstream_runs", {}).get(stem, run_id), stem)


def _read_labels(root, run_id):
    path = _upstream(root, run_id, LABELS) / "labels.parquet"
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise NotPaired(f"the labels of {run_id} are gone ({path.relative_to(root)})") from error


def _place_windows(root, run_id):
    """Return the labelled windows of a run on its bars and which of their rows are valid (n, K), as notebook 04."""
    from moola_lib.features import FeatureTable
    from moola_lib.labels.targets import WINDOW_BARS
    from moola_lib.market import load_bars
    from moola_lib.windows import place_labels
    from moola_lib.windows.groups import group_by_shared_bars

    labelled = _upstream(root, run_id, LABELS)
    has_own_bars = (labelled / "bars.parquet").exists()
    source = labelled if has_own_bars else _upstream(root, run_id, BARS)
    bars = load_bars(source / "bars.parquet")
    table = FeatureTable.load(source / "features", bars_fingerprint=bars.fingerprint)
    windows, _ = place_labels(_read_labels(root, run_id), bars.frame, table.starts)
    if has_own_bars:
        windows, _ = group_by_shared_bars(windows, bars.frame)
    return windows, table.is_valid[windows.place[:, None] + np.arange(WINDOW_BARS)]
