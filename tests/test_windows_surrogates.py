"""Phase-shuffled series keep what they promise to keep, and lose what they are there to lose."""

from dataclasses import replace

import numpy as np
import pytest

from moola_lib.windows.gather import WindowGatherer
from moola_lib.windows.surrogates import shuffle_phases

N = 4096


@pytest.fixture(scope="module")
def clustered(table):
    """A table of one segment: returns with clustered volatility, a slow wave, and their sum."""
    rng = np.random.default_rng(1)
    log_volatility = np.zeros(N)
    for t in range(1, N):
        log_volatility[t] = 0.97 * log_volatility[t - 1] + 0.25 * rng.standard_normal()
    returns = np.exp(log_volatility) * rng.standard_normal(N)
    wave = np.convolve(rng.standard_normal(N + 30), np.ones(31) / 31, mode="valid")
    values = np.stack([returns, wave, returns + 5 * wave], axis=1).astype(np.float32)
    parts = {"values": values, "is_valid": np.ones(N, bool), "starts": np.zeros(1, np.int64), "names": ("r", "w", "s")}
    return replace(table, **parts, ranges=table.ranges[:3], is_flip=np.zeros(N, bool))


def spectrum(values):
    return np.abs(np.fft.rfft(values.astype(np.float64), axis=0))


def autocorrelation(x, lag):
    x = x - x.mean()
    return (x[lag:] * x[:-lag]).mean() / (x**2).mean()


def test_plain_surrogates_have_the_same_spectra_and_correlations(clustered):
    shuffled = shuffle_phases(clustered, 3, is_amplitude_adjusted=False)
    np.testing.assert_allclose(spectrum(shuffled.values), spectrum(clustered.values), rtol=2e-3, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(shuffled.values.T), np.corrcoef(clustered.values.T), atol=1e-4)
    assert abs(np.corrcoef(shuffled.values[:, 0], clustered.values[:, 0])[0, 1]) < 0.1


def test_adjusted_surrogates_hold_the_same_values_in_another_order(clustered):
    shuffled = shuffle_phases(clustered, 3)
    np.testing.assert_array_equal(np.sort(shuffled.values, axis=0), np.sort(clustered.values, axis=0))
    assert (shuffled.values != clustered.values).mean() > 0.99


def test_adjusted_surrogates_keep_the_shape_of_the_spectrum(clustered):
    shuffled = shuffle_phases(clustered, 3)
    for lag in (1, 5, 15):
        expected = autocorrelation(clustered.values[:, 1], lag)
        assert autocorrelation(shuffled.values[:, 1], lag) == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize("is_adjusted", [True, False])
def test_clustered_volatility_is_gone(clustered, is_adjusted):
    shuffled = shuffle_phases(clustered, 3, is_amplitude_adjusted=is_adjusted)
    sizes = [np.abs(each.values[:, 0]) for each in (clustered, shuffled)]
    before, after = ([autocorrelation(size, lag) for lag in (1, 5, 10)] for size in sizes)
    assert min(before) > 0.15
    assert max(np.abs(after)) < 0.06


def test_segments_are_shuffled_within_themselves_and_invalid_rows_stay(table):
    shuffled = shuffle_phases(table, 3)
    np.testing.assert_array_equal(shuffled.values[~table.is_valid], table.values[~table.is_valid])
    for first, last in zip(table.starts, [*table.starts[1:], len(table)], strict=True):
        np.testing.assert_array_equal(
            np.sort(shuffled.values[first:last], axis=0), np.sort(table.values[first:last], axis=0)
        )


def test_equal_seeds_give_equal_series_and_the_input_is_left_alone(table):
    before = table.values.copy()
    one, two, other = (shuffle_phases(table, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.values, two.values)
    assert not np.array_equal(one.values, other.values)
    np.testing.assert_array_equal(table.values, before)


def test_a_surrogate_is_gathered_like_any_table_and_says_what_it_is(table):
    shuffled = shuffle_phases(table, 3)
    assert shuffled.set_id == f"{table.set_id}/phases shuffled, seed 3" and not shuffled.is_flip.any()
    assert shuffled.values.dtype == np.float32 and WindowGatherer(shuffled).n_features == table.n_features


def test_a_segment_of_a_few_bars_is_left_as_it_is(clustered):
    short = replace(clustered, starts=np.array([0, N - 5]))
    np.testing.assert_array_equal(shuffle_phases(short, 3).values[-5:], clustered.values[-5:])
