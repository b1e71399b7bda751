"""A posterior over every (start, end) of a window, made of scores that add up."""

import torch
from torch import nn
from torch.nn import functional

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS

SEGMENT = "segment"  # the task's name, beside TASKS
NEVER = -1e30  # the score of what cannot be: its probability is exactly 0, and unlike -inf its gradient is too


class SegmentHead(nn.Module):
    """Scores of every (state, start, end): a start's, an end's, every bar's inside, and the length's.

    Each score is linear in the standardised features of the bars around, plus
    what the encoder adds, which starts at nothing. A market may also be read
    upside down (`upside_down`): the same scores of the turned window stand for
    expansions that point down, so that what is learned of one direction holds
    for the other, and the two are summed. Mask, countdown, centre and length
    are marginals of one distribution and cannot contradict each other.

    Parameters
    ----------
    n_features : int
    width : int
        Channels of the encoded bars; 0 for a linear model without encoder.
    n_states : int
        States before an expansion that have start scores of their own; 1 tells none apart.
    before_bars, after_bars : int
        Bars before and after a start that its score reads; an end's are mirrored.
    start_range : (int, int)
        First and last bar at which an expansion may start.
    upside_down : list of [int, float, float], optional
        Of `features.sets.upside_down`.
    dropout : float
        On encoded bars.
    window_bars : int

    Raises
    ------
    UserError
        The range of starts is not inside the window.

    Notes
    -----
    With `width` 0, one state and no turning, this is a linear-chain segment
    model (semi-Markov CRF with one segment; Sarawagi & Cohen 2004).
    """

    def __init__(
        self,
        n_features,
        width=0,
        *,
        n_states=1,
        before_bars=5,
        after_bars=5,
        start_range=(0, WINDOW_BARS - 1),
        upside_down=None,
        dropout=0.0,
        window_bars=WINDOW_BARS,
    ):
        super().__init__()
        first, last = start_range
        if not 0 <= first <= last < window_bars:
            raise UserError(f"starts {first} to {last} are not inside a window of {window_bars} bars")
        self.n_states, self.window_bars = n_states, window_bars
        self.first_start, self.last_start = int(first), int(last)
        self.reach = (before_bars, after_bars)
        self.upside_down = upside_down
        taps = before_bars + after_bars + 1
        self.start = nn.Conv1d(n_features, n_states, taps)
        self.end = nn.Conv1d(n_features, 1, taps, bias=False)
        self.inside = nn.Conv1d(n_features, 1, 1)
        self.length = nn.Parameter(torch.zeros(window_bars))
        self.null = nn.Parameter(torch.zeros(1))
        if width:
            self.contribution = nn.Linear(width, n_states + 2)
            self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.register_buffer("temperature", torch.ones(1))

    @property
    def n_readings(self):
        """How often a window is read: 2 if it is also turned upside down."""
        return 1 if self.upside_down is None else 2

    def readings(self, x):
        """Return the window upright, and upside down where the features have such a reading.

        Parameters
        ----------
        x : Tensor (batch, time, feature)

        Returns
        -------
        Tensor (batch, n_readings, time, feature)
        """
        if self.upside_down is None:
            return x.unsqueeze(1)
        columns, signs, offsets = zip(*self.upside_down, strict=True)
        # a row of zeros is a bar that is absent, upside down as well
        is_there = (x != 0).any(dim=-1, keepdim=True)
        turned = (x[..., list(columns)] * x.new_tensor(signs) + x.new_tensor(offsets)) * is_there
        return torch.stack([x, turned], dim=1)

    def standardise(self, x):
        """Return features of mean 0 and deviation 1 by the head's own figures; absent bars stay 0."""
        return torch.where((x != 0).any(dim=-1, keepdim=True), (x - self.mean) / self.scale, 0.0)

    def forward(self, x, encoded=None):
        """Score every (state, start, end).

        Parameters
        ----------
        x : Tensor (batch, time, feature)
        encoded : Tensor (batch, n_readings, time, width), optional

        Returns
        -------
        dict of Tensor
            `span_logits` (batch, n_states, n_starts, time), NEVER where the end
            comes before the start; `null_logit` (1,), the score of a window
            without an expansion.
        """
        bars = self.standardise(self.readings(x)).flatten(0, 1).transpose(1, 2)
        before, after = self.reach
        start = self.start(functional.pad(bars, (before, after)))
        end = self.end(functional.pad(bars, (after, before)))
        inside = self.inside(bars)
        if encoded is not None:
            more = self.contribution(self.dropout(encoded)).flatten(0, 1).transpose(1, 2)
            start, end, inside = (
                part + added
                for part, added in zip((start, end, inside), more.split((self.n_states, 1, 1), 1), strict=True)
            )
        spans = self._join(start, end, inside).unflatten(0, (len(x), self.n_readings))
        # either direction will do: their probabilities add
        logits = spans[:, 0] if self.n_readings == 1 else torch.logaddexp(spans[:, 0], spans[:, 1])
        return {"span_logits": logits / self.temperature, "null_logit": self.null / self.temperature}

    def _join(self, start, end, inside):
        """Return start + end + sum of inside + length for every span, (batch, n_states, n_starts, time)."""
        total = functional.pad(inside.cumsum(dim=2), (1, 0))
        opening = (start - total[..., :-1])[..., self.first_start : self.last_start + 1]
        closing = end + total[..., 1:]
        return opening.unsqueeze(3) + closing.unsqueeze(2) + self._length_scores()

    def _length_scores(self):
        """Return each span's length score, (n_starts, time); NEVER where the end comes before the start."""
        starts = torch.arange(self.first_start, self.last_start + 1, device=self.length.device)
        extent = torch.arange(self.window_bars, device=self.length.device) - starts[:, None]
        return self.length[extent.clamp(min=0)].masked_fill(extent < 0, NEVER)


class LinearSegments(nn.Module):
    """The linear segment model: scores linear in the features of the bars around, no encoder.

    Parameters
    ----------
    n_features, n_classes : int
        One class: the state before is not told apart.
    **options
        Of SegmentHead.
    """

    def __init__(
        self, n_features, n_classes=1, *, before_bars=5, after_bars=5, start_range=(0, WINDOW_BARS - 1), upside_down=None
    ):
        super().__init__()
        self.segment_head = SegmentHead(
            n_features,
            n_states=n_classes,
            before_bars=before_bars,
            after_bars=after_bars,
            start_range=start_range,
            upside_down=upside_down,
        )

    @property
    def tasks(self):
        """Only the segment posterior."""
        return (SEGMENT,)

    def forward(self, x):
        """Score every (state, start, end): see `SegmentHead.forward`."""
        return self.segment_head(x)
