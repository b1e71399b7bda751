"""Models that localise an expansion: an encoder under four heads."""

import torch
from torch import nn

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.models.dropout import Dropout
from moola_lib.models.encoder import Encoder
from moola_lib.models.segments import SEGMENT, SegmentHead

TASKS = ("type", "pointers", "inside", "countdown")  # the order of every four numbers in the project
LOG_SIGMA_START = (0.0, -0.30, 0.0, 0.0)
HEADS = {"notes": TASKS, "segment": (SEGMENT,), "both": (*TASKS, SEGMENT)}


class ExpansionHeads(nn.Module):
    """The notes' four heads on encoded bars.

    `type` and `pointers` read the time mean (which discards location: see
    spec trap 3); `inside` and `countdown` read each bar.

    Parameters
    ----------
    width : int
        Channels of the encoded bars.
    n_classes : int
    dropout : float
    heads : sequence of str
        Which of TASKS to build.
    """

    def __init__(self, width, n_classes, dropout, heads):
        super().__init__()
        unknown = sorted(set(heads) - set(TASKS))
        if unknown or not heads:
            raise UserError(f"heads {list(heads)} must be one or more of {', '.join(TASKS)}")
        self.tasks = tuple(task for task in TASKS if task in heads)
        self.dropout = Dropout(dropout)
        if {"type", "pointers"} & set(heads):
            self.trunk = nn.Linear(width, 64)
        if "type" in heads:
            self.type_head = nn.Linear(64, n_classes)
        if "pointers" in heads:
            self.pointers_head = nn.Linear(64, 2)
        if "inside" in heads:
            self.inside_head = nn.Linear(width, 1)
        if "countdown" in heads:
            self.countdown_head = nn.Linear(width, 1)

    def forward(self, encoded):
        """Return the outputs of the heads that exist.

        Parameters
        ----------
        encoded : Tensor (batch, time, width), float32

        Returns
        -------
        dict of Tensor
            `type_logits` (batch, n_classes); `pointers` (batch, 2), centre and
            length in [0, 1]; `inside_logits` (batch, time); `countdown`
            (batch, time), in units of 20 bars.
        """
        outputs = {}
        if hasattr(self, "trunk"):
            pooled = self.dropout(torch.relu(self.trunk(encoded.mean(dim=1))))
            if "type" in self.tasks:
                outputs["type_logits"] = self.type_head(pooled)
            if "pointers" in self.tasks:
                outputs["pointers"] = torch.sigmoid(self.pointers_head(pooled))
        per_bar = self.dropout(encoded)
        if "inside" in self.tasks:
            outputs["inside_logits"] = self.inside_head(per_bar).squeeze(-1)
        if "countdown" in self.tasks:
            outputs["countdown"] = self.countdown_head(per_bar).squeeze(-1)
        return outputs


class Jade(nn.Module):
    """Two-layer encoder under its heads: what a pre-trained encoder is loaded into.

    Parameters
    ----------
    n_features, n_classes : int
    hidden_size, n_layers : int
    dropout : float
        Between the encoder's layers.
    input_dropout, head_dropout : float
    heads : sequence of str
        Which of TASKS to build, and `segment` for the posterior over spans.
    start_range, upside_down
        Of the segment head; see `SegmentHead`.
    """

    def __init__(
        self,
        n_features,
        n_classes=2,
        *,
        hidden_size=128,
        n_layers=2,
        dropout=0.65,
        input_dropout=0.0,
        head_dropout=0.6,
        heads=TASKS,
        start_range=(0, WINDOW_BARS - 1),
        upside_down=None,
    ):
        super().__init__()
        notes = [task for task in heads if task != SEGMENT]
        self.input_dropout = Dropout(input_dropout)
        self.encoder = Encoder(n_features, hidden_size, n_layers, dropout)
        if notes or SEGMENT not in heads:
            self.heads = ExpansionHeads(self.encoder.width, n_classes, head_dropout, notes)
            self.log_sigma = nn.Parameter(torch.tensor(LOG_SIGMA_START))
        if SEGMENT in heads:
            self.segment_head = SegmentHead(
                n_features,
                self.encoder.width,
                n_states=n_classes,
                start_range=start_range,
                upside_down=upside_down,
                dropout=head_dropout,
            )

    @property
    def tasks(self):
        """Names of the heads, in the order of TASKS; `segment` is last."""
        notes = self.heads.tasks if hasattr(self, "heads") else ()
        return (*notes, SEGMENT) if hasattr(self, "segment_head") else notes

    def encode(self, x):
        """Return encoded bars, (batch, reading, time, width) float32.

        There is one reading, or a second one of the window turned upside down
        if the segment head asks for it.
        """
        readings = self.segment_head.readings(x) if hasattr(self, "segment_head") else x.unsqueeze(1)
        return self.encoder(self.input_dropout(readings.flatten(0, 1))).unflatten(0, readings.shape[:2])

    def score_linearly(self, x):
        """Return the segment head's linear scores of windows `x` (batch, time, n_features), None without that head."""
        if not hasattr(self, "segment_head"):
            return None
        return self.segment_head.score_linearly(self.segment_head.look_around(x))

    def decode(self, encoded, linear=None):
        """Return the heads' outputs for windows as `encode` and `score_linearly` give them."""
        outputs = {}
        if hasattr(self, "heads"):
            outputs |= {**self.heads(encoded[:, 0]), "log_sigma": self.log_sigma}
        if linear is not None:
            outputs |= self.segment_head(linear, encoded)
        return outputs

    def forward(self, x):
        """Localise.

        Parameters
        ----------
        x : Tensor (batch, time, n_features), float32

        Returns
        -------
        dict of Tensor
            See `ExpansionHeads.forward`, with `log_sigma` (4,) in the order of
            TASKS, and `SegmentHead.forward`.
        """
        return self.decode(self.encode(x), self.score_linearly(x))


class JadeCompact(Jade):
    """One-layer encoder of 96 units under the same heads, for training from scratch."""

    def __init__(
        self,
        n_features,
        n_classes=2,
        *,
        hidden_size=96,
        n_layers=1,
        dropout=0.65,
        input_dropout=0.3,
        head_dropout=0.6,
        heads=TASKS,
        start_range=(0, WINDOW_BARS - 1),
        upside_down=None,
    ):
        super().__init__(
            n_features,
            n_classes,
            hidden_size=hidden_size,
            n_layers=n_layers,
            dropout=dropout,
            input_dropout=input_dropout,
            head_dropout=head_dropout,
            heads=heads,
            start_range=start_range,
            upside_down=upside_down,
        )
