"""The view of a training: what it draws is asked of the widget itself, and once of a real JupyterLab."""

from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from lab import complaints_of_axe, open_lab, run_first_cell

from moola_lib.figures.training import N_COLOURED, live_figure
from moola_lib.learning.checkpoints import Checkpoints
from moola_lib.models.weights import load_tensors
from moola_lib.widgets import live
from moola_lib.widgets.live import STOP, LiveTraining

N_CURVES = 1 + 2 * N_COLOURED


def epochs(n, **losses):
    losses = losses or {"train_loss": 0.9, "validation_loss": 0.8}
    return [{"epoch": k, **{name: value / k for name, value in losses.items()}} for k in range(1, n + 1)]


def shown(figure):
    """The visible curves of a figure, by name and dash."""
    return {(t.name, t.line.dash): list(zip(t.x, t.y, strict=True)) for t in figure.data if t.visible}


def test_one_training_is_a_dotted_and_a_solid_line():
    figure = live_figure({"": epochs(2)}, 9)
    assert shown(figure) == {
        ("training", "dot"): [(1, 0.9), (2, 0.45)],
        ("validation", "solid"): [(1, 0.8), (2, 0.4)],
    }
    assert tuple(figure.layout.xaxis.range) == (0.5, 9.5)


def test_each_of_several_trainings_has_one_colour_and_one_entry_in_the_legend():
    figure = live_figure({"a": epochs(3), "b": epochs(2, train_loss=0.7)})
    curves = [trace for trace in figure.data if trace.visible]
    assert [(trace.name, trace.line.dash, trace.showlegend) for trace in curves] == [
        ("a", "dot", False),
        ("a", "solid", True),
        ("b", "dot", True),  # nothing was held out
    ]
    assert curves[0].line.color == curves[1].line.color != curves[2].line.color


def test_earlier_trainings_are_one_grey_curve_and_the_others_keep_their_colours():
    trainings = {str(k): epochs(2) for k in range(N_COLOURED + 2)}
    few, many = live_figure(dict(list(trainings.items())[:N_COLOURED])), live_figure(trainings)
    assert len(few.data) == len(many.data) == len(live_figure({}).data) == N_CURVES
    assert not few.data[0].visible and many.data[0].name == "2 earlier"
    assert list(many.data[0].x) == [1, 2, None, 1, 2, None]

    def colours(figure):
        return {trace.name: trace.line.color for trace in figure.data[1:] if trace.visible}

    kept = colours(few).keys() & colours(many).keys()
    assert len(kept) == N_COLOURED - 2
    assert all(colours(few)[name] == colours(many)[name] for name in kept)
    assert len(set(colours(many).values())) == N_COLOURED


@pytest.fixture
def clock(monkeypatch):
    """The view's clock, moved by hand; a drawing takes `clock.cost`."""

    class Clock:
        now, cost, n_drawn = 100.0, 0.0, 0

        def perf_counter(self):
            return self.now

    clock, draw = Clock(), LiveTraining._draw

    def count(view):
        clock.now += clock.cost
        clock.n_drawn += 1
        draw(view)

    monkeypatch.setattr(live, "time", clock)
    monkeypatch.setattr(LiveTraining, "_draw", count)
    return clock


@pytest.fixture
def shell():
    """A shell without a kernel."""
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


@pytest.fixture
def view(shell, clock):
    return LiveTraining()


def add(view, clock, n=1, *, seconds=1.0, label=""):
    for row in epochs(n):
        clock.now += seconds
        is_ended = view.add(label, row, f"epoch {row['epoch']}", n_epochs=n)
    return is_ended


def test_an_epoch_is_drawn_with_its_line(view, clock):
    assert add(view, clock, 3) is False
    assert shown(view.figure) == shown(live_figure({"": epochs(3)}))
    assert view.line.value == "epoch 3"
    assert tuple(view.figure.layout.xaxis.range) == (0.5, 3.5)


def test_drawing_takes_its_share_of_the_time_at_most(view, clock):
    clock.cost = 0.02
    add(view, clock, 1000, seconds=0.05)
    assert 10 < clock.n_drawn <= 1 + 50 * live.SHARE / clock.cost
    clock.n_drawn, clock.cost = 0, 0.0
    add(view, clock, 1000, seconds=0.05, label="cheap")
    assert clock.n_drawn <= 1 + 50 / live.SECONDS_BETWEEN_DRAWINGS  # nobody follows more


