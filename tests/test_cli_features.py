"""`moola features`: a table is written and verified, and bad input is one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

import moola_lib
from moola_lib.cli import main


@pytest.fixture(scope="module")
def bars_file(tmp_path_factory):
    """Thirty simulated sessions in a file."""
    from moola_lib.market import simulate_bars
    from moola_lib.market.bars import save_bars

    path = tmp_path_factory.mktemp("bars") / "sim.parquet"
    save_bars(simulate_bars(n_sessions=30, seed=3).bars, path)
    return path


def test_features_writes_a_table_and_verifies_it(bars_file, tmp_path, capsys):
    folder = str(tmp_path / "table")
    words = [
        "--zigzag",
        "legacy",
        "--extra",
        "consol_proxy",
        "--fractions",
        "0.6",
        "0.2",
        "0.2",
        "--max-gap-minutes",
        "2",
    ]
    assert main(["features", str(bars_file), "-o", folder, *words]) == 0
    out = capsys.readouterr().out
    assert "41,400 bars in 30 segments" in out and "relativity11.v1/legacy+consol_proxy" in out and "train" in out
    assert main(["features", "--verify", folder, "--bars", str(bars_file)]) == 0
    out = capsys.readouterr().out
    assert "expansion_proxy" in out and "PASS" in out and "FAIL" not in out


def test_features_reads_bars_as_told(bars_file, tmp_path, capsys):
    import pandas as pd

    frame = pd.read_parquet(bars_file).drop(columns="symbol")
    prices = ["open", "high", "low", "close"]
    frame[prices] /= 1e4
    frame.index = frame.index.tz_convert("America/Chicago").tz_localize(None) + pd.Timedelta(minutes=1)
    frame.to_csv(tmp_path / "naive.csv")
    table = str(tmp_path / "table")
    how = ["--tz", "America/Chicago", "--stamp", "end", "--symbol", "SIM", "--scale", "10000"]
    assert main(["features", str(tmp_path / "naive.csv"), "-o", table]) == 2
    assert "moola: " in capsys.readouterr().err
    assert main(["features", str(tmp_path / "naive.csv"), "-o", table, *how]) == 0
    assert main(["features", "--verify", table, "--bars", str(tmp_path / "naive.csv"), *how]) == 0
    assert "41,400 bars in 30 segments" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "features needs the bars and where to write"),
        (["BARS"], "features needs the bars and where to write"),
        (["absent.parquet", "-o", "OUT"], "does not exist"),
        (["BARS", "-o", "OUT", "--feature-set", "relativity12"], "'relativity12' is not known"),
        (["BARS", "-o", "OUT", "--zigzag", "up"], "'up' is not known"),
        (["BARS", "-o", "OUT", "--extra", "x"], "'x' is not known"),
        (["BARS", "-o", "OUT", "--k", "0"], "k = 0.0 is not allowed"),
        (["BARS", "-o", "OUT", "--dates", "soon", "later"], "cannot be read"),
        (["BARS", "-o", "OUT", "--fractions", "1", "2", "3"], "sum to 1"),
        (["BARS", "-o", "OUT", "--fractions", "0.5", "0.25", "nan"], "sum to 1"),
        (["BARS", "-o", "OUT", "--embargo-bars", "10"], "embargo of 10 bars is not allowed"),
        (["BARS", "-o", "OUT", "--max-gap-minutes", "1e300"], "at most 10,080 (a week)"),
        (["BARS", "-o", "OUT", "--max-gap-minutes", "1e12"], "at most 10,080 (a week)"),
        (["FOLDER", "-o", "OUT", "--max-gap-minutes", "inf"], "at most 10,080 (a week)"),
        (["BARS", "-o", "OUT", "--workers", "2"], "--workers goes with a folder"),
        (["BARS", "-o", "OUT", "--scheduler", "tcp://a:1"], "--scheduler goes with a folder"),
        (["BARS", "-o", "OUT", "--bars", "BARS"], "--bars goes with --verify"),
        (["BARS", "-o", "BARS"], "exists already"),
        (["BARS", "-o", "BARS", "--overwrite"], "is a file"),
        (["FOLDER", "-o", "OUT", "--embargo-bars", "200"], "--embargo-bars goes with a single series"),
        (["FOLDER", "-o", "OUT", "--symbol", "SIM"], "--symbol goes with a single series"),
        (["FOLDER", "-o", "BARS"], "is a file"),
        (["FOLDER", "-o", "OUT", "--workers", "0"], "0 workers cannot work"),
        (["--verify", "absent"], "absent does not exist; give the folder that moola features wrote"),
        (["--verify", "BARS"], "is a file, not a feature table; give the folder that moola features wrote"),
        (["--verify", "FOLDER"], "holds no feature table (there is no metadata.json); give the folder that"),
        (["BARS", "--verify", "OUT"], "leave out BARS and -o"),
    ],
)
def test_features_refuses_in_one_sentence(bars_file, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    names = {"BARS": str(bars_file), "FOLDER": str(bars_file.parent)}
    before = bars_file.read_bytes()
    assert main(["features", *(names.get(word, word) for word in words)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("moola: ") and sentence in captured.err and captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [] and bars_file.read_bytes() == before


def test_features_of_a_folder(bars_file, tmp_path, capsys):
    folder = str(tmp_path / "out")
    assert main(["features", str(bars_file.parent), "-o", folder, "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert out == f"SIM (sim.parquet): 41,400 bars, 2 months written\n1 instrument in {folder}\n"
    assert main(["features", "--verify", folder]) == 0
    assert "SIM/2024-02" in capsys.readouterr().out
    assert main(["features", "--verify", folder, "--bars", str(bars_file)]) == 2
    assert f"such as {folder}/SIM/2024-01" in capsys.readouterr().err
    assert main(["features", "--verify", f"{folder}/SIM/2024-02", "--bars", str(bars_file)]) == 0


def test_features_loads_no_torch(bars_file, tmp_path):
    code = (
        "import sys, moola_lib.cli\n"
        f"assert moola_lib.cli.main(['features', {str(bars_file)!r}, '-o', {str(tmp_path / 'table')!r}]) == 0\n"
        "print([m for m in ['torch', 'plotly', 'papermill'] if m in sys.modules], file=sys.stderr)"
    )
    root = Path(moola_lib.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0 and done.stderr.strip() == "[]"


def test_a_folder_that_may_not_be_searched_is_one_sentence(tmp_path, monkeypatch, capsys):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert main(["features", str(tmp_path / "closed"), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"moola: {tmp_path / 'closed'} may not be read; change its permissions\n"
