"""The feature tables against the slow reference, and against six bars worked by hand."""

import itertools
import math

import numpy as np
import pytest
from feature_reference import (
    consol_proxy,
    frame_of,
    prices_of,
    random_walk_prices,
    relative_transform11,
    relativity11,
    sample_frame,
    stepped_frame,
    swing_flips,
)

from moola_lib.features import build_features

ZIGZAGS = ("primary", "legacy")
SEEDS = (17, 18, 19)
WARM_UP_BARS = 20


def largest_difference(table, expected):
    """Largest absolute difference between a table's values and the reference's, in float32."""
    assert table.values.dtype == np.float32
    assert table.values.shape == expected.shape
    return np.abs(table.values - expected.astype(np.float32)).max()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("zigzag", ZIGZAGS)
def test_relativity11_equals_the_reference(seed, zigzag):
    frame, starts = sample_frame(seed=seed)
    table = build_features(frame, feature_set="relativity11", zigzag=zigzag)
    assert largest_difference(table, relativity11(*prices_of(frame), starts, zigzag=zigzag)) < 1e-6


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("zigzag", ZIGZAGS)
def test_zero_range_bars_equal_the_reference(seed, zigzag):
    frame = stepped_frame(seed=seed)
    table = build_features(frame, feature_set="relativity11", zigzag=zigzag)
    assert largest_difference(table, relativity11(*prices_of(frame), [0], zigzag=zigzag)) < 1e-6


@pytest.mark.parametrize("seed", SEEDS)
def test_relative_transform11_equals_the_reference(seed):
    frame, starts = sample_frame(seed=seed)
    table = build_features(frame, feature_set="relative_transform11")
    assert largest_difference(table, relative_transform11(*prices_of(frame), starts)) < 1e-5


@pytest.mark.parametrize("zigzag", ZIGZAGS)
def test_consol_proxy_equals_the_reference(zigzag):
    frame, starts = sample_frame()
    table = build_features(frame, feature_set="relativity11", zigzag=zigzag, extra=("consol_proxy",))
    features = relativity11(*prices_of(frame), starts, zigzag=zigzag)
    assert largest_difference(table, np.column_stack([features, consol_proxy(features)])) < 1e-6
    assert list(table.names)[-1] == "consol_proxy"


@pytest.mark.parametrize("spread", [1e-4, 0.01, 0.2])
def test_log_returns_of_small_and_large_steps(spread):
    # steps up to 4 % follow a short series, larger ones the logarithm itself
    generator = np.random.default_rng(17)
    close = 15_000.0 * np.exp(np.cumsum(generator.normal(0, spread, 400)))
    table = build_features(frame_of(close, close, close, close), feature_set="relative_transform11")
    expected = np.array([0.0, *(math.log(b / a) for a, b in itertools.pairwise(close))])
    np.testing.assert_allclose(table.values[:, 3], expected, rtol=1e-7, atol=1e-12)


def test_ohlc4_is_the_raw_prices():
    frame, _ = sample_frame()
    table = build_features(frame, feature_set="ohlc4")
    assert np.array_equal(table.values, np.column_stack(prices_of(frame)).astype(np.float32))


def test_relativity11_names():
    frame, _ = sample_frame()
    assert list(build_features(frame, feature_set="relativity11", zigzag="primary").names) == [
        "open_norm",
        "close_norm",
        "body_pct",
        "upper_wick_pct",
        "lower_wick_pct",
        "range_z",
        "dist_to_prev_SH",
        "dist_to_prev_SL",
        "bars_since_SH_norm",
        "bars_since_SL_norm",
        "expansion_proxy",
    ]


@pytest.mark.parametrize("feature_set", ["relativity11", "relative_transform11"])
def test_first_rows_of_each_segment_are_not_valid(feature_set):
    frame, starts = sample_frame()
    expected = np.ones(len(frame), dtype=bool)
    for first, end in zip(starts, [*starts[1:], len(frame)], strict=True):
        expected[first : min(first + WARM_UP_BARS, end)] = False
    assert np.array_equal(build_features(frame, feature_set=feature_set).is_valid, expected)


