"""The front door: instant help, and bad input in one sentence with exit code 2."""

import io
import os
import pty
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from toy_project import MODELS, build_project

import moola_lib
from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.runs import record
from moola_lib.runs.project import find_root, notebook_stems, resolve_stem
from moola_lib.runs.terminal import RunDisplay, print_gates, say_count


@pytest.fixture
def root(tmp_path, monkeypatch):
    build_project(tmp_path)
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path))
    return tmp_path


def test_help_is_instant_and_imports_nothing_heavy():
    heavy = ["pydantic", "rich", "pandas", "papermill", "numpy", "yaml", "nbformat", "torch"]
    code = (
        "import sys, moola_lib.cli\n"
        "try:\n    moola_lib.cli.main(['--help'])\n"
        f"finally:\n    print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(moola_lib.__file__).parents[1],
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and "doctor" in done.stdout and "features" in done.stdout
    assert done.stderr.strip() == "[]"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_help_says_what_every_exit_code_means(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    listed = {int(code) for code in re.findall(r"^  (\d+)  ", capsys.readouterr().out, re.M)}
    codes = {value for name, value in vars(record).items() if name.isupper() and isinstance(value, int)}
    assert listed == codes


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"moola {moola_lib.__version__}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["3"], "there is no notebook '3' (known: 01_first, 02_second)"),
        (["01_frist"], "did you mean 01_first?"),
        (["-f", "absent.yaml"], "cannot read absent.yaml"),
        (["-p", "sede", "1"], "'sede' is not a parameter of any of the notebooks; did you mean"),
        (["1", "-p", "mode", "ok"], "'mode' is not a parameter of 01_first"),
        (["-p", "mode", "rais"], "-p: mode = 'rais' is not allowed: give one of ok, raise"),
        (["-p", "n_epochs", "1e9"], "n_epochs = '1e9' is not allowed: give a whole number at"),
        (["--run-id", "../x"], "run id '../x' is not allowed"),
        (["--resume"], "--resume needs --run-id"),
    ],
)
def test_bad_input_is_one_sentence_before_any_kernel(root, capsys, words, sentence):
    assert main(["run", *words], models=MODELS) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("moola: ") and sentence in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""
    assert not (root / "reports").exists()


def test_unwritable_reports_folder(root, capsys):
    (root / "reports").write_text("a file in the way")
    assert main(["run", "1"], models=MODELS) == 2
    assert "cannot write" in capsys.readouterr().err


