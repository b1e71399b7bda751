"""A posterior over every (start, end) of a window, made of scores that add up."""

import torch
from torch import nn
from torch.nn import functional

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.models.dropout import Dropout

SEGMENT = "segment"  # the task's name, beside TASKS
SMALLEST_MOVE = 0.05  # added to magnitudes before their log: a bar that did not move says no more than one this small
NEVER = -1e30  # the score of what cannot be: its probability is exactly 0, and unlike -inf its gradient is too


class SegmentHead(nn.Module):
    """Scores of every (state, start, end): a start's, an end's, every bar's inside, and the length's.

    A start's score is linear in the standardised columns of the bars around it,
    in how their means differ after it from before, and in the means before it; an end's reads the same,
    mirrored in time. What the encoder adds starts at nothing. A market may also
    be read upside down: the same scores of the turned window stand for
    expansions that point the other way, and the two are summed, so that what is
    learned of one direction holds for both. Mask, countdown, centre and length
    are marginals of one distribution and cannot contradict each other.

    Parameters
    ----------
    n_features : int
    width : int
        Channels of the encoded bars; 0 for a linear model without encoder.
    n_states : int
        States before an expansion that have start scores of their own; 1 tells none apart.
    lead_bars : int
        Bars before and after an edge that its score reads one by one.
    contrast_bars : sequence of int
        Widths of the means after an edge that are set against those before.
    outer_bars : sequence of int
        Widths of the means outside an edge, before a start and after an end, that
        are read by themselves: the state before shows there, and only where
        states are told apart are they read.
    start_range : (int, int)
        First and last bar at which an expansion may start.
    upside_down : list of [int, float, float], optional
        Of `features.sets.upside_down`. Columns that then change their sign also
        enter by their log magnitude.
    dropout : float
        On encoded bars.
    window_bars : int

    Raises
    ------
    UserError
        The range of starts is not inside the window.

    Notes
    -----
    A semi-Markov conditional random field with one segment (Sarawagi & Cohen
    2004, NIPS 17), its directions latent. Without encoder, contrasts and
    turning it is the linear segment model.
    """

    def __init__(
        self,
        n_features,
        width=0,
        *,
        n_states=1,
        lead_bars=5,
        contrast_bars=(1, 3, 6, 12, 24),
        outer_bars=(10, 20),
        start_range=(0, WINDOW_BARS - 1),
        upside_down=None,
        dropout=0.0,
        window_bars=WINDOW_BARS,
    ):
        super().__init__()
        first, last = start_range
        if not 0 <= first <= last < window_bars:
            raise UserError(f"starts {first} to {last} are not inside a window of {window_bars} bars")
        self.first_start, self.last_start = int(first), int(last)
        self.n_states, self.lead_bars = n_states, lead_bars
        self.contrast_bars, self.outer_bars = tuple(contrast_bars), tuple(outer_bars) if n_states > 1 else ()
        self.upside_down, self.window_bars = upside_down, window_bars
        turning = enumerate(upside_down or ())
        self.signed = [k for k, (source, sign, offset) in turning if (source, sign, offset) == (k, -1, 0)]
        n_columns = n_features + len(self.signed)
        n_around = 2 * lead_bars + 1 + len(self.contrast_bars) + len(self.outer_bars)
        self.start = nn.Linear(n_columns * n_around, n_states)
        self.end = nn.Linear(n_columns * n_around, 1, bias=False)
        self.inside = nn.Linear(n_columns, 1)
        self.length = nn.Parameter(torch.zeros(window_bars))
        self.null = nn.Parameter(torch.zeros(1))
        if width:
            self.contribution = nn.Linear(width, n_states + 2)
            self.dropout = Dropout(dropout)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("mean", torch.zeros(n_columns))
        self.register_buffer("scale", torch.ones(n_columns))
        self.register_buffer("around_scale", torch.ones(n_columns * n_around))
        self.register_buffer("temperature", torch.ones(1))
        # of the odds of an expansion in the evidence; not 1 only where ordinary windows set it, after training
        self.register_buffer("null_slope", torch.ones(1))
        # whether `null` was fitted, so that these odds mean something
        self.register_buffer("knows_none", torch.zeros((), dtype=torch.bool))

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

    def look_around(self, x):
        """Return what the linear scores read, where an edge may lie; it depends on the window alone.

        Parameters
        ----------
        x : Tensor (batch, time, feature)

        Returns
        -------
        tuple of Tensor
            `at_start` (batch, n_readings, n_starts, columns around an edge),
            `at_end` (batch, n_readings, n_ends, columns around an edge), the ends
            from the first start on, and `bars` (batch, n_readings, time, column);
            standardised.
        """
        bars = self._standardise(self.readings(x))
        lead = self.lead_bars
        starts, ends = slice(self.first_start, self.last_start + 1), slice(self.first_start, None)
        padded = functional.pad(bars.flatten(0, 1).transpose(1, 2), (lead, lead), mode="replicate")
        around = padded.unfold(2, 2 * lead + 1, 1).transpose(1, 2).unflatten(0, bars.shape[:2])
        at_start, at_end = list(around[:, :, starts].unbind(-1)), list(around[:, :, ends].flip(-1).unbind(-1))
        for width in self.contrast_bars:
            before, after = _means_beside(bars, width)
            at_start.append((after - before)[:, :, :-1][:, :, starts])
            at_end.append((before - after)[:, :, 1:][:, :, ends])
        for width in self.outer_bars:
            before, after = _means_beside(bars, width)
            at_start.append(before[:, :, :-1][:, :, starts])
            at_end.append(after[:, :, 1:][:, :, ends])
        at_start, at_end = torch.stack(at_start, dim=-1).flatten(3), torch.stack(at_end, dim=-1).flatten(3)
        return at_start.div_(self.around_scale), at_end.div_(self.around_scale), bars

    def score_linearly(self, around):
        """Return the scores that are linear in the features.

        Parameters
        ----------
        around : tuple of Tensor
            Of `look_around`.

        Returns
        -------
        tuple of Tensor
            `start` (batch, n_readings, n_starts, n_states), `end` (batch,
            n_readings, n_ends, 1) and `inside` (batch, n_readings, time, 1).
        """
        at_start, at_end, bars = around
        return self.start(at_start), self.end(at_end), self.inside(bars)

    def forward(self, linear, encoded=None):
        """Score every (state, start, end).

        Parameters
        ----------
        linear : tuple of Tensor
            Of `score_linearly`.
        encoded : Tensor (batch, n_readings, time, width), optional

        Returns
        -------
        dict of Tensor
            `span_logits` (batch, n_states, n_starts, time), NEVER where the end
            comes before the start; `null_logit` (1,), the score of a window
            without an expansion; `null_slope` (1,).
        """
        start, end, inside = linear
        if encoded is not None:
            more = self.contribution(self.dropout(encoded)).split((self.n_states, 1, 1), dim=-1)
            start = start + more[0][:, :, self.first_start : self.last_start + 1]
            end = end + more[1][:, :, self.first_start :]
            inside = inside + more[2]
        spans = self._join(*(part.transpose(2, 3) for part in (start, end, inside)))
        # either direction will do: their probabilities add
        logits = spans[:, 0] if self.n_readings == 1 else torch.logaddexp(spans[:, 0], spans[:, 1])
        null_logit = self.null / self.temperature
        return {"span_logits": logits / self.temperature, "null_logit": null_logit, "null_slope": self.null_slope}

    @torch.no_grad()
    def set_scale(self, x):
        """Standardise by these windows (the training fold's), bars that are present only.

        Parameters
        ----------
        x : Tensor (n, time, feature)

        Raises
        ------
        UserError
            No bar is present.
        """
        self.mean.zero_(), self.scale.fill_(1), self.around_scale.fill_(1)
        readings = self.readings(x)
        rows = self._widen(readings)[(readings != 0).any(dim=-1)].double()
        if len(rows) == 0:
            raise UserError(f"none of the {len(x)} labelled windows has a valid bar; give the bars before them as well")
        self.mean.copy_(rows.mean(dim=0))
        self.scale.copy_(_or_one(rows.std(dim=0)))
        at_start, *_ = self.look_around(x)
        self.around_scale.copy_(_or_one(at_start.flatten(0, 2).std(dim=0)))

    def _widen(self, x):
        """Append the log magnitudes of the columns that change sign."""
        if not self.signed:
            return x
        return torch.cat([x, torch.log(x[..., self.signed].abs() + SMALLEST_MOVE)], dim=-1)

    def _standardise(self, x):
        """Return columns of mean 0 and deviation 1 by the head's own figures; absent bars become 0."""
        is_there = (x != 0).any(dim=-1, keepdim=True)
        return torch.where(is_there, (self._widen(x) - self.mean) / self.scale, 0.0)

    def _join(self, start, end, inside):
        """Return start + end + sum of inside + length for every span, (batch, reading, state, n_starts, time)."""
        total = functional.pad(inside.cumsum(dim=-1), (1, 0))
        opening = start - total[..., self.first_start : self.last_start + 1]
        closing = total[..., 1:] + functional.pad(end, (self.first_start, 0))
        return opening.unsqueeze(-1) + closing.unsqueeze(-2) + self._length_scores()

    def _length_scores(self):
        """Return each span's length score, (n_starts, time); NEVER where the end comes before the start."""
        starts = torch.arange(self.first_start, self.last_start + 1, device=self.length.device)
        extent = torch.arange(self.window_bars, device=self.length.device) - starts[:, None]
        return self.length[extent.clamp(min=0)].masked_fill(extent < 0, NEVER)


