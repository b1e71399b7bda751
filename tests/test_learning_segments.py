"""The segment posterior's loss by plain loops, and its linear fit: convex, solved to its end, penalised as said."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.evaluation.inputs import bare_study
from moola_lib.learning.linear_fit import PLAIN, STEADY, LinearPenalty, fit_linear
from moola_lib.learning.losses import cells_in_sight, segment_loss
from moola_lib.market import simulate_windows
from moola_lib.models import build_model
from moola_lib.models.segments import NEVER, SegmentHead

K, FIRST, N_STARTS = 12, 2, 6


@pytest.fixture
def outputs():
    """Random scores of five windows of 12 bars with two states; starts at bars 2 to 7."""
    logits = torch.randn(5, 2, N_STARTS, K, generator=torch.Generator().manual_seed(3))
    is_backward = torch.arange(K) < torch.arange(FIRST, FIRST + N_STARTS)[:, None]
    return {
        "span_logits": logits.masked_fill(is_backward, NEVER).requires_grad_(),
        "null_logit": torch.tensor([1.5]).requires_grad_(),
    }


@pytest.fixture
def batch():
    """One span, two spans, none, two spans that start together, one span at the edge."""
    spans = [[(3, 5), (-1, -1)], [(2, 4), (6, 9)], [(-1, -1), (-1, -1)], [(4, 6), (4, 8)], [(7, 11), (-1, -1)]]
    return {
        "spans": torch.tensor(spans),
        "type": torch.tensor([0, 1, 2, 1, 0]),
        "has_expansion": torch.tensor([True, True, False, True, True]),
    }


def cells(outputs, row):
    """{(state, start, end): exponential score} of one window."""
    logits = outputs["span_logits"][row].detach().double()
    return {
        (state, s, e): math.exp(logits[state, s - FIRST, e])
        for state in range(logits.shape[0]) for s in range(FIRST, FIRST + N_STARTS) for e in range(s, K)
    }  # fmt: skip


def is_right(cell, spans, state, t):
    """Tell by the words of the loss whether a cell agrees with what is seen up to bar t."""
    own, s, e = cell
    begun = [(start, end) for start, end in spans if 0 <= start <= t]
    if not begun:
        return s > t
    return own == state and any(s == start and (e == end if end <= t else e > t) for start, end in begun)


def plain_loss(outputs, batch, knows_none, last_seen=None):
    null = math.exp(outputs["null_logit"].item())
    found = []
    for row in range(5):
        spans, state = batch["spans"][row].tolist(), batch["type"][row].item()
        t = K - 1 if last_seen is None else last_seen[row].item()
        mass = cells(outputs, row)
        right = sum(value for cell, value in mass.items() if is_right(cell, spans, state, t))
        total = sum(mass.values())
        if knows_none:
            total += null
            right += null * (not any(0 <= start <= t for start, _ in spans))
        elif not batch["has_expansion"][row]:
            continue
        found.append(-math.log(right / total))
    return np.mean(found)


@pytest.mark.parametrize("knows_none", [False, True])
def test_the_loss_is_minus_log_of_the_summed_probability(outputs, batch, knows_none):
    loss = segment_loss(outputs, batch, first_start=FIRST, knows_none=knows_none)
    assert loss.item() == pytest.approx(plain_loss(outputs, batch, knows_none), rel=1e-5)


@pytest.mark.parametrize("knows_none", [False, True])
@pytest.mark.parametrize("t", range(K))
def test_the_loss_of_cut_windows_by_plain_loops(outputs, batch, knows_none, t):
    batch["last_seen"] = torch.tensor([t, min(t + 1, K - 1), t, K - 1 - t, t])
    loss = segment_loss(outputs, batch, first_start=FIRST, knows_none=knows_none)
    assert loss.item() == pytest.approx(plain_loss(outputs, batch, knows_none, batch["last_seen"]), abs=1e-5)
    loss.backward()
    assert torch.isfinite(outputs["span_logits"].grad).all()


@pytest.mark.parametrize("knows_none", [False, True])
def test_a_cut_after_the_last_bar_is_no_cut(outputs, batch, knows_none):
    whole = segment_loss(outputs, batch, first_start=FIRST, knows_none=knows_none)
    cut = segment_loss(
        outputs, {**batch, "last_seen": torch.full((5,), K - 1)}, first_start=FIRST, knows_none=knows_none
    )  # fmt: skip
    assert cut.item() == pytest.approx(whole.item(), rel=1e-6)


def test_before_any_bar_every_start_is_still_to_come(outputs, batch):
    batch["last_seen"] = torch.full((5,), FIRST - 1)
    assert segment_loss(outputs, batch, first_start=FIRST).item() == pytest.approx(0, abs=1e-6)


def test_one_window_may_be_right_in_several_cells_but_each_counts_once():
    spans = torch.tensor([[(4, 6), (4, 8)]])
    right, is_waiting = cells_in_sight(spans, torch.tensor([0]), torch.tensor([5]), (1, N_STARTS, K), FIRST)
    assert right.sum() == K - 6 and right[0, 0, 4 - FIRST, 6:].all()  # both run: the same event
    assert not is_waiting.any()


def test_a_model_without_states_does_not_read_them(outputs, batch):
    one = {**outputs, "span_logits": outputs["span_logits"][:, :1]}
    losses = [
        segment_loss(one, {**batch, "type": torch.tensor(types)}, first_start=FIRST)
        for types in ([0, 1, 2, 1, 0], [1, 0, 2, 0, 1])
    ]
    assert losses[0] == losses[1]


def test_windows_without_an_expansion_count_only_where_none_is_an_answer(outputs, batch):
    changed = {**outputs, "span_logits": outputs["span_logits"].detach().clone()}
    changed["span_logits"][2] += torch.randn(2, N_STARTS, K)
    blind, seeing = (
        [segment_loss(each, batch, first_start=FIRST, knows_none=knows).item() for each in (outputs, changed)]
        for knows in (False, True)
    )
    assert blind[0] == blind[1] and seeing[0] != seeing[1]
    alone = {name: value[2:3] for name, value in batch.items()}
    scores = {**outputs, "span_logits": outputs["span_logits"][2:3]}
    assert segment_loss(scores, alone, first_start=FIRST) == 0
    share = 1 / (1 + sum(cells(outputs, 2).values()) / math.exp(1.5))
    loss = segment_loss(scores, alone, first_start=FIRST, knows_none=True)
    assert loss.item() == pytest.approx(-math.log(share), rel=1e-5)


def bare_batch(n, seed=1, strength=2.0):
    """A batch of windows of the bare law, whose two columns say all."""
    simulated = simulate_windows(n, seed=seed, law=replace(simulate_windows(1).law, strength=strength))
    windows, inputs = bare_study(simulated)
    return {
        "x": torch.from_numpy(inputs.x),
        "spans": torch.from_numpy(windows.spans),
        "type": torch.from_numpy(windows.state),
        "has_expansion": torch.from_numpy(windows.has_expansion),
    }


def loss_of(head, batch):
    with torch.no_grad():
        return segment_loss(
            head(head.score_linearly(head.look_around(batch["x"]))), batch, first_start=head.first_start
        ).item()


def plain_head(**options):
    return SegmentHead(2, **{"lead_bars": 2, "contrast_bars": (), "start_range": (30, 74)} | options)


def test_the_fit_ends_where_the_penalised_loss_is_flat():
    head, batch = plain_head(), bare_batch(30)
    report = fit_linear(head, batch, LinearPenalty(l2=3.0))
    assert report["end"] < report["start"]
    around, weights = head.look_around(batch["x"]), [head.start.weight, head.end.weight, head.inside.weight]
    total = 30 * segment_loss(head(head.score_linearly(around)), batch, first_start=30)
    total = total + 1.5 * sum((w**2).sum() for w in weights) + 0.5 * (head.length**2).sum()
    assert float(total.detach()) == pytest.approx(report["end"], rel=1e-5)
    gradients = torch.autograd.grad(total, [*weights, head.length])
    start = plain_head()
    start.set_scale(batch["x"])
    at_start = 30 * segment_loss(start(start.score_linearly(start.look_around(batch["x"]))), batch, first_start=30)
    at_start = torch.autograd.grad(at_start, [start.start.weight, start.end.weight, start.inside.weight, start.length])
    size, size_at_start = (math.sqrt(sum(float((g**2).sum()) for g in each)) for each in (gradients, at_start))
    assert size < 1e-3 * size_at_start


def test_the_fit_beats_the_constant_on_new_windows():
    train, test = bare_batch(60), bare_batch(200, seed=2)
    head, blind = plain_head(), plain_head()
    fit_linear(head, train)
    fit_linear(blind, train | {"x": train["x"].roll(1, dims=0)}, LinearPenalty(l2=1e3))  # other windows' bars
    assert loss_of(head, test) < loss_of(blind, test) - 1


def test_the_fit_equals_a_plain_dense_model():
    """The linear segment model written as one design matrix over all spans, minimised by Newton's method."""
    n_bars, first, last, lead = 8, 1, 5, 1
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(12, n_bars, 2, generator=generator)
    start = torch.randint(first, last + 1, (12,), generator=generator)
    end = torch.minimum(start + torch.randint(0, 3, (12,), generator=generator), torch.tensor(n_bars - 1))
    x[torch.arange(12), start, 0] += 1.5
    batch = {"x": x, "spans": torch.stack([start, end], dim=1)[:, None], "type": torch.zeros(12, dtype=torch.int64)}
    batch["has_expansion"] = torch.ones(12, dtype=torch.bool)
    head = SegmentHead(
        2, lead_bars=lead, contrast_bars=(), outer_bars=(), start_range=(first, last), window_bars=n_bars
    )
    fit_linear(head, batch, LinearPenalty(l2=0.7, length_l2=0.4), n_iterations=500)

    bars = ((x - x.flatten(0, 1).mean(dim=0)) / x.flatten(0, 1).std(dim=0)).double()
    at = (torch.arange(n_bars)[:, None] + torch.arange(-lead, lead + 1)).clamp(0, n_bars - 1)
    around = bars[:, at].transpose(2, 3).flatten(2)  # (window, bar, column by lead)
    around = around / around[:, first : last + 1].flatten(0, 1).std(dim=0)  # where a start may lie
    backward = bars[:, at.flip(1)].transpose(2, 3).flatten(2) / head.around_scale.double()
    spans = [(s, e) for s in range(first, last + 1) for e in range(s, n_bars)]
    design = []
    for s, e in spans:
        one_hot = torch.nn.functional.one_hot(torch.tensor(e - s), n_bars).expand(12, -1)
        design.append(torch.cat([around[:, s], backward[:, e], bars[:, s : e + 1].sum(dim=1), one_hot], dim=1))
        inside_bars = torch.full((12, 1), float(e - s + 1))
        design[-1] = torch.cat([design[-1], inside_bars], dim=1)  # the bias of inside counts bars
    design = torch.stack(design, dim=1).double()
    truth = torch.tensor([spans.index((s, e)) for s, e in zip(start.tolist(), end.tolist(), strict=True)])
    n_linear = 2 * around.shape[2] + 2
    ridge = torch.cat([torch.full((n_linear,), 0.7), torch.full((n_bars,), 0.4), torch.zeros(1)]).double()

    def objective(w):
        return torch.nn.functional.cross_entropy(design @ w, truth, reduction="sum") + (ridge * w**2).sum() / 2

    w = torch.zeros(design.shape[2], dtype=torch.float64)
    for _ in range(30):
        gradient, hessian = torch.func.grad(objective)(w), torch.func.hessian(objective)(w)
        w = w - torch.linalg.lstsq(hessian, gradient[:, None]).solution[:, 0]
    wanted = (design @ w).log_softmax(dim=1)
    with torch.no_grad():
        logits = head(head.score_linearly(head.look_around(x)))["span_logits"][:, 0]
    found = torch.stack([logits[:, s - first, e] for s, e in spans], dim=1).log_softmax(dim=1)
    torch.testing.assert_close(found.double(), wanted, atol=5e-3, rtol=1e-3)


