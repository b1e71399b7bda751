"""The bidirectional LSTM that pre-training fills and fine-tuning inherits."""

from torch import nn


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
        return self.lstm(x)[0]
