"""A notebook as one offline page: nothing on it is asked from the network."""

import base64
import functools
import hashlib
import importlib.util
import os
import shutil
from pathlib import Path
from urllib.parse import quote

from moola_lib.files import replace_atomically, write_text
from moola_lib.runs.notebook import format_seconds

TEMPLATES = Path(__file__).parent / "template"
SCRIPTS = ("report.js", "report_figures.js")

NOT_RECORDED = "not recorded"


def render_report(ipynb_path, html_path, *, assets, run_info, is_single_file=False, is_code_shown=False):
    """Write the HTML page of an executed notebook, complete or partial.

    Parameters
    ----------
    ipynb_path, html_path : Path
    assets : Path
        Folder shared by all reports; gets `plotly.min.js` once.
    run_info : dict
        What the page says of its run, every entry optional: `run_id`, `stem`,
        `status`, `started_at`, `seconds`, `profile`, `data`, `git`, `seed`,
        `versions`, `device`, `peak_memory_mb`, `gpu_peak_memory_mb`, `error`, `siblings` (stems whose
        pages to link to). `reporting.report_info` makes it.
    is_single_file : bool
        Put plotly's script into the page (4.8 MB) and link to no other page.
    is_code_shown : bool
        Unfold the code, and print it too.

    Notes
    -----
    Findings, gates and the parameters that differ from the defaults stand
    first; the notebook's story follows. Plotly figures are drawn from JSON in
    the page; widgets are shown as their text. A Content-Security-Policy forbids
    every network request, whatever an output may contain.
    """
    import nbformat

    from moola_lib.runs.cells import changed_parameters, convert_cells
    from moola_lib.runs.page_tables import move_verdicts, prepare_tables

    ipynb_path, html_path = Path(ipynb_path), Path(html_path)
    notebook = nbformat.read(ipynb_path, as_version=4)
    changed = changed_parameters(notebook)
    cells = convert_cells(notebook, ipynb_path.parent)
    prepare_tables(cells)
    for fold in cells.select("details.code") if is_code_shown else ():
        fold["open"] = ""
    title = _take_title(cells, run_info.get("stem") or ipynb_path.stem)
    has_failed_cell = cells.find(id="failed") is not None
    findings, gates = _take_part(cells, "Findings"), _take_part(cells, "Gates")
    has_figures = any(part is not None and part.find(class_="figure") for part in (cells, findings, gates))
    if has_figures and not is_single_file:
        copy_plotly(Path(assets))
    plotly = plotly_script().read_text(encoding="utf-8") if has_figures and is_single_file else None
    page = page_environment().get_template("report.html.j2").render(
        page_resources(*([plotly] if plotly else [])),
        info=run_info,
        labels=summary_facts(run_info),
        facts=record_facts(run_info),
        title=title,
        findings=findings,
        gates=gates,
        verdicts=_count_verdicts(move_verdicts(gates) if gates else []),
        changed=changed,
        contents=_contents(cells),
        cells=cells,
        has_figures=has_figures,
        has_failed_cell=has_failed_cell,
        is_code_shown=is_code_shown,
        is_single_file=is_single_file,
        plotly=plotly,
        plotly_href=None if is_single_file else _href(Path(assets) / "plotly.min.js", html_path.parent),
        index_href=None if is_single_file else _href(Path(assets).parent / "index.html", html_path.parent),
    )  # fmt: skip
    write_text(html_path, page)


@functools.cache
def page_environment():
    """Return the jinja2 environment of the page templates; everything is escaped."""
    import jinja2

    return jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)


@functools.cache
def page_resources(*inline):
    """Return what every page holds: the style, the script, and the policy that allows only it.

    Parameters
    ----------
    *inline : str
        Further scripts that the page holds, to be allowed as well.
    """
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, *inline)]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return {
        "style": (TEMPLATES / "style.css").read_text(encoding="utf-8"),
        "report_style": (TEMPLATES / "report.css").read_text(encoding="utf-8"),
        "script": script,
        # plotly.js writes style elements, compiles its WebGL shaders' wrappers and uses blobs.
        "policy": (
            f"default-src 'none'; script-src 'self' file: {allowed} 'unsafe-eval'; "
            "style-src 'unsafe-inline'; img-src 'self' file: data: blob:; worker-src blob:; "
            "font-src data:; form-action 'none'; base-uri 'none'"
        ),
    }


def plotly_script():
    """Return the path of the installed plotly's script."""
    package = Path(importlib.util.find_spec("plotly").origin).parent
    return package / "package_data" / "plotly.min.js"


def copy_plotly(assets):
    """Put the installed plotly's script into `assets`, unless it is there already."""
    source, target = plotly_script(), assets / "plotly.min.js"
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        with replace_atomically(target) as temporary:
            shutil.copyfile(source, temporary)


def status_kind(status):
    """Return the colour class of a run's or notebook's status."""
    return {"finished": "good", "failed": "bad", "lost": "bad"}.get(status, "warn")


def data_facts(data):
    """Return (text, colour class) for what the numbers of a run rest on."""
    if not data:
        return NOT_RECORDED, ""
    is_simulated = data.get("is_simulated")
    kind = {True: "simulated", False: "real"}.get(is_simulated, "unknown")
    text = " ".join(str(part) for part in (kind, data.get("symbol"), data.get("fingerprint")) if part)
    return text, "warn" if is_simulated else ""


