"""The list of runs: everything is on it, the reason where a run stopped, and it can be sorted and searched."""

import errno
import html
import json
import re

import pytest
from chromium import open_page

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.runs.index import build_index, headline_figures, stop_reason

GATE = {"notebook": "02_b", "kind": "learning", "target": "≥ 0.6", "baseline": None, "verdict": "PASS"}


def make_record(run_id, *, status="finished", month=1, value=None, **others):
    notebooks = {stem: {"status": "finished", "started_at": None} for stem in ("01_a", "02_b")}
    gates = [{"notebook": "01_a", "name": "finite", "kind": "health", "verdict": "FAIL"}]
    if value is not None:
        gates.append({**GATE, "name": "hits", "value": value, "low": value - 0.1, "high": value + 0.1})
    record = {"run_id": run_id, "status": status, "started_at": f"2026-{month:02d}-01T00:00:00Z", "gates": gates}
    record |= {"stems": list(notebooks), "notebooks": notebooks, "profile": "quick", "seconds": 10.0, "error": None}
    return record | {"data": {"is_simulated": True, "symbol": "SIM", "fingerprint": "abc"}} | others


@pytest.fixture
def write(tmp_path):
    def write(*records):
        for record in records:
            folder = tmp_path / "reports" / record["run_id"]
            folder.mkdir(parents=True)
            (folder / "run.json").write_text(json.dumps(record))
        return build_index(tmp_path)

    return write


@pytest.fixture
def four(write):
    """Four runs: the newest has no figure, the oldest was lost, and one failed."""
    error = {"stem": "02_b", "ename": "MemoryError", "message": "02_b stopped: <b>no memory</b>\ntrace"}
    failed = make_record("broke", status="failed", month=3, error=error)
    lost = make_record("gone", status="running", month=1, value=0.5)
    lost["notebooks"]["02_b"]["status"] = "running"
    return write(make_record("new", month=4, profile="research"), failed, make_record("good", month=2, value=0.9), lost)


def shown(tab):
    return tab.eval_on_selector_all("tbody tr:not([hidden]) .id", "ids => ids.map(id => id.textContent)")


def test_a_run_that_stopped_says_why(four):
    page = four.read_text()
    assert "02_b stopped: &lt;b&gt;no memory&lt;/b&gt;" in page and "<b>no" not in page
    (reason,) = re.findall(r'class="reason">([^<]*gone[^<]*)<', page)
    assert "02_b" in reason
    assert stop_reason(make_record("x")) == ""
    interrupted = make_record("x", status="interrupted")
    interrupted["notebooks"]["01_a"]["status"] = "interrupted"
    assert stop_reason(interrupted) == "interrupted in 01_a"


def test_a_long_reason_is_cut_on_the_page_only():
    reason = stop_reason(make_record("x", status="failed", error={"message": "a" * 1000}))
    assert len(reason) < 300 and reason.endswith("…")


def test_headlines_are_the_figures_with_an_interval(four):
    page = four.read_text()
    assert '<button type="button">hits</button>' in page and ">finite<" not in page
    assert "0.90<small>0.80 to 1.00</small>" in page
    found = headline_figures([{**GATE, "name": "hits", "value": k, "low": 0.0, "high": 1.0} for k in (1, 2)])
    assert [gate["value"] for gate in found.values()] == [1], "the first of a name"


