"""Folds share no bar and no day, keep their purge and embargo, and say what they left out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_lib.errors import UserError
from moola_lib.market import trade_dates
from moola_lib.windows import grouped_folds, last_days_fold, repeated_folds, reserve_last_days, reserved_fold
from moola_lib.windows.folds import check_classes, check_disjoint, describe_folds
from moola_lib.windows.groups import group_by_shared_bars, joined_windows

DAY = np.datetime64("2024-01-02")


@st.composite
def labelled_windows(draw):
    """Places in time order, some overlapping, on days of random length."""
    steps = draw(st.lists(st.integers(1, 400), min_size=30, max_size=90))
    place = np.cumsum(steps)
    edges = np.cumsum(draw(st.lists(st.integers(300, 1400), min_size=12, max_size=12)))
    return place, np.datetime64("2024-01-02") + np.searchsorted(edges, place, side="right")


@given(labelled_windows(), st.integers(2, 5), st.integers(0, 300))
@settings(max_examples=60)
def test_folds_share_no_day_no_bar_and_keep_the_purge(windows, n_folds, purge_bars):
    place, day = windows
    try:
        folds = grouped_folds(place, day, n_folds=n_folds, purge_bars=purge_bars)
    except UserError as error:
        assert "fewer than" in str(error) or "leaves no window" in str(error)
        return
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(len(place)))
    for fold in folds:
        assert len(fold.test) > 0
        assert len(fold.train) + len(fold.test) + fold.n_purged == len(place)
        assert len(np.intersect1d(day[fold.train], day[fold.test])) == 0
        assert np.abs(np.subtract.outer(place[fold.train], place[fold.test])).min() - 105 >= purge_bars


def test_folds_are_about_equal_blocks_in_time():
    place = np.arange(100) * 200
    folds = grouped_folds(place, place // 1000, n_folds=5)
    assert [fold.test.tolist() for fold in folds] == [list(range(20 * k, 20 * k + 20)) for k in range(5)]
    assert sum(fold.n_purged for fold in folds) == 8  # one window on either side of each inner edge


def test_windows_that_share_bars_stay_together_across_a_day():
    place = np.arange(12) * 500
    place[6] = place[5] + 60
    day = np.arange(12)
    assert any({5, 6} <= set(fold.test) for fold in grouped_folds(place, day, n_folds=2))
    apart = grouped_folds(np.arange(12) * 500, day, n_folds=2)
    assert apart[0].test.tolist() == [0, 1, 2, 3, 4, 5]  # without the shared bars they would part here


def test_more_folds_than_days_is_a_sentence():
    with pytest.raises(UserError, match="10 windows lie on 3 separate trading days, fewer than 5 folds"):
        grouped_folds(np.arange(10) * 500, np.arange(10) // 4, n_folds=5)


def test_windows_out_of_order_are_an_error():
    with pytest.raises(ValueError, match="time order"):
        grouped_folds(np.array([300, 0]), np.array([0, 0]), n_folds=1)


def test_the_check_can_fail():
    with pytest.raises(AssertionError, match="share bars"):
        check_disjoint(np.array([0]), np.array([104]), np.array([0]), np.array([1]))
    with pytest.raises(AssertionError, match="trading day"):
        check_disjoint(np.array([0]), np.array([105]), np.array([0]), np.array([0]))
    check_disjoint(np.array([0]), np.array([105]), np.array([0]), np.array([1]))


def test_the_last_days_are_one_block():
    place = np.arange(40) * 300
    day = np.datetime64("2024-01-02") + np.arange(40) // 8
    fold = last_days_fold(place, day, test_frac=0.25)
    assert fold.test.tolist() == list(range(24, 40))  # two whole days for a quarter of five
    assert fold.train.tolist() == list(range(24)) and fold.n_purged == 0
    tight = last_days_fold(place, day, test_frac=0.2, purge_bars=600)
    assert tight.test.tolist() == list(range(32, 40))
    assert tight.train.tolist() == list(range(30)) and tight.n_purged == 2
    with pytest.raises(UserError, match="at least two trading days"):
        last_days_fold(place, np.full(40, day[0]))


def thirty_sessions():
    """174 windows on 30 sessions of 1,380 bars, none overlapping: (place, day)."""
    session = np.sort(np.arange(174) % 30)
    place = session * 1380 + 20 + (np.arange(174) - np.searchsorted(session, session)) * 220
    return place, DAY + session


def test_an_embargo_leaves_a_whole_trading_day_on_either_side():
    place, day = thirty_sessions()
    for fold in grouped_folds(place, day, embargo_days=1):
        apart = np.abs(np.subtract.outer(day[fold.train], day[fold.test])).min()
        assert apart == np.timedelta64(2, "D")
        assert len(fold.train) + len(fold.test) + fold.n_purged + fold.n_embargoed == 174


def test_neighbouring_days_are_told_by_the_sessions_of_the_series():
    place = np.arange(12) * 5000
    day = np.datetime64("2024-01-05") + 7 * np.arange(12)  # a Friday a week
    weekdays = np.arange("2024-01-01", "2024-04-01", dtype="datetime64[D]")
    weekdays = weekdays[np.is_busday(weekdays)]
    assert [fold.n_embargoed for fold in grouped_folds(place, day, n_folds=3, embargo_days=1)] == [1, 2, 1]
    kept = grouped_folds(place, day, n_folds=3, embargo_days=1, sessions=weekdays)
    assert [fold.n_embargoed for fold in kept] == [0, 0, 0]
    day[4:] += 3 - 7  # the Monday after the Friday at the first border
    kept = grouped_folds(place, day, n_folds=3, embargo_days=1, sessions=weekdays)
    assert [fold.n_embargoed for fold in kept] == [1, 1, 0]


def test_repeats_shift_the_borders_and_test_every_window_once_each():
    place, day = thirty_sessions()
    repeats = repeated_folds(place, day, n_folds=5, n_repeats=4, seed=3)
    assert len(repeats) == 4
    borders = set()
    for folds in repeats:
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(174))
        assert all(30 <= len(fold.test) <= 40 for fold in folds)
        for fold in folds:  # one stretch, or two that meet across the end
            assert np.count_nonzero(np.diff(fold.test) > 1) <= (fold.test[0] == 0 and fold.test[-1] == 173)
        borders.add(tuple(fold.test[0] for fold in folds))
    assert len(borders) == 4
    for one, two in zip(repeats[0], grouped_folds(place, day, embargo_days=1), strict=True):
        np.testing.assert_array_equal(one.test, two.test)
        np.testing.assert_array_equal(one.train, two.train)


def test_equal_seeds_shift_alike():
    place, day = thirty_sessions()
    cuts = [
        [fold.test.tolist() for folds in repeated_folds(place, day, n_repeats=3, seed=s) for fold in folds]
        for s in (1, 1, 2)
    ]
    assert cuts[0] == cuts[1] != cuts[2]


def test_a_fifth_of_the_days_is_reserved_and_the_rest_leaves_about_a_hundred_windows():
    place, day = thirty_sessions()
    development, reserved = reserve_last_days(day)
    assert len(np.unique(day[reserved])) == 6 and day[development].max() < day[reserved].min()
    assert len(development) + len(reserved) == 174
    sizes = [len(fold.train) for fold in grouped_folds(place[development], day[development], embargo_days=1)]
    assert np.mean(sizes) == pytest.approx(103, abs=3)


def test_reserving_takes_at_least_a_day_and_leaves_one():
    assert [part.tolist() for part in reserve_last_days(DAY + np.array([0, 0, 1]))] == [[0, 1], [2]]
    with pytest.raises(UserError, match="of 1 trading day leaves none"):
        reserve_last_days(np.full(3, DAY))


def test_the_reserved_fold_trains_before_the_reserved_days_and_an_embargo():
    place, day = thirty_sessions()
    development, reserved = reserve_last_days(day)
    fold = reserved_fold(place, day)
    assert fold.test.tolist() == reserved.tolist()
    assert fold.train.tolist() == [row for row in development if day[row] < day[development].max()]


def test_folds_that_leave_nothing_to_train_on_are_a_sentence():
    with pytest.raises(UserError, match=r"fold 1 of 2 leaves no window to train on: .* label more days"):
        grouped_folds(np.arange(4) * 5000, DAY + np.arange(4) // 2, n_folds=2, embargo_days=1)


def test_training_on_one_class_is_a_sentence():
    folds = grouped_folds(np.arange(8) * 500, DAY + np.arange(8), n_folds=2, purge_bars=0)
    check_classes(folds, np.array([0, 0, 1, 0, 0, 0, 0, 1]))
    with pytest.raises(UserError, match=r"fold 1 of 2 would train on consolidation alone \(4 windows\)"):
        check_classes(folds, np.array([0, 0, 1, 0, 0, 0, 0, 2]))


def test_the_table_of_folds_adds_up(make_windows):
    windows = make_windows([[(40, 49)]] * 20, np.arange(20) % 2, days=np.arange(20) // 2, places=np.arange(20) * 700)
    folds = grouped_folds(windows.place, windows.day, n_folds=5, embargo_days=1)
    table = describe_folds(folds, windows)
    counts = table[["training windows", "test windows", "purged", "embargoed"]].sum(axis=1)
    assert counts.tolist() == [20] * 5
    assert table["training windows"].tolist() == [14, 12, 12, 12, 14]
    assert (table["training: consolidation"] == table["training windows"] / 2).all()
    assert (table["first test day"].iloc[0], table["last test day"].iloc[0]) == ("2024-01-02", "2024-01-03")


def test_windows_join_through_a_third():
    place = np.array([0, 50, 154, 400, 900, 2000])
    day = DAY + np.array([0, 1, 2, 3, 3, 4])
    assert joined_windows(place, day).tolist() == [0, 0, 0, 1, 1, 2]


def test_windows_without_stamps_are_grouped_by_the_bars_they_show(tools, make_windows):
    frame = tools.walk_frame(tools.minutes("2024-03-05 10:00", 600))
    cuts = [0, 300, 102, 450, 495]  # the third shows the last three bars of the first; the last overlaps the fourth
    own = pd.concat([frame.iloc[at : at + 105] for at in cuts])
    windows = make_windows([[(40, 49)]] * 5, [0] * 5, places=np.arange(5) * 105)
    grouped, sentence = group_by_shared_bars(windows, own)
    assert (grouped.day - grouped.day[0]).astype(int).tolist() == [0, 1, 0, 2, 2]
    assert "5 windows form 3 groups" in sentence and "no time stamps" in sentence
    for fold in grouped_folds(grouped.place, grouped.day, n_folds=3, purge_bars=0):
        assert not set(grouped.day[fold.train]) & set(grouped.day[fold.test])


def test_windows_of_one_series_share_no_days_across_folds(labelled, market):
    sessions = np.unique(trade_dates(market.bars.frame.index))
    for folds in repeated_folds(labelled.place, labelled.day, n_folds=3, n_repeats=3, sessions=sessions):
        for fold in folds:
            train, test = (np.unique(np.searchsorted(sessions, labelled.day[part])) for part in (fold.train, fold.test))
            assert np.abs(np.subtract.outer(train, test)).min() > 1
