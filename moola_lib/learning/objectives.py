"""What an encoder is pre-trained to do: reconstruct hidden bars, or classify every bar.

Both offer `loss_name`, `losses`, `validate` and `figures`, which is all that the loop in `pretrain` asks of them.
"""

import torch
from torch.nn import functional

from moola_lib.errors import UserError
from moola_lib.labels.pretext import PRETEXT_TASKS, UNKNOWN
from moola_lib.learning.device import at_precision
from moola_lib.learning.losses import masked_huber, sigma_loss
from moola_lib.windows.gather import window_view
from moola_lib.windows.masks import MASKS

PRETEXT_WEIGHTS = {"expansion": 0.5, "swing": 0.3, "candle": 0.2}
BLOCK = 256  # windows at a time where no gradient is needed


class Reconstruction:
    """Reconstruct hidden bars: a Huber loss on them, each feature divided by its spread.

    Parameters
    ----------
    gather : WindowGatherer
    train_places : ndarray (n,), int64
        Windows that the spread is fitted on.
    settings : PretrainSettings
    """

    loss_name = "huber"

    def __init__(self, gather, train_places, settings):
        self.gather, self.settings = gather, settings
        _, self.scale = feature_moments(gather, train_places)

    def losses(self, model, places, noise):
        """Return (what is minimised, what is reported), or None where nothing valid is hidden.

        Parameters
        ----------
        model : MaskedAutoencoder
        places : Tensor (batch,), int64
        noise : torch.Generator
            On the device: draws mask and jitter.
        """
        settings = self.settings
        clean, is_valid = self.gather(places)
        is_masked = draw_mask(is_valid.shape, settings, noise)
        is_scored = is_masked & is_valid
        if not is_scored.any():
            return None
        jittered = add_jitter(clean, is_valid, settings.jitter, noise)
        with at_precision(clean.device, settings.precision):
            answer = model(jittered, is_masked & settings.hide_input)["reconstruction"]
        huber = masked_huber(answer.float(), clean, is_scored, scale=self.scale)
        # σ learns from a detached loss: it is reported, and cannot change what the encoder learns
        return huber + sigma_loss(huber.detach(), model.log_sigma).sum(), huber

    @torch.no_grad()
    def validate(self, model, places):
        """Return the mean Huber loss over hidden bars: unjittered, in fp32, under masks that never change.

        Parameters
        ----------
        places : Tensor (n,), int64

        Returns
        -------
        float
        """
        model.eval()
        noise = torch.Generator(self.gather.device).manual_seed(self.settings.seed + 1)
        total, n_seen = 0.0, 0
        for part in torch.as_tensor(places).split(BLOCK):
            x, is_valid = self.gather(part)
            is_masked = draw_mask(is_valid.shape, self.settings, noise)
            is_scored = is_masked & is_valid
            if is_scored.any():
                with at_precision(x.device, "fp32"):
                    answer = model(x, is_masked & self.settings.hide_input)["reconstruction"]
                total += float(masked_huber(answer, x, is_scored, scale=self.scale)) * len(part)
                n_seen += len(part)
        if n_seen == 0:
            raise UserError("no hidden bar of the validation windows is valid; give a longer series")
        return total / n_seen

    def figures(self, model, validation):
        """Return an epoch's further figures: the σ-loss is no scale, and stands beside the Huber it comes from."""
        log_sigma = model.log_sigma.detach().cpu()
        return {
            "validation_sigma_loss": float(sigma_loss(torch.tensor(validation), log_sigma)),
            "log_sigma": float(log_sigma),
        }


