"""A distribution over (start, end) as an array: its marginals, its boxes, its intervals.

An array (n, K, K) holds each window's probability of every (start, end), a
model's or the oracle's. Where a model also grants "no expansion", the array
sums to less than 1; everything here is given that there is one.
"""

import numpy as np


def start_marginal(span):
    """Return the probability of a start at each bar, (n, K) float64, given that there is one.

    Parameters
    ----------
    span : ndarray (n, K, K)
        Probability of each (start, end).
    """
    return _normalised(span.sum(axis=2, dtype=np.float64))


def end_marginal(span):
    """Return the probability of an end at each bar, (n, K) float64, given that there is one."""
    return _normalised(span.sum(axis=1, dtype=np.float64))


def full_span(known):
    """Return an oracle's posterior as an array over all bars, (n, K, K) float32.

    Parameters
    ----------
    known : oracle.Posterior
    """
    n, _, n_bars = known.span.shape
    found = np.zeros((n, n_bars, n_bars), np.float32)
    found[:, known.starts] = known.span
    return found


def box_mass(mass, reach_bars, axis=-1):
    """Return the mass within `reach_bars` of each bar along an axis, the shape of `mass`, float64."""
    mass = np.moveaxis(mass, axis, -1)
    n_bars = mass.shape[-1]
    total = np.concatenate([np.zeros((*mass.shape[:-1], 1)), np.cumsum(mass, axis=-1, dtype=np.float64)], axis=-1)
    at = np.arange(n_bars)
    box = total[..., np.minimum(at + reach_bars + 1, n_bars)] - total[..., np.maximum(at - reach_bars, 0)]
    return np.moveaxis(box, -1, axis)


def best_start_then_end(span, reach_bars, first_start=0):
    """Return the start of the heaviest box, and the end of the heaviest box with that start.

    Parameters
    ----------
    span : ndarray (n, n_starts, K)
    reach_bars : int
        A box reaches this far to either side, as the hit that is rewarded does.
    first_start : int
        Bar of the first row of starts.

    Returns
    -------
    start, end : ndarray (n,), int64
        0 ≤ start ≤ end < K.
    """
    n, n_starts, n_bars = span.shape
    mass = np.zeros((n, n_bars))
    mass[:, first_start : first_start + n_starts] = span.sum(axis=2, dtype=np.float64)
    start = box_mass(mass, reach_bars).argmax(axis=1)
    return start, best_end_of(span, start, reach_bars, first_start)


def best_end_of(span, start, reach_bars, first_start=0):
    """Return the end of the heaviest box with the given start, (n,) int64; see `best_start_then_end`."""
    n_starts, n_bars = span.shape[1:]
    near = np.abs(first_start + np.arange(n_starts) - start[:, None]) <= reach_bars
    mass = box_mass(np.einsum("nse,ns->ne", span, near.astype(span.dtype)), reach_bars)
    mass[np.arange(n_bars) < start[:, None]] = -1.0
    return mass.argmax(axis=1)


def claimed_mass(start_probability, start, reach_bars):
    """Return the probability that the answer `start` is within reach, (n,) float64: the hit it claims.

    Parameters
    ----------
    start_probability : ndarray (n, K)
    start : ndarray (n,)
        Answers in bars.
    reach_bars : int
    """
    near = np.abs(np.arange(start_probability.shape[1]) - np.asarray(start)[:, None]) <= reach_bars
    return np.clip((start_probability * near).sum(axis=1), 0.0, 1.0)


def central_interval(start_probability, mass=0.80):
    """Return first and last bar of the central interval, two (n,) int64: at least `mass` lies inside.

    Parameters
    ----------
    start_probability : ndarray (n, K)
        Rows sum to 1.
    mass : float
    """
    below = np.cumsum(start_probability, axis=1, dtype=np.float64)
    tail = (1 - mass) / 2
    # a bar is left out below only while the mass up to and with it is within the tail
    return (below > tail + 1e-9).argmax(axis=1), (below >= 1 - tail - 1e-9).argmax(axis=1)


def _normalised(mass):
    """Return rows that sum to 1; a row without mass stays as it is."""
    total = mass.sum(axis=1, keepdims=True)
    return mass / np.where(total > 0, total, 1.0)
