"""`moola report` writes a finished run's pages again, elsewhere, or with everything inside."""

import nbformat
import pytest
from toy_project import FIGURE, notebook

from moola_lib.cli import main
from moola_lib.files import write_json
from moola_lib.runs.record import write_run
from moola_lib.runs.reporting import report_info

STEMS = ["01_first", "02_second"]
DATA = {
    "fingerprint": "abc",
    "is_simulated": False,
    "first_bar": "2024-01-01T23:00:00",
    "last_bar": "2024-02-01T20:59:00",
}
RECORD = {
    "run_id": "good", "status": "finished", "started_at": "2026-11-20T03:15:00Z", "profile": "quick", "error": None,
    "stems": STEMS, "timings": {"02_second": 61.0}, "parameters": {"02_second": {"seed": 5}}, "seed": 7,
    "notebooks": {stem: {"status": "finished", "started_at": "2026-11-20T03:16:00Z"} for stem in STEMS},
    "data": {}, "versions": {"python": "3.11"}, "git": {"commit": "0123456789abcdef", "is_dirty": True},
}  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with one run of two notebooks; only the first has no figure."""
    made = notebook("# The question", "figure", "## Findings", "tell()")
    figure = {"application/vnd.plotly.v1+json": FIGURE}
    for stem in STEMS:
        for folder in ("notebooks", "reports/good"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            nbformat.write(made, tmp_path / folder / f"{stem}.ipynb")
        made.cells[1].outputs = [nbformat.v4.new_output("display_data", figure)]
    write_run(tmp_path, RECORD)
    for stem, data, extra in [
        ("01_first", DATA, {}),
        ("02_second", {"fingerprint": "abc", "is_proposed": True}, {"device": "cpu", "peak_memory_mb": 512}),
    ]:
        own = {"status": "finished", "data": data, "upstream_runs": {} if "first" in stem else {"01_first": "good"}}
        write_json(tmp_path / "data" / "artifacts" / "good" / stem / "record.json", own | extra)
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    return tmp_path


def test_the_pages_are_written_again_in_their_own_folder(root, capsys):
    assert main(["report", "good"]) == 0
    folder = root / "reports" / "good"
    assert capsys.readouterr().out.split() == [str(folder / f"{stem}.html") for stem in STEMS]
    text = (folder / "02_second.html").read_text()
    assert 'href="01_first.html"' in text and 'href="../index.html"' in text and "../assets/plotly.min.js" in text
    assert (root / "reports" / "assets" / "plotly.min.js").exists()


def test_a_folder_elsewhere_holds_all_that_its_pages_need(root, tmp_path):
    assert main(["report", "good", "-o", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "02_second.html").read_text()
    assert 'src="assets/plotly.min.js"' in text and "index.html" not in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["01_first.html", "02_second.html", "assets"]


def test_one_file_holds_everything(root, tmp_path):
    assert main(["report", "good", "2", "--show-code", "-o", str(tmp_path / "a.html")]) == 0
    text = (tmp_path / "a.html").read_text()
    assert len(text) > 4_000_000 and " src=" not in text.partition("<body>")[2][:2000]
    assert '<details class="code" open="">' in text
    assert not (tmp_path / "assets").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none"], "there is no run 'none' (newest: good)"),
        (["good", "-o", "all.html"], "all.html is one page and run 'good' has 2; name the notebook, or give a folder"),
        (["good", "7"], "there is no notebook '7'"),
    ],
)
def test_what_cannot_be_written_is_said_in_a_sentence(root, capsys, words, sentence):
    assert main(["report", *words]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1


def test_a_notebook_that_was_not_executed_has_no_page(root, capsys):
    (root / "reports" / "good" / "01_first.ipynb").unlink()
    assert main(["report", "good", "1"]) == 2
    assert "run 'good' has not executed 01_first" in capsys.readouterr().err


def test_a_withheld_report_stays_withheld(root, capsys):
    write_run(root, RECORD | {"withheld": {"02_second": ["run.log, line 3: a GitHub token"]}})
    assert main(["report", "good"]) == 0
    assert "02_second" not in capsys.readouterr().out
    assert main(["report", "good", "2"]) == 2
    assert "02_second is withheld: run.log, line 3: a GitHub token" in capsys.readouterr().err
    assert not (root / "reports" / "good" / "02_second.html").exists()


def test_the_record_of_a_page_is_completed_by_what_it_was_built_on(root):
    info = report_info(root, RECORD, "02_second")
    assert info["data"] == {
        **{key: DATA[key] for key in ("first_bar", "last_bar")},
        "fingerprint": "abc",
        "is_proposed": True,
    }
    assert (info["seed"], info["device"], info["peak_memory_mb"], info["seconds"]) == (5, "cpu", 512, 61.0)
    assert (info["git"]["is_dirty"], info["versions"], info["error"]) == (True, {"python": "3.11"}, None)


def test_other_bars_upstream_say_nothing_about_a_page(root):
    path = root / "data" / "artifacts" / "good" / "01_first" / "record.json"
    write_json(path, {"status": "finished", "data": {**DATA, "fingerprint": "other"}})
    assert "first_bar" not in report_info(root, RECORD, "02_second")["data"]
