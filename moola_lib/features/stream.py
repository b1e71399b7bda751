"""Features bar by bar: what the batch would give for the newest bar, as soon as it closes."""

import math

import numpy as np
import pandas as pd

from moola_lib.errors import UserError
from moola_lib.features import kernels, relative_transform
from moola_lib.features.sets import WARM_UP_BARS, describe_set
from moola_lib.features.table import RULES, as_frame, check_finite
from moola_lib.market.bars import PRICES
from moola_lib.market.rolls import is_jump
from moola_lib.market.segments import segment_starts


class FeatureStream:
    """A feature set computed one bar at a time, equal to `build_features` bit for bit.

    State restarts, and the next 20 rows are not valid, where the batch begins a
    segment: after a gap of more than `max_gap_minutes`, at a change of
    `instrument_id`, or without ids at a jump near an expiry. Call `restart`
    before the first bar of a new contract that nothing of this tells.

    Parameters
    ----------
    feature_set, zigzag, k, extra, max_gap_minutes
        As for `build_features`.

    Attributes
    ----------
    names : tuple of str
        Columns of a row. `position` is not one: it is appended to windows.
    set_id : str
        As of the table made with the same options.
    is_valid : bool
        Whether the latest row lies past the first 20 of its segment.
    is_flip : bool
        Whether the latest bar confirmed a swing.

    Raises
    ------
    UserError
        An option is unknown or out of range.
    """

    def __init__(self, feature_set="relativity11", zigzag="primary", *, k=3.0, extra=(), max_gap_minutes=5.0):
        described = describe_set(feature_set, zigzag, k, extra, max_gap_minutes)
        self.names, self.set_id, self._options = described["names"], described["set_id"], described["options"]
        self._longest_step = int(max_gap_minutes * 60e9)  # nanoseconds
        self._rule, self._with_consol = RULES[zigzag], "consol_proxy" in extra
        self._last_stamp = self._last_id = None
        self._history = [np.zeros(kernels.HISTORY_BARS + 1) for _ in PRICES]  # the newest bar last
        self._state = np.empty(kernels.N_STATE)
        self._is_flip = np.zeros(1, bool)
        self.restart()

    @classmethod
    def from_bars(cls, bars, feature_set="relativity11", zigzag="primary", **options):
        """Return a stream that has seen `bars`, for a start in the middle of a segment.

        Parameters
        ----------
        bars : Bars or DataFrame
            At least the current segment, indexed by UTC `ts`; rolls in it are
            found as the batch finds them.
        feature_set, zigzag, **options
            As for the class.

        Raises
        ------
        UserError
            An option is unknown, or these are no bars in time order.
        """
        stream = cls(feature_set, zigzag, **options)
        frame = as_frame(bars)
        if len(frame) == 0:
            return stream
        if not frame.index.is_monotonic_increasing:
            raise UserError("the bars are not in time order; sort them by their stamps")
        first = segment_starts(frame, max_gap_minutes=stream._options["max_gap_minutes"])[-1]
        prices = [np.ascontiguousarray(frame[name].to_numpy(np.float64)[first:]) for name in PRICES]
        check_finite(kernels.are_finite(*prices))
        n_bars = len(prices[0])
        is_flip = np.zeros(n_bars, bool)
        stream._extend(prices, 0, np.empty((n_bars, len(stream.names)), np.float32), is_flip)
        stream._n_seen = n_bars
        stream._is_flip[0] = is_flip[-1]
        n_kept = min(n_bars, kernels.HISTORY_BARS + 1)
        for history, series in zip(stream._history, prices, strict=True):
            history[-n_kept:] = series[-n_kept:]
        stream._last_stamp = frame.index[-1].value
        if "instrument_id" in frame.columns:
            stream._last_id = frame["instrument_id"].iloc[-1]
        return stream

    @property
    def is_valid(self):
        """Whether the latest row lies past the first 20 of its segment."""
        return self._n_seen > WARM_UP_BARS

    @property
    def is_flip(self):
        """Whether the latest bar confirmed a swing."""
        return bool(self._is_flip[0])

    def restart(self):
        """Begin a new segment with the next bar, for a roll that nothing else tells."""
        kernels.reset_state(self._state)
        self._n_seen = 0  # bars of the current segment
        self._is_flip[0] = False

    def update(self, open, high, low, close, ts, *, instrument_id=None):
        """Take the next bar and return its row.

        Parameters
        ----------
        open, high, low, close : float
            Points.
        ts : Timestamp, datetime or str
            Start of the bar, with its zone; later than the bar before.
        instrument_id : optional
            The contract's id; a change restarts. Given for every bar or for none.

        Returns
        -------
        ndarray (n_features,), float32
            Finite; it enters a model as 0 unless `is_valid`.

        Raises
        ------
        UserError
            The prices cannot be a bar's, the stamp is naive or not later than
            the last, or the id is missing; the stream is as it was before the call.
        """
        prices = _check_prices(open, high, low, close, ts)
        stamp = _nanoseconds(ts)
        if self._last_stamp is not None:
            if stamp <= self._last_stamp:
                last = pd.Timestamp(self._last_stamp, tz="UTC")
                raise UserError(f"the bar at {ts} is not later than the one before ({last}); give bars in time order")
            if (instrument_id is None) != (self._last_id is None):
                raise UserError(f"the bar at {ts}: give instrument_id for every bar or for none")
            is_next_contract = instrument_id != self._last_id
            if instrument_id is None:
                is_next_contract = is_jump(prices[0], self._history[3][-1], ts)
            if is_next_contract or stamp - self._last_stamp > self._longest_step:
                self.restart()
        self._last_stamp, self._last_id = stamp, instrument_id

        for history, price in zip(self._history, prices, strict=True):
            history[:-1] = history[1:]
            history[-1] = price
        n_before = min(self._n_seen, kernels.HISTORY_BARS)
        values = np.empty((1, len(self.names)), np.float32)
        self._extend([history[-1 - n_before :] for history in self._history], n_before, values, self._is_flip)
        self._n_seen += 1
        return values[0]

    def _extend(self, prices, n_before, values, is_flip):
        """Fill the rows of the bars after the first `n_before`."""
        feature_set = self._options["feature_set"]
        if feature_set == "relativity11":
            kernels.extend_relativity11(
                *prices, n_before, self._state, self._rule, self._options["k"], self._with_consol, values, is_flip
            )
        elif feature_set == "relative_transform11":
            relative_transform.extend_relative_transform11(*prices, n_before, values)
        else:
            values[:] = np.stack(prices, axis=1)[n_before:]


