"""Simulated labelled windows: reproducible, whole, and labelled as they were planted."""

import numpy as np
import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.features import build_features
from moola_lib.market.random_laws import simulate_random_market
from moola_lib.windows.simulated import simulate_labelled

N = 60


@pytest.fixture(scope="module")
def drawn():
    return simulate_labelled(N, [3, 0], sessions_per_market=1)


def test_equal_seeds_give_equal_windows_bit_for_bit(drawn):
    (gather, windows), (again, windows_again) = drawn, simulate_labelled(N, [3, 0], sessions_per_market=1)
    assert torch.equal(gather.values, again.values)
    assert np.array_equal(windows.place, windows_again.place)
    assert np.array_equal(windows.spans, windows_again.spans)


def test_other_seeds_give_other_windows(drawn):
    gather, _ = drawn
    other, _ = simulate_labelled(N, [3, 1], sessions_per_market=1)
    n = min(len(gather.values), len(other.values))
    assert not torch.equal(gather.values[:n], other.values[:n])


def test_windows_are_as_many_as_asked_for_and_in_order(drawn):
    _, windows = drawn
    assert len(windows) == N
    assert (np.diff(windows.place) >= 105).all()  # none shares a bar with another
    assert len({name.split("-")[0] for name in windows.window_id}) > 2  # of several markets


def test_windows_hold_the_features_and_spans_of_their_market(drawn):
    gather, windows = drawn
    market = simulate_random_market([3, 0, 1], 1)  # the second: its bars begin where the first's end
    first_bar = len(simulate_random_market([3, 0, 0], 1).bars.frame)
    table = build_features(market.bars)
    assert np.array_equal(gather.values[first_bar : first_bar + len(table)].numpy()[20:], table.values[20:])
    mine = windows.take([name.startswith("market1-") for name in windows.window_id])
    stamps = market.bars.frame.index
    for row, plan in enumerate(market.planted.itertuples()):
        assert stamps[mine.place[row] - first_bar + mine.start[row]] == plan.start_ts
        assert stamps[mine.place[row] - first_bar + mine.end[row]] == plan.end_ts
        assert mine.state[row] == (plan.state == "retracement")


def test_no_window_crosses_from_one_segment_to_the_next(drawn):
    gather, windows = drawn
    _, is_valid = gather(torch.as_tensor(windows.place))
    # a segment's first 20 rows are not valid: such rows are allowed at a window's beginning only
    assert bool((is_valid[:, :-1] <= is_valid[:, 1:]).all())


def test_feature_options_are_passed_on():
    gather, _ = simulate_labelled(4, 3, sessions_per_market=1, feature_set="relative_transform11")
    assert gather.names[0] == "log_return_open"


def test_no_windows_are_refused():
    with pytest.raises(UserError, match="at least 1"):
        simulate_labelled(0, 3)
