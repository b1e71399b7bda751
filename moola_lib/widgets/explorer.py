"""Leaf through windows: their candles, labels and a model's answers, or what a model detected."""

import anywidget
import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import display

from moola_lib.errors import UserError
from moola_lib.evaluation.decoding import TOLERANCE_BARS
from moola_lib.figures.candles import window_figure
from moola_lib.labels import LABELS
from moola_lib.labels.detections import MINUTE
from moola_lib.labels.targets import WINDOW_BARS

ALL, IN_TIME = "all", "in time"
WORST, SUREST = "worst first", "surest first"
FILTERS = ("state", "fold", "start")
ARROWS = """
function render({ model, el }) {
  let root = null, isGone = false;
  const find = () => {
    if (isGone) return;
    root = el.closest(".moola-explorer");
    const handle = root?.querySelector(".noUi-handle");  // the slider's, drawn in its own time and without a name
    if (!handle) return requestAnimationFrame(find);
    handle.setAttribute("aria-label", "position among the windows");
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "Windows; the left and right arrow keys leaf through them");
  };
  const leaf = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (!root?.contains(event.target) || event.target.closest("input, select, .noUi-handle")) return;
    event.preventDefault();
    event.stopPropagation();
    model.send({ step });
  };
  let isPressed = false;  // here, and not on what takes keys itself; plotly lets go elsewhere
  const press = ({ target }) => {
    isPressed = root?.contains(target) && !target.closest("button, input, select, .widget-slider");
  };
  const release = () => {
    if (isPressed) setTimeout(() => root.focus({ preventScroll: true }));
    isPressed = false;
  };
  const heard = { keydown: leaf, pointerdown: press, pointerup: release };
  find();
  // on the window and on the way down: before JupyterLab, whose own shortcuts include the arrows
  for (const [name, hear] of Object.entries(heard)) window.addEventListener(name, hear, true);
  return () => {
    isGone = true;
    for (const [name, hear] of Object.entries(heard)) window.removeEventListener(name, hear, true);
  };
}
export default { render };
"""


