"""Two runs beside each other: what differed, paired where they were asked the same, and never otherwise."""

import html
import json
import subprocess

import numpy as np
import pandas as pd
import pytest
from chromium import open_page

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.evaluation.metrics import Prediction
from moola_lib.evaluation.scores import score_prediction
from moola_lib.features import build_features
from moola_lib.figures.comparison import run_curves_figure
from moola_lib.files import write_json
from moola_lib.labels import labels_from_planted, save_labels
from moola_lib.market import save_bars, simulate_bars
from moola_lib.runs.comparing import code_changes, compare_runs, read_scores
from moola_lib.runs.comparison_page import write_comparison
from moola_lib.runs.project import artifacts_folder
from moola_lib.windows import place_labels

STEMS = ("01_feature_validation", "02_label_generation", "04_fine_tuning")


@pytest.fixture(scope="module")
def market():
    market = simulate_bars(n_sessions=6, seed=5)
    return market, build_features(market.bars), labels_from_planted(market.planted, symbol="SIM", n_windows=36)


@pytest.fixture
def write(tmp_path, market):
    """Return a function that writes a run whose answers miss the start by some bars."""
    market, table, labels = market
    (tmp_path / "notebooks").mkdir()

    def write(run_id, *, miss=0, seed=17, labels=labels, fingerprint=market.bars.fingerprint, gate="PASS", **settings):
        folders = {stem: artifacts_folder(tmp_path, run_id, stem) for stem in STEMS}
        save_bars(market.bars, folders[STEMS[0]] / "bars.parquet")
        table.save(folders[STEMS[0]] / "features", bars_fingerprint=market.bars.fingerprint)
        save_labels(labels, folders[STEMS[1]] / "labels.parquet")
        windows, _ = place_labels(labels, market.bars.frame, table.starts)
        start = windows.start + miss * (np.arange(len(windows)) % 2)
        answer = Prediction(start=start, end=np.maximum(windows.end, start))
        folders[STEMS[2]].mkdir(parents=True)
        ids = windows.window_id.astype(str)
        np.savez_compressed(folders[STEMS[2]] / "predictions.npz", window_id=ids, start=answer.start, end=answer.end)
        scores = score_prediction(windows, {"model": answer}, n_bootstrap=50).assign(arm="pre-trained")
        scores.to_parquet(folders[STEMS[2]] / "scores.parquet")
        rows = [
            {"label": f"pre-trained, fold {f}/2", "epoch": e, "validation_loss": 1 / e} for f in (1, 2) for e in (1, 2)
        ]
        rows.append({"label": "random start, fold 1/2", "epoch": 1, "validation_loss": 9.0})
        text = "\n".join(json.dumps(row) for row in rows)
        (folders[STEMS[2]] / "metrics.jsonl").write_text(text + '\n{"label": "cut sho')
        parameters = {stem: {"seed": seed, "upstream_run": None, **settings} for stem in STEMS}
        data = {"fingerprint": fingerprint, "is_simulated": True, "is_proposed": False, "symbol": "SIM"}
        gates = [{"notebook": STEMS[2], "name": "finite <b>", "value": 1.0, "verdict": gate}]
        for stem in STEMS:
            own = {"stem": stem, "run_id": run_id, "status": "finished", "parameters": parameters[stem], "data": data}
            upstream = dict.fromkeys(STEMS[:2], run_id) if stem == STEMS[2] else {}
            write_json(folders[stem] / "record.json", own | {"upstream_runs": upstream})
        record = {"run_id": run_id, "status": "finished", "started_at": "2026-11-20T00:00:00Z", "stems": list(STEMS)}
        record |= {
            "notebooks": {stem: {"status": "finished"} for stem in STEMS},
            "parameters": parameters,
            "data": data,
        }
        write_json(tmp_path / "reports" / run_id / "run.json", record | {"gates": gates, "profile": "quick"})

    return write


def table(comparison, title):
    (found,) = [each for each in comparison.tables if each.title == title]
    return found


