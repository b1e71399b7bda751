"""Reading the audit of a training."""

import math

import numpy as np
import pytest

from moola_lib.errors import UserError
from moola_lib.evaluation.balance import (
    NOTES_LOSSES,
    by_task,
    loss_contributions,
    mean_shares,
    sigma_progress,
    silenced_tasks,
)
from moola_lib.learning import STRATEGIES
from moola_lib.models.jade import LOG_SIGMA_START, TASKS


def history(shares):
    return [
        {"epoch": k + 1, **{f"gradient_share_{task}": share for task, share in zip(TASKS, row, strict=True)}}
        for k, row in enumerate(shares)
    ]


def test_the_notes_losses_contribute_what_the_notes_say():
    table = loss_contributions(NOTES_LOSSES).set_index("task")
    assert (100 * table["share"]).round(1).to_dict() == {
        "type": 42.3, "pointers": 3.6, "inside": 29.1, "countdown": 25.0,
    }  # fmt: skip
    np.testing.assert_allclose(table["contribution"], table["raw_loss"] * table["weight"])


WEIGHS_GRADIENTS = ("pcgrad", "mgda", "aligned_mtl", "upgrad", "gradnorm")


@pytest.mark.parametrize("strategy", WEIGHS_GRADIENTS)
def test_losses_alone_do_not_tell_what_an_aggregator_lets_contribute(strategy):
    with pytest.raises(UserError, match=f"{strategy} weighs gradients"):
        loss_contributions(NOTES_LOSSES, strategy)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in WEIGHS_GRADIENTS])
def test_contributions_of_every_scalariser_sum_to_one(strategy):
    table = loss_contributions(NOTES_LOSSES, strategy)
    assert table["share"].sum() == pytest.approx(1) and (table["share"] > 0).all()


@pytest.mark.parametrize("strategy", ["initial", "ema", "log"])
def test_scale_free_strategies_contribute_their_weights(strategy):
    assert loss_contributions(NOTES_LOSSES, strategy)["share"].tolist() == pytest.approx([0.1, 0.7, 0.1, 0.1], abs=1e-4)


def test_a_task_below_five_percent_is_silenced_in_those_epochs():
    table = silenced_tasks(history([(0.5, 0.06, 0.2, 0.24), (0.6, 0.04, 0.2, 0.16), (0.6, 0.01, 0.2, 0.19)]))
    pointers = table.set_index("task").loc["pointers"]
    assert pointers[["epochs", "of", "first", "lowest"]].tolist() == [2, 3, 2, 0.01]
    assert table.set_index("task")["epochs"].to_dict() == {"type": 0, "pointers": 2, "inside": 0, "countdown": 0}


def test_epochs_without_an_audit_are_not_counted():
    rows = [{"epoch": 1}, *history([(0.5, 0.06, 0.2, 0.24)])]
    rows[1]["epoch"] = 2
    assert (silenced_tasks(rows)["of"] == 1).all()


def test_sigma_progress_is_the_share_of_the_way_to_the_optimum():
    last = {f"loss_{task}": 0.25 for task in TASKS}
    optimum = 0.5 * math.log(0.25)
    last |= {f"sigma_{t}": math.exp((s + optimum) / 2) for t, s in zip(TASKS, LOG_SIGMA_START, strict=True)}
    table = sigma_progress([{}, last])
    assert table["way"].tolist() == pytest.approx([0.5] * 4)
    assert table["optimum"].tolist() == pytest.approx([optimum] * 4)


def test_means_and_lines_are_those_of_the_history():
    rows = history([(0.1, 0.2, 0.3, 0.4), (0.3, 0.2, 0.3, 0.2)])
    table = mean_shares({"fixed": rows}, "gradient_share")
    assert table.loc["fixed"].tolist() == pytest.approx([0.2, 0.2, 0.3, 0.3])
    assert by_task(rows, "gradient_share")["type"] == [0.1, 0.3]
    assert by_task(rows, "sigma") == {}
