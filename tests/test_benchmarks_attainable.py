"""The committed table of attainable scores belongs to the laws as they are now."""

import pytest

from benchmarks import attainable
from moola_lib.market import NQ_LIKE, REFERENCE

TEXT = attainable.PATH.read_text(encoding="utf-8")


@pytest.mark.parametrize("law", [REFERENCE, NQ_LIKE])
def test_the_committed_table_names_the_present_law(law):
    assert attainable._setting(law) in TEXT, "run python -m benchmarks.attainable"


def test_every_setting_has_a_row():
    for strength in attainable.BARE_STRENGTHS:
        assert f"| {strength:g} | oracle |" in TEXT
    for strength, drift in attainable.BAR_SETTINGS:
        assert f"| {strength:g}, {drift:g} | oracle |" in TEXT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "score"),
    [("2", lambda: attainable.score_bare(2.0)), ("2, 0.5", lambda: attainable.score_bars(2.0, 0.5))],
)
def test_a_row_computed_again_is_the_committed_row(setting, score):
    scores = score()
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"| {setting} | oracle |")]
    for name in attainable.FIGURES:
        if name in scores:
            assert f"| {scores[name][0]} |" in line
    assert f"| {scores['claimed']} |" in line