def norms(head):
    w = {name: value.detach() for name, value in head.named_parameters()}
    return {
        "weights": sum(float((w[f"{part}.weight"] ** 2).sum()) for part in ("start", "end", "inside")),
        "mirror": float(((w["start.weight"].mean(dim=0) - w["end.weight"][0]) ** 2).sum()),
        "length": float((w["length"] ** 2).sum()),
        "rough": float((w["length"].diff() ** 2).sum()),
    }


@pytest.mark.parametrize(
    ("name", "norm"),
    [("l2", "weights"), ("mirror", "mirror"), ("length_l2", "length"), ("length_roughness", "rough")],
)
def test_each_penalty_holds_down_what_it_names(name, norm):
    batch, sizes = bare_batch(25), []
    for strength in (1.0, 30.0, 1000.0):
        head = plain_head()
        fit_linear(head, batch, replace(PLAIN, **{name: strength}))
        sizes.append(norms(head)[norm])
    assert sizes[0] > 1.5 * sizes[1] > 2 * sizes[2] > 0


def test_a_second_fit_is_drawn_to_where_the_first_ended():
    head = plain_head()
    fit_linear(head, bare_batch(30))
    before = {name: value.clone() for name, value in head.state_dict().items()}
    fit_linear(head, bare_batch(20, seed=3), LinearPenalty(l2=1e6, length_l2=1e6))
    for name, value in head.state_dict().items():
        if "bias" not in name:
            torch.testing.assert_close(value, before[name], atol=1e-3, rtol=0)


