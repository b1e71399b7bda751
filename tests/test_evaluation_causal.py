"""Causal scores see no later bar; alarms are judged as worked by hand."""

import numpy as np
import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.evaluation.causal import CausalScores, alarm_threshold, causal_scores, first_alarms, score_causal
from moola_lib.models import build_model
from moola_lib.windows.masks import cut_after

RNG = np.random.default_rng(1)
X = RNG.standard_normal((7, 105, 3)).astype(np.float32)


def running_mean(x):
    """A model that looks back only: its answer at t needs the bars up to t."""
    mean = torch.cumsum(x[..., 0], dim=1) / torch.arange(1, x.shape[1] + 1)
    return {"inside_probability": mean.sigmoid(), "start_probability": mean.sigmoid() / 105}


def sees_all(x):
    """A model whose every answer depends on every bar."""
    level = x.mean(dim=(1, 2))[:, None].expand(-1, x.shape[1])
    return {"inside_probability": level.sigmoid()}


def constant_scores(values):
    values = np.asarray(values, np.float64)
    return CausalScores(values, values)


def figures(windows, scores, threshold, **options):
    return score_causal(windows, scores, threshold, n_bootstrap=50, **options).set_index("figure")


@pytest.mark.parametrize("t", [0, 40, 104])
def test_a_cut_hides_every_later_bar_and_none_before(t):
    x = torch.from_numpy(X)
    other = x.clone()
    other[:, t + 1 :] = 99.0
    assert torch.equal(cut_after(x, t), cut_after(other, t))
    assert torch.equal(cut_after(x, t)[:, : t + 1], x[:, : t + 1])
    assert (cut_after(x, t)[:, t + 1 :] == 0).all()


def test_each_window_can_be_cut_at_a_bar_of_its_own():
    x, at = torch.from_numpy(X), torch.tensor([0, 3, 50, 104, 20, 7, 99])
    cut = cut_after(x, at)
    for row, t in enumerate(at):
        assert torch.equal(cut[row], cut_after(x[row : row + 1], int(t))[0])


def test_a_model_that_looks_back_only_is_scored_as_it_is():
    plain = running_mean(torch.from_numpy(X))
    scores = causal_scores(running_mean, X)
    np.testing.assert_allclose(scores.inside, plain["inside_probability"].numpy(), atol=1e-6)
    np.testing.assert_allclose(scores.started, np.cumsum(plain["start_probability"].numpy(), axis=1), atol=1e-5)


def test_a_model_that_sees_all_is_shown_the_past_only():
    scores = causal_scores(sees_all, X)
    changed = X.copy()
    changed[:, 61:] = 5.0
    assert np.array_equal(causal_scores(sees_all, changed).inside[:, :61], scores.inside[:, :61])
    assert not np.array_equal(causal_scores(sees_all, changed).inside[:, 61:], scores.inside[:, 61:])


def test_between_asked_bars_the_last_answer_stands():
    every, tenth = causal_scores(sees_all, X), causal_scores(sees_all, X, stride=10)
    for t in range(105):
        assert np.array_equal(tenth.inside[:, t], every.inside[:, t - t % 10])


def test_batches_do_not_matter():
    one, two = causal_scores(running_mean, X, batch_size=2), causal_scores(running_mean, X, batch_size=512)
    np.testing.assert_allclose(one.started, two.started, atol=1e-12)


def test_spans_and_starts_say_the_same():
    span = RNG.random((7, 105, 105)) * np.triu(np.ones((105, 105)))
    span /= span.sum(axis=(1, 2), keepdims=True)
    flat = np.full((7, 105), 0.1)
    by_span = causal_scores(lambda x: {"inside_probability": flat, "span_probability": span}, X)
    by_start = causal_scores(lambda x: {"inside_probability": flat, "start_probability": span.sum(axis=2)}, X)
    np.testing.assert_allclose(by_span.started, by_start.started, atol=1e-12)
    np.testing.assert_allclose(by_span.started[:, -1], 1)


