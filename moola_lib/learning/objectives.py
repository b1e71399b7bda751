"""What an encoder is pre-trained to do: reconstruct hidden bars, or classify every bar.

Both offer `loss_name`, `losses`, `combine`, `side_loss`, `validate` and `figures`, which is all that `pretrain` asks
of them. A loss comes as sums and counts, so that it is the same however a batch is shared among ranks.
"""

import torch
from torch.nn import functional

from moola_lib.errors import UserError
from moola_lib.labels.pretext import PRETEXT_TASKS, UNKNOWN
from moola_lib.learning.device import at_precision
from moola_lib.learning.losses import masked_huber, sigma_loss
from moola_lib.learning.ranks import share, sum_over_ranks
from moola_lib.windows.gather import window_view
from moola_lib.windows.masks import MASKS
from moola_lib.windows.noise import window_normals, window_uniforms

PRETEXT_WEIGHTS = {"expansion": 0.5, "swing": 0.3, "candle": 0.2}
BLOCK = 256  # windows at a time where no gradient is needed
MASKING, JITTERING, VALIDATING = range(3)  # what noise is drawn for


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

    def losses(self, model, places, epoch):
        """Return the summed loss of a batch and over how many values it goes.

        Parameters
        ----------
        model : MaskedAutoencoder
        places : Tensor (batch,), int64
        epoch : int
            Mask and jitter of a window follow from the seed, the epoch and its place.

        Returns
        -------
        (sums, counts) : Tensor (1,)
            Counts are 0 where nothing valid is hidden.
        """
        settings = self.settings
        places = places.to(self.gather.device)
        clean, is_valid = self.gather(places)
        noise = window_uniforms((settings.seed, MASKING, epoch), places, clean.shape[1])
        is_masked = draw_mask(noise, settings)
        jittered = jitter_windows(clean, is_valid, places, settings, epoch)
        with at_precision(clean.device, settings.precision):
            answer = model(jittered, is_masked & settings.hide_input)["reconstruction"]
        return self._score(answer.float(), clean, is_masked & is_valid)

    def combine(self, means):
        """Return what is minimised and reported, Tensor (), of the mean losses (1,)."""
        return means.sum()

    def side_loss(self, model, reported):
        """Return the loss of σ, which learns from a reported loss and cannot change what the encoder learns."""
        return sigma_loss(reported, model.log_sigma).sum()

    def validate(self, model, places):
        """Return the mean Huber loss over hidden bars: unjittered, in fp32, under masks that never change.

        Parameters
        ----------
        places : Tensor (n,), int64

        Returns
        -------
        float
        """
        sums, counts = _sum_blocks(self._validation_losses, model, places)
        if not counts.any():
            raise UserError("no hidden bar of the validation windows is valid; give a longer series")
        return float(self.combine(sums / counts))

    def _validation_losses(self, model, places):
        """Return (sums, counts) of a block of validation windows."""
        x, is_valid = self.gather(places)
        is_masked = draw_mask(window_uniforms((self.settings.seed, VALIDATING), places, x.shape[1]), self.settings)
        answer = model(x, is_masked & self.settings.hide_input)["reconstruction"]
        return self._score(answer, x, is_masked & is_valid)

    def _score(self, answer, target, is_scored):
        """Return (sums, counts) of the scored bars."""
        total = masked_huber(answer, target, is_scored, scale=self.scale, reduction="sum")
        return total.reshape(1), is_scored.sum().reshape(1) * target.shape[2]

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

    Attributes
    ----------
    classes : Tensor (n_bars, 3), int8
        The targets, in the order of PRETEXT_TASKS.
    """

    loss_name = "loss"

    def __init__(self, gather, targets, settings):
        self.gather, self.settings = gather, settings
        self.classes = torch.tensor(targets[list(PRETEXT_TASKS)].to_numpy(), device=gather.device)
        self._targets = window_view(self.classes)

    def targets_at(self, places):
        """Return the classes of the windows' bars, dict by task of Tensor (batch, time), int64."""
        classes = self._targets.index_select(0, places.to(self._targets.device)).long()
        return dict(zip(PRETEXT_TASKS, classes.unbind(dim=2), strict=True))

    def losses(self, model, places, epoch):
        """Return the summed loss of a batch and over how many bars it goes, for each task.

        Parameters
        ----------
        model : MultitaskPretrainer
        places : Tensor (batch,), int64
        epoch : int
            The jitter of a window follows from the seed, the epoch and its place.

        Returns
        -------
        (sums, counts) : Tensor (3,)
        """
        places = places.to(self.gather.device)
        clean, is_valid = self.gather(places)
        jittered = jitter_windows(clean, is_valid, places, self.settings, epoch)
        with at_precision(clean.device, self.settings.precision):
            outputs = model(jittered)
        return pretext_losses(outputs, self.targets_at(places))

    def combine(self, means):
        """Return .5 expansion + .3 swing + .2 candle of their mean losses (3,), Tensor ()."""
        return (means * means.new_tensor([PRETEXT_WEIGHTS[task] for task in PRETEXT_TASKS])).sum()

    def side_loss(self, model, reported):
        """Return what else is minimised: nothing."""
        return 0.0

    def validate(self, model, places):
        """Return the loss, unjittered and in fp32, float; `places` (n,) int64."""
        sums, counts = _sum_blocks(self._validation_losses, model, places)
        return float(self.combine(sums / counts.clamp(min=1)))

    def _validation_losses(self, model, places):
        """Return (sums, counts) of a block of validation windows."""
        return pretext_losses(model(self.gather(places)[0]), self.targets_at(places))

    def figures(self, model, validation):
        """Return an epoch's further figures: none."""
        return {}