# Six bars by hand. Ranges 3, 2, 2, 0, 8, 7; their EMA (2/21 of the new one, 19/21 of the old) is
#   3, 61/21, 1243/441, 23617/9261, 596899/194481, 14063815/4084101.
# True ranges from bar 1 on: 2, 2, 0, 9 (|95 - 104|), 7; their mean so far, the ATR: 2, 2, 4/3, 13/4, 4.
HAND_BARS = [
    (100, 102, 99, 101),
    (101, 103, 101, 102),
    (102, 104, 102, 104),
    (104, 104, 104, 104),
    (103, 103, 95, 96),
    (96, 97, 90, 91),
]
# open_norm, close_norm, body_pct, upper_wick_pct, lower_wick_pct, range_z
HAND_SHAPES = [
    (1 / 3, 2 / 3, 1 / 3, 1 / 3, 1 / 3, 1),
    (0, 1 / 2, 1 / 2, 1 / 2, 0, 42 / 61),
    (0, 1, 1, 0, 0, 882 / 1243),
    (0, 0, 0, 0, 0, 0),
    (1, 1 / 8, -7 / 8, 0, 1 / 8, 1555848 / 596899),
    (6 / 7, 1 / 7, -5 / 7, 1 / 7, 1 / 7, 28588707 / 14063815),
]
# dist_to_prev_SH, dist_to_prev_SL, bars_since_SH_norm, bars_since_SL_norm, expansion_proxy
HAND_SWINGS = {
    # The up leg's extreme is 102 (bar 1), then 104 (bar 2). Bar 4 retraces 8 < 3 * 13/4; bar 5 retraces 13 >= 3 * 4,
    # so 104 becomes the swing high three bars back, at (104 - 91) / (3 * 4), and the leg turns down.
    # The proxy of bar 4, -7/8 * 2.607 = -2.281, is clipped.
    "primary": [
        (0, 0, 3, 3, 0),
        (0, 0, 3, 3, 21 / 61),
        (0, 0, 3, 3, 882 / 1243),
        (0, 0, 3, 3, 0),
        (0, 0, 3, 3, -2),
        (13 / 12, 0, 3 / 105, 3, 5 / 7 * 28588707 / 14063815),
    ],
    # Bar 2: its low is 2 >= 0.5 * 2 under the candidate 104, its own high: swing high 104 (bar 2), extreme 102.
    # Bar 3: the close is 2 >= 1.2 * 4/3 above 102: swing low 102 (bar 2), extreme 104.
    # Bar 4: the close is 8 >= 1.2 * 13/4 under 104: swing high 104 (bar 3), extreme 95.
    # Bar 5: the low is 90, the high 7 >= 0.5 * 4 above it: swing low 90 (bar 5); 13/4 to the high is clipped at 3.
    "legacy": [
        (0, 0, 0, 0, 0),
        (0, 0, 0, 0, 21 / 61),
        (0, 0, 0, 0, -882 / 1243),
        (0, 3 / 2, 1 / 105, 1 / 105, 0),
        (32 / 13, -24 / 13, 1 / 105, 2 / 105, 2),
        (3, 1 / 4, 2 / 105, 0, -5 / 7 * 28588707 / 14063815),
    ],
}


@pytest.mark.parametrize("zigzag", ZIGZAGS)
def test_six_bars_by_hand(zigzag):
    prices = np.array(HAND_BARS, dtype=np.float64).T
    expected = np.column_stack([HAND_SHAPES, HAND_SWINGS[zigzag]])
    np.testing.assert_allclose(relativity11(*prices, [0], zigzag=zigzag), expected, rtol=0, atol=1e-12)
    table = build_features(frame_of(*prices), feature_set="relativity11", zigzag=zigzag)
    assert largest_difference(table, expected) < 1e-6


def test_old_legacy_candidate_waits_for_the_close():
    # Bars of one price, in ticks. At bar 8 the candidate (39, bar 2) is six bars old, so 5 >= 0.5 * 44/8 does not
    # count and 5 < 1.2 * 44/8 is too little; at bar 9 the close is 6 under it, exactly 1.2 * 45/9: swing high.
    ticks = np.array([0, 0, 39, 39, 39, 39, 39, 39, 34, 33])
    prices = [15_000.0 + ticks * 0.25] * 4
    assert swing_flips(*prices, [0], zigzag="legacy") == [False] * 9 + [True]
    expected = np.zeros((10, 11))
    expected[9, 6:10] = [1.2, 0, 7 / 105, 0]
    table = build_features(frame_of(*prices), feature_set="relativity11", zigzag="legacy")
    assert largest_difference(table, expected) < 1e-6


def test_two_bars_of_relative_transform11_by_hand():
    prices = np.array(HAND_BARS[:2], dtype=np.float64).T
    # Each series rises, so its z-score after two bars is half the step over half the step: 1.
    expected = np.array(
        [
            [0, 0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0],
            [*(math.log(ratio) for ratio in (101 / 100, 103 / 102, 101 / 99, 102 / 101)), 0.5, 0.5, 0, 1, 1, 1, 1],
        ]
    )
    np.testing.assert_allclose(relative_transform11(*prices, [0]), expected, rtol=0, atol=1e-7)
    table = build_features(frame_of(*prices), feature_set="relative_transform11")
    assert largest_difference(table, expected) < 1e-6


def test_share_of_bars_that_confirm_a_swing():
    # Found on this walk: legacy 98.8%, primary 4.6% (k = 1.2: 18.3%, k = 5: 1.8%); the notes say about 98% and 5%.
    prices = random_walk_prices(4000, seed=0)
    assert np.mean(swing_flips(*prices, [0], zigzag="legacy")) > 0.9
    assert 0.02 < np.mean(swing_flips(*prices, [0], zigzag="primary")) < 0.12
