"""The engine: what is on disk after a run that finished, failed, died, was stopped or resumed."""

import json
import os
import signal
import time
import tomllib
from pathlib import Path

import pytest
from toy_project import MODELS, build_project

from moola_lib.cli import main
from moola_lib.errors import UserError
from moola_lib.files import lock_folder, read_json
from moola_lib.runs import saving
from moola_lib.runs.engine import run_notebooks
from moola_lib.runs.index import build_index, gates_passed
from moola_lib.runs.record import KEY_PACKAGES, list_runs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project whose folder name would confuse papermill's path formatting."""
    root = tmp_path_factory.mktemp("project {x}")
    build_project(root)
    here = Path(__file__).resolve().parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOOLA_HOME", str(root))
        patch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")
        patch.delenv("MOOLA_RUN_ID", raising=False)
        patch.delenv("MOOLA_HEADLESS", raising=False)
        yield root


def run(*words):
    return main(["run", *words], models=MODELS)


@pytest.fixture(scope="module")
def good(root):
    """A finished chain; its one failed gate makes `--strict` exit 3."""
    assert run("--run-id", "good", "-p", "n_epochs", "3", "--strict") == 3
    return root / "reports" / "good"


def test_a_finished_run_leaves_its_record_pages_and_log(root, good):
    record = read_json(good / "run.json")
    assert record["status"] == "finished" and record["error"] is None
    assert record["exit_code"] == 3, "what the command returned"
    assert record["stems"] == ["01_first", "02_second"]
    assert record["given_parameters"]["02_second"] == {"n_epochs": 3}
    assert record["parameters"]["02_second"]["mode"] == "ok"
    assert [g["verdict"] for g in record["gates"]] == ["PASS", "FAIL"]
    assert [g["notebook"] for g in record["gates"]] == ["01_first", "02_second"]
    assert record["data"]["fingerprint"] == "abcdef0123456789"
    assert record["seed"] == 7
    assert set(record["timings"]) == {"01_first", "02_second"}
    assert "data/artifacts/good/01_first/table" in [a["path"] for a in record["artifacts"]]
    assert "papermill" in record["versions"] and set(record["git"]) == {"commit", "is_dirty"}
    assert "epoch 3/3  train loss 0.3333" in (good / "run.log").read_text()
    own = read_json(root / "data/artifacts/good/02_second/record.json")
    assert own["upstream_runs"] == {"01_first": "good"}
    assert not (good / ".lock").exists()
    for stem in record["stems"]:
        saved = (good / f"{stem}.ipynb").read_text()
        assert str(root) not in json.dumps(json.loads(saved)["metadata"])
        assert "02_second.html" in (good / "01_first.html").read_text()


def test_the_same_run_id_is_refused_and_resume_skips(root, good, capsys):
    before = (good / "02_second.ipynb").stat().st_mtime_ns
    half_written = good / ".run.json.k3x9w2_a"
    half_written.write_text('{"run_id": "go')
    assert run("--run-id", "good") == 2
    assert "run 'good' exists already" in capsys.readouterr().err
    assert run("--run-id", "good", "--resume") == 3, "as strict as it was"
    assert capsys.readouterr().out.count("was finished already") == 2
    assert (good / "02_second.ipynb").stat().st_mtime_ns == before
    assert not half_written.exists(), "a killed runner's"
    assert run("--run-id", "good", "--resume", "-p", "seed", "8") == 2
    sentence = capsys.readouterr().err
    assert "finished 01_first with another seed;" in sentence, "what was given before is kept"
    assert "use a new run id" in sentence
    assert run("--run-id", "absent", "--resume") == 2
    assert run("--resume") == 2


