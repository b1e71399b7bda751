"""What followed expansions: nothing on a random walk, a drift where one was put in, by hand on a few bars."""

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.evaluation.event_study import event_study

RNG = np.random.default_rng(1)
N_DAYS, BARS_A_DAY = 30, 390


def walk(moves):
    """Bars of whole sessions from one-bar moves, each with a range of 1."""
    close = 10_000 + np.cumsum(moves)
    openings = pd.bdate_range("2024-02-01", periods=N_DAYS) + pd.Timedelta(hours=14, minutes=30)
    stamps = openings.to_numpy()[:, None] + np.arange(BARS_A_DAY) * np.timedelta64(1, "m")
    index = pd.DatetimeIndex(stamps.ravel(), tz="UTC", name="ts")
    frame = pd.DataFrame({"open": close, "high": close + 0.5, "low": close - 0.5, "close": close}, index=index)
    return frame, np.arange(N_DAYS) * BARS_A_DAY


@pytest.fixture
def spans():
    """Expansions of ten bars, one in each half of the day."""
    rng = np.random.default_rng(7)
    at = np.stack([rng.integers(20, 130, N_DAYS), rng.integers(215, 330, N_DAYS)], axis=1)
    first = (np.arange(N_DAYS)[:, None] * BARS_A_DAY + at).ravel()
    return first, first + 9


def test_nothing_follows_on_a_random_walk(spans):
    frame, starts = walk(RNG.normal(0, 1, N_DAYS * BARS_A_DAY))
    table = event_study(frame, starts, *spans)
    assert list(table["horizon"]) == [5, 5, 15, 15, 30, 30] and (table["n_events"] == 60).all()
    assert (table["low"] <= table["difference"]).all() and (table["difference"] <= table["high"]).all()
    assert (table["verdict"] == "INCONCLUSIVE").sum() >= 5


def test_a_drift_onward_is_found_and_one_back_is_its_mirror(spans):
    moves = RNG.normal(0, 1, N_DAYS * BARS_A_DAY)
    side = RNG.choice([-1, 1], len(spans[0]))
    for first, last, s in zip(*spans, side, strict=True):
        moves[first : last + 1] += s
        moves[last + 1 : last + 16] += 0.5 * s
    found = event_study(*walk(moves), *spans).set_index(["figure", "horizon"])
    assert found.loc[("onward", 15), "verdict"] == "BETTER" and found.loc[("size", 15), "verdict"] == "BETTER"
    for last, s in zip(spans[1], side, strict=True):
        moves[last + 1 : last + 16] -= s
    assert event_study(*walk(moves), *spans).set_index(["figure", "horizon"]).loc[("onward", 15), "verdict"] == "WORSE"


def test_moves_are_in_atr_and_stay_in_their_segment(spans):
    frame, starts = walk(np.full(N_DAYS * BARS_A_DAY, 0.25))
    table = event_study(frame, starts, *spans, horizons=(4,))
    assert table.set_index("figure").loc["onward", "events"] == pytest.approx(4 * 0.25 / 1.0)
    assert (table["difference"].abs() < 1e-9).all()  # a control moves just the same
    late = np.array([BARS_A_DAY - 12]), np.array([BARS_A_DAY - 3])
    with pytest.raises(UserError, match="none of 1 expansions has 30 bars after it"):
        event_study(frame, starts, *late)


def test_equal_seeds_draw_equal_controls(spans):
    frame, starts = walk(RNG.normal(0, 1, N_DAYS * BARS_A_DAY))
    one, two, other = (event_study(frame, starts, *spans, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert not np.array_equal(one["controls"], other["controls"])