def test_equal_windows_are_paired_and_the_figures_are_those_of_the_runs(write, tmp_path):
    write("exact")
    write("late", miss=9)
    comparison = compare_runs(tmp_path, ["exact", "late"])
    assert comparison.warnings == []
    paired = comparison.paired["late"].set_index("metric")
    for run_id, column in (("exact", "other"), ("late", "value")):
        own = read_scores(tmp_path, run_id).set_index("metric")["value"]
        assert np.allclose(paired[column], own[paired.index])
    hits = paired.loc["hit3_start"]
    assert hits["difference"] == pytest.approx(hits["value"] - 1) and hits["high"] < 0 and hits["verdict"] == "WORSE"
    turned = compare_runs(tmp_path, ["exact", "late"], baseline="late").paired["exact"].set_index("metric")
    assert np.allclose(turned["difference"], -paired["difference"])


def test_the_same_answers_are_called_the_same(write, tmp_path):
    write("one")
    write("two")
    found = compare_runs(tmp_path, ["one", "two"])
    assert {row[-1] for row in table(found, "two against one").rows} == {"SAME"}
    assert table(found, "Parameters that differ").rows == [] and table(found, "Gates that changed").rows == []


@pytest.mark.parametrize("what", ["bars", "labels", "gone"])
def test_other_questions_are_never_paired(write, tmp_path, market, what):
    write("one")
    labels = market[2].copy()
    if what == "labels":
        labels.loc[labels.index[0], "expansion_end"] += 1
    write("two", labels=labels, **({"fingerprint": "0123"} if what == "bars" else {}))
    if what == "gone":
        (artifacts_folder(tmp_path, "two", STEMS[2]) / "predictions.npz").unlink()
    comparison = compare_runs(tmp_path, ["one", "two"])
    assert comparison.paired == {} and len(comparison.warnings) == 1
    said = {"bars": "other bars", "labels": "other labels (+0 −0 ~1 windows)", "gone": "predictions.npz"}[what]
    assert said in comparison.warnings[0] and "side by side" in comparison.warnings[0]
    assert table(comparison, "Figures side by side").rows
    page = html.unescape(write_comparison(tmp_path, comparison).read_text())
    assert page.index(comparison.warnings[0]) < page.index("Figures side by side"), "said at the top"


def test_only_what_differs_is_listed(write, tmp_path):
    write("one", rate=1e-3, width=8)
    write("two", rate=2e-3, width=8, gate="FAIL")
    comparison = compare_runs(tmp_path, ["one", "two"])
    rows = table(comparison, "Parameters that differ").rows
    assert [row[1:] for row in rows] == [["rate", "0.001", "0.002"]] * 3
    assert table(comparison, "Gates that changed").rows == [[STEMS[2], "finite <b>", "PASS 1", "FAIL 1"]]


def test_a_run_of_one_notebook_is_compared_by_what_it_was_built_on(write, tmp_path):
    write("one", rate=1e-3)
    write("two", rate=1e-3, seed=18)
    path = tmp_path / "reports" / "two" / "run.json"
    record = json.loads(path.read_text())
    record["stems"], record["parameters"] = [STEMS[2]], {STEMS[2]: record["parameters"][STEMS[2]]}
    path.write_text(json.dumps(record))
    rows = table(compare_runs(tmp_path, ["one", "two"]), "Parameters that differ").rows
    assert [row[:2] for row in rows] == [[stem, "seed"] for stem in STEMS]


def test_seeds_of_one_configuration_are_averaged_by_students_t(write, tmp_path):
    for seed, miss in ((1, 0), (2, 9), (3, 9)):
        write(f"seed{seed}", seed=seed, miss=miss)
    write("other", seed=4, rate=1)
    comparison = compare_runs(tmp_path, ["seed1", "seed2", "seed3", "other"])
    row = next(row for row in table(comparison, "Over seeds").rows if row[1] == "start within 3 bars")
    late = read_scores(tmp_path, "seed2").set_index("metric").loc["hit3_start", "value"]
    values = np.array([1, late, late])
    reach = 4.302653 * values.std(ddof=1) / np.sqrt(3)
    assert row == [
        "seed1, seed2, seed3", row[1],
        f"{values.mean():.3f} ({values.mean() - reach:.3f} to {values.mean() + reach:.3f})", "3",
    ]  # fmt: skip


