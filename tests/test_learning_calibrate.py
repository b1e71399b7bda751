"""A temperature and a null score, set without touching the order of spans."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar

from moola_lib.errors import UserError
from moola_lib.evaluation.alarms import alarm_curve, holds_bars
from moola_lib.evaluation.cross_validation import Arm, run_fold
from moola_lib.learning.calibrate import find_evidence, fit_null, fit_temperature
from moola_lib.learning.finetune import FinetuneSettings, finetune
from moola_lib.learning.outputs import predict_windows
from moola_lib.models import build_model
from moola_lib.windows import last_days_fold
from moola_lib.windows.ordinary import ordinary_windows

LINEAR = FinetuneSettings(n_frozen_epochs=0, n_unfrozen_epochs=0, n_threads=1)


@pytest.fixture(scope="module")
def trained(gather, labelled):
    """A linear model fitted to 24 windows."""
    model = build_model("linear_segments", n_features=11, lead_bars=2, start_range=(30, 74))
    finetune(model, gather, labelled.take(np.arange(24)), LINEAR)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def model(trained):
    model = build_model("linear_segments", n_features=11, lead_bars=2, start_range=(30, 74))
    model.load_state_dict(trained)
    return model.eval()


@pytest.fixture
def held(labelled):
    return labelled.take(np.arange(24, len(labelled)))


def nll(model, gather, windows):
    """Mean -log p(span, state), read from the answers."""
    head = model.segment_head
    with torch.no_grad():
        logits = model(gather(torch.as_tensor(windows.place))[0])["span_logits"].double()
    p = logits.flatten(1).log_softmax(dim=1).reshape(logits.shape)
    return -float(p[range(len(windows)), windows.state, windows.start - head.first_start, windows.end].mean())


def test_the_temperature_is_the_best_under_its_prior(model, gather, held):
    report = fit_temperature(model, gather, held)

    def penalised(log_temperature):
        model.segment_head.temperature.fill_(float(np.exp(log_temperature)))
        return len(held) * nll(model, gather, held) + log_temperature**2 / (2 * 0.5**2)

    best = minimize_scalar(penalised, bounds=(-3, 3), method="bounded", options={"xatol": 1e-6})
    assert np.log(report["temperature"]) == pytest.approx(best.x, abs=1e-3)
    model.segment_head.temperature.fill_(1.0)
    assert report["before"] == pytest.approx(nll(model, gather, held), rel=1e-5)
    model.segment_head.temperature.fill_(report["temperature"])
    assert report["after"] == pytest.approx(nll(model, gather, held), rel=1e-5)
    assert report["n_windows"] == len(held)


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_a_temperature_never_makes_the_windows_it_was_fitted_on_less_likely(model, gather, held, factor):
    head = model.segment_head
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(factor)
    report = fit_temperature(model, gather, held)
    assert report["after"] <= report["before"]
    assert (report["temperature"] > 1.3) == (factor == 5.0)  # scores five times too large are cooled
    assert head.temperature.item() == pytest.approx(report["temperature"])


def test_a_second_fit_starts_afresh(model, gather, held):
    one = fit_temperature(model, gather, held)
    assert fit_temperature(model, gather, held) == one


def test_only_the_temperature_moves_and_the_order_of_spans_stays(model, gather, held):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cold = predict_windows(model, gather, held.place)["span_probability"]
    with torch.no_grad():
        fit_temperature(model, gather, held)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {"segment_head.temperature"}
    warm = predict_windows(model, gather, held.place)["span_probability"]
    flat = [span.reshape(len(held), -1) for span in (cold, warm)]
    assert (flat[0].argmax(axis=1) == flat[1].argmax(axis=1)).mean() > 0.9  # states are summed: ties may turn


def test_windows_without_an_expansion_leave_the_temperature_at_1(model, gather, make_windows, held):
    empty = make_windows([[]] * 3, [2] * 3, places=held.place[:3])
    report = fit_temperature(model, gather, empty)
    assert report == {"temperature": 1.0, "before": 0.0, "after": 0.0, "n_windows": 0}


def test_a_fold_sets_its_temperature_by_its_held_out_windows(gather, labelled, table):
    fold = last_days_fold(labelled.place, labelled.day)
    features = {"set_id": table.set_id, "names": list(table.names)}
    arm = Arm("linear", "linear_segments", LINEAR, {"lead_bars": 2, "start_range": (30, 74)})
    found = run_fold(arm, gather, labelled, fold, features=features, validation_frac=0.3)
    assert found.calibration["after"] <= found.calibration["before"] and found.calibration["n_windows"] > 0
    assert run_fold(arm, gather, labelled, fold, features=features, validation_frac=0).calibration is None
    causal = replace(arm, settings=replace(LINEAR, is_causal=True, linear_penalty=None))
    assert run_fold(causal, gather, labelled, fold, features=features, validation_frac=0.3).calibration is None


@pytest.fixture
def ordinary(labelled, market, table):
    return ordinary_windows(labelled, market.bars.frame.index, table.starts)


def test_ordinary_windows_share_no_bar_with_a_labelled_one_nor_with_each_other(labelled, table, ordinary):
    taken = np.concatenate([labelled.place, ordinary.place])[:, None] + np.arange(105)
    own = taken[len(labelled) :].ravel()
    assert not np.isin(own, taken[: len(labelled)]).any() and len(np.unique(own)) == len(own)
    segment = np.searchsorted(table.starts, own.reshape(-1, 105), side="right")
    assert (segment == segment[:, :1]).all()
    assert (np.diff(ordinary.place) > 0).all()


def test_ordinary_windows_lie_on_the_days_that_were_asked_for(labelled, market, table):
    from moola_lib.market.segments import trade_dates

    index, days = market.bars.frame.index, np.unique(labelled.day)[:2]
    places = ordinary_windows(labelled, index, table.starts, days=days).place
    assert len(places) and np.isin(trade_dates(index[places]), days).all()
    assert np.isin(trade_dates(index[places + 104]), days).all()


def test_ordinary_windows_are_drawn_by_their_seed(labelled, market, table):
    index = market.bars.frame.index
    one, two, other = (ordinary_windows(labelled, index, table.starts, n=5, seed=seed).place for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other) and len(one) == 5
    every = ordinary_windows(labelled, index, table.starts)
    assert np.array_equal(ordinary_windows(labelled, index, table.starts, n=10_000).place, every.place)
    assert len(ordinary_windows(labelled, index, table.starts, days=[])) == 0


def test_the_null_is_a_logistic_regression_on_the_evidence(model, gather, held, ordinary):
    report = fit_null(model, gather, held, ordinary)
    known, other = (find_evidence(model, gather, places).double().numpy() for places in (held.place, ordinary.place))

    def loss(null, slope):
        sides = np.logaddexp(0, -slope * (known - null)), np.logaddexp(0, slope * (other - null))
        return sides[0].mean() / 2 + sides[1].mean() / 2

    start = [np.median(other), 0.5]
    best = minimize(lambda w: loss(*w), start, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-10}).x
    assert report["null"] == pytest.approx(best[0], abs=0.05)
    assert report["slope"] == pytest.approx(best[1], rel=0.05)  # a little ridge
    assert report["auc"] == pytest.approx((known[:, None] > other).mean())
    assert (report["n_labelled"], report["n_ordinary"]) == (len(held), len(ordinary))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_null_gives_the_odds_their_zero_and_leaves_the_spans(model, gather, held, ordinary, temperature):
    head = model.segment_head
    head.temperature.fill_(temperature)
    before = predict_windows(model, gather, held.place)
    report = fit_null(model, gather, held, ordinary)
    after = predict_windows(model, gather, held.place)
    assert bool(head.knows_none) and np.array_equal(before["span_probability"], after["span_probability"])
    evidence = find_evidence(model, gather, held.place).numpy()
    np.testing.assert_allclose(after["log_odds"], report["slope"] * (evidence - report["null"]), atol=1e-4)


def test_one_side_alone_sets_no_null(model, gather, held, ordinary):
    with pytest.raises(UserError, match="and 0 ordinary ones cannot set"):
        fit_null(model, gather, held, ordinary.on_days([]))


def test_windows_that_hold_bars_by_brute_force():
    rng = np.random.default_rng(1)
    edges = np.sort(rng.choice(3000, 40, replace=False))
    first, last = edges[::2], edges[1::2]
    places = rng.integers(0, 3000, 200)
    wanted = [any(f < p + 105 and end >= p for f, end in zip(first, last, strict=True)) for p in places]
    assert np.array_equal(holds_bars(places, first, last), wanted)


def test_true_alarms_are_among_all_alarms(model, gather, market, table, held):
    from moola_lib.windows import window_places

    places, _ = window_places(table.starts, len(table), stride=45)
    index = market.bars.frame.index
    first, last = (index.searchsorted(market.planted[name]) for name in ("start_ts", "end_ts"))
    session = np.searchsorted(table.starts, places, side="right")
    holds = holds_bars(places, first, last)
    known, evidence = (find_evidence(model, gather, each).numpy() for each in (held.place, places))
    options = {"recalls": (0.5, 0.9), "n_bootstrap": 50}
    every = alarm_curve([known], [evidence], session, places, **options)
    true = alarm_curve([known], [evidence], session, places, has_expansion=holds, **options)
    assert (true["per_session"] <= every["per_session"]).all() and 0 < holds.mean() < 1
    assert true["per_session"].is_monotonic_increasing and (true["recall"] == every["recall"]).all()
    level = np.quantile(known, 0.5, method="lower")
    assert true["per_session"][0] <= (evidence[~holds] >= level).sum() / len(np.unique(session))
