"""Reconstruction skill, simple rivals, and the proof that hidden means hidden."""

import numpy as np
import pytest
import torch

from moola_lib.evaluation.reconstruction import check_hiding, fill_hidden, reconstruction_skill
from moola_lib.learning.pretrain import PretrainSettings, feature_moments
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
    table = reconstruction_skill(model, gather, PLACES, days, mean, SETTINGS, n_bootstrap=50)
    return table.set_index("feature")


def test_a_model_that_answers_a_rivals_answer_has_no_skill_against_it(gather, days):
    mean, _ = feature_moments(gather, PLACES)
    for rival in ("mean", "last value", "interpolation"):
        # the first rows of a segment are 0, as the model gets them: no anchor for the rivals
        answer = Answer(lambda x, m, r=rival: fill_hidden(x, m, mean, (x != 0).any(dim=2) | m)[r])
        table = skill(answer, gather, days, mean)
        np.testing.assert_allclose(table[f"skill vs {rival}"], 0, atol=1e-6)
        np.testing.assert_allclose(table["mae model"], table[f"mae {rival}"], rtol=1e-6)
        assert list(table.index) == list(gather.names)


def test_a_model_that_knows_has_a_skill_of_one(gather, days):
    mean, _ = feature_moments(gather, PLACES)
    table = skill(Answer(lambda x, m: x), gather, days, mean)
    for column in ("skill vs mean", "skill vs interpolation", "low", "high"):
        np.testing.assert_allclose(table[column], 1)
    assert (table["mae model"] == 0).all()


def test_a_bad_model_has_negative_skill_and_only_hidden_bars_count(gather, days):
    mean, _ = feature_moments(gather, PLACES)
    assert (skill(Answer(lambda x, m: x + 10), gather, days, mean)["skill vs mean"] < 0).all()
    right_where_hidden = Answer(lambda x, m: x + 10 * ~m.unsqueeze(-1))
    np.testing.assert_allclose(skill(right_where_hidden, gather, days, mean)["skill vs mean"], 1)


def test_hidden_bars_that_are_not_valid_do_not_count(gather):
    mean, _ = feature_moments(gather, PLACES)
    first = np.zeros(1, np.int64)  # its first twenty rows are warm-up
    wrong = Answer(lambda x, m: torch.cat([x[:, :20] + 99, x[:, 20:]], dim=1))
    table = reconstruction_skill(wrong, gather, first, np.zeros(1), mean, SETTINGS, n_bootstrap=10)
    assert (table["mae model"] == 0).all() and 0 < table["n_hidden"][0] < 60


def test_the_autoencoder_passes_the_check_of_hiding(gather):
    torch.manual_seed(0)
    model = build_model("masked_autoencoder", n_features=11, hidden_size=4)
    for mask in ("single", "span"):
        found = check_hiding(model, gather, PLACES, PretrainSettings(mask=mask))
        assert found["input_change"] == found["output_change"] == 0
        assert found["visible_change"] > 0


def test_a_leaky_model_is_caught(gather):
    model = build_model("masked_autoencoder", n_features=11, hidden_size=4)
    leaky = Answer(lambda x, m: model.decoder(model.encoder(x)))  # the earlier code: it never masked
    assert check_hiding(leaky, gather, PLACES, SETTINGS)["output_change"] > 0


def test_a_dead_model_cannot_pass(gather):
    dead = Answer(lambda x, m: torch.zeros_like(x))
    assert check_hiding(dead, gather, PLACES, SETTINGS)["visible_change"] == 0