def test_copies_that_count_for_one_window_change_nothing():
    batch = bare_batch(20)
    thrice = {name: value.repeat_interleave(3, dim=0) for name, value in batch.items()}
    one, two, three = plain_head(), plain_head(), plain_head()
    fit_linear(one, batch)
    fit_linear(two, thrice, n_windows=20)
    fit_linear(three, thrice)
    test = bare_batch(50, seed=2)
    assert loss_of(two, test) == pytest.approx(loss_of(one, test), abs=5e-3)
    assert abs(loss_of(three, test) - loss_of(one, test)) > 2e-2  # three times the windows, the same penalty


@pytest.mark.parametrize("turning", [None, [[0, -1.0, 0.0], [1, 1.0, 0.0]]])
def test_equal_seeds_give_equal_scores_bit_for_bit(turning):
    batch, heads = bare_batch(12), []
    for seed in (1, 1, 2):
        heads.append(plain_head(upside_down=turning))
        fit_linear(heads[-1], batch, STEADY, seed=seed)
    states = [head.state_dict() for head in heads]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    # only two directions that are alike at 0 need a draw to part
    assert torch.equal(states[0]["start.weight"], states[2]["start.weight"]) == (turning is None)


def test_two_directions_part():
    """With drift, up and down look unlike: the fit must not stay where both score alike."""
    law = replace(simulate_windows(1).law, drift=2.0)
    windows, inputs = bare_study(simulate_windows(80, seed=4, law=law))
    batch = bare_batch(80) | {"x": torch.from_numpy(inputs.x), "spans": torch.from_numpy(windows.spans)}
    head = plain_head(upside_down=[[0, -1.0, 0.0], [1, 1.0, 0.0]])
    fit_linear(head, batch)
    assert head.inside.weight[0, 0].abs() > 0.05  # the signed return


