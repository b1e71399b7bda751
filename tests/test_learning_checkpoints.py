"""Whatever ends a training, it goes on from its last checkpoint to the same weights, to the bit."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import (
    SETTINGS,
    STEPS_PER_EPOCH,
    TRAIN,
    VALIDATION,
    assert_equal_weights,
    noise_gather,
    tiny_model,
    without_clock,
)

from moola_lib.errors import UserError
from moola_lib.learning.checkpoints import Checkpoints, hold_interrupts, read_weights, restore_training, training_state
from moola_lib.learning.objectives import Reconstruction
from moola_lib.learning.pretrain import pretrain
from moola_lib.models.weights import load_tensors

SCRIPT = Path(__file__).with_name("tiny_training.py")
# a rate that destroys what the first epochs learned, so that the best epoch is not the last
RUINOUS = replace(SETTINGS, n_epochs=6, learning_rate=50.0, final_learning_rate=50.0, warmup_frac=1.0)


def train(gather, folder=None, *, settings=SETTINGS, seed=1, **options):
    """Train a tiny model; return (model, history without its clock)."""
    model = tiny_model(seed)
    checkpoints = Checkpoints(folder) if folder is not None else None
    history = pretrain(model, gather, TRAIN, VALIDATION, settings, checkpoints=checkpoints, **options)
    return model, without_clock(history)


class Interrupted(Exception):
    pass


class StopsAtStep(Reconstruction):
    """Breaks off before a step, as a bug in a batch would."""

    def __init__(self, *arguments, step):
        super().__init__(*arguments)
        self.n_left = step

    def losses(self, *arguments):
        if self.n_left == 0:
            raise Interrupted
        self.n_left -= 1
        return super().losses(*arguments)


@pytest.mark.parametrize("mask", ["single", "span"])
@pytest.mark.parametrize("step", [1, 5, 6, 8, 11])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(gather, tmp_path, mask, step):
    settings = replace(SETTINGS, mask=mask, checkpoint_every_steps=1)
    whole, wanted = train(gather, settings=settings)
    objective = StopsAtStep(gather, TRAIN, settings, step=step)
    with pytest.raises(Interrupted):
        train(gather, tmp_path, settings=settings, objective=objective)
    torch.rand(7)  # whatever happened in between
    resumed, found = train(gather, tmp_path, settings=settings, seed=99, resume=True)
    assert found == wanted
    assert_equal_weights(resumed, whole)


def test_without_checkpoints_within_epochs_the_epoch_begins_again(gather, tmp_path):
    whole, wanted = train(gather)
    with pytest.raises(Interrupted):
        train(gather, tmp_path, objective=StopsAtStep(gather, TRAIN, SETTINGS, step=STEPS_PER_EPOCH + 2))
    assert len(load_tensors(Checkpoints(tmp_path).latest)[1]["history"]) == 1
    resumed, found = train(gather, tmp_path, seed=99, resume=True)
    assert found == wanted
    assert_equal_weights(resumed, whole)


def run_and_signal(folder, number, after_steps, every):
    """Train in a process of its own and send it a signal after so many steps; return its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, SCRIPT, folder, str(every)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    for _ in range(after_steps):
        child.stdout.readline()
    child.send_signal(number)
    child.communicate(timeout=60)
    return child.returncode


def test_a_run_killed_at_a_random_step_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    gather, settings = noise_gather(), replace(SETTINGS, checkpoint_every_steps=2)
    n_steps = STEPS_PER_EPOCH * SETTINGS.n_epochs
    after = int(np.random.default_rng().integers(3, n_steps))  # another one each time: every one must do
    assert run_and_signal(tmp_path, signal.SIGKILL, after, every=2) == -signal.SIGKILL
    saved = load_tensors(Checkpoints(tmp_path).latest)[1]
    assert len(saved["history"]) < SETTINGS.n_epochs
    whole, wanted = train(gather, settings=settings)
    resumed, found = train(gather, tmp_path, settings=settings, seed=99, resume=True)
    assert found == wanted, f"killed after {after} steps"
    assert_equal_weights(resumed, whole)


def test_an_interrupt_saves_the_step_and_ends(tmp_path):
    gather, after = noise_gather(), STEPS_PER_EPOCH + 2
    assert run_and_signal(tmp_path, signal.SIGINT, after, every=0) == -signal.SIGINT  # KeyboardInterrupt went through
    saved = load_tensors(Checkpoints(tmp_path).latest)[1]
    assert len(saved["history"]) == 1 and saved["running"]["batch"] == 2
    whole, wanted = train(gather)
    resumed, found = train(gather, tmp_path, seed=99, resume=True)
    assert found == wanted
    assert_equal_weights(resumed, whole)


