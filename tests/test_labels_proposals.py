"""Proposed labels follow their rule and say that they are proposals."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.labels import Labels, SurgeRule, propose_labels
from moola_lib.labels.proposals import explain_surges, find_surges
from moola_lib.market import segment_starts


@pytest.fixture(scope="module")
def frame(market):
    return market.bars.frame


@pytest.fixture(scope="module")
def proposed(frame):
    return propose_labels(frame, n_windows=30)


def surge_frame(tools, before, flat=0.25):
    """A flat stretch, 16 moves of `before`, eight bars up by 5 points, and a flat end."""
    steps = np.r_[np.tile([flat, -flat], 40), before, np.full(8, 5.0), np.tile([-0.25, 0.25], 60)]
    close = 1000.0 + np.cumsum(steps)
    opens = np.r_[1000.0, close[:-1]]
    stamps = tools.minutes("2024-03-05 10:00", len(close))
    top, bottom = np.maximum(opens, close), np.minimum(opens, close)
    columns = {"open": opens, "high": top, "low": bottom, "close": close, "volume": 1.0, "symbol": "X"}
    return pd.DataFrame(columns, index=stamps)


def test_proposals_say_so(proposed):
    assert (proposed["source"] == "proposal:surge").all()
    assert (proposed["annotator"] == "rule").all()
    assert Labels(proposed).is_proposed


def test_windows_share_no_bar_and_hold_their_spans(frame, proposed):
    place = frame.index.get_indexer(proposed["window_start"])
    assert (np.diff(place) >= 105).all()
    assert proposed["expansion_start"].between(30, 74).all()
    assert (proposed["expansion_end"] < 105).all()
    length = proposed["expansion_end"] - proposed["expansion_start"] + 1
    assert length.between(5, 30).all()
    segment = np.searchsorted(segment_starts(frame), np.arange(len(frame)), side="right")
    assert (segment[place] == segment[place + 104]).all()


def test_every_proposal_is_a_surge_of_the_rule(frame, proposed):
    surges = find_surges(frame).set_index("start")
    place = frame.index.get_indexer(proposed["window_start"])
    found = surges.loc[place + proposed["expansion_start"].to_numpy(int)]
    assert (found["end"].to_numpy() == place + proposed["expansion_end"].to_numpy(int)).all()
    assert found["label"].tolist() == proposed["label"].tolist()


def test_the_label_is_the_strongest_surge_of_the_inner_bars(frame, proposed):
    surges = find_surges(frame)
    score = surges["move_atr"] * surges["efficiency"]
    place = frame.index.get_indexer(proposed["window_start"])
    for first, start in zip(place, proposed["expansion_start"], strict=True):
        rivals = surges.loc[surges["start"].between(first + 30, first + 74), "start"]
        assert score[rivals.index].idxmax() == rivals.index[rivals == first + start][0]


def test_surges_meet_the_thresholds_and_do_not_overlap(frame):
    surges = find_surges(frame, SurgeRule(min_move_atr=4.0, min_efficiency=0.7))
    close = frame["close"].to_numpy()
    assert len(surges) > 10
    assert (surges["move_atr"] >= 4.0).all() and (surges["efficiency"] >= 0.7).all()
    assert (surges["start"].to_numpy()[1:] > surges["end"].to_numpy()[:-1]).all()
    for row in surges.itertuples():
        path = close[row.start - 1 : row.end + 1]
        assert np.sign(path[-1] - path[0]) == row.direction
        assert abs(path[-1] - path[0]) / np.abs(np.diff(path)).sum() == pytest.approx(row.efficiency)


def test_a_planted_surge_is_found_on_its_bars(tools):
    surges = find_surges(surge_frame(tools, np.tile([0.25, -0.25], 8)))
    assert surges[["start", "end", "direction"]].values.tolist() == [[96, 103, 1]]
    assert surges["efficiency"][0] == 1.0


@pytest.mark.parametrize(
    ("before", "label"),
    [
        (np.tile([0.25, -0.25], 8), "consolidation"),
        (np.full(16, -0.25), "retracement"),  # 15 bars down before a move up
        (np.full(16, 0.25), "consolidation"),  # up before a move up is no retracement
    ],
)
def test_the_state_before_is_a_retracement_when_price_moved_against_the_surge(tools, before, label):
    surge = find_surges(surge_frame(tools, before), SurgeRule(min_move_atr=20.0)).iloc[0]
    assert surge["label"] == label


@pytest.mark.parametrize(("flat", "is_proposed"), [(0.5, True), (0.25, True), (0.125, False)])
def test_a_surge_with_neither_a_counter_move_nor_compressed_bars_before_it_is_not_proposed(tools, flat, is_proposed):
    surges = find_surges(surge_frame(tools, np.tile([0.25, -0.25], 8), flat=flat), SurgeRule(20.0, max_bars=8))
    assert (len(surges) == 1) == is_proposed
    if is_proposed:  # 15 bars of 0.25 among 60, the others of `flat`
        usual = (16 * 0.25 + 44 * flat) / 60
        assert surges["compression"][0] == pytest.approx(0.25 / usual)


def test_every_reason_says_what_the_rule_saw(frame, proposed):
    surges = find_surges(frame)
    reasons = explain_surges(surges)
    for surge, reason in zip(surges.itertuples(), reasons, strict=True):
        assert f"{surge.move_atr:.1f} ATR in {surge.end - surge.start + 1} bars" in reason
        assert reason.startswith("up" if surge.direction > 0 else "down")
        assert ("the other way" in reason) == (surge.label == "retracement")
    assert set(proposed["quality"]) <= set(reasons)


def test_prices_that_stand_still_before_a_surge_have_no_usual_range(tools):
    frame = surge_frame(tools, np.zeros(16), flat=0.0)
    frame.loc[frame.index[60], ["high", "close"]] += 0.25  # some range, so that there is an ATR
    found = find_surges(frame, SurgeRule(usual_bars=15))
    assert np.isfinite(found["compression"]).all()


def test_the_state_is_judged_by_bars_before_the_surge_only(frame):
    surges = find_surges(frame)
    middle = int(surges["start"].iloc[len(surges) // 2])
    changed = frame.copy()
    changed.iloc[middle:, :4] *= 1.02
    both = surges.merge(find_surges(changed), on=["start", "direction"], suffixes=("", "_again"))
    before, after = both[both["start"] <= middle], both[both["start"] > middle]
    assert len(before) > 20 and (before["counter_atr"] == before["counter_atr_again"]).all()
    assert (after["counter_atr"] != after["counter_atr_again"]).any()


def test_proposals_are_reproducible_and_may_begin_late(frame, proposed):
    pd.testing.assert_frame_equal(propose_labels(frame, n_windows=30), proposed)
    first = frame.index[3000]
    assert (propose_labels(frame, n_windows=20, first_ts=first)["window_start"] >= first).all()


def test_a_series_without_surges_is_a_sentence(frame):
    with pytest.raises(UserError, match=r"finds only 0 windows with a surge in 8,280 bars.*min_move_atr"):
        propose_labels(frame, rule=SurgeRule(min_move_atr=500.0))