def test_other_settings_are_not_taken_for_seeds_beside_a_run_that_lacks_them(write, tmp_path):
    write("one", seed=1, rate=1)
    write("two", seed=2, rate=2)
    write("early", seed=3)
    paths = {run_id: tmp_path / "reports" / run_id / "run.json" for run_id in ("one", "two", "early")}
    records = {run_id: json.loads(path.read_text()) for run_id, path in paths.items()}
    for run_id in ("one", "two"):
        del records[run_id]["parameters"][STEMS[1]]["rate"], records[run_id]["parameters"][STEMS[0]]["rate"]
    records["early"] |= {"stems": [STEMS[1]], "parameters": {STEMS[1]: records["early"]["parameters"][STEMS[1]]}}
    for run_id, path in paths.items():
        path.write_text(json.dumps(records[run_id]))
    (artifacts_folder(tmp_path, "early", STEMS[2]) / "record.json").unlink()
    titles = [each.title for each in compare_runs(tmp_path, ["one", "two", "early"]).tables]
    assert "Over seeds" not in titles


def test_curves_are_of_the_first_arm_and_a_cut_row_is_left_out(write, tmp_path):
    write("one")
    write("two")
    curves = compare_runs(tmp_path, ["one", "two"]).curves
    assert curves == {STEMS[2]: {run: [([1, 2], [1.0, 0.5])] * 2 for run in ("one", "two")}}


def test_a_loss_that_was_no_number_is_a_gap_and_other_figures_are_no_loss(write, tmp_path):
    for run_id in ("one", "two"):
        write(run_id)
        rows = [
            {"epoch": 1, "train_seconds": 9, "train_loss": 1.0},
            {"epoch": 2, "train_seconds": 9, "train_loss": None},
        ]
        path = artifacts_folder(tmp_path, run_id, STEMS[2]) / "metrics.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
    curves = compare_runs(tmp_path, ["one", "two"]).curves[STEMS[2]]
    assert curves["one"] == [([1, 2], [1.0, None])]
    (line, _) = run_curves_figure(curves, ["one", "two"], title="x").data
    assert line.y[0] == 1.0 and np.isnan(line.y[1])


def test_code_changes_come_from_git(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", "-C", tmp_path, *who, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    commits = []
    for text in ("one", "two"):
        (tmp_path / "code.py").write_text(text)
        git("add", ".")
        git("commit", "-qm", text)
        commits.append(git("rev-parse", "HEAD"))
    records = [{"run_id": c[:4], "git": {"commit": c, "is_dirty": False}} for c in commits]
    assert "code.py | 2 +-" in code_changes(tmp_path, *records)
    assert code_changes(tmp_path, records[0], records[0]).startswith("the same commit")
    dirty = {"run_id": "later", "git": {"commit": commits[1], "is_dirty": True}}
    assert code_changes(tmp_path, records[0], dirty).endswith("uncommitted changes in later")
    unknown = {"run_id": "x", "git": {"commit": "0" * 40, "is_dirty": False}}
    assert "this repository lacks" in code_changes(tmp_path, records[0], unknown)
    assert "names no commit" in code_changes(tmp_path, records[0], {"run_id": "x", "git": None})


def test_what_cannot_be_compared_is_one_sentence(write, tmp_path, monkeypatch, capsys):
    write("one")
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    assert main(["compare", "one", "absent"]) == 2
    assert "there is no run 'absent' (newest: one)" in capsys.readouterr().err
    assert main(["compare", "one", "../one"]) == 2
    assert "is not allowed" in capsys.readouterr().err, "its name is part of the page's"
    with pytest.raises(UserError, match="at least two"):
        compare_runs(tmp_path, ["one", "one"])


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_shows_what_the_terminal_prints(write, tmp_path, monkeypatch, capsys, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    write("one", rate=1)
    write("two", rate=2, miss=9)
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    assert main(["compare", "one", "two"]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "reports" / "compare" / "one__two.html"
    assert printed.splitlines()[-1] == str(path) and "WORSE" in printed
    with open_page(path, width=width, scheme=scheme) as (tab, requests, errors):
        assert "WORSE" in tab.inner_text("main") and tab.locator("svg.main-svg").count()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert [found["id"] for found in Axe().run(tab).response["violations"]] == []
        assert not requests and not errors


def test_a_run_without_figures_is_still_compared(write, tmp_path):
    write("one")
    write("two")
    (artifacts_folder(tmp_path, "two", STEMS[2]) / "record.json").unlink()
    comparison = compare_runs(tmp_path, ["one", "two"])
    assert comparison.warnings == ["No figures of 04_fine_tuning in two."]
    assert isinstance(comparison.scores["one"], pd.DataFrame)
