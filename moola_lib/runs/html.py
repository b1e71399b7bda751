"""A notebook as one offline page: nothing on it is asked from the network."""

import base64
import functools
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
from pathlib import Path

from moola_lib.files import replace_atomically, write_text
from moola_lib.runs.notebook import format_seconds

TEMPLATES = Path(__file__).parent / "template"

_PLOTLY = "application/vnd.plotly.v1+json"
_CELL = re.compile(r"(?s)<td>(.*?)</td>")
_NUMBER = re.compile(r"([-+−]?[\d.,]+(e[-+]?\d+)?\s?%?|NaN|NaT|None|&lt;NA&gt;|True|False|)")


def render_report(ipynb_path, html_path, *, assets, run_info):
    """Write the HTML page of an executed notebook, complete or partial.

    Parameters
    ----------
    ipynb_path, html_path : Path
    assets : Path
        Folder shared by all reports; gets `plotly.min.js` once.
    run_info : dict
        For the header, every entry optional: `run_id`, `stem`, `status`,
        `started_at`, `seconds`, `profile`, `data`, `git`, `seed`, `error`,
        `siblings` (stems whose pages to link to).

    Notes
    -----
    Plotly figures are drawn from JSON in the page by the shared script;
    widgets are shown as their text. A Content-Security-Policy forbids every
    network request, whatever an output may contain.
    """
    import nbformat

    ipynb_path, html_path, assets = Path(ipynb_path), Path(html_path), Path(assets)
    notebook = nbformat.read(ipynb_path, as_version=4)
    has_figures = _prepare_outputs(notebook)
    resources = {"metadata": {"path": str(ipynb_path.parent)}}
    cells, _ = _exporter().from_notebook_node(notebook, resources)
    cells = re.sub(r"(?s)<table.*?</table>", _prepare_table, cells)
    cells = re.sub(r"(?i)\b(src|srcset)\s*=\s*([\"'])(https?:)?//.*?\2", "data-not-offline", cells)
    cells, title_html = _take_title(cells, run_info.get("stem") or ipynb_path.stem)
    if has_figures:
        copy_plotly(assets)
    here = html_path.parent
    page = page_environment().get_template("report.html.j2").render(
        page_resources(),
        info=run_info,
        facts=_facts(run_info),
        title=_without_tags(title_html),
        title_html=title_html,
        contents=_contents(cells),
        cells=cells,
        has_figures=has_figures,
        has_failed_cell='id="failed"' in cells,
        plotly_href=_href(assets / "plotly.min.js", here),
        index_href=_href(assets.parent / "index.html", here),
    )  # fmt: skip
    write_text(html_path, page)


@functools.cache
def page_environment():
    """Return the jinja2 environment of the page templates; everything is escaped."""
    import jinja2

    return jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)


@functools.cache
def page_resources():
    """Return what every page holds: the style, the script, and the policy that allows only it."""
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "style": (TEMPLATES / "style.css").read_text(encoding="utf-8"),
        "script": script,
        # plotly.js writes style elements, compiles its WebGL shaders' wrappers and uses blobs.
        "policy": (
            f"default-src 'none'; script-src 'self' file: 'sha256-{digest}' 'unsafe-eval'; "
            "style-src 'unsafe-inline'; img-src 'self' file: data: blob:; worker-src blob:; "
            "font-src data:; form-action 'none'; base-uri 'none'"
        ),
    }


def copy_plotly(assets):
    """Put the installed plotly's script into `assets`, unless it is there already."""
    package = Path(importlib.util.find_spec("plotly").origin).parent
    source, target = package / "package_data" / "plotly.min.js", assets / "plotly.min.js"
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        with replace_atomically(target) as temporary:
            shutil.copyfile(source, temporary)


def status_kind(status):
    """Return the colour class of a run's or notebook's status."""
    return {"finished": "good", "failed": "bad", "lost": "bad"}.get(status, "warn")


def data_facts(data):
    """Return (text, colour class) for what the numbers of a run rest on."""
    if not data:
        return "not recorded", ""
    is_simulated = data.get("is_simulated")
    kind = {True: "simulated", False: "real"}.get(is_simulated, "unknown")
    text = " ".join(str(part) for part in (kind, data.get("symbol"), data.get("fingerprint")) if part)
    return text, "warn" if is_simulated else ""


def format_date(stamp):
    """Return `"2026-11-20 03:15 UTC"` for the record's `"2026-11-20T03:15:00Z"`."""
    return f"{stamp[:10]} {stamp[11:16]} UTC" if stamp else ""


@functools.cache
def _exporter():
    """Return nbconvert's exporter with our cell template (its import costs 1.5 s)."""
    from nbconvert import HTMLExporter
    from nbconvert.filters import strip_ansi
    from traitlets.config import Config

    log = logging.getLogger("moola.nbconvert")
    log.setLevel(logging.ERROR)  # it warns of every image without an alternative text
    exporter = HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": list(_PRIORITY)}}),
        template_name="template",
        extra_template_basedirs=[str(TEMPLATES.parent)],
        embed_images=True,
        log=log,
    )
    exporter.register_filter("strip_ansi", strip_ansi)
    return exporter