@pytest.fixture
def heeded():
    """SIGINT as in a terminal: a process started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_first_interrupt_is_held_and_a_second_is_not(heeded):
    with pytest.raises(KeyboardInterrupt), hold_interrupts() as is_interrupted:
        assert not is_interrupted()
        signal.raise_signal(signal.SIGINT)
        assert is_interrupted()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_full_disk_is_one_sentence_and_the_old_checkpoint_survives(gather, tmp_path, monkeypatch):
    train(gather, tmp_path, settings=replace(SETTINGS, n_epochs=1))
    before = Checkpoints(tmp_path).latest.read_bytes()

    def fill_up(path, content):
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(UserError, match=r"^no checkpoint was written \(.*No space left on device\); the one before"):
        Checkpoints(tmp_path).save_latest({"tensors": {"a": torch.zeros(1)}, "metadata": {}})
    assert Checkpoints(tmp_path).latest.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_on_a_disk_that_is_really_full_the_last_whole_checkpoint_resumes(tmp_path):
    unshare = shutil.which("unshare")
    private_disk = [unshare or "", "--mount", "--map-root-user", "sh", "-c"]
    mount = 'mount -t tmpfs -o size=120k tmpfs "$1"'
    if unshare is None or subprocess.run([*private_disk, mount, "sh", tmp_path], capture_output=True).returncode:
        pytest.skip("no private tmpfs can be mounted here")
    kept = tmp_path.with_name(f"{tmp_path.name}-kept")
    script = f'{mount} && "$2" "$3" "$1" 1; code=$?; cp -r "$1" "$4"; exit $code'
    command = [*private_disk, script, "sh", tmp_path, sys.executable, SCRIPT, kept]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "no checkpoint was written" in last and "No space left on device" in last
    gather, settings = noise_gather(), replace(SETTINGS, checkpoint_every_steps=1)
    whole, _ = train(gather, settings=settings)
    resumed, _ = train(gather, kept, settings=settings, seed=99, resume=True)
    assert_equal_weights(resumed, whole)


@pytest.mark.parametrize("after", [1, 3])
def test_a_training_stopped_after_an_epoch_equals_the_whole_one_so_far_and_goes_on_to_its_end(gather, tmp_path, after):
    whole, wanted = train(gather)
    seen = []
    stopped, found = train(gather, tmp_path, on_epoch=lambda row: seen.append(row) or row["epoch"] == after)
    assert len(seen) == after and found[-1].pop("is_stopped") is True
    assert found == wanted[:after]
    best = Checkpoints(tmp_path).best
    assert_equal_weights(stopped, _with_weights(best))
    resumed, found = train(gather, tmp_path, seed=99, resume=True)
    assert found == wanted
    assert_equal_weights(resumed, whole)


def _with_weights(path):
    """Return a tiny model with the weights of a checkpoint."""
    model = tiny_model(seed=99)
    model.load_state_dict(read_weights(path, model))
    return model


def test_a_stop_at_the_last_epoch_is_no_stop(gather):
    _, wanted = train(gather)
    assert train(gather, on_epoch=lambda row: row["epoch"] == SETTINGS.n_epochs)[1] == wanted


def test_resuming_a_finished_run_gives_its_best_weights(gather, tmp_path):
    model, wanted = train(gather, tmp_path, settings=RUINOUS)
    again, found = train(gather, tmp_path, settings=RUINOUS, seed=99, resume=True)
    assert found == wanted
    assert_equal_weights(model, again)


def test_the_best_epoch_is_kept(gather, tmp_path):
    model, history = train(gather, tmp_path, settings=RUINOUS)
    losses = [row["validation_huber"] for row in history]
    best = int(np.argmin(losses))
    assert best < len(losses) - 1
    tensors, metadata = load_tensors(Checkpoints(tmp_path).best)
    assert metadata["epoch"] == best + 1 and metadata["score"] == losses[best]
    for name, value in model.state_dict().items():
        assert torch.equal(tensors[f"model.{name}"], value)
    assert load_tensors(Checkpoints(tmp_path).latest)[1]["epoch"] == len(history)


def test_best_latest_and_the_top_k_lie_in_the_folder(gather, tmp_path):
    _, history = train(gather, tmp_path / "c")
    ranked = sorted((row["validation_huber"], row["epoch"]) for row in history)[:2]
    expected = {"checkpoint_best.safetensors", "checkpoint_latest.safetensors"}
    expected |= {f"checkpoint_epoch{epoch:04d}_score{score!r}.safetensors" for score, epoch in ranked}
    assert {path.name for path in (tmp_path / "c").iterdir()} == expected


def test_a_training_is_resumed_with_its_own_settings_only(gather, tmp_path):
    settings = replace(SETTINGS, n_epochs=1)
    train(gather, tmp_path, settings=settings)
    with pytest.raises(UserError, match=r"another learning_rate \(\S+, now 0.5\)"):
        train(gather, tmp_path, settings=replace(settings, learning_rate=0.5), resume=True)


def saved_state(folder):
    model = tiny_model()
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(folder)
    checkpoints.save(training_state(model, optimizer, {}, {"history": []}), score=0.5, epoch=1)
    return checkpoints


def test_a_truncated_checkpoint_is_a_sentence(tmp_path):
    checkpoints = saved_state(tmp_path)
    checkpoints.latest.write_bytes(checkpoints.latest.read_bytes()[:-50])
    model = tiny_model()
    with pytest.raises(UserError, match="truncated or not a safetensors file"):
        restore_training(checkpoints.latest, model, torch.optim.AdamW(model.parameters()), {})


@pytest.mark.parametrize("options", [{"hidden_size": 6}, {"n_layers": 1}])
def test_a_checkpoint_of_another_shape_is_a_sentence(tmp_path, options):
    checkpoints = saved_state(tmp_path)
    model = tiny_model(**options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"checkpoint of another model \(.* here, .* in the file, \d+ tensors in all\)"):
        restore_training(checkpoints.latest, model, torch.optim.AdamW(model.parameters()), {})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_resuming_from_a_checkpoint_of_another_shape_is_a_sentence(gather, tmp_path):
    checkpoints = saved_state(tmp_path)
    with pytest.raises(UserError, match="checkpoint of another model"):
        pretrain(
            tiny_model(hidden_size=6), gather, TRAIN, VALIDATION, SETTINGS, checkpoints=checkpoints, resume=True
        )  # fmt: skip


def test_clearing_leaves_no_checkpoint_and_other_files_alone(gather, tmp_path):
    train(gather, tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert list(tmp_path.glob("checkpoint_*"))
    Checkpoints(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
