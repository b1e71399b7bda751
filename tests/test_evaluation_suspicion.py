"""Suspicious labels: wrong ones come first, an expansion that the model sees is enough, other windows are refused."""

from dataclasses import replace

import numpy as np
import pytest

from moola_lib.errors import UserError
from moola_lib.evaluation.metrics import Prediction
from moola_lib.evaluation.suspicion import rank_suspicious, read_predictions

BARS = np.arange(105)


def answers(start, state, sd=2.0, sure=0.8):
    """A model that knows where windows start, within sd bars, and their states."""
    p = np.exp(-0.5 * ((BARS - np.asarray(start)[:, None]) / sd) ** 2)
    states = np.where(np.eye(2)[np.asarray(state)] > 0, sure, 1 - sure)
    return Prediction(
        start=np.asarray(start), start_probability=p / p.sum(axis=1, keepdims=True), type_probability=states
    )


@pytest.fixture
def truth(make_windows):
    rng = np.random.default_rng(1)
    start = rng.integers(30, 75, 60)
    return make_windows([[(s, min(s + 6, 104))] for s in start], rng.integers(0, 2, 60))


def with_wrong_starts(windows, rows, make_windows):
    spans = [[(int(s), int(e))] for s, e in zip(windows.start, windows.end, strict=True)]
    for row in rows:
        moved = 30 + (windows.start[row] - 30 + 20) % 45
        spans[row] = [(int(moved), int(moved) + 6)]
    return make_windows(spans, windows.state)


@pytest.mark.parametrize(
    "known", [("start", "start_probability", "type_probability"), ("start_probability",), ("start",)]
)
def test_labels_whose_start_was_moved_come_first(truth, make_windows, known):
    wrong = [3, 17, 40, 41]
    given = with_wrong_starts(truth, wrong, make_windows)
    everything = answers(truth.start, truth.state)
    found = rank_suspicious(given, Prediction(**{name: getattr(everything, name) for name in known}))
    assert set(found["window_id"][:4]) == set(given.window_id[wrong].astype(str))
    assert found["score"].is_monotonic_decreasing and len(found) == len(truth)


def test_labels_whose_state_was_swapped_come_first(truth):
    state = truth.state.copy()
    state[[5, 9]] = 1 - state[[5, 9]]
    found = rank_suspicious(replace(truth, state=state), answers(truth.start, truth.state))
    assert set(found["window_id"][:2]) == set(truth.window_id[[5, 9]].astype(str))
    swapped = found.iloc[0]
    assert swapped["state_nats"] == pytest.approx(-np.log(0.2)) and swapped["why"].split("; ")[-1].startswith(
        "20% for "
    )
    assert "the model agrees" in found["why"].iloc[-1]


def test_any_expansion_of_a_window_that_the_model_sees_is_enough(make_windows):
    windows = make_windows([[(40, 45), (70, 75)], [(40, 45)]], np.zeros(2, int))
    found = rank_suspicious(windows, answers([70, 70], [0, 0])).set_index("window_id")
    two, one = (found.loc[str(window_id)] for window_id in windows.window_id)
    assert two["start_bars"] == 0 and one["start_bars"] == 30 and one["score"] > two["score"]
    assert two["why"].startswith("labelled start 70, answered 70")


def test_windows_without_an_expansion_are_judged_by_their_state_alone(make_windows):
    windows = make_windows([[], [(40, 45)]], np.array([2, 0]))
    two_states = answers([40, 40], [0, 0])
    assert rank_suspicious(windows, two_states)["window_id"].tolist() == [str(windows.window_id[1])]
    three = replace(two_states, type_probability=np.array([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05]]))
    found = rank_suspicious(windows, three)
    assert found["score"][0] == pytest.approx(-np.log(0.05)) and "the model says consolidation" in found["why"][0]


def test_kept_answers_are_read_in_the_order_of_the_windows(truth, tmp_path):
    everything = answers(truth.start, truth.state)
    order = np.random.default_rng(2).permutation(60)[:50]
    stored = {name: getattr(everything, name)[order] for name in ("start", "start_probability", "type_probability")}
    np.savez(tmp_path / "predictions.npz", window_id=truth.window_id[order].astype(str), **stored)
    known, found = read_predictions(tmp_path / "predictions.npz", truth)
    assert len(known) == 50 and found.end is None
    np.testing.assert_array_equal(found.start, known.start)


def test_bad_input_is_a_sentence(truth, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04cut")
    np.savez(tmp_path / "other.npz", window_id=np.array(["x"]), start=np.array([1]))
    with pytest.raises(UserError, match=r"bad.npz holds no answers of notebook 04"):
        read_predictions(tmp_path / "bad.npz", truth)
    with pytest.raises(UserError, match="answers none of the 60 labelled windows"):
        read_predictions(tmp_path / "other.npz", truth)
    with pytest.raises(UserError, match="hold neither starts nor states"):
        rank_suspicious(truth, Prediction())
    with pytest.raises(UserError, match="start is given for 3 windows, there are 60"):
        rank_suspicious(truth, Prediction(start=np.zeros(3)))
