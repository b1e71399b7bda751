"""The page of a sweep: which arm is best and how much of that is luck, every arm, every run, what failed and why."""

import json
from urllib.parse import quote

from moola_lib.evaluation.selection import arm_means, describe_selection, select_best
from moola_lib.files import replace_atomically, write_text
from moola_lib.runs.comparison_tables import Table
from moola_lib.runs.html import copy_plotly, format_date, page_environment, page_resources
from moola_lib.runs.notebook import format_seconds
from moola_lib.runs.project import reports_folder
from moola_lib.runs.record import notebook_record
from moola_lib.runs.sweeps.ledger import FAILED, FINISHED
from moola_lib.runs.sweeps.plan import sweep_folder
from moola_lib.runs.sweeps.results import collect_results, count_statuses, say_value
from moola_lib.runs.terminal import say_count

PAGE, RESULTS = "index.html", "results.csv"
N_NAMED = 12  # figures that are named where the chosen one is missing


def write_report(root, state):
    """Write a sweep's page and the table of its runs; return the page's path.

    Parameters
    ----------
    root : Path
    state : dict
        See `ledger.Ledger`.

    Returns
    -------
    Path
        `reports/sweeps/NAME/index.html`; `results.csv` lies beside it.
    """
    folder = sweep_folder(root, state["name"])
    runs = collect_results(root, state)
    with replace_atomically(folder / RESULTS) as temporary:
        runs.to_csv(temporary, index=False)
    arms = arm_means(runs, is_higher_better=state["is_higher_better"])
    selection = select_best(arms) if len(arms) else None
    arms = arms.merge(runs.drop_duplicates("arm")[["arm", *state["varied"]]], on="arm", how="left")
    figures = draw_figures(state, runs, arms[arms["is_complete"]], selection) if selection else []
    copy_plotly(root / "reports" / "assets")
    text = page_environment().get_template("sweep.html.j2").render(
        page_resources(),
        state=state,
        summary=_summarise(state),
        verdict=describe_selection(selection) if selection else _say_nothing_scored(state, runs, arms),
        figures=[(words, _data(figure)) for words, figure in figures],
        tables=[_arms_table(state, arms, runs, selection), *_failed_tables(runs)],
        runs=_runs_rows(root, state, runs),
        facts=_facts(root, state, runs),
    )  # fmt: skip
    write_text(folder / PAGE, text)
    return folder / PAGE


def draw_figures(state, runs, arms, selection):
    """Return (text for who cannot see it, plotly Figure) for each figure of a sweep."""
    from moola_lib.figures.sweeps import N_DRAWN, arms_figure, parallel_figure, parameter_figure

    metric, names = state["metric"], [name for name in state["varied"] if arms[name].astype(str).nunique() > 1]
    luck = None
    title = "Arms, the best on top" if len(arms) <= N_DRAWN else f"The best {N_DRAWN} of {len(arms)} arms"
    if selection.n_arms > 1 and selection.spread_of:
        middle = arms["mean"].mean()
        luck = middle, middle + (selection.luck_high if state["is_higher_better"] else -selection.luck_high)
        title += "; shaded: where the best of equal arms would be"
    words = f"{title}, by {metric}. The numbers are in the table of arms."
    found = [(words, arms_figure(arms, runs, names, metric=metric, title=title, luck=luck))]
    if len(names) > 1:
        title = "Every arm across its parameters"
        words = f"{title}: parallel coordinates that end at {metric}, the best arm thick."
        found.append((words, parallel_figure(arms, names, metric=metric, title=title)))
    for name in names:
        found.append((f"{metric} by {name}, a dot an arm.", parameter_figure(arms, name, metric=metric)))
    return found


def _summarise(state):
    """Say how many runs there are, and how far they are."""
    counts = {status: count for status, count in count_statuses(state).items() if count}
    parts = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{say_count(len(state['runs']), 'run')} of {state['notebook']}: {parts}."


def _say_nothing_scored(state, runs, arms):
    """Say why no arm can be named: no arm has all its runs, or what finished has no such figure."""
    if len(arms):
        return "No arm has all its runs yet."
    if not (runs["status"] == FINISHED).any():
        return "No run has finished yet."
    known = runs.attrs["figures"]
    named = "; ".join(known[:N_NAMED]) + ("; …" if len(known) > N_NAMED else "") or "none"
    return (
        f"The finished runs have no figure named “{state['metric']}”. They have: {named}. Change the metric in "
        f"{state['file']} and give the command again: finished runs are not repeated."
    )


