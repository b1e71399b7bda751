"""The attainable scores of the simulated markets, by the exact oracle: `python -m benchmarks.attainable`.

Writes `reports/ATTAINABLE.md`. Equal settings give equal tables, to the last digit.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

SEED = 17
N_WINDOWS = 4000
N_SESSIONS = 500  # of eight planted windows
BARE_STRENGTHS = (1.25, 1.5, 2.0, 3.0)
BAR_SETTINGS = ((1.0, 0.0), (1.5, 0.0), (2.0, 0.0), (2.0, 0.5), (3.0, 0.0))
# spec section 10: onset Hit@3 and Joint@3 of the bare law's oracle, 600 windows, ±.04
QUOTED = {1.25: "–", 1.5: ".61 / .38", 2.0: ".88 / .79", 3.0: ".99 / .98"}
FIGURES = {
    "hit3_start": "start within 3",
    "hit3_end": "end within 3",
    "joint3": "both within 3",
    "inside_f1": "F1 inside",
    "countdown_mae": "countdown MAE (bars)",
    "type_accuracy": "state right",
}
PATH = Path(__file__).parents[1] / "reports" / "ATTAINABLE.md"


def score_bare(strength, n_windows=N_WINDOWS):
    """Return (oracle, constant) text by figure for the bare law, and the mean claimed Hit@3."""
    from moola_lib.evaluation import oracle
    from moola_lib.evaluation.likelihoods import bare_log_likelihoods
    from moola_lib.market import REFERENCE, simulate_windows

    law = replace(REFERENCE, strength=strength)
    windows = simulate_windows(n_windows, seed=SEED, law=law)
    known = oracle.posterior(bare_log_likelihoods(windows.log_return, windows.log_range, law))
    return _scores(known, law, np.arange(n_windows), windows.start, windows.end)


def score_bars(strength, drift, n_sessions=N_SESSIONS):
    """Return the same for the bar generator."""
    from moola_lib.evaluation import oracle
    from moola_lib.evaluation.likelihoods import market_windows
    from moola_lib.market import simulate_bars

    market = simulate_bars(n_sessions, seed=SEED, strength=strength, drift=drift)
    likelihoods, start, end, state = market_windows(market)
    known = oracle.posterior(likelihoods)
    return _scores(known, market.law, market.planted["session"].to_numpy(), start, end, state)


def write_tables(path=PATH):
    """Compute every table and write the page."""
    from moola_lib.files import write_text
    from moola_lib.market import NQ_LIKE, REFERENCE

    bare = [(f"{r:g}", score_bare(r), QUOTED[r]) for r in BARE_STRENGTHS]
    bars = [(f"{r:g}, {drift:g}", score_bars(r, drift), None) for r, drift in BAR_SETTINGS]
    n_bars = N_SESSIONS * 8
    text = f"""# What can be attained on the simulated markets

Written by `python -m benchmarks.attainable`; do not edit by hand. The oracle is the exact posterior over (start, end)
given the law ([moola_lib/evaluation/oracle.py](../moola_lib/evaluation/oracle.py)); for each figure it takes the
decision that is best for that figure. The constant does the same before seeing any bar. ± is half of a 95% interval
(bootstrap; of whole sessions for bars). *Claimed* is the oracle's own mean probability of its start hits.

## Bare law, {N_WINDOWS:,} windows, seed {SEED}

{_table("r", bare)}

The last column is what the specification quotes from 600 windows (start and both edges within 3; ±.04).

## Bar generator, {n_bars:,} windows of {N_SESSIONS} sessions, seed {SEED}

With the state before each expansion drawn; at r = 1 without drift only the states tell where an expansion begins.

{_table("r, drift", bars)}

The oracle sees moves and wicks before they are rounded to ticks, and knows the session's level, which no window shows;
volume follows from the range and adds nothing. What it scores is therefore an upper bound.

## Settings

Bare law (`REFERENCE`): {_setting(REFERENCE)}

Bar generator (`NQ_LIKE`): {_setting(NQ_LIKE)}
"""
    write_text(path, text)
    return path


def _scores(known, law, blocks, start, end, state=None):
    """Return {figure: (oracle text, constant text)}; `claimed` is the oracle's mean probability of a start hit."""
    from moola_lib.evaluation.decisions import attainable_scores, hit_probability

    found = {"claimed": f"{hit_probability(known).mean():.3f}"}
    for row in attainable_scores(known, law, blocks, start, end, state).itertuples():
        half = (row.high - row.low) / 2, (row.constant_high - row.constant_low) / 2
        found[row.figure] = f"{row.oracle:.3f} ± {half[0]:.3f}", f"{row.constant:.3f} ± {half[1]:.3f}"
    return found


def _table(label, rows):
    """Return a Markdown table: a row a setting, oracle and constant of each figure."""
    names = [name for name in FIGURES if name in rows[0][1]]
    quoted = rows[0][2] is not None
    head = [label, "", *(FIGURES[name] for name in names), "claimed", *(["quoted"] if quoted else [])]
    lines = [head, ["---"] * len(head)]
    for setting, scores, quote in rows:
        oracle_cells = [scores[name][0] for name in names]
        constant_cells = [scores[name][1] for name in names]
        lines.append([setting, "oracle", *oracle_cells, scores["claimed"], *([quote] if quoted else [])])
        lines.append(["", "constant", *constant_cells, "", *([""] if quoted else [])])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _setting(law):
    return ", ".join(f"{name} {value}" for name, value in asdict(law).items()) + "."


if __name__ == "__main__":
    print(write_tables())
