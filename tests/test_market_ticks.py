"""The tick of a series is found, and what lies off it is counted."""

import numpy as np
import pandas as pd
import pytest
from vendor_files import facts

from moola_lib.market.bars import clean_bars
from moola_lib.market.ticks import count_off_tick, find_tick


@pytest.mark.parametrize(
    ("prices", "tick"),
    [
        ([18000.25, 18001.5, 18003.75], 0.25),
        ([4001.2, 4001.4, 4003.8], 0.2),
        ([130.01, 131.02, 130.53], 0.01),
        ([112.015625, 112.03125, 113.0], 2.0**-6),
        (list(np.float32([495.76, 496.02, 495.54]).astype(float)), 0.02),
        ([20000 / 7, 20000 / 3, 20000 / 11], None),
    ],
)
def test_the_tick_is_the_largest_step_that_fits(prices, tick):
    prices = np.array(prices)
    assert find_tick(prices) == tick
    if tick:
        assert count_off_tick(prices, tick) == 0
        assert count_off_tick(prices + tick / 2, tick) == len(prices)


def test_few_prices_off_the_tick_do_not_hide_it(plain_frame):
    frame = pd.concat([plain_frame.shift(freq=f"{40 * k}min") for k in range(10)])
    frame.iloc[7, 3] = frame.iloc[7, 2] + 0.01
    found = facts(clean_bars(frame, source="test"))
    assert found["tick size (points)"] == "0.25" and found["prices off the tick"] == "1 of 1,600"