def window_browser(windows, bars_frame, predictions=None, *, folds=None, row=0, is_headless=False):
    """Browse labelled windows, or draw one of them where nobody can click.

    Parameters
    ----------
    windows : LabelledWindows (n)
    bars_frame : DataFrame
        The bars that the windows are placed on, indexed by UTC `ts`.
    predictions : dict of ndarray, optional
        A model's answers, any of `start`, `end` (n,) in bars (-1 where no
        expansion is predicted), `inside_probability`, `start_probability` and
        `end_probability` (n, 105). With a start, windows can be chosen by its
        error: a hit is within 3 bars of the labelled one, or none where none is.
    folds : array_like (n,), optional
        The fold that tested each window, to choose by.
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
    predictions = {name: value for name, value in (predictions or {}).items() if value is not None}
    if len(windows) == 0:
        raise UserError("there are no labelled windows to show")
    for name, values in [*predictions.items(), ("folds", folds)]:
        if values is not None and len(values) != len(windows):
            raise UserError(f"{name} is given for {len(values)} windows, there are {len(windows)}")
    cases, order = _window_cases(windows, predictions, folds)

    def draw(row):
        place = int(windows.place[row])
        guess = None
        if "start" in predictions and "end" in predictions and predictions["start"][row] >= 0:
            guess = (int(predictions["start"][row]), int(predictions["end"][row]))
        return window_figure(
            bars_frame.iloc[place : place + WINDOW_BARS],
            truth=(int(windows.start[row]), int(windows.end[row])) if windows.has_expansion[row] else None,
            guess=guess,
            probability=_row_of(predictions, "inside_probability", row),
            start_probability=_row_of(predictions, "start_probability", row),
            end_probability=_row_of(predictions, "end_probability", row),
            title=cases["told"].iloc[row],
        )

    return _browse(cases, draw, row, is_headless, order=order, what="labelled window")


def detection_browser(detections, bars_frame, by_bar=None, *, row=0, is_headless=False):
    """Browse what a model detected, or draw one detection where nobody can click.

    Parameters
    ----------
    detections : DataFrame (n)
        As `moola predict` writes them: a label table of proposals, with the 80%
        intervals as soft edges, and `confidence` where it is known.
    bars_frame : DataFrame
        The bars that they were found in, indexed by UTC `ts`.
    by_bar : DataFrame, optional
        The other file of `moola predict`: `inside_probability` and
        `start_probability` of each bar, indexed by `ts`.
    row : int
        Detection shown first.
    is_headless : bool

    Returns
    -------
    WindowBrowser or plotly Figure

    Raises
    ------
    UserError
        There is no detection, no such row, or these are not the bars they were found in.
    """
    if len(detections) == 0:
        raise UserError("nothing was detected: there is no window to show")
    place = bars_frame.index.get_indexer(pd.DatetimeIndex(detections["window_start"]))
    n_lost = int((place < 0).sum())
    if n_lost:
        raise UserError(f"{n_lost} of {len(detections)} detections lie on other bars; give the bars they were found in")
    probabilities = by_bar.reindex(bars_frame.index) if by_bar is not None else {}
    names = ("expansion_start", "expansion_end", "start_low", "start_high", "end_low", "end_high")
    edges = detections[list(names)].astype("Int64")
    cases = _detection_cases(detections)

    def draw(row):
        shown = slice(place[row], place[row] + WINDOW_BARS)  # fewer at the end of a series
        own = edges.iloc[row]
        has_intervals = own.notna().all()
        return window_figure(
            bars_frame.iloc[shown],
            guess=(own["expansion_start"], own["expansion_end"]),
            intervals=[(own["start_low"], own["start_high"]), (own["end_low"], own["end_high"])]
            if has_intervals
            else (),
            probability=_row_of(probabilities, "inside_probability", shown),
            start_probability=_row_of(probabilities, "start_probability", shown),
            title=cases["told"].iloc[row],
        )

    order = SUREST if "rank" in cases else None
    return _browse(cases, draw, row, is_headless, order=order, what="detection")


def _browse(cases, draw, row, is_headless, *, order, what):
    """Return the browser of some cases, or the figure of one."""
    if not 0 <= row < len(cases):
        raise UserError(f"row {row} is not one of the {len(cases)} {what}s")
    return draw(row) if is_headless else WindowBrowser(cases, draw, row, order=order, what=what)


class WindowBrowser(widgets.VBox):
    """Buttons, a slider and filters above one window's figure; made by `window_browser` and `detection_browser`.

    The left and right arrow keys leaf through the windows while the browser has
    the focus, which a click into it gives.

    Attributes
    ----------
    previous, next : Button
    slider : IntSlider
        Position among the windows that pass the filters, from 1.
    filters : dict of str to Dropdown
        Each `all` or one value: `state`, and where they are known `fold` and `start` (hit or miss).
    order : Dropdown
        In time; the worst errors first; the surest detections first.
    row : int or None
        The window shown; None if the filters match nothing.
    window_id : str or None
    figure : plotly Figure or None
    """

    def __init__(self, cases, draw, row, *, order, what):
        self._cases, self._draw, self._what = cases, draw, what
        self._rows = np.arange(len(cases))
        self.row = self.figure = None
        self.previous = widgets.Button(description="Previous", tooltip="previous window (←)", layout={"width": "auto"})
        self.next = widgets.Button(description="Next", tooltip="next window (→)", layout={"width": "auto"})
        self.slider = widgets.IntSlider(
            value=row + 1, min=1, max=len(cases), description="window", continuous_update=False
        )
        self.filters = {name: _dropdown(name, [ALL, *_values(cases, name)]) for name in FILTERS if name in cases}
        self.order = _dropdown("order", [IN_TIME] if order is None else [IN_TIME, order])
        self.message = widgets.Label()
        self._output = widgets.Output()
        self._arrows = _Arrows()
        self._arrows.on_msg(lambda _widget, content, _buffers: self._step(content["step"]))
        self.previous.on_click(lambda _: self._step(-1))
        self.next.on_click(lambda _: self._step(+1))
        self.slider.observe(self._show, "value")
        chosen = [*self.filters.values(), *([self.order] if order is not None else [])]
        for dropdown in chosen:
            dropdown.observe(self._choose, "value")
        wrapped = {"flex_flow": "row wrap"}
        leaf = widgets.HBox([self.previous, self.next, self.slider], layout=wrapped)
        controls = widgets.HBox([leaf, *chosen], layout=wrapped)
        super().__init__([controls, self.message, self._output, self._arrows])
        self.add_class("moola-explorer")
        self._show()

    @property
    def window_id(self):
        """Name of the window shown, or None."""
        return None if self.row is None else str(self._cases["window_id"].iloc[self.row])

    def _step(self, by):
        self.slider.value += by  # the slider keeps itself inside its bounds

    def _choose(self, _change):
        """Keep the windows that pass the filters, in order, and stay at the window shown if it is one of them."""
        is_kept = np.ones(len(self._cases), bool)
        for name, dropdown in self.filters.items():
            if dropdown.value != ALL:
                is_kept &= (self._cases[name] == dropdown.value).to_numpy()
        self._rows = np.flatnonzero(is_kept)
        if self.order.value != IN_TIME:
            self._rows = self._rows[np.argsort(-self._cases["rank"].to_numpy()[self._rows], kind="stable")]
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
            wanted = " and ".join(f"{name} {each.value}" for name, each in self.filters.items() if each.value != ALL)
            self.message.value = f"No {self._what} has {wanted}."
            return
        self.row = int(self._rows[at - 1])
        self.figure = self._draw(self.row)
        self.message.value = f"{at} of {n}: {self._cases['told'].iloc[self.row]}"
        with self._output:
            display(self.figure)


class _Arrows(anywidget.AnyWidget):
    """Sees nothing but the arrow keys of the browser that it is part of."""

    _esm = ARROWS


def _dropdown(name, options):
    return widgets.Dropdown(
        options=options, description=name, style={"description_width": "4em"}, layout={"width": "13em"}
    )


def _values(cases, name):
    """Return the values of a filter: every state, also one that no window has."""
    return list(LABELS) if name == "state" else list(dict.fromkeys(sorted(cases[name])))


def _row_of(arrays, name, row):
    """Return the row of an array, or None where there is no such array."""
    return np.asarray(arrays[name])[row] if name in arrays else None


def _window_cases(windows, predictions, folds):
    """Return a frame of what windows are chosen and named by, and the order that it makes possible."""
    states = [LABELS[state] for state in windows.state]
    cases = pd.DataFrame({"window_id": windows.window_id, "state": states})
    told = [f"{name}, {state}, {day}" for name, state, day in zip(windows.window_id, states, windows.day, strict=True)]
    if folds is not None:
        cases["fold"] = [str(fold) for fold in folds]
        told = [f"{text}, fold {fold}" for text, fold in zip(told, folds, strict=True)]
    if "start" not in predictions:
        return cases.assign(told=told), None
    guess, has_guess = np.asarray(predictions["start"]), np.asarray(predictions["start"]) >= 0
    is_alike = has_guess == windows.has_expansion
    off = np.where(has_guess & windows.has_expansion, np.abs(guess - windows.start), np.where(is_alike, 0, np.inf))
    cases["start"] = np.where(off <= TOLERANCE_BARS, "hit", "miss")
    words = [
        "no expansion, none predicted"
        if not (has or labelled)
        else "none predicted"
        if not has
        else "none labelled"
        if not labelled
        else f"start off by {far:.0f}"
        for has, labelled, far in zip(has_guess, windows.has_expansion, off, strict=True)
    ]
    told = [f"{text}, {word}" for text, word in zip(told, words, strict=True)]
    return cases.assign(rank=off, told=told), WORST


def _detection_cases(detections):
    """Return a frame of what detections are chosen and named by."""
    start = pd.DatetimeIndex(detections["window_start"]) + detections["expansion_start"].to_numpy(int) * MINUTE
    names = zip(detections["window_id"], detections["label"], start, strict=True)
    told = [f"{name}, {label}, {stamp:%Y-%m-%d %H:%M} UTC" for name, label, stamp in names]
    cases = pd.DataFrame({"window_id": detections["window_id"].to_numpy(), "state": detections["label"].to_numpy()})
    if "confidence" in detections:
        cases["rank"] = detections["confidence"].to_numpy(float)
        told = [f"{text}, confidence {sure:.2f}" for text, sure in zip(told, cases["rank"], strict=True)]
    return cases.assign(told=told)
