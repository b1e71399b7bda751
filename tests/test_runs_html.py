"""A report asks nothing from the network, escapes what data says, and puts its answer first."""

import copy
import html
import json
import re

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from chromium import open_page
from toy_project import FIGURE, notebook

from moola_lib.runs.cells import changed_parameters, describe_figure
from moola_lib.runs.html import record_facts, render_report

SYMBOL = "<script>alert(1)</script>"

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
    return write_page(made, root)


def write_page(made, root, **changes):
    """Write a notebook and its page; return the page's path."""
    source = root / "r1" / "01_x.ipynb"
    source.parent.mkdir(exist_ok=True)
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
    info |= changes.pop("info", {})
    render_report(source, root / "r1" / "01_x.html", assets=root / "assets", run_info=info, **changes)
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
        "The notebook ended before it found anything", "<dt>Peak memory</dt><dd>not recorded</dd>",
        'href="02_y.html"', 'href="../index.html"',
        '<a href="#First-part">First part</a>', '<a href="#Second-part">Second part</a>',
    ):  # fmt: skip
        assert words in text, words
    assert text.count("<h1>") == 1


def test_the_record_names_the_device_its_memory_and_whose_labels(tmp_path):
    facts = {"status": "finished", "error": None, "device": "cuda:0", "peak_memory_mb": 4100}
    text = write_page(notebook("# A title"), tmp_path, info={**facts, "gpu_peak_memory_mb": 15900}).read_text()
    for words in ("<dd>cuda:0</dd>", "<dd>4,100 MB, 15,900 MB on the GPU</dd>", "<dt>Labels</dt><dd>none used</dd>"):
        assert words in text, words
    proposed = {"is_simulated": False, "fingerprint": "f", "is_proposed": True}
    text = write_page(notebook("# A title"), tmp_path, info={**facts, "data": proposed}).read_text()
    assert "<dd>4,100 MB</dd>" in text and "labels proposed by a rule</dd>" in text


def test_outputs_are_escaped_folded_and_wrapped(page):
    text = page.read_text()
    assert "x &lt; y green" in text
    assert "&lt;b&gt;careful&lt;/b&gt;" in text and "<b>careful" not in text
    assert "&lt;bad&gt;" in text and "<bad>" not in text and "\x1b" not in text
    assert "IntSlider(value=3)" in text
    assert text.count("<summary>code</summary>") == 3
    assert text.count('<div class="scroll">') == text.count("<table") == 2
    assert '<td class="words" data-verdict="FAIL"><span aria-hidden="true" class="mark">✗ </span>FAIL</td>' in text
    assert "<td>-0.5</td>" in text and '<th class="words" scope="col">name</th>' in text
    assert "color: red" not in text
    figure = re.search(r'<script type="application/json">(.*?)</script>', text)[1]
    assert json.loads(figure)["data"][0]["name"] == "&lt;/script><b>line"


@pytest.fixture(scope="module")
def answered():
    """A finished notebook in the house's form, about a symbol that is markup."""
    table = pd.DataFrame({"symbol": [SYMBOL, "b", "a"], "value": [10.0, -2.0, float("nan")], "n": ["1,000", "9", "20"]})
    gates = pd.DataFrame({"gate": ["skill", "leak"], "figure": [0.5, 0], "verdict": ["FAIL", "PASS"]})
    made = notebook(
        "# The question\n\nWhy we ask.",
        "## Parameters",
        "seed = 7\nrate = 0.1",
        "## The story",
        "table",
        "figure",
        "## Findings",
        "findings = tell()",
        "## Gates",
        "gates",
        "## Run record",
        "run.finish()",
    )
    given = nbformat.v4.new_code_cell("# Parameters\nrate = 0.2\n", metadata={"tags": ["injected-parameters"]})
    made.cells[4].outputs = [output(text__html=table.style.hide(axis="index").to_html())]
    figure = {
        "data": [{"type": "scatter", "x": [1, 2], "y": [1, 2], "name": SYMBOL}, {"type": "scatter", "y": [2, 1]}],
        "layout": {"title": {"text": f"<b>{SYMBOL}</b>"}, "showlegend": True, "xaxis": {"title": {"text": "bars"}}},
    }
    made.cells[5].outputs = [nbformat.v4.new_output("display_data", {"application/vnd.plotly.v1+json": figure})]
    made.cells[7].outputs = [output(text__markdown=f"- Bars of {SYMBOL} were read.")]
    made.cells[9].outputs = [output(text__html=gates.style.hide(axis="index").to_html())]
    made.cells.insert(3, given)
    return made


