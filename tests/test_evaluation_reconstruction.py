"""Reconstruction skill, simple rivals, and the proof that hidden means hidden."""

import numpy as np
import pandas as pd
import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.evaluation.reconstruction import (
    RIVALS,
    SKILL_MASKS,
    check_hiding,
    fill_hidden,
    hardest_rival,
    reconstruction_skill,
    require_hiding,
)
from moola_lib.learning.objectives import feature_moments
from moola_lib.learning.pretrain import PretrainSettings
from moola_lib.market import trade_dates
from moola_lib.models import build_model

SETTINGS = PretrainSettings(mask_ratio=0.3)
PLACES = np.arange(100, 4000, 120)


class Answer(torch.nn.Module):
    """A model whose reconstruction is a given function of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, is_masked):
        return {"reconstruction": self.function(x, is_masked)}


def fill(rows, hidden, mean=0.0):
    x = torch.tensor(rows, dtype=torch.float32)[None, :, None]
    is_masked = torch.zeros(1, len(rows), dtype=torch.bool)
    is_masked[0, hidden] = True
    x = torch.where(is_masked.unsqueeze(-1), torch.full_like(x, 1e9), x)  # hidden values must not be read
    return {name: value[0, :, 0].tolist() for name, value in fill_hidden(x, is_masked, torch.tensor([mean])).items()}


@pytest.mark.parametrize("hidden", [[3], [1, 2, 3], [1, 4, 5, 7]])
def test_interpolation_is_exact_on_a_line(hidden):
    line = [2 + 0.5 * t for t in range(9)]
    assert fill(line, hidden)["interpolation"] == pytest.approx(line)


def test_at_the_edges_the_nearest_visible_bar_stands():
    found = fill([9, 9, 3, 4, 9], [0, 1, 4], mean=7.0)
    assert found["interpolation"] == [3, 3, 3, 4, 4]
    assert found["last value"] == [3, 3, 3, 4, 4]
    assert found["mean"] == [7] * 5


def test_the_last_value_looks_back_only_where_it_can():
    assert fill([1, 0, 0, 8], [1, 2])["last value"] == [1, 1, 1, 8]


def test_with_everything_hidden_the_mean_stands_in():
    found = fill([1, 2, 3], [0, 1, 2], mean=7.0)
    assert found["interpolation"] == found["last value"] == found["mean"] == [7, 7, 7]


@pytest.fixture(scope="module")
def days(market):
    return trade_dates(market.bars.frame.index[PLACES])


def skill(model, gather, days, mean):
    return reconstruction_skill(model, gather, PLACES, days, mean, SETTINGS, n_bootstrap=50)


def test_every_feature_is_judged_under_every_mask(gather, days):
    mean, _ = feature_moments(gather, PLACES)
    table = skill(Answer(lambda x, m: x), gather, days, mean)
    assert list(SKILL_MASKS) == ["single bars", "3 bars", "10 bars", "30 bars"]
    expected = [(mask, feature) for mask in SKILL_MASKS for feature in gather.names]
    assert list(zip(table["mask"], table["feature"], strict=True)) == expected
    assert (table.groupby("mask")["n_hidden"].first() > 0.2 * 105 * len(PLACES)).all()


@pytest.mark.parametrize(("mask", "length"), [("3 bars", 3), ("10 bars", 10), ("30 bars", 30)])
def test_a_mask_hides_runs_of_the_length_in_its_name(gather, days, mask, length):
    seen = []

    def watch(x, is_masked):
        seen.append(is_masked)
        return x

    skill(Answer(watch), gather, days, np.zeros(11, np.float32))
    hidden = dict(zip(SKILL_MASKS, seen, strict=True))[mask].int()
    edges = hidden.diff(dim=1, prepend=torch.zeros(len(hidden), 1, dtype=torch.int32))
    assert ((edges == 1).sum(dim=1) * length == hidden.sum(dim=1)).all()


def test_a_model_that_answers_a_rivals_answer_has_no_skill_against_it(gather, days):
    mean, _ = feature_moments(gather, PLACES)
    for rival in RIVALS:
        # the first rows of a segment are 0, as the model gets them: no anchor for the rivals
        answer = Answer(lambda x, m, r=rival: fill_hidden(x, m, mean, (x != 0).any(dim=2) | m)[r])
        table = skill(answer, gather, days, mean)
        for column in ("skill", "low", "high"):
            np.testing.assert_allclose(table[f"{column} vs {rival}"], 0, atol=1e-6)
        np.testing.assert_allclose(table["mae model"], table[f"mae {rival}"], rtol=1e-6)


def test_a_model_that_knows_has_a_skill_of_one(gather, days):
    mean, _ = feature_moments(gather, PLACES)
    table = skill(Answer(lambda x, m: x), gather, days, mean)
    for rival in RIVALS:
        for column in ("skill", "low", "high"):
            np.testing.assert_allclose(table[f"{column} vs {rival}"], 1)
    assert (table["mae model"] == 0).all()


def test_a_bad_model_has_negative_skill_and_only_hidden_bars_count(gather, days):
    mean, _ = feature_moments(gather, PLACES)
    assert (skill(Answer(lambda x, m: x + 10), gather, days, mean)["high vs mean"] < 0).all()
    right_where_hidden = Answer(lambda x, m: x + 10 * ~m.unsqueeze(-1))
    np.testing.assert_allclose(skill(right_where_hidden, gather, days, mean)["skill vs mean"], 1)


def test_hidden_bars_that_are_not_valid_do_not_count(gather):
    mean, _ = feature_moments(gather, PLACES)
    first = np.zeros(1, np.int64)  # its first twenty rows are warm-up
    wrong = Answer(lambda x, m: torch.cat([x[:, :20] + 99, x[:, 20:]], dim=1))
    table = reconstruction_skill(wrong, gather, first, np.zeros(1), mean, SETTINGS, n_bootstrap=10)
    assert (table["mae model"] == 0).all() and 0 < table["n_hidden"][0] < 60


def test_the_hardest_rival_is_the_one_the_model_beats_by_least():
    rows = {
        "mask": ["m", "m", "m"],
        "feature": ["a", "b", "c"],
        "skill vs mean": [0.1, 0.4, -0.2],
        "skill vs last value": [0.2, 0.3, np.nan],
        "skill vs interpolation": [0.3, 0.05, 0.9],
    }
    skills = pd.DataFrame(rows)
    for rival in RIVALS:
        skills[f"low vs {rival}"] = skills[f"skill vs {rival}"] - 0.08
        skills[f"high vs {rival}"] = skills[f"skill vs {rival}"] + 0.08
    table = hardest_rival(skills)
    assert table["rival"].tolist() == ["mean", "interpolation", "mean"]
    assert table["skill"].tolist() == [0.1, 0.05, -0.2]
    assert table["verdict"].tolist() == ["better", "inconclusive", "worse"]


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    return build_model("masked_autoencoder", n_features=11, hidden_size=4)


@pytest.mark.parametrize("mask", ["single", "span"])
def test_the_autoencoder_passes_the_check_of_hiding(gather, autoencoder, mask):
    found = check_hiding(autoencoder, gather, PLACES, PretrainSettings(mask=mask))
    assert found["input_change"] == found["output_change"] == 0
    assert found["visible_change"] > 0 and found["verdict"] == "hidden"
    require_hiding(found)


def test_the_deliberate_leak_is_caught_and_never_exported(gather, autoencoder):
    found = check_hiding(autoencoder, gather, PLACES, PretrainSettings(hide_input=False))
    assert found["input_change"] > 0 and found["output_change"] > 0 and found["verdict"] == "LEAK"
    with pytest.raises(UserError, match=r"not exported: .*\(LEAK\); train with hide_input: true"):
        require_hiding(found)


def test_a_model_that_ignores_its_mask_is_caught(gather, autoencoder):
    leaky = Answer(lambda x, m: autoencoder.decoder(autoencoder.encoder(x)))  # the earlier code: it never masked
    assert check_hiding(leaky, gather, PLACES, SETTINGS)["verdict"] == "LEAK"


def test_a_dead_model_cannot_pass(gather):
    found = check_hiding(Answer(lambda x, m: torch.zeros_like(x)), gather, PLACES, SETTINGS)
    assert found["visible_change"] == 0 and found["verdict"] == "cannot tell"
    with pytest.raises(UserError, match="cannot tell"):
        require_hiding(found)
