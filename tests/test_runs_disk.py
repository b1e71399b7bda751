"""Old runs' checkpoints go by rule and after asking, never those of a run that goes on or of a named model."""

import datetime
import io
import json

import pytest

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import lock_folder, write_json
from moola_lib.runs.disk import choose_runs, list_costs, remove_checkpoints, say_bytes

NOW = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Four runs a day apart, the newest first named d, each with 1,000 bytes of checkpoints; and work by hand."""
    (tmp_path / "notebooks").mkdir()
    for day, run_id in enumerate("abcd", 16):
        record = {"run_id": run_id, "status": "finished", "started_at": f"2026-11-{day}T00:00:00Z"}
        write_json(tmp_path / "reports" / run_id / "run.json", record | {"stems": [], "notebooks": {}})
    for run_id in ("a", "b", "c", "d", "manual"):
        folder = tmp_path / "data" / "artifacts" / run_id / "04_x"
        for name in ("checkpoints/fold1/checkpoint_best.safetensors", "encoder.safetensors"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"0" * 1000)
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    return tmp_path


def promote(root, run_id, upstream):
    notes = {"kind": "encoder", "run_id": run_id, "metrics": [], "lineage": [{"run_id": upstream}]}
    write_json(root / "data" / "models" / "named" / "model.json", {"model": {}, "features": {}, "notes": notes})


def names(costs):
    return "".join(cost.run_id for cost in costs)


def left(root):
    return "".join(sorted(path.parts[-3] for path in (root / "data" / "artifacts").glob("?/04_x/checkpoints")))


def test_costs_are_the_bytes_on_disk(root):
    costs = list_costs(root)
    assert [cost.run_id for cost in costs] == ["d", "c", "b", "a", "manual"]
    assert {(cost.checkpoints, cost.artifacts) for cost in costs} == {(1000, 1000)}
    assert costs[0].reports == (root / "reports" / "d" / "run.json").stat().st_size
    assert [say_bytes(size) for size in (0, 999, 1500, 2_500_000, 3e9)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
    ]


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ({}, ""),
        ({"keep": 1}, "cba"),
        ({"keep": 9}, ""),
        ({"older_than_days": 2.5}, "ba"),
        ({"keep": 3, "older_than_days": 2.5}, "a"),
        ({"keep": 0}, "dcba"),
    ],
)
def test_a_rule_takes_old_runs_only(root, rule, chosen):
    assert names(choose_runs(list_costs(root), now=NOW, **rule)) == chosen


def test_a_named_model_and_what_it_was_built_on_keep_their_checkpoints(root):
    promote(root, "a", upstream="b")
    costs = list_costs(root)
    assert names(choose_runs(costs, keep=0)) == "dc"
    assert {cost.kept_because for cost in costs if cost.run_id in "ab"} == {"model named came from it"}


def test_a_damaged_card_stops_everything(root, capsys):
    promote(root, "a", upstream="b")
    (root / "data" / "models" / "named" / "model.json").write_text("{")
    assert main(["gc", "--keep", "0", "--yes"]) == 2
    assert "nothing is removed" in capsys.readouterr().err and left(root) == "abcd"


def test_a_run_that_goes_on_keeps_its_checkpoints(root):
    path = root / "reports" / "a" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    with lock_folder(root / "reports" / "a"):
        assert names(choose_runs(list_costs(root), keep=0)) == "dcb"
        with pytest.raises(UserError, match="in use"):
            remove_checkpoints(root, "a")
    assert left(root) == "abcd"


@pytest.mark.parametrize(("words", "answer", "stay"), [
    ([], "", "abcd"),
    (["--keep", "2"], "\n", "abcd"),
    (["--keep", "2"], "no\n", "abcd"),
    (["--keep", "2"], "", "abcd"),
    (["--keep", "2"], "y\n", "cd"),
    (["--keep", "2", "--yes"], "", "cd"),
    (["--keep", "2", "--yes", "--dry-run"], "", "abcd"),
])  # fmt: skip
def test_nothing_goes_before_a_yes(root, monkeypatch, capsys, words, answer, stay):
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert main(["gc", *words]) == 0
    assert left(root) == stay
    printed = capsys.readouterr().out
    assert ("freed 2.0 kB" in printed) == (stay == "cd")
    kept = list((root / "data" / "artifacts").glob("*/04_x/encoder.safetensors"))
    assert len(kept) == 5 and (root / "data" / "artifacts" / "manual" / "04_x" / "checkpoints").is_dir()
