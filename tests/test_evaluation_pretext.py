"""Per-bar targets: macro F1 beside the majority and beside what one bar says about itself."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from moola_lib.evaluation.pretext import macro_f1, pretext_scores
from moola_lib.labels import PRETEXT_TASKS, pretext_targets
from moola_lib.learning.objectives import BarClassification
from moola_lib.learning.pretrain import PretrainSettings
from moola_lib.market import trade_dates

TRAIN, TEST = np.arange(20, 4000, 105), np.arange(4200, 7800, 105)


@pytest.fixture(scope="module")
def objective(market, table, gather):
    targets = pretext_targets(market.bars.frame, table.starts, table.is_valid)
    return BarClassification(gather, targets, PretrainSettings())


class Answer(torch.nn.Module):
    """A model that answers, for the windows in order, what a function makes of their targets."""

    def __init__(self, objective, function):
        super().__init__()
        self.targets, self.function = objective.targets_at(torch.as_tensor(TEST)), function

    def forward(self, x):
        assert len(x) == len(TEST)
        return {
            f"{task}_logits": torch.nn.functional.one_hot(self.function(self.targets[task].clamp(min=0)), len(names))
            for task, names in PRETEXT_TASKS.items()
        }


def scores(market, gather, objective, function):
    days = trade_dates(market.bars.frame.index[TEST])
    model = Answer(objective, function)
    return pretext_scores(model, gather, objective, TRAIN, TEST, days, n_bootstrap=50).set_index("task")


def test_a_model_that_knows_is_perfect_and_what_a_bar_says_of_itself_is_known(market, gather, objective):
    table = scores(market, gather, objective, lambda classes: classes)
    assert (table[["model", "model low", "model high"]] == 1).all(axis=None)
    # the body is a feature, so the candle is the bar's own; whether a swing is one, the next bars tell
    assert table.loc["candle", "same bar"] > 0.95 and table.loc["swing", "same bar"] < 0.5
    assert table.loc["swing", "verdict"] == "better"
    assert (table["n_bars"] > 3000).all() and table.loc["expansion", "rarest class"] == "yes"


def test_a_model_that_says_the_majority_scores_as_the_majority(market, gather, objective):
    majority = {2: 0, 3: 2}  # number of classes to its largest class, candles aside
    table = scores(market, gather, objective, lambda classes: torch.full_like(classes, majority[int(classes.max()) + 1])
                   if int(classes.max()) + 1 in majority else classes)  # fmt: skip
    for task in ("expansion", "swing"):
        assert table.loc[task, "model"] == pytest.approx(table.loc[task, "majority"])
    assert table.loc["swing", "majority"] < 0.32


def test_macro_f1_is_that_of_the_field():
    rng = np.random.default_rng(1)
    truth, guess = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (truth, guess), 1)
    assert float(macro_f1(confusion)) == pytest.approx(f1_score(truth, guess, average="macro"))


def test_classes_that_do_not_occur_do_not_count():
    assert float(macro_f1(np.array([[4.0, 0, 0], [0, 5, 0], [0, 0, 0]]))) == 1.0
