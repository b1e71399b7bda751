"""A control series for pre-training: the same numbers and the same spectrum, in an order that means nothing."""

from dataclasses import replace

import numpy as np

SHORTEST_BARS = 8  # fewer valid bars have no phases worth the name


def shuffle_phases(table, seed, *, is_amplitude_adjusted=True):
    """Return a feature table whose segments have random Fourier phases.

    What an encoder could learn from linear correlations in time and between
    features is still there; runs of lively bars, swings and all else that
    needs the phases is gone.

    Parameters
    ----------
    table : FeatureTable
    seed : int
    is_amplitude_adjusted : bool
        True: each segment and feature holds exactly its own values in another
        order, and its power spectrum is about the same. False: the power
        spectra and the correlations between features are exactly the same, and
        values are about normal, some outside their feature's range.

    Returns
    -------
    FeatureTable
        Rows that are not valid are as they were; `is_flip` is False.

    Notes
    -----
    Theiler et al. 1992, Physica D 58, 77-94: phase-randomised surrogates, and
    amplitude-adjusted ones. One vector of phases for all features keeps
    their cross-spectra (Prichard and Theiler 1994, arXiv:comp-gas/9405002).
    """
    rng = np.random.default_rng(seed)
    values = np.array(table.values)
    for first, last in zip(table.starts, [*table.starts[1:], len(table)], strict=True):
        rows = first + np.flatnonzero(table.is_valid[first:last])
        if len(rows) < SHORTEST_BARS:
            continue
        x = values[rows].astype(np.float64)
        if is_amplitude_adjusted:
            normal = _with_values_of(rng.standard_normal(x.shape), _ranks(x, rng))
            values[rows] = _with_values_of(x, _ranks(_randomise_phases(normal, rng), rng))
        else:
            values[rows] = _randomise_phases(x, rng)
    return replace(
        table, values=values, is_flip=np.zeros(len(table), bool), set_id=f"{table.set_id}/phases shuffled, seed {seed}"
    )


def _randomise_phases(x, rng):
    """Return columns with the same power spectra, all turned by the same random phases, (time, feature)."""
    spectrum = np.fft.rfft(x, axis=0)
    phases = rng.uniform(0, 2 * np.pi, len(spectrum))
    phases[0] = 0.0  # the mean
    if len(x) % 2 == 0:
        phases[-1] = 0.0  # the highest frequency is real
    return np.fft.irfft(spectrum * np.exp(1j * phases)[:, None], n=len(x), axis=0)


def _ranks(x, rng):
    """Return each value's rank in its column, ties in random order, (time, feature) int64."""
    order = rng.permutation(len(x))
    ranks = np.empty(x.shape, np.int64)
    ranks[order] = x[order].argsort(axis=0, kind="stable").argsort(axis=0)
    return ranks


def _with_values_of(x, ranks):
    """Return the values of each column in the order of the ranks."""
    return np.take_along_axis(np.sort(x, axis=0), ranks, axis=0)
