"""The gallery: one real run's pages, which a newcomer opens from the checkout without a network."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from chromium import open_page

from moola_lib.runs.parameters import PARAMETERS

GALLERY = Path(__file__).parent.parent / "reports" / "gallery"
PAGES = [GALLERY / f"{stem}.html" for stem in sorted(PARAMETERS)]
NAMES = [path.stem for path in PAGES]


def test_it_is_small():
    assert sum(path.stat().st_size for path in GALLERY.rglob("*") if path.is_file()) <= 8_000_000
    assert len(list(GALLERY.rglob("plotly.min.js"))) == 1


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_a_page_is_complete(path):
    assert path.stat().st_size < 3_000_000
    text = path.read_text()
    assert "/tmp/" not in text and "/home/" not in text, "a machine's path"
    tree = BeautifulSoup(text, "html.parser")
    for link in tree.find_all("a", href=True):
        target = link["href"]
        assert target.startswith(("#", "https://")) or (GALLERY / target).exists(), target
    facts = {fact.dt.get_text(): fact.dd.get_text() for fact in tree.select(".facts > div")}
    never_absent = {
        "Run",
        "Date",
        "Data",
        "Bars from, to (UTC)",
        "Seed",
        "Code",
        "Wall time",
        "Peak memory",
        "Versions",
    }
    assert never_absent <= {name for name, value in facts.items() if value != "not recorded"}
    assert "uncommitted" not in facts["Code"]
    assert tree.select_one(".answer li") and tree.select_one(".answer td[data-verdict]")
    assert all(len(figure["aria-label"]) > 12 for figure in tree.select(".figure"))


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_a_page_opens_offline_for_everybody(path, width, scheme):
    with open_page(path, width=width, scheme=scheme) as (tab, asked, errors):
        assert tab.locator(".figure.missing").count() == 0 < tab.locator(".figure svg.main-svg").count()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        violations = Axe().run(tab).response["violations"]
    assert asked == errors == []
    told = [(v["id"], v["nodes"][0]["html"][:200]) for v in violations if v["impact"] in ("serious", "critical")]
    assert told == []
