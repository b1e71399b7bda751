"""Whatever a file holds, `moola import` reads it or says one sentence, and never leaves half an output."""

import contextlib
import gzip
import io
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vendor_files import LAYOUTS, dbn_bytes, zstandard

from moola_lib.cli import main
from moola_lib.market.bars import COLUMNS, PRICES

FUZZ = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
OPTIONS = ["--tz", "America/New_York", "--stamp", "start", "--symbol", "NQ", "--drop-budget", "0.1"]
NUMBERS = st.one_of(
    st.floats(width=64).map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(["", "1e400", "-1e-400", "0x10", "1,5", " 7 ", "nan", "NULL", '"', "１８０００", "18000.25.1"]),
    st.datetimes().map(str),
    st.text(max_size=8),
)


def run_import(path, output, options):
    """Run the command; return its exit code and what it said on standard error."""
    said, shown = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
        code = main(["import", str(path), "-o", str(output), *options])
    return code, said.getvalue()


def check(folder, content, options=()):
    """Import bytes: either a whole output and no complaint, or one sentence and no file at all."""
    folder = Path(folder)
    path, output = folder / "bars.bin", folder / "out" / "bars.parquet"
    path.write_bytes(content)
    output.unlink(missing_ok=True)
    for given_options in (OPTIONS, *options):
        code, said = run_import(path, output, given_options)
        if code == 0:
            assert said == ""
            frame = pq.read_table(output).to_pandas()
            low, high = frame[PRICES].min(axis=1), frame[PRICES].max(axis=1)
            assert len(frame) and np.isfinite(frame[COLUMNS]).all(axis=None)
            assert (frame["low"] == low).all() and (frame["high"] == high).all() and (low > 0).all()
            assert frame.index.is_monotonic_increasing and frame.index.is_unique
            output.unlink()
        else:
            assert code == 2
            assert said.startswith("moola: ") and said.count("\n") == 1 and len(said.splitlines()) == 1
            assert "Traceback" not in said
        assert not output.parent.exists() or not list(output.parent.iterdir())


@pytest.fixture(scope="module")
def contents(plain_frame):
    """The same bars as every kind of file, in bytes."""
    written = {name: write(plain_frame).encode() for name, (write, _, _) in LAYOUTS.items()}
    stream = io.BytesIO()
    plain_frame.to_parquet(stream)
    return {
        **written,
        "gzip": gzip.compress(written["Databento pretty"]),
        "zstandard DBN": zstandard(dbn_bytes(plain_frame)),
        "DBN": dbn_bytes(plain_frame),
        "parquet": stream.getvalue(),
    }


KINDS = st.sampled_from([*LAYOUTS, "gzip", "zstandard DBN", "DBN", "parquet"])


def test_the_checks_let_whole_files_through(contents, tmp_path):
    for name, content in contents.items():
        (tmp_path / "bars.bin").write_bytes(content)
        options = LAYOUTS[name][1] if name in LAYOUTS else {}
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        assert run_import(tmp_path / "bars.bin", tmp_path / f"{name}.parquet", words) == (0, "")


@FUZZ
@given(kind=KINDS, share=st.floats(0, 1))
def test_any_truncation(contents, tmp_path, kind, share):
    content = contents[kind]
    check(tmp_path, content[: int(share * len(content))], [[]])


@FUZZ
@given(kind=KINDS, seed=st.integers(0, 2**32), n_edits=st.integers(1, 20))
def test_any_bytes_changed(contents, tmp_path, kind, seed, n_edits):
    rng = random.Random(seed)
    content = bytearray(contents[kind])
    for _ in range(n_edits):
        content[rng.randrange(len(content))] = rng.choice([0, 10, 13, 34, 44, 59, 255, rng.randrange(256)])
    check(tmp_path, bytes(content), [[]])


@FUZZ
@given(kind=st.sampled_from(list(LAYOUTS)), order=st.permutations(range(6)), with_header=st.booleans())
def test_any_columns_swapped(contents, tmp_path, kind, order, with_header):
    lines = contents[kind].decode().splitlines()
    separator = ";" if kind == "semicolons" else ","
    for row in range(0 if with_header else 1, len(lines)):
        cells = lines[row].split(separator)
        lines[row] = separator.join([*(cells[place] for place in order if place < len(cells)), *cells[6:]])
    check(tmp_path, "\n".join(lines).encode())


@FUZZ
@given(
    kind=st.sampled_from(list(LAYOUTS)),
    row=st.integers(0, 39),
    place=st.integers(0, 8),
    values=st.lists(NUMBERS, min_size=1),
)
def test_any_value_in_any_cell(contents, tmp_path, kind, row, place, values):
    lines = contents[kind].decode().splitlines()
    separator = ";" if kind == "semicolons" else ","
    for step, value in enumerate(values):
        line = (row + step) % len(lines)
        cells = lines[line].split(separator)
        cells[place % len(cells)] = value
        lines[line] = separator.join(cells)
    check(tmp_path, "\n".join(lines).encode("utf-8", errors="surrogatepass"))


@FUZZ
@given(
    kind=st.sampled_from(list(LAYOUTS)),
    encoding=st.sampled_from(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "utf-7"]),
    noise=st.text(st.characters(max_codepoint=255), max_size=12),
    at=st.floats(0, 1),
)
def test_any_encoding(contents, tmp_path, kind, encoding, noise, at):
    text = contents[kind].decode()
    cut = int(at * len(text))
    check(tmp_path, (text[:cut] + noise + text[cut:]).encode(encoding))


@FUZZ
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes(tmp_path, content):
    for magic in (b"", b"PAR1", b"DBN\x03", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"):
        check(tmp_path, magic + content)


@FUZZ
@given(
    option=st.sampled_from(["--tz", "--symbol", "-o"]),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.just("\udcff"), max_size=12),
)
def test_any_text_as_option(contents, tmp_path, option, text):
    (tmp_path / "bars.csv").write_bytes(contents["FirstRate"])
    output = tmp_path / "out" / "bars.parquet"
    output.unlink(missing_ok=True)
    if option == "-o":
        text = str(output.with_name(text.replace("/", "") + ".parquet"))[:200]
    words = [f"{option}={text}" if option != "-o" else f"-o{text}"]
    code, said = run_import(tmp_path / "bars.csv", output, [*OPTIONS, *words])
    assert code in (0, 2)
    assert (code == 0) == (said == "") and len(said.splitlines()) <= 1