FINISHED = {"status": "finished", "error": None}


@pytest.fixture(scope="module")
def finished(answered, tmp_path_factory):
    return write_page(answered.copy(), tmp_path_factory.mktemp("finished"), info=FINISHED)


def test_the_answer_comes_before_the_story(finished):
    tree = BeautifulSoup(finished.read_text(), "html.parser")
    assert [h.get_text().rstrip("¶") for h in tree.select("main h2")] == [
        "Findings", "Gates", "Changed parameters", "Record", "Contents", "Parameters", "The story", "Run record",
    ]  # fmt: skip
    answer = tree.select_one(".answer")
    assert SYMBOL in answer.li.get_text()
    assert "1 of 2 gates passed, 1 failed" in answer.get_text()
    assert [cell.get_text() for cell in answer.select("table.changed tbody tr > *")] == ["rate", "0.2", "0.1"]
    gates = answer.select_one("table.dataframe")
    assert [cell.get_text() for cell in gates.select("thead th")] == ["gate", "verdict", "figure"]
    assert [cell.get_text() for cell in gates.select("td[data-verdict]")] == ["✗ FAIL", "✓ PASS"]
    anchors = [link["href"] for link in tree.select("nav.contents a")]
    assert all(tree.find(id=html.unescape(anchor[1:])) for anchor in anchors)


def test_a_parameter_given_its_default_has_not_changed(answered):
    assert changed_parameters(answered) == [("rate", "0.2", "0.1")]
    same = notebook("seed = 7")
    same.cells.append(nbformat.v4.new_code_cell("seed = 7", metadata={"tags": ["injected-parameters"]}))
    assert changed_parameters(same) == []


def test_the_record_has_every_fact_or_says_that_it_is_missing():
    names = [name for name, _, _ in record_facts({})]
    assert {value for _, value, _ in record_facts({})} == {"not recorded"}
    full = {
        "data": {
            "is_simulated": False, "is_proposed": False, "symbol": "NQ", "fingerprint": "ab",
            "first_bar": "2024-01-01T23:00:00+00:00", "last_bar": "2024-06-28T20:59:00+00:00",
        },
        "versions": {"torch": "2.13.0"}, "device": "cuda", "peak_memory_mb": 1234, "seed": 0,
    }  # fmt: skip
    facts = {name: value for name, value, _ in record_facts(full)}
    assert list(facts) == names
    assert facts["Bars from, to (UTC)"] == "2024-01-01 23:00 to 2024-06-28 20:59"
    assert (facts["Data"], facts["Labels"], facts["Seed"]) == ("real NQ ab", "human labels", 0)
    assert (facts["Peak memory"], facts["Versions"]) == ("1,234 MB", "torch 2.13.0")


def test_a_cell_that_failed_among_the_findings_is_shown_in_its_place(answered, tmp_path):
    made = copy.deepcopy(answered)
    number = next(k for k, cell in enumerate(made.cells) if cell.source == "findings = tell()")
    made.cells[number].outputs = [nbformat.v4.new_output("error", ename="KeyError", evalue="a", traceback=["tb"])]
    for cell in made.cells[number + 1 :]:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    tree = BeautifulSoup(write_page(made, tmp_path).read_text(), "html.parser")
    assert tree.select_one(".answer #failed details.code") is not None
    assert tree.find("a", href="#failed") is not None
    assert "No gates were judged." in tree.select_one(".answer").get_text()
    assert len(tree.find_all(id="Gates")) == 1


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"is_proposed": True, "is_simulated": False}, "labels proposed by a rule"),
        ({"is_proposed": False, "is_simulated": False, "label_source": "the table a"}, "human labels from the table a"),
        ({"is_proposed": False, "is_simulated": True, "label_source": "the simulator"}, "labels from the simulator"),
        ({"is_simulated": True}, "not recorded"),
    ],
)
def test_the_record_says_whose_labels(data, text):
    assert {name: value for name, value, _ in record_facts({"data": data})}["Labels"] == text


def test_a_figure_is_described_in_words():
    figure = {
        "data": [{"name": "model"}, {"name": "<i>rule</i>"}],
        "layout": {"title": {"text": "Loss<br>by epoch"}, "xaxis": {"title": {"text": "epoch"}}, "yaxis2": {}},
    }
    assert describe_figure(figure) == "Figure: Loss by epoch. x: epoch. series: model, rule"
    assert describe_figure({}) == "Figure: without a title"


