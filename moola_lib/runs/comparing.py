"""`moola compare`: what differs between runs, and whether their figures do."""

import subprocess
from dataclasses import dataclass, field

import pandas as pd

from moola_lib.errors import UserError
from moola_lib.runs.comparison_tables import (
    gates_table,
    paired_table,
    parameters_table,
    runs_table,
    scores_table,
    seeds_table,
)
from moola_lib.runs.paired_answers import NotPaired, compare_answers, label_facts
from moola_lib.runs.project import artifacts_folder, check_run_id
from moola_lib.runs.record import notebook_record, read_run
from moola_lib.runs.rows import read_rows

FINE_TUNING = "04_fine_tuning"
LOSSES = ("validation_loss", "validation_huber", "train_loss", "train_huber")  # the first that a row has is drawn


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found.

    Attributes
    ----------
    run_ids : list of str
        The baseline first.
    warnings : list of str
        What keeps figures from being compared: other bars, other labels.
    tables : list of Table
    paired : dict of str to DataFrame
        Run to `evaluation.scores.compare_predictions` with the baseline.
    scores : dict of str to DataFrame
        Run to its figures: `metric`, `meaning`, `unit`, `value`, `low`, `high`.
    curves : dict of str to dict
        Notebook to run to a list of (epochs, losses), one per fold.
    code : dict of str to str
        Run to what changed in the code since the baseline's commit.
    """

    run_ids: list
    warnings: list
    tables: list
    paired: dict = field(default_factory=dict)
    scores: dict = field(default_factory=dict)
    curves: dict = field(default_factory=dict)
    code: dict = field(default_factory=dict)


def compare_runs(root, run_ids, baseline=None):
    """Compare runs with one of them.

    Parameters
    ----------
    root : Path
    run_ids : sequence of str
        At least two different ones, the baseline's among them or not.
    baseline : str, optional
        Default the first.

    Returns
    -------
    Comparison

    Raises
    ------
    UserError
        There is no such run, or its record is damaged, or only one was named.
    """
    baseline = baseline or run_ids[0]
    run_ids = list(dict.fromkeys([baseline, *run_ids]))
    if len(run_ids) < 2:
        raise UserError(f"only run {baseline!r} was named; give at least two: moola compare RUN RUN")
    records = {run_id: read_run(root, check_run_id(run_id)) for run_id in run_ids}
    parameters = {run_id: parameters_behind(root, record) for run_id, record in records.items()}
    scores = {run_id: found for run_id in run_ids if (found := read_scores(root, run_id)) is not None}
    labels = {run_id: label_facts(root, run_id) for run_id in run_ids}
    paired, warnings = {}, []
    for run_id in [run_id for run_id in run_ids[1:] if {run_id, baseline} <= scores.keys()]:
        try:
            paired[run_id] = compare_answers(root, run_id, baseline)
        except NotPaired as reason:
            warnings.append(f"{run_id} and {baseline} are not paired: {reason}. Their intervals stand side by side.")
    missing = [run_id for run_id in run_ids if run_id not in scores]
    if missing:
        warnings.append(f"No figures of {FINE_TUNING} in {', '.join(missing)}.")
    tables = [
        runs_table(records, labels),
        parameters_table(parameters),
        *(paired_table(run_id, baseline, table) for run_id, table in paired.items()),
        scores_table(scores),
        seeds_table(parameters, scores, labels),
        gates_table(records),
    ]
    return Comparison(
        run_ids,
        warnings,
        [table for table in tables if table is not None],
        paired,
        scores,
        _read_curves(root, records),
        {run_id: code_changes(root, records[baseline], records[run_id]) for run_id in run_ids[1:]},
    )


def parameters_behind(root, record):
    """Return the parameters of a run's notebooks and of those of other runs that it was built on, by notebook."""
    found = {stem: dict(values) for stem, values in record.get("parameters", {}).items()}
    for stem in record["stems"]:
        upstream = (notebook_record(root, record["run_id"], stem) or {}).get("upstream_runs", {})
        for other, run_id in upstream.items():
            if other not in found and (own := notebook_record(root, run_id, other)) is not None:
                found[other] = own.get("parameters") or {}
    return dict(sorted(found.items()))


def read_scores(root, run_id):
    """Return the figures of a run's first arm, as `scores.parquet` holds them; None without a finished notebook 04."""
    path = artifacts_folder(root, run_id, FINE_TUNING) / "scores.parquet"
    if notebook_record(root, run_id, FINE_TUNING) is None or not path.exists():
        return None
    try:
        table = pd.read_parquet(path)
        table = table[table["arm"] == table["arm"].iloc[0]]
        return table[["metric", "meaning", "unit", "value", "low", "high", "n"]].reset_index(drop=True)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the notebook again") from error


def code_changes(root, before, after):
    """Say what changed in the code between two runs: `git diff --stat` of their commits, or why it is not known."""
    commits = [(record.get("git") or {}).get("commit") for record in (before, after)]
    if None in commits:
        return "not known: one of the records names no commit"
    dirty = [record["run_id"] for record in (before, after) if record["git"].get("is_dirty")]
    aside = f"\nnot counted: uncommitted changes in {' and '.join(dirty)}" if dirty else ""
    if commits[0] == commits[1]:
        return f"the same commit, {commits[0][:10]}{aside}"
    words = ["git", "-C", str(root), "diff", "--stat=100", *commits, "--"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"not known: this repository lacks {commits[0][:10]} or {commits[1][:10]}"
    return (done.stdout.rstrip() or "no file differs") + aside


def _read_curves(root, records):
    """Return the losses of each notebook's first kind of training, by run, one pair of lists per fold."""
    curves = {}
    for run_id, record in records.items():
        for stem in record["stems"]:
            path = artifacts_folder(root, run_id, stem) / "metrics.jsonl"
            if path.exists() and (found := _first_training(path)):
                curves.setdefault(stem, {})[run_id] = found
    return {stem: by_run for stem, by_run in sorted(curves.items()) if len(by_run) > 1}


def _first_training(path):
    """Return (epochs, losses) per fold of the training whose rows come first."""
    folds, first = {}, None
    for row in read_rows(path):
        name = next((name for name in LOSSES if name in row), None)
        if name is None or "epoch" not in row:
            continue
        label = str(row.get("label", ""))
        kind = label.partition(", fold")[0]
        first = kind if first is None else first
        if kind == first:
            epochs, losses = folds.setdefault(label, ([], []))
            epochs.append(row["epoch"])
            losses.append(row[name])  # null where it was no number: a gap in the line
    return list(folds.values())
