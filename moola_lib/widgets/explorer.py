"""Leaf through labelled windows: their candles, labels and a model's answers."""

import ipywidgets as widgets
import numpy as np
from IPython.display import display

from moola_lib.errors import UserError
from moola_lib.figures.candles import window_figure
from moola_lib.labels import LABELS
from moola_lib.labels.targets import WINDOW_BARS

ALL = "all"


def window_browser(windows, bars_frame, predictions=None, *, row=0, is_headless=False):
    """Browse labelled windows, or draw one of them where nobody can click.

    Parameters
    ----------
    windows : LabelledWindows (n)
    bars_frame : DataFrame
        The bars that the windows are placed on, indexed by UTC `ts`.
    predictions : dict of ndarray, optional
        A model's answers, any of `start`, `end` (n,) in bars (-1 where no
        expansion is predicted) and `inside_probability` (n, 105).
    row : int
        Window shown first.
    is_headless : bool
        Return a figure of that window instead of a browser.

    Returns
    -------
    WindowBrowser or plotly Figure

    Raises
    ------
    UserError
        There is no window, no such row, or the predictions are for another number of windows.
    """
    predictions = predictions or {}
    if len(windows) == 0:
        raise UserError("there are no labelled windows to show")
    if not 0 <= row < len(windows):
        raise UserError(f"row {row} is not one of the {len(windows)} labelled windows")
    for name, values in predictions.items():
        if len(values) != len(windows):
            raise UserError(f"{name} is given for {len(values)} windows, there are {len(windows)}")
    if is_headless:
        return _draw(windows, bars_frame, predictions, row)
    return WindowBrowser(windows, bars_frame, predictions, row)


class WindowBrowser(widgets.VBox):
    """Buttons, a slider and a filter by state above one window's figure; made by `window_browser`.

    Attributes
    ----------
    previous, next : Button
    slider : IntSlider
        Position among the windows that pass the filter, from 1.
    state : Dropdown
        Filter: all, or one state.
    row : int or None
        The window shown; None if the filter matches nothing.
    window_id : str or None
    figure : plotly Figure or None
    """

    def __init__(self, windows, bars_frame, predictions, row):
        self._windows, self._bars_frame, self._predictions = windows, bars_frame, predictions
        self._rows = np.arange(len(windows))
        self.row = self.figure = None
        self.previous = widgets.Button(icon="chevron-left", tooltip="previous window", layout={"width": "3em"})
        self.next = widgets.Button(icon="chevron-right", tooltip="next window", layout={"width": "3em"})
        self.slider = widgets.IntSlider(
            value=row + 1, min=1, max=len(windows), description="window", continuous_update=False
        )
        self.state = widgets.Dropdown(options=[ALL, *LABELS], description="state")
        self.message = widgets.Label()
        self._output = widgets.Output()
        self.previous.on_click(lambda _: self._step(-1))
        self.next.on_click(lambda _: self._step(+1))
        self.slider.observe(self._show, "value")
        self.state.observe(self._filter, "value")
        controls = widgets.HBox([self.previous, self.next, self.slider, self.state])
        super().__init__([controls, self.message, self._output])
        self._show()

    @property
    def window_id(self):
        """Name of the window shown, or None."""
        return None if self.row is None else str(self._windows.window_id[self.row])

    def _step(self, by):
        self.slider.value += by  # the slider keeps itself inside its bounds

    def _filter(self, change):
        """Keep the windows of one state, and stay at the window shown if it is one of them."""
        wanted = change["new"]
        is_kept = np.ones(len(self._windows), bool)
        if wanted != ALL:
            is_kept = self._windows.state == LABELS.index(wanted)
        self._rows = np.flatnonzero(is_kept)
        here = np.flatnonzero(self._rows == self.row)
        self.slider.unobserve(self._show, "value")  # bounds and value change together: draw once, after both
        self.slider.max = max(len(self._rows), 1)
        self.slider.value = int(here[0]) + 1 if len(here) else 1
        self.slider.observe(self._show, "value")
        self._show()

    def _show(self, _change=None):
        """Draw the window at the slider's position."""
        n, at = len(self._rows), self.slider.value
        self.slider.disabled = n < 2
        self.previous.disabled, self.next.disabled = at <= 1, at >= n
        self._output.clear_output(wait=n > 0)  # waiting for the next figure avoids a flicker
        if n == 0:
            self.row = self.figure = None
            self.message.value = f"No window has the state {self.state.value}."
            return
        self.row = int(self._rows[at - 1])
        self.figure = _draw(self._windows, self._bars_frame, self._predictions, self.row)
        self.message.value = f"{at} of {n}: {_describe(self._windows, self.row)}"
        with self._output:
            display(self.figure)


def _draw(windows, bars_frame, predictions, row):
    """Return the figure of one window."""
    place = int(windows.place[row])
    guess = None
    if "start" in predictions and "end" in predictions and predictions["start"][row] >= 0:
        guess = (int(predictions["start"][row]), int(predictions["end"][row]))
    truth = (int(windows.start[row]), int(windows.end[row])) if windows.has_expansion[row] else None
    probability = predictions["inside_probability"][row] if "inside_probability" in predictions else None
    return window_figure(
        bars_frame.iloc[place : place + WINDOW_BARS],
        truth=truth,
        guess=guess,
        probability=probability,
        title=_describe(windows, row),
    )


def _describe(windows, row):
    """Return a window's name, state and day."""
    return f"{windows.window_id[row]}, {LABELS[windows.state[row]]}, {windows.day[row]}"
