"""Gather windows from the feature table by index, on the training device."""

import numpy as np
import torch

from moola_lib.errors import UserError
from moola_lib.labels.targets import WINDOW_BARS


def window_view(rows, window_bars=WINDOW_BARS):
    """Return every window of a series as a view: no bar is copied.

    Parameters
    ----------
    rows : Tensor (n_bars,) or (n_bars, n_columns)
        Contiguous.
    window_bars : int

    Returns
    -------
    Tensor (n_bars - window_bars + 1, window_bars) or (..., n_columns)
    """
    shape = (len(rows) - window_bars + 1, window_bars, *rows.shape[1:])
    return rows.as_strided(shape, (rows.stride(0), *rows.stride()))


class WindowGatherer:
    """Every window of a feature table, gathered on demand.

    The table is held once on the device ([n_bars, n_features] float32, invalid
    rows as 0). A strided view of it stands for all windows; a batch is one
    `index_select`, so the [n_windows, 105, n_features] array never exists.

    Parameters
    ----------
    table : FeatureTable
    device : str or torch.device
    with_position : bool, optional
        Append `position` = t / 104 as a last column; default as the table says
        (its `extra`). It lets a model learn where windows were cut.
    window_bars : int

    Raises
    ------
    UserError
        The table is shorter than one window.
    """

    def __init__(self, table, device="cpu", *, with_position=None, window_bars=WINDOW_BARS):
        if len(table) < window_bars:
            raise UserError(f"the series has {len(table)} bars, fewer than one window of {window_bars}")
        with_position = table.has_position if with_position is None else with_position
        values = np.where(table.is_valid[:, None], table.values, np.float32(0))
        self.values = torch.from_numpy(values).to(device)
        self.is_valid = torch.from_numpy(np.ascontiguousarray(table.is_valid)).to(device)
        self._values_view = window_view(self.values, window_bars)
        self._valid_view = window_view(self.is_valid, window_bars)
        self._position = None
        if with_position:
            self._position = torch.linspace(0, 1, window_bars, device=device)[None, :, None]
        self.n_features = values.shape[1] + with_position
        self.names = (*table.names, *(["position"] if with_position else []))

    @property
    def device(self):
        """Where the table lives."""
        return self.values.device

    def __call__(self, places):
        """Return features and validity of the windows at `places`.

        Parameters
        ----------
        places : Tensor (batch,), int64
            Positions of first bars, on any device.

        Returns
        -------
        x : Tensor (batch, time, feature), float32
        is_valid : Tensor (batch, time), bool
        """
        places = places.to(self.device)
        x, is_valid = self._values_view.index_select(0, places), self._valid_view.index_select(0, places)
        if self._position is not None:  # a row of zeros is a bar that is absent, in every column
            x = torch.cat([x, self._position * is_valid.unsqueeze(2)], dim=2)
        return x, is_valid


def density_by_step(gather, places, *, most=2000):
    """Return the share of windows whose value is not 0, (time, feature) float64.

    An earlier pipeline wrote only the last step of each window; this is the
    figure that shows it.

    Parameters
    ----------
    gather : WindowGatherer
    places : ndarray (n,), int64
    most : int
        Windows looked at, evenly spaced.
    """
    chosen = places[np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).astype(np.int64))]
    x, _ = gather(torch.as_tensor(chosen))
    return (x != 0).double().mean(dim=0).cpu().numpy()