def _check_prices(open, high, low, close, ts):
    """Return the four prices as floats; refuse what `load_bars` would drop."""
    try:
        o, h, l, c = float(open), float(high), float(low), float(close)
    except (TypeError, ValueError) as error:
        raise UserError(f"the bar at {ts}: a price is not a number ({error}); give four prices in points") from error
    if 0.0 < l <= o <= h < math.inf and l <= c <= h:  # false for NaN as well
        return o, h, l, c
    prices = f"open {o}, high {h}, low {l}, close {c}"
    if not all(map(math.isfinite, (o, h, l, c))):
        raise UserError(f"the bar at {ts}: a price is missing or infinite ({prices}); leave such a bar out")
    if min(o, h, l, c) <= 0:
        raise UserError(f"the bar at {ts}: a price is not above 0 ({prices}); leave such a bar out")
    reason = "high is below low" if h < l else "open or close lies outside low..high"
    raise UserError(f"the bar at {ts}: {reason} ({prices}); leave such a bar out")


def _nanoseconds(ts):
    """Return a stamp with a zone as nanoseconds since 1970."""
    try:
        stamp = pd.Timestamp(ts)
        is_naive = stamp.tzinfo is None  # so is NaT
        nanoseconds = stamp.value
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{ts!r} is not a time ({error}); give the start of the bar, with its zone") from error
    if is_naive:
        raise UserError(f"the stamp {ts} carries no time zone; give the start of the bar with its zone, such as UTC")
    return nanoseconds