def test_a_single_file_needs_no_other(answered, tmp_path):
    path = write_page(answered.copy(), tmp_path, info=FINISHED, is_single_file=True)
    assert not (tmp_path / "assets").exists()
    with open_page(path.rename(tmp_path / "alone.html")) as (tab, asked, errors):
        assert tab.locator(".figure svg.main-svg").count() > 0
        assert tab.locator("a[href]:not([href^='#'])").count() == 0
    assert asked == errors == []


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


@pytest.mark.browser
def test_markup_in_data_shows_as_text(finished):
    with open_page(finished, width=1280) as (tab, asked, errors):
        assert SYMBOL in tab.locator(".answer li", has_text="Bars of").inner_text()
        assert tab.locator("td", has_text="alert(1)").inner_text() == SYMBOL
        assert tab.locator(".gtitle").evaluate("node => node.textContent") == SYMBOL
        assert tab.locator(".legendtext").first.evaluate("node => node.textContent") == SYMBOL
    assert asked == errors == []


@pytest.mark.browser
def test_a_table_sorts_by_keyboard_and_says_so(finished):
    with open_page(finished, width=1280) as (tab, _, _):
        table = tab.locator(".story table", has_text="alert")
        column = lambda k: table.locator(f"tbody td:nth-child({k})").all_inner_texts()  # noqa: E731
        given = column(2)
        head = table.locator("th", has_text="value")
        for order, expected in [("ascending", ["-2", "10", "nan"]), ("descending", ["10", "-2", "nan"])]:
            head.locator("button").press("Enter")
            assert head.get_attribute("aria-sort") == order
            assert [text.split(".")[0] for text in column(2)] == expected
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") is None and column(2) == given
        table.locator("th button", has_text="n").last.click()
        assert column(3) == ["9", "20", "1,000"]


@pytest.mark.browser
def test_controls_change_theme_code_and_size(finished):
    with open_page(finished, width=1280) as (tab, _, errors):
        ground = "getComputedStyle(document.body).backgroundColor"
        ink = "getComputedStyle(document.querySelector('.gtitle')).fill"
        assert tab.evaluate(ground) == "rgb(253, 253, 252)"
        tab.get_by_role("button", name="Dark").click()
        assert tab.evaluate(ground) == "rgb(21, 24, 27)"
        tab.wait_for_function(f"{ink} === 'rgb(228, 230, 232)'")
        tab.reload()
        assert tab.evaluate(ground) == "rgb(21, 24, 27)", "the choice is remembered"
        tab.wait_for_function("document.documentElement.dataset.figures === 'drawn'")
        n_folds = tab.locator("details.code").count()
        assert tab.locator("details.code[open]").count() == 0 < n_folds
        tab.get_by_role("button", name="Show all code").click()
        assert tab.locator("details.code[open]").count() == n_folds
        height = tab.locator(".main-svg").first.bounding_box()["height"]
        tab.get_by_role("button", name="Enlarge").click()
        tab.wait_for_function(f"document.querySelector('.main-svg').getBoundingClientRect().height > {height + 100}")
        tab.keyboard.press("Escape")
        tab.wait_for_function(f"document.querySelector('.main-svg').getBoundingClientRect().height === {height}")
    assert errors == []


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("dark", 390)])
def test_axe_finds_nothing_serious(finished, page, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    for path in (finished, page):
        with open_page(path, width=width, scheme=scheme) as (tab, _, _):
            found = Axe().run(tab).response["violations"]
        told = [(v["id"], v["impact"], v["nodes"][0]["html"]) for v in found]
        assert [entry for entry in told if entry[1] in ("serious", "critical")] == []


@pytest.mark.browser
@pytest.mark.parametrize("is_code_shown", [False, True])
def test_it_prints_to_a_pdf_with_the_findings_and_the_code_only_if_shown(answered, tmp_path, is_code_shown):
    path = write_page(answered.copy(), tmp_path, info=FINISHED, is_code_shown=is_code_shown)
    with open_page(path, scheme="dark") as (tab, _, _):
        assert tab.pdf()[:5] == b"%PDF-"
        tab.emulate_media(media="print")
        text = tab.locator("body").inner_text()
        assert tab.locator(".bar").is_hidden()
    assert "were read" in text and "1 of 2 gates passed" in text
    assert ("findings = tell()" in text) == is_code_shown
