"""A model refuses what it was not made for, in a sentence that names both sides."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.features import build_features
from moola_lib.models.cards import check_understands, describe_bars, find_bar_minutes


def card_of(table, **bars):
    names = [*table.names, *(["position"] if table.has_position else [])]
    notes = {"name": "nq1", "bars": bars}
    return {"model": {"name": "jade"}, "features": {"set_id": table.set_id, "names": names}, "notes": notes}


def test_bars_are_described_by_what_they_are(market):
    facts = describe_bars(market.bars)
    assert facts["fingerprint"] == market.bars.fingerprint and facts["symbol"] == "SIM"
    assert facts["bar_minutes"] == 1 and facts["n_bars"] == len(market.bars)
    assert pd.Timestamp(facts["last_bar"]) == market.bars.frame.index[-1]


def test_a_bar_s_length_is_the_commonest_step(tiny):
    assert find_bar_minutes(tiny.frame.index) == 1  # a weekend, a hole and a roll notwithstanding
    assert find_bar_minutes(tiny.frame.index[::5]) == 5
    assert find_bar_minutes(tiny.frame.index[:1]) is None


@pytest.mark.parametrize("options", [{}, {"extra": ("position",)}, {"feature_set": "ohlc4"}])
def test_a_model_understands_bars_and_features_like_its_own(market, options):
    table = build_features(market.bars, **options)
    card = card_of(table, **describe_bars(market.bars))
    check_understands(card, bars=market.bars, table=table)
    check_understands(card | {"notes": {}}, bars=market.bars.frame.iloc[:1])  # too few to tell their length


def test_other_features_are_refused_with_both_sides_named(market, table):
    card, other = card_of(table), build_features(market.bars, "ohlc4")
    with pytest.raises(UserError, match=r"nq1 reads .* relativity11.v1.*11 columns.*ohlc4.v1 \(4 columns, without"):
        check_understands(card, table=other)
    stricter = build_features(market.bars, k=2.0)
    with pytest.raises(UserError, match=r"k=3 \(11 columns\); these features are relativity11.v1/primary/k=2"):
        check_understands(card, table=stricter)


def test_other_bars_are_refused_with_both_sides_named(tiny, table):
    card = card_of(table)
    with pytest.raises(UserError, match=r"nq1 reads 1-minute bars .*; these are 5-minute bars"):
        check_understands(card, bars=tiny.frame.iloc[::5])
    with pytest.raises(UserError, match=r"nq1 reads .*; these bars lack high, low \(they have open, close, volume"):
        check_understands(card, bars=tiny.frame.drop(columns=["high", "low"]))
    with pytest.raises(UserError, match="have no stamps"):
        check_understands(card, bars=tiny.frame.set_index(np.arange(len(tiny.frame))))
    with pytest.raises(UserError, match=r"nq1 reads 5-minute bars .*; these are 1-minute bars"):
        check_understands(card_of(table, bar_minutes=5.0), bars=tiny.bars)
