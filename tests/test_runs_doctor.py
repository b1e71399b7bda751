"""The doctor: its figures, and that anything wrong is a NO-GO that says what."""

import io
import time
from collections import namedtuple

import pytest
import torch

from moola_lib.cli import main
from moola_lib.runs import doctor as room
from moola_lib.runs.doctor import doctor

FIGURES = [
    "409,186 parameters",
    "[8, 105, 4] to [8, 2]",
    "gradient to 18/18 tensors",
    "prices +30%: largest difference",
    "expansion [8, 105, 2], swing [8, 105, 3], candle [8, 105, 4]",
    "16/16 tensors matched, largest weight change 0.",
    "forward pass finite",
    "default probability 0; at 0 the batch is unchanged",
]


def report(device="cpu"):
    stream = io.StringIO()
    code = doctor(device, stream)
    return code, stream.getvalue()


def line_of(text, start):
    return next(line for line in text.splitlines() if line.startswith(f"│ {start}"))


def test_a_sound_machine_is_go_with_every_figure():
    began = time.process_time()
    code, text = report()
    assert code == 0
    assert text.splitlines()[-1].startswith("GO in ")
    assert [figure for figure in FIGURES if figure not in text] == []
    assert text.count("PASS") == 8 and "FAIL" not in text
    assert time.process_time() - began < 20


def test_the_report_names_versions_device_memory_and_disk():
    _, text = report()
    for name in ("python", "moola", "torch", "numpy", "pandas", "plotly", "papermill"):
        assert f"{name} " in text
    assert "cores" in line_of(text, "device")
    assert "GB available" in line_of(text, "memory")
    assert "GB free" in line_of(text, "disk")


def test_a_check_that_raises_is_a_no_go_with_its_message(monkeypatch):
    def broken(device):
        raise RuntimeError("the lamp [is] out")

    monkeypatch.setitem(room.CHECKS, "3 multitask shapes", broken)
    code, text = report()
    assert code == 3
    line = line_of(text, "3 multitask shapes")
    assert "RuntimeError: the lamp [is] out" in line and "FAIL" in line
    assert text.splitlines()[-1].endswith("3 multitask shapes") and "NO-GO" in text
    assert text.count("PASS") == 7  # the other checks still ran


def test_time_warp_left_on_is_a_no_go(monkeypatch):
    from moola_lib.runs.parameters import FineTuning

    monkeypatch.setattr(FineTuning.model_fields["time_warp_probability"], "default", 0.3)
    code, text = report()
    assert code == 3
    assert "default probability 0.3" in line_of(text, "5 time warp off")


def test_a_transfer_that_changes_nothing_is_a_no_go(monkeypatch):
    from moola_lib.models import weights

    honest = weights.load_encoder
    monkeypatch.setattr(weights, "load_encoder", lambda *a, **k: {**honest(*a, **k), "largest_change": 0.0})
    code, text = report()
    assert code == 3
    assert "FAIL" in line_of(text, "4 encoder transfer")


def test_a_tensor_without_gradient_is_a_no_go(monkeypatch):
    from moola_lib.models.simple_lstm import SimpleLSTM

    honest = SimpleLSTM.forward
    monkeypatch.setattr(
        SimpleLSTM, "forward", lambda self, x: {"type_logits": honest(self, x)["type_logits"].detach() + _bias(self)}
    )
    code, text = report()
    assert code == 3
    assert "gradient to 1/18 tensors" in line_of(text, "1 raw OHLC pipeline")


def _bias(model):
    return model.classifier[-1].bias


@pytest.mark.parametrize("lacking", ["memory", "disk"])
def test_too_little_memory_or_disk_is_a_no_go(monkeypatch, lacking):
    import shutil

    import psutil

    if lacking == "memory":
        little = namedtuple("Memory", "available total")(1.9e9, 4e9)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    else:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(0.9e9))
    code, text = report()
    assert code == 3
    assert "FAIL" in line_of(text, lacking) and text.count("FAIL") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_asking_for_an_absent_gpu_is_bad_input(capsys):
    assert main(["doctor", "--device", "cuda"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("moola: device cuda was asked for") and captured.err.count("\n") == 1


def test_the_front_door_passes_the_verdict_on(monkeypatch, capsys):
    assert main(["doctor", "--device", "cpu"]) == 0
    monkeypatch.setitem(room.CHECKS, "5 time warp off", lambda device: (False, "on"))
    assert main(["doctor"]) == 3
    assert "NO-GO" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_described_and_used():
    code, text = report("cuda")
    assert code == 0
    assert "cuda: " in line_of(text, "device") and "GB, CUDA" in line_of(text, "device")
