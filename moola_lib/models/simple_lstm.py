"""The older classifier of the state before an expansion, a baseline of record."""

from torch import nn


class SimpleLSTM(nn.Module):
    """BiLSTM, self-attention with residual and norm, and the last step's class.

    Parameters
    ----------
    n_features, n_classes : int
    hidden_size : int
        Units per direction.
    n_attention_heads : int
    dropout : float
        Before the classifier.
    """

    def __init__(self, n_features, n_classes=2, *, hidden_size=128, n_attention_heads=4, dropout=0.1):
        super().__init__()
        width = 2 * hidden_size
        self.lstm = nn.LSTM(n_features, hidden_size, batch_first=True, bidirectional=True)
        self.attention = nn.MultiheadAttention(width, n_attention_heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, n_classes))

    @property
    def tasks(self):
        """Only the state before the expansion."""
        return ("type",)

    def forward(self, x):
        """Classify.

        Parameters
        ----------
        x : Tensor (batch, time, n_features), float32

        Returns
        -------
        dict of Tensor
            `type_logits` (batch, n_classes).
        """
        encoded, _ = self.lstm(x)
        attended, _ = self.attention(encoded, encoded, encoded, need_weights=False)
        return {"type_logits": self.classifier(self.norm(encoded + attended)[:, -1])}