def test_without_starts_the_highest_inside_so_far_stands_for_them():
    scores = causal_scores(sees_all, X)
    assert np.array_equal(scores.started, np.maximum.accumulate(scores.inside, axis=1))


def test_an_untrained_network_is_shown_the_past_only():
    torch.manual_seed(1)
    model = build_model("jade", n_features=3, hidden_size=4).eval()

    @torch.no_grad()
    def answer(x):
        return {"inside_probability": model(x)["inside_logits"].sigmoid()}

    changed = X.copy()
    changed[:, 40:] += 1
    one, two = causal_scores(answer, X, stride=13), causal_scores(answer, changed, stride=13)
    assert np.array_equal(one.inside[:, :39], two.inside[:, :39])


def test_the_threshold_is_the_lowest_that_keeps_its_promise(make_windows):
    n = 40
    windows = make_windows([[(50, 60)]] * 30 + [[]] * 10, np.r_[np.zeros(30, int), np.full(10, 2)])
    scores = constant_scores(RNG.random((n, 105)))
    for frac in (0.0, 0.1, 0.5):
        threshold = alarm_threshold(windows, scores, frac)

        def n_false(level):
            alarm = first_alarms(scores, level)
            return int(((alarm >= 0) & (~windows.has_expansion | (alarm < windows.start))).sum())

        assert n_false(threshold) == frac * n
        assert n_false(threshold - 1e-9) == frac * n + 1


@pytest.mark.parametrize("frac", [1.0, -0.1])
def test_an_impossible_promise_is_refused(frac, make_windows):
    with pytest.raises(UserError, match="share in"):
        alarm_threshold(make_windows([[(50, 60)]], [0]), constant_scores(np.zeros((1, 105))), frac)


def test_alarms_are_judged_as_worked_by_hand(make_windows):
    windows = make_windows([[(50, 60)]] * 5 + [[], []], [0] * 5 + [2, 2])
    values = np.zeros((7, 105))
    for row, bar in enumerate([50, 54, 49, 61, None, 10, None]):
        if bar is not None:
            values[row, bar:] = 1.0
    found = figures(windows, constant_scores(values), 0.5)["value"]
    assert found["hit_share"] == pytest.approx(2 / 5)  # at bars 50 and 54
    assert found["late_share"] == pytest.approx(1 / 5)  # at bar 61
    assert found["missed_share"] == pytest.approx(1 / 5)
    assert found["false_share"] == pytest.approx(2 / 7)  # a bar too early, and one in a window without an expansion
    assert found["latency_median"] == 4  # of 0, 4 and 11
    assert found["latency_q25"] == 0 and found["latency_q75"] == 11


def test_who_knows_the_truth_at_once_alarms_at_the_start(make_windows):
    starts = RNG.integers(30, 75, 30)
    windows = make_windows([[(s, s + 7)] for s in starts], np.zeros(30, int), days=np.arange(30) // 3)
    truth = windows.targets()["inside"].astype(np.float64)
    found = figures(windows, CausalScores(truth, np.maximum.accumulate(truth, axis=1)), 0.5)
    for name, value in {"causal_ap": 1, "hit_share": 1, "false_share": 0, "latency_median": 0}.items():
        assert (found.loc[name, ["value", "low", "high"]] == value).all(), name


def test_without_an_alarm_there_is_no_latency(make_windows):
    windows = make_windows([[(50, 60)]] * 4, np.zeros(4, int))
    found = figures(windows, constant_scores(np.zeros((4, 105))), 0.5)
    assert found.loc["missed_share", "value"] == 1
    assert np.isnan(found.loc["latency_median", "value"]) and found.loc["latency_median", "n"] == 0


def test_each_window_may_have_the_threshold_of_its_fold(make_windows):
    windows = make_windows([[(50, 60)]] * 2, [0, 0])
    values = np.tile(np.linspace(0, 1, 105), (2, 1))
    alarms = first_alarms(constant_scores(values), np.array([0.5, 2.0]))
    assert alarms.tolist() == [52, -1]
    found = figures(windows, constant_scores(values), np.array([0.5, 2.0]))["value"]
    assert found["hit_share"] == found["missed_share"] == 0.5
