"""How much of what could be known each method attains: studies on simulated windows, with the oracle beside."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moola_lib.evaluation.decisions import attainable_skill, best_span, best_start
from moola_lib.evaluation.inputs import WindowInputs, bare_study, collect_inputs
from moola_lib.evaluation.intervals import day_block_weights, interval, verdict
from moola_lib.evaluation.likelihoods import bare_log_likelihoods, market_windows
from moola_lib.evaluation.metrics import TOLERANCE_BARS
from moola_lib.evaluation.oracle import Posterior, posterior
from moola_lib.market import NQ_LIKE, REFERENCE, simulate_bars, simulate_windows
from moola_lib.windows.places import LabelledWindows
from moola_lib.windows.simulated import planted_windows

LINEAR = "linear segments"
BASELINES_OF_RECORD = ("constant", "ATR rule", "change points", LINEAR, "logistic regression", "gradient boosting")
PER_SESSION = 8  # planted windows of a simulated session
HEADINGS = {"start": "start within 3", "joint": "both within 3", "skill": "attainable skill", "state": "state right"}


@dataclass(frozen=True)
class SkillStudy:
    """Windows of one law: several sets to train on, one to test on, and the best that can be known of the latter.

    Attributes
    ----------
    name : str
    draws : tuple of LabelledWindows
        Training sets that share no window.
    test : LabelledWindows
    inputs : WindowInputs
        Of all windows.
    known : oracle.Posterior
        Of the test windows.
    has_states : bool
        Whether the state before can be told at all.
    """

    name: str
    draws: tuple
    test: LabelledWindows
    inputs: WindowInputs
    known: Posterior
    has_states: bool


def study_bare_law(strength=2.0, *, n_labels=139, n_test=4000, n_draws=1, seed=7101):
    """Draw a study of the bare law, setting `reference`, drift 0.

    Parameters
    ----------
    strength : float
    n_labels : int
        Windows of each training set.
    n_test, n_draws : int
    seed : int

    Returns
    -------
    SkillStudy
    """
    law = replace(REFERENCE, strength=strength)
    simulated = simulate_windows(n_draws * n_labels + n_test, seed=seed, law=law)
    windows, inputs = bare_study(simulated)
    first = n_draws * n_labels
    known = posterior(bare_log_likelihoods(simulated.log_return[first:], simulated.log_range[first:], law))
    return SkillStudy(
        f"bare law, r = {strength:g}, {n_labels} labels",
        tuple(windows.take(slice(n * n_labels, (n + 1) * n_labels)) for n in range(n_draws)),
        windows.take(slice(first, None)),
        inputs,
        known,
        has_states=False,
    )


def study_bars(strength=2.0, drift=0.5, *, law=NQ_LIKE, n_labels=139, n_test=2000, n_draws=1, seed=7201):
    """Draw a study of the bar generator, seen as `relativity11`; see `study_bare_law`.

    Training sets come first, then the test sessions. `law` without states and
    with strength 1 is the null market.
    """
    from moola_lib.features import build_features
    from moola_lib.windows.gather import WindowGatherer

    sessions = -(-n_labels // PER_SESSION)
    first = n_draws * sessions * PER_SESSION
    market = simulate_bars(n_draws * sessions - (-n_test // PER_SESSION), seed, strength, drift, law=law)
    likelihoods, *_ = market_windows(market)
    frame = market.bars.frame
    windows = planted_windows(market)
    rows = np.arange(first, len(windows))
    known = posterior(likelihoods)
    return SkillStudy(
        f"bars, r = {strength:g}, drift {drift:g}, {n_labels} labels",
        tuple(windows.take(n * sessions * PER_SESSION + np.arange(n_labels)) for n in range(n_draws)),
        windows.take(rows),
        collect_inputs(windows, WindowGatherer(build_features(market.bars)), frame),
        replace(
            known,
            span=known.span[rows],
            state=None if known.state is None else known.state[rows],
            log_bayes_factor=known.log_bayes_factor[rows],
        ),
        has_states=law.has_states,
    )


def answer_study(study, methods, *, n_draws=None, on_answer=None):
    """Train every method on every training set and score its answers by the decision that is best for each figure.

    Parameters
    ----------
    study : SkillStudy
    methods : list of callable
        Called (study, train), each yields (name, answer) of the test windows:
        a Posterior, or a Prediction where a method answers one span.
    n_draws : int, optional
        Train on the first so many sets only.
    on_answer : callable(str, int), optional
        Called with each name and draw when answered.

    Returns
    -------
    dict of str to dict of str to ndarray (n_draws, n_test), bool
        By method (the oracle's is `oracle`, of one draw) and figure: `start`
        and `joint` within 3 bars, and `state` right where both have one.
    """
    found = {"oracle": {name: [hits] for name, hits in _hits(study, study.known).items()}}
    for draw, train in enumerate(study.draws[:n_draws]):
        for method in methods:
            for name, answer in method(study, train):
                for figure, hits in _hits(study, answer).items():
                    found.setdefault(name, {}).setdefault(figure, []).append(hits)
                if on_answer is not None:
                    on_answer(name, draw)
    return {name: {figure: np.array(rows) for figure, rows in each.items()} for name, each in found.items()}


def skill_frame(study, answers, *, n_bootstrap=1000, seed=17):
    """Return every method's figures with their intervals.

    Each figure is a mean over training sets; its interval is a bootstrap of the
    test windows (of whole days) for these training sets, and `_spread` the
    standard deviation between them.

    Parameters
    ----------
    study : SkillStudy
    answers : dict
        From `answer_study`; with `constant`, without which there is no skill.
    n_bootstrap : int
    seed : int

    Returns
    -------
    DataFrame
        A row a method, by `method`: `start`, `joint` and `state` (share) and
        `skill` (attainable skill of the start), each with `_low`, `_high` and
        `_spread`; `n_draws`, `n_test`.
    """
    weights = day_block_weights(study.test.day, n_bootstrap=n_bootstrap, seed=seed)
    weights = np.vstack([np.ones(len(study.test)), weights])  # the first row is the figure itself
    shares = {name: {figure: _shares(weights, hits) for figure, hits in each.items()} for name, each in answers.items()}
    low, high = (shares[name]["start"].mean(axis=1) for name in ("constant", "oracle"))
    rows = []
    for name, each in shares.items():
        each = each | {"skill": attainable_skill(each["start"], low[:, None], high[:, None])}
        row = {"method": name, "n_draws": each["start"].shape[1], "n_test": len(study.test)}
        for figure, values in each.items():
            mean = values.mean(axis=1)
            row |= {figure: mean[0]} | dict(zip((f"{figure}_low", f"{figure}_high"), interval(mean[1:]), strict=True))
            row[f"{figure}_spread"] = values[0].std(ddof=1) if values.shape[1] > 1 else np.nan
        rows.append(row)
    return pd.DataFrame(rows).set_index("method")


def skill_table(frame):
    """Return a frame of `skill_frame` as text to show.

    Returns
    -------
    DataFrame
        A row a method: each figure ± half of its interval, and after a comma
        its standard deviation between training sets; – where it has none.
    """

    def cell(row, figure):
        if not np.isfinite(row[figure]):
            return "–"
        text = f"{row[figure]:.3f} ± {(row[f'{figure}_high'] - row[f'{figure}_low']) / 2:.3f}"
        spread = row[f"{figure}_spread"]
        return f"{text}, {spread:.3f}" if np.isfinite(spread) else text

    shown = {figure: heading for figure, heading in HEADINGS.items() if figure in frame}
    return pd.DataFrame(
        {heading: [cell(row, figure) for _, row in frame.iterrows()] for figure, heading in shown.items()},
        index=frame.index,
    )


def compare_answers(study, answers, one, other, figure="joint", *, n_bootstrap=1000, seed=17):
    """Return how much more often one method is right than another on the same windows, and whether that is so.

    Over the training sets that both were given. The interval is of the test
    windows; a difference whose sign is not the same on every training set is
    inconclusive whatever its interval says, since a further one may turn it.

    Parameters
    ----------
    study, answers
        As for `skill_frame`.
    one, other : str
        Methods.
    figure : {"start", "joint", "state"}
    n_bootstrap : int
    seed : int

    Returns
    -------
    dict
        `difference`, `low`, `high`, `verdict`; `by_draw` (n_draws,), the difference on each training set.
    """
    weights = day_block_weights(study.test.day, n_bootstrap=n_bootstrap, seed=seed)
    n_draws = min(len(answers[name][figure]) for name in (one, other))
    ours, theirs = (answers[name][figure][:n_draws].astype(np.float64) for name in (one, other))
    by_draw = (ours - theirs).mean(axis=1)
    low, high = interval(weights @ (ours - theirs).mean(axis=0) / weights.sum(axis=1))
    is_one_sided = (by_draw > 0).all() or (by_draw < 0).all()
    word = verdict(low, high) if is_one_sided else "INCONCLUSIVE"
    return {"difference": float(by_draw.mean()), "low": low, "high": high, "verdict": word, "by_draw": by_draw}


def best_rival(answers, figure="joint"):
    """Return the baseline of record, linear segments apart, that is right most often."""
    rivals = [name for name in BASELINES_OF_RECORD if name in answers and name != LINEAR]
    return max(rivals, key=lambda name: answers[name][figure].mean())


def _hits(study, answer):
    """Return by figure which test windows an answer gets right, (n_test,) bool each."""
    test = study.test
    if isinstance(answer, Posterior):
        start, (first, last), state = best_start(answer), best_span(answer), answer.state
    else:
        start, first, last, state = answer.start, answer.start, answer.end, answer.type_probability
    near = np.abs(first - test.start) <= TOLERANCE_BARS, np.abs(last - test.end) <= TOLERANCE_BARS
    found = {"start": np.abs(start - test.start) <= TOLERANCE_BARS, "joint": near[0] & near[1]}
    if study.has_states and state is not None:
        found["state"] = state.argmax(axis=1) == test.state
    return found


def _shares(weights, hits):
    """Return the weighted share of hits of each draw, (n_weights, n_draws)."""
    return weights @ hits.T.astype(np.float64) / weights.sum(axis=1, keepdims=True)
