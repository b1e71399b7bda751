"""The balance explorer, moved without a browser by setting its values, and once in a real JupyterLab."""

import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
from lab import open_lab, run_first_cell
from recorded import record_steps, write_record

from moola_lib.errors import UserError
from moola_lib.evaluation.reweigh import HAS_NO_WEIGHTS, NEEDS_A_RUN, reweigh, thin_out
from moola_lib.figures.balance import record_figure
from moola_lib.learning import STRATEGIES
from moola_lib.learning.balance import build_balance
from moola_lib.models.jade import TASKS
from moola_lib.widgets import balance
from moola_lib.widgets.balance import balance_explorer

WITH_WEIGHTS = [name for name in STRATEGIES if name not in (*NEEDS_A_RUN, *HAS_NO_WEIGHTS)]


@pytest.fixture
def records(tmp_path):
    """Two trainings: `fixed`, and a longer one with the segment posterior beside it."""
    return {
        "fixed": write_record(tmp_path / "fixed.jsonl", record_steps()),
        "with segments": write_record(tmp_path / "both.jsonl", record_steps(80, extra=["segment"]), "log"),
    }


@pytest.fixture
def explorer(records):
    return balance_explorer(records)


def bars(explorer):
    """Mean shares of (loss, gradient) by task, as drawn."""
    return {trace.name: list(trace.x) for trace in explorer.figure.data if trace.type == "bar"}


def lines(explorer):
    """Gradient shares over steps by task, as drawn."""
    return {trace.name: list(trace.y) for trace in explorer.figure.data if trace.type == "scatter"}


def assert_shows(explorer, frame):
    """Bars and lines are those of a frame of shares."""
    means = frame.groupby("task")[["loss_share", "gradient_share"]].mean()
    assert set(bars(explorer)) == set(lines(explorer)) == set(means.index)
    for task, shares in bars(explorer).items():
        np.testing.assert_allclose(shares, means.loc[task])
        np.testing.assert_allclose(lines(explorer)[task], frame.loc[frame["task"] == task, "gradient_share"])


@pytest.mark.parametrize("strategy", WITH_WEIGHTS)
def test_a_strategy_starts_at_its_own_weights_and_follows_the_sliders(explorer, records, strategy):
    explorer.strategy.value = strategy
    own = build_balance(strategy).weights
    assert explorer.weights == own
    assert_shows(explorer, reweigh(records["fixed"], strategy))
    explorer.sliders["pointers"].value = 7.0
    assert_shows(explorer, reweigh(records["fixed"], strategy, {**own, "pointers": 7.0}))
    assert not explorer.reset.disabled
    explorer.reset.click()
    assert explorer.weights == own
    assert_shows(explorer, reweigh(records["fixed"], strategy))


@pytest.mark.parametrize("strategy", HAS_NO_WEIGHTS)
def test_where_there_are_no_weights_nothing_can_be_moved(explorer, records, strategy):
    explorer.strategy.value = strategy
    assert explorer.reset.disabled and all(slider.disabled for slider in explorer.sliders.values())
    assert_shows(explorer, reweigh(records["fixed"], strategy))


@pytest.mark.parametrize("strategy", NEEDS_A_RUN)
def test_what_needs_a_run_says_so_and_shows_no_shares(explorer, strategy):
    explorer.strategy.value = strategy
    assert f"moola run 05 -p strategies '[{strategy}]'" in explorer.message.value
    assert not any(trace.visible for trace in explorer.figure.data)
    assert all(slider.disabled for slider in explorer.sliders.values())
    explorer.strategy.value = "log"
    assert all(trace.visible for trace in explorer.figure.data)


def test_every_strategy_is_listed(explorer):
    labels = dict((value, label) for label, value in explorer.strategy.options)
    assert list(labels) == ["as trained", *STRATEGIES]
    assert {name for name, label in labels.items() if "needs a run" in label} == set(NEEDS_A_RUN)


def test_as_trained_is_the_record(explorer, records):
    explorer.strategy.value = "as trained"
    assert_shows(explorer, records["fixed"])
    assert "as it was recorded" in explorer.message.value


def test_it_says_whether_the_encoder_trained_this_way(explorer):
    assert "as it was recorded" in explorer.message.value
    explorer.sliders["type"].value = 2.0
    assert "did not train this way" in explorer.message.value
    assert "moola run 05 -p strategies '[fixed]'" in explorer.message.value
    assert "with its own weights" in explorer.message.value  # not those of the sliders
    explorer.reset.click()
    assert "as it was recorded" in explorer.message.value
    explorer.strategy.value = "log"
    assert "moola run 05 -p strategies '[log]'" in explorer.message.value
    assert "with its own weights" not in explorer.message.value


