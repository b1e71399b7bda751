"""The exact posterior over (start, end) on a simulated market: the most that any method can know.

Volatility is a Markov chain on a grid, so a window's likelihood under a span is
a forward pass to the span's start, an explicit walk through it, and a backward
pass from its end (an explicit-duration hidden Markov model; Yu 2010, Artificial
Intelligence 174). Nothing is learned and nothing is approximated. What each bar
says is in `likelihoods`; what to answer, knowing the posterior, in `decisions`.
"""

from dataclasses import dataclass

import numba
import numpy as np

from moola_lib.errors import UserError


@dataclass(frozen=True)
class Posterior:
    """Exact posterior of n windows, given that each holds one expansion.

    Attributes
    ----------
    span : ndarray (n, n_starts, K), float64
        Probability of (start, end): starts of `starts`, every end; rows sum to 1.
    state : ndarray (n, 2), float64 or None
        Probability of consolidation and of retracement before it.
    starts : ndarray (n_starts,), int64
        Bars at which an expansion may start.
    log_bayes_factor : ndarray (n,), float64
        Log evidence of one expansion against that of none, in nats.
    """

    span: np.ndarray
    state: np.ndarray | None
    starts: np.ndarray
    log_bayes_factor: np.ndarray

    def __len__(self):
        return len(self.span)

    @property
    def start(self):
        """Probability of a start at each bar, (n, K) float64."""
        found = np.zeros((len(self), self.span.shape[2]))
        found[:, self.starts] = self.span.sum(axis=2)
        return found

    @property
    def end(self):
        """Probability of an end at each bar, (n, K) float64."""
        return self.span.sum(axis=1)

    @property
    def inside(self):
        """Probability that each bar is inside, (n, K) float64."""
        # begun by bar t, less ended before bar t
        begun = np.cumsum(self.start, axis=1)
        ended = np.cumsum(self.end, axis=1)
        return np.clip(begun - ended + self.end, 0.0, 1.0)


def posterior(likelihoods):
    """Return the exact posterior over (start, end), and over the state before, of each window.

    Parameters
    ----------
    likelihoods : likelihoods.LogLikelihoods

    Returns
    -------
    Posterior

    Raises
    ------
    UserError
        A window has likelihood 0 under every span (a value that is not finite).
    """
    law = likelihoods.law
    n, n_bars, _ = likelihoods.outside.shape
    has_states = likelihoods.before is not None
    before = likelihoods.before if has_states else np.zeros((n, 0, 1, 1))
    share = law.consolidation_share
    # every (state, direction): which regime comes before, which inside, and its prior
    pairs = np.array([(0, 0), (0, 1), (1, 0), (2, 1)] if has_states else [(-1, 0), (-1, 1)])
    pair_prior = np.array([share, share, 1 - share, 1 - share] if has_states else [1.0, 1.0]) / 2
    state_bars = np.arange(law.state_low_bars, law.state_high_bars + 1) if has_states else np.zeros(0, np.int64)
    span = np.empty((n, len(law.starts), n_bars))
    by_pair = np.empty((n, len(pairs)))
    log_bayes_factor = np.empty(n)
    _fill_posteriors(
        likelihoods.outside,
        likelihoods.inside,
        before,
        pairs,
        np.log(pair_prior)[:, None, None] + _log_span_prior(law),
        state_bars,
        law.starts,
        law.lengths,
        np.ascontiguousarray(law.transition),
        law.stationary,
        span,
        by_pair,
        log_bayes_factor,
    )
    is_known = np.isfinite(log_bayes_factor)
    if not is_known.all():
        row = int(is_known.argmin())
        raise UserError(f"window {row} is impossible under this law; is a value missing, or the law another one?")
    state = np.stack([by_pair[:, :2].sum(axis=1), by_pair[:, 2:].sum(axis=1)], axis=1) if has_states else None
    return Posterior(span, state, law.starts, log_bayes_factor)


def prior(law, n_windows=1):
    """Return what is known before any bar is seen, as a Posterior: the best constant answers follow from it."""
    span = np.exp(_log_span_prior(law))
    share = law.consolidation_share
    state = np.tile([share, 1 - share], (n_windows, 1)) if law.has_states else None
    return Posterior(np.tile(span, (n_windows, 1, 1)), state, law.starts, np.zeros(n_windows))


def _log_span_prior(law):
    """Return log P(start, end), (n_starts, K) float64; lengths past the window's end are cut there."""
    found = np.zeros((len(law.starts), law.window_bars))
    each = 1 / (len(law.starts) * len(law.lengths))
    for row, start in enumerate(law.starts):
        np.add.at(found[row], np.minimum(start + law.lengths, law.window_bars) - 1, each)
    with np.errstate(divide="ignore"):
        return np.log(found)


