"""What a careful person would compute by hand around a bar: moves near it, and after it against before it."""

import numpy as np

WIDTHS_BARS = (1, 3, 6, 12, 24)
STATE_WIDTHS_BARS = (5, 10, 15, 20)
LEAD_BARS = 5
FLOOR = 0.05  # of the window's median range: a bar that did not move says no more than one that moved this little


def bar_features(inputs):
    """Return features of every border between two bars: border t lies before bar t, border K after the last.

    Channels are log range and log |return|, relative to the window's median
    range, and the feature columns. For each channel: its values on the bars
    within 5 of the border, and its mean over the 1, 3, 6, 12 and 24 bars after
    less that over as many before. For the moves besides: how straight the price
    went over 3, 6, 12 and 24 bars, after less before.

    Parameters
    ----------
    inputs : WindowInputs

    Returns
    -------
    ndarray (n, K + 1, n_features), float32
        All finite. Where fewer bars are left, those that are; the edge bar stands for what lies outside.
    """
    channels, signed = _channels(inputs)
    parts = [*_neighbours(channels), *(_contrast(channels, width) for width in WIDTHS_BARS)]
    parts += [_straightness_contrast(signed, width) for width in WIDTHS_BARS[1:]]
    return np.concatenate(parts, axis=2).astype(np.float32)


def state_features(inputs, start):
    """Return features of the bars before a start: what tells the states apart.

    Over the 5, 10, 15 and 20 bars up to the start (it belongs to the state
    too): the mean of each channel of `bar_features`, and that less the mean of
    as many bars before; how straight the price went; and its move in the
    direction of the 5 and of the 10 bars after the start.

    Parameters
    ----------
    inputs : WindowInputs
    start : ndarray (n,), int64
        First bar of the expansion, labelled or predicted.

    Returns
    -------
    ndarray (n, n_features), float32
    """
    channels, signed = _channels(inputs)
    total = _running_sum(np.concatenate([channels, signed[..., None], np.abs(signed)[..., None]], axis=2))
    row, n_bars = np.arange(len(start)), signed.shape[1]

    def mean(first, last):
        """Return the means over bars first..last-1 as (channels, signed move, path)."""
        first, last = np.clip(first, 0, n_bars), np.clip(last, 0, n_bars)
        found = (total[row, last] - total[row, first]) / np.maximum(last - first, 1)[:, None]
        return found[:, :-2], found[:, -2:-1], found[:, -1:]

    up_to = start + 1
    short, longer = (np.sign(mean(up_to, up_to + width)[1]) for width in (5, 10))
    found = []
    for width in STATE_WIDTHS_BARS:
        level, move, path = mean(up_to - width, up_to)
        further, *_ = mean(up_to - 2 * width, up_to - width)
        straight = move / np.maximum(path, FLOOR)
        found += [level, level - further, np.abs(straight), straight * short, straight * longer]
    return np.concatenate(found, axis=1).astype(np.float32)


def _channels(inputs):
    """Return (channels (n, K, c), signed return in median ranges (n, K)), float64."""
    usual = np.median(inputs.log_range, axis=1, keepdims=True)
    signed = inputs.log_return / np.exp(usual)
    moves = [np.log(np.exp(inputs.log_range - usual) + FLOOR), np.log(np.abs(signed) + FLOOR)]
    others = [k for k, name in enumerate(inputs.names) if name not in ("log_return", "log_range")]
    return np.concatenate([np.stack(moves, axis=2), inputs.x[..., others]], axis=2, dtype=np.float64), signed


def _neighbours(channels):
    """Yield each channel on the bars within 5 of every border, (n, K + 1, c) each."""
    n_bars = channels.shape[1]
    for lead in range(-LEAD_BARS, LEAD_BARS):
        yield channels[:, np.clip(np.arange(n_bars + 1) + lead, 0, n_bars - 1)]


def _contrast(channels, width):
    """Return the mean over `width` bars after each border less that before it, (n, K + 1, c)."""
    after, before, n_after, n_before = _sums_around(channels, width)
    return after / n_after - before / n_before


def _straightness_contrast(signed, width):
    """Return net move over path length after each border less that before it, (n, K + 1, 1)."""
    net_after, net_before, *_ = _sums_around(signed[..., None], width)
    path_after, path_before, *_ = _sums_around(np.abs(signed)[..., None], width)
    return np.abs(net_after) / (path_after + FLOOR) - np.abs(net_before) / (path_before + FLOOR)


def _sums_around(channels, width):
    """Return the sums over `width` bars after and before each border, and how many bars there were (at least 1)."""
    n_bars = channels.shape[1]
    total = _running_sum(channels)
    border = np.arange(n_bars + 1)
    last, first = np.minimum(border + width, n_bars), np.maximum(border - width, 0)
    counts = [np.maximum(count, 1)[None, :, None] for count in (last - border, border - first)]
    return total[:, last] - total, total - total[:, first], *counts


def _running_sum(channels):
    """Return sums over all bars before each border, (n, K + 1, c)."""
    return np.concatenate([np.zeros_like(channels[:, :1]), np.cumsum(channels, axis=1)], axis=1)