_PRIORITY = (
    "text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg",
    "text/latex", "text/plain",
)  # fmt: skip


def _prepare_outputs(notebook):
    """Keep of every output what needs no kernel and no network; return whether any is a figure."""
    has_figures = False
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if _PLOTLY in data:
                has_figures = True
                output["data"] = {"text/html": _figure(data[_PLOTLY])}
            elif "text/html" in data:
                data["text/html"] = re.sub(
                    r"(?is)<script.*?(</script\s*>|$)|<style scoped>.*?</style>|<link[^>]*>",
                    "",
                    data["text/html"],
                )
        if "outputs" in cell:  # what is left can be shown: scripts and widgets without text go
            cell.outputs = [o for o in cell.outputs if "data" not in o or {*o["data"]} & {*_PRIORITY}]
    return has_figures


def _figure(figure):
    """Return a plotly figure as an element holding its JSON; `report.js` draws it."""
    text = json.dumps(figure, separators=(",", ":")).replace("<", "\\u003c")
    return f'<div class="figure"><script type="application/json">{text}</script></div>'


def _prepare_table(match):
    """Wrap a table so that it scrolls by itself; align a frame's columns by what they hold."""
    table = match.group(0)
    if 'class="dataframe"' in table:
        rows = [_CELL.findall(row) for row in re.findall(r"(?s)<tr.*?</tr>", table)]
        is_words = [
            any(_NUMBER.fullmatch(text.strip()) is None for text in column)
            for column in zip(*(row for row in rows if row), strict=False)
        ]

        def mark_row(row):
            columns = iter(is_words)
            return _CELL.sub(lambda cell: _mark_cell(cell.group(1), next(columns, False)), row[0])

        def mark_head(head):
            names = re.findall(r"(?s)<th>(.*?)</th>", head[0])
            if head[0].count("<tr") > 1 or len(names) < len(is_words):
                return head[0]
            columns = iter([False] * (len(names) - len(is_words)) + is_words)
            return re.sub(r"<th>", lambda _: '<th class="words">' if next(columns) else "<th>", head[0])

        table = re.sub(r"(?s)<tr.*?</tr>", mark_row, table)
        table = re.sub(r"(?s)<thead>.*?</thead>", mark_head, table)
    return f'<div class="scroll">{table}</div>'


def _mark_cell(text, is_words):
    """Return a table cell with the classes its text calls for."""
    classes = ["words"] if is_words else []
    if text.strip() in ("PASS", "FAIL"):
        classes.append(f"verdict-{text.strip()}")
    elif text.strip() in ("NaN", "NaT", "None", "&lt;NA&gt;"):
        classes.append("absent")
    return f'<td class="{" ".join(classes)}">{text}</td>' if classes else f"<td>{text}</td>"


def _take_title(cells, stem):
    """Return the cells without their first h1, and that h1's HTML (else the stem)."""
    match = re.search(r"(?s)<h1[^>]*>(.*?)(<a class=\"anchor-link\".*?</a>)?</h1>", cells)
    if match is None:
        return cells, stem.partition("_")[2].replace("_", " ").capitalize() or stem
    return cells[: match.start()] + cells[match.end() :], match.group(1)


def _contents(cells):
    """Return (anchor, HTML text) for every h2 of the notebook's prose."""
    found = re.findall(r"(?s)<h2 id=\"([^\"]+)\">(.*?)(?:<a class=\"anchor-link\".*?</a>)?</h2>", cells)
    return [(anchor, re.sub(r"</?a\b[^>]*>", "", text)) for anchor, text in found]


def _without_tags(html):
    """Return the text of a piece of HTML, for the page's title."""
    from markupsafe import Markup

    return Markup(html).striptags()


def _facts(info):
    """Return (name, value, colour class) for the header."""
    git, data = info.get("git") or {}, info.get("data") or {}
    data_text, data_kind = data_facts(data)
    facts = [
        ("Run", info.get("run_id"), ""),
        ("Date", format_date(info.get("started_at")), ""),
        ("Status", info.get("status"), status_kind(info.get("status"))),
        ("Profile", info.get("profile"), ""),
        ("Data", data_text, data_kind),
        ("Seed", info.get("seed"), ""),
        ("Wall time", None if info.get("seconds") is None else format_seconds(info["seconds"]), ""),
    ]
    if git.get("commit"):
        dirty = " and uncommitted changes" if git.get("is_dirty") else ""
        facts.append(("Code", git["commit"][:10] + dirty, "warn" if dirty else ""))
    return [fact for fact in facts if fact[1] not in (None, "")]


def _href(path, folder):
    """Return the relative link from `folder` to `path`."""
    from urllib.parse import quote

    return quote(Path(os.path.relpath(path, folder)).as_posix())