@numba.njit(cache=True)
def _fill_posteriors(
    log_outside,
    log_inside,
    log_before,
    pairs,
    log_prior,
    state_bars,
    starts,
    lengths,
    transition,
    stationary,
    span,
    by_pair,
    log_bayes_factor,
):
    """Write P(start, end), P(pair) and the log Bayes factor against no expansion of every window.

    Vectors over the grid are kept near 1 and their log scales aside; `ahead`
    carries the chain to the start, `behind` back from the end.
    """
    n, n_bars, n_grid = log_outside.shape
    n_kinds = max(log_before.shape[1], 1)
    backward = np.ascontiguousarray(transition.T)
    outside = np.empty((n_bars, n_grid))
    inside = np.empty((log_inside.shape[1], n_bars, n_grid))
    before = np.empty((n_kinds, n_bars, n_grid))
    ahead, ahead_log = np.empty((n_bars + 1, n_grid)), np.empty(n_bars + 1)
    behind, behind_log = np.empty((n_bars, n_grid)), np.empty(n_bars)
    arrived = np.empty((n_kinds, len(starts), n_grid))
    log_joint = np.empty((len(pairs), len(starts), n_bars))
    for w in range(n):
        _scale_densities(log_outside[w], log_inside[w], log_before[w], outside, inside, before)
        _pass_outside(outside, transition, backward, stationary, ahead, ahead_log, behind, behind_log)
        if log_before.shape[1] == 0:
            arrived[0] = ahead[starts[0] : starts[-1] + 1]
        else:
            _pass_states(ahead, ahead_log, before, state_bars, starts, transition, arrived)
        _join_spans(arrived, inside, behind, backward, pairs, starts, lengths[-1], log_joint)
        for t in starts:
            log_joint[:, t - starts[0]] += ahead_log[t] + behind_log - ahead_log[n_bars]
        log_joint += log_prior
        top = log_joint.max()
        weight = np.exp(log_joint - top)
        total = weight.sum()
        for pair in range(len(pairs)):
            by_pair[w, pair] = weight[pair].sum() / total
        span[w] = weight.sum(axis=0) / total
        log_bayes_factor[w] = np.log(total) + top


@numba.njit(cache=True)
def _scale_densities(log_outside, log_inside, log_before, outside, inside, before):
    """Set one window's densities, bar by bar relative to the likeliest of all regimes and grid points."""
    for t in range(len(log_outside)):
        top = log_outside[t].max()
        for d in range(len(log_inside)):
            top = max(top, log_inside[d, t].max())
        for k in range(len(log_before)):
            top = max(top, log_before[k, t].max())
        outside[t] = np.exp(log_outside[t] - top)
        for d in range(len(log_inside)):
            inside[d, t] = np.exp(log_inside[d, t] - top)
        for k in range(len(log_before)):
            before[k, t] = np.exp(log_before[k, t] - top)


@numba.njit(cache=True)
def _pass_outside(outside, transition, backward, stationary, ahead, ahead_log, behind, behind_log):
    """Set the chain at bar t after earlier bars in ordinary tape, and what it says of later ones there."""
    n_bars = len(outside)
    ahead[0], ahead_log[0] = stationary, 0.0
    for t in range(n_bars):
        _advance(ahead[t] * outside[t], transition, ahead[t + 1])
        size = ahead[t + 1].sum()
        ahead[t + 1] /= size
        ahead_log[t + 1] = ahead_log[t] + np.log(size)
    behind[n_bars - 1], behind_log[n_bars - 1] = 1.0, 0.0
    for t in range(n_bars - 2, -1, -1):
        _advance(behind[t + 1] * outside[t + 1], backward, behind[t])
        size = behind[t].max()
        behind[t] /= size
        behind_log[t] = behind_log[t + 1] + np.log(size)


@numba.njit(cache=True)
def _pass_states(ahead, ahead_log, before, state_bars, starts, transition, arrived):
    """Set the chain on arrival at each start through each state, in the scale of `ahead_log` at the start."""
    arrived[:] = 0.0
    share = 1.0 / len(state_bars)
    vector, other = np.empty(ahead.shape[1]), np.empty(ahead.shape[1])
    for k in range(len(before)):
        for first in range(max(starts[0] - state_bars[-1] + 1, 0), starts[-1] - state_bars[0] + 2):
            vector[:] = ahead[first]
            for step in range(1, state_bars[-1]):  # state bars seen; the start is the last one's overlap
                start = first + step
                if start > starts[-1]:
                    break
                _advance(vector * before[k, start - 1], transition, other)
                vector[:] = other
                if start >= starts[0] and step + 1 >= state_bars[0]:
                    factor = share * np.exp(ahead_log[first] - ahead_log[start])
                    arrived[k, start - starts[0]] += factor * vector


@numba.njit(cache=True)
def _join_spans(arrived, inside, behind, backward, pairs, starts, longest, log_joint):
    """Set the log-likelihood of each (pair, start, end), walking back through the span from its end."""
    n_bars = len(behind)
    vector, other = np.empty(behind.shape[1]), np.empty(behind.shape[1])
    log_joint[:] = -np.inf
    for d in range(len(inside)):
        for end in range(starts[0], n_bars):
            vector[:] = behind[end]
            for t in range(end, max(end - longest, starts[0] - 1), -1):
                vector *= inside[d, t]
                if t <= starts[-1]:
                    for pair in range(len(pairs)):
                        if pairs[pair, 1] == d:
                            total = _dot(arrived[max(pairs[pair, 0], 0), t - starts[0]], vector)
                            log_joint[pair, t - starts[0], end] = np.log(total)
                _advance(vector, backward, other)
                vector[:] = other


@numba.njit(cache=True)
def _advance(vector, matrix, out):
    """Set out = vector @ matrix; rows are added whole, which compiles to vector instructions."""
    out[:] = 0.0
    for i in range(len(vector)):
        weight = vector[i]
        for j in range(len(out)):
            out[j] += weight * matrix[i, j]


@numba.njit(cache=True)
def _dot(a, b):
    """Return the inner product (numba's own asks for scipy)."""
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total
