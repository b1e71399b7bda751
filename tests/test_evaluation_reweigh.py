"""A recorded training under other weights, against the record of a training that had them."""

import numpy as np
import pandas as pd
import pytest
import torch
from recorded import record_steps, write_record

from moola_lib.errors import UserError
from moola_lib.evaluation.reweigh import HAS_NO_WEIGHTS, NEEDS_A_RUN, reweigh, thin_out
from moola_lib.learning import STRATEGIES
from moola_lib.learning.balance import build_balance
from moola_lib.learning.gradients import gramian
from moola_lib.models.jade import TASKS

FROM_A_RECORD = [name for name in STRATEGIES if name not in NEEDS_A_RUN]
SCALARISERS = [name for name in FROM_A_RECORD if not build_balance(name).weighs_gradients]
AGGREGATORS = [name for name in FROM_A_RECORD if build_balance(name).weighs_gradients]
FIGURES = ["weight", "loss_share", "gradient_share"]
OTHER = {"type": 3.0, "pointers": 0.2, "inside": 1.0, "countdown": 0.5}


@pytest.fixture
def metrics(tmp_path):
    return write_record(tmp_path / "metrics.jsonl", record_steps())


@pytest.mark.parametrize("strategy", SCALARISERS)
def test_the_strategy_that_trained_gives_its_own_record_back(strategy, tmp_path):
    own = write_record(tmp_path / "metrics.jsonl", record_steps(), strategy)
    pd.testing.assert_frame_equal(reweigh(own, strategy)[FIGURES], own[FIGURES], rtol=1e-6)


@pytest.mark.parametrize("strategy", SCALARISERS)
def test_it_does_not_matter_under_which_strategy_was_recorded(strategy, metrics, tmp_path):
    own = write_record(tmp_path / "other.jsonl", record_steps(), strategy)
    pd.testing.assert_frame_equal(reweigh(metrics, strategy)[FIGURES], own[FIGURES], rtol=1e-6)


@pytest.mark.parametrize("strategy", [name for name in AGGREGATORS if name != "pcgrad"])
def test_an_aggregator_weighs_as_with_the_gradients_themselves(strategy, metrics):
    expected = [build_balance(strategy).weigh(losses, gramian(rows)) for losses, rows in record_steps()]
    np.testing.assert_allclose(reweigh(metrics, strategy)["weight"], torch.cat(expected), rtol=1e-5)


@pytest.mark.parametrize("strategy", FROM_A_RECORD)
def test_shares_sum_to_one_at_every_step_and_every_row_is_kept(strategy, metrics):
    table = reweigh(metrics, strategy)
    pd.testing.assert_frame_equal(table[["epoch", "step", "task"]], metrics[["epoch", "step", "task"]])
    np.testing.assert_allclose(table.groupby("step")[["loss_share", "gradient_share"]].sum(), 1.0)
    assert (table[["loss_share", "gradient_share"]] >= 0).all(axis=None)


@pytest.mark.parametrize("strategy", FROM_A_RECORD)
def test_weights_change_what_has_weights_and_nothing_else(strategy, metrics):
    is_same = np.allclose(reweigh(metrics, strategy)[FIGURES], reweigh(metrics, strategy, OTHER)[FIGURES])
    assert is_same is (strategy in HAS_NO_WEIGHTS)


@pytest.mark.parametrize("strategy", ["initial", "ema", "log", "geometric_mean"])
def test_scale_free_strategies_give_the_same_shares_of_a_rescaled_record(strategy, metrics, tmp_path):
    rescaled = write_record(tmp_path / "other.jsonl", record_steps(scale={"pointers": 80.0}))
    shares = [reweigh(each, strategy)["gradient_share"] for each in (metrics, rescaled)]
    np.testing.assert_allclose(*shares, rtol=1e-4)


@pytest.mark.parametrize("strategy", FROM_A_RECORD)
def test_equal_calls_give_equal_answers_and_leave_the_global_seed_alone(strategy, metrics):
    torch.manual_seed(5)
    first = reweigh(metrics, strategy)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    torch.testing.assert_close(torch.rand(3), drawn, rtol=0, atol=0)
    pd.testing.assert_frame_equal(reweigh(metrics, strategy), first)


def test_the_first_recorded_step_sets_the_scales_of_initial(metrics):
    first = metrics[metrics["step"] == 0].set_index("task")["loss"]
    weight = reweigh(metrics, "initial").groupby("task")["weight"].agg(["min", "max"])
    for task, own in build_balance("initial").weights.items():
        np.testing.assert_allclose(weight.loc[task], own / first[task], rtol=1e-6)


def test_what_no_strategy_balances_keeps_weight_one(tmp_path):
    both = write_record(tmp_path / "metrics.jsonl", record_steps(extra=["segment"]))
    alone = write_record(tmp_path / "alone.jsonl", record_steps(extra=["segment"]))
    alone = alone[alone["task"] != "segment"]
    table = reweigh(both, "upgrad")
    is_segment = table["task"] == "segment"
    assert (table.loc[is_segment, "weight"] == 1).all() and (table.loc[is_segment, "gradient_share"] > 0).all()
    np.testing.assert_allclose(table.loc[~is_segment, "weight"], reweigh(alone, "upgrad")["weight"])


def test_the_record_is_left_alone(metrics):
    before = metrics.copy()
    reweigh(metrics, "log", OTHER)
    pd.testing.assert_frame_equal(metrics, before)


@pytest.mark.parametrize("strategy", NEEDS_A_RUN)
def test_what_is_learned_along_the_way_needs_a_run(strategy, metrics):
    with pytest.raises(UserError, match=rf"moola run 05 -p strategies '\[{strategy}\]'"):
        reweigh(metrics, strategy)


def test_what_cannot_be_reweighed_is_refused(metrics):
    with pytest.raises(UserError, match="'magic' is not known"):
        reweigh(metrics, "magic")
    with pytest.raises(UserError, match="nothing was audited"):
        reweigh(pd.DataFrame(), "fixed")


def test_a_long_record_is_thinned_evenly_from_its_first_step_to_its_last(metrics):
    steps = thin_out(metrics, 5)["step"].unique()
    assert len(steps) == 5 and steps[0] == 0 and steps[-1] == metrics["step"].max()
    assert set(np.diff(steps)) <= {10, 15}
    pd.testing.assert_frame_equal(thin_out(metrics, 12), metrics)
    assert thin_out(metrics)["task"].tolist() == list(TASKS) * 12
