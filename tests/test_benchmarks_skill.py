"""The committed page of skills belongs to the settings as they are now."""

import pytest

from benchmarks import skill

TEXT = skill.PATH.read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", skill.SETTINGS, ids=skill.title)
def test_every_setting_has_its_section_with_every_method(setting):
    from moola_lib.evaluation.skill import BASELINES_OF_RECORD

    assert f"## {skill.title(setting)}\n" in TEXT, "run python -m benchmarks.skill"
    section = TEXT.split(f"## {skill.title(setting)}\n")[1].split("\n## ")[0]
    ours = skill.OURS if setting.n_epochs else skill.OURS[:1]
    for name in ("oracle", *BASELINES_OF_RECORD, *ours):
        assert f"\n| {name} |" in section
    assert ("asked" in section) is (setting.least is not None)


def test_the_page_says_how_many_training_sets_there_were():
    assert f"mean over {skill.N_DRAWS} training sets ({skill.N_ENCODED} where" in TEXT
    assert f"ensemble of {len(skill.ENSEMBLE)}" in TEXT
