"""A report asks nothing from the network, escapes what data says, and draws its figures."""

import html
import json
import re

import nbformat
import pytest
from chromium import open_page
from toy_project import FIGURE, notebook

from moola_lib.runs.html import render_report

TABLE = """<div><style scoped>th {color: red}</style><table border="1" class="dataframe">
<thead><tr style="text-align: right;"><th></th><th>name</th><th>value</th></tr></thead>
<tbody><tr><th>0</th><td>&lt;i&gt;skill</td><td>-0.5</td></tr>
<tr><th>1</th><td>FAIL</td><td>NaN</td></tr></tbody></table></div>"""


def output(**data):
    return nbformat.v4.new_output("display_data", {k.replace("__", "/"): v for k, v in data.items()})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a notebook that tries everything, partly executed."""
    root = tmp_path_factory.mktemp("reports")
    made = notebook(
        "# The title <em>of</em> it",
        "## First part\n\n![far](https://example.org/a.png) [paper](https://arxiv.org/abs/1)\n\n"
        "| a | b |\n|-|-|\n| 1 | 2 |",
        "plot()",
        "print('x < y')",
        "## Second part",
        "never()",
    )
    made.cells[2].outputs = [
        nbformat.v4.new_output("display_data", {"application/vnd.plotly.v1+json": FIGURE}),
        output(text__html='<img src="http://example.org/b.png"><script src="//cdn.org/x.js"></script>'),
        output(text__html=TABLE),
        nbformat.v4.new_output(
            "display_data",
            {
                "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
                "text/plain": "IntSlider(value=3)",
            },
        ),
        nbformat.v4.new_output("display_data", {"application/javascript": "alert(1)"}),
    ]
    made.cells[3].outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="x < y \x1b[32mgreen\x1b[0m"),
        nbformat.v4.new_output("stream", name="stderr", text="<b>careful</b>"),
        nbformat.v4.new_output("error", ename="ValueError", evalue="<bad>", traceback=["\x1b[0;31m<tb>"]),
    ]
    source = root / "r1" / "01_x.ipynb"
    source.parent.mkdir()
    nbformat.write(made, source)
    info = {
        "run_id": "r1",
        "stem": "01_x",
        "status": "failed",
        "started_at": "2026-11-20T03:15:00Z",
        "seconds": 61,
        "profile": "quick",
        "data": {"is_simulated": True, "fingerprint": "<f>"},
        "git": {"commit": "0123456789abcdef", "is_dirty": True},
        "seed": 0,
        "error": {"cell": 4, "ename": "ValueError", "evalue": "<bad>"},
        "siblings": ["01_x", "02_y"],
    }
    render_report(source, root / "r1" / "01_x.html", assets=root / "assets", run_info=info)
    return root / "r1" / "01_x.html"


def test_nothing_is_asked_from_the_network(page):
    text = page.read_text()
    assert re.findall(r"(?i)\bsrc(?:set)?=[\"']?(?:https?:)?//", text) == []
    assert re.findall(r"(?i)<link|@import|url\(", text) == []
    assert re.findall(r"<script[^>]*src=\"([^\"]*)\"", text) == ["../assets/plotly.min.js"]
    assert "default-src 'none'" in html.unescape(text)
    assert (page.parent.parent / "assets" / "plotly.min.js").stat().st_size > 1e6
    assert "alert(1)" not in text


def test_the_header_says_what_the_run_was(page):
    text = page.read_text()
    for words in (
        "<title>The title of it · r1</title>", "simulated &lt;f&gt;", "2026-11-20 03:15 UTC",
        "0123456789 and uncommitted changes", "<dd>0</dd>", "<dd>1:01</dd>", "Stopped at cell 4",
        'href="02_y.html"', 'href="../index.html"',
        '<a href="#First-part">First part</a>', '<a href="#Second-part">Second part</a>',
    ):  # fmt: skip
        assert words in text, words
    assert text.count("<h1>") == 1


def test_outputs_are_escaped_folded_and_wrapped(page):
    text = page.read_text()
    assert "x &lt; y green" in text
    assert "&lt;b&gt;careful&lt;/b&gt;" in text and "<b>careful" not in text
    assert "&lt;bad&gt;" in text and "<bad>" not in text and "\x1b" not in text
    assert "IntSlider(value=3)" in text
    assert text.count("<summary>code</summary>") == 3
    assert text.count('<div class="scroll">') == text.count("<table") == 2
    assert '<td class="words verdict-FAIL">FAIL</td>' in text
    assert "<td>-0.5</td>" in text and '<th class="words">name</th>' in text
    assert "color: red" not in text
    figure = re.search(r'<script type="application/json">(.*?)</script>', text)[1]
    assert json.loads(figure)["data"][0]["name"] == "</script><b>line"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chromium_draws_it_offline_at_phone_width(page, scheme):
    with open_page(page, scheme=scheme) as (tab, asked, errors):
        assert tab.locator(".figure svg.main-svg").count() > 0
        assert tab.locator(".figure .scatterlayer path.js-line").count() == 1
        width = tab.evaluate("document.documentElement.scrollWidth")
        ink = tab.evaluate("getComputedStyle(document.querySelector('.gtitle')).fill")
    assert asked == []
    assert errors == []
    assert width <= 390
    assert ink == {"light": "rgb(29, 33, 37)", "dark": "rgb(228, 230, 232)"}[scheme]
