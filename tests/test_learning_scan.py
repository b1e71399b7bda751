"""A whole series scanned: merged probabilities by hand on a stub, planted expansions found, and equal scans."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_finetuning import tiny_jade

from moola_lib.errors import UserError
from moola_lib.features import build_features
from moola_lib.features.table import FeatureTable
from moola_lib.learning import scan as scanning
from moola_lib.learning.candidates import describe_candidates, drop_overlapping, frame_candidates
from moola_lib.learning.causal_scan import CausalScanner, raise_alarms, scan_causally
from moola_lib.learning.scan import scan
from moola_lib.models.segments import NEVER

FIRST, LAST, BARS = 30, 74, 105


class Stub(torch.nn.Module):
    """Knows where expansions lie: feature 0 marks a start with its length, feature 1 is the log-odds of the window."""

    def __init__(self, knows_none=True, n_states=2):
        super().__init__()
        flags = {"null": torch.zeros(1), "knows_none": torch.tensor(knows_none)}
        self.segment_head = SimpleNamespace(
            first_start=FIRST, last_start=LAST, window_bars=BARS, n_states=n_states, **flags
        )

    def forward(self, x):
        n = len(x)
        logits = torch.full((n, self.segment_head.n_states, LAST - FIRST + 1, BARS), NEVER)
        for window in range(n):
            marks = x[window, FIRST : LAST + 1, 0]
            for row in torch.nonzero(marks).flatten().tolist():
                logits[window, -1, row, FIRST + row + int(marks[row]) - 1] = 0.0
            if not marks.any():
                logits[window, 0, 0, FIRST] = 0.0
        evidence = logits.flatten(1).logsumexp(dim=1)
        log_odds = torch.where(x[:, FIRST : LAST + 1, 0].any(dim=1), x[:, 0, 1], -40.0)
        return {"span_logits": logits + (log_odds - evidence)[:, None, None, None],
                "null_logit": torch.zeros(1), "null_slope": torch.ones(1)}  # fmt: skip


def table_of(values, starts=(0,)):
    values = np.asarray(values, np.float32)
    n, width = values.shape
    return FeatureTable(
        values=values, is_valid=np.ones(n, bool), starts=np.array(starts), names=("a", "b")[:width],
        ranges=np.zeros((width, 2)), set_id="stub", version=1, is_flip=np.zeros(n, bool), options={"extra": ()},
    )  # fmt: skip


def marked(n_bars, spans, log_odds=40.0):
    values = np.zeros((n_bars, 2))
    values[:, 1] = log_odds
    for start, end in spans:
        values[start, 0] = end - start + 1
    return values


@pytest.fixture(scope="module")
def model(gather, labelled):
    """A linear model with a null score, fitted to windows of `market`."""
    from moola_lib.learning.calibrate import fit_null
    from moola_lib.learning.finetune import FinetuneSettings, finetune
    from moola_lib.models import build_model
    from moola_lib.windows.ordinary import OrdinaryWindows

    model = build_model("linear_segments", n_features=11, contrast_bars=(1, 3, 6, 12), start_range=(FIRST, LAST))
    finetune(model, gather, labelled, FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=0, n_threads=1))
    places = np.arange(0, 1200, 150)
    fit_null(model, gather, labelled, OrdinaryWindows(places, np.repeat(labelled.day[:1], len(places))))
    return model


@pytest.fixture(scope="module")
def strong():
    """Three sessions with strong expansions that nothing was trained on."""
    from moola_lib.market import simulate_bars

    return simulate_bars(n_sessions=3, seed=9, strength=4.0)


def test_certain_expansions_are_merged_to_certainty():
    spans = [(60, 66), (200, 229), (330, 330)]
    found = scan(Stub(), table_of(marked(500, spans)), threshold=0.5)
    is_asked = np.zeros(500, bool)
    is_asked[30 : 500 - 30] = True  # 395 is the last place of a window at this stride
    inside = np.zeros(500)
    for start, end in spans:
        inside[start : end + 1] = 1
    np.testing.assert_array_equal(np.isnan(found.inside_probability), ~is_asked)
    np.testing.assert_allclose(found.inside_probability[is_asked], inside[is_asked], atol=1e-6)
    assert found.inside_probability.dtype == np.float32
    assert list(zip(found.detections["start"], found.detections["end"], strict=True)) == spans
    for edge in ("start", "end"):
        np.testing.assert_array_equal(found.detections[f"{edge}_low"], found.detections[edge])
        np.testing.assert_array_equal(found.detections[f"{edge}_high"], found.detections[edge])
    np.testing.assert_allclose(found.detections["confidence"], 1)
    assert set(found.detections["state"]) == {"retracement"}


def test_masses_are_means_over_the_windows_that_ask():
    # of the windows at 0, 20, 40 and 60 the last two ask about bars 100 and 110
    values = marked(170, [(100, 103), (110, 111)])
    values[[40, 60], 1] = 0.0, np.log(3)
    found = scan(Stub(), table_of(values), stride=20)
    # an expansion exists with 1/2 and 3/4; each window shares that between its two starts
    start = np.mean([0.5 / 2, 0.75 / 2])
    np.testing.assert_allclose(found.start_probability[[100, 110]], start, atol=1e-6)
    np.testing.assert_allclose(
        found.inside_probability[[99, 100, 103, 104, 111, 112]], [0, start, start, 0, start, 0], atol=1e-6
    )
    np.testing.assert_allclose(found.none_probability[100], np.mean([0.5, 0.25]), atol=1e-6)


def test_without_a_null_score_the_scan_says_so():
    found = scan(Stub(knows_none=False), table_of(marked(300, [(100, 110)], log_odds=-3.0)))
    assert not found.knows_none
    assert np.isnan(found.none_probability).all() and np.isnan(found.detections["none_probability"]).all()
    np.testing.assert_allclose(found.inside_probability[100:111], 1, atol=1e-6)


def test_no_window_crosses_a_segment_start():
    # windows across the edge at 150 would ask about bar 140; within the first segment none does
    found = scan(Stub(), table_of(marked(400, [(140, 145), (200, 205)]), starts=(0, 150)), threshold=0.5)
    assert np.isnan(found.inside_probability[[121, 140, 179]]).all()
    assert not np.isnan(found.inside_probability[[119, 180]]).any()
    assert found.detections["start"].tolist() == [200]


@pytest.mark.parametrize("block_bars", [64, 100, 999])
def test_blocks_change_nothing(model, table, monkeypatch, block_bars):
    whole = scan(model, table)
    monkeypatch.setattr(scanning, "BLOCK_BARS", block_bars)
    parts = scan(model, table)
    for name in ("inside_probability", "start_probability", "none_probability"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-6)
    pd.testing.assert_frame_equal(parts.detections, whole.detections, atol=1e-5)


def test_equal_scans_are_equal_bit_for_bit(model, table):
    one, two = (scan(model, table) for _ in range(2))
    np.testing.assert_array_equal(one.inside_probability, two.inside_probability)
    pd.testing.assert_frame_equal(one.detections, two.detections, check_exact=True)


def test_planted_expansions_are_found(model, strong):
    found = scan(model, build_features(strong.bars), threshold=0.5).detections
    planted = strong.bars.frame.index.get_indexer(strong.planted["start_ts"])
    distance = np.abs(found["start"].to_numpy()[:, None] - planted)
    assert (distance.min(axis=0) <= 3).mean() > 0.6  # of those planted
    assert (distance.min(axis=1) <= 3).mean() > 0.6  # of those found; by chance 14 % would be
    spans = found[["start", "end"]].to_numpy()
    assert (spans[:, 0] <= spans[:, 1]).all() and (spans[1:, 0] > spans[:-1, 1]).all()


def test_a_threshold_leaves_out_the_less_confident_and_moves_nothing(model, table):
    every, some = scan(model, table).detections, scan(model, table, threshold=0.6).detections
    pd.testing.assert_frame_equal(every[every["confidence"] >= 0.6].reset_index(drop=True), some)


def test_of_overlapping_detections_the_most_confident_stays():
    rows = pd.DataFrame({"start": [1, 4, 9, 20], "end": [5, 9, 12, 22], "confidence": [0.5, 0.4, 0.3, 0.1]})
    assert drop_overlapping(rows)["start"].tolist() == [1, 9, 20]


def test_a_candidate_is_read_off_its_local_masses():
    local = np.zeros((2, 45, 75))  # places 0 to 44 stand for bars 78 to 122
    local[0, [20, 22, 24], 4] = 0.15, 0.45, 0.3  # starts at 98, 100 and 102, each of 5 bars
    local[0, 40, 0] = 0.1
    local[1, 19, :] = 0.6 / 75  # most likely a start at 97 of any length
    local[1, 25, 74] = 0.4  # or the longest at 103
    rows = describe_candidates(
        np.array([100, 100]), local, np.array([[0.2, 0.7], [1.0, 0.0]]), threshold=0.0, existence=np.array([0.9, 1.0]),
        log_odds=np.zeros(2), seen_to=np.full(2, -1),
    )  # fmt: skip
    found = frame_candidates(rows)
    assert found.iloc[0][["start", "end", "start_low", "start_high"]].tolist() == [100, 104, 98, 102]
    assert found["state"].tolist() == ["retracement", "consolidation"]
    assert found.iloc[0][["confidence", "none_probability"]].tolist() == pytest.approx([0.9, 0.1])
    assert found["state_probability"].tolist() == pytest.approx([0.7 / 0.9, 1.0])
    assert found.iloc[1][["start", "end"]].tolist() == [97, 97 + 74]  # no longer than a window can hold


def test_progress_ends_with_all(model, table):
    told = []
    scan(model, table, on_progress=lambda *counts: told.append(counts))
    assert told[-1][0] == told[-1][1] and [n for n, _ in told] == sorted(n for n, _ in told)


@pytest.mark.parametrize("run", [scan, scan_causally])
def test_what_cannot_be_scanned_is_refused(run, table, model):
    with pytest.raises(UserError, match="train one with heads: segment"):
        run(tiny_jade(), table)
    with pytest.raises(UserError, match="give 1 to 45"):
        run(model, table, stride=46)
    with pytest.raises(UserError, match="no window of 105 bars fits"):
        run(model, table_of(np.zeros((100, 2))))


def test_causal_answers_do_not_depend_on_later_bars(model, strong):
    frame = strong.bars.frame
    whole = scan_causally(model, build_features(frame), threshold=0.3)
    for n_bars in (1000, 1500, 2861):
        part = scan_causally(model, build_features(frame.iloc[:n_bars]), threshold=0.3)
        np.testing.assert_allclose(part.inside_probability, whole.inside_probability[:n_bars], atol=1e-6)
        np.testing.assert_allclose(part.start_probability, whole.start_probability[:n_bars], atol=1e-6)
        so_far = whole.detections[whole.detections["seen_to"] < n_bars]
        pd.testing.assert_frame_equal(part.detections, so_far, atol=1e-5)
    assert len(so_far) > 10


def test_a_causal_scan_in_pieces_is_the_scan_of_the_whole(model, strong):
    table = build_features(strong.bars)
    whole = scan_causally(model, table, threshold=0.3)
    scanner = CausalScanner(model, least_confidence=0.3)
    is_first = np.isin(np.arange(len(table)), table.starts)
    edges = np.r_[0, 0, np.sort(np.random.default_rng(3).integers(0, len(table), 40)), len(table)]
    pieces = [
        scanner.extend(table.values[a:b], table.is_valid[a:b], is_first[a:b]) for a, b in itertools.pairwise(edges)
    ]
    inside, start, none = (np.concatenate(each) for each in zip(*(answers for answers, _ in pieces), strict=True))
    np.testing.assert_allclose(inside, whole.inside_probability, atol=1e-6)
    np.testing.assert_allclose(start, whole.start_probability, atol=1e-6)
    np.testing.assert_allclose(none, whole.none_probability, atol=1e-6)
    candidates = pd.concat([each for _, each in pieces], ignore_index=True)
    pd.testing.assert_frame_equal(raise_alarms(candidates, 0.3), whole.detections, atol=1e-5)


def test_causal_detections_come_once_and_after_their_start():
    found = scan_causally(Stub(), table_of(marked(500, [(100, 110), (150, 155)])), stride=1, threshold=0.5)
    assert found.detections[["start", "end", "seen_to"]].to_numpy().tolist() == [[100, 110, 100], [150, 155, 150]]
    np.testing.assert_allclose(found.inside_probability[[99, 100, 110, 111]], [0, 1, 1, 0], atol=1e-6)


def test_between_the_bars_asked_the_last_answer_holds_within_a_segment():
    values = marked(400, [(101, 110), (195, 199)])
    found = scan_causally(Stub(), table_of(values, starts=(0, 200)), stride=5)
    np.testing.assert_allclose(found.inside_probability[[100, 104, 105, 110, 114, 115]], [0, 0, 1, 1, 1, 0], atol=1e-6)
    assert np.isnan(found.inside_probability[[29, 200, 229]]).all() and found.inside_probability[230] < 1e-9


def test_position_is_what_the_gatherer_appends(table):
    from dataclasses import replace

    torch.manual_seed(2)
    from moola_lib.models import build_model

    model = build_model("jade", n_features=12, hidden_size=4, n_layers=1, heads=("segment",), start_range=(FIRST, LAST))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    with_position = replace(table, options={**table.options, "extra": ["position"]})
    found = scan_causally(model, with_position)
    seen = {}
    model.register_forward_pre_hook(lambda module, inputs: seen.update(x=seen.get("x", inputs[0])))
    scan_causally(model, with_position)
    position = seen["x"][0, :, -1]  # the first window, cut after its bar 30, its first 20 rows absent
    np.testing.assert_allclose(position[20:31], torch.linspace(0, 1, BARS)[20:31])
    assert not position[:20].any() and not position[31:].any() and found.is_causal