def format_date(stamp):
    """Return `"2026-11-20 03:15 UTC"` for the record's `"2026-11-20T03:15:00Z"`."""
    return f"{stamp[:10]} {stamp[11:16]} UTC" if stamp else ""


def summary_facts(info):
    """Return (text, colour class) for the line under the title: status, what the numbers rest on, when."""
    data = info.get("data") or {}
    facts = [(info.get("status"), status_kind(info.get("status")))]
    if data:
        kind = {True: "simulated bars", False: "real bars"}.get(data.get("is_simulated"), "bars of unknown origin")
        facts.append((" ".join(filter(None, (kind, data.get("symbol")))), "warn" if data.get("is_simulated") else ""))
        facts.append((_label_fact(data), "warn" if data.get("is_proposed") else ""))
    profile, run_id = info.get("profile"), info.get("run_id")
    facts += [(f"{profile} profile" if profile else None, ""), (f"run {run_id}" if run_id else None, "")]
    facts.append((format_date(info.get("started_at")), ""))
    return [(text, kind) for text, kind in facts if text]


def record_facts(info):
    """Return (name, value, colour class) for the record of a page; what is not known says so."""
    git, data, versions = (info.get(key) or {} for key in ("git", "data", "versions"))
    data_text, data_kind = data_facts(data)
    days = [str(data[key])[:16].replace("T", " ") for key in ("first_bar", "last_bar") if data.get(key)]
    dirty = " and uncommitted changes" if git.get("is_dirty") else ""
    memory = [(info.get("peak_memory_mb"), "MB"), (info.get("gpu_peak_memory_mb"), "MB on the GPU")]
    no_labels = "none used" if data and info.get("status") == "finished" else None
    facts = [
        ("Run", info.get("run_id"), ""),
        ("Date", format_date(info.get("started_at")), ""),
        ("Status", info.get("status"), status_kind(info.get("status")) if info.get("status") else ""),
        ("Profile", info.get("profile"), ""),
        ("Data", data_text, data_kind),
        ("Bars from, to (UTC)", " to ".join(days), ""),
        ("Labels", _label_fact(data) or no_labels, "warn" if data.get("is_proposed") else ""),
        ("Seed", info.get("seed"), ""),
        ("Code", git["commit"][:10] + dirty if git.get("commit") else None, "warn" if dirty else ""),
        ("Wall time", None if info.get("seconds") is None else format_seconds(info["seconds"]), ""),
        ("Device", info.get("device"), ""),
        ("Peak memory", ", ".join(f"{size:,} {unit}" for size, unit in memory if size is not None), ""),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items()), "long"),
    ]
    return [(name, NOT_RECORDED if value in (None, "") else value, kind) for name, value, kind in facts]


def _label_fact(data):
    """Return whose labels the numbers rest on; None where the record does not say."""
    if data.get("is_proposed") is None:
        return None
    if data["is_proposed"]:
        return "labels proposed by a rule"
    kind = "labels" if data.get("is_simulated") else "human labels"
    return f"{kind} from {data['label_source']}" if data.get("label_source") else kind


def _take_title(cells, stem):
    """Take the first h1 out of the cells; return its text, else one made of the stem."""
    if cells.h1 is None:
        return stem.partition("_")[2].replace("_", " ").capitalize() or stem
    title = cells.h1.extract()
    for anchor in title.find_all("a"):
        anchor.decompose()
    return title.get_text(strip=False).strip()


def _take_part(cells, heading):
    """Take a heading's sections, to the next h2, out of the cells; return them, or None."""
    from bs4 import BeautifulSoup

    start = cells.find("h2", id=heading)
    if start is None:
        return None
    first = start.find_parent("section")
    sections = [first]
    for section in first.find_next_siblings("section"):
        if section.h2 is not None:
            break
        sections.append(section)
    part = BeautifulSoup("", "html.parser")
    part.extend([section.extract() for section in sections])
    part.find("h2").decompose()  # the page has its own
    folds = part.new_tag("section", attrs={"class": "cell"})
    folds.extend(
        [fold.extract() for fold in part.select("section:not(#failed) > details.code")]
    )  # the answer comes before its code
    part.append(folds)
    return part


def _count_verdicts(verdicts):
    """Return how many of the judged gates passed, as (text, colour class)."""
    n_passed, n_failed = verdicts.count("PASS"), verdicts.count("FAIL")
    if not n_passed + n_failed:
        return "No gates were judged.", ""
    text = f"{n_passed} of {n_passed + n_failed} gates passed"
    return (f"✗ {text}, {n_failed} failed.", "bad") if n_failed else (f"✓ {text}.", "good")


def _contents(cells):
    """Return (anchor, text) for every h2 of the notebook's prose."""
    found = []
    for heading in cells.find_all("h2", id=True):
        anchor = heading.find("a", class_="anchor-link")
        if anchor is not None:
            anchor.decompose()
        found.append((heading["id"], heading.get_text().strip()))
    return found


def _href(path, folder):
    """Return the relative link from `folder` to `path`."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())
