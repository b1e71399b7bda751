"""Did the encoder learn more than interpolation would give? Skill per feature, and proof that hidden means hidden."""

import numpy as np
import pandas as pd
import torch

from moola_lib.evaluation.intervals import day_block_weights, interval
from moola_lib.learning.pretrain import draw_mask
from moola_lib.models.pretrainers import hide

RIVALS = ("mean", "last value", "interpolation")


@torch.no_grad()
def reconstruction_skill(model, gather, places, days, train_mean, settings, *, n_bootstrap=500):
    """Compare the model with three simple answers on hidden bars, feature by feature.

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
        Which mask to draw.
    n_bootstrap : int

    Returns
    -------
    DataFrame
        One row per feature: `feature`, `mae` of the model and of each rival,
        and for each rival `skill vs <rival>` = 1 - squared error / the rival's
        squared error, with `low` and `high` for interpolation, and `n_hidden`.
    """
    model.eval()
    generator = torch.Generator(gather.device).manual_seed(settings.seed + 2)
    squared = {name: [] for name in ("model", *RIVALS)}
    absolute = {name: [] for name in ("model", *RIVALS)}
    counts = []
    for part in torch.as_tensor(places).split(256):
        x, is_valid = gather(part)
        is_masked = draw_mask(is_valid.shape, settings, generator)
        answers = fill_hidden(x, is_masked, torch.as_tensor(train_mean, device=x.device), is_valid)
        answers["model"] = model(x, is_masked)["reconstruction"]
        scored = (is_masked & is_valid).unsqueeze(-1)
        for name, answer in answers.items():
            error = (answer - x) * scored
            squared[name].append((error**2).sum(dim=1).cpu().numpy())
            absolute[name].append(error.abs().sum(dim=1).cpu().numpy())
        counts.append(scored.sum(dim=(1, 2)).cpu().numpy())
    squared = {name: np.concatenate(value).astype(np.float64) for name, value in squared.items()}
    absolute = {name: np.concatenate(value).astype(np.float64) for name, value in absolute.items()}
    n_hidden = np.concatenate(counts)
    weights = day_block_weights(days, n_bootstrap=n_bootstrap, seed=settings.seed)
    rows = []
    for column, feature in enumerate(gather.names):
        row = {"feature": feature}
        for name in ("model", *RIVALS):
            row[f"mae {name}"] = absolute[name][:, column].sum() / n_hidden.sum()
        own = squared["model"][:, column]
        for rival in RIVALS:
            theirs = squared[rival][:, column]
            row[f"skill vs {rival}"] = 1 - own.sum() / theirs.sum() if theirs.sum() > 0 else np.nan
        theirs = weights @ squared["interpolation"][:, column]
        ratio = np.divide(weights @ own, theirs, out=np.full(len(weights), np.nan), where=theirs > 0)
        row["low"], row["high"] = interval(1 - ratio)
        row["n_hidden"] = int(n_hidden.sum())
        rows.append(row)
    return pd.DataFrame(rows)


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
    """Change every hidden value and see whether anything the model does changes.

    Returns
    -------
    dict
        `input_change`: largest change of the encoder's input (must be 0);
        `output_change`: of the reconstruction (must be 0);
        `visible_change`: of the reconstruction when visible values change
        instead (must not be 0, or the check could not fail).
    """
    model.eval()
    generator = torch.Generator(gather.device).manual_seed(settings.seed + 3)
    x, is_valid = gather(torch.as_tensor(places))
    is_masked = draw_mask(is_valid.shape, settings, generator)
    noise = torch.randn(x.shape, generator=generator, device=x.device) * 10
    hidden = is_masked.unsqueeze(-1)
    plain = model(x, is_masked)["reconstruction"]
    return {
        "input_change": float((hide(x + noise * hidden, is_masked) - hide(x, is_masked)).abs().max()),
        "output_change": float((model(x + noise * hidden, is_masked)["reconstruction"] - plain).abs().max()),
        "visible_change": float((model(x + noise * ~hidden, is_masked)["reconstruction"] - plain).abs().max()),
    }
