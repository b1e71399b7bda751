"""What leaves a project: the report and the record, nothing more unless asked, and never half."""

import importlib.util
import json
import os
import zipfile
from pathlib import Path

import pytest

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.runs.exporting import CONTENTS, export_run
from moola_lib.runs.tracking import curve_points, export_to_mlflow, export_to_tensorboard, gate_figures

GATE = {"notebook": "02_b", "name": "hits (within 3 bars)", "value": 0.5, "low": 0.4, "high": None, "verdict": "PASS"}
ROWS = [{"label": "arm, fold 1/2", "epoch": e, "n_epochs": 2, "loss": 1 / e, "phase": "x"} for e in (1, 2)]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "notebooks").mkdir()
    record = {"run_id": "a", "status": "finished", "started_at": "2026-11-20T01:02:04Z", "stems": ["02_b"]}
    record |= {"finished_at": "2026-11-20T01:03:04Z", "notebooks": {"02_b": {"status": "finished"}}, "gates": [GATE]}
    record |= {
        "parameters": {"02_b": {"seed": 7, "bars": None, **{f"p{k}": k for k in range(150)}}},
        "profile": "quick",
    }
    files = {
        "reports/a/run.json": json.dumps(record),
        "reports/a/02_b.html": "<h1>page</h1>",
        "reports/a/.lock": "",
        "reports/b/run.json": "another run's",
        "reports/assets/plotly.min.js": "script",
        "data/artifacts/a/02_b/record.json": "{}",
        "data/artifacts/a/02_b/metrics.jsonl": "\n".join(map(json.dumps, ROWS)) + '\n{"epoch": 3, "lo',
        "data/artifacts/a/02_b/bars.parquet": "prices",
        "data/artifacts/a/02_b/checkpoints/model.safetensors": "weights",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def change(root, **values):
    path = root / "reports" / "a" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def needs(module):
    """Skip where an optional package is missing, except in CI."""
    if importlib.util.find_spec(module) is None and not os.environ.get("CI"):
        pytest.skip(f"{module} is not installed")


def test_an_archive_holds_the_record_and_no_data_unless_asked(root, tmp_path):
    def names(*parts):
        export_run(root, "a", tmp_path / "a.zip", parts, is_overwriting=True)
        return {Path(name).name for name in zipfile.ZipFile(tmp_path / "a.zip").namelist()}

    record = {"run.json", "02_b.html", "plotly.min.js", "record.json", "metrics.jsonl", CONTENTS}
    assert names() == record
    assert names("data") == record | {"bars.parquet"}
    assert names("data", "weights") == record | {"bars.parquet", "model.safetensors"}


def test_an_archive_lists_what_it_holds_and_is_the_same_each_time(root, tmp_path):
    contents = export_run(root, "a", tmp_path / "a.zip")
    archive = zipfile.ZipFile(tmp_path / "a.zip")
    assert {info.filename: info.file_size for info in archive.infolist()} == dict(contents) | {
        CONTENTS: archive.getinfo(CONTENTS).file_size
    }
    listed = archive.read(CONTENTS).decode().split()
    assert listed[1::2] == [name for name, _ in contents]
    (root / "reports" / "a" / "run.json").touch()
    export_run(root, "a", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "a.zip").read_bytes()


def test_a_failed_export_leaves_the_old_archive(root, tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    path.write_text("the old one")
    with pytest.raises(UserError, match="exists"):
        export_run(root, "a", path)

    def full(*words, **others):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(UserError, match="No space left"):
        export_run(root, "a", path, is_overwriting=True)
    assert path.read_text() == "the old one" and not list(tmp_path.glob(".a.zip*"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a"], "export needs where to"),
        (["a", "--with", "data", "--mlflow", "x"], "--with and --overwrite go with -o"),
        (["a", "-o", "a.tar"], "does not end in .zip"),
        (["a", "-o", "a.zip", "--with", "bars"], "--with bars is not known; give data or weights"),
        (["absent", "-o", "a.zip"], "there is no run 'absent' (newest: a)"),
        (["../a", "-o", "a.zip"], "is not allowed"),
    ],
)
def test_bad_input_is_one_sentence(root, monkeypatch, capsys, words, sentence):
    monkeypatch.setenv("MOOLA_HOME", str(root))
    monkeypatch.chdir(root)
    assert main(["export", *words]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed and printed.count("\n") == 1 and not list(root.glob("*.zip"))


def test_a_run_with_a_key_in_it_is_not_handed_on(root, tmp_path):
    exports = ((export_run, "a.zip"), (export_to_mlflow, "ml"), (export_to_tensorboard, "tb"))
    change(root, withheld={"02_b": ["run.log, line 3: a GitHub token"]})  # and it failed for another reason
    for export, where in exports:
        with pytest.raises(UserError, match=r"02_b wrote a key or password \(run.log, line 3"):
            export(root, "a", str(tmp_path / where))
    change(root, withheld={}, status="lost")  # its runner was killed before it could look
    (root / "reports/a/run.log").write_text("AKIA" + "ABCD" * 4)
    for export, where in exports:
        with pytest.raises(UserError, match="AWS access key; run a is not exported"):
            export(root, "a", str(tmp_path / where))


def test_curves_and_gates_are_numbers_by_name(root):
    record = json.loads((root / "reports" / "a" / "run.json").read_text())
    assert [each for each in curve_points(root, record) if each[0].endswith("/loss")] == [
        ("02_b/arm, fold 1/2/loss", 1.0, 1),
        ("02_b/arm, fold 1/2/loss", 0.5, 2),
    ]
    name = "gates/02_b/hits (within 3 bars)"
    assert gate_figures(record) == {name: 0.5, f"{name}, low": 0.4}


def test_an_mlflow_store_gets_the_run_once(root, tmp_path, monkeypatch):
    needs("mlflow")
    monkeypatch.setenv("MOOLA_HOME", str(root))
    store = tmp_path / "store"
    made = export_to_mlflow(root, "a", str(store))
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=store.as_uri())
    run = client.get_run(made)
    assert run.info.run_name == "a" and run.info.status == "FINISHED"
    assert run.data.params["02_b.seed"] == "7" and len(run.data.params) == 152
    curve = client.get_metric_history(made, "02_b/arm_ fold 1/2/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5)]
    assert run.data.metrics["gates/02_b/hits _within 3 bars__ low"] == 0.4
    assert {item.path for item in client.list_artifacts(made)} == {"run.json", "02_b.html"}
    with pytest.raises(UserError, match="has run a already"):
        export_to_mlflow(root, "a", str(store))


NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(("store", "sentence"), [(NOBODY, f"cannot use {NOBODY}"), ("/proc/x", "cannot write")])
def test_a_store_that_cannot_be_used_is_one_sentence(root, monkeypatch, capsys, store, sentence):
    needs("mlflow")
    monkeypatch.setenv("MOOLA_HOME", str(root))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["export", "a", "--mlflow", store]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed and printed.count("\n") == 1


def test_a_failed_mlflow_export_leaves_no_run(root, tmp_path, monkeypatch):
    needs("mlflow")
    from mlflow.tracking import MlflowClient

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", lambda *words: None)
        patch.setattr(MlflowClient, "log_artifact", lambda *words: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_to_mlflow(root, "a", str(tmp_path / "store"))
    assert export_to_mlflow(root, "a", str(tmp_path / "store")), "nothing of the first try is in the way"


def test_tensorboard_reads_what_was_written(root, tmp_path):
    needs("tensorboard")
    folder = export_to_tensorboard(root, "a", tmp_path / "logs")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("02_b/arm, fold 1/2/loss")] == [(1, 1.0), (2, 0.5)]
    assert events.Scalars("gates/02_b/hits (within 3 bars)")[0].value == 0.5
    assert b"|02_b.seed|7|" in events.Tensors("run/text_summary")[0].tensor_proto.string_val[0]
    with pytest.raises(UserError, match="exists"):
        export_to_tensorboard(root, "a", tmp_path / "logs")


@pytest.mark.parametrize(("extra", "option"), [("mlflow", "--mlflow"), ("torch.utils.tensorboard", "--tensorboard")])
def test_a_missing_extra_names_the_command_that_installs_it(root, monkeypatch, capsys, extra, option):
    monkeypatch.setenv("MOOLA_HOME", str(root))
    monkeypatch.setitem(__import__("sys").modules, extra, None)
    assert main(["export", "a", option, str(root / "there")]) == 2
    assert f"pip install -c constraints.txt -e '.[{extra.split('.')[-1]}]'" in capsys.readouterr().err
    assert not (root / "there").exists()
