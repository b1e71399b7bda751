"""The best of many arms: how good it is, and how good the best of as many equal ones would have looked."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

N_DRAWS = 20_000
OVER_SEEDS, OVER_WINDOWS = "seeds", "windows"


@dataclass(frozen=True)
class Selection:
    """The winner of a comparison, beside what luck alone would have given.

    Attributes
    ----------
    arm : str
    n_arms : int
        Arms that were scored: the trials that count against the winner.
    mean, low, high : float
        Its mean, and an interval that holds for all arms at once (Bonferroni); NaN
        where nothing tells the spread.
    lead : float
        How much better it is than the mean of all arms.
    luck, luck_high : float
        What the best of as many equal arms leads by on average, and at most 19
        times of 20.
    p_value : float
        The chance of such a lead if all arms were equal.
    spread_of : {"seeds", "windows"} or None
        As of `arm_means`.
    """

    arm: str
    n_arms: int
    mean: float
    low: float
    high: float
    lead: float
    luck: float
    luck_high: float
    p_value: float
    spread_of: str | None


def arm_means(runs, *, is_higher_better, level=0.95):
    """Return every arm's mean over its runs, the best first.

    Parameters
    ----------
    runs : DataFrame
        A row per run: `arm`, `value`, `low`, `high` (its own 95% interval, NaN where
        it has none); rows without a value are left out.
    is_higher_better : bool
    level : float

    Returns
    -------
    DataFrame
        `arm`, `n`, `mean`, `error` (standard), `low`, `high`. The errors are from the
        spread over seeds, pooled over arms; where no arm has two different values,
        from the runs' own intervals; else NaN. `attrs`: `spread_of` ("seeds",
        "windows" or None) and `df`, its degrees of freedom.
    """
    scored = runs.dropna(subset="value")
    arms = scored.groupby("arm", sort=False)["value"].agg(n="count", mean="mean").reset_index()
    arms = arms.sort_values("mean", ascending=not is_higher_better, kind="stable").reset_index(drop=True)
    arms["error"], df, spread_of = _standard_errors(scored, arms)
    reach = _quantile((1 + level) / 2, df) * arms["error"]
    arms["low"], arms["high"] = arms["mean"] - reach, arms["mean"] + reach
    arms.attrs = {"spread_of": spread_of, "df": df}
    return arms


def select_best(arms, *, level=0.95, n_draws=N_DRAWS, seed=17):
    """Take the best arm, and compare its lead with that of the best of as many equal arms.

    Parameters
    ----------
    arms : DataFrame
        From `arm_means`, at least one.
    level : float
    n_draws, seed : int
        Of the simulated equal arms.

    Returns
    -------
    Selection

    Notes
    -----
    Under the null every arm has the same mean, and the arms' means scatter around
    it with their standard errors (whose own uncertainty is that of χ²). The lead is
    the best mean less the mean of the arms. Arms that share seeds or windows go
    together, which is not used: luck is rather overstated.
    """
    best, errors, df = arms.iloc[0], arms["error"].to_numpy(), arms.attrs["df"]
    n_arms, lead = len(arms), abs(best["mean"] - arms["mean"].mean())
    reach = _quantile(1 - (1 - level) / 2 / n_arms, df) * best["error"]
    ends = best["mean"] - reach, best["mean"] + reach
    luck = luck_high = p_value = np.nan
    if n_arms > 1 and arms.attrs["spread_of"]:
        leads = _leads_of_equals(errors, df, n_draws, seed)
        luck, luck_high = float(leads.mean()), float(np.quantile(leads, 0.95))
        p_value = float((1 + (leads >= lead).sum()) / (1 + n_draws))
    return Selection(best["arm"], n_arms, best["mean"], *ends, lead, luck, luck_high, p_value, arms.attrs["spread_of"])


def describe_selection(selection, digits=3):
    """Say in sentences how far the best arm can be trusted."""
    best = f"Best of {selection.n_arms} arms" if selection.n_arms > 1 else "One arm"
    if selection.spread_of is None:
        return (
            f"{best}: {selection.arm}, {selection.mean:.{digits}f}. One run an arm and no interval of its own: how "
            "much of this is luck cannot be told. Give several seeds."
        )
    interval = f"{selection.mean:.{digits}f} ({selection.low:.{digits}f} to {selection.high:.{digits}f}"
    if selection.n_arms == 1:
        return f"{best}: {selection.arm}, {interval}). Nothing was chosen among several."
    p_value = "< .001" if selection.p_value < 0.001 else f"= {selection.p_value:.3f}".replace("0.", ".")
    is_told = selection.p_value < 0.05
    verdict = "More than luck." if is_told else "That does not tell it from luck."
    return (
        f"{best}: {selection.arm}, {interval}, an interval for all {selection.n_arms} at once). It leads the mean of "
        f"all arms by {selection.lead:.{digits}f}; the best of {selection.n_arms} equal arms would lead by "
        f"{selection.luck:.{digits}f} on average, and by {selection.luck_high:.{digits}f} or more one time in twenty "
        f"(p {p_value}). {verdict}"
    )


def _standard_errors(scored, arms):
    """Return each arm's standard error (in the arms' order), its degrees of freedom, and what it was taken from."""
    by_arm = scored.groupby("arm")
    df = int((by_arm["value"].count() - 1).sum())
    squares = float(((scored["value"] - by_arm["value"].transform("mean")) ** 2).sum())
    if df > 0 and squares > 0:
        return np.sqrt(squares / df / arms["n"].to_numpy()), df, OVER_SEEDS
    widths = (by_arm["high"].mean() - by_arm["low"].mean()).reindex(arms["arm"]).to_numpy()
    if np.isfinite(widths).all() and (widths > 0).any():
        # Several seeds do not lessen it: they were scored on the same windows.
        return widths / 2 / NormalDist().inv_cdf(0.975), np.inf, OVER_WINDOWS
    return np.full(len(arms), np.nan), np.inf, None


def _quantile(share, df):
    """Return the quantile of Student's t, which without end to its degrees of freedom is the normal's."""
    from scipy.stats import t

    return t.ppf(share, df) if np.isfinite(df) else NormalDist().inv_cdf(share)


def _leads_of_equals(errors, df, n_draws, seed):
    """Return simulated leads of the best over the mean where all arms are equal."""
    rng = np.random.default_rng(seed)
    leads = np.empty(n_draws)
    for block in np.array_split(np.arange(n_draws), max(1, n_draws * len(errors) // 1_000_000)):
        means = rng.standard_normal((len(block), len(errors))) * errors
        leads[block] = means.max(axis=1) - means.mean(axis=1)
    return leads * np.sqrt(df / rng.chisquare(df, n_draws)) if np.isfinite(df) else leads
