"""How much of what can be known is attained, on simulated windows with the oracle beside: `python -m benchmarks.skill`.

Writes `reports/SKILL.md`. Equal settings give equal tables. In the group `skill`
of `python -m benchmarks` the same studies run with one training set and without encoder.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks.runner import Figure

SEED = 7301  # of the first study; none of these seeds was looked at while the methods were chosen
N_DRAWS = 3
N_ENCODED = 2  # training sets on which encoders are trained too: they cost ten times the rest
ENSEMBLE = (17, 18, 19)
PATH = Path(__file__).parents[1] / "reports" / "SKILL.md"
OURS = ("linear scores", "with encoder", f"ensemble of {len(ENSEMBLE)}")


@dataclass(frozen=True)
class Setting:
    """One law, how many labels are given, and what is asked of the start's attainable skill.

    Attributes
    ----------
    kind : {"bare", "bars", "null"}
    strength, drift : float
    n_labels, n_test : int
    least, goal : float or None
        What must be reached, and what is hoped for.
    n_epochs : int
        Of the encoder's contribution.
    """

    kind: str
    strength: float
    drift: float
    n_labels: int
    n_test: int
    least: float | None = None
    goal: float | None = None
    n_epochs: int = 0


SETTINGS = (
    Setting("bare", 2.0, 0.0, 139, 4000, least=0.95, goal=0.98, n_epochs=4),
    Setting("bare", 2.0, 0.0, 40, 4000, least=0.92, goal=0.96, n_epochs=4),
    Setting("bare", 1.5, 0.0, 139, 4000, least=0.93, goal=0.96, n_epochs=4),
    Setting("bars", 2.0, 0.5, 139, 2000, n_epochs=12),
    Setting("null", 1.0, 0.0, 139, 2000),
)


def draw_study(setting, n_draws=N_DRAWS):
    """Return the windows of a setting."""
    from moola_lib.evaluation.skill import study_bare_law, study_bars
    from moola_lib.market import NQ_LIKE

    sizes = {"n_labels": setting.n_labels, "n_test": setting.n_test, "n_draws": n_draws}
    seed = SEED + SETTINGS.index(setting)
    if setting.kind == "bare":
        return study_bare_law(setting.strength, seed=seed, **sizes)
    law = replace(NQ_LIKE, has_states=setting.kind != "null")
    return study_bars(setting.strength, setting.drift, law=law, seed=seed, **sizes)


def answer_setting(setting, n_draws=N_DRAWS, n_encoded=N_ENCODED, *, names=None):
    """Return (study, answers) of a setting: the named baselines' (default all), and ours."""
    import torch

    from moola_lib.evaluation.skill import BASELINES_OF_RECORD, answer_study
    from moola_lib.evaluation.skill_methods import MIRRORED, answer_by_encoder, answer_by_scores, baselines
    from moola_lib.learning.linear_fit import STEADY

    torch.set_num_threads(1)
    study = draw_study(setting, n_draws)
    penalty = MIRRORED if setting.kind == "bare" else STEADY
    answers = answer_study(
        study, [*baselines(names or BASELINES_OF_RECORD), partial(answer_by_scores, penalty=penalty)]
    )
    if setting.n_epochs and n_encoded:
        ours = partial(answer_by_encoder, penalty=penalty, n_epochs=setting.n_epochs, seeds=ENSEMBLE)
        answers |= answer_study(study, [ours], n_draws=n_encoded)
    return study, answers


def write_tables(path=PATH, n_workers=2):
    """Run every study and write the page."""
    from moola_lib.files import write_text

    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        sections = list(pool.map(describe_setting, SETTINGS))
    write_text(path, page(sections))
    return path


def page(sections):
    """Return the page's text."""
    body = "\n".join(sections)
    return f"""# How much of what can be known is attained

Written by `python -m benchmarks.skill`; do not edit by hand. Windows are simulated, so that the best any method can
do is known: the oracle is the exact posterior over (start, end) given the law. *Attainable skill* is (method −
constant) / (oracle − constant) of the start within 3 bars, on the same windows. Every posterior answers each figure
by the decision that is best for that figure. A figure is the mean over {N_DRAWS} training sets ({N_ENCODED} where an
encoder is trained, and comparisons with those are on the same {N_ENCODED}); ± is half of its 95%
interval (bootstrap of the test windows; of whole sessions for bars), and what follows the comma is the standard
deviation between the training sets. No seed here was looked at while the methods were chosen.

*Linear segments* is the plain model: additive scores of ±5 bars. *Linear scores* are those of our segment posterior:
also means after an edge against those before it, both directions, and the penalties of
[skill_methods.py](../moola_lib/evaluation/skill_methods.py). *With encoder* adds what a BiLSTM contributes to them,
which starts at zero; *ensemble* is the mean of {len(ENSEMBLE)} such posteriors.

{body}"""