def test_windows_without_a_bar_are_a_sentence():
    batch = bare_batch(3)
    with pytest.raises(UserError, match="none of the 3 labelled windows has a valid bar"):
        fit_linear(plain_head(), batch | {"x": torch.zeros_like(batch["x"])})


@pytest.mark.parametrize("start", [29, 75])
def test_a_label_outside_the_range_of_starts_is_a_sentence(start):
    batch = bare_batch(5)
    batch["spans"][3, 0] = torch.tensor([start, 90])
    with pytest.raises(UserError, match=f"window 3 has an expansion that starts at bar {start}, outside 30 to 74"):
        fit_linear(plain_head(), batch)


def test_no_expansion_is_learned_where_it_was_labelled():
    batch, flat = bare_batch(60, strength=3.0), bare_batch(60, seed=9, strength=1.0)
    mixed = {name: torch.cat([batch[name], flat[name]]) for name in batch}
    mixed["has_expansion"][60:], mixed["spans"][60:] = False, -1
    head = plain_head(contrast_bars=(3, 6))
    fit_linear(head, mixed, knows_none=True)
    with torch.no_grad():
        outputs = head(head.score_linearly(head.look_around(mixed["x"])))
    log_odds = outputs["span_logits"].flatten(1).logsumexp(dim=1) - outputs["null_logit"]
    assert log_odds[:60].mean() > 1 > -1 > log_odds[60:].mean()


def test_an_encoder_takes_no_part_in_the_linear_fit():
    torch.manual_seed(1)
    model = build_model("jade_compact", n_features=2, n_classes=1, heads=("segment",), hidden_size=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_linear(model.segment_head, bare_batch(20))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {f"segment_head.{name}" for name in LINEAR | SCALES}


LINEAR = {"start.weight", "start.bias", "end.weight", "inside.weight", "inside.bias", "length"}
SCALES = {"mean", "scale", "around_scale"}
