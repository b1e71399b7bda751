"""Several files as pieces of one series."""

import numpy as np
import pytest
from vendor_files import facts

from moola_lib.errors import UserError
from moola_lib.market import load_bars
from moola_lib.market.bars import COLUMNS


def two_files(tmp_path, first, second):
    paths = [tmp_path / "b.csv", tmp_path / "a.csv"]
    for path, frame in zip(paths, (first, second), strict=True):
        frame.to_csv(path)
    return paths


def test_pieces_are_joined_in_time_order_and_their_overlap_is_counted(plain_frame, tmp_path):
    paths = two_files(tmp_path, plain_frame.iloc[:25], plain_frame.iloc[15:])
    for order in (paths, paths[::-1]):
        bars = load_bars(order)
        np.testing.assert_array_equal(bars.frame[COLUMNS], plain_frame[COLUMNS])
        assert (bars.frame.index == plain_frame.index).all()
        found = facts(bars)
        assert found["rows in"] == "50" and found["rows out"] == "40" and found["source"] == "b.csv, a.csv"
        assert found["rows that two files share (kept once)"] == f"10 (first: a.csv row 1, {plain_frame.index[15]})"


def test_pieces_that_disagree_are_refused_with_the_first_stamp(plain_frame, tmp_path):
    second = plain_frame.iloc[15:].copy()
    second.iloc[[3, 5], 4] += 1
    paths = two_files(tmp_path, plain_frame.iloc[:25], second)
    with pytest.raises(UserError) as caught:
        load_bars(paths)
    for words in ("disagree at 2 stamps", str(plain_frame.index[18]), "volume", "b.csv row 19", "a.csv row 4"):
        assert words in str(caught.value)


def test_a_bad_row_of_one_piece_does_not_hide_the_sound_one_of_another(plain_frame, tmp_path):
    second = plain_frame.iloc[15:].copy()
    second.iloc[2, 0] = np.nan
    bars = load_bars(two_files(tmp_path, plain_frame.iloc[:25], second), drop_budget=0.1)
    assert len(bars) == 40 and facts(bars)["dropped: missing value"].startswith("1 (first: a.csv row 3")


def test_a_files_name_may_hold_a_comma(plain_frame, tmp_path):
    paths = two_files(tmp_path, plain_frame.iloc[:25], plain_frame.iloc[15:])
    odd = paths[0].rename(tmp_path / "b, the first.csv")
    shared = facts(load_bars([odd, paths[1]]))["rows that two files share (kept once)"]
    assert shared.startswith("10 (first: a.csv row 1")


def test_pieces_of_several_symbols_are_refused(plain_frame, tmp_path):
    paths = two_files(tmp_path, plain_frame.iloc[:20], plain_frame.iloc[20:].assign(symbol="ESH4"))
    with pytest.raises(UserError, match=r"b.csv holds NQH4 and a.csv ESH4"):
        load_bars(paths)
    with pytest.raises(UserError, match="no file is given"):
        load_bars([])
