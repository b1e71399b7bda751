"""Did the encoder learn more than interpolation would give? Skill per feature, and proof that hidden means hidden."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from moola_lib.errors import UserError
from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.learning.objectives import draw_mask
from moola_lib.models.pretrainers import hide
from moola_lib.windows.masks import exact_mask, single_mask

RIVALS = ("mean", "last value", "interpolation")
SKILL_MASKS = {
    "single bars": single_mask,
    **{f"{n} bars": partial(exact_mask, span_bars=n) for n in (3, 10, 30)},
}


def reconstruction_skill(model, gather, places, days, train_mean, settings, *, n_bootstrap=500):
    """Compare the model with three simple answers on hidden bars: by mask, feature by feature.

    Single bars are hidden independently; the other masks hide runs of exactly
    3, 10 and 30 bars with a visible bar on both sides. Each hides about
    `settings.mask_ratio` of the bars, whatever mask the model was trained on.

    Parameters
    ----------
    model : MaskedAutoencoder
    gather : WindowGatherer
    places : ndarray (n,), int64
        Test windows.
    days : ndarray (n,)
        Trading day of each, for the intervals.
    train_mean : ndarray (feature,), float32
        Mean of each feature over the training windows.
    settings : PretrainSettings
        Its `hide_input` is not read: what is hidden here stays hidden.
    n_bootstrap : int

    Returns
    -------
    DataFrame
        One row per mask of SKILL_MASKS and feature: `mask`, `feature`, `mae
        model`, and for each rival `mae <rival>`, `skill vs <rival>` = 1 -
        squared error / the rival's squared error with its 95% interval `low vs
        <rival>` and `high vs <rival>`; `n_hidden` bars.
    """
    weights = day_block_weights(days, n_bootstrap=n_bootstrap, seed=settings.seed)
    rows = []
    for mask, draw in SKILL_MASKS.items():
        errors = _errors(model, gather, places, train_mean, draw, settings)
        rows += [
            {"mask": mask, "feature": feature, **_skill_row(errors, column, weights)}
            for column, feature in enumerate(gather.names)
        ]
    return pd.DataFrame(rows)


@torch.no_grad()
def _errors(model, gather, places, train_mean, draw, settings):
    """Return each window's summed errors: `squared` and `absolute`, name to (n, feature); `n_hidden` (n,)."""
    model.eval()
    generator = torch.Generator(gather.device).manual_seed(settings.seed + 2)
    squared, absolute, n_hidden = {}, {}, []
    for part in torch.as_tensor(places).split(256):
        x, is_valid = gather(part)
        noise = torch.rand(is_valid.shape, generator=generator, device=x.device)
        is_masked = draw(noise, settings.mask_ratio)
        answers = fill_hidden(x, is_masked, torch.as_tensor(train_mean, device=x.device), is_valid)
        answers["model"] = model(x, is_masked)["reconstruction"]
        is_scored = (is_masked & is_valid).unsqueeze(-1)
        for name, answer in answers.items():
            error = ((answer - x) * is_scored).double()
            squared.setdefault(name, []).append((error**2).sum(dim=1).cpu().numpy())
            absolute.setdefault(name, []).append(error.abs().sum(dim=1).cpu().numpy())
        n_hidden.append(is_scored.sum(dim=(1, 2)).cpu().numpy())
    squared, absolute = ({name: np.concatenate(parts) for name, parts in kind.items()} for kind in (squared, absolute))
    return {"squared": squared, "absolute": absolute, "n_hidden": np.concatenate(n_hidden)}


def _skill_row(errors, column, weights):
    """Return one feature's errors and skills, with the intervals that the windows' weights give."""
    n_hidden = int(errors["n_hidden"].sum())
    row = {f"mae {name}": errors["absolute"][name][:, column].sum() / n_hidden for name in ("model", *RIVALS)}
    own = errors["squared"]["model"][:, column]
    for rival in RIVALS:
        theirs = errors["squared"][rival][:, column]
        row[f"skill vs {rival}"] = float(_skill(own.sum(), theirs.sum()))
        row[f"low vs {rival}"], row[f"high vs {rival}"] = interval(_skill(weights @ own, weights @ theirs))
    return row | {"n_hidden": n_hidden}


def _skill(own, theirs):
    """Return 1 - own / theirs, NaN where the rival makes no error."""
    own, theirs = np.asarray(own), np.asarray(theirs)
    return 1 - np.divide(own, theirs, out=np.full(theirs.shape, np.nan), where=theirs > 0)


def hardest_rival(skill):
    """Return, for each mask and feature, the skill against the rival that is hardest to beat.

    Parameters
    ----------
    skill : DataFrame
        From `reconstruction_skill`.

    Returns
    -------
    DataFrame
        `mask`, `feature`, `rival`, `skill`, `low`, `high`, and `verdict`:
        "better" or "worse" where the interval excludes 0, else "inconclusive".
    """
    values = skill[[f"skill vs {rival}" for rival in RIVALS]].to_numpy()
    hardest = np.where(np.isnan(values), np.inf, values).argmin(axis=1)  # a rival without error beats nobody here
    picked = {
        name: skill[[f"{name} vs {rival}" for rival in RIVALS]].to_numpy()[np.arange(len(skill)), hardest]
        for name in ("skill", "low", "high")
    }
    verdict = np.select([picked["low"] > 0, picked["high"] < 0], ["better", "worse"], default="inconclusive")
    return skill[["mask", "feature"]].assign(rival=np.array(RIVALS)[hardest], **picked, verdict=verdict)


def fill_hidden(x, is_masked, mean, is_valid=None):
    """Answer hidden bars without learning.

    Parameters
    ----------
    x : Tensor (batch, time, feature), float32
        Read at visible bars only.
    is_masked : Tensor (batch, time), bool
    mean : Tensor (feature,), float32
    is_valid : Tensor (batch, time), bool, optional
        Bars that may serve as anchors; an invalid row holds zeros, not a value.

    Returns
    -------
    dict of Tensor (batch, time, feature)
        `mean`; `last value`, the nearest visible bar before (after, at the
        window's start); `interpolation`, linear between the visible bars on
        both sides (the nearest one at the window's ends).
    """
    time = x.shape[1]
    is_absent = is_masked if is_valid is None else is_masked | ~is_valid
    bars = torch.arange(time, device=x.device).expand(is_masked.shape)
    before = torch.where(is_absent, -1, bars).cummax(dim=1).values
    after = torch.where(is_absent, time, bars).flip(1).cummin(dim=1).values.flip(1)
    has_before, has_after = before >= 0, after < time
    # a window without any visible bar has neither; the mean stands in
    left = torch.where(has_before, before, after.clamp(max=time - 1))
    right = torch.where(has_after, after, before.clamp(min=0))
    rows = torch.arange(len(x), device=x.device)[:, None]
    is_blind = ~(has_before | has_after).unsqueeze(-1)
    mean = mean.expand_as(x)
    at_left, at_right = (torch.where(is_blind, mean, x[rows, edge]) for edge in (left, right))
    share = ((bars - left) / (right - left).clamp(min=1)).unsqueeze(-1)
    return {"mean": mean, "last value": at_left, "interpolation": at_left + (at_right - at_left) * share}


@torch.no_grad()
def check_hiding(model, gather, places, settings):
    """Change every hidden value and see whether anything the model does changes: the leak detector.

    What is hidden from the encoder is what `settings` hide from it in training.

    Parameters
    ----------
    model : MaskedAutoencoder
    gather : WindowGatherer
    places : ndarray (n,), int64
    settings : PretrainSettings

    Returns
    -------
    dict
        `input_change`: largest change of the encoder's input (must be 0);
        `output_change`: of the reconstruction (must be 0);
        `visible_change`: of the reconstruction when visible values change
        instead (must not be 0, or the check could not fail);
        `verdict`: "hidden", "LEAK", or "cannot tell".
    """
    model.eval()
    generator = torch.Generator(gather.device).manual_seed(settings.seed + 3)
    x, is_valid = gather(torch.as_tensor(places))
    is_masked = draw_mask(torch.rand(is_valid.shape, generator=generator, device=x.device), settings)
    noise = torch.randn(x.shape, generator=generator, device=x.device) * 10
    at_hidden, at_visible = x + noise * is_masked.unsqueeze(-1), x + noise * ~is_masked.unsqueeze(-1)
    is_hidden = is_masked & settings.hide_input

    def answer(x):
        return model(x, is_hidden)["reconstruction"]

    found = {
        "input_change": float((hide(at_hidden, is_hidden) - hide(x, is_hidden)).abs().max()),
        "output_change": float((answer(at_hidden) - answer(x)).abs().max()),
        "visible_change": float((answer(at_visible) - answer(x)).abs().max()),
    }
    is_leak = found["input_change"] > 0 or found["output_change"] > 0
    verdict = "LEAK" if is_leak else "hidden" if found["visible_change"] > 0 else "cannot tell"
    return {**found, "verdict": verdict}


def require_hiding(found):
    """Refuse to go on with an encoder that saw what it was to reconstruct: it learned to copy.

    Parameters
    ----------
    found : dict
        From `check_hiding`.

    Raises
    ------
    UserError
        The verdict is anything but "hidden".
    """
    if found["verdict"] != "hidden":
        raise UserError(
            f"this encoder is not exported: changing hidden values changed its input by {found['input_change']:.3g} "
            f"and its answer by {found['output_change']:.3g} ({found['verdict']}); train with hide_input: true"
        )
