"""What a method may see of each window: its features, its moves and its stamp, never its labels."""

from dataclasses import dataclass

import numpy as np
import torch

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS
from moola_lib.windows.places import LabelledWindows

MOVES = ("log_return", "log_range")
SMALLEST = 1e-9  # of a bar without range, relative to price


@dataclass(frozen=True)
class WindowInputs:
    """The inputs of n windows, in order of their places.

    Attributes
    ----------
    place : ndarray (n,), int64
        Increasing; what finds a window's row.
    x : ndarray (n, K, F), float32
        Features as a model sees them: rows that are not valid hold 0.
    is_valid : ndarray (n, K), bool
    names : tuple of str
        The F columns.
    log_return, log_range : ndarray (n, K), float64
        Change of log close, and log of the true range relative to the close;
        nothing before bar 0 enters.
    minute : ndarray (n,), int64, or None
        Minute of the day (UTC) of bar 0; None where windows have no stamp.
    """

    place: np.ndarray
    x: np.ndarray
    is_valid: np.ndarray
    names: tuple
    log_return: np.ndarray
    log_range: np.ndarray
    minute: np.ndarray | None = None

    def __len__(self):
        return len(self.place)

    def of(self, windows):
        """Return the inputs of labelled windows, found by their places.

        Raises
        ------
        ValueError
            A window is not among these.
        """
        rows = np.minimum(np.searchsorted(self.place, windows.place), len(self) - 1)
        if not np.array_equal(self.place[rows], windows.place):
            raise ValueError("a window has no inputs; collect them for all windows of the study")
        return self.take(rows)

    def take(self, rows):
        """Return the inputs at `rows` (indices or bool mask); `of` then needs them in order of place."""
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "names"}
        return WindowInputs(
            names=self.names, **{name: None if value is None else value[rows] for name, value in columns.items()}
        )


def collect_inputs(windows, gather, frame=None):
    """Gather everything the baselines may see of labelled windows.

    Parameters
    ----------
    windows : LabelledWindows
    gather : WindowGatherer
    frame : DataFrame, optional
        The bars, whose positions the windows' places are. Not needed where the
        features hold `log_return` and `log_range` themselves.

    Returns
    -------
    WindowInputs

    Raises
    ------
    UserError
        There are neither bars nor columns to take moves from.
    """
    x, is_valid = (part.cpu().numpy() for part in gather(torch.as_tensor(windows.place)))
    if set(MOVES) <= set(gather.names):
        log_return, log_range = (x[..., gather.names.index(name)].astype(np.float64) for name in MOVES)
    elif frame is None:
        raise UserError(f"baselines need the bars, or the columns {' and '.join(MOVES)}; give frame=")
    else:
        log_return, log_range = _moves_of_bars(frame, windows.place)
    minute = None
    if frame is not None:
        stamps = frame.index[windows.place]
        minute = np.asarray(stamps.hour * 60 + stamps.minute, np.int64)
    return WindowInputs(windows.place, x, is_valid, gather.names, log_return, log_range, minute)


def bare_study(simulated):
    """Return windows of the bare law as labelled windows and their inputs.

    Each window is a day of its own and holds the law's two columns.

    Parameters
    ----------
    simulated : BareWindows

    Returns
    -------
    windows : LabelledWindows
        State 2: the bare law has no state before.
    inputs : WindowInputs
    """
    n = len(simulated)
    place = np.arange(n, dtype=np.int64) * WINDOW_BARS
    windows = LabelledWindows(
        window_id=np.array([f"bare{row}" for row in range(n)]),
        place=place,
        day=np.datetime64("2000-01-03") + np.arange(n).astype("timedelta64[D]"),
        has_expansion=np.ones(n, bool),
        start=simulated.start,
        end=simulated.end,
        spans=np.stack([simulated.start, simulated.end], axis=1)[:, None],
        state=np.full(n, 2),
    )
    moves = simulated.log_return, simulated.log_range
    x = np.stack(moves, axis=2).astype(np.float32)
    return windows, WindowInputs(place, x, np.ones(x.shape[:2], bool), MOVES, *moves)


def _moves_of_bars(frame, places):
    """Return (log return, log true range over close) of each window's bars, (n, K) float64 each."""
    at = places[:, None] + np.arange(WINDOW_BARS)
    high, low, close = (frame[name].to_numpy(np.float64)[at] for name in ("high", "low", "close"))
    before = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    log_return = np.log(close / before)
    true_range = np.maximum(high, before) - np.minimum(low, before)
    true_range[:, 0] = high[:, 0] - low[:, 0]
    return log_return, np.log(np.maximum(true_range / close, SMALLEST))
