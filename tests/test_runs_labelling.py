"""`moola label`: what can be labelled is opened in JupyterLab, what cannot is one sentence."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.labels import propose_labels
from moola_lib.market import save_bars
from moola_lib.runs import labelling
from moola_lib.runs.labelling import newest_bars, open_studio


@pytest.fixture(scope="module")
def bars(market, tmp_path_factory):
    path = tmp_path_factory.mktemp("bars") / "bars.parquet"
    save_bars(market.bars, path)
    return path


@pytest.fixture
def launched(monkeypatch):
    """The commands JupyterLab would have been started with."""
    commands = []
    monkeypatch.setattr(labelling, "_wait_for", lambda command: commands.append(command) or 0)
    return commands


def test_it_opens_jupyterlab_on_a_notebook_with_the_studio(tmp_path, bars, market, launched, capsys):
    propose_labels(market.bars.frame, n_windows=20).to_parquet(tmp_path / "found.parquet")
    table = tmp_path / "own" / "nq.parquet"
    found = ["--proposals", str(tmp_path / "found.parquet"), "--annotator", "ann"]
    assert main(["label", str(table), "--bars", str(bars), *found]) == 0
    notebook = table.with_suffix(".ipynb")
    assert [command[:5] for command in launched] == [[sys.executable, "-m", "jupyter", "lab", str(notebook)]]
    assert launched[0][5:] == (["--allow-root"] if os.geteuid() == 0 else [])  # it refuses root otherwise
    assert f"labels go to {table}" in capsys.readouterr().out
    written = nbformat.read(notebook, as_version=4)
    nbformat.validate(written)
    names = {}
    exec(written.cells[1].source.replace("label_studio(", "figure = label_studio("), names)  # no kernel: a figure
    assert "0 of 20 windows are labelled" in names["figure"].layout.title.text
    assert "annotator='ann'" in written.cells[1].source


def test_a_notebook_of_its_own_is_written_anew_and_one_of_somebody_is_left_alone(tmp_path, bars, launched):
    table = tmp_path / "labels.parquet"
    for annotator in ("ann", "bob"):
        open_studio(table, bars=bars, annotator=annotator, launch=launched.append, stream=io.StringIO())
    assert "bob" in table.with_suffix(".ipynb").read_text()
    table.with_suffix(".ipynb").write_text(json.dumps({"cells": [], "metadata": {}}))
    with pytest.raises(UserError, match="is a notebook of somebody's"):
        open_studio(table, bars=bars, launch=launched.append)
    assert len(launched) == 2


def test_what_cannot_be_labelled_opens_nothing(tmp_path, bars, launched, capsys):
    (tmp_path / "bad.parquet").write_text("no parquet")
    for arguments, told in [
        ([tmp_path / "t.parquet", "--bars", tmp_path / "none.parquet"], "does not exist"),
        ([tmp_path / "t.parquet", "--bars", bars, "--proposals", tmp_path / "none.parquet"], "does not exist"),
        ([tmp_path / "t.csv", "--bars", bars], "is no parquet file"),
        ([tmp_path / "bad.parquet", "--bars", bars], "cannot be read as parquet"),
        ([tmp_path / "bad.parquet" / "t.parquet", "--bars", bars], "cannot"),
    ]:
        assert main(["label", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert told in captured.err and captured.err.count("\n") == 1
    assert launched == []


def test_without_bars_those_of_the_newest_run_are_taken(project, bars, launched, monkeypatch):
    folder = project / "data" / "artifacts" / "newest" / "01_feature_validation"
    folder.mkdir(parents=True)
    shutil.copy(bars, folder / "bars.parquet")
    record = {"stem": "01_feature_validation", "status": "finished", "finished_at": "2999-01-01T00:00:00Z"}
    (folder / "record.json").write_text(json.dumps(record))
    assert newest_bars(project) == folder / "bars.parquet"
    assert main(["label"]) == 0
    notebook = project / "data" / "labels" / "labels.ipynb"
    assert str(folder / "bars.parquet") in notebook.read_text() and str(notebook) in launched[0]


def test_where_there_are_no_bars_it_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="name a file with --bars, or run `moola run 01` first"):
        newest_bars(tmp_path)


PATIENT = """
import os, time
open("pid", "w").write(str(os.getpid()))
time.sleep(60)
"""
FRONT_DOOR = """
import sys
from moola_lib import cli
from moola_lib.runs import labelling
labelling.open_studio = lambda *_, **__: labelling._wait_for([sys.executable, "-c", {patient!r}])
sys.exit(cli.main(["label"]))
"""


def test_sigterm_ends_jupyterlab_too(tmp_path):
    """The front door turns SIGTERM into an interrupt; what it waits for must not live on."""
    code = FRONT_DOOR.format(patient=PATIENT)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130 and "interrupted" in process.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
