"""A notebook's cells as HTML that needs no kernel and no network, and takes what data says as text."""

import ast
import functools
import html
import json
import logging
import re
from pathlib import Path

from bs4 import BeautifulSoup

TEMPLATES = Path(__file__).parent / "template"

_PLOTLY = "application/vnd.plotly.v1+json"
_PRIORITY = (
    "text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg",
    "text/latex", "text/plain",
)  # fmt: skip
_LOADING = ("src", "srcset", "poster", "background", "style", "href", "xlink:href")  # attributes that may fetch
_FAR = re.compile(r"(?i)(?:^|[\s,(\"'])(?:https?:)?//")
_ACTIVE_TAGS = ("script", "link", "iframe", "frame", "object", "embed", "meta", "base", "form")
# pandas' Styler writes values as they are; a table's cell holds text, never markup.
# It writes a cell a line: a value ends where the line does, whatever it holds.
_STYLED_CELL = re.compile(r'(?s)(<t([hd]) id="T_[^"]*"[^>]*>)(.*?)(?=</t\2>\s*\n\s*(?:<t[hd]|</tr>))')
# What plotly reads as markup and our figures use; any other "<" is data.
_MARKUP = r"/?(?:b|i|em|br|sub|sup|span|extra)\b[^<>]*>"
_DATA_BRACKET = re.compile(rf"<(?!{_MARKUP})")


def convert_cells(notebook, folder):
    """Return a notebook's cells as a tree of `section` elements.

    Parameters
    ----------
    notebook : NotebookNode
        Its outputs are changed: figures become elements that hold their JSON,
        widgets become their text.
    folder : Path
        Where the notebook's images are looked for.

    Returns
    -------
    BeautifulSoup
    """
    _prepare_outputs(notebook)
    text, _ = _exporter().from_notebook_node(notebook, {"metadata": {"path": str(folder)}})
    tree = BeautifulSoup(text, "html.parser")
    for element in tree.find_all(_asks_for_more):
        for name in [name for name in _LOADING if name in element.attrs and _FAR.search(element[name])]:
            del element[name]
            element["data-not-offline"] = ""
    return tree


def _asks_for_more(element):
    """Tell whether a browser would fetch something for an element; a link waits for a click."""
    return element.name != "a" and any(name in element.attrs for name in _LOADING)


def changed_parameters(notebook):
    """Return (name, value, default) for every parameter that papermill was given, as Python writes them."""
    default, given = {}, {}
    for cell in notebook.cells:
        tags = cell.get("metadata", {}).get("tags", [])
        if "parameters" in tags:
            default = _assignments(cell.source)
        elif "injected-parameters" in tags:
            given = _assignments(cell.source)
    return [(name, value, default.get(name, "")) for name, value in given.items() if value != default.get(name)]


def _assignments(source):
    """Return each name that a cell assigns, with its value as text."""
    try:
        lines = ast.parse(source).body
    except SyntaxError:
        return {}
    return {
        target.id: ast.unparse(line.value)
        for line in lines
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    }


@functools.cache
def _exporter():
    """Return nbconvert's exporter with our cell template (its import costs 1.5 s)."""
    from nbconvert import HTMLExporter
    from nbconvert.filters import strip_ansi
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
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
    exporter.register_filter(
        "markdown_of_data", lambda text: MarkdownWithMath(renderer=IPythonRenderer(escape=True)).render(text)
    )
    return exporter


def _prepare_outputs(notebook):
    """Keep of every output what can be shown without its kernel."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if _PLOTLY in data:
                output["data"] = {"text/html": _figure(data[_PLOTLY])}
            elif "text/html" in data:
                data["text/html"] = _without_active_tags(data["text/html"])
        if "outputs" in cell:  # what is left can be shown: scripts and widgets without text go
            cell.outputs = [o for o in cell.outputs if "data" not in o or {*o["data"]} & {*_PRIORITY}]


def _without_active_tags(text):
    """Return an output's HTML without what loads or runs; a styled table's values become text."""

    def escape_value(match):
        value = match[3]
        return match[1] + (html.escape(value, quote=False) if "<" in value else value)

    tree = BeautifulSoup(_STYLED_CELL.sub(escape_value, text), "html.parser")
    for element in tree.find_all(_ACTIVE_TAGS):
        element.decompose()
    for element in tree.find_all("style"):
        if element.has_attr("scoped") or not element.get_text(strip=True):
            element.decompose()
    return str(tree)


def _figure(figure):
    """Return a plotly figure as an element holding its JSON; `report_figures.js` draws it."""
    text = json.dumps(_with_data_as_text(figure), separators=(",", ":")).replace("<", "\\u003c")
    label = html.escape(describe_figure(figure))
    return (
        f'<div class="figure" role="group" aria-label="{label}"><script type="application/json">{text}</script></div>'
    )


def describe_figure(figure):
    """Return a plotly figure's title, axes and series in words, for those who do not see it."""
    layout = figure.get("layout") or {}

    def plain(text):
        return " ".join(re.sub(f"<{_MARKUP}", " ", str(text)).split())

    def title_of(part):
        title = (part or {}).get("title") or ""
        return plain(title if isinstance(title, str) else title.get("text") or "")

    parts = [f"Figure: {title_of(layout) or 'without a title'}"]
    for letter in "xy":
        names = [title_of(layout[key]) for key in layout if re.fullmatch(rf"{letter}axis\d*", key)]
        if any(names):
            parts.append(f"{letter}: {', '.join(dict.fromkeys(filter(None, names)))}")
    series = dict.fromkeys(plain(t["name"]) for t in figure.get("data") or [] if t.get("name"))
    if series:
        parts.append(f"series: {', '.join([*series][:12])}{' and more' if len(series) > 12 else ''}")
    return ". ".join(parts)


def _with_data_as_text(value):
    """Return a figure's JSON with every "<" that is no markup of plotly's written as an entity."""
    if isinstance(value, dict):
        return {key: _with_data_as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_data_as_text(item) for item in value]
    return _DATA_BRACKET.sub("&lt;", value) if isinstance(value, str) else value
