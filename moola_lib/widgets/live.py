"""Trainings as they go, in a notebook cell: their curves, a line of progress, and a button that ends them."""

import json
import time

import ipywidgets as widgets
import plotly.graph_objects as go
from IPython import get_ipython
from IPython.display import display

from moola_lib.figures.training import live_curves, live_figure, live_range

SHARE = 0.005  # of a training's time that drawing it may take
SECONDS_BETWEEN_DRAWINGS = 0.25  # more cannot be followed
STOP, STOPPING = "Stop after this epoch", "Stopping…"


class LiveTraining:
    """The trainings of one cell, shown below it until the cell ends; the last figure then stays in the notebook.

    Attributes
    ----------
    stop : Button
    line : Label
        The latest epoch in words.
    figure : plotly FigureWidget
    is_stopped : bool
        The button was pressed.
    is_closed : bool
    trainings : dict of str to list of dict
        Label to its epochs so far; see `figures.training.live_figure`.

    Notes
    -----
    A kernel that trains answers no message on its main thread. JupyterLab from
    4.4 sends those of widgets over a subshell, which ipykernel from 7 runs in a
    thread of its own: there the button is heard while the training goes on.
    Elsewhere it is heard when the cell ends, which is too late; the kernel's
    interrupt works everywhere.

    Drawing waits for so long that it takes SHARE of the time.
    """

    def __init__(self):
        self.is_stopped = self.is_closed = False
        self.trainings = {}
        self._n_epochs, self._said, self._next_drawing = None, "", 0.0
        self.stop = widgets.Button(
            description=STOP,
            icon="stop",
            tooltip="end the training after its epoch, saved",
            layout={"width": "auto", "flex": "0 0 auto"},
        )
        self.line = widgets.Label()
        self.stop.on_click(self._stop)
        # ipykernel 7.4 sends what a browser says to the loop that wrote to it last: here the one that trains
        self.stop.comm._reply_subshell_for = lambda data, subshell: subshell
        self.figure = go.FigureWidget(live_figure({}))
        self._controls, self._curves = (
            display(part, display_id=True) for part in (widgets.HBox([self.stop, self.line]), self.figure)
        )
        get_ipython().events.register("post_run_cell", self.close)

    def add(self, label, losses, line, *, n_epochs=None):
        """Take an epoch, and draw it if it is time to.

        Parameters
        ----------
        label : str
            Tells trainings apart; "" where there is one only.
        losses : dict
            `epoch` (from 1), and losses whose names begin with `train_` or `validation_`.
        line : str
            The epoch in words.
        n_epochs : int, optional

        Returns
        -------
        bool
            Whether the button was pressed.
        """
        self.trainings.setdefault(label, []).append(losses)
        self._n_epochs = max(filter(None, (self._n_epochs, n_epochs)), default=None)
        self._said = line
        began = time.perf_counter()
        if began >= self._next_drawing:
            self._draw()
            ended = time.perf_counter()
            self._next_drawing = ended + max((ended - began) / SHARE, SECONDS_BETWEEN_DRAWINGS)
        return self.is_stopped

    def close(self, _result=None):
        """Leave words in the place of the button, and a figure that needs no kernel."""
        get_ipython().events.unregister("post_run_cell", self.close)
        self.is_closed = True
        said = f"Stopped by hand: {self._said}" if self.is_stopped else self._said
        self._controls.update({"text/plain": said}, raw=True)
        figure = live_figure(self.trainings, self._n_epochs)
        self._curves.update({"application/vnd.plotly.v1+json": json.loads(figure.to_json())}, raw=True)
        for widget in (self.stop, self.line, self.figure):
            widget.close()

    def _stop(self, _button):
        """Remember the press; called in the thread of a subshell."""
        self.is_stopped = True
        self.stop.description, self.stop.disabled = STOPPING, True

    def _draw(self):
        """Show the latest line and all curves, in a message each."""
        self.line.value = self._said
        with self.figure.batch_update():
            for trace, curve in zip(self.figure.data, live_curves(self.trainings), strict=True):
                trace.update(curve, overwrite=True)
            self.figure.layout.xaxis.range = live_range(self._n_epochs)
            # the first drawing comes before the page has room for it, see `overview`
            self.figure.layout.autosize = True if self._next_drawing else None