class LinearSegments(nn.Module):
    """The linear segment model: a segment head without encoder.

    Parameters
    ----------
    n_features, n_classes : int
        One class: the state before is not told apart.
    lead_bars, contrast_bars, outer_bars, start_range, upside_down
        As for SegmentHead; by default a plain one, which reads 5 bars to either side and nothing else.
    """

    def __init__(
        self,
        n_features,
        n_classes=1,
        *,
        lead_bars=5,
        contrast_bars=(),
        outer_bars=(),
        start_range=(0, WINDOW_BARS - 1),
        upside_down=None,
    ):
        super().__init__()
        self.segment_head = SegmentHead(
            n_features,
            n_states=n_classes,
            lead_bars=lead_bars,
            contrast_bars=contrast_bars,
            outer_bars=outer_bars,
            start_range=start_range,
            upside_down=upside_down,
        )

    @property
    def tasks(self):
        """Only the segment posterior."""
        return (SEGMENT,)

    def forward(self, x):
        """Score every (state, start, end) of windows (batch, time, n_features): see `SegmentHead.forward`."""
        head = self.segment_head
        return head(head.score_linearly(head.look_around(x)))


def _means_beside(bars, width):
    """Return the means of `width` bars before and after each border, two (batch, reading, time + 1, column)."""
    n_bars = bars.shape[2]
    total = functional.pad(bars.cumsum(dim=2), (0, 0, 1, 0))
    border = torch.arange(n_bars + 1, device=bars.device)
    last, first = (border + width).clamp(max=n_bars), (border - width).clamp(min=0)
    before = (total - total[:, :, first]) / (border - first).clamp(min=1)[:, None]
    return before, (total[:, :, last] - total) / (last - border).clamp(min=1)[:, None]


def _or_one(deviation):
    """Return deviations, 1 where a column does not vary."""
    return torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
