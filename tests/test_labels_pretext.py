"""Targets that bars give themselves: six bars by hand, and what each target may look at."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.labels import PRETEXT_TASKS, pretext_targets
from moola_lib.labels.pretext import UNKNOWN
from moola_lib.market import segment_starts

COLUMNS = ["open", "high", "low", "close"]


def classes(frame, starts=(0,), is_valid=None):
    """The targets as words, None where there is none."""
    is_valid = np.ones(len(frame), bool) if is_valid is None else is_valid
    table = pretext_targets(frame, np.array(starts), is_valid)
    assert list(table.columns) == list(PRETEXT_TASKS) and (table.dtypes == np.int8).all()
    return {task: [None if c == UNKNOWN else PRETEXT_TASKS[task][c] for c in table[task]] for task in PRETEXT_TASKS}


def flat_bars(n, size=2.0):
    """Bars of one size around 100, each closing in its middle."""
    return pd.DataFrame({"open": 100.0, "high": 100 + size / 2, "low": 100 - size / 2, "close": 100.0}, index=range(n))


def test_candles_by_hand():
    rows = [
        [10, 20, 10, 13.0],  # body .3 up
        [13, 20, 10, 10.0],  # .3 down
        [10, 20, 10, 12.9],  # .29
        [10, 20, 10, 11.0],  # .1
        [10, 20, 10, 10.9],  # .09
        [10, 10, 10, 10.0],  # no range at all
    ]
    found = classes(pd.DataFrame(rows, columns=COLUMNS))["candle"]
    assert found == ["bullish", "bearish", "neutral", "neutral", "doji", "doji"]


def test_swings_by_hand():
    highs, lows = [5, 6, 9, 6, 5, 6, 7, 8], [4, 4, 4, 4, 1, 4, 4, 4]
    frame = flat_bars(8).assign(high=highs, low=lows)
    found = classes(frame)["swing"]
    assert found == [None, None, "high", "neither", "low", "neither", None, None]


def test_an_equal_neighbour_makes_no_swing_and_an_outside_bar_is_left_out():
    equal = flat_bars(7).assign(high=[5, 5, 9, 9, 5, 5, 5], low=1.0)
    assert classes(equal)["swing"][2:5] == ["neither"] * 3
    outside = flat_bars(5).assign(high=[5, 5, 9, 5, 5], low=[4, 4, 1, 4, 4])
    assert classes(outside)["swing"] == [None] * 5


@pytest.mark.parametrize(("reach", "expected"), [(1.0, "no"), (14 / 3 - 0.01, "no"), (14 / 3 + 0.01, "yes")])
@pytest.mark.parametrize("side", ["high", "low"])
def test_an_expansion_reaches_two_atr_beyond_five_bars(reach, expected, side):
    # of fourteen true ranges thirteen are 2 and this bar's is 2 + reach: 2 ATR = (28 + reach) / 7, passed above 14 / 3
    frame = flat_bars(20)
    frame.loc[15, side] += reach if side == "high" else -reach
    found = classes(frame)["expansion"]
    assert found[15] == expected
    assert found[:14] == [None] * 14 and found[16:] == ["no"] * 4


def test_targets_of_a_segment_depend_on_no_other(tiny):
    frame, starts = tiny.frame, segment_starts(tiny.frame)
    together = pretext_targets(frame, starts, np.ones(len(frame), bool))
    for first, last in zip(starts, [*starts[1:], len(frame)], strict=True):
        part = frame.iloc[first:last]
        alone = pretext_targets(part, np.zeros(1, np.int64), np.ones(len(part), bool))
        pd.testing.assert_frame_equal(together.iloc[first:last], alone)
        assert (alone["swing"].iloc[[0, 1, -2, -1]] == UNKNOWN).all()


def test_only_the_swing_looks_ahead(tiny):
    frame, t = tiny.frame.iloc[:150], 100
    changed = frame.copy()
    changed.iloc[t + 1 :, :4] -= 500.0
    starts, is_valid = np.zeros(1, np.int64), np.ones(150, bool)
    before, after = (pretext_targets(each, starts, is_valid) for each in (frame, changed))
    pd.testing.assert_frame_equal(before.iloc[: t + 1, [0, 2]], after.iloc[: t + 1, [0, 2]])
    pd.testing.assert_frame_equal(before.iloc[: t - 1], after.iloc[: t - 1])
    assert not before["swing"].iloc[t - 1 : t + 1].equals(after["swing"].iloc[t - 1 : t + 1])


def test_bars_that_are_not_valid_have_no_target(market, table):
    found = pretext_targets(market.bars.frame, table.starts, table.is_valid)
    assert (found[~table.is_valid] == UNKNOWN).all(axis=None)
    assert (found.loc[table.is_valid, ["expansion", "candle"]] != UNKNOWN).all(axis=None)


def test_every_class_occurs_and_none_is_the_whole(market, table):
    found = pretext_targets(market.bars.frame, table.starts, table.is_valid)
    for task, names in PRETEXT_TASKS.items():
        shares = found.loc[found[task] != UNKNOWN, task].value_counts(normalize=True)
        assert sorted(shares.index) == list(range(len(names))) and shares.max() < 0.999
