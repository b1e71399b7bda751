"""`reports/index.html`: every run, newest first, to sort and filter without a server."""

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
from urllib.parse import quote

from moola_lib.files import write_text
from moola_lib.runs.html import TEMPLATES, format_date, page_environment, page_resources, status_kind
from moola_lib.runs.notebook import format_seconds
from moola_lib.runs.project import reports_folder
from moola_lib.runs.record import list_runs, say_source

N_HEADLINES = 3  # figures that have a column of their own
LONGEST_REASON = 240  # letters; the run's page has the rest


@dataclass(frozen=True)
class Cell:
    """One cell of the table: what it shows, a smaller second line, and what it is sorted by."""

    text: str
    small: str = ""
    kind: str = ""
    key: str | float = ""


def build_index(root):
    """Write the page that lists all runs; return its path.

    A run whose record is damaged is left out and named at the foot of the page.
    """
    records, damaged = list_runs(root)
    rows, figures = [], _headlines(records)
    for record in records:
        try:
            rows.append(_row(root, record, figures))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # Valid JSON of another shape, an older version's or edited by hand.
            damaged.append(f"{record['run_id']}/run.json has an unexpected content ({error!r})")
    columns = ["Run", "Started (UTC)", "Status", "Profile", "Data", *figures, "Gates passed", "Wall time"]
    choices = {name: Counter(row["choices"][name] for row in rows) for name in ("Status", "Profile", "Data")}
    page = page_environment().get_template("runs.html.j2")
    path = root / "reports" / "index.html"
    sweeps = sorted(each.parent.name for each in path.parent.glob("sweeps/*/index.html"))
    text = page.render(_resources(), rows=rows, columns=columns, choices=choices, damaged=damaged, sweeps=sweeps)
    write_text(path, text)
    return path


def gates_passed(gates):
    """Return `"7/9"`: gates passed, of those that were judged; empty if none was."""
    n_passed, n_judged = _count_gates(gates)
    return f"{n_passed}/{n_judged}" if n_judged else ""


def headline_figures(gates):
    """Return the gates that carry a figure with its interval, by name, the first of each name.

    Parameters
    ----------
    gates : list of dict
        Keys `name`, `value`, `low`, `high`, `verdict`.
    """
    found = {}
    for gate in gates:
        if gate.get("low") is not None and gate.get("high") is not None:
            found.setdefault(gate["name"], gate)
    return found


def stop_reason(record):
    """Say in one line why a run did not finish; empty where it did, or has not ended."""
    error, status = record.get("error"), record["status"]
    if error:
        lines = str(error["message"]).splitlines() or [""]
        return lines[0] if len(lines[0]) <= LONGEST_REASON else lines[0][: LONGEST_REASON - 1] + "…"
    begun = [stem for stem in record["stems"] if record["notebooks"][stem]["status"] not in ("finished", "not run")]
    place = f" in {begun[-1]}" if begun else ""
    return f"interrupted{place}" if status == "interrupted" else ""


def _headlines(records):
    """Return the names of the figures to show: the first of the newest run that has any."""
    for record in records:
        gates = record.get("gates")
        if isinstance(gates, list) and all(isinstance(gate, dict) and "name" in gate for gate in gates):
            found = headline_figures(gates)
            if found:
                return list(found)[:N_HEADLINES]
    return []


def _row(root, record, figures):
    folder = reports_folder(root, record["run_id"])
    notebooks = []
    for stem in record["stems"]:
        has_page = (folder / f"{stem}.html").exists()
        href = f"{quote(record['run_id'])}/{quote(stem)}.html" if has_page else None
        notebooks.append((stem, href, record["notebooks"][stem]["status"]))
    data, gates, seconds = record.get("data") or {}, record.get("gates") or [], record.get("seconds")
    source = say_source(data)
    n_passed, n_judged = _count_gates(gates)
    found = headline_figures(gates)
    small = " ".join(str(data[name]) for name in ("symbol", "fingerprint") if data.get(name))
    cells = [
        Cell(format_date(record["started_at"]).removesuffix(" UTC"), key=record["started_at"]),
        Cell(record["status"], kind=f"status {status_kind(record['status'])}", key=record["status"]),
        Cell(str(record.get("profile") or "–"), key=str(record.get("profile") or "")),
        Cell(source, small, "warn" if data.get("is_simulated") else "", f"{source} {small}"),
        *(_figure_cell(found.get(name)) for name in figures),
        Cell(gates_passed(gates) or "–", kind="number", key=n_passed / n_judged if n_judged else ""),
        Cell(format_seconds(seconds) if seconds else "–", kind="number", key=seconds or ""),
    ]
    return {
        "run_id": record["run_id"],
        "notebooks": notebooks,
        "cells": cells,
        "choices": {"Status": record["status"], "Profile": cells[2].text, "Data": source},
        "reason": stop_reason(record),
    }


def _figure_cell(gate):
    """Return a figure with its interval below it."""
    if gate is None or gate.get("value") is None:
        return Cell("–", kind="number")
    interval = f"{gate['low']:.2f} to {gate['high']:.2f}"
    return Cell(f"{gate['value']:.2f}", interval, "number", float(gate["value"]))


def _count_gates(gates):
    """Return (passed, judged)."""
    judged = [gate for gate in gates if gate.get("verdict") in ("PASS", "FAIL")]
    return sum(gate["verdict"] == "PASS" for gate in judged), len(judged)


def _resources():
    """Return what the page holds: its style, its own script, and the policy that allows only it."""
    script = (TEMPLATES / "runs.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "style": page_resources()["style"] + (TEMPLATES / "runs.css").read_text(encoding="utf-8"),
        "script": script,
        "policy": (
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
            "form-action 'none'; base-uri 'none'"
        ),
    }
