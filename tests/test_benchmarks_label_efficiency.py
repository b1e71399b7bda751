"""The page of label efficiency is of the study that the code describes."""

from types import SimpleNamespace

from benchmarks import label_efficiency
from moola_lib.features.sets import FEATURE_SETS


def arms():
    table = SimpleNamespace(names=FEATURE_SETS["relativity11"].columns)
    return label_efficiency.build_arms(table, {"bars": "a", "shuffled": "b"}, "c")


def test_the_page_holds_every_arm_size_and_setting():
    page = label_efficiency.PATH.read_text()
    for arm in arms():
        n_tables = 4 if arm.name in label_efficiency.RIVALS else 2  # starts and both edges: worth, and gains over it
        assert page.count(f"| {arm.name} |") == n_tables
    assert f"seed {label_efficiency.SEED};" in page
    assert page.count("| labels | " + " | ".join(map(str, label_efficiency.SIZES)) + " |") == 4


def test_arms_differ_in_the_encoder_alone_and_the_amortised_one_is_a_whole_model():
    *others, amortised = arms()
    assert len({str(arm.options) for arm in others}) == 1
    n_epochs = {arm.settings.n_frozen_epochs + arm.settings.n_unfrozen_epochs for arm in others}
    assert n_epochs == {label_efficiency.N_EPOCHS}
    assert amortised.weights == "c" and amortised.encoder is None
    assert [arm.name for arm in others if arm.encoder is None] == ["random, frozen", "random, fine-tuned"]