def test_a_failing_notebook_is_kept_named_and_can_be_resumed(root, good, capsys):
    assert run("2", "--run-id", "bad", "-p", "mode", "raise") == 1
    sentence = capsys.readouterr().err
    assert "02_second stopped at cell 7 (`# the cell that fails`): ValueError: a red" in sentence
    assert "reports/bad/run.log" in sentence and "Traceback" not in sentence
    record = read_json(root / "reports/bad/run.json")
    assert record["status"] == "failed"
    assert (record["error"]["stem"], record["error"]["cell"]) == ("02_second", 7)
    page = (root / "reports/bad/02_second.html").read_text()
    assert "Stopped at cell 7" in page and "&lt;b&gt;mistake" in page
    assert "<b>mistake" not in page and "\x1b" not in page
    cells = read_json(root / "reports/bad/02_second.ipynb")["cells"]
    assert len(cells) == 9  # the source's eight and the injected one: no banner of papermill's
    assert "Traceback" in (root / "reports/bad/run.log").read_text()
    # What has been trained goes on as it began; what has not may be put right.
    checkpoint = root / "data/artifacts/bad/02_second/checkpoints/fold1/checkpoint_latest.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"")
    capsys.readouterr()
    assert run("2", "--run-id", "bad", "--resume", "-p", "mode", "ok", "-p", "seed", "8") == 2
    sentence = capsys.readouterr().err
    assert "run 'bad' has checkpoints of 02_second, trained with another seed, mode; " in sentence
    assert "use a new run id" in sentence
    assert read_json(root / "reports/bad/run.json") == record
    checkpoint.unlink()
    assert run("2", "--run-id", "bad", "--resume", "-p", "mode", "ok") == 0
    assert read_json(root / "reports/bad/run.json")["status"] == "finished"


def test_a_users_mistake_inside_a_notebook_is_just_its_sentence(root, good, capsys):
    assert run("02_second", "--run-id", "user", "-p", "mode", "user") == 2
    sentence = capsys.readouterr().err.strip()
    assert sentence == "moola: bars.parquet does not exist (02_second, cell 7)"


