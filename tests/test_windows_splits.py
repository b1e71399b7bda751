"""Splits share no bar and no day."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moola_lib.errors import UserError
from moola_lib.market import trade_dates
from moola_lib.windows import split_by_time, without_days

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


def test_days_left_out_are_left_out_with_their_neighbours(market):
    index = market.bars.frame.index
    places = np.arange(0, len(index) - 104, 20)
    dates = trade_dates(index)
    known = np.unique(dates)
    for margin, barred in ((0, known[2:3]), (1, known[1:4])):
        kept = without_days(places, index, known[2:3], margin_days=margin)
        ok = [p for p in places if not np.isin(dates[p : p + 105], barred).any()]
        assert kept.tolist() == ok
