"""The window browser, clicked without a browser: what it shows is asked of the widget itself; once in JupyterLab."""

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from lab import complaints_of_axe, open_lab, run_first_cell

from moola_lib.errors import UserError
from moola_lib.labels.detections import propose_detections
from moola_lib.widgets.explorer import detection_browser, window_browser

STATE_CODES = {"consolidation": 0, "retracement": 1}


@pytest.fixture
def frame(market):
    return market.bars.frame


@pytest.fixture
def browser(labelled, frame):
    return window_browser(labelled, frame)


def names(figure):
    return [trace.name for trace in figure.data]


def test_next_and_previous_step_through_the_windows(browser, labelled):
    assert browser.window_id == labelled.window_id[0]
    browser.next.click()
    browser.next.click()
    assert browser.window_id == labelled.window_id[2]
    browser.previous.click()
    assert browser.window_id == labelled.window_id[1]
    assert browser.slider.value == 2


def test_the_ends_are_ends(browser, labelled):
    assert browser.previous.disabled and not browser.next.disabled
    browser.previous.click()
    assert browser.window_id == labelled.window_id[0]
    browser.slider.value = len(labelled)
    assert browser.window_id == labelled.window_id[-1]
    assert browser.next.disabled and not browser.previous.disabled
    browser.next.click()
    assert browser.window_id == labelled.window_id[-1]


@pytest.mark.parametrize("state", STATE_CODES)
def test_a_filter_shows_its_state_only(browser, labelled, state):
    browser.filters["state"].value = state
    expected = labelled.window_id[labelled.state == STATE_CODES[state]]
    assert browser.slider.max == len(expected)
    seen = [browser.window_id]
    while not browser.next.disabled:
        browser.next.click()
        seen.append(browser.window_id)
    assert seen == list(expected)


def test_a_filter_stays_at_a_window_that_passes_it(browser, labelled):
    row = int(np.flatnonzero(labelled.state == 1)[3])
    browser.slider.value = row + 1
    browser.filters["state"].value = "retracement"
    assert browser.row == row
    browser.filters["state"].value = "all"
    assert browser.row == row
    assert browser.slider.value == row + 1


def test_a_filter_that_matches_nothing_says_so_and_can_be_left(browser, labelled):
    browser.filters["state"].value = "none"
    assert browser.message.value == "No labelled window has state none."
    assert browser.window_id is None and browser.figure is None
    assert browser.next.disabled and browser.previous.disabled and browser.slider.disabled
    browser.next.click()
    assert browser.window_id is None
    browser.filters["state"].value = "all"
    assert browser.window_id == labelled.window_id[0]
    assert browser.message.value.startswith(f"1 of {len(labelled)}: {labelled.window_id[0]}")


def test_the_figure_holds_the_bars_and_both_spans(labelled, frame):
    n = len(labelled)
    predictions = {
        "start": np.full(n, 40),
        "end": np.full(n, 44),
        "inside_probability": np.linspace(0, 1, n * 105, dtype=np.float32).reshape(n, 105),
    }
    browser = window_browser(labelled, frame, predictions, row=2)
    place = labelled.place[2]
    assert np.allclose(browser.figure.data[0].close, frame["close"].iloc[place : place + 105])
    labelled_span = f"labelled {labelled.start[2]}–{labelled.end[2]}"
    assert names(browser.figure) == ["bars", labelled_span, "predicted 40–44", "P(inside)"]
    assert np.array_equal(browser.figure.data[-1].y, predictions["inside_probability"][2])


def test_no_span_is_drawn_where_none_is_known_or_predicted(make_windows, frame):
    windows = make_windows([[], [(40, 50)]], [2, 0], places=[100, 400])
    predictions = {"start": np.array([-1, 41]), "end": np.array([-1, 52])}
    browser = window_browser(windows, frame, predictions)
    assert names(browser.figure) == ["bars"]
    browser.filters["state"].value = "consolidation"
    assert names(browser.figure) == ["bars", "labelled 40–50", "predicted 41–52"]
    browser.filters["state"].value = "none"
    assert browser.window_id == "w0"


def test_headless_is_the_same_figure_without_widgets(labelled, frame):
    figure = window_browser(labelled, frame, row=3, is_headless=True)
    assert isinstance(figure, go.Figure)
    assert figure == window_browser(labelled, frame, row=3).figure


def test_what_cannot_be_shown_is_refused(labelled, frame):
    with pytest.raises(UserError, match="no labelled windows"):
        window_browser(labelled.take(np.zeros(len(labelled), bool)), frame)
    with pytest.raises(UserError, match="row 999 is not one of the 36"):
        window_browser(labelled, frame, row=999)
    with pytest.raises(UserError, match="start is given for 2 windows, there are 36"):
        window_browser(labelled, frame, {"start": np.zeros(2)})


