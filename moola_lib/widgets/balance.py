"""Weights to play with: who would have taught the encoder at the recorded steps, re-drawn as the sliders move."""

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go

from moola_lib.errors import UserError
from moola_lib.evaluation.reweigh import HAS_NO_WEIGHTS, NEEDS_A_RUN, reweigh, run_command, thin_out
from moola_lib.figures.balance import record_figure, reweighed_figure
from moola_lib.learning import STRATEGIES
from moola_lib.learning.balance import build_balance
from moola_lib.models.jade import TASKS

AS_TRAINED = "as trained"
WEIGHTS = [*(float(f"{lead}e{power}") for power in range(-2, 2) for lead in (1, 1.5, 2, 3, 5, 7)), 100.0]
GRID = {"grid_template_columns": "repeat(2, minmax(20em, 36em))"}
POINTER_WEIGHTS = (0.01, 0.1, 1.0, 10.0, 100.0)


def balance_explorer(records, *, strategy="fixed", is_headless=False):
    """Move the tasks' weights and see their shares of loss and gradient, or draw a few positions for a report.

    Nothing is trained: recorded losses and gradients are re-weighed, at most 60
    steps of a record.

    Parameters
    ----------
    records : dict of str to DataFrame
        A training's name to its `evaluation.balance.read_metrics`.
    strategy : str
        Shown first, a key of STRATEGIES.
    is_headless : bool
        Return a figure of the first record, as trained and under a few weights of the pointers.

    Returns
    -------
    BalanceExplorer or plotly Figure

    Raises
    ------
    UserError
        There is no record, or one has no audits; headless, also what `reweigh` raises.
    """
    if not records:
        raise UserError("there is no record to show; pass at least one training's audits")
    for name, metrics in records.items():
        if len(metrics) == 0:
            raise UserError(f"the record {name} has no audits; train with audit_every above 0")
    own = build_balance(strategy).weights
    if not is_headless:
        return BalanceExplorer({name: thin_out(metrics) for name, metrics in records.items()}, strategy)
    name, metrics = next(iter(records.items()))
    positions = {
        f"weight {weight:g}": reweigh(metrics, strategy, {**own, "pointers": weight}) for weight in POINTER_WEIGHTS
    }
    title = f"Training {name}: its record under {strategy} by pointer weight (not trained this way)"
    return reweighed_figure({AS_TRAINED: metrics, **positions}, title=title)


class BalanceExplorer(widgets.VBox):
    """Choices and four weights above a record's shares; made by `balance_explorer`.

    Attributes
    ----------
    record, strategy : Dropdown
        A strategy that learns its weights along the way can be chosen, and says what it needs.
    sliders : dict of str to SelectionSlider
        Weight per task, one of WEIGHTS.
    reset : Button
        Back to the strategy's own weights.
    message : HTML
        What is shown, and what it is not.
    figure : plotly FigureWidget
    """

    def __init__(self, records, strategy):
        self._records = records
        choices = [(f"{name} (needs a run)" if name in NEEDS_A_RUN else name, name) for name in STRATEGIES]
        self.record = widgets.Dropdown(options=list(records), description="record")
        self.strategy = widgets.Dropdown(
            options=[(AS_TRAINED, AS_TRAINED), *choices], value=strategy, description="strategy"
        )
        self.reset = widgets.Button(description="own weights", tooltip="back to the strategy's own weights")
        self.sliders = {task: _slider(task) for task in TASKS}
        self.message = widgets.HTML()
        super().__init__()
        self._set_weights()
        self._draw_record()
        self.record.observe(self._draw_record, "value")
        self.strategy.observe(self._choose_strategy, "value")
        self.reset.on_click(self._choose_strategy)
        for slider in self.sliders.values():
            slider.observe(self._show, "value")

    @property
    def weights(self):
        """The weights of the sliders, dict of str to float."""
        return {task: slider.value for task, slider in self.sliders.items()}

    def _set_weights(self):
        """Put the sliders at the strategy's own weights, if it has any that can be moved."""
        name = self.strategy.value
        is_movable = name not in (AS_TRAINED, *NEEDS_A_RUN, *HAS_NO_WEIGHTS)
        self.reset.disabled = not is_movable
        for task, slider in self.sliders.items():
            slider.disabled = not is_movable
            if is_movable:
                slider.value = build_balance(name).weights[task]

    def _choose_strategy(self, _=None):
        """Draw a strategy under its own weights."""
        for slider in self.sliders.values():
            slider.unobserve(self._show, "value")  # all move together: draw once, after them
        self._set_weights()
        for slider in self.sliders.values():
            slider.observe(self._show, "value")
        self._show()

    def _draw_record(self, _change=None):
        """Make a new figure: another record may have other tasks and steps."""
        frame = self._reweigh()
        drawn = record_figure(self._records[self.record.value] if frame is None else frame)
        self.figure = go.FigureWidget(drawn.update_traces(visible=frame is not None))
        # plotly draws before the page has room for it, see `overview`
        figure = self.figure
        figure.observe(lambda _: figure.update_layout(autosize=True), "_js2py_traceDeltas")
        choices = widgets.HBox([self.record, self.strategy, self.reset], layout={"flex_flow": "row wrap"})
        self.children = [choices, widgets.GridBox(list(self.sliders.values()), layout=GRID), self.message, figure]

    def _show(self, _change=None):
        """Draw what is chosen, in one message that holds only what changes."""
        frame = self._reweigh()
        with self.figure.batch_update():
            self.figure.update_traces(visible=frame is not None)
            if frame is None:
                return
            for new, old in zip(record_figure(frame).data, self.figure.data, strict=True):
                if old.type == "bar":
                    old.x, old.text = new.x, new.text
                else:
                    old.y = new.y

    def _reweigh(self):
        """Return the shares under the strategy and weights chosen, and say what they are; None without a run."""
        name, record = self.strategy.value, self.record.value
        metrics = self._records[record]
        try:
            frame = metrics if name == AS_TRAINED else reweigh(metrics, name, self.weights)
        except UserError as error:
            self.message.value = _paragraph(f"{str(error)[0].upper()}{str(error)[1:]}.")
            return None
        if np.allclose(frame["weight"], metrics["weight"], rtol=1e-3):
            said = f"The training {record} as it was recorded: these are the weights it trained with."
        else:
            said = (
                f"Re-weighed record of the training {record}: what the same losses and gradients would have "
                "contributed. The encoder did not train this way; what it would have learned needs a run: "
                f"<code>{run_command(name)}</code>"
            )
            said += " (with its own weights)." if self._is_moved() else "."
        self.message.value = _paragraph(said)
        return frame

    def _is_moved(self):
        """Return whether the sliders can be moved and are elsewhere than the strategy's own weights."""
        return not self.reset.disabled and self.weights != build_balance(self.strategy.value).weights


def _slider(task):
    """Return a slider over WEIGHTS, about as far apart as on a logarithmic scale."""
    return widgets.SelectionSlider(
        options=[(f"{weight:g}", weight) for weight in WEIGHTS], value=1.0, description=task, layout={"width": "auto"}
    )


def _paragraph(text):
    """Return text as wide as can be read."""
    return f"<p style='max-width: 64em; margin: 0.5em 0.5em 0; line-height: 1.5'>{text}</p>"
