"""A run repeated from its record: what differs is named, before it starts and after it ended."""

import json
import os
from pathlib import Path

import pytest
from toy_project import MODELS, build_project

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import read_json, write_json
from moola_lib.runs.rerunning import compare_figures, plan_rerun, rerun


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project with the finished run `first`, and `second`, whose only notebook built on it."""
    root = tmp_path_factory.mktemp("project")
    build_project(root)
    here = Path(__file__).resolve().parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOOLA_HOME", str(root))
        patch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")
        patch.delenv("MOOLA_RUN_ID", raising=False)
        patch.delenv("MOOLA_HEADLESS", raising=False)
        assert main(["run", "1", "--run-id", "first"], models=MODELS) == 0
        assert main(["run", "1", "--run-id", "newer"], models=MODELS) == 0
        pairs = ["-p", "upstream_run", "first", "-p", "seed", "3"]
        assert main(["run", "2", "--run-id", "second", *pairs], models=MODELS) == 0
        yield root


def test_a_repeated_run_has_the_same_figures_and_the_same_upstreams(root, capsys):
    assert main(["rerun", "second"], models=MODELS) == 0
    shown = capsys.readouterr().out
    assert "repeating run second as second-rerun" in shown
    assert "figures are bit for bit those of second" in shown
    record = read_json(root / "reports/second-rerun/run.json")
    assert record["rerun"]["n_different"] == 0 and record["rerun"]["n_compared"] > 5
    assert record["parameters"] == read_json(root / "reports/second/run.json")["parameters"]
    own = read_json(root / "data/artifacts/second-rerun/02_second/record.json")
    assert own["upstream_runs"] == {"01_first": "first"}


def test_what_has_changed_is_named_before_it_starts(root):
    path, own_path = root / "reports/second/run.json", root / "data/artifacts/second/02_second/record.json"
    record, own = read_json(path), read_json(own_path)
    bars = root / "bars.csv"
    bars.write_text("other")
    inputs = {"02_second": {"bars": {"path": str(bars), "bytes": 3, "fingerprint": "0" * 16}}}
    then = {"versions": {**own["versions"], "numpy": "0.1"}, "git": {"commit": "abc", "is_dirty": True}}
    try:
        # The notebook's own record counts: the run's is of its last start, which may have been a resumption.
        write_json(own_path, {**own, **then})
        write_json(path, {**record, "sources": {"02_second": "f" * 16}, "inputs": inputs})
        named = "; ".join(plan_rerun(root, "second", models=MODELS).differences)
        for words in ("numpy was 0.1", "at commit abc", "uncommitted changes then", "02_second has other cells"):
            assert words in named
        assert f"{bars}, the bars of 02_second: fingerprint was 0000000000000000 (3 bytes)" in named
        bars.unlink()
        with pytest.raises(UserError, match="the bars of 02_second, is gone"):
            plan_rerun(root, "second", models=MODELS)
        write_json(path, {**record, "status": "failed"})
        with pytest.raises(UserError, match="nothing to compare with"):
            plan_rerun(root, "second", models=MODELS)
    finally:
        write_json(path, record)
        write_json(own_path, own)


def test_a_figure_in_the_last_bit_is_found_and_times_are_not_compared(root):
    for run_id in ("a", "b"):
        write_json(
            root / "reports" / run_id / "run.json", {**read_json(root / "reports/first/run.json"), "run_id": run_id}
        )
        folder = root / "data/artifacts" / run_id / "01_first"
        folder.mkdir(parents=True)
        write_json(folder / "record.json", read_json(root / "data/artifacts/first/01_first/record.json"))
    rows = [{"label": "x", "epoch": 1, "loss": 0.1, "seconds_left": 1.0}, {"label": "y", "epoch": 1, "loss": 0.3}]
    texts = [rows, [{**rows[1], "loss": 0.30000000000000004}, {**rows[0], "seconds_left": 2.0}]]
    for run_id, these in zip("ab", texts, strict=True):
        lines = "".join(json.dumps(row) + "\n" for row in these)
        (root / "data/artifacts" / run_id / "01_first/metrics.jsonl").write_text(lines)
    _, different = compare_figures(root, "a", "b")
    expected = {"notebook": "01_first", "figure": "y epoch 1, loss", "before": 0.3, "now": 0.30000000000000004}
    assert different == [expected]


def test_a_repetition_that_was_stopped_goes_on_with_the_same_inputs_and_is_judged(root, capsys):
    def stop(event):
        if event["kind"] == "cell":
            raise KeyboardInterrupt

    plan = plan_rerun(root, "second", run_id="stopped", models=MODELS)
    assert rerun(plan, on_event=stop).record["status"] == "interrupted"
    assert main(["run", "1", "--run-id", "newest"], models=MODELS) == 0
    capsys.readouterr()
    assert main(["run", "--resume", "--run-id", "stopped"], models=MODELS) == 0
    assert "figures are bit for bit those of second" in capsys.readouterr().out
    assert read_json(root / "data/artifacts/stopped/02_second/record.json")["upstream_runs"] == {"01_first": "first"}
    assert read_json(root / "reports/stopped/run.json")["rerun"]["n_different"] == 0


def test_what_is_not_known_of_the_code_is_said(root):
    named = plan_rerun(root, "second", models=MODELS).differences
    assert named == ["whether the code is the same is not known: it was under no git"]


def test_rows_that_are_none_are_left_out(root):
    metrics = root / "data/artifacts/second/02_second/metrics.jsonl"
    before = metrics.read_text()
    try:
        metrics.write_text(before + "\n[1]\n" + "[" * 100_000 + '\n{"epoch": 3, "train')
        assert compare_figures(root, "second", "second")[1] == []
    finally:
        metrics.write_text(before)