def seen(browser):
    """Rows in the order in which the browser leafs through them."""
    browser.slider.value = 1
    rows = [browser.row]
    while not browser.next.disabled:
        browser.next.click()
        rows.append(browser.row)
    return rows


@pytest.fixture
def judged(make_windows, frame):
    """Windows with errors of 0, none labelled, 9, none predicted, 3, 4 and (rightly) no expansion at all."""
    spans = [[(40, 50)], [], [(40, 50)], [(40, 50)], [(40, 50)], [(40, 50)], []]
    windows = make_windows(spans, [0, 2, 1, 0, 1, 0, 2], places=range(100, 800, 100))
    start = np.array([40, 44, 49, -1, 37, 44, -1])
    predictions = {"start": start, "end": np.where(start < 0, -1, start + 9)}
    return window_browser(windows, frame, predictions, folds=[1, 1, 1, 2, 2, 2, 3])


def test_the_worst_come_first_and_what_only_one_side_sees_is_worse_than_any(judged):
    assert seen(judged) == list(range(7))
    judged.order.value = "worst first"
    assert seen(judged) == [1, 3, 2, 5, 4, 0, 6]
    assert judged.message.value == "7 of 7: w6, none, 2024-01-08, fold 3, no expansion, none predicted"
    judged.order.value = "in time"
    assert seen(judged) == list(range(7))


def test_a_hit_is_a_start_within_three_bars_or_none_where_there_is_none(judged):
    judged.filters["start"].value = "hit"
    assert seen(judged) == [0, 4, 6]
    judged.filters["start"].value = "miss"
    assert seen(judged) == [1, 2, 3, 5]
    assert "start off by 4" in judged.message.value


def test_filters_and_order_work_together(judged):
    judged.order.value = "worst first"
    judged.filters["fold"].value = "2"
    assert seen(judged) == [3, 5, 4]
    judged.filters["state"].value = "consolidation"
    assert seen(judged) == [3, 5]
    judged.filters["start"].value = "hit"
    assert judged.message.value == "No labelled window has state consolidation and fold 2 and start hit."
    judged.filters["fold"].value = "all"
    assert seen(judged) == [0]


def test_another_order_stays_at_the_window_shown(judged):
    judged.slider.value = 6
    judged.order.value = "worst first"
    assert judged.row == 5 and judged.slider.value == 4


def test_only_what_is_known_can_be_chosen_by(browser):
    assert list(browser.filters) == ["state"]
    assert browser.order.options == ("in time",)


def test_the_arrow_keys_step_like_the_buttons(browser, labelled):
    for step, row in ((1, 1), (1, 2), (-1, 1), (-1, 0), (-1, 0)):
        browser._arrows._handle_custom_msg({"step": step}, [])
        assert browser.window_id == labelled.window_id[row]


def test_the_posterior_is_a_strip_of_its_own_probabilities(labelled, frame):
    n = len(labelled)
    start, end = np.random.default_rng(3).dirichlet(np.ones(105), (2, n))
    browser = window_browser(labelled, frame, {"start_probability": start, "end_probability": end}, row=5)
    strip = next(trace for trace in browser.figure.data if trace.type == "heatmap")
    drawn = dict(zip(strip.y, np.asarray(strip.z), strict=True))
    np.testing.assert_allclose(drawn["start"], start[5], rtol=1e-6)
    np.testing.assert_allclose(drawn["end"], end[5], rtol=1e-6)


SPANS = [(300, 330), (900, 912), (8275, 8279)]


@pytest.fixture
def found(market, table):
    """Three detections as a label table with their confidence; the last lies at the end of the series."""
    start, end = np.array(SPANS).T
    detections = pd.DataFrame(
        {"start": start, "end": end, "start_low": start - 2, "start_high": start + 1, "end_low": end - 1}
        | {"end_high": end, "state": ["retracement", "consolidation", "retracement"], "seen_to": -1}
        | {"confidence": [0.5, 0.9, 0.7]}
    )
    index = market.bars.frame.index
    labels = propose_detections(detections, index, table.starts, symbol="SIM", model="one", is_causal=True)
    return labels.assign(confidence=detections["confidence"])


