"""Numbers that belong to a window: independent of batch and order, uniform, normal, and unlike each other."""

import numpy as np
import pytest
import torch

from moola_lib.windows.noise import window_normals, window_uniforms

KEY = (17, 0, 3)
PLACES = torch.arange(4000)
DRAWS = {"uniforms": window_uniforms, "normals": window_normals}


@pytest.fixture(params=DRAWS)
def draw(request):
    return DRAWS[request.param]


@pytest.mark.parametrize("n", [1, 2, 105, 1155])
@pytest.mark.parametrize("split", [1, 2, 5, 64])
def test_a_windows_numbers_are_the_same_in_any_batch(draw, n, split):
    places = torch.tensor([0, 1, 99_999, 1_799_895, 7, 3_000_000_000] * 20)
    whole = draw(KEY, places, n)
    assert whole.shape == (120, n) and whole.dtype == torch.float32
    assert torch.equal(whole, torch.cat([draw(KEY, part, n) for part in places.split(split)]))
    assert torch.equal(whole[:6], whole[6:12])


def test_the_bits_are_those_of_splitmix64():
    """Its definition in Python's integers, seeded as a window is."""

    def mix(z):
        z %= 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    golden, start = 0x9E3779B97F4A7C15, 0
    for number in KEY:
        start = mix(start + golden + number)
    words = [mix(mix(start + 5 * golden) + step * golden) for step in (1, 2, 3)]
    assert window_uniforms(KEY, torch.tensor([5]), 3).tolist() == [[(word >> 40) * 2.0**-24 for word in words]]


def test_uniforms_fill_their_interval_evenly():
    drawn = window_uniforms(KEY, PLACES, 200).double()
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = torch.histc(drawn, bins=100, min=0, max=1)
    assert float(((counts - 8000) ** 2 / 8000).sum()) < 150  # chi-squared of 99 degrees: 0.999 quantile is 148
    lowest_bits = (drawn * 2**24).long() % 16
    assert float(((torch.bincount(lowest_bits.flatten()) - 50_000.0) ** 2 / 50_000).sum()) < 38  # 15 degrees: 37.7


def test_normals_have_the_moments_of_a_normal():
    drawn = window_normals(KEY, PLACES, 200).double().flatten()
    moments = [float((drawn**k).mean()) for k in range(1, 7)]
    assert moments == pytest.approx([0, 1, 0, 3, 0, 15], abs=0.25)
    assert moments[:4] == pytest.approx([0, 1, 0, 3], abs=0.03)
    quantiles = torch.tensor([0.001, 0.025, 0.5, 0.975, 0.999], dtype=torch.float64)
    found = torch.quantile(drawn, quantiles).numpy()
    np.testing.assert_allclose(found, [-3.090, -1.960, 0, 1.960, 3.090], atol=0.03)
    assert 4.5 < drawn.abs().max() < 5.8


@pytest.mark.parametrize(
    "other",
    [
        {"places": PLACES + 1},
        {"places": PLACES + 4000},
        {"key": (18, 0, 3)},
        {"key": (17, 1, 3)},
        {"key": (17, 0, 4)},
        {"key": (17, 3, 0)},
        {"key": (17, 0, 3, 0)},
        {"key": (0, 17, 3)},
    ],
    ids=str,
)
def test_neighbouring_windows_epochs_uses_and_seeds_are_uncorrelated(draw, other):
    options = {"key": KEY, "places": PLACES, "n": 100}
    one, two = (draw(**changed).double() for changed in (options, options | other))
    for shift in range(3):  # number by number, and against those that follow
        pairs = torch.stack([one[:, : 100 - shift].flatten(), two[:, shift:].flatten()])
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 5 / 4000**0.5 / 10  # 5 standard errors
    assert (one == two).double().mean() < 1e-4


def test_numbers_of_one_window_are_uncorrelated(draw):
    drawn = draw(KEY, PLACES, 101).double()
    matrix = torch.corrcoef(drawn.T) - torch.eye(101)
    assert matrix.abs().max() < 5.5 / 4000**0.5
