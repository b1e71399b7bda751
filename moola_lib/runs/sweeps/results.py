"""What the runs of a sweep have found, read from their records: the chosen figure of each, and which are missing."""

from moola_lib.runs.comparing import FINE_TUNING, read_scores
from moola_lib.runs.record import notebook_record
from moola_lib.runs.sweeps.ledger import FAILED, FINISHED, INTERRUPTED, RUNNING, WAITING

FACTS = ("seconds", "n_tries", "n_lost", "reason")


def read_figures(root, run_id, stem):
    """Return a run's figures by name: of its gates, and of `scores.parquet` where it has one.

    Returns
    -------
    dict of str to (float, float or None, float or None)
        Value and 95% interval.
    """
    record = notebook_record(root, run_id, stem) or {}
    figures = {}
    if stem == FINE_TUNING and (scores := read_scores(root, run_id)) is not None:
        for row in scores.itertuples():
            figures[row.metric] = (row.value, row.low, row.high)
    for gate in record.get("gates") or []:
        if gate.get("value") is not None:
            figures.setdefault(gate["name"], (gate["value"], gate.get("low"), gate.get("high")))
    return figures


def collect_results(root, state):
    """Return the table of a sweep's runs, a row each.

    Parameters
    ----------
    root : Path
    state : dict
        See `ledger.Ledger`.

    Returns
    -------
    DataFrame
        `run_id`, `arm` (its varied parameters in words), one column per varied
        parameter, `seed`, `status`, `value`, `low`, `high` (of the sweep's
        figure; NaN where a run has none), `seconds`, `n_tries`, `n_lost`,
        `reason`. `attrs["figures"]`: the names of all figures that runs have.
    """
    import pandas as pd

    rows, names = [], {}
    for run_id, entry in state["runs"].items():
        figures = read_figures(root, run_id, state["notebook"]) if entry["status"] == FINISHED else {}
        names |= dict.fromkeys(figures)
        value, low, high = figures.get(state["metric"], (None, None, None))
        rows.append(
            {"run_id": run_id, "arm": say_arm(entry["arm"])}
            | {name: say_value(entry["arm"].get(name)) for name in state["varied"]}
            | {"seed": entry["seed"], "status": entry["status"], "value": value, "low": low, "high": high}
            | {name: entry[name] for name in FACTS}
        )
    columns = ["run_id", "arm", *state["varied"], "seed", "status", "value", "low", "high", *FACTS]
    table = pd.DataFrame(rows, columns=columns).astype({"value": float, "low": float, "high": float, "seconds": float})
    table.attrs["figures"] = list(names)
    return table


def say_arm(arm):
    """Return an arm in words: `batch_size 8, dropout 0.2`."""
    return ", ".join(f"{name} {say_value(value)}" for name, value in arm.items()) or "the notebook's own"


def say_value(value):
    """Return a parameter's value as text, unless it is a number to be drawn on an axis."""
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "null"
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value if isinstance(value, (int, str)) else str(value)


def count_statuses(state):
    """Return how many runs of a sweep have each status."""
    counts = dict.fromkeys((FINISHED, FAILED, INTERRUPTED, RUNNING, WAITING), 0)
    for entry in list(state["runs"].values()):  # a display may count while a search adds
        counts[entry["status"]] += 1
    return counts