def test_a_detection_lies_on_the_bars_that_it_was_found_in(found, frame):
    by_bar = pd.DataFrame({"inside_probability": np.arange(len(frame)) / len(frame)}, index=frame.index)
    browser = detection_browser(found, frame, by_bar.iloc[::-1])
    for (start, end), message in zip(SPANS, ("retracement", "consolidation", "retracement"), strict=True):
        figure = browser.figure
        first = frame.index.get_loc(found["window_start"].iloc[browser.row])
        assert f"predicted {start - first}–{end - first}" in names(figure)
        assert np.allclose(figure.data[0].close, frame["close"].iloc[first : first + 105])
        assert np.allclose(figure.data[-1].y, by_bar["inside_probability"].iloc[first : first + 105])
        edges = [(line.x0, line.x1) for line in figure.layout.shapes if line.type == "line"]
        assert edges == [(start - first - 2.5, start - first + 1.5), (end - first - 1.5, end - first + 0.5)]
        assert message in browser.message.value
        assert f"{frame.index[start]:%Y-%m-%d %H:%M} UTC" in browser.message.value
        browser.next.click()


def test_detections_are_chosen_by_state_and_the_surest_come_first(found, frame):
    browser = detection_browser(found, frame)
    browser.order.value = "surest first"
    assert seen(browser) == [1, 2, 0]
    browser.filters["state"].value = "retracement"
    assert seen(browser) == [2, 0]
    browser.filters["state"].value = "none"
    assert browser.message.value == "No detection has state none."
    assert detection_browser(found.drop(columns="confidence"), frame).order.options == ("in time",)


def test_headless_is_the_figure_of_one_detection(found, frame):
    figure = detection_browser(found, frame, row=1, is_headless=True)
    assert isinstance(figure, go.Figure) and "confidence 0.90" in figure.layout.title.text


def test_detections_of_other_bars_are_refused(found, frame):
    with pytest.raises(UserError, match="3 of 3 detections lie on other bars"):
        detection_browser(found, frame.iloc[8278:])
    with pytest.raises(UserError, match="nothing was detected"):
        detection_browser(found.iloc[:0], frame)
    with pytest.raises(UserError, match="row 3 is not one of the 3 detections"):
        detection_browser(found, frame, row=3)


CELLS = [
    """
import numpy as np

from moola_lib.features import build_features
from moola_lib.labels import labels_from_planted
from moola_lib.market import simulate_bars
from moola_lib.widgets.explorer import window_browser
from moola_lib.windows import place_labels

market = simulate_bars(n_sessions=6, seed=5)
labels = labels_from_planted(market.planted, symbol="SIM", n_windows=36)
windows, _ = place_labels(labels, market.bars.frame, build_features(market.bars).starts)
predictions = {"start": windows.start + np.arange(36) % 9, "end": windows.end}
predictions["start_probability"] = np.full((36, 105), 1 / 105)
browser = window_browser(windows, market.bars.frame, predictions, folds=1 + np.arange(36) % 5)
browser
""",
    'print(f"shown: row {browser.row} of {len(browser._rows)}")',
]


@pytest.mark.slow
@pytest.mark.browser
def test_it_answers_clicks_and_keys_in_jupyterlab(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "explorer.ipynb")
    with open_lab(tmp_path, "explorer.ipynb") as (tab, requests, errors):
        run_first_cell(tab)
        told = tab.locator(".moola-explorer .widget-label").last
        tab.wait_for_selector(".moola-explorer .heatmaplayer", timeout=60_000, state="attached")

        def shows(words):
            told.get_by_text(words).wait_for()
            tab.locator(f".moola-explorer .gtitle:has-text({words.split(': ')[-1]!r})").wait_for()

        def python_says(words):
            tab.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(1).click()
            tab.keyboard.press("Control+Enter")
            tab.locator(".jp-OutputArea-output").get_by_text(words).wait_for()

        name = told.inner_text().split(": ")[1]
        shows(f"1 of 36: {name}")
        assert complaints_of_axe(tab, ".moola-explorer") == []
        tab.get_by_role("button", name="Next", exact=True).click()
        shows("2 of 36: ")
        python_says("shown: row 1 of 36")
        tab.get_by_label("order", exact=True).select_option("worst first")
        tab.get_by_label("fold", exact=True).select_option("2")
        tab.locator(".moola-explorer .nsewdrag").first.click()
        group = tab.get_by_role("group", name="Windows; the left and right arrow keys leaf through them")
        assert group.evaluate("group => group === document.activeElement")
        shows("7 of 7: ")  # the window stays, which is the best of its fold
        for key, position in (("ArrowLeft", 6), ("ArrowLeft", 5), ("ArrowRight", 6)):
            tab.keyboard.press(key)
            shows(f"{position} of 7: ")
        tab.get_by_label("state", exact=True).select_option("none")
        told.get_by_text("No labelled window has state none and fold 2.").wait_for()
        assert tab.locator(".moola-explorer .js-plotly-plot").count() == 0
        python_says("shown: row None of 0")
    assert requests == [] and errors == []