class BarClassification:
    """Classify every bar three times: expansion, swing, candle.

    Parameters
    ----------
    gather : WindowGatherer
    targets : DataFrame (n_bars, 3), int8
        From `labels.pretext_targets`.
    settings : PretrainSettings
    """

    loss_name = "loss"

    def __init__(self, gather, targets, settings):
        self.gather, self.settings = gather, settings
        self._targets = window_view(torch.tensor(targets[list(PRETEXT_TASKS)].to_numpy(), device=gather.device))

    def targets_at(self, places):
        """Return the classes of the windows' bars, dict by task of Tensor (batch, time), int64."""
        classes = self._targets.index_select(0, places.to(self._targets.device)).long()
        return dict(zip(PRETEXT_TASKS, classes.unbind(dim=2), strict=True))

    def losses(self, model, places, noise):
        """Return (what is minimised, what is reported), here the same.

        Parameters
        ----------
        model : MultitaskPretrainer
        places : Tensor (batch,), int64
        noise : torch.Generator
            On the device: draws the jitter.
        """
        clean, is_valid = self.gather(places)
        jittered = add_jitter(clean, is_valid, self.settings.jitter, noise)
        with at_precision(clean.device, self.settings.precision):
            outputs = model(jittered)
        loss = pretext_loss(outputs, self.targets_at(places))
        return loss, loss

    @torch.no_grad()
    def validate(self, model, places):
        """Return the mean loss, unjittered and in fp32, float; `places` (n,) int64."""
        model.eval()
        total = 0.0
        for part in torch.as_tensor(places).split(BLOCK):
            with at_precision(self.gather.device, "fp32"):
                outputs = model(self.gather(part)[0])
            total += float(pretext_loss(outputs, self.targets_at(part))) * len(part)
        return total / len(places)

    def figures(self, model, validation):
        """Return an epoch's further figures: none."""
        return {}


def pretext_loss(outputs, targets):
    """Return .5 expansion + .3 swing + .2 candle, each a cross-entropy over the bars that have a target.

    Parameters
    ----------
    outputs : dict of Tensor (batch, time, n_classes)
        `<task>_logits` of a MultitaskPretrainer.
    targets : dict of Tensor (batch, time), int64
        UNKNOWN where there is none. A task without any target counts 0.

    Returns
    -------
    Tensor (), float32
    """
    total = 0.0
    for task, weight in PRETEXT_WEIGHTS.items():
        logits, classes = outputs[f"{task}_logits"].float().flatten(0, 1), targets[task].flatten()
        summed = functional.cross_entropy(logits, classes, ignore_index=UNKNOWN, reduction="sum")
        total = total + weight * summed / (classes != UNKNOWN).sum().clamp(min=1)
    return total


def draw_mask(shape, settings, generator):
    """Return which bars are hidden, (batch, time) bool, as the settings say."""
    if settings.mask == "span":
        return MASKS["span"](shape, settings.mask_ratio, generator, settings.mask_span_bars)
    return MASKS[settings.mask](shape, settings.mask_ratio, generator)


def add_jitter(clean, is_valid, deviation, noise):
    """Return the input with normal noise on its valid bars; invalid ones enter as 0.

    Parameters
    ----------
    clean : Tensor (batch, time, feature), float32
    is_valid : Tensor (batch, time), bool
    deviation : float
        Feature units.
    noise : torch.Generator
        On the device.
    """
    drawn = torch.randn(clean.shape, generator=noise, device=clean.device)
    return clean + drawn * deviation * is_valid.unsqueeze(-1)


def feature_moments(gather, places, *, batch_size=1024):
    """Return each feature's mean and standard deviation over the valid bars of the given windows.

    Fit them on training windows only; a constant feature gets a deviation of 1.

    Returns
    -------
    (mean, deviation) : Tensor (feature,), float32
    """
    count, total, squares = 0, 0.0, 0.0
    for part in torch.as_tensor(places).split(batch_size):
        x, is_valid = gather(part)
        rows = x[is_valid].double()
        count += len(rows)
        total = total + rows.sum(0)
        squares = squares + (rows**2).sum(0)
    if count == 0:
        raise UserError("no training window holds a valid bar; give a longer series")
    mean = total / count
    variance = (squares / count - mean**2).clamp(min=0)
    return mean.float(), torch.where(variance > 1e-12, variance.sqrt(), torch.ones_like(variance)).float()
