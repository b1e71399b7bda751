"""The segment posterior: one distribution over every (start, end), checked against plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.features import build_features
from moola_lib.features.sets import BARE2, FEATURE_SETS, upside_down
from moola_lib.learning.outputs import read_posterior
from moola_lib.market import simulate_bars
from moola_lib.models import build_model
from moola_lib.models.dropout import Dropout
from moola_lib.models.segments import SMALLEST_MOVE, SegmentHead

RELATIVITY11 = FEATURE_SETS["relativity11"].columns
N_BARS = 9


def random_head(n_features=3, seed=1, **options):
    """A head whose every parameter and scale was drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    head = SegmentHead(n_features, **options).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    head.set_scale(random_windows(40, n_features, head.window_bars, seed=seed + 1))
    return head


def random_windows(n, n_features=3, n_bars=N_BARS, seed=7):
    """Windows on a grid of 1/64, so that 1 - (1 - x) is x to the last bit."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.integers(-64, 65, (n, n_bars, n_features)) / 64).astype(np.float32))


def score(head, x):
    with torch.no_grad():
        return head(head.score_linearly(head.look_around(x)))


def posterior(head, x):
    with torch.no_grad():
        return {name: value.numpy() for name, value in read_posterior(score(head, x), head.first_start).items()}


def plain_scores(head, x):
    """Every score by loops over one window: {(state, start, end): score}."""
    value = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    x = x.double().numpy()
    n_bars, lead, widths = len(x), head.lead_bars, head.contrast_bars
    signed = np.log(np.abs(x[:, head.signed]) + SMALLEST_MOVE)
    bars = (np.concatenate([x, signed], axis=1) - value["mean"]) / value["scale"]
    bars[~(x != 0).any(axis=1)] = 0.0

    def outside(column, t, step, width):
        away = column[max(t - width, 0) : t] if step > 0 else column[t + 1 : t + 1 + width]
        return away.mean() if len(away) else 0

    def around(t, step):
        """What an edge at bar t reads, looking into the expansion: forward from a start, backward from an end."""
        columns = []
        for column in bars.T:
            own = [column[min(max(t + step * k, 0), n_bars - 1)] for k in range(-lead, lead + 1)]
            for width in widths:
                into = column[t : t + width] if step > 0 else column[max(t + 1 - width, 0) : t + 1]
                own.append((into.mean() if len(into) else 0) - outside(column, t, step, width))
            own += [outside(column, t, step, width) for width in head.outer_bars]
            columns.append(own)
        return np.ravel(columns) / value["around_scale"]

    inside = bars @ value["inside.weight"][0] + value["inside.bias"][0]
    scores = {}
    for state in range(head.n_states):
        for s in range(head.first_start, head.last_start + 1):
            start = value["start.weight"][state] @ around(s, 1) + value["start.bias"][state]
            for e in range(s, n_bars):
                end = value["end.weight"][0] @ around(e, -1)
                scores[state, s, e] = start + end + inside[s : e + 1].sum() + value["length"][e - s]
    return scores


OPTIONS = {
    "lead_bars": 2,
    "contrast_bars": (1, 3),
    "outer_bars": (2,),
    "window_bars": N_BARS,
    "start_range": (0, N_BARS - 1),
}


@pytest.mark.parametrize("n_states", [1, 2])
@pytest.mark.parametrize("start_range", [(0, N_BARS - 1), (3, 5)])
def test_every_score_by_plain_loops(n_states, start_range):
    head = random_head(n_states=n_states, **OPTIONS | {"start_range": start_range})
    x = random_windows(3)
    x[1, :2] = 0  # absent bars
    x[2, 4] = 0
    logits = score(head, x)["span_logits"]
    first, last = start_range
    assert logits.shape == (3, n_states, last - first + 1, N_BARS)
    for row in range(3):
        wanted = plain_scores(head, x[row])
        for (state, s, e), value in wanted.items():
            assert logits[row, state, s - first, e].item() == pytest.approx(value, abs=2e-5)
        assert int((logits[row] > -1e20).sum()) == len(wanted)


def test_turned_scores_by_plain_loops():
    turning = [[0, -1.0, 0.0], [2, 1.0, 0.0], [1, 1.0, 0.0]]
    head = random_head(upside_down=turning, **OPTIONS)
    assert head.signed == [0]
    x = random_windows(2)
    turned = torch.stack([-x[..., 0], x[..., 2], x[..., 1]], dim=-1)
    logits = score(head, x)["span_logits"]
    for row in range(2):
        one, two = plain_scores(head, x[row]), plain_scores(head, turned[row])
        for (state, s, e), value in one.items():
            both = np.logaddexp(value, two[state, s, e])
            assert logits[row, state, s, e].item() == pytest.approx(both, abs=2e-5)


def test_a_window_of_105_bars_has_5565_cells_that_sum_to_1():
    head = random_head(n_states=2)
    found = posterior(head, random_windows(4, n_bars=105))
    span = found["span_probability"]
    assert ((span > 0).sum(axis=(1, 2)) == 5565).all()
    np.testing.assert_allclose(span.sum(axis=(1, 2)), 1, atol=2e-5)
    np.testing.assert_allclose(found["type_probability"].sum(axis=1), 1, atol=2e-5)
    assert (span[:, np.tril(np.ones((105, 105), bool), -1)] == 0).all()


@pytest.mark.parametrize("start_range", [(0, 104), (30, 74), (50, 50)])
def test_no_start_lies_outside_the_range(start_range):
    first, last = start_range
    span = posterior(random_head(start_range=start_range), random_windows(3, n_bars=105))["span_probability"]
    assert (span[:, :first] == 0).all() and (span[:, last + 1 :] == 0).all()
    np.testing.assert_allclose(span.sum(axis=(1, 2)), 1, atol=2e-5)


def test_every_answer_is_a_marginal_of_the_one_distribution():
    head = random_head(n_states=2, **OPTIONS | {"start_range": (2, 6)})
    x = random_windows(3)
    found, outputs = posterior(head, x), score(head, x)
    for row in range(3):
        logits = {
            (state, s, e): outputs["span_logits"][row, state, s - 2, e].item()
            for state in range(2) for s in range(2, 7) for e in range(s, N_BARS)
        }  # fmt: skip
        evidence = math.log(sum(map(math.exp, logits.values())))
        p = {cell: math.exp(value - evidence) for cell, value in logits.items()}
        by_span = np.zeros((N_BARS, N_BARS))
        inside, start, state_mass = np.zeros(N_BARS), np.zeros(N_BARS), np.zeros(2)
        centre = length = 0.0
        for (state, s, e), mass in p.items():
            by_span[s, e] += mass
            inside[s : e + 1] += mass
            start[s] += mass
            state_mass[state] += mass
            centre += mass * (s + e) / 2 / (N_BARS - 1)
            length += mass * (e - s + 1) / N_BARS
        median = int(np.argmax(np.cumsum(start) >= 0.5))
        np.testing.assert_allclose(found["span_probability"][row], by_span, atol=1e-5)
        np.testing.assert_allclose(found["inside_probability"][row], inside, atol=1e-5)
        np.testing.assert_allclose(found["type_probability"][row], state_mass, atol=1e-5)
        np.testing.assert_allclose(found["countdown"][row], median - np.arange(N_BARS))
        assert found["centre"][row] == pytest.approx(centre, abs=1e-5)
        assert found["length"][row] == pytest.approx(length, abs=1e-5)
        assert found["log_odds"][row] == pytest.approx(evidence - outputs["null_logit"].item(), abs=1e-5)  # of slope 1


def test_the_countdown_is_clipped_as_its_target_is():
    found = posterior(random_head(start_range=(50, 50)), random_windows(2, n_bars=105))
    assert np.array_equal(found["countdown"][0], np.clip(50 - np.arange(105), -20, 20))


def test_a_temperature_flattens_and_leaves_the_order():
    head, x = random_head(**OPTIONS), random_windows(3)
    cold = posterior(head, x)
    head.temperature.fill_(2.0)
    warm = posterior(head, x)
    span = cold["span_probability"] ** 0.5
    np.testing.assert_allclose(warm["span_probability"], span / span.sum(axis=(1, 2), keepdims=True), atol=1e-5)


def test_a_window_backwards_has_the_posterior_backwards():
    head = random_head(**OPTIONS)
    with torch.no_grad():
        head.end.weight.copy_(head.start.weight)
    x = random_windows(3)
    span, back = (posterior(head, each)["span_probability"] for each in (x, x.flip(1)))
    np.testing.assert_allclose(back, span[:, ::-1, ::-1].transpose(0, 2, 1), atol=1e-5)


@pytest.mark.parametrize("names", [RELATIVITY11, BARE2.columns])
def test_a_window_turned_upside_down_has_the_same_posterior(names):
    head = random_head(len(names), upside_down=upside_down(names), start_range=(20, 80))
    x = random_windows(5, len(names), 105)
    x[0, :20] = 0
    turned = head.readings(x)[:, 1]
    assert not torch.equal(turned, x)
    assert torch.equal(head.readings(turned)[:, 1], x)
    one, two = posterior(head, x), posterior(head, turned)
    for name in one:  # where a window stands in a batch changes how its products are summed: the last bits differ
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-6)


def test_upside_down_holds_for_the_encoder_too():
    torch.manual_seed(1)
    model = build_model(
        "jade_compact", n_features=11, heads=("segment",), hidden_size=4, upside_down=upside_down(RELATIVITY11)
    ).eval()  # fmt: skip
    torch.nn.init.normal_(model.segment_head.contribution.weight)
    x = random_windows(3, 11, 105)
    with torch.no_grad():
        one, two = model(x)["span_logits"], model(model.segment_head.readings(x)[:, 1])["span_logits"]
        upright = model.segment_head.contribution.weight.clone()
        model.segment_head.contribution.weight.zero_()
        without = model(x)["span_logits"]
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-4)
    assert upright.any() and not torch.allclose(one, without)


def test_absent_bars_stay_absent_upside_down_and_score_as_the_average_bar():
    head = random_head(11, upside_down=upside_down(RELATIVITY11), **OPTIONS)
    x = random_windows(2, 11)
    x[:, :3] = 0
    assert (head.readings(x)[:, :, :3] == 0).all()
    assert (head.look_around(x)[2][:, :, :3] == 0).all()
    assert (head.look_around(x)[2][:, :, 3:] != 0).any(dim=-1).all()


def test_the_scale_is_that_of_bars_that_are_present():
    head = SegmentHead(3, **OPTIONS)
    x = random_windows(30)
    x[:, :4] = 0
    head.set_scale(x)
    bars = head.look_around(x)[2][:, 0, 4:].flatten(0, 1)
    torch.testing.assert_close(bars.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(bars.std(dim=0), torch.ones(3), atol=1e-5, rtol=0)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head.set_scale(x)  # a second time from the same windows: nothing is scaled twice
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())


def test_a_column_that_does_not_vary_is_not_blown_up():
    head = SegmentHead(3, **OPTIONS)
    x = random_windows(30)
    x[..., 1] = 0.1
    head.set_scale(x)
    assert head.scale[1] == 1 and torch.isfinite(head.around_scale).all()
    assert (head.look_around(x)[2][..., 1].abs() < 1e-6).all()


def test_a_contribution_of_zero_leaves_the_linear_scores():
    torch.manual_seed(1)
    model = build_model("jade_compact", n_features=3, heads=("segment",), hidden_size=4).eval()
    linear = random_head(n_states=2)
    missing = model.segment_head.load_state_dict(linear.state_dict(), strict=False).missing_keys
    assert missing == ["contribution.weight", "contribution.bias"]
    x = random_windows(3, n_bars=105)
    with torch.no_grad():
        assert torch.equal(model(x)["span_logits"], score(linear, x)["span_logits"])
        model.segment_head.contribution.bias.fill_(0.5)
        assert not torch.equal(model(x)["span_logits"], score(linear, x)["span_logits"])


def test_an_untrained_head_knows_nothing():
    span = posterior(SegmentHead(3, start_range=(30, 74)), random_windows(2, n_bars=105))["span_probability"]
    n_cells = sum(105 - s for s in range(30, 75))
    np.testing.assert_allclose(span[span > 0], 1 / n_cells, rtol=1e-4)


@pytest.mark.parametrize("start_range", [(-1, 50), (60, 50), (30, 105)])
def test_a_range_outside_the_window_is_a_sentence(start_range):
    with pytest.raises(UserError, match=f"starts {start_range[0]} to {start_range[1]} are not inside a window of 105"):
        SegmentHead(3, start_range=start_range)


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(1)
    dropout, x = Dropout(0.3).train(), torch.full((400, 500), 2.0)
    dropped = dropout(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert dropped.mean().item() == pytest.approx(2.0, abs=0.02)
    assert dropped.unique().tolist() == pytest.approx([0, 2 / (1 - round(0.3 * 2**16) / 2**16)])  # p to 16 bits


def test_dropout_is_off_in_eval_and_at_zero_and_equal_for_equal_seeds():
    x = torch.randn(20, 30)
    assert Dropout(0.5).eval()(x) is x and Dropout(0.0).train()(x) is x
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(Dropout(0.5).train()(x))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_dropout_lets_the_gradient_pass_where_it_kept():
    torch.manual_seed(1)
    x = torch.randn(50, 50, requires_grad=True)
    dropped = Dropout(0.5).train()(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, (dropped != 0) * 2.0)


@pytest.fixture(scope="module")
def mirrored():
    """A simulated market, and every price p of it as c / p: a real price series upside down."""
    market = simulate_bars(n_sessions=4, seed=23).bars
    frame = market.frame
    c = float(frame["close"].iloc[0]) ** 2  # index-sized prices again: the features' epsilon is absolute
    turned = frame.assign(
        open=c / frame["open"], high=c / frame["low"], low=c / frame["high"], close=c / frame["close"]
    )
    return market, replace(market, frame=turned)


def turned_and_rebuilt(mirrored, **options):
    """Features of the turned prices, what `upside_down` says they are, the names, and rows to compare."""
    upright, rebuilt = (build_features(bars, **options) for bars in mirrored)
    columns, signs, offsets = (np.array(part) for part in zip(*upside_down(upright.names), strict=True))
    said = upright.values[:, columns.astype(int)] * signs + offsets
    # the zigzag begins with a leg up in either market: they agree from the first swings on
    is_settled = np.ones(len(upright), bool)
    for first in upright.starts:
        is_settled[first : first + 200] = False
    prices = mirrored[0].frame
    is_flat = (prices["high"] == prices["low"]).to_numpy()  # no range: open_norm is 0 in either market, not 1 - 0
    return rebuilt.values, said, upright.names, is_settled & ~is_flat


@pytest.mark.parametrize(
    ("options", "tolerance", "least"),
    [
        # ratios of prices turn exactly, ratios of ranges to a thousandth; a swing whose confirmation hangs on that
        # comes a bar sooner or later, and until the next one its four columns and the proxy differ
        ({"zigzag": "primary"}, 0.02, 0.98),
        ({"zigzag": "legacy"}, 0.02, 0.99),
        ({"feature_set": "relative_transform11"}, 0.01, 1.0),
    ],
)
def test_upside_down_is_what_a_mirrored_market_gives(mirrored, options, tolerance, least):
    rebuilt, said, names, rows = turned_and_rebuilt(mirrored, **options)
    near = (np.abs(rebuilt - said) <= tolerance)[rows].mean(axis=0)
    assert dict(zip(names, near >= least, strict=True)) == dict.fromkeys(names, True)


def test_columns_without_swings_turn_to_a_hundredth_in_every_bar(mirrored):
    rebuilt, said, _, rows = turned_and_rebuilt(mirrored)
    assert np.abs(rebuilt - said)[rows][:, :5].max() < 0.01
