"""The oracle is exact: it agrees with enumeration, with its own claims, and with the figures of the reference law."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from benchmarks.oracle_numpy import span_posterior
from moola_lib.errors import UserError
from moola_lib.evaluation import decisions, oracle
from moola_lib.evaluation import likelihoods as densities
from moola_lib.market import NQ_LIKE, REFERENCE, simulate_bars, simulate_windows

SMALL = replace(
    REFERENCE, drift=0.5, n_grid=3, window_bars=8, start_low_bars=4, start_high_bars=5, length_low_bars=2,
    length_high_bars=5, state_low_bars=2, state_high_bars=3,
)  # fmt: skip


def figures(known, start, end, state=None):
    scores = decisions.score_windows(known, start, end, state)
    return {name: above.sum() / below.sum() for name, (above, below) in scores.items()}


def enumerate_spans(likelihoods, law):
    """Sum over every path of the chain, for every span, direction and state: slow and obvious."""
    outside, inside = likelihoods.outside[0], likelihoods.inside[0]
    n_bars, n_grid = outside.shape
    paths = np.array(list(product(range(n_grid), repeat=n_bars)))
    chance = law.stationary[paths[:, 0]] * np.prod(law.transition[paths[:, :-1], paths[:, 1:]], axis=1)
    bars = np.arange(n_bars)

    def evidence(regimes):
        """Regimes: one log-likelihood table (K, G) a bar."""
        table = np.stack([regimes[t][t] for t in bars])
        return float((chance * np.exp(table[bars, paths].sum(axis=1))).sum())

    span, state = np.zeros((len(law.starts), n_bars)), np.zeros(2)
    for row, start in enumerate(law.starts):
        for length in law.lengths:
            end = min(start + length, n_bars) - 1
            for direction in (0, 1):
                rest = [inside[direction]] * (end - start + 1) + [outside] * (n_bars - 1 - end)
                if likelihoods.before is None:
                    span[row, end] += evidence([outside] * start + rest)
                    continue
                for kind, share in ((0, law.consolidation_share), (1, 1 - law.consolidation_share)):
                    before = likelihoods.before[0, 0 if kind == 0 else 1 + direction]
                    for state_bars in range(law.state_low_bars, law.state_high_bars + 1):
                        n_before = state_bars - 1
                        regimes = [outside] * (start - n_before) + [before] * n_before + rest
                        found = share * evidence(regimes)
                        span[row, end] += found
                        state[kind] += found
    none = evidence([outside] * n_bars)
    n_hypotheses = len(law.starts) * len(law.lengths) * 2
    if likelihoods.before is not None:
        n_hypotheses *= law.state_high_bars - law.state_low_bars + 1
    return span / span.sum(), state / max(state.sum(), 1e-300), np.log(span.sum() / n_hypotheses / none)


def test_bare_posterior_equals_the_sum_over_every_path():
    windows = simulate_windows(3, seed=1, law=SMALL)
    for row in range(3):
        likelihoods = densities.bare_log_likelihoods(windows.log_return[[row]], windows.log_range[[row]], SMALL)
        known = oracle.posterior(likelihoods)
        span, _, log_bayes_factor = enumerate_spans(likelihoods, SMALL)
        np.testing.assert_allclose(known.span[0], span, atol=1e-12)
        assert known.log_bayes_factor[0] == pytest.approx(log_bayes_factor, abs=1e-9)
        assert known.state is None


@pytest.mark.parametrize("shock_df", [None, 5.0])
def test_bar_posterior_equals_the_sum_over_every_path(shock_df):
    law = replace(SMALL, shock_df=shock_df)
    rng = np.random.default_rng(3)
    moves = 3e-4 * rng.standard_normal((1, 8))
    wicks = 2e-4 * np.abs(rng.standard_normal((2, 1, 8)))
    likelihoods = densities.bar_log_likelihoods(moves, *wicks, np.full((1, 8), 3e-4), law)
    known = oracle.posterior(likelihoods)
    span, state, log_bayes_factor = enumerate_spans(likelihoods, law)
    np.testing.assert_allclose(known.span[0], span, atol=1e-12)
    np.testing.assert_allclose(known.state[0], state, atol=1e-12)
    assert known.log_bayes_factor[0] == pytest.approx(log_bayes_factor, abs=1e-9)


def test_densities_integrate_to_one():
    law = replace(NQ_LIKE, drift=0.5)
    x = np.linspace(-400, 400, 400_001)
    step = x[1] - x[0]
    move = np.exp(densities._log_move(x[:, None], np.zeros(1), 0.5, law))[:, 0]
    assert move.sum() * step == pytest.approx(1, abs=1e-4)
    assert (move * (x - 0.5) ** 2).sum() * step == pytest.approx(1, abs=0.01)  # variance 1 around its mean
    up = np.linspace(0, 20, 20_001)[None]
    alone = densities.bar_log_likelihoods(np.zeros_like(up), up, np.zeros_like(up), np.ones_like(up), law).outside
    at_zero = densities.bar_log_likelihoods(*[np.zeros((1, 1))] * 3, np.ones((1, 1)), law).outside
    wick = np.exp(alone - at_zero)[0, :, 10] * np.sqrt(2 / np.pi) / law.wick_ratio
    assert wick.sum() * (up[0, 1] - up[0, 0]) == pytest.approx(1, abs=1e-3)


def test_whole_windows_agree_with_plain_numpy():
    law = replace(REFERENCE, drift=0.3)
    windows = simulate_windows(3, seed=6, law=law)
    likelihoods = densities.bare_log_likelihoods(windows.log_return, windows.log_range, law)
    slow = [span_posterior(likelihoods.outside[row], likelihoods.inside[row], law) for row in range(3)]
    np.testing.assert_allclose(oracle.posterior(likelihoods).span, slow, atol=1e-12)


def test_marginals_agree_with_the_spans():
    windows = simulate_windows(4, seed=2)
    known = oracle.posterior(densities.bare_log_likelihoods(windows.log_return, windows.log_range, REFERENCE))
    np.testing.assert_allclose(known.span.sum(axis=(1, 2)), 1)
    np.testing.assert_allclose([known.start.sum(axis=1), known.end.sum(axis=1)], 1)
    bars = np.arange(105)
    slow = np.zeros((4, 105))
    for row, start in enumerate(known.starts):
        for end in range(start, 105):
            slow += known.span[:, row, end, None] * ((bars >= start) & (bars <= end))
    np.testing.assert_allclose(known.inside, slow, atol=1e-12)
    assert not known.start[:, :30].any() and not known.start[:, 75:].any()


def test_a_posterior_that_is_sure_is_right():
    span = np.zeros((1, 45, 105))
    span[0, 20, 61] = 1.0  # start 50, end 61
    known = oracle.Posterior(span, np.array([[0.0, 1.0]]), REFERENCE.starts, np.zeros(1))
    found = figures(known, np.array([50]), np.array([61]), np.array([1]))
    assert found == {
        "hit3_start": 1, "hit3_end": 1, "joint3": 1, "inside_f1": 1, "countdown_mae": 0, "type_accuracy": 1,
    }  # fmt: skip
    off = figures(known, np.array([54]), np.array([61]), np.array([0]))
    assert off["hit3_start"] == off["joint3"] == off["type_accuracy"] == 0 and off["hit3_end"] == 1
    assert 0 < off["inside_f1"] < 1 and 0 < off["countdown_mae"] <= 4


def test_the_box_decision_prefers_mass_to_the_mode():
    span = np.zeros((1, 45, 105))
    span[0, 0, 40] = 0.3  # the single likeliest span stands alone
    span[0, 20:24, 60] = 0.175  # four neighbours hold more
    known = oracle.Posterior(span, None, REFERENCE.starts, np.zeros(1))
    start, end = decisions.best_span(known)
    assert 50 <= start[0] <= 53 and 57 <= end[0] <= 63
    assert 50 <= decisions.best_start(known)[0] <= 53


def test_claimed_probability_is_what_comes_true():
    law = replace(REFERENCE, strength=1.5)
    windows = simulate_windows(600, seed=11, law=law)
    known = oracle.posterior(densities.bare_log_likelihoods(windows.log_return, windows.log_range, law))
    chosen = decisions.best_start(known)
    claimed = decisions.hit_probability(known)
    is_hit = np.abs(chosen - windows.start) <= 3
    for part in np.array_split(np.argsort(claimed), 4):
        spread = np.sqrt((claimed[part] * (1 - claimed[part])).sum()) / len(part)
        assert is_hit[part].mean() == pytest.approx(claimed[part].mean(), abs=3.5 * spread)
    inside = known.inside.ravel()
    truth = ((np.arange(105) >= windows.start[:, None]) & (np.arange(105) <= windows.end[:, None])).ravel()
    for part in np.array_split(np.argsort(inside), 5):
        assert truth[part].mean() == pytest.approx(inside[part].mean(), abs=0.03)


def test_the_bar_generators_oracle_is_calibrated_too():
    market = simulate_bars(n_sessions=60, seed=12, strength=1.5)
    likelihoods, start, _, state = densities.market_windows(market)
    known = oracle.posterior(likelihoods)
    chosen = decisions.best_start(known)
    claimed = decisions.hit_probability(known)
    spread = np.sqrt((claimed * (1 - claimed)).sum()) / len(known)
    assert (np.abs(chosen - start) <= 3).mean() == pytest.approx(claimed.mean(), abs=3.5 * spread)
    sure = known.state.max(axis=1)
    spread = np.sqrt((sure * (1 - sure)).sum()) / len(known)
    assert (known.state.argmax(axis=1) == state).mean() == pytest.approx(sure.mean(), abs=3.5 * spread)


def test_on_the_null_market_the_oracle_knows_nothing():
    law = replace(NQ_LIKE, has_states=False)
    market = simulate_bars(n_sessions=10, seed=4, strength=1.0, law=law)
    likelihoods, start, end, _ = densities.market_windows(market)
    known, blind = oracle.posterior(likelihoods), oracle.prior(market.law, len(start))
    np.testing.assert_allclose(known.span, blind.span, atol=1e-9)
    np.testing.assert_allclose(known.log_bayes_factor, 0, atol=1e-9)
    # equal but for ties, which rounding breaks
    assert figures(known, start, end)["hit3_start"] == pytest.approx(7 / 45, abs=0.14)
    assert figures(known, start, end)["countdown_mae"] == pytest.approx(figures(blind, start, end)["countdown_mae"])


def test_ordinary_tape_speaks_against_an_expansion():
    law = replace(REFERENCE, strength=3.0)
    with_one = simulate_windows(50, seed=7, law=law)
    without = simulate_windows(50, seed=7, law=replace(law, strength=1.0))
    known = [
        oracle.posterior(densities.bare_log_likelihoods(windows.log_return, windows.log_range, law)).log_bayes_factor
        for windows in (with_one, without)
    ]
    assert np.median(known[0]) > 5 and np.median(known[1]) < 0


def test_a_missing_value_is_a_sentence():
    windows = simulate_windows(2, seed=2)
    log_return = windows.log_return.copy()
    log_return[1, 50] = np.nan
    with pytest.raises(UserError, match="window 1 is impossible"):
        oracle.posterior(densities.bare_log_likelihoods(log_return, windows.log_range, REFERENCE))


def test_a_market_without_expansions_is_a_sentence():
    with pytest.raises(UserError, match="nothing is planted"):
        densities.market_windows(simulate_bars(n_sessions=1, expansions_per_session=0))


def test_attainable_skill_is_a_share_of_the_room():
    assert decisions.attainable_skill(0.6, 0.2, 1.0) == pytest.approx(0.5)
    assert decisions.attainable_skill(2.0, 4.0, 1.0) == pytest.approx(2 / 3)  # smaller is better: the same formula
    assert np.isnan(decisions.attainable_skill(0.3, 0.2, 0.22))
    np.testing.assert_allclose(decisions.attainable_skill(np.array([0.2, 1.0]), 0.2, 1.0), [0, 1])


REFERENCE_FIGURES = {1.5: (0.61, 0.38), 2.0: (0.88, 0.79), 3.0: (0.99, 0.98)}


@pytest.mark.slow
@pytest.mark.parametrize("strength", REFERENCE_FIGURES)
def test_the_reference_figures_are_reproduced(strength):
    law = replace(REFERENCE, strength=strength)
    windows = simulate_windows(4000, seed=17, law=law)  # sd of a share: .008
    known = oracle.posterior(densities.bare_log_likelihoods(windows.log_return, windows.log_range, law))
    found = figures(known, windows.start, windows.end)
    hit, joint = REFERENCE_FIGURES[strength]
    assert found["hit3_start"] == pytest.approx(hit, abs=0.04)
    assert found["joint3"] == pytest.approx(joint, abs=0.04)
