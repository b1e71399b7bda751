"""Targets of a span and their exact inverses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moola_lib.labels import expansion_targets, mark_spans, span_from_mask, span_from_pointers, start_from_countdown

SPANS = st.tuples(st.integers(0, 104), st.integers(0, 104)).map(sorted)


def test_the_example_of_the_specification():
    targets = expansion_targets(50, 65)
    assert targets.centre == 57.5 / 104 and targets.length == 16 / 105
    assert targets.mask.sum() == 16
    assert targets.mask[[49, 50, 65, 66]].tolist() == [0, 1, 1, 0]
    assert targets.countdown[[45, 50, 55]].tolist() == [5, 0, -5]
    assert targets.countdown[[0, 29, 30, 31, 69, 70, 71, 104]].tolist() == [20, 20, 20, 19, -19, -20, -20, -20]
    assert targets.mask.dtype == targets.countdown.dtype == np.float32
    assert targets.mask.shape == targets.countdown.shape == (105,)


@given(SPANS)
def test_every_span_comes_back_from_each_of_its_targets(span):
    start, end = span
    targets = expansion_targets(start, end)
    centre, length = np.float32(targets.centre), np.float32(targets.length)
    assert np.round(span_from_pointers(targets.centre, targets.length)).tolist() == [start, end]
    assert np.round(span_from_pointers(centre, length)).tolist() == [start, end]
    assert list(span_from_mask(targets.mask)) == [start, end]
    assert start_from_countdown(targets.countdown) == start


@given(st.lists(SPANS, min_size=1, max_size=6))
def test_many_spans_are_many_single_ones(spans):
    start, end = np.array(spans).T
    many = expansion_targets(start, end)
    singles = [expansion_targets(*span) for span in spans]
    for name in ("centre", "length", "mask", "countdown"):
        np.testing.assert_array_equal(getattr(many, name), np.stack([getattr(one, name) for one in singles]))
    assert np.array_equal(np.stack(span_from_mask(many.mask)), [start, end])
    assert np.array_equal(start_from_countdown(many.countdown), start)


@given(st.integers(2, 200), st.data())
def test_other_window_lengths_round_trip(window_bars, data):
    end = data.draw(st.integers(0, window_bars - 1))
    start = data.draw(st.integers(0, end))
    targets = expansion_targets(start, end, window_bars)
    assert np.round(span_from_pointers(targets.centre, targets.length, window_bars)).tolist() == [start, end]
    assert list(span_from_mask(targets.mask)) == [start, end]


@pytest.mark.parametrize(
    "span",
    [(-1, 4), (5, 4), (0, 105), (105, 105), (1.5, 4), (3, np.nan), ([1, 2], [3, 105]), (np.inf, np.inf)],
)
def test_anything_else_is_a_value_error(span):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError):
        expansion_targets(*span)


def test_the_error_names_the_row():
    with pytest.raises(ValueError, match=r"\(7, 5\) \(row 1\)"):
        expansion_targets([1, 7], [3, 5])


def test_an_empty_mask_has_no_span():
    with pytest.raises(ValueError, match="no bar inside"):
        span_from_mask(np.zeros((2, 105)))


def test_a_countdown_is_read_by_the_median_vote():
    countdown = expansion_targets(40, 50).countdown.astype(float)
    countdown[:30] = 3.0  # nonsense in the minority
    countdown[100] = 0.0
    assert start_from_countdown(countdown) == 40


def test_a_wholly_clipped_countdown_still_gives_a_bar():
    assert 0 <= start_from_countdown(np.full(105, 20.0)) <= 124
    assert np.isfinite(start_from_countdown(np.full((3, 105), -20.0))).all()


def test_spans_are_marked_on_their_bars():
    found = mark_spans(10, [1, 2, 9], [3, 2, 9])
    assert np.flatnonzero(found).tolist() == [1, 2, 3, 9]
    assert not mark_spans(4, [], []).any()


@pytest.mark.parametrize(("start", "end"), [([-1], [2]), ([3], [2]), ([3], [10])])
def test_spans_outside_the_bars_are_refused(start, end):
    with pytest.raises(ValueError, match="10 bars"):
        mark_spans(10, start, end)
