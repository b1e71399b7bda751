"""Masks hide what they promise; samplers and the time warp keep their word."""

import numpy as np
import pytest
import torch

from moola_lib.errors import UserError
from moola_lib.labels import expansion_targets
from moola_lib.windows.augment import warp_batch
from moola_lib.windows.masks import MASKS, exact_mask
from moola_lib.windows.samplers import balanced_batches, count_drawn, epoch_batches, shuffled_batches


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def noise(batch, time=105, seed=1):
    return torch.rand((batch, time), generator=generator(seed))


def runs(mask):
    """Lengths of hidden runs that touch no edge of their window."""
    found = []
    for row in mask.numpy():
        edges = np.diff(row.astype(int))
        first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        if len(first) and len(last):
            last = last[last > first[0]]
            found += list(last[: len(first)] - first[: len(last)])
    return np.array(found)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("ratio", [0.15, 0.4, 0.6])
def test_the_expected_share_is_hidden(name, ratio):
    mask = MASKS[name](noise(3000), ratio)
    assert mask.dtype == torch.bool and mask.shape == (3000, 105)
    assert mask.float().mean().item() == pytest.approx(ratio, abs=0.01)
    assert mask.float().mean(dim=0).numpy() == pytest.approx(ratio, abs=0.05)  # no place is favoured


@pytest.mark.parametrize("name", MASKS)
def test_every_window_hides_at_least_one_bar(name):
    mask = MASKS[name](noise(2000, 20), 0.001)
    assert mask.any(dim=1).all()
    assert mask.sum(dim=1).float().mean() < 1.2


@pytest.mark.parametrize("name", MASKS)
def test_a_windows_mask_follows_from_its_own_noise_alone(name):
    drawn = noise(50)
    whole = MASKS[name](drawn, 0.15)
    assert torch.equal(whole, torch.cat([MASKS[name](part, 0.15) for part in drawn.split(7)]))
    assert not torch.equal(whole, MASKS[name](noise(50, seed=2), 0.15))


@pytest.mark.parametrize("name", MASKS)
def test_where_nothing_would_be_hidden_any_bar_may_be_the_one(name):
    bars = MASKS[name](noise(40_000, 20), 1e-6).int().argmax(dim=1)
    assert (torch.bincount(bars, minlength=20) / 40_000).numpy() == pytest.approx(1 / 20, abs=0.006)


def test_span_lengths_are_geometric_with_their_mean():
    mask = MASKS["span"](noise(4000, 400), 0.15, mean_bars=10)
    lengths = runs(mask)
    assert lengths.mean() == pytest.approx(10, rel=0.05)
    assert lengths.std() == pytest.approx(np.sqrt(90), rel=0.08)  # sd of a geometric: sqrt(mean (mean - 1))
    assert (lengths == 1).mean() == pytest.approx(0.1, abs=0.02)


def markov_chain(noise, ratio, mean_bars):
    """The definition, bar after bar: a hidden run ends with probability 1 / mean_bars."""
    leave = 1 / mean_bars
    enter = leave * ratio / (1 - ratio)
    states = [noise[:, 0] < ratio]
    for t in range(1, noise.shape[1]):
        states.append(torch.where(states[-1], noise[:, t] >= leave, noise[:, t] < enter))
    return torch.stack(states, dim=1)


@pytest.mark.parametrize(("ratio", "mean_bars"), [(0.15, 10), (0.4, 3), (0.5, 1), (0.6, 1.5), (0.9, 10)])
def test_spans_are_the_states_of_a_markov_chain(ratio, mean_bars):
    expected = markov_chain(noise(500), ratio, mean_bars)
    found = MASKS["span"](noise(500), ratio, mean_bars)
    has = expected.any(dim=1)  # a window in which nothing is hidden gets one bar
    assert has.any() and torch.equal(found[has], expected[has])


@pytest.mark.parametrize("span_bars", [1, 3, 10, 30, 103])
def test_exact_runs_have_their_length_and_a_visible_bar_on_both_sides(span_bars):
    mask = exact_mask(noise(400), 0.3, span_bars)
    assert not mask[:, 0].any() and not mask[:, -1].any()
    assert (runs(mask) == span_bars).all()
    counts = mask.sum(dim=1)
    assert (counts == max(round(0.3 * 105 / span_bars), 1) * span_bars).all()


def test_exact_runs_are_placed_anywhere():
    first = exact_mask(noise(4000, 12), 0.1, 3).int().argmax(dim=1)
    counts = torch.bincount(first, minlength=12)[1:9]
    assert counts.sum() == 4000 and (counts.float() / 4000).numpy() == pytest.approx(1 / 8, abs=0.02)


def test_runs_that_do_not_fit_are_a_sentence():
    with pytest.raises(UserError, match="a span of 104 bars does not fit"):
        exact_mask(noise(2), 0.3, 104)
    assert exact_mask(noise(2, 9), 0.9, 3).sum(dim=1).tolist() == [6, 6]  # as many as fit


def test_single_bars_are_mostly_alone():
    mask = MASKS["single"](noise(4000), 0.15)
    inner = mask[:, 1:-1]
    alone = inner & ~mask[:, :-2] & ~mask[:, 2:]
    assert (alone.sum() / inner.sum()).item() == pytest.approx(0.72, abs=0.02)


def test_shuffled_batches_show_every_row_once():
    batches = list(shuffled_batches(23, 5, generator()))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    rows = torch.cat(batches)
    assert sorted(rows.tolist()) == list(range(23)) and rows.tolist() != list(range(23))


