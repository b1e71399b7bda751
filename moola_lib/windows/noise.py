"""Random numbers that belong to a window: functions of a key and its place, whatever batch or process draws them.

Counter-based generation (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3"): no state is kept, saved or handed on. The mixing function is that
of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195).
"""

import math

import torch

GOLDEN = 0x9E3779B97F4A7C15  # 2 ** 64 / golden ratio, odd: its multiples visit every 64-bit number
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
N_BITS = 24  # of a uniform: what float32 holds without rounding


def window_uniforms(key, places, n):
    """Return uniform numbers of windows.

    Parameters
    ----------
    key : sequence of int
        What tells one use from every other: seed, epoch, kind of draw.
    places : Tensor (batch,), int64
        First bars of the windows, on the device that draws.
    n : int
        Numbers for each window.

    Returns
    -------
    Tensor (batch, n), float32
        In [0, 1), in steps of 2 ** -24.
    """
    return (_words(key, places, n) >> (64 - N_BITS) & (1 << N_BITS) - 1).float() * 2.0**-N_BITS


def window_normals(key, places, n):
    """Return standard normal numbers of windows, by Box and Muller from two uniforms.

    Parameters
    ----------
    key, places, n
        As of `window_uniforms`.

    Returns
    -------
    Tensor (batch, n), float32
        Within ±5.8, as 24 bits allow.
    """
    words = _words(key, places, (n + 1) // 2)
    # of one word, the highest bits give the radius and the next the angle; never 0, whose logarithm is infinite
    first = ((words >> (64 - N_BITS) & (1 << N_BITS) - 1) + 1).float() * 2.0**-N_BITS
    angle = (words >> (64 - 2 * N_BITS) & (1 << N_BITS) - 1).float() * (2 * math.pi * 2.0**-N_BITS)
    radius = first.log_().mul_(-2).sqrt_()
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :n]


def _words(key, places, n):
    """Return 64 random bits for each of n numbers of each window, (batch, n) int64."""
    start = 0
    for number in key:
        start = _mix_integer(start + GOLDEN + number)
    keys = _mix(places * _signed(GOLDEN) + _signed(start))
    steps = torch.arange(1, n + 1, device=places.device) * _signed(GOLDEN)
    return _mix(keys[:, None] + steps)


def _mix(z):
    """Scramble 64-bit numbers in place: every bit of the result depends on all bits."""
    for shift, factor in MIX:
        z.bitwise_xor_(_shift_right(z, shift)).mul_(_signed(factor))
    return z.bitwise_xor_(_shift_right(z, 31))


def _shift_right(z, n):
    """Shift without the sign, which `>>` would copy into the freed bits."""
    return (z >> n).bitwise_and_((1 << (64 - n)) - 1)


def _mix_integer(z):
    """Scramble one integer as `_mix` does."""
    z %= 2**64
    for shift, factor in MIX:
        z = (z ^ z >> shift) * factor % 2**64
    return z ^ z >> 31


def _signed(z):
    """Return the int64 that has the bits of a 64-bit number."""
    return z - 2**64 if z >= 2**63 else z