def test_another_record_keeps_strategy_and_weights(explorer, records):
    explorer.sliders["pointers"].value = 3.0
    explorer.record.value = "with segments"
    weights = {**build_balance("fixed").weights, "pointers": 3.0}
    assert explorer.weights == weights
    assert_shows(explorer, reweigh(thin_out(records["with segments"]), "fixed", weights))
    assert set(bars(explorer)) == {*TASKS, "segment"} and len(lines(explorer)["segment"]) == 60


def test_one_move_is_one_drawing(explorer, monkeypatch):
    drawn = []
    monkeypatch.setattr(balance, "record_figure", lambda frame: drawn.append(frame) or record_figure(frame))
    explorer.sliders["inside"].value = 5.0
    assert len(drawn) == 1
    explorer.reset.click()
    assert len(drawn) == 2
    explorer.strategy.value = "manual"
    assert len(drawn) == 3


def test_headless_is_a_figure_of_a_few_positions_of_the_pointer_weight(records):
    figure = balance_explorer(records, is_headless=True)
    assert type(figure) is go.Figure
    gradient = next(trace for trace in figure.data[4:] if trace.name == "pointers")
    assert list(gradient.y) == ["as trained", *(f"weight {w}" for w in ("0.01", "0.1", "1", "10", "100"))]
    assert (np.diff(gradient.x[1:]) > 0).all()
    assert "fixed" in figure.layout.title.text


def test_what_cannot_be_shown_is_refused(records):
    with pytest.raises(UserError, match="no record to show"):
        balance_explorer({})
    with pytest.raises(UserError, match="the record short has no audits"):
        balance_explorer({**records, "short": records["fixed"].iloc[:0]})
    with pytest.raises(UserError, match="'magic' is not known"):
        balance_explorer(records, strategy="magic")
    with pytest.raises(UserError, match="come from its own training"):
        balance_explorer(records, strategy="famo", is_headless=True)


CELL = """
from moola_lib.evaluation.balance import read_metrics
from moola_lib.widgets.balance import balance_explorer

balance_explorer({"fixed": read_metrics("fixed.jsonl")})
"""
PLOT = "document.querySelector('.js-plotly-plot')"


@pytest.mark.slow
@pytest.mark.browser
def test_it_answers_the_sliders_in_jupyterlab(tmp_path):
    write_record(tmp_path / "fixed.jsonl", record_steps(60))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.strip())])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "balance.ipynb")
    with open_lab(tmp_path, "balance.ipynb") as (tab, requests, errors):
        run_first_cell(tab)
        tab.wait_for_selector(".js-plotly-plot .barlayer path", timeout=60_000)
        # drawn again to fit its place, as in the test of the overview
        tab.wait_for_function(f"{PLOT}.querySelector('.nsewdrag').getBoundingClientRect().width > 650")
        share, drawn = f"{PLOT}.data[0].x[1]", f"{PLOT}.querySelector('.barlayer path').getBoundingClientRect().width"
        before, width = tab.evaluate(share), tab.evaluate(drawn)
        assert tab.evaluate(f"{PLOT}.data[0].name") == "pointers" and before < 0.2
        assert set(tab.locator(".ytick text").all_text_contents()) == {"loss", "gradient"}
        assert tab.evaluate(f"Array.from({PLOT}.data.at(-1).x).at(-1)") == 5 * 59
        assert "as it was recorded" in tab.locator(".widget-html").inner_text()
        handle = tab.locator(".widget-slider:has-text('pointers') .noUi-handle")
        handle.focus()
        for _ in range(8):
            handle.press("ArrowRight")
        tab.wait_for_function(f"{share} > {before} + 0.3")
        tab.wait_for_function(f"{drawn} > 2 * {width}")
        assert "did not train this way" in tab.locator(".widget-html").inner_text()
        tab.get_by_role("button", name="own weights").click()
        tab.wait_for_function(f"Math.abs({share} - {before}) < 1e-9")
        tab.locator(".widget-dropdown select").nth(1).select_option(label="famo (needs a run)")
        tab.wait_for_selector(".widget-html :text('strategies')")
        tab.wait_for_function(f"!{PLOT}.querySelector('.barlayer path')")
    assert requests == [] and errors == []
