"""Could labels that have nothing to do with the bars have scored as well? A permutation test with refits."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from moola_lib.learning.device import usable_cores

MOVED = ("has_expansion", "start", "end", "spans", "state")


@dataclass(frozen=True)
class PermutationTest:
    """A score beside those on permuted labels.

    Attributes
    ----------
    score : float
        With the labels as they are.
    permuted : ndarray (n_permutations,), float64
        With labels moved between days, everything fitted anew.
    p_value : float
        Share of the permuted scores that reach `score`, itself counted as one.
    floor : float
        1 / (n_permutations + 1), the least that `p_value` can be.
    """

    score: float
    permuted: np.ndarray
    p_value: float
    floor: float

    def __str__(self):
        mean, n = self.permuted.mean(), len(self.permuted)
        return (
            f"{self.score:.3g} against {mean:.3g} on the mean of {n} permutations of labels between days: "
            f"p = {self.p_value:.3g} (it cannot be below {self.floor:.3g})"
        )


def permutation_test(score_of, windows, n_permutations=199, seed=17):
    """Test whether a score needs the labels to belong to their bars.

    Parameters
    ----------
    score_of : callable(LabelledWindows) -> float
        Fits and scores everything with the labels it is given; more is better.
        Called in several threads.
    windows : LabelledWindows
    n_permutations, seed : int

    Returns
    -------
    PermutationTest

    Notes
    -----
    Labels move between days in blocks (see `move_labels`). scikit-learn's
    `permutation_test_score(groups=)` permutes within groups instead: with a day
    a group that changes next to nothing.
    """
    rng = np.random.default_rng(seed)
    given = [windows, *(move_labels(windows, rng) for _ in range(n_permutations))]
    # whole fits side by side, each on one thread
    with ThreadPoolExecutor(usable_cores(), initializer=threadpool_limits, initargs=(1,)) as pool:
        score, *permuted = map(float, pool.map(score_of, given))
    permuted = np.array(permuted)
    floor = 1 / (n_permutations + 1)
    reached = ~(permuted < score)  # a score that is not defined is no evidence either
    return PermutationTest(score, permuted, float((1 + reached.sum()) * floor), floor)


def move_labels(windows, rng):
    """Return the windows with spans and states moved between days in blocks.

    The days' labels are laid end to end in a random order of days and dealt out
    to the windows in time order, so that labels of one day stay neighbours.

    Parameters
    ----------
    windows : LabelledWindows
    rng : numpy Generator
    """
    _, block = np.unique(windows.day, return_inverse=True)
    order = rng.permutation(block.max() + 1)
    source = np.argsort(np.argsort(order)[block], kind="stable")
    return replace(windows, **{name: getattr(windows, name)[source] for name in MOVED})