def test_a_killed_kernel_is_reported_as_such(root, good, capsys):
    assert run("02", "--run-id", "killed", "-p", "mode", "kill") == 138
    sentence = capsys.readouterr().err
    assert (
        "cell 7 (`# the cell that fails`): DeadKernelError: the kernel died: it ended itself, exit code 3" in sentence
    )
    record = read_json(root / "reports/killed/run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 138)
    assert record["notebooks"]["02_second"]["peak_memory_mb"] > 10
    assert "failed" in (root / "reports/killed/02_second.html").read_text()
    assert "the kernel died" in (root / "reports/killed/run.log").read_text()


def test_an_interrupt_during_a_save_ends_that_run_and_no_other(root, good, monkeypatch):
    write, interrupted = saving.write_text, []

    def write_or_be_interrupted(path, text):
        if "epoch 2/2" in text and not interrupted:
            interrupted.append(path)
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(saving, "write_text", write_or_be_interrupted)
    options = {"root": root, "run_id": "between"}
    assert run_notebooks(["02_second"], {"02_second": {"mode": "sleep"}}, **options).exit_code == 130
    assert interrupted and (root / "data/artifacts/between/02_second/cleaned_up").exists()
    assert run_notebooks(["02_second"], {}, resume=True, **options).exit_code == 0


def test_a_crash_is_named_with_the_last_lines_of_the_log(root, good, capsys):
    assert run("02", "--run-id", "crashed", "-p", "mode", "crash") == 138
    sentence = capsys.readouterr().err
    assert "a segmentation fault (SIGSEGV); it held" in sentence
    assert "the last line before the crash" in sentence
    error = read_json(root / "reports/crashed/run.json")["error"]
    assert "the last line before the crash" in error["last_lines"]


@pytest.mark.slow
def test_a_cell_that_takes_too_long_is_stopped_and_cleans_up(root, good, capsys):
    words = ["02", "--run-id", "slow", "-p", "mode", "sleep", "--cell-timeout", "8"]
    assert run(*words) == 1
    assert "CellTimeoutError: the cell took longer than 8 s (--cell-timeout)" in capsys.readouterr().err
    assert (root / "data/artifacts/slow/02_second/cleaned_up").exists()
    with pytest.raises(SystemExit) as caught:
        run("02", "--cell-timeout", "0")
    assert caught.value.code == 2


def test_a_key_in_a_notebook_withholds_its_report(root, good, capsys, monkeypatch):
    value = "correct-horse-battery"
    monkeypatch.setenv("TOY_TOKEN", value)
    assert run("02", "--run-id", "leaky", "-p", "mode", "leak") == 4
    captured = capsys.readouterr()
    assert "reports/leaky/run.log, line" in captured.err and "the value of $TOY_TOKEN" in captured.err
    record = read_json(root / "reports/leaky/run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 4)
    assert not (root / "reports/leaky/02_second.html").exists()
    shown = captured.out + captured.err + json.dumps(record) + (root / "reports/index.html").read_text()
    assert value not in shown


def test_a_full_disk_is_refused_before_anything_starts(root):
    with pytest.raises(UserError, match=r"GB free and a run wants 1e\+09"):
        run_notebooks(["01_first"], {}, root=root, run_id="full", least_disk_gb=1e9)
    assert not (root / "reports/full/run.json").exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_stops_the_kernel_and_is_recorded(root, good, hears_hang_ups, name):
    number, run_id, seen = signal.Signals[name], f"stopped-{name}", []
    saved, on_disk = root / "reports" / run_id / "02_second.ipynb", []
    # A shell starts a background process with SIGINT ignored.
    ours = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def stop_at_first_epoch(event):
        seen.append(event["kind"])
        if event["kind"] == "epoch" and seen.count("epoch") == 2:
            # What the cell showed before it fell silent is saved while it sleeps.
            while "epoch 2/2" not in saved.read_text() and len(on_disk) < 400:
                on_disk.append(time.sleep(0.05))
            os.kill(os.getpid(), number)

    try:
        result = run_notebooks(
            ["02_second"],
            {"02_second": {"mode": "sleep"}},
            root=root,
            run_id=run_id,
            on_event=stop_at_first_epoch,
        )
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, ours)
    assert "epoch 2/2" in saved.read_text() and len(on_disk) < 400
    assert result.exit_code == 130 and result.record["seconds"] < 50
    assert (root / "data/artifacts" / run_id / "02_second" / "cleaned_up").exists()
    record = read_json(root / "reports" / run_id / "run.json")
    assert record["status"] == record["notebooks"]["02_second"]["status"] == "interrupted"
    assert record["exit_code"] == 130
    assert (root / "reports" / run_id / "02_second.html").exists()
    assert os.environ.get("MOOLA_RUN_ID") is None
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_held_run_and_an_unwritable_folder_are_refused(root, good, tmp_path):
    options = {"root": root, "run_id": "held"}
    with lock_folder(root / "reports" / "held"):
        with pytest.raises(UserError, match="in use"):
            run_notebooks(["01_first"], {}, **options)
        record = {**read_json(root / "reports/good/run.json"), "run_id": "held"}
        (root / "reports/held/run.json").write_text(json.dumps(record))
        with pytest.raises(UserError, match=f"run 'held' is in use by process {os.getpid()} on "):
            run_notebooks(["01_first"], {}, resume=True, **options)
    (tmp_path / "reports").write_text("a file in the way")
    with pytest.raises(UserError, match="cannot write"):
        run_notebooks(["01_first"], {}, root=tmp_path, run_id="x")
    for run_id in ("manual", "../up", "a b"):
        with pytest.raises(UserError, match="run id"):
            run_notebooks(["01_first"], {}, root=root, run_id=run_id)


def test_papermill_saves_atomically(tmp_path, monkeypatch):
    from papermill.iorw import papermill_io

    saving.prepare_papermill()
    handler = papermill_io.get_handler(str(tmp_path / "a.ipynb"))
    handler.write("old", str(tmp_path / "a.ipynb"))

    def die(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(UserError, match="No space left"):
        handler.write("new", str(tmp_path / "a.ipynb"))
    assert (tmp_path / "a.ipynb").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.ipynb"]


def test_a_notebook_with_large_outputs_is_saved_seldom(monkeypatch):
    now, saves = [0.0], []

    def save_for_ten_seconds():
        saves.append(now[0])
        now[0] += 10

    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    saver = saving._Saver(save_for_ten_seconds)
    for _ in range(1000):
        saver.has_news = True
        saver()
        now[0] += 1
    assert 4 <= len(saves) <= 6, "at most a twentieth of the time"
    saver.has_news = False
    now[0] += 1000
    saver()
    assert saves[-1] < now[0] - 1000, "nothing new, nothing written"


def test_the_index_lists_every_run_and_names_the_damaged(root, good):
    reports = root / "reports"
    for name, text in (
        ("damaged", '{"run_id": '),
        ("foreign", "[1, 2]"),
        (
            "odd",
            '{"run_id":"odd","status":"x","started_at":"2026","stems":["01_first"],"notebooks":{}}',
        ),
        (
            "hostile",
            json.dumps(
                {
                    "run_id": "hostile",
                    "status": "running",
                    "started_at": "2020-01-01T00:00:00Z",
                    "stems": [],
                    "notebooks": {},
                    "profile": "<script>alert(1)</script>",
                }
            ),
        ),
    ):
        (reports / name).mkdir()
        (reports / name / "run.json").write_text(text)
    page = build_index(root).read_text()
    assert 'href="good/02_second.html"' in page
    for name in ("damaged", "foreign", "odd"):
        assert f"{name}/run.json" in page
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert page.index(">good<") < page.index(">hostile<")  # newest first
    lost = [r["status"] for r in list_runs(root)[0] if r["run_id"] == "hostile"]
    assert lost == ["lost"]  # says running, but no process holds it
    assert gates_passed(read_json(good / "run.json")["gates"]) == "1/2"
    assert "://" not in page


def test_recorded_versions_are_those_of_dependencies():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert set(KEY_PACKAGES) <= set(project["dependencies"])


def test_a_run_is_finished_when_all_its_notebooks_are(root):
    assert run("02", "--run-id", "part", "-p", "mode", "raise") == 1
    assert run("01", "--run-id", "part", "--resume") == 1
    record = read_json(root / "reports/part/run.json")
    assert record["status"] == "failed" and record["error"]["ename"] == "ValueError", "what stopped it still does"
    assert run("02", "--run-id", "part", "--resume", "-p", "mode", "ok", "-p", "upstream_run", "part") == 0
    assert read_json(root / "reports/part/run.json")["status"] == "finished"


def test_a_page_that_cannot_be_drawn_costs_no_result(root, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise TypeError("of another shape")

    monkeypatch.setattr("moola_lib.runs.cells.convert_cells", refuse)
    assert run("01", "02", "--run-id", "pageless") == 0
    told = capsys.readouterr().err
    assert "the page of 02_second could not be drawn (TypeError: of another shape)" in told
    monkeypatch.undo()
    monkeypatch.setenv("MOOLA_HOME", str(root))
    assert main(["report", "pageless"]) == 0


def test_a_parameter_that_came_later_does_not_keep_a_run_from_going_on(root, monkeypatch, capsys):
    assert run("01", "02", "--run-id", "grown", "-p", "mode", "raise") == 1

    class Grown(MODELS["01_first"]):
        extra: int = 1

    monkeypatch.setitem(MODELS, "01_first", Grown)
    assert run("--run-id", "grown", "--resume", "-p", "mode", "ok") == 0
    assert run("--run-id", "grown", "--resume", "-p", "extra", "2") == 2
    assert "finished 01_first with another extra" in capsys.readouterr().err


def test_artifacts_without_a_record_are_named(root, capsys):
    (root / "data/artifacts/bare").mkdir()
    assert run("01", "--run-id", "bare") == 2
    assert "is left of a run 'bare' whose record is gone" in capsys.readouterr().err


@pytest.mark.parametrize("run_id", ["index.html", "LOG.md"])
def test_a_run_is_not_named_like_a_page(root, run_id):
    assert run("01", "--run-id", run_id) == 2
