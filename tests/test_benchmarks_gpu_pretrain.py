"""The GPU benchmark runs where there is no GPU: every work at a tiny size, and no verdict that only a GPU can give."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks.gpu_pretrain import NOT_MEASURED, SCALES, WORKS, Problem, judge, main, training_step
from moola_lib.learning.objectives import Reconstruction
from moola_lib.learning.pretrain import pretrain

TINY = SCALES["tiny"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_all_works_run_and_what_needs_one_is_not_judged(tmp_path, capsys):
    code = main(["--scale", "tiny", "--json", str(tmp_path / "rows.json")])
    found = json.loads((tmp_path / "rows.json").read_text())
    assert {row["work"] for row in found["speed"]} == {"ours", "plain loop with a DataLoader", "bare LSTM"}
    assert len(found["speed"]) == 3 * 2 * len(TINY.batch_sizes)
    assert all(row["windows/s"] > 0 for row in found["speed"])
    windows = [row["windows"] for row in found["learning"]]
    assert windows[1] == windows[0] // 8 and windows[2] == windows[0]
    verdicts = [row["verdict"] for row in found["goals"]]
    assert verdicts.count(NOT_MEASURED) == len(verdicts) - 2
    assert code == int("FAIL" in verdicts)
    assert "CPU" in capsys.readouterr().out


def rows(**paces):
    return [
        {
            "work": work,
            "batch": batch,
            "precision": "fp32",
            "windows/s": pace,
            "epoch of 1.8 million windows (s)": 1.8e6 / pace,
        }
        for work, by_batch in paces.items()
        for batch, pace in zip((64, 1024), by_batch, strict=True)
    ]


def test_goals_compare_what_they_say():
    speed = rows(ours=(20e3, 150e3)) + [
        {**row, "work": {"graph": "ours, captured", "floor": "bare LSTM"}[row["work"]]}
        for row in rows(graph=(30e3, 160e3), floor=(22e3, 180e3))
    ]
    learning = [{"way": way, "best": best} for way, best in (("all", 0.300), ("strided", 0.302), ("large", 0.310))]
    judged = judge(speed, learning, replace(TINY, batch_sizes=(64, 1024)), has_gpu=True)
    assert [row["figure"] for row in judged] == pytest.approx([7.5, 1.1, 1.2, 1.5, 87 / 12, 1 / 150, 1 / 30])
    assert [row["verdict"] for row in judged] == ["FAIL", "PASS", "FAIL", "PASS", "PASS", "PASS", "FAIL"]
    assert [row["verdict"] for row in judge(speed, [], replace(TINY, batch_sizes=(64, 1024)), has_gpu=False)] == [
        NOT_MEASURED
    ] * 5


def test_the_step_that_is_captured_is_the_librarys_step():
    problem = Problem(TINY.n_sessions, TINY.hidden_size, 0.0, "cpu")
    places = torch.as_tensor(problem.train[:32])
    fresh, stepped = problem.model, problem.model()
    problem.model = lambda: stepped
    training_step(problem, places, "fp32")()
    settings = replace(
        problem.settings, batch_size=32, n_epochs=1, learning_rate=1e-3, final_learning_rate=1e-3, warmup_frac=0.0
    )
    model = fresh()
    objective = Reconstruction(problem.gather, problem.train, settings)
    pretrain(model, problem.gather, problem.train[:32], problem.validation[:1], settings, objective=objective)
    for name, value in stepped.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_every_work_runs_and_every_goal_is_judged(tmp_path):
    main(["--scale", "tiny", "--json", str(tmp_path / "rows.json")])
    found = json.loads((tmp_path / "rows.json").read_text())
    assert {row["work"] for row in found["speed"]} == set(WORKS)
    assert all(row["peak memory (GiB)"] > 0 for row in found["speed"])
    assert all(row["verdict"] in ("PASS", "FAIL") for row in found["goals"])
