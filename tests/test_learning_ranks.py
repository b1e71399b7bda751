"""Several ranks train as one does: the same losses, no window twice, and an end that all agree on."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from tiny_ranks import CASES, QUICK, classified, run_cases
from tiny_training import SETTINGS, TRAIN, VALIDATION, assert_equal_weights, noise_gather, tiny_model, without_clock

import moola_lib
from moola_lib.errors import UserError
from moola_lib.learning import epochs, launch, ranks
from moola_lib.learning.checkpoints import Checkpoints, read_weights
from moola_lib.learning.job import load_job, main, save_job
from moola_lib.learning.launch import pretrain_on_ranks
from moola_lib.learning.objectives import Reconstruction
from moola_lib.learning.pretrain import pretrain
from moola_lib.models.weights import load_tensors
from moola_lib.windows.samplers import epoch_batches

TESTS = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{Path(moola_lib.__file__).parents[1]}{os.pathsep}{TESTS}"}
LONG = replace(SETTINGS, n_epochs=2000, patience_epochs=2000)  # until it is ended


def close(one, two):
    """Compare histories, numbers within 1e-6."""
    assert len(one) == len(two)
    for row, other in zip(one, two, strict=True):
        assert row == pytest.approx(other, rel=1e-6, abs=1e-6)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process makes of the cases, and each of two ranks."""
    folder = tmp_path_factory.mktemp("two")
    done = subprocess.run(
        [*TORCHRUN, TESTS / "tiny_ranks.py", folder], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    alone = run_cases(tmp_path_factory.mktemp("one"), [name for name in CASES if name != INTERRUPTED])
    return {"alone": alone, "folder": folder, **{k: json.loads((folder / f"rank{k}.json").read_text()) for k in (0, 1)}}


INTERRUPTED = "interrupted on the last rank"
TRAININGS = [name for name in CASES if name not in (INTERRUPTED, "a loss that is not finite")]


@pytest.mark.parametrize("name", TRAININGS)
def test_two_ranks_have_the_losses_of_one(found, name):
    close(found[0][name]["history"], found["alone"][name]["history"])
    assert found[0][name]["history"] == found[1][name]["history"]  # to the bit, or they would part ways


def test_two_ranks_end_with_the_same_weights_to_the_bit_and_with_those_of_one(found):
    for name in TRAININGS:
        if "weights" in found["alone"][name]:
            assert found[0][name]["weights"] == found[1][name]["weights"]
            np.testing.assert_allclose(found[0][name]["weights"], found["alone"][name]["weights"], atol=1e-4)


def test_the_cases_are_what_they_say(found):
    history = {name: found["alone"][name]["history"] for name in TRAININGS}
    assert len(history["no patience"]) == 3
    assert len(history["stopped by rank 0"]) == 1 and history["stopped by rank 0"][0]["is_stopped"]
    losses = {name: rows[-1].get("train_huber") for name, rows in history.items() if "classif" not in name}
    assert len(set(losses.values())) >= len(losses) - 1  # they train on different things


def test_no_window_is_seen_twice_in_an_epoch(found):
    n_epochs, n_steps = 3, 4
    shares = [
        [places for places in found[rank]["windows watched"]["seen"] if len(places) <= 3 and set(places) <= set(TRAIN)]
        for rank in (0, 1)
    ]
    assert all(len(share) == n_epochs * n_steps for share in shares)
    for epoch in range(n_epochs):
        steps = slice(epoch * n_steps, (epoch + 1) * n_steps)
        seen = [place for share in shares for places in share[steps] for place in places]
        assert sorted(seen) == TRAIN.tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_shares_are_a_batch_in_parts(monkeypatch, n):
    monkeypatch.setattr(ranks, "n_ranks", lambda: n)
    for batch in epoch_batches(23, 5, seed=1, epoch=0):
        parts = []
        for k in range(n):
            monkeypatch.setattr(ranks, "rank", lambda k=k: k)
            own, weight = ranks.share(batch)
            assert len(own) > 0  # every rank has something to do
            parts.append(own[: len(own) * weight])
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.tolist())
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_dropout_starts_each_step_from_the_seed_the_step_and_the_rank(monkeypatch):
    seeds = set()
    for k in range(3):
        monkeypatch.setattr(epochs, "rank", lambda k=k: k)
        seeds |= {epochs._step_seed(seed, step) for seed in range(3) for step in range(50)}
        assert epochs._step_seed(1, 7) == epochs._step_seed(1, 7)
    assert len(seeds) == 3 * 3 * 50


def test_a_loss_that_is_not_finite_is_the_same_sentence_on_every_rank(found):
    sentences = {found[key]["a loss that is not finite"]["error"] for key in ("alone", 0, 1)}
    assert len(sentences) == 1 and "became" in sentences.pop()


