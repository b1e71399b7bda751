"""Splits and folds share no bar and no day."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_lib.errors import UserError
from moola_lib.market import trade_dates
from moola_lib.windows import grouped_folds, last_days_fold, split_by_time, without_days
from moola_lib.windows.folds import check_disjoint

INDEX = pd.date_range("2024-01-01", periods=20_000, freq="min", tz="UTC", name="ts")


def parts_of(split):
    return split.train, split.validation, split.test


@given(st.lists(st.integers(0, 19_000), min_size=100, max_size=400, unique=True), st.integers(0, 300))
@settings(max_examples=40)
def test_parts_are_in_order_and_an_embargo_apart(places, embargo):
    places = np.sort(places)
    try:
        split = split_by_time(places, INDEX, embargo_bars=embargo)
    except UserError:
        return
    for earlier, later in zip(parts_of(split), parts_of(split)[1:], strict=False):
        assert later[0] - (earlier[-1] + 104) > embargo
    kept = np.concatenate(parts_of(split))
    assert np.isin(kept, places).all() and len(np.unique(kept)) == len(kept)


def test_fractions_are_met_to_the_embargo():
    places = np.arange(0, len(INDEX) - 104)
    split = split_by_time(places, INDEX)
    shares = np.array([len(part) for part in parts_of(split)]) / len(places)
    np.testing.assert_allclose(shares, [0.70, 0.15, 0.15], atol=0.05)
    assert split.table["n_windows"].tolist() == [len(part) for part in parts_of(split)]
    assert split.table["last_bar"].iloc[0] == INDEX[split.train[-1] + 104]
    assert (split.table["first_bar"].iloc[1:].to_numpy() > split.table["last_bar"].iloc[:-1].to_numpy()).all()


def test_dates_are_the_last_days_of_train_and_validation():
    places = np.arange(0, len(INDEX) - 104)
    split = split_by_time(places, INDEX, dates=("2024-01-05", "2024-01-10"))
    last = INDEX[split.train[-1] + 104]
    assert f"{last:%F %H:%M}" == "2024-01-05 22:59", (
        "a session ends at 17:00 New York; its minutes until 18:00 are its own"
    )
    first = INDEX[split.validation[0]]
    assert first == pd.Timestamp("2024-01-05 23:00", tz="UTC") + pd.Timedelta(minutes=105)
    assert INDEX[split.validation[-1] + 104] < pd.Timestamp("2024-01-10 23:00", tz="UTC") <= INDEX[split.test[0]]


@pytest.mark.parametrize("options", [{}, {"dates": ("2024-01-05", "2024-01-10")}, {"embargo_bars": 0}])
def test_no_trade_date_lies_in_two_parts(options):
    split = split_by_time(np.arange(0, len(INDEX) - 104), INDEX, **options)
    days = trade_dates(INDEX)
    found = [np.union1d(days[part], days[part + 104]) for part in parts_of(split)]
    assert not set(found[0]) & set(found[1]) and not set(found[1]) & set(found[2])


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.2), (1.0, 0.0, 0.0), (0.5, 0.6, -0.1)])
def test_fractions_must_sum_to_one(fractions):
    with pytest.raises(UserError, match="must be positive and sum to 1"):
        split_by_time(np.arange(1000), INDEX, fractions=fractions)


def test_an_empty_part_is_named():
    with pytest.raises(UserError, match="train part of the split holds no window"):
        split_by_time(np.arange(0, 1000), INDEX[:1200])  # one session cannot be split between sessions
    with pytest.raises(UserError, match="validation part"):
        split_by_time(np.arange(0, 19_000), INDEX, embargo_bars=5000)
    with pytest.raises(UserError, match="test part"):
        split_by_time(np.arange(3000), INDEX, dates=("2024-01-01", "2025-01-01"), embargo_bars=0)


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
        assert "fewer than" in str(error)
        return
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(len(place)))
    for fold in folds:
        assert len(fold.test) > 0
        assert len(fold.train) + len(fold.test) + fold.n_purged == len(place)
        assert len(np.intersect1d(day[fold.train], day[fold.test])) == 0
        if len(fold.train):
            gap = np.abs(np.subtract.outer(place[fold.train], place[fold.test])).min() - 105
            assert gap >= purge_bars


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


def test_days_left_out_are_left_out_with_their_neighbours(market):
    index = market.bars.frame.index
    places = np.arange(0, len(index) - 104, 20)
    dates = trade_dates(index)
    known = np.unique(dates)
    for margin, barred in ((0, known[2:3]), (1, known[1:4])):
        kept = without_days(places, index, known[2:3], margin_days=margin)
        ok = [p for p in places if not np.isin(dates[p : p + 105], barred).any()]
        assert kept.tolist() == ok
