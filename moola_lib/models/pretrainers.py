"""Models that teach an encoder without labels."""

import torch
from torch import nn

from moola_lib.models.encoder import Encoder

MASK_TOKEN = 0.0  # what stands in the place of a hidden bar: a constant, not a parameter


def hide(x, is_masked):
    """Return the encoder's input: hidden bars replaced by the mask token.

    Parameters
    ----------
    x : Tensor (batch, time, feature), float32
    is_masked : Tensor (batch, time), bool
        True = hidden.

    Returns
    -------
    Tensor (batch, time, feature), float32
        Identical for any values at hidden bars.
    """
    return x.masked_fill(is_masked.unsqueeze(-1), MASK_TOKEN)


class MaskedAutoencoder(nn.Module):
    """Reconstruct hidden bars from the visible ones (He et al. 2021, arXiv:2111.06377).

    Differs: hides time steps instead of patches, replaces them before the
    encoder, and decodes with one linear layer.

    Parameters
    ----------
    n_features : int
    hidden_size, n_layers : int
    dropout : float
        Between the encoder's layers.
    """

    def __init__(self, n_features, *, hidden_size=128, n_layers=2, dropout=0.65):
        super().__init__()
        self.encoder = Encoder(n_features, hidden_size, n_layers, dropout)
        self.decoder = nn.Linear(self.encoder.width, n_features)
        self.log_sigma = nn.Parameter(torch.zeros(1))

    def forward(self, x, is_masked):
        """Hide, encode, decode.

        Parameters
        ----------
        x : Tensor (batch, time, n_features), float32
        is_masked : Tensor (batch, time), bool
            True = hidden from the encoder.

        Returns
        -------
        dict of Tensor
            `reconstruction` (batch, time, n_features), `log_sigma` (1,).
        """
        encoded = self.encoder(hide(x, is_masked))
        return {"reconstruction": self.decoder(encoded), "log_sigma": self.log_sigma}


class MultitaskPretrainer(nn.Module):
    """Three per-bar classifications made from bars alone: expansion, swing, candle.

    Parameters
    ----------
    n_features : int
    hidden_size, n_layers : int
    dropout : float
        Between the encoder's layers.
    """

    def __init__(self, n_features, *, hidden_size=128, n_layers=2, dropout=0.65):
        super().__init__()
        self.encoder = Encoder(n_features, hidden_size, n_layers, dropout)
        width = self.encoder.width
        self.norm = nn.LayerNorm(width)
        self.expansion = _bar_classifier(width, 2)
        self.swing = _bar_classifier(width, 3)
        self.candle = _bar_classifier(width, 4)

    def forward(self, x):
        """Classify each bar three times.

        Parameters
        ----------
        x : Tensor (batch, time, n_features), float32

        Returns
        -------
        dict of Tensor
            `expansion_logits` (batch, time, 2), `swing_logits` (batch, time, 3),
            `candle_logits` (batch, time, 4).
        """
        encoded = self.norm(self.encoder(x))
        return {
            "expansion_logits": self.expansion(encoded),
            "swing_logits": self.swing(encoded),
            "candle_logits": self.candle(encoded),
        }


def _bar_classifier(width, n_classes):
    """Return width -> 64 -> n_classes."""
    return nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, n_classes))