def test_an_interrupt_of_one_rank_ends_all_and_what_it_saved_is_gone_on_with(found):
    assert found[0][INTERRUPTED] == found[1][INTERRUPTED] == {"interrupted": True}
    checkpoints = Checkpoints(found["folder"] / "interrupted")
    assert load_tensors(checkpoints.latest)[1]["running"]["batch"] == 2  # the fifth step is the second epoch's second
    model = tiny_model(seed=99, dropout=0.0)
    history = pretrain(model, noise_gather(), TRAIN, VALIDATION, QUICK, checkpoints=checkpoints, resume=True)
    close(without_clock(history), found["alone"]["batches of 8, 8 and 4"]["history"])


@pytest.mark.parametrize("with_position", [False, True])
@pytest.mark.parametrize("is_classification", [False, True])
def test_a_job_holds_all_that_a_training_starts_from(tmp_path, is_classification, with_position):
    settings = replace(QUICK, epoch_stride=2, mask="span")
    gather = noise_gather(with_position=with_position)
    model = tiny_model(n_features=gather.n_features)
    objective = Reconstruction(gather, TRAIN, settings)
    if is_classification:
        model, objective = classified(gather, settings)
    checkpoints = Checkpoints(tmp_path, top_k=3)
    save_job(checkpoints, model, gather, TRAIN, VALIDATION, settings, objective=objective)
    (again, *arguments), options = load_job(tmp_path, torch.device("cpu"))
    assert_equal_weights(model, again)
    assert arguments[-1] == settings and options["checkpoints"].top_k == 3
    found = pretrain(again, *arguments, **options)
    wanted = pretrain(model, gather, TRAIN, VALIDATION, settings, objective=objective)
    assert without_clock(found) == without_clock(wanted)
    assert_equal_weights(model, again)


def train(n_ranks, folder, settings=SETTINGS, **options):
    model = tiny_model(seed=options.pop("seed", 1), dropout=0.0)
    history = pretrain_on_ranks(
        n_ranks, model, noise_gather(), TRAIN, VALIDATION, settings, checkpoints=Checkpoints(folder), **options
    )
    return model, without_clock(history)


def test_one_rank_begins_two_go_on_and_one_ends_it(tmp_path):
    _, wanted = train(1, tmp_path / "whole")
    seen = []
    for n_ranks, last in ((1, 1), (2, 3), (1, 4)):
        model, history = train(
            n_ranks,
            tmp_path / "parts",
            seed=last,
            resume=True,
            on_epoch=lambda row, last=last: seen.append(row["epoch"]) or row["epoch"] == last,
        )
        assert history[-1].pop("is_stopped", False) == (last < 4)
        close(history, wanted[:last])
        assert_equal_weights(model, with_weights(tmp_path / "parts"))
    assert seen == [1, 2, 3, 4]
    kept = {path.name for path in (tmp_path / "parts").iterdir()}
    assert all(name.startswith("checkpoint_") for name in kept)  # neither job nor log is left behind


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed")
def test_two_gpus_have_the_losses_of_one(tmp_path):
    def train_on_gpus(n_ranks):
        model = tiny_model(dropout=0.0).cuda()
        gather = noise_gather(device="cuda")
        checkpoints = Checkpoints(tmp_path / str(n_ranks))
        return pretrain_on_ranks(n_ranks, model, gather, TRAIN, VALIDATION, QUICK, checkpoints=checkpoints)

    for row, other in zip(train_on_gpus(1), train_on_gpus(2), strict=True):
        assert row["train_huber"] == pytest.approx(other["train_huber"], rel=1e-4)


def test_one_rank_clears_away_what_several_left(tmp_path):
    save_job(Checkpoints(tmp_path), tiny_model(), noise_gather(), TRAIN, VALIDATION, SETTINGS)
    train(1, tmp_path)
    assert all(path.name.startswith("checkpoint_") for path in tmp_path.iterdir())


def with_weights(folder):
    model = tiny_model(seed=99, dropout=0.0)
    model.load_state_dict(read_weights(Checkpoints(folder).best, model))
    return model


def test_an_error_of_the_ranks_comes_back_as_its_sentence(tmp_path):
    settings = replace(SETTINGS, precision="fp16")
    with pytest.raises(UserError, match=r"^precision 'fp16' is not known; choose fp32 or bf16$"):
        train(2, tmp_path, settings)


def test_more_ranks_than_gpus_are_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 ranks need a GPU each, torch sees 1; lower n_ranks, or use device: cpu"):
        ranks.check_gpus(2)