@torch.no_grad()
def _sum_blocks(losses, model, places):
    """Return sums and counts (k,), float64, of windows in eval mode and fp32, each rank having taken its share."""
    model.eval()
    device = next(model.parameters()).device
    own, weight = share(torch.as_tensor(places).to(device))
    total = 0.0
    for block in own.split(BLOCK):
        with at_precision(device, "fp32"):
            total = total + weight * torch.stack([part.double() for part in losses(model, block)])
    return sum_over_ranks(total)


def pretext_losses(outputs, targets):
    """Return each task's cross-entropy, summed over the bars that have a target, and how many they are.

    Parameters
    ----------
    outputs : dict of Tensor (batch, time, n_classes)
        `<task>_logits` of a MultitaskPretrainer.
    targets : dict of Tensor (batch, time), int64
        UNKNOWN where there is none.

    Returns
    -------
    (sums, counts) : Tensor (3,)
        In the order of PRETEXT_TASKS.
    """
    sums, counts = [], []
    for task in PRETEXT_TASKS:
        logits, classes = outputs[f"{task}_logits"].float().flatten(0, 1), targets[task].flatten()
        sums.append(functional.cross_entropy(logits, classes, ignore_index=UNKNOWN, reduction="sum"))
        counts.append((classes != UNKNOWN).sum())
    return torch.stack(sums), torch.stack(counts)


def draw_mask(noise, settings):
    """Return which bars are hidden, (batch, time) bool, as the settings say; `noise` (batch, time) is uniform."""
    if settings.mask == "span":
        return MASKS["span"](noise, settings.mask_ratio, settings.mask_span_bars)
    return MASKS[settings.mask](noise, settings.mask_ratio)


def jitter_windows(clean, is_valid, places, settings, epoch):
    """Return the input with normal noise on its valid bars; invalid ones enter as 0.

    Parameters
    ----------
    clean : Tensor (batch, time, feature), float32
    is_valid : Tensor (batch, time), bool
    places : Tensor (batch,), int64
        On the device.
    settings : PretrainSettings
        Its `jitter` is the deviation in feature units.
    epoch : int
    """
    if settings.jitter == 0:
        return clean
    drawn = window_normals((settings.seed, JITTERING, epoch), places, clean[0].numel()).reshape(clean.shape)
    return clean + drawn * settings.jitter * is_valid.unsqueeze(-1)


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
