"""The series that benchmarks share, made once a process."""

from functools import cache


@cache
def five_years():
    """Return 1,305 simulated sessions, 1.8 million bars."""
    from moola_lib.market import simulate_bars

    return simulate_bars(n_sessions=1305).bars


@cache
def five_years_of_features():
    """Return the feature table of `five_years`, (1.8 M, 11) float32."""
    from moola_lib.features import build_features

    return build_features(five_years())
