"""The bidirectional LSTM that pre-training fills and fine-tuning inherits."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Encoder(nn.Module):
    """BiLSTM over a window.

    It reads the whole window in both directions: what it says about a bar
    uses later bars too (retrospective localisation, not forecasting).

    Parameters
    ----------
    n_features : int
    hidden_size : int
        Units per direction.
    n_layers : int
    dropout : float
        Between layers; unused with one layer.

    Attributes
    ----------
    is_checkpointed : bool
        Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174): while
        training, each layer keeps its input only and is computed again in the
        backward pass. The same numbers for less memory and a longer step.
    """

    def __init__(self, n_features, hidden_size=128, n_layers=2, dropout=0.65):
        super().__init__()
        self.lstm = nn.LSTM(
            n_features,
            hidden_size,
            n_layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if n_layers > 1 else 0.0,
        )
        self.is_checkpointed = False

    @property
    def width(self):
        """Channels of the output: both directions."""
        return 2 * self.lstm.hidden_size

    @property
    def shape(self):
        """What must agree for weights to transfer: dict of n_features, hidden_size, n_layers."""
        return {
            "n_features": self.lstm.input_size,
            "hidden_size": self.lstm.hidden_size,
            "n_layers": self.lstm.num_layers,
        }

    def forward(self, x):
        """Encode.

        Parameters
        ----------
        x : Tensor (batch, time, n_features), float32

        Returns
        -------
        Tensor (batch, time, 2 * hidden_size), float32
        """
        if self.is_checkpointed and torch.is_grad_enabled():
            return self._forward_by_layer(x)
        return self.lstm(x)[0]

    def _forward_by_layer(self, x):
        """Encode as `nn.LSTM` does, to the bit, keeping no more than each layer's input."""
        start = x.new_zeros(2, len(x), self.lstm.hidden_size)
        training = self.training

        def layer(x, *weights):
            return torch.lstm(x, (start, start), list(weights), True, 1, 0.0, training, True, True)[0]

        for index in range(self.lstm.num_layers):
            if index > 0:  # drawn time first, as the LSTM does
                x = nn.functional.dropout(x.transpose(0, 1), self.lstm.dropout, training).transpose(0, 1)
            ahead, back = self.lstm.all_weights[2 * index : 2 * index + 2]
            x = checkpoint(layer, x, *ahead, *back, use_reentrant=False, preserve_rng_state=False)
        return x
