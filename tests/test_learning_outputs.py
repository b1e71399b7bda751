"""What a trained localiser answers, in plain units."""

import numpy as np
import pytest
import torch
from tiny_finetuning import SEGMENT_OPTIONS, tiny_jade

from moola_lib.learning.outputs import answer_so_far, predict_windows
from moola_lib.models.jade import TASKS


@pytest.fixture
def train(labelled):
    return labelled.take(np.arange(12))


def test_predictions_are_in_plain_units_and_do_not_depend_on_the_batch(gather, train):
    model = tiny_jade()
    one, many = (predict_windows(model, gather, train.place, batch_size=size) for size in (5, 256))
    assert {name: value.shape for name, value in one.items()} == {
        "is_valid": (12, 105),
        "type_probability": (12, 2),
        "centre": (12,),
        "length": (12,),
        "inside_probability": (12, 105),
        "countdown": (12, 105),
    }
    for name in one:
        np.testing.assert_allclose(one[name], many[name], atol=1e-5)
    np.testing.assert_allclose(one["type_probability"].sum(axis=1), 1, atol=1e-6)
    assert ((one["inside_probability"] > 0) & (one["inside_probability"] < 1)).all()
    with torch.no_grad():
        raw = model.eval()(gather(torch.as_tensor(train.place))[0])["countdown"].numpy()
    np.testing.assert_allclose(one["countdown"], 20 * raw, atol=1e-5)


def test_a_posterior_is_predicted_with_its_marginals(gather, train):
    model = tiny_jade(**SEGMENT_OPTIONS)
    found = predict_windows(model, gather, train.place, batch_size=5)
    assert {name: value.shape[1:] for name, value in found.items()} == {
        "span_probability": (105, 105), "log_odds": (), "inside_probability": (105,), "countdown": (105,),
        "centre": (), "length": (), "type_probability": (2,), "is_valid": (105,),
    }  # fmt: skip
    both = tiny_jade(**SEGMENT_OPTIONS | {"heads": (*TASKS, "segment")})
    answers = predict_windows(both, gather, train.place)
    with torch.no_grad():
        raw = both.eval()(gather(torch.as_tensor(train.place))[0])
    np.testing.assert_allclose(answers["inside_probability"], raw["inside_logits"].sigmoid(), atol=1e-6)  # the notes'
    assert "span_probability" in answers


def test_answers_so_far_count_none_in_where_it_is_known(gather, train):
    model, x = tiny_jade(**SEGMENT_OPTIONS), gather(torch.as_tensor(train.place))[0]
    before = answer_so_far(model, x)
    torch.testing.assert_close(before["start_probability"].sum(dim=1), torch.ones(12))
    model.segment_head.knows_none.fill_(True)
    after = answer_so_far(model, x)
    has = torch.from_numpy(predict_windows(model, gather, train.place)["log_odds"]).sigmoid()[:, None]
    for name in before:
        torch.testing.assert_close(after[name], before[name] * has)
    notes = answer_so_far(tiny_jade(heads=("inside",)), x)
    assert set(notes) == {"inside_probability"}