def describe_setting(setting):
    """Return the page's section of one setting."""
    from moola_lib.evaluation.skill import skill_frame

    study, answers = answer_setting(setting)
    frame = skill_frame(study, answers)
    parts = [f"## {title(setting)}\n", _table(frame), ""]
    ours = [name for name in OURS if name in answers]
    parts += [_compare(study, answers, name) for name in ours]
    if OURS[1] in answers:
        parts.append(_say_what_the_encoder_adds(study, answers))
    if setting.least is not None:
        parts += [_judge(setting, name, frame.loc[name]) for name in ours]
    return "\n".join(parts) + "\n"


def title(setting):
    """Return a setting in words."""
    kinds = {"bare": "Bare law", "bars": "Bars", "null": "Null market"}
    text = f"{kinds[setting.kind]}, r = {setting.strength:g}, drift {setting.drift:g}, {setting.n_labels} labels, "
    return text + f"{setting.n_test:,} test windows, seed {SEED + SETTINGS.index(setting)}"


def _table(frame):
    """Return a Markdown table, a row a method."""
    from moola_lib.evaluation.skill import skill_table

    table = skill_table(frame)
    lines = [["", *table.columns], ["---"] * (len(table.columns) + 1)]
    lines += [[name, *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _compare(study, answers, name):
    """Return a line for each figure: one of our arms against linear segments, the best other baseline, the constant."""
    from moola_lib.evaluation.skill import LINEAR, best_rival, compare_answers

    lines = []
    for figure, words in (("joint", "both edges"), ("start", "start")):
        gains = []
        for other in dict.fromkeys((LINEAR, best_rival(answers, figure), "constant")):
            gains.append(f"{_gain(compare_answers(study, answers, name, other, figure))} over {other}")
        lines.append(f"- *{name}*, {words}: {'; '.join(gains)}.")
    return "\n".join(lines)


def _say_what_the_encoder_adds(study, answers):
    """Return a line: the encoder's arm against the linear scores that it starts from."""
    from moola_lib.evaluation.skill import compare_answers

    both, start = (_gain(compare_answers(study, answers, *OURS[1::-1], figure)) for figure in ("joint", "start"))
    words = f"the linear scores of the same {len(answers[OURS[1]]['start'])} training sets"
    return f"- What the encoder adds to {words}: both edges {both}, start {start}."


def _gain(gain):
    return f"{gain['difference']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}, {gain['verdict']})"


def _judge(setting, name, row):
    """Return a sentence: whether the goal is met, by the number."""
    words = "met" if row["skill"] >= setting.least else "MISSED"
    hoped = "met" if row["skill"] >= setting.goal else "missed"
    found = f"skill {row['skill']:.3f} ({row['n_draws']:.0f} training sets)"
    return f"- *{name}*: {found}, asked {setting.least:g}: {words}; goal {setting.goal:g}: {hoped}."


@cache
def _quick(setting):
    """Return (study, answers) of one training set, without encoder."""
    names = ("constant", "linear segments", "logistic regression")
    return answer_setting(setting, 1, 0, names=names)


def skill_of(setting):
    """Return the attainable skill of the start by our linear scores."""
    from moola_lib.evaluation.skill import skill_frame

    study, answers = _quick(setting)
    return float(skill_frame(study, answers, n_bootstrap=10).loc["linear scores", "skill"])


def gain_of(setting, other, figure="joint", end="difference"):
    """Return how much more often our linear scores are right than another method."""
    from moola_lib.evaluation.skill import compare_answers

    return compare_answers(*_quick(setting), "linear scores", other, figure)[end]


def figures():
    """Return the group's figures."""
    found = []
    for setting in SETTINGS:
        words = title(setting).split(", seed")[0]
        if setting.least is not None:
            found.append(Figure(f"attainable skill: {words}", f"≥ {setting.least:g}", partial(skill_of, setting)))
        if setting.kind == "null":
            low = partial(gain_of, setting, "constant", "start", "low")
            found.append(Figure(f"start over the constant, lower end: {words}", "≤ 0", low))
        else:
            gain = partial(gain_of, setting, "linear segments")
            found.append(Figure(f"both edges over linear segments: {words}", "≥ 0", gain))
            low = partial(gain_of, setting, "logistic regression", end="low")
            found.append(Figure(f"both edges over logistic regression, lower end: {words}", "≥ 0", low))
    return found


BENCHMARKS = figures()

if __name__ == "__main__":
    print(write_tables())