def test_a_page_that_cannot_be_made_leaves_the_old_one(four, tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = four.read_text()
    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(UserError, match="No space left"):
        build_index(tmp_path)
    assert four.read_text() == before
    assert [path.name for path in four.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.browser
def test_runs_are_sorted_by_keyboard_and_what_has_no_figure_stays_last(four):
    with open_page(four, width=1280) as (tab, requests, errors):
        assert shown(tab) == ["new", "broke", "good", "gone"]
        by_figure = tab.get_by_role("button", name="hits")
        by_figure.focus()
        tab.keyboard.press("Enter")
        assert shown(tab)[:2] == ["gone", "good"]
        tab.keyboard.press("Enter")
        assert shown(tab)[:2] == ["good", "gone"]
        sorted_by = tab.eval_on_selector_all("[aria-sort]", "all => all.map(th => [th.textContent, th.ariaSort])")
        assert sorted_by == [["hits", "descending"]]
        assert not requests and not errors


@pytest.mark.browser
def test_runs_are_found_by_words_and_by_what_they_are(four):
    with open_page(four, width=1280) as (tab, requests, errors):
        tab.fill("#find", "MEMORY no")
        assert shown(tab) == ["broke"] and tab.text_content("#count") == "1 of 4 runs"
        tab.fill("#find", "")
        tab.locator("select[data-column]").nth(0).select_option("lost")
        assert shown(tab) == ["gone"]
        tab.locator("select[data-column]").nth(1).select_option("research")
        assert shown(tab) == [] and tab.text_content("#count") == "0 of 4 runs"
        assert not requests and not errors


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_sticks_out_and_axe_finds_nothing(four, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with open_page(four, width=width, scheme=scheme) as (tab, requests, errors):
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert [found["id"] for found in Axe().run(tab).response["violations"]] == []
        assert not requests and not errors


@pytest.mark.browser
def test_a_thousand_runs_are_all_listed_and_sorted_on_a_phone(write):
    path = write(*(make_record(f"run{k}", value=k / 1000) for k in range(1000)))
    with open_page(path, width=390) as (tab, requests, errors):
        assert len(shown(tab)) == 1000
        tab.get_by_label("Sort by").select_option("hits")
        assert shown(tab)[:2] == ["run999", "run998"]
        tab.fill("#find", "run77")
        assert len(shown(tab)) == 11 and tab.text_content("#count") == "11 of 1,000 runs"
        assert not requests and not errors


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"run_id": "good"', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("1" * 5_000, "is not valid JSON"),
        ("[]", "it is no JSON object"),
        (json.dumps(make_record("other")), "is the record of run 'other'; give its folder that name again"),
        (json.dumps(make_record("good", notebooks={})), "notebook 01_a has no status"),
        (json.dumps(make_record("good", gates=[1])), "a gate has no name"),
        (json.dumps(make_record("good", error="no")), "error has no ename"),
        (json.dumps(make_record("good", parameters=3)), "parameters is int"),
        (json.dumps(make_record("good") | {"started_at": "2026-01-01"}), "started_at has no zone"),
        (json.dumps(make_record("good") | {"started_at": "soon"}), "started_at is 'soon'"),
    ],
)
def test_a_damaged_record_is_named_everywhere_and_hides_no_other_run(
    four, tmp_path, monkeypatch, capsys, content, sentence
):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    (tmp_path / "reports/good/run.json").write_text(content)
    page = build_index(tmp_path).read_text()
    assert sentence in html.unescape(page) and ">new<" in page and ">good<" not in page
    for words in (["status", "good"], ["report", "good"], ["rerun", "good"], ["export", "good", "-o", "a.zip"],
                  ["compare", "good", "new"], ["run", "--resume", "--run-id", "good"]):  # fmt: skip
        assert main(words) == 2
        told = capsys.readouterr().err
        assert sentence in told and told.count("\n") == 1
    assert main(["gc"]) == 0


def test_a_record_of_an_older_version_is_read(write, tmp_path, monkeypatch, capsys):
    old = make_record("old")
    for name in ("gates", "seconds", "profile", "data"):
        del old[name]
    assert ">old<" in write(old).read_text()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    assert main(["status", "old"]) == 0 and main(["gc"]) == 0


def test_pages_without_a_record_are_named(four, tmp_path):
    folder = tmp_path / "reports" / "orphan"
    folder.mkdir()
    (folder / "01_a.html").write_text("x")
    assert "orphan has pages of a run, and no run.json" in build_index(tmp_path).read_text()
