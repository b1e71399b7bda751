"""Forward folds train on the past alone, roll over all later windows, and keep purge and embargo."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_windows_folds import labelled_windows, thirty_sessions

from moola_lib.errors import UserError
from moola_lib.windows import forward_folds

DAY = np.datetime64("2024-01-02")


@given(labelled_windows(), st.integers(1, 5), st.integers(0, 300), st.integers(0, 1))
@settings(max_examples=60)
def test_nothing_of_the_test_block_or_after_it_is_trained_on(windows, n_folds, purge_bars, embargo_days):
    place, day = windows
    try:
        folds = forward_folds(place, day, n_folds=n_folds, purge_bars=purge_bars, embargo_days=embargo_days)
    except UserError as error:
        assert "fewer than" in str(error) or "leaves no window" in str(error)
        return
    assert len(folds) == n_folds
    for fold in folds:
        assert place[fold.train].max() + 105 + purge_bars <= place[fold.test].min()
        assert day[fold.train].max() < day[fold.test].min()
        assert (
            len(fold.train) + fold.n_purged + fold.n_embargoed == fold.test[0]
        )  # every earlier window is accounted for
    tested = np.concatenate([fold.test for fold in folds])
    np.testing.assert_array_equal(tested, np.arange(tested[0], len(place)))


def test_blocks_hold_about_equally_many_windows_and_training_grows():
    place, day = thirty_sessions()
    folds = forward_folds(place, day, n_folds=5)
    assert all(23 <= len(fold.test) <= 35 for fold in folds)
    trained = [len(fold.train) for fold in folds]
    assert trained == sorted(trained) and trained[0] > 15
    for fold in folds:
        assert day[fold.test].min() - day[fold.train].max() == np.timedelta64(2, "D")  # a day of embargo between
        assert fold.n_embargoed > 0
    assert all(set(one.train) < set(two.train) for one, two in itertools.pairwise(folds))


def test_months_are_tested_one_by_one():
    place, day = thirty_sessions()
    day = day + 20  # 22 January to 20 February
    (fold,) = forward_folds(place, day, by="month", embargo_days=0)
    assert (day[fold.test] >= np.datetime64("2024-02-01")).all() and (
        day[fold.train] < np.datetime64("2024-02-01")
    ).all()
    assert len(fold.train) + len(fold.test) == 174
    with pytest.raises(UserError, match="all 174 windows lie in 2024-03"):
        forward_folds(place, np.full(174, "2024-03-05", "datetime64[D]"), by="month")


def test_windows_that_share_bars_across_a_month_end_stay_together():
    place = np.array([0, 1000, 2000, 2050, 4000])
    day = np.array(["2024-01-29", "2024-01-30", "2024-01-31", "2024-02-01", "2024-02-02"], "datetime64[D]")
    (fold,) = forward_folds(place, day, by="month", embargo_days=0)
    assert fold.test.tolist() == [4] and fold.train.tolist() == [0, 1, 2, 3]


def test_what_cannot_be_cut_is_a_sentence():
    place, day = np.arange(6) * 5000, DAY + np.arange(6) // 2
    with pytest.raises(UserError, match="3 separate trading days, fewer than the 4 blocks of 3 forward folds"):
        forward_folds(place, day)
    with pytest.raises(UserError, match="forward fold 1 of 2 leaves no window to train on"):
        forward_folds(place, day, n_folds=2)
    with pytest.raises(UserError, match="only time tells past from future"):
        forward_folds(place, day[::-1])
    with pytest.raises(UserError, match="'week' is not known"):
        forward_folds(place, day, by="week")
    with pytest.raises(UserError, match="n_folds = 0"):
        forward_folds(place, day, n_folds=0)