def _arms_table(state, arms, runs, selection):
    """Return the arms, the best first; those without a figure last."""
    n_failed = runs[runs["status"] == FAILED].groupby("arm").size()
    without = runs[~runs["arm"].isin(arms["arm"])].drop_duplicates("arm").assign(n=0, mean=float("nan"))
    rows = []
    for row in [*arms.to_dict("records"), *without.to_dict("records")]:
        values = [_text(row[name]) for name in state["varied"]] or [row["arm"]]
        mean = "–" if row["mean"] != row["mean"] else f"{row['mean']:.4f}"
        failed = str(n_failed.get(row["arm"], "")) if len(n_failed) else None
        cells = [*values, str(row["n"]), mean, "–" if not row["n"] else _interval(row)]
        rows.append(cells if failed is None else [*cells, failed])
    columns = [*(state["varied"] or ["arm"]), "runs", "mean", "95% interval", *(["failed"] if len(n_failed) else [])]
    interval = {
        "seeds": "from the spread over seeds, pooled over arms, and says how far seeds carry, not other windows",
        "windows": "that of the runs themselves: their seeds tell nothing",
        None: "missing: one run an arm, and none of its own",
    }[selection.spread_of if selection else None]
    side = "more" if state["is_higher_better"] else "less"
    return Table("Arms", columns, rows, f"{state['metric']}, {side} is better. The interval is {interval}.")


def _failed_tables(runs):
    """Return a table of the runs that failed and why, or none where none did."""
    failed = runs[runs["status"] == FAILED]
    rows = [[row.run_id, row.arm, str(row.seed), str(row.n_tries), row.reason] for row in failed.itertuples()]
    columns = ["run", "arm", "seed", "tries", "reason of the last"]
    return [Table("Failed", columns, rows, "The rest went on without them.")] if rows else []


def _runs_rows(root, state, runs):
    """Return (id, link or None, texts) of every run."""
    rows = []
    for row in runs.to_dict("records"):
        value = "–" if row["value"] != row["value"] else f"{row['value']:.4f}"
        told = f"{value} ({_interval(row)})" if row["low"] == row["low"] else value
        seconds = format_seconds(row["seconds"]) if row["seconds"] and row["seconds"] == row["seconds"] else "–"
        has_page = (reports_folder(root, row["run_id"]) / f"{state['notebook']}.html").exists()
        href = f"../../{quote(row['run_id'])}/{quote(state['notebook'])}.html" if has_page else None
        cells = [row["arm"], str(row["seed"]), row["status"], told, seconds, str(row["n_lost"] or "–")]
        rows.append((row["run_id"], href, cells))
    return rows


def _facts(root, state, runs):
    """Return (name, value) of what the sweep was."""
    codes = {}
    for run_id in runs.loc[runs["status"] == FINISHED, "run_id"]:
        git = (notebook_record(root, run_id, state["notebook"]) or {}).get("git") or {}
        code = (git.get("commit") or "not known")[:10] + (" and uncommitted changes" if git.get("is_dirty") else "")
        codes[code] = codes.get(code, 0) + 1
    seconds = runs["seconds"].sum()
    upstreams = {f"{stem} of run {run_id}" for taken in state["upstreams"].values() for stem, run_id in taken.items()}
    return [
        ("Asked for in", state["file"]),
        ("Profile", state["profile"]),
        ("Fixed", ", ".join(f"{name} {say_value(value)}" for name, value in state["fixed"].items()) or "nothing"),
        ("Built on", ", ".join(sorted(upstreams)) or "no other run"),
        ("Code", ", ".join(f"{code} ({say_count(count, 'run')})" for code, count in codes.items()) or "–"),
        ("Begun", format_date(state["started_at"])),
        ("Time of all runs together", format_seconds(seconds) if seconds else "–"),
    ]


def _text(value):
    return f"{value:g}" if isinstance(value, float) else str(value)


def _interval(row):
    return "–" if row["low"] != row["low"] else f"{row['low']:.3f} to {row['high']:.3f}"


def _data(figure):
    """Return a figure as JSON that may stand in a page."""
    return json.dumps(json.loads(figure.to_json()), separators=(",", ":")).replace("<", "\\u003c")
