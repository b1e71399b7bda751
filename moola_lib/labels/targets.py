"""What a model is asked for, computed from a span, and back."""

from dataclasses import dataclass

import numpy as np

WINDOW_BARS = 105
COUNTDOWN_CLIP_BARS = 20


@dataclass(frozen=True)
class Targets:
    """Targets of one span, or of n spans.

    Attributes
    ----------
    centre : float or ndarray (n,), float64
        (start + end) / 2 / (window_bars - 1), in [0, 1].
    length : float or ndarray (n,), float64
        (end - start + 1) / window_bars, in (0, 1].
    mask : ndarray ([n,] window_bars), float32
        1 for start <= t <= end.
    countdown : ndarray ([n,] window_bars), float32
        start - t in bars, clipped to ±20: +5 five bars before the start, 0 on it.
    """

    centre: np.ndarray
    length: np.ndarray
    mask: np.ndarray
    countdown: np.ndarray


def expansion_targets(start, end, window_bars=WINDOW_BARS):
    """Return the targets of spans [start, end], both inclusive.

    Parameters
    ----------
    start, end : int or array_like (n,) of int
        0-based bars inside the window.
    window_bars : int

    Returns
    -------
    Targets

    Raises
    ------
    ValueError
        Anything but 0 <= start <= end < window_bars, or not whole numbers.

    Examples
    --------
    >>> targets = expansion_targets(50, 65)
    >>> int(targets.mask.sum()), [int(targets.countdown[t]) for t in (45, 50, 55)]
    (16, [5, 0, -5])
    """
    spans = np.stack(np.broadcast_arrays(np.asarray(start), np.asarray(end)), axis=-1)
    if not np.all(np.equal(np.mod(spans, 1), 0)):
        raise ValueError(f"start and end must be whole bars, got {start}, {end}")
    first, last = spans[..., 0].astype(np.int64), spans[..., 1].astype(np.int64)
    is_bad = ~((first >= 0) & (first <= last) & (last < window_bars))
    if is_bad.any():
        row = int(np.atleast_1d(is_bad).argmax())
        bad = (int(np.atleast_1d(first)[row]), int(np.atleast_1d(last)[row]))
        raise ValueError(f"span {bad} (row {row}) must satisfy 0 <= start <= end < {window_bars}")
    bars = np.arange(window_bars)
    mask = (bars >= first[..., None]) & (bars <= last[..., None])
    countdown = np.clip(first[..., None] - bars, -COUNTDOWN_CLIP_BARS, COUNTDOWN_CLIP_BARS)
    return Targets(
        centre=(first + last) / 2 / (window_bars - 1),
        length=(last - first + 1) / window_bars,
        mask=mask.astype(np.float32),
        countdown=countdown.astype(np.float32),
    )


def span_from_pointers(centre, length, window_bars=WINDOW_BARS):
    """Return (start, end) in bars, float64, of centre and length; exact on targets after rounding.

    Predictions may lie outside the window; nothing is clipped or rounded.
    """
    total = np.asarray(centre, np.float64) * 2 * (window_bars - 1)
    extent = np.asarray(length, np.float64) * window_bars - 1
    return (total - extent) / 2, (total + extent) / 2


def span_from_mask(mask):
    """Return (start, end), the first and last bar of a mask ([n,] window_bars) with at least one bar inside.

    Raises
    ------
    ValueError
        A mask is empty.
    """
    inside = np.asarray(mask) > 0.5
    if not inside.any(axis=-1).all():
        raise ValueError("a mask holds no bar inside; it has no span")
    return inside.argmax(axis=-1), inside.shape[-1] - 1 - inside[..., ::-1].argmax(axis=-1)


def start_from_countdown(countdown):
    """Return the start in bars, float64, that fits a countdown ([n,] window_bars) best.

    Every bar whose value lies strictly inside the clip votes t + countdown[t];
    the median vote wins. Where all values are clipped, the bar at which the
    value is closest to 0 is taken.
    """
    countdown = np.asarray(countdown, np.float64)
    votes = np.arange(countdown.shape[-1]) + countdown
    is_inside = np.abs(countdown) < COUNTDOWN_CLIP_BARS
    has_vote = is_inside.any(axis=-1, keepdims=True)
    fallback = np.abs(countdown) == np.abs(countdown).min(axis=-1, keepdims=True)
    votes = np.where(np.where(has_vote, is_inside, fallback), votes, np.nan)
    return np.nanmedian(votes, axis=-1)


def mark_spans(n_bars, start, end):
    """Tell which bars of a series lie inside any span.

    Parameters
    ----------
    n_bars : int
    start, end : array_like (n_spans,), int
        Positions of first and last bars, inclusive.

    Returns
    -------
    ndarray (n_bars,), bool

    Raises
    ------
    ValueError
        Anything but 0 <= start <= end < n_bars.
    """
    start, end = np.asarray(start, np.int64), np.asarray(end, np.int64)
    if len(start) and not (start.min() >= 0 and (start <= end).all() and end.max() < n_bars):
        raise ValueError(f"spans must lie inside the {n_bars} bars, first bar before last")
    change = np.zeros(n_bars + 1, np.int64)
    np.add.at(change, start, 1)
    np.add.at(change, end + 1, -1)
    return np.cumsum(change[:-1]) > 0
