"""Fits in worker processes give what they give in turn, and end with their parent."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from moola_lib.errors import UserError
from moola_lib.evaluation.cross_validation import Arm
from moola_lib.evaluation.fits import plan_fits, results_by_arm, run_fits
from moola_lib.learning.finetune import FinetuneSettings
from moola_lib.windows import grouped_folds
from moola_lib.windows.gather import WindowGatherer

SETTINGS = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=2, batch_size=8, n_threads=1)
ARM = Arm("small, quick", "jade_compact", SETTINGS, {"hidden_size": 4})


@pytest.fixture(scope="module")
def folds(labelled):
    return grouped_folds(labelled.place, labelled.day, n_folds=2)


@pytest.fixture(scope="module")
def features(table, gather):
    return {"set_id": table.set_id, "names": gather.names}


def without_clock(history):
    return [{name: value for name, value in row.items() if name != "windows_per_second"} for row in history]


def same(one, two):
    return (
        without_clock(one.history) == without_clock(two.history)
        and one.inside_threshold == two.inside_threshold
        and all(np.array_equal(one.outputs[name], two.outputs[name]) for name in one.outputs | two.outputs)
    )


def test_a_plan_holds_every_fit_once_in_a_folder_of_its_own(folds):
    arms = [ARM, replace(ARM, name="other")]
    fits = plan_fits(arms, folds, (1, 2, 3), folder=Path("at"))
    assert len(fits) == 12 == len({fit.folder for fit in fits}) == len({fit.label for fit in fits})
    assert fits[3].label == "small, quick, seed 2, fold 2/2"
    assert fits[3].folder == Path("at/small_quick/seed2/fold2") and fits[3].fold is folds[1]
    assert plan_fits([ARM], folds, folder=Path("at"))[1].folder == Path("at/small_quick/fold2")
    found = results_by_arm(fits, list(range(12)))
    assert found == {
        "small, quick": {1: [0, 1], 2: [2, 3], 3: [4, 5]},
        "other": {1: [6, 7], 2: [8, 9], 3: [10, 11]},
    }


def test_workers_give_the_bits_of_the_sequential_run_and_tell_of_every_epoch(
    labelled, gather, folds, features, tmp_path
):
    rows, results = {1: [], 2: []}, {}
    for n in (1, 2):
        fits = plan_fits([ARM], folds, (5, 6), folder=tmp_path / str(n))
        results[n] = run_fits(fits, gather, labelled, features=features, n_workers=n, on_epoch=rows[n].append)
    assert all(same(one, two) for one, two in zip(results[1], results[2], strict=True))
    assert not same(results[1][0], results[1][2])  # another seed
    assert gather.values.is_shared()  # the workers mapped it
    told = [sorted((row["label"], row["epoch"]) for row in rows[n]) for n in (1, 2)]
    assert told[0] == told[1] and len(told[0]) == 8
    # resumed: every fit is finished, so none trains an epoch more
    told.clear()
    again = run_fits(fits, gather, labelled, features=features, n_workers=1, resume=True, on_epoch=told.append)
    assert told == [] and all(same(one, two) for one, two in zip(results[2], again, strict=True))


def test_an_error_in_a_worker_arrives_as_it_was_said(labelled, gather, folds, features):
    said = []
    broken = replace(ARM, settings=replace(SETTINGS, n_unfrozen_epochs=200, balance="no such"))
    for n in (1, 2):
        with pytest.raises(UserError) as caught:
            run_fits(plan_fits([ARM, broken], folds), gather, labelled, features=features, n_workers=n)
        said.append(str(caught.value))
    assert said[0] == said[1] and "'no such' is not known" in said[0]
    assert _workers_of(os.getpid()) == []


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_stopped_experiment_says_so_and_goes_on_to_the_bits_of_the_whole_one(
    labelled, gather, folds, features, tmp_path, n_workers
):
    arm = replace(ARM, settings=replace(SETTINGS, n_unfrozen_epochs=4))
    fits = plan_fits([arm], folds, (5, 6), folder=tmp_path)
    rows = []
    given = {"features": features, "n_workers": n_workers}
    with pytest.raises(UserError, match=r"stopped with \d of 4 fits finished; run it again with resume=True"):
        run_fits(fits, gather, labelled, **given, on_epoch=lambda row: rows.append(row) or len(rows) == 2)
    assert _workers_of(os.getpid()) == []
    assert any(tmp_path.rglob("checkpoint_latest.safetensors"))
    resumed = run_fits(fits, gather, labelled, **given, resume=True)
    whole = run_fits(plan_fits([arm], folds, (5, 6)), gather, labelled, features=features, n_workers=1)
    assert all(same(one, two) for one, two in zip(resumed, whole, strict=True))


def test_a_table_beyond_the_shared_memory_is_a_sentence(labelled, table, folds, features, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=64))
    with pytest.raises(UserError, match="set n_workers to 1, or give the container more"):
        run_fits(plan_fits([ARM], folds), WindowGatherer(table), labelled, features=features, n_workers=2)


SCRIPT = """
import signal
import sys
from moola_lib.evaluation.cross_validation import Arm
from moola_lib.evaluation.fits import plan_fits, run_fits
from moola_lib.features import build_features
from moola_lib.labels import labels_from_planted
from moola_lib.learning.finetune import FinetuneSettings
from moola_lib.market import simulate_bars
from moola_lib.windows import grouped_folds, place_labels
from moola_lib.windows.gather import WindowGatherer

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts a background process with SIGINT ignored
    market = simulate_bars(n_sessions=6, seed=5)
    table = build_features(market.bars)
    labels = labels_from_planted(market.planted, symbol="SIM", n_windows=36)
    windows, _ = place_labels(labels, market.bars.frame, table.starts)
    settings = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=100_000, n_threads=1)
    folds = grouped_folds(windows.place, windows.day)
    fits = plan_fits([Arm("a", "jade_compact", settings, {"hidden_size": 4})], folds)
    features = {"set_id": table.set_id, "names": table.names}
    try:
        run_fits(
            fits, WindowGatherer(table), windows, features=features, n_workers=2,
            on_epoch=lambda row: print(row["label"], flush=True),
        )
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(3)
"""


def _workers_of(pid):
    """Worker processes of a process: those that its fork server started."""
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if child.ppid() != pid]  # their parent is the fork server


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        seen = set()
        while len(seen) < 2:  # until both workers train
            line = parent.stdout.readline()
            assert line, parent.stderr.read()
            seen.add(line)
        workers = _workers_of(parent.pid)
        assert len(workers) == 2
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)  # as Ctrl-C and Jupyter do: the workers receive it too
        else:
            parent.kill()
        out, err = parent.communicate(timeout=60)
        if how == signal.SIGINT:
            assert parent.returncode == 3 and out.endswith("interrupted\n")
            assert "Traceback" not in err
        deadline = time.monotonic() + 30
        while any(worker.is_running() for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    finally:
        if parent.poll() is None:
            parent.kill()
            parent.communicate()
