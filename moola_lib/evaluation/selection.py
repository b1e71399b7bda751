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
        Arms with all their runs: the trials that count against the winner.
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
    rivals : list of str
        Arms that are not told from the best one: their difference is within the
        95% reach of all such differences (Bonferroni).
    spread_of : {"seeds", "windows"} or None
        As of `arm_means`.
    is_paired : bool
        Whether luck was judged within seeds: what a seed does to all arms alike is
        none of a difference between them.
    n_left_out : int
        Arms that lack runs: the seeds that fail are seldom the good ones.
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
    rivals: list
    spread_of: str | None
    is_paired: bool = False
    n_left_out: int = 0


def arm_means(runs, *, is_higher_better, level=0.95):
    """Return every arm's mean over its runs, the best first, those that lack runs behind the others.

    Parameters
    ----------
    runs : DataFrame
        A row per run: `arm`, `seed`, `value`, `low`, `high` (its own 95% interval,
        NaN where it has none); a row without a value is a run that the arm lacks.
    is_higher_better : bool
    level : float

    Returns
    -------
    DataFrame
        `arm`, `n`, `mean`, `is_complete` (it lacks no run), `error` (standard), `low`,
        `high`. The errors are from the
        spread over seeds, pooled over arms; where no arm has two different values,
        from the runs' own intervals; else NaN. `attrs`: `spread_of` ("seeds",
        "windows" or None), `df`, its degrees of freedom, and `paired`, the standard
        error and degrees of freedom within seeds, or None (see `select_best`).
    """
    scored = runs.dropna(subset="value")
    arms = scored.groupby("arm", sort=False)["value"].agg(n="count", mean="mean").reset_index()
    arms["is_complete"] = arms["n"].to_numpy() == runs.groupby("arm").size().reindex(arms["arm"]).to_numpy()
    arms = arms.sort_values("mean", ascending=not is_higher_better, kind="stable")
    arms = arms.sort_values("is_complete", ascending=False, kind="stable").reset_index(drop=True)
    arms["error"], df, spread_of = _standard_errors(scored, arms)
    reach = _quantile((1 + level) / 2, df) * arms["error"]
    arms["low"], arms["high"] = arms["mean"] - reach, arms["mean"] + reach
    arms.attrs = {
        "spread_of": spread_of,
        "df": df,
        "paired": _paired_error(scored[scored["arm"].isin(arms["arm"][arms["is_complete"]])]),
    }
    return arms


def select_best(arms, *, level=0.95, n_draws=N_DRAWS, seed=17):
    """Take the best arm, and compare its lead with that of the best of as many equal arms.

    Parameters
    ----------
    arms : DataFrame
        From `arm_means`; those that lack runs do not compete.
    level : float
    n_draws, seed : int
        Of the simulated equal arms.

    Returns
    -------
    Selection or None
        None where no arm has all its runs.

    Notes
    -----
    Under the null every arm has the same mean, and the arms' means scatter around
    it with a standard error (whose own uncertainty is that of χ²). The lead is the
    best mean less the mean of the arms. Where every arm has the same seeds, the
    error is that of a randomised block design, seeds as blocks: the residuals of
    arm plus seed. Else it is that of `arm_means`, which overstates luck where arms
    share seeds or windows.
    """
    n_left_out, arms = int((~arms["is_complete"]).sum()), arms[arms["is_complete"]]
    if arms.empty:
        return None
    best, n_arms = arms.iloc[0], len(arms)
    lead = abs(best["mean"] - arms["mean"].mean())
    reach = _quantile(1 - (1 - level) / 2 / n_arms, arms.attrs["df"]) * best["error"]
    ends = best["mean"] - reach, best["mean"] + reach
    paired = arms.attrs["paired"]
    errors, df = paired or (arms["error"].to_numpy(), arms.attrs["df"])
    luck = luck_high = p_value = np.nan
    rivals = []
    if n_arms > 1 and arms.attrs["spread_of"]:
        errors = np.broadcast_to(errors, n_arms)
        leads = _leads_of_equals(errors, df, n_draws, seed)
        luck, luck_high = float(leads.mean()), float(np.quantile(leads, 0.95))
        p_value = float((1 + (leads >= lead).sum()) / (1 + n_draws))
        room = _quantile(1 - (1 - level) / 2 / (n_arms - 1), df) * np.hypot(errors, errors[0])
        rivals = arms["arm"][1:][((arms["mean"] - best["mean"]).abs() <= room)[1:]].tolist()
    judged = lead, luck, luck_high, p_value, rivals
    is_paired = paired is not None
    return Selection(best["arm"], n_arms, best["mean"], *ends, *judged, arms.attrs["spread_of"], is_paired, n_left_out)


def describe_selection(selection, digits=3):
    """Say in sentences how far the best arm can be trusted."""
    asides = {0: "", 1: " 1 arm lacks runs and is not ranked."}
    several = f" {selection.n_left_out} arms lack runs and are not ranked."
    return _describe_best(selection, digits) + asides.get(selection.n_left_out, several)


def _describe_best(selection, digits):
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
    pairing = "; seeds paired" if selection.is_paired else ""
    return (
        f"{best}: {selection.arm}, {interval}, an interval for all {selection.n_arms} at once). It leads the mean of "
        f"all arms by {selection.lead:.2g}; the best of {selection.n_arms} equal arms would lead by "
        f"{selection.luck:.2g} on average, and by {selection.luck_high:.2g} or more one time in twenty "
        f"(p {p_value}{pairing}). {_say_verdict(selection)}"
    )


def _say_verdict(selection):
    """Say whether the best arm stands out, and from how many others."""
    if selection.p_value >= 0.05:
        return "That does not tell it from luck."
    n_rivals = len(selection.rivals)
    if not n_rivals:
        return "More than luck, and every other arm is worse."
    others = selection.rivals[0] if n_rivals == 1 else f"{n_rivals} others"
    return f"More than luck; but {others} cannot be told from it."


def _standard_errors(scored, arms):
    """Return each arm's standard error (in the arms' order), its degrees of freedom, and what it was taken from."""
    by_arm = scored.groupby("arm")
    df = int((by_arm["value"].count() - 1).sum())
    squares = float(((scored["value"] - by_arm["value"].transform("mean")) ** 2).sum())
    if df > 0 and _is_spread(squares, scored["value"]):
        return np.sqrt(squares / df / arms["n"].to_numpy()), df, OVER_SEEDS
    widths = (by_arm["high"].mean() - by_arm["low"].mean()).reindex(arms["arm"]).to_numpy()
    if np.isfinite(widths).all() and (widths > 0).any():
        # Several seeds do not lessen it: they were scored on the same windows.
        return widths / 2 / NormalDist().inv_cdf(0.975), np.inf, OVER_WINDOWS
    return np.full(len(arms), np.nan), np.inf, None


def _paired_error(scored):
    """Return the standard error of an arm's mean within seeds and its degrees of freedom; None where arms lack some."""
    if scored.duplicated(["arm", "seed"]).any():
        return None
    table = scored.pivot(index="arm", columns="seed", values="value")
    n_arms, n_seeds = table.shape
    if min(n_arms, n_seeds) < 2 or table.isna().any(axis=None):
        return None
    values = table.to_numpy()
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    df, squares = (n_arms - 1) * (n_seeds - 1), float((rest**2).sum())
    return (np.sqrt(squares / df / n_seeds), df) if _is_spread(squares, values) else None


def _is_spread(squares, values):
    """Tell whether squared residuals are more than the rounding of the values."""
    return squares > 1e-24 * float((np.asarray(values) ** 2).sum())


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