def test_index_of_an_empty_project(root, capsys):
    assert main(["index"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == root / "reports" / "index.html"
    assert "No runs yet" in path.read_text()


def test_the_root_and_its_notebooks(root, monkeypatch, tmp_path):
    assert find_root() == root
    assert notebook_stems(root) == ["01_first", "02_second"]
    for text in ("2", "02", "02_second", "second", "notebooks/02_second.ipynb"):
        assert resolve_stem(text, root) == "02_second"
    monkeypatch.setenv("MOOLA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="holds no notebooks"):
        find_root()
    monkeypatch.delenv("MOOLA_HOME")
    (root / "moola_lib").mkdir()
    assert find_root(root / "notebooks") == root


def test_gates_and_progress_in_a_pipe(capsys):
    gate = {"notebook": "04_x", "name": "[bold]skill", "value": -0.03125, "low": -0.1}
    print_gates([{**gate, "high": 0.05, "target": "above 0", "baseline": None, "verdict": "FAIL"}])
    table = capsys.readouterr().out
    assert "[bold]skill" in table and "-0.1 to 0.05" in table and "FAIL" in table
    place = {"stem": "04_x", "number": 4, "total": 5}
    with RunDisplay() as display:
        display.show({"kind": "started", **place})
        for epoch in range(100):  # far less than ten seconds: no line each
            display.show({"kind": "epoch", "row": {"epoch": epoch}, **place})
        display.show({"kind": "ended", "status": "failed", "seconds": 61, **place})
    assert capsys.readouterr().out.splitlines() == [
        "4/5 04_x started",
        "✗ 4/5 04_x failed in 1:01",
    ]


def test_the_live_block_tells_the_memory_of_the_kernel_at_work():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    display = RunDisplay(Terminal())
    place = {"stem": "04_x", "number": 4, "total": 5}
    display.show({"kind": "started", **place})
    display.show({"kind": "memory", "bytes": 2_340_000_000, **place})
    display.show({"kind": "cell", "cell": 3, "n_cells": 9, **place})
    assert str(display.__rich__()) == "4/5 04_x  cell 3/9  0:00  2.3 GB"
    display.show({"kind": "started", **place, "number": 5, "stem": "05_y"})
    assert "GB" not in str(display.__rich__())


def piped_to_nobody(root, *words):
    """Run a command whose output goes to a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", CLI_WITH_TOY_MODELS, *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=root, env=environment)
    os.close(writer)
    return done


CLI_WITH_TOY_MODELS = """
import sys
from toy_project import MODELS
from moola_lib.cli import main
sys.exit(main(sys.argv[1:], MODELS))
"""


def test_a_reader_who_goes_ends_neither_a_run_nor_its_exit_code(root):
    done = piped_to_nobody(root, "run", "01", "--run-id", "unread")
    assert (done.returncode, done.stderr) == (0, "")
    assert record.read_run(root, "unread")["status"] == "finished"
    assert (root / "reports" / "index.html").exists()
    done = piped_to_nobody(root, "status", "--json")
    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_terminal_interrupts_a_run(root, hears_hang_ups):
    words = ["run", "01", "02", "-p", "mode", "sleep", "--run-id", "hung-up"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", CLI_WITH_TOY_MODELS, *words], environment)
    seen = b""
    while b"epoch 2/2" not in seen:  # the notebook sleeps now
        seen += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    kept = record.read_run(root, "hung-up")
    assert (kept["status"], kept["exit_code"]) == ("interrupted", 130)
    assert (root / "data/artifacts/hung-up/02_second/cleaned_up").exists()


def bars_file(folder, text="2024-03-05 10:{:02d}:00Z,18000,18001,17999,18000.25,5", n_rows=30):
    path = folder / "bars.csv"
    rows = [text.format(minute) for minute in range(n_rows)]
    path.write_text("\n".join(["timestamp,open,high,low,close,volume", *rows]) + "\n")
    return path


def test_import_writes_bars_and_says_what_it_read(tmp_path, capsys):
    path, output = bars_file(tmp_path), tmp_path / "raw" / "NQ.parquet"
    assert main(["import", str(path), "--symbol", "NQ", "-o", str(output)]) == 0
    captured = capsys.readouterr()
    for words in ("rows in", "rows out", "carried by the stamps: UTC", "tick size", f"30 bars in {output}"):
        assert words in captured.out
    assert captured.err == "" and output.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "name the series with symbol"),
        (["--symbol", "NQ", "--tz", "America/Chicago"], "contradicts the stamps"),
        (["--symbol", "NQ", "--scale", "-1"], "give a number above 0"),
        (["--symbol", "NQ", "--scale", "1e-4"], "a stated factor with scale"),
        (["--symbol", "NQ", "--drop-budget", "nan"], "fraction from 0 to 1"),
        (["--symbol", "NQ", "-o", "bars.csv"], "a name that ends in .parquet"),
    ],
)
def test_a_refused_import_is_one_sentence_and_writes_nothing(tmp_path, capsys, words, sentence):
    path, output = bars_file(tmp_path), tmp_path / "raw" / "NQ.parquet"
    assert main(["import", str(path), "-o", str(output), *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("moola: ") and sentence in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""
    assert not output.parent.exists()


def test_past_the_drop_budget_nothing_is_written(tmp_path, capsys):
    path, output = bars_file(tmp_path), tmp_path / "NQ.parquet"
    path.write_text(path.read_text().replace("10:07:00Z,18000,", "10:07:00Z,,"))
    words = ["import", str(path), "--symbol", "NQ", "-o", str(output)]
    assert main(words) == 2
    assert "1 of 30 rows (3.3%) are not valid bars, more than the budget of 0.5%" in capsys.readouterr().err
    assert not output.exists()
    assert main([*words, "--drop-budget", "0.05"]) == 0
    assert "1 (first: row 8" in capsys.readouterr().out


def test_one_bar_is_not_some_bars(tmp_path, capsys):
    path, output = bars_file(tmp_path, n_rows=1), tmp_path / "NQ.parquet"
    assert main(["import", str(path), "--symbol", "NQ", "-o", str(output)]) == 0
    assert f"\n1 bar in {output}" in capsys.readouterr().out


def test_terminated_it_says_so_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    path, output = bars_file(tmp_path), tmp_path / "raw" / "NQ.parquet"

    def end(frame, temporary, **options):
        temporary.write_bytes(b"PAR1")
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", end)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["import", str(path), "--symbol", "NQ", "-o", str(output)]) == 130
    assert capsys.readouterr().err == "moola: interrupted; run the same command again to go on\n"
    assert list(output.parent.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_existing_output_is_replaced_only_when_asked(tmp_path, capsys):
    path, output = bars_file(tmp_path), tmp_path / "NQ.parquet"
    output.write_text("precious")
    words = ["import", str(path), "--symbol", "NQ", "-o", str(output)]
    assert main(words) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err and output.read_text() == "precious"
    path.write_text(path.read_text()[:-20])
    assert main([*words, "--overwrite"]) == 2 and output.read_text() == "precious"
    bars_file(tmp_path)
    assert main([*words, "--overwrite"]) == 0 and output.read_bytes().startswith(b"PAR1")


def test_counts_and_their_nouns_agree():
    assert [say_count(count, "month") for count in (0, 1, 2, 1380)] == [
        "0 months",
        "1 month",
        "2 months",
        "1,380 months",
    ]
