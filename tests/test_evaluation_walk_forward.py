"""Walk-forward: the future is in no fit, blocks are scored as alone, one day gives no interval."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from moola_lib.errors import UserError
from moola_lib.evaluation.cross_validation import Arm, cross_fit_baselines
from moola_lib.evaluation.inputs import collect_inputs
from moola_lib.evaluation.metrics import Prediction
from moola_lib.evaluation.scores import score_prediction
from moola_lib.evaluation.walk_forward import FIGURES, say_walk_forward, score_blocks, walk_forward
from moola_lib.learning.finetune import FinetuneSettings
from moola_lib.models.jade import HEADS
from moola_lib.windows import forward_folds

SETTINGS = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=1, batch_size=8, n_threads=1)
ARM = Arm("small", "jade", SETTINGS, {"hidden_size": 4, "heads": HEADS["segment"], "start_range": (30, 74)})
QUICK = {"n_workers": 1, "n_bootstrap": 50}


@pytest.fixture(scope="module")
def study(labelled, gather, table, market):
    folds = forward_folds(labelled.place, labelled.day, n_folds=2, embargo_days=0)
    inputs = collect_inputs(labelled, gather, market.bars.frame)
    return labelled, folds, inputs, {"set_id": table.set_id, "names": gather.names}


@pytest.fixture(scope="module")
def walked(study, gather):
    windows, folds, inputs, features = study
    return walk_forward([ARM], gather, windows, folds, inputs, features=features, **QUICK)


def test_every_block_and_all_of_them_have_a_row_for_each_figure(walked, study):
    windows, folds, _, _ = study
    assert walked["block"].tolist() == [block for block in ("1", "2", "all") for _ in FIGURES]
    assert set(walked["metric"]) == set(FIGURES) and (walked["arm"] == "small").all()
    rows = walked[walked["metric"] == "hit3_start"].set_index("block")
    assert rows["n_test"].tolist() == [len(folds[0].test), len(folds[1].test), len(folds[0].test) + len(folds[1].test)]
    assert rows["n_train"][:2].tolist() == [len(fold.train) for fold in folds] and pd.isna(rows.loc["all", "n_train"])
    assert rows.loc["2", "first_day"] == str(windows.day[folds[1].test].min())
    shares = rows["value"] * rows["n_test"]
    assert shares["1"] + shares["2"] == pytest.approx(shares["all"])
    assert (rows["baseline"].notna() & rows["best_baseline"].notna()).all()
    assert np.allclose(rows["difference"], rows["value"] - rows["baseline"])


def test_labels_of_a_later_block_change_nothing_in_an_earlier_one(walked, study, gather):
    windows, folds, inputs, features = study
    last = np.isin(np.arange(len(windows)), folds[1].test)
    spans = np.where(last[:, None, None], np.array([[35, 40]]), windows.spans)
    other = replace(
        windows,
        spans=spans,
        start=spans[:, 0, 0],
        end=spans[:, 0, 1],
        state=np.where(last, 1 - windows.state, windows.state),
    )
    again = walk_forward([ARM], gather, other, folds, inputs, features=features, **QUICK)
    first = [table[table["block"] == "1"].reset_index(drop=True) for table in (walked, again)]
    pd.testing.assert_frame_equal(*first)
    assert not walked[walked["block"] == "2"].equals(again[again["block"] == "2"])


def test_a_block_is_scored_as_if_it_were_alone(study):
    windows, folds, inputs, _ = study
    n = len(windows)
    answer = Prediction(start=np.full(n, 50), end=np.full(n, 60))
    baselines = cross_fit_baselines(windows, folds, inputs)
    table = score_blocks(windows, folds, answer, baselines, n_bootstrap=50)
    rows = folds[1].test
    alone = score_prediction(
        windows.take(rows), {"": answer.take(rows), "constant": baselines["constant"].take(rows)}, n_bootstrap=50
    ).set_index("metric")
    own = table[table["block"] == "2"].set_index("metric")
    assert (
        own.loc["joint3", ["value", "low", "high"]].tolist() == alone.loc["joint3", ["value", "low", "high"]].tolist()
    )


def test_one_day_has_no_interval_and_decides_nothing(make_windows):
    windows = make_windows([[(40, 49)]] * 6, [0, 1] * 3, days=[0, 1, 2, 2, 2, 2])
    (fold,) = forward_folds(windows.place, windows.day, n_folds=1, embargo_days=0, purge_bars=0)
    assert fold.test.tolist() == [2, 3, 4, 5]
    perfect, wrong = (Prediction(start=np.full(6, at), end=np.full(6, at + 9)) for at in (40, 70))
    rows = score_blocks(windows, [fold], perfect, {"constant": wrong}, n_bootstrap=20)
    assert (rows["value"] == 1).all() and (rows["difference"] == 1).all()
    assert rows["low"].isna().all() and (rows["verdict"] == "INCONCLUSIVE").all()


def test_a_past_of_one_state_is_a_sentence(study, gather):
    windows, folds, inputs, features = study
    early = replace(windows, state=np.where(windows.day < windows.day[folds[0].test].min(), 0, windows.state))
    with pytest.raises(UserError, match="would train on consolidation alone"):
        walk_forward([ARM], gather, early, folds, inputs, features=features, **QUICK)


def test_as_text_each_block_shows_one_figure_and_all_of_them_every_one(walked):
    text = say_walk_forward(walked)
    n_blocks = walked["block"].nunique() - 1
    assert (text["tested"] != "all").sum() == n_blocks and (text["tested"] == "all").sum() == walked["metric"].nunique()
    assert text["figure"].iloc[:n_blocks].nunique() == 1 and text["model"].str.contains(" to ").any()
