"""The tables of a comparison of runs, as texts: for the terminal and for the page."""

import itertools
import json
from dataclasses import dataclass

import pandas as pd

from moola_lib.files import fingerprint
from moola_lib.runs.html import format_date
from moola_lib.runs.record import say_source

IN_TERMINAL = (  # the figures that the terminal shows, and that are averaged over seeds
    "hit3_start", "joint3", "centre_mae", "length_mae", "inside_f1", "inside_ap", "type_macro_f1", "start_log_score",
)  # fmt: skip
NO_GATE = "no such gate"
NOT_A_SETTING = ("seed", "upstream_run")  # what two runs of one configuration may differ in


@dataclass(frozen=True)
class Table:
    """A table for a reader, of texts; `note` says how to read it, `n_short` how many rows the terminal shows."""

    title: str
    columns: list
    rows: list
    note: str = ""
    n_short: int | None = None


def runs_table(records, labels):
    """Return what each run was; `labels` says by run what its labels are."""
    rows = []
    for run_id, record in records.items():
        data, git = record.get("data") or {}, record.get("git") or {}
        source = say_source(data)
        commit = (git.get("commit") or "not known")[:10] + (" + changes" if git.get("is_dirty") else "")
        bars = " ".join(str(part) for part in (source, data.get("symbol"), data.get("fingerprint")) if part)
        facts = [record["status"], record.get("profile") or "", bars, labels[run_id], commit]
        rows.append([run_id, format_date(record["started_at"]), *facts])
    return Table(
        "Runs", ["run", "started", "status", "profile", "bars", "labels", "code"], rows, "The first is the baseline."
    )


def parameters_table(parameters):
    """Return what differs in the notebooks that at least two runs have."""
    rows = []
    for stem in sorted(set(itertools.chain(*parameters.values()))):
        having = [values[stem] for values in parameters.values() if stem in values]
        for name in sorted(set(itertools.chain(*having))) if len(having) > 1 else ():
            said = [_say(values.get(name, ...)) for values in having]
            if len(set(said)) > 1 and name != "upstream_run":
                rows.append(
                    [stem, name, *(_say(v[stem].get(name, ...)) if stem in v else "–" for v in parameters.values())]
                )
    note = "" if rows else "The runs have the same parameters in the notebooks that they share."
    return Table("Parameters that differ", ["notebook", "parameter", *parameters], rows, note)


def _say(value):
    """Return a parameter's value as text; an older version may not have known it."""
    return "not known then" if value is ... else value if isinstance(value, str) else json.dumps(value)


def paired_table(run_id, baseline, table):
    """Return the paired differences of one run's answers to the baseline's."""
    ordered = pd.concat([table[table["metric"].isin(IN_TERMINAL)], table[~table["metric"].isin(IN_TERMINAL)]])
    rows = []
    for row in ordered.itertuples():
        levels = [f"{level:.3f}" for level in (row.other, row.value)]
        difference, low, high = (
            f"{value + 0.0:+.3f}" for value in (row.difference, row.low, row.high)
        )  # no minus zero
        verdict = "SAME" if row.difference == row.low == row.high == 0 else row.verdict
        rows.append([row.meaning, *levels, difference, f"{low} to {high}", verdict])
    counts = f"{table.attrs['n_windows']} windows of {table.attrs['n_days']} days"
    note = (
        f"Out-of-fold answers about the same {counts}, paired by window, whole days resampled; better is +. "
        "Not adjusted for the number of figures, and blind to the luck of a seed."
    )
    n_short = int(table["metric"].isin(IN_TERMINAL).sum())
    columns = ["figure", baseline, run_id, "better by", "95% interval", "verdict"]
    return Table(f"{run_id} against {baseline}", columns, rows, note, n_short)


def scores_table(scores):
    """Return every run's figures with their own intervals, side by side."""
    if not scores:
        return None
    meanings = {row.metric: f"{row.meaning} ({row.unit})" for table in scores.values() for row in table.itertuples()}
    names = [name for name in IN_TERMINAL if name in meanings]
    n_short = len(names)
    names += [name for name in meanings if name not in names]
    cells = {
        run_id: {row.metric: _interval(row.value, row.low, row.high) for row in table.itertuples()}
        for run_id, table in scores.items()
    }
    rows = [[meanings[name], *(cells[run_id].get(name, "–") for run_id in scores)] for name in names]
    note = "Each run's own 95% intervals: not paired, overlap says little."
    return Table("Figures side by side", ["figure", *scores], rows, note, n_short)


def seeds_table(parameters, scores, labels):
    """Return means over runs that differ in nothing but seeds; None where there are no two."""
    if len(scores) < 2:
        return None
    common = set.intersection(*(set(parameters[run_id]) for run_id in scores))
    groups = {}
    for run_id in scores:
        settings = {
            stem: {name: value for name, value in values.items() if name not in NOT_A_SETTING}
            for stem, values in parameters[run_id].items() if stem in common
        }  # fmt: skip
        key = fingerprint(json.dumps(settings, sort_keys=True)), labels[run_id]
        groups.setdefault(key, []).append(run_id)
    rows = []
    for members in groups.values():
        seeds = {run_id: tuple(v.get("seed") for v in parameters[run_id].values()) for run_id in members}
        if len(set(seeds.values())) < 2:
            continue
        table = pd.concat([scores[run_id] for run_id in members])
        for metric in [name for name in IN_TERMINAL if (table["metric"] == name).any()]:
            values = table.loc[table["metric"] == metric]
            mean, low, high = _mean_interval(values["value"])
            rows.append([", ".join(members), values["meaning"].iloc[0], _interval(mean, low, high), str(len(values))])
    if not rows:
        return None
    note = (
        "Runs that differ in seeds only: mean and its 95% interval by Student's t over runs, none where all are equal. "
        "It says how far seeds carry, not how far another set of windows would."
    )
    return Table("Over seeds", ["runs", "figure", "mean (95%)", "n"], rows, note)


def _mean_interval(values):
    """Return (mean, low, high) of a mean over runs; NaN for the ends where equal values show no spread."""
    from scipy import stats

    if values.nunique() == 1:
        return float(values.iloc[0]), float("nan"), float("nan")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - reach, mean + reach


def gates_table(records):
    """Return the gates whose verdict differs between the runs that ran their notebook."""
    verdicts = {}
    for run_id, record in records.items():
        for gate in record.get("gates") or []:
            verdicts.setdefault((gate["notebook"], gate["name"]), {})[run_id] = gate
    rows = []
    for (stem, name), found in verdicts.items():
        having = [
            run_id
            for run_id, record in records.items()
            if any(g["notebook"] == stem for g in record.get("gates") or [])
        ]
        if len({found.get(run_id, {}).get("verdict") for run_id in having}) > 1:
            cells = [_say_gate(found.get(run_id)) if run_id in having else "–" for run_id in records]
            rows.append([stem, name, *cells])
    rows.sort(key=lambda row: NO_GATE in row)  # a gate that came or went says less than one that turned
    note = "" if rows else "Every gate that two runs share has the same verdict."
    return Table("Gates that changed", ["notebook", "gate", *records], rows, note)


def _say_gate(gate):
    if gate is None:
        return NO_GATE
    value = gate.get("value")
    return gate["verdict"] if value is None else f"{gate['verdict']} {value:.3g}"


def _interval(value, low, high):
    return f"{value:.3f}" if pd.isna(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"