def test_an_epochs_batches_follow_from_seed_and_epoch_alone():
    def rows(**changes):
        return torch.cat(epoch_batches(23, 5, **{"seed": 1, "epoch": 0} | changes)).tolist()

    assert [len(batch) for batch in epoch_batches(23, 5, seed=1, epoch=0)] == [5, 5, 5, 5, 3]
    assert sorted(rows()) == list(range(23)) and rows() == rows()
    assert len({tuple(rows(seed=seed, epoch=epoch)) for seed in range(4) for epoch in range(4)}) == 16
    drawn = rows(n_drawn=12)
    assert len(set(drawn)) == 12 and drawn == rows()[:12]


def test_a_strided_epoch_shows_every_nth_row_once_from_an_offset_of_its_own():
    epochs = [torch.cat(epoch_batches(83, 5, seed=1, epoch=epoch, stride=8)).sort().values for epoch in range(60)]
    assert all(len(rows) == 10 and (rows.diff() == 8).all() for rows in epochs)
    assert len({int(rows[0]) for rows in epochs}) > 8  # of 11 offsets
    assert set(torch.cat(epochs).tolist()) == set(range(83))  # with time, every row is shown


def test_a_stride_and_a_number_of_windows_both_bound_an_epoch():
    assert count_drawn(83) == 83 and count_drawn(83, 40) == 40 and count_drawn(83, stride=8) == 10
    assert count_drawn(83, 4, stride=8) == 4 and count_drawn(83, 500) == 83
    assert len(torch.cat(epoch_batches(83, 5, seed=1, epoch=0, n_drawn=4, stride=8))) == 4
    with pytest.raises(UserError, match="epoch_stride 84 leaves none of 83 windows"):
        count_drawn(83, stride=84)


def test_balanced_batches_show_each_class_equally_often():
    classes = torch.tensor([0] * 360 + [1] * 40)
    rows = torch.cat([torch.cat(list(balanced_batches(classes, 29, generator(seed)))) for seed in range(10)])
    assert len(rows) == 4000
    assert (classes[rows] == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_balanced_batches_take_a_missing_class():
    rows = torch.cat(list(balanced_batches(torch.tensor([0, 0, 2, 2]), 3, generator())))
    assert len(rows) == 4 and set(rows.tolist()) <= {0, 1, 2, 3}


@pytest.fixture
def batch():
    spans = np.array([[40, 48], [30, 33], [74, 104], [-1, -1]])
    has = spans[:, 0] >= 0
    made = expansion_targets(np.where(has, spans[:, 0], 0), np.where(has, spans[:, 1], 0))
    keep = has[:, None].astype(np.float32)
    made_pointers = np.stack([made.centre, made.length], axis=1).astype(np.float32)
    return {
        "x": torch.randn(4, 105, 3, generator=generator()),
        "is_valid": torch.ones(4, 105, dtype=torch.bool),
        "pointers": torch.as_tensor(made_pointers * keep),
        "inside": torch.as_tensor(made.mask * keep),
        "countdown": torch.as_tensor(made.countdown * keep),
        "type": torch.tensor([0, 1, 0, 2]),
        "has_expansion": torch.as_tensor(has),
    }, (spans[:, 0], spans[:, 1])


def test_a_warp_of_probability_0_is_the_batch_itself(batch):
    assert warp_batch(*batch, 0.0, generator()) is batch[0]


def test_a_warp_moves_features_and_keeps_targets_of_one_span(batch):
    plain, spans = batch
    told = torch.stack([torch.as_tensor(edge) for edge in spans], dim=1)[:, None]
    told[3] = -1
    warped = warp_batch({**plain, "spans": told}, spans, 1.0, generator())
    assert not torch.equal(warped["x"], plain["x"]) and (warped["spans"][3] == -1).all()
    for row in range(3):
        inside = warped["inside"][row].numpy()
        start, end = inside.argmax(), 104 - inside[::-1].argmax()
        made = expansion_targets(start, end)
        assert warped["spans"][row].tolist() == [[start, end]]
        np.testing.assert_array_equal(inside, made.mask)
        np.testing.assert_array_equal(warped["countdown"][row], made.countdown)
        np.testing.assert_allclose(warped["pointers"][row], [made.centre, made.length], atol=1e-7)
        assert abs(start - spans[0][row]) <= 12 and abs(end - spans[1][row]) <= 12
    for name in ("inside", "countdown", "pointers"):
        assert not warped[name][3].any()
    assert torch.equal(warped["type"], plain["type"])


def test_a_warp_keeps_both_ends_of_the_window(batch):
    warped = warp_batch(*batch, 1.0, generator())
    torch.testing.assert_close(warped["x"][:, [0, -1]], batch[0]["x"][:, [0, -1]])


def test_a_warp_carries_the_features_of_the_span_along(batch):
    plain, spans = batch
    plain["x"] = plain["inside"].unsqueeze(-1).repeat(1, 1, 3)
    warped = warp_batch(plain, spans, 1.0, generator())
    agreement = ((warped["x"][..., 0] > 0.5) == (warped["inside"] > 0.5)).float().mean(dim=1)
    assert (agreement > 0.97).all()


def test_windows_a_warp_spares_are_untouched(batch):
    plain, spans = batch
    warped = warp_batch(plain, spans, 1e-9, generator())
    for name, value in plain.items():
        assert torch.equal(warped[name], value), name
