"""Baselines that look at next to nothing: the bar's index, the clock, one ratio of ranges, change points."""

import numpy as np

from moola_lib.errors import UserError
from moola_lib.evaluation.baselines import ATR_MULTIPLES
from moola_lib.evaluation.metrics import TOLERANCE_BARS
from moola_lib.evaluation.spans import (
    STARTS,
    answer_points,
    answer_spans,
    inside_threshold,
    known_spans,
    length_scores,
    smooth_shares,
    span_posterior,
)
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.market.ranges import ATR_BARS

DAY_MINUTES = 1440
BANDWIDTHS_MINUTES = (5, 15, 60, 240, DAY_MINUTES)
CLOCK_SHARES = (0.0, 0.5, 0.9)
N_CHANGES = (2, 3, 4, 5)
LEAST_SEGMENT_BARS = 3


def position_baseline(train, test, inputs=None):
    """Answer what the bar's index alone tells: the training windows' starts and lengths.

    Parameters
    ----------
    train, test : LabelledWindows
    inputs : WindowInputs, optional
        Not looked at.

    Returns
    -------
    Prediction
    """
    known = known_spans(train)
    start = smooth_shares(known.start, WINDOW_BARS)[STARTS]

    def posterior(n):
        return span_posterior(np.tile(start, (n, 1)), np.zeros((n, WINDOW_BARS)), length_scores(train))

    return answer_spans(posterior(len(test)), inside_threshold(posterior(len(train)), train))


def timestamp_baseline(train, test, inputs):
    """Answer what the minute of the day at which a window starts tells, and nothing of its bars.

    Training windows are weighted by how near their minute is; their starts
    count as bars of the window, and as times of the day. The width of "near"
    and the share of the clock are those under which training windows, each
    left out in turn, are likeliest.

    Parameters
    ----------
    train, test : LabelledWindows
    inputs : WindowInputs
        With `minute`.

    Returns
    -------
    Prediction

    Raises
    ------
    UserError
        The windows have no stamps, or no training window holds an expansion.
    """
    if inputs.minute is None:
        raise UserError("these windows have no stamps, which the timestamp baseline needs; leave it out")
    known = known_spans(train)
    minute, asked, all_minutes = (inputs.of(windows).minute for windows in (known, test, train))
    settings = [(width, share) for width in BANDWIDTHS_MINUTES for share in CLOCK_SHARES]
    place = np.clip(known.start, STARTS[0], STARTS[-1]) - STARTS[0]

    def log_likelihood(setting):
        scores, _ = _scores_by_clock(known, minute, minute, *setting, is_same=True)
        return scores[np.arange(len(known)), place].sum()

    best = max(settings, key=log_likelihood)

    def posterior(minutes):
        start, weights = _scores_by_clock(known, minute, minutes, *best, is_same=False)
        length = smooth_shares(known.end - known.start, WINDOW_BARS, weights)
        state = weights @ np.eye(3)[known.state][:, :2] + 0.5
        ends = np.zeros((len(minutes), WINDOW_BARS))
        return span_posterior(start, ends, length, state / state.sum(axis=1, keepdims=True))

    return answer_spans(posterior(asked), inside_threshold(posterior(all_minutes), train))


def atr_rule(train, test, inputs):
    """Start at the first inner bar whose true range is a multiple of the ATR of the ten bars before it.

    The multiple with the most training starts within 3 bars is used; the
    length is the training median. A window in which no bar qualifies gets the
    median start.

    Parameters
    ----------
    train, test : LabelledWindows
    inputs : WindowInputs

    Returns
    -------
    Prediction
    """
    known = known_spans(train)

    def first_bars(windows, multiple):
        ranges = np.exp(inputs.of(windows).log_range)
        total = np.concatenate([np.zeros((len(ranges), 1)), np.cumsum(ranges, axis=1)], axis=1)
        before = (total[:, STARTS] - total[:, STARTS - ATR_BARS]) / ATR_BARS
        is_large = ranges[:, STARTS] >= multiple * before
        return np.where(is_large.any(axis=1), STARTS[is_large.argmax(axis=1)], int(np.median(known.start)))

    hits = [np.mean(np.abs(first_bars(known, multiple) - known.start) <= TOLERANCE_BARS) for multiple in ATR_MULTIPLES]
    start = first_bars(test, ATR_MULTIPLES[int(np.argmax(hits))])
    return answer_points(start, np.minimum(start + _median_length(known) - 1, WINDOW_BARS - 1))