def test_a_job_without_torchrun_and_a_folder_without_a_job_are_sentences(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr("moola_lib.learning.job.threading.Thread.start", lambda self: None)
    before = signal.getsignal(signal.SIGINT)
    assert main([]) == 2 and main([str(tmp_path)]) == 1
    save_job(Checkpoints(tmp_path), tiny_model(), noise_gather(), TRAIN, VALIDATION, SETTINGS)
    assert main([str(tmp_path)]) == 1
    signal.signal(signal.SIGINT, before)
    lines = capsys.readouterr().err.splitlines()
    assert "job.safetensors does not exist" in lines[1]
    assert "several ranks are started by torchrun" in lines[2]


def test_the_first_cause_is_told_of_ranks_that_broke_off():
    summary = "[1]:\n rank : 0 (local_rank: 0)\n exitcode : -15 (pid: 6)\n[0]:\n rank : 1 (x)\n exitcode : {} (pid: 7)"
    told = launch._explain(2, Path("folder"), summary.format(-9))
    assert told.startswith("pre-training on 2 ranks broke off: rank 1 was ended by SIGKILL; checkpoints are kept in")
    assert "rank 0 failed" in launch._explain(2, Path("folder"), " rank : 0 (x)\n exitcode : 1 (pid: 6)")
    assert "did not start" in launch._explain(2, Path("folder"), "")


def ranks_of(process):
    """The rank processes below a process, in the order they were started."""
    children = psutil.Process(process).children(recursive=True)
    return sorted((each for each in children if "torch.distributed.run" not in each.cmdline()), key=lambda p: p.pid)


def assert_all_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_rank_ends_the_run_soon_and_it_is_resumed_to_the_same_numbers(tmp_path, lost):
    settings = replace(SETTINGS, n_epochs=6, checkpoint_every_steps=1)
    _, wanted = train(1, tmp_path / "whole", settings)
    below, killed_at = [], []

    def kill(row):
        if row["epoch"] == 3:
            below.extend(ranks_of(os.getpid()))
            below[lost].kill()
            killed_at.append(time.monotonic())

    with pytest.raises(UserError, match=f"rank {lost} was ended by SIGKILL; checkpoints are kept"):
        train(2, tmp_path / "lost", settings, on_epoch=kill)
    assert time.monotonic() - killed_at[0] < 60
    assert_all_gone(below)
    model, history = train(2, tmp_path / "lost", settings, seed=99, resume=True)
    close(history, wanted)
    assert_equal_weights(model, with_weights(tmp_path / "lost"))


@pytest.mark.slow
def test_an_interrupt_while_an_epoch_is_shown_ends_the_ranks_after_their_step(tmp_path):
    below = []

    def interrupt(row):
        if row["epoch"] == 3:
            below.extend(ranks_of(os.getpid()))
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(2, tmp_path, LONG, on_epoch=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert_all_gone(below)
    assert len(load_tensors(Checkpoints(tmp_path).latest)[1]["history"]) == 3


LAUNCHED = """
import sys
from pathlib import Path
from test_learning_ranks import LONG, train
train(2, Path(sys.argv[1]), LONG, on_epoch=lambda row: print(row["epoch"], flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_ranks_do_not_outlive_the_process_that_started_them(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-c", f"import signal; signal.signal(2, signal.default_int_handler)\n{LAUNCHED}", tmp_path],
        stdout=subprocess.PIPE, env=ENVIRONMENT, text=True,
    )  # fmt: skip
    for _ in range(3):
        process.stdout.readline()
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert_all_gone(below)
    process.communicate(timeout=60)
    assert len(load_tensors(Checkpoints(tmp_path).latest)[1]["history"]) >= 3


@pytest.mark.slow
def test_ranks_started_by_hand_save_their_step_at_ctrl_c_and_are_gone_on_with(tmp_path):
    settings = replace(SETTINGS, n_epochs=300, patience_epochs=300)
    save_job(Checkpoints(tmp_path), tiny_model(dropout=0.0), noise_gather(), TRAIN, VALIDATION, settings)
    command = [*TORCHRUN, "-m", "moola_lib.learning.job", tmp_path]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT, text=True, start_new_session=True
    )
    rows = [json.loads(process.stdout.readline())["row"] for _ in range(3)]
    below = ranks_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    process.communicate(timeout=60)
    assert_all_gone(below)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    saved = load_tensors(Checkpoints(tmp_path).latest)[1]
    n_saved = len(saved["history"])
    assert 3 <= n_saved < 300
    _, wanted = train(1, tmp_path / "whole", settings, on_epoch=lambda row: row["epoch"] == n_saved + 1)
    _, found = train(1, tmp_path, settings, seed=99, resume=True, on_epoch=lambda row: row["epoch"] == n_saved + 1)
    close(found, wanted)
