"""ATR and z-scores against TA-Lib, an implementation by other hands, to 1e-12 of their size."""

import numpy as np
import pytest
import talib
from feature_reference import frame_of, prices_of, random_walk_prices

from moola_lib.features import build_features
from moola_lib.features.kernels import _average_true_range
from moola_lib.features.relative_transform import Z_EPSILON, _trailing_scores
from moola_lib.market.ranges import ATR_BARS, average_true_range

Z_BARS = 20
SEEDS = (17, 18, 19)
TOLERANCE = 1e-12


def assert_agree(ours, theirs):
    """Equal to 1e-12 of the greater, wherever both are defined; most bars are."""
    is_defined = np.isfinite(theirs)
    assert is_defined.mean() > 0.9
    assert np.isfinite(ours[is_defined]).all()
    assert (np.abs(ours - theirs)[is_defined] <= TOLERANCE * np.abs(theirs)[is_defined]).all()


def talib_atr(high, low, close):
    """Simple mean of the last ten true ranges; TA-Lib's own ATR smooths by Wilder's rule instead."""
    return talib.SMA(talib.TRANGE(high, low, close), timeperiod=ATR_BARS)


def talib_scores(series):
    """(x - SMA20) / STDDEV20, of deviations from the current price, for TA-Lib squares what it is given."""
    out = np.full(len(series), np.nan)
    for t in range(Z_BARS - 1, len(series)):
        window = series[t - Z_BARS + 1 : t + 1] - series[t]
        mean = talib.SMA(window, timeperiod=Z_BARS)[-1]
        out[t] = -mean / (talib.STDDEV(window, timeperiod=Z_BARS)[-1] + Z_EPSILON)
    return out


@pytest.mark.parametrize("seed", SEEDS)
def test_average_true_range(seed):
    _, high, low, close = random_walk_prices(600, seed)
    expected = talib_atr(high, low, close)
    assert_agree(_average_true_range(high, low, close, *np.full((2, 600), np.nan)), expected)
    assert_agree(average_true_range(high, low, close, np.array([0])), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_scores(seed):
    for series in random_walk_prices(600, seed):
        ours = np.empty(len(series))
        _trailing_scores(series, 0, ours)
        assert_agree(ours, talib_scores(series))


def test_scores_reach_the_table():
    frame = frame_of(*random_walk_prices(300, seed=17))
    table = build_features(frame, feature_set="relative_transform11")
    expected = np.column_stack([talib_scores(series) for series in prices_of(frame)])[Z_BARS:]
    assert np.abs(table.values[Z_BARS:, 7:] - expected).max() < 1e-6
