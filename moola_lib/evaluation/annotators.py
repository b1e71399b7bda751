"""How well the labels agree with themselves, and so how well anyone can agree with them."""

import itertools
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from moola_lib.evaluation.decoding import TOLERANCE_BARS
from moola_lib.evaluation.intervals import day_block_weights, interval


@dataclass(frozen=True)
class AnnotatorCeiling:
    """What windows labelled more than once say.

    Attributes
    ----------
    n_windows, n_pairs : int
        Windows read more than once, and pairs of readings of one window.
    repeat_sd : float
        Standard deviation of a label's start about the window's true one, in
        bars: √(mean squared difference / 2).
    agreement : float
        Share of pairs whose starts are within 3 bars: two labels, both with noise.
    ceiling : float
        Hit@3 of the true starts, by `hit_ceiling` of the repeat SD.
    low, high : float
        95% interval of the ceiling, windows resampled.
    """

    n_windows: int
    n_pairs: int
    repeat_sd: float
    agreement: float
    ceiling: float
    low: float
    high: float


def hit_ceiling(repeat_sd, tolerance_bars=TOLERANCE_BARS):
    """Return the Hit@k that a method with the true starts scores against labels with normal noise.

    Parameters
    ----------
    repeat_sd : float
        Of the labels about the truth, in bars.
    tolerance_bars : int

    Returns
    -------
    float
        P(|noise| < k + ½), noise rounded to bars: 76, 62 and 52% for 3, 4 and 5 bars.
    """
    if repeat_sd == 0:
        return 1.0
    return 2 * NormalDist().cdf((tolerance_bars + 0.5) / float(repeat_sd)) - 1


def annotator_ceiling(table, *, tolerance_bars=TOLERANCE_BARS, n_bootstrap=1000, seed=17):
    """Measure repeat noise where windows were labelled more than once.

    Parameters
    ----------
    table : DataFrame
        Checked label table. Readings of one window are rows with the same `symbol`
        and `window_start`, by another `annotator` or under another `window_id`;
        of a reading with several expansions the first counts, as it does in training.
    tolerance_bars, n_bootstrap, seed : int

    Returns
    -------
    AnnotatorCeiling or None
        None where no window with an expansion was read twice: the ceiling is not known.
    """
    known = table[table["label"] != "none"].assign(annotator=table["annotator"].fillna(""))
    readings = known.groupby(["symbol", "window_start", "window_id", "annotator"], sort=True)["expansion_start"].min()
    squares, near, window = [], [], []
    for row, (_, starts) in enumerate(readings.groupby(level=["symbol", "window_start"])):
        for one, two in itertools.combinations(starts.to_numpy(np.float64), 2):
            squares.append((one - two) ** 2)
            near.append(abs(one - two) <= tolerance_bars)
            window.append(row)
    if not window:
        return None
    squares = np.array(squares)
    weights = day_block_weights(window, n_bootstrap=n_bootstrap, seed=seed)
    resampled = np.sqrt((weights @ squares) / weights.sum(axis=1) / 2)
    sd = float(np.sqrt(squares.mean() / 2))
    low, high = interval([hit_ceiling(each, tolerance_bars) for each in resampled])
    ceiling = hit_ceiling(sd, tolerance_bars)
    return AnnotatorCeiling(len(set(window)), len(window), sd, float(np.mean(near)), ceiling, low, high)