def test_a_press_of_the_button_ends_the_training_at_its_next_epoch(view, clock):
    assert add(view, clock) is False
    assert view.stop.description == STOP
    view.stop.click()
    assert view.stop.disabled and view.stop.description != STOP
    assert add(view, clock) is True


def test_the_end_of_the_cell_closes_the_view_with_all_that_was_not_drawn_yet(shell, view, clock, capsys):
    clock.cost = 1.0
    add(view, clock, 5)
    assert len(view.trainings[""]) == 5 and clock.n_drawn == 1
    drawn = []
    view._curves.update = lambda data, raw: drawn.append(data["application/vnd.plotly.v1+json"])
    view._controls.update = lambda data, raw: drawn.append(data["text/plain"])
    shell.run_cell("1")
    assert view.is_closed
    assert drawn[0] == "epoch 5"
    assert [trace["x"] for trace in drawn[1]["data"] if trace["visible"]] == [[1, 2, 3, 4, 5]] * 2
    shell.run_cell("1")  # closed once, and for good
    assert len(drawn) == 2


CELLS = [
    f"""
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.append({str(Path(__file__).parent)!r})
from tiny_training import SETTINGS, TRAIN, VALIDATION, noise_gather, tiny_model

from moola_lib.learning.checkpoints import Checkpoints
from moola_lib.learning.objectives import Reconstruction
from moola_lib.learning.pretrain import pretrain
from moola_lib.runs.notebook import NotebookRun


class Slow(Reconstruction):
    def losses(self, *arguments):
        time.sleep(0.05)
        return super().losses(*arguments)


Path("run").mkdir()
run = NotebookRun("03_pretraining", "manual", Path.cwd(), Path("run"), None)
gather, settings = noise_gather(), replace(SETTINGS, n_epochs=400, patience_epochs=400)
""",
    """
options = {"checkpoints": Checkpoints("run/checkpoints"), "resume": run.is_resumed, "on_epoch": run.progress}
objective = Slow(gather, TRAIN, settings)
history = pretrain(tiny_model(), gather, TRAIN, VALIDATION, settings, objective=objective, **options)
print("ended", len(history), history[-1].get("is_stopped"))
""",
]


def run_cell(tab, k):
    """Run a cell of an open notebook."""
    tab.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(k).click()
    tab.keyboard.press("Control+Enter")


def n_saved(folder):
    return len(load_tensors(Checkpoints(folder / "run" / "checkpoints").latest)[1]["history"])


@pytest.mark.slow
@pytest.mark.browser
def test_a_training_in_jupyterlab_is_seen_stopped_resumed_and_interrupted(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "live.ipynb")
    n_drawn = "(document.querySelector('.js-plotly-plot')?.data ?? []).filter(t => t.visible).at(-1)?.x.length ?? 0"
    with open_lab(tmp_path, "live.ipynb") as (tab, requests, errors):
        run_first_cell(tab)
        output = tab.locator(".jp-CodeCell").nth(1).locator(".jp-Cell-outputArea")
        run_cell(tab, 1)
        tab.wait_for_function(f"{n_drawn} > 3", timeout=60_000)
        before = tab.evaluate(n_drawn)
        tab.wait_for_function(f"{n_drawn} > {before}")  # it grows while the kernel is busy
        assert tab.locator(".jp-InputPrompt").nth(1).inner_text().strip() == "[*]:"
        assert complaints_of_axe(tab, ".jp-CodeCell:nth-of-type(2) .jp-Cell-outputArea") == []
        tab.get_by_role("button", name=STOP).click()
        output.get_by_text("ended").wait_for()
        output.get_by_text("Stopped by hand: epoch").wait_for()  # the view is closed after the cell's own words
        first = n_saved(tmp_path)
        assert f"ended {first} True" in output.inner_text() and 3 < first < 400
        tab.wait_for_function(f"{n_drawn} === {first}")  # what had not been drawn yet too
        assert tab.get_by_role("button", name=STOP).count() == 0

        run_cell(tab, 1)  # goes on from there
        tab.wait_for_function(f"document.querySelector('.js-plotly-plot')?.data[2].x[0] === {first + 1}")
        tab.keyboard.press("Escape")
        for _ in range(2):
            tab.keyboard.press("i")  # interrupts the kernel
        output.get_by_text("KeyboardInterrupt").last.wait_for()
        tab.get_by_role("button", name=STOP).wait_for(state="detached")
        saved = n_saved(tmp_path)
        assert saved > first
        tab.wait_for_function(f"{n_drawn} === {saved - first}")
    assert requests == [] and errors == []