def change_point_baseline(train, test, inputs):
    """Answer the highest stretch between change points of log range and log |return| (least squares, exact).

    The number of changes with the most training starts within 3 bars is used
    (Killick et al. 2012 would penalise it). Among the stretches that begin in
    the inner part the one with the highest mean is the expansion; where none
    begins there, the median start and length are answered.

    Parameters
    ----------
    train, test : LabelledWindows
    inputs : WindowInputs

    Returns
    -------
    Prediction
    """
    known = known_spans(train)
    fallback = np.array([int(np.median(known.start)), int(np.median(known.end))])
    ours, theirs = (_moves(inputs.of(windows)) for windows in (known, test))
    found = [_highest_stretches(ours, n_changes, fallback) for n_changes in N_CHANGES]
    hits = [np.mean(np.abs(spans[:, 0] - known.start) <= TOLERANCE_BARS) for spans in found]
    spans = _highest_stretches(theirs, N_CHANGES[int(np.argmax(hits))], fallback)
    return answer_points(spans[:, 0], spans[:, 1])


def _scores_by_clock(known, minute, asked, width, share, *, is_same):
    """Return (log share of each inner start (m, n_starts), weight of each known window (m, n)) for windows asked about.

    `is_same`: the windows asked about are the known ones, and none is to know itself.
    """
    away = np.abs(asked[:, None] - minute)
    away = np.minimum(away, DAY_MINUTES - away)
    weights = np.exp(-0.5 * (away / width) ** 2) * (1 - np.eye(len(minute)) if is_same else 1.0)
    by_bar = np.exp(smooth_shares(known.start, WINDOW_BARS, weights)[:, STARTS])
    # the same time of the day as a training start, seen from the window asked about
    shifted = (minute + known.start - asked[:, None] + DAY_MINUTES // 2) % DAY_MINUTES - DAY_MINUTES // 2
    near = np.exp(-0.5 * ((STARTS - shifted[:, :, None]) / 2) ** 2)
    if is_same:
        near[np.arange(len(minute)), np.arange(len(minute))] = 0.0
    by_clock = near.sum(axis=1) + 1 / len(STARTS)
    by_bar, by_clock = (one / one.sum(axis=1, keepdims=True) for one in (by_bar, by_clock))
    return np.log((1 - share) * by_bar + share * by_clock), weights


def _median_length(known):
    return int(np.median(known.end - known.start + 1))


def _moves(inputs):
    """Return log range and log |return| of each window, both in standard deviations, (n, K, 2)."""
    usual = np.median(inputs.log_range, axis=1, keepdims=True)
    steps = np.log(np.abs(inputs.log_return) / np.exp(usual) + 0.05)
    both = np.stack([inputs.log_range, steps], axis=2)
    sd = both.std(axis=1, keepdims=True)
    return (both - both.mean(axis=1, keepdims=True)) / np.where(sd > 0, sd, 1.0)


def _highest_stretches(moves, n_changes, fallback):
    """Return (start, end) of the highest stretch of each window, (n, 2) int64."""
    import ruptures

    spans = np.tile(fallback, (len(moves), 1))
    for row, signal in enumerate(moves):
        finder = ruptures.KernelCPD(kernel="linear", min_size=LEAST_SEGMENT_BARS).fit(signal)
        edges = np.array([0, *finder.predict(n_bkps=n_changes)])
        is_inner = np.isin(edges[:-1], STARTS)
        if is_inner.any():
            means = np.add.reduceat(signal.sum(axis=1), edges[:-1]) / np.diff(edges)
            best = np.where(is_inner, means, -np.inf).argmax()
            spans[row] = edges[best], edges[best + 1] - 1
    return spans
