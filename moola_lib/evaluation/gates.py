"""Gates compare numbers: PASS or FAIL by the figure, never by mood.

Health gates judge a figure alone. Learning gates pass only if the figure meets
its target and its 95 % interval lies wholly on the better side of the best
baseline.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

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


def health_gate(name, value, *, at_least=None, at_most=None, not_a_scale=False):
    """Judge a figure by its bounds alone.

    Parameters
    ----------
    name : str
    value : float
        NaN fails.
    at_least, at_most : float, optional
        Inclusive bounds; give one or both.
    not_a_scale : bool
        Print the figure and its target, but say that it measures nothing.

    Returns
    -------
    Gate
    """
    value = float(value)
    is_met = _meets(value, at_least, at_most)
    verdict = NOT_A_SCALE if not_a_scale else PASS if is_met else FAIL
    return Gate(name, "health", value, None, None, _target(at_least, at_most), None, verdict)


def learning_gate(name, row, *, at_least=None, at_most=None, baselines=(), is_off=False):
    """Judge a figure by its target and by the best baseline.

    Parameters
    ----------
    name : str
    row : Series or dict
        A row of `score_prediction`: `value`, `low`, `high`, and one figure per baseline.
    at_least, at_most : float, optional
        The target; exactly one is given and decides which side is better.
    baselines : sequence of str
        Columns of `row` that hold baselines; those that are NaN define nothing.
    is_off : bool
        Print the figures without a verdict (labels made by a rule).

    Returns
    -------
    Gate
    """
    if (at_least is None) == (at_most is None):
        raise ValueError(f"gate {name!r} needs exactly one of at_least and at_most")
    sign = 1 if at_least is not None else -1
    levels = {column: float(row[column]) for column in baselines if np.isfinite(row[column])}
    value, low, high = (float(row[column]) for column in ("value", "low", "high"))
    is_met = _meets(value, at_least, at_most)
    text = None
    if levels:
        best = max(levels, key=lambda column: sign * levels[column])
        text = f"{best} {levels[best]:.3g}"
        worse_end = low if sign > 0 else high
        is_met = is_met and sign * worse_end > sign * levels[best]
    else:
        is_met = False  # without a baseline nothing is shown to be learned
        text = "none defined"
    verdict = OFF if is_off else PASS if is_met else FAIL
    return Gate(name, "learning", value, low, high, _target(at_least, at_most), text, verdict)


def gates_frame(gates):
    """Return the gates as a frame for display, figures rounded to three significant digits."""
    rows = []
    for gate in gates:
        between = "" if gate.low is None else f"{gate.low:.3g} to {gate.high:.3g}"
        rows.append(
            {
                "gate": gate.name,
                "kind": gate.kind,
                "figure": "none" if gate.value is None else f"{gate.value:.3g}",
                "95 % interval": between,
                "target": gate.target,
                "best baseline": gate.baseline or "",
                "verdict": gate.verdict,
            }
        )
    return pd.DataFrame(rows)


def _meets(value, at_least, at_most):
    """Tell whether a figure lies within inclusive bounds; NaN never does."""
    if not np.isfinite(value):
        return False
    return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)


def _target(at_least, at_most):
    """Return the bounds as text."""
    if at_least is not None and at_most is not None:
        return f"{at_least:g} to {at_most:g}"
    return f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}"
