"""Gates compare numbers: PASS or FAIL by the figure, never by mood.

Health gates judge a figure alone. Learning gates pass only if the figure meets
its target and its 95 % interval lies wholly on the better side of the best
baseline; the stricter ones ask for the paired difference from every baseline, or
for a whole interval beyond a level.
"""

import operator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

SYMBOLS = {"at_least": "≥", "above": ">", "at_most": "≤", "below": "<"}
PASS, FAIL, OFF, NOT_A_SCALE = "PASS", "FAIL", "OFF", "NOT A SCALE"


@dataclass(frozen=True)
class Gate:
    """One line of the gates table.

    Attributes
    ----------
    name : str
    kind : {"health", "learning"}
    value, low, high : float or None
    target : str
        For example "≥ 0.60".
    baseline : str or None
        Best baseline with its figure.
    verdict : {"PASS", "FAIL", "OFF", "NOT A SCALE"}
    """

    name: str
    kind: str
    value: float | None
    low: float | None
    high: float | None
    target: str
    baseline: str | None
    verdict: str

    def as_dict(self):
        """Return the gate as plain JSON."""
        return asdict(self)


def health_gate(name, value, *, not_a_scale=False, **bounds):
    """Judge a figure by its bounds alone.

    Parameters
    ----------
    name : str
    value : float
        NaN fails.
    not_a_scale : bool
        Print the figure and its target, but say that it measures nothing.
    **bounds
        One or two of `at_least`, `at_most` (inclusive), `above`, `below`
        (exclusive), float.

    Returns
    -------
    Gate
    """
    value = float(value)
    is_met = _meets(value, bounds)
    verdict = NOT_A_SCALE if not_a_scale else PASS if is_met else FAIL
    return Gate(name, "health", value, None, None, _target(bounds), None, verdict)


def learning_gate(name, row, *, baselines=(), is_off=False, **bounds):
    """Judge a figure by its target and by the best baseline.

    Parameters
    ----------
    name : str
    row : Series or dict
        A row of `score_prediction`: `value`, `low`, `high`, and one figure per baseline.
    baselines : sequence of str
        Columns of `row` that hold baselines; those that are NaN define nothing.
    is_off : bool
        Print the figures without a verdict (labels made by a rule).
    **bounds
        The target: exactly one of `at_least`, `above`, `at_most`, `below`; it
        decides which side is better.

    Returns
    -------
    Gate
    """
    if len(bounds) != 1:
        raise ValueError(f"gate {name!r} needs exactly one of {', '.join(SYMBOLS)}")
    sign = 1 if next(iter(bounds)) in ("at_least", "above") else -1
    levels = {column: float(row[column]) for column in baselines if np.isfinite(row[column])}
    value, low, high = (float(row[column]) for column in ("value", "low", "high"))
    if levels:
        best = max(levels, key=lambda column: sign * levels[column])
        text = f"{best} {levels[best]:.3g}"
        worse_end = low if sign > 0 else high
        is_met = _meets(value, bounds) and sign * worse_end > sign * levels[best]
    else:
        text, is_met = "none defined", False  # without a baseline nothing is shown to be learned
    verdict = OFF if is_off else PASS if is_met else FAIL
    return Gate(name, "learning", value, low, high, _target(bounds), text, verdict)


def interval_gate(name, row, *, kind="learning", is_off=False, **bounds):
    """Judge a figure by its whole 95% interval: no value in it may miss the bounds.

    For figures whose target is itself the level of no skill: balanced accuracy
    above .50, a Brier skill or a paired difference above 0.

    Parameters
    ----------
    name : str
    row : Series or dict
        `value`, `low`, `high`.
    kind : {"health", "learning"}
    is_off : bool
        Print the figures without a verdict (labels made by a rule).
    **bounds
        One or two of `at_least`, `at_most`, `above`, `below`.

    Returns
    -------
    Gate
    """
    value, low, high = (float(row[column]) for column in ("value", "low", "high"))
    is_met = all(_meets(end, bounds) for end in (low, value, high))
    verdict = OFF if is_off else PASS if is_met else FAIL
    return Gate(name, kind, value, low, high, f"interval {_target(bounds)}", None, verdict)


def each_baseline_gate(name, comparisons, *, metric, is_off=False, **bounds):
    """Judge a figure by its target and by the paired difference from every baseline.

    Parameters
    ----------
    name : str
    comparisons : DataFrame
        From `scores.compare_with_each`: its verdicts are adjusted for the number
        of baselines.
    metric : str
        Rows to judge.
    is_off : bool
        Print the figures without a verdict (labels made by a rule).
    **bounds
        The target, if there is one beside the baselines.

    Returns
    -------
    Gate
        PASS needs BETTER against each. The baseline named is the one least surely
        beaten, with the interval of the difference to it.
    """
    rows = comparisons[comparisons["metric"] == metric] if len(comparisons) else comparisons
    target = "better than each baseline" + (f", {_target(bounds)}" if bounds else "")
    if len(rows) == 0:  # without a baseline nothing is shown to be learned
        return Gate(name, "learning", None, None, None, target, "none defined", OFF if is_off else FAIL)
    rows = rows.sort_values(["low", "difference"], na_position="first")
    least, value = rows.iloc[0], float(rows["value"].iloc[0])
    n_better = int((rows["verdict"] == "BETTER").sum())
    is_met = n_better == len(rows) and (not bounds or _meets(value, bounds))
    low, high = float(least["value_low"]), float(least["value_high"])
    text = (
        f"{least['baseline']} {least['other']:.3g} (better by {least['low']:.2g} to {least['high']:.2g}; "
        f"better than {n_better} of {len(rows)})"
    )
    return Gate(name, "learning", value, low, high, target, text, OFF if is_off else PASS if is_met else FAIL)


def gates_frame(gates):
    """Return the gates as a frame for display: three significant digits, and all of a thousand and more."""
    rows = []
    for gate in gates:
        between = "" if gate.low is None else f"{_say(gate.low)} to {_say(gate.high)}"
        rows.append(
            {
                "gate": gate.name,
                "kind": gate.kind,
                "figure": "none" if gate.value is None else _say(gate.value),
                "95 % interval": between,
                "target": gate.target,
                "best baseline": gate.baseline or "",
                "verdict": gate.verdict,
            }
        )
    return pd.DataFrame(rows)


def _say(value):
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.3g}"


def _meets(value, bounds):
    """Tell whether a figure keeps every bound; NaN never does."""
    unknown = set(bounds) - set(SYMBOLS)
    if unknown or not bounds:
        raise ValueError(f"bounds {sorted(bounds)} must be one or two of {', '.join(SYMBOLS)}")
    tests = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}
    return bool(np.isfinite(value)) and all(tests[name](value, bound) for name, bound in bounds.items())


def _target(bounds):
    """Return the bounds as text."""
    if set(bounds) == {"at_least", "at_most"}:
        return f"{bounds['at_least']:g} to {bounds['at_most']:g}"
    return " and ".join(f"{SYMBOLS[name]} {bound:g}" for name, bound in bounds.items())
