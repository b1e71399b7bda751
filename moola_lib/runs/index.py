"""`reports/index.html`: every run, newest first."""

from urllib.parse import quote

from moola_lib.files import write_text
from moola_lib.runs.html import (
    data_facts,
    format_date,
    page_environment,
    page_resources,
    status_kind,
)
from moola_lib.runs.notebook import format_seconds
from moola_lib.runs.project import reports_folder
from moola_lib.runs.record import list_runs


def build_index(root):
    """Write the page that lists all runs; return its path.

    A run whose record is damaged is left out and named at the foot of the page.
    """
    records, damaged = list_runs(root)
    rows = []
    for record in records:
        try:
            rows.append(_row(root, record))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # Valid JSON of another shape, an older version's or edited by hand.
            damaged.append(f"{record['run_id']}/run.json has an unexpected content ({error!r})")
    page = page_environment().get_template("runs.html.j2")
    path = root / "reports" / "index.html"
    write_text(path, page.render(page_resources(), rows=rows, damaged=damaged))
    return path


def gates_passed(gates):
    """Return `"7/9"`: gates passed, of those that were judged; empty if none was."""
    judged = [gate for gate in gates if gate.get("verdict") in ("PASS", "FAIL")]
    passed = sum(gate["verdict"] == "PASS" for gate in judged)
    return f"{passed}/{len(judged)}" if judged else ""


def _row(root, record):
    folder = reports_folder(root, record["run_id"])
    notebooks = []
    for stem in record["stems"]:
        has_page = (folder / f"{stem}.html").exists()
        href = f"{quote(record['run_id'])}/{quote(stem)}.html" if has_page else None
        notebooks.append((stem, href, record["notebooks"][stem]["status"]))
    data_text, data_kind = data_facts(record.get("data"))
    passed = gates_passed(record.get("gates") or [])
    seconds = record.get("seconds")
    facts = [
        ("Date", format_date(record["started_at"]), ""),
        ("Profile", record.get("profile"), ""),
        ("Data", data_text, data_kind),
        ("Gates passed", passed or "none judged", ""),
        ("Wall time", format_seconds(seconds) if seconds else None, ""),
    ]
    error = record.get("error")
    return {
        "run_id": record["run_id"],
        "status": record["status"],
        "status_kind": status_kind(record["status"]),
        "notebooks": notebooks,
        "facts": [fact for fact in facts if fact[1] is not None],
        "error": (error["message"].splitlines() or [""])[0] if error else None,
    }
