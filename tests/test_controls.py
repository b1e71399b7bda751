"""Controls: where there is nothing to learn, nothing may look learned."""

from dataclasses import replace

import numpy as np
import pytest

from moola_lib.evaluation.cross_validation import Arm, assemble, cross_fit_baselines, run_fold
from moola_lib.evaluation.gates import learning_gate
from moola_lib.evaluation.inputs import collect_inputs
from moola_lib.evaluation.scores import compare_predictions, score_prediction
from moola_lib.features import build_features
from moola_lib.labels import labels_from_planted
from moola_lib.learning.finetune import FinetuneSettings
from moola_lib.market import REFERENCE, simulate_bars
from moola_lib.models.jade import HEADS
from moola_lib.windows import grouped_folds, place_labels
from moola_lib.windows.gather import WindowGatherer

pytestmark = pytest.mark.slow
SETTINGS = FinetuneSettings(
    n_frozen_epochs=0, n_unfrozen_epochs=15, unfrozen_learning_rate=3e-3, batch_size=8, balance="manual", n_threads=1
)
OPTIONS = {"hidden_size": 16, "n_layers": 1, "dropout": 0.0, "head_dropout": 0.1}


def fit(market, *, heads="notes", is_blind=False):
    """Cross-validate a small model; return (windows, answer, baselines, bars that count)."""
    table = build_features(market.bars)
    if is_blind:
        table = replace(table, values=np.zeros_like(table.values))
    windows, _ = place_labels(labels_from_planted(market.planted, symbol="SIM"), market.bars.frame, table.starts)
    gather = WindowGatherer(table, with_position=is_blind)
    folds = grouped_folds(windows.place, windows.day, n_folds=3)
    arm = Arm("small", "jade", SETTINGS, {**OPTIONS, "heads": HEADS[heads]})
    features = {"set_id": table.set_id, "names": gather.names}
    results = [run_fold(arm, gather, windows, fold, features=features) for fold in folds]
    answer, outputs = assemble(results, folds, len(windows), decoder="segment" if heads == "segment" else "inside")
    inputs = collect_inputs(windows, gather, market.bars.frame)
    return windows, answer, cross_fit_baselines(windows, folds, inputs), outputs["is_valid"]


def gates_of(windows, answer, baselines, is_valid):
    scores = score_prediction(windows, {"small": answer, **baselines}, is_valid=is_valid, n_bootstrap=300)
    figures = scores.set_index("metric")
    targets = {
        "hit3_start": {"at_least": 0.2},  # far below the notes' targets: the baseline must be what stops it
        "joint3": {"at_least": 0.05},
        "inside_f1": {"at_least": 0.3},
        "inside_ap": {"at_least": 0.2},
        "type_macro_f1": {"at_least": 0.3},
        "countdown_mae": {"below": 20},
    }
    return {
        name: learning_gate(name, figures.loc[name], baselines=list(baselines), **bound).verdict
        for name, bound in targets.items()
    }


@pytest.mark.parametrize("heads", ["notes", "segment"])
def test_on_a_null_market_no_learning_gate_passes(heads):
    law = replace(REFERENCE, has_states=False)
    found = gates_of(*fit(simulate_bars(30, strength=1.0, drift=0.0, law=law), heads=heads))
    assert set(found.values()) == {"FAIL"}, found


def test_the_same_gates_pass_where_there_is_something_to_learn():
    windows, answer, baselines, is_valid = fit(simulate_bars(30, strength=3.0, drift=1.0))
    # so small a model is no match for the learned baselines: only those that learn next to nothing count here
    simple = {name: baselines[name] for name in ("constant", "ATR rule", "majority", "coin flip")}
    found = gates_of(windows, answer, simple, is_valid)
    assert found["inside_f1"] == found["inside_ap"] == "PASS", found


@pytest.mark.parametrize("heads", ["notes", "segment"])
def test_position_alone_is_no_better_than_the_constant(heads):
    windows, answer, baselines, is_valid = fit(simulate_bars(30, drift=0.5), heads=heads, is_blind=True)
    against = compare_predictions(windows, answer, baselines["constant"], is_valid=is_valid, n_bootstrap=300)
    verdicts = against.set_index("metric")["verdict"]
    for metric in ("hit3_start", "hit3_end", "joint3", "inside_f1", "inside_ap", "countdown_mae"):
        assert verdicts[metric] != "BETTER", against.set_index("metric").loc[metric]
