"""The bare law's posterior in plain numpy, one window at a time: what the compiled oracle is measured against."""

import numpy as np


def span_posterior(outside, inside, law):
    """Return P(start, end) of one window, (n_starts, K) float64.

    Parameters
    ----------
    outside : ndarray (K, G), float64
        Log density of each bar given log-volatility.
    inside : ndarray (2, K, G), float64
        The same inside an expansion down or up.
    law : MarketLaw
        Without states before; lengths that fit into the window.
    """
    n_bars = len(outside)
    chain = law.transition
    top = np.maximum(outside.max(axis=1), inside.max(axis=(0, 2)))[:, None]
    outside, inside = np.exp(outside - top), np.exp(inside - top)
    ahead, ahead_log = [law.stationary], [0.0]
    for t in range(n_bars):
        vector = (ahead[-1] * outside[t]) @ chain
        ahead.append(vector / vector.sum())
        ahead_log.append(ahead_log[-1] + np.log(vector.sum()))
    behind, behind_log = [np.ones(law.n_grid)], [0.0]
    for t in range(n_bars - 1, 0, -1):
        vector = chain @ (behind[0] * outside[t])
        behind.insert(0, vector / vector.sum())
        behind_log.insert(0, behind_log[0] + np.log(vector.sum()))
    found = np.full((len(law.starts), n_bars), -np.inf)
    for row, start in enumerate(law.starts):
        vectors = np.stack([ahead[start]] * 2)
        for end in range(start, start + law.lengths[-1]):
            vectors = vectors * inside[:, end]
            if end - start + 1 >= law.lengths[0]:
                found[row, end] = np.log((vectors @ behind[end]).mean()) + ahead_log[start] + behind_log[end]
            vectors = vectors @ chain
    weight = np.exp(found - found.max())
    return weight / weight.sum()
