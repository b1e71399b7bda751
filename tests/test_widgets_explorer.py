"""The window browser, clicked without a browser: what it shows is asked of the widget itself."""

import numpy as np
import plotly.graph_objects as go
import pytest

from moola_lib.errors import UserError
from moola_lib.widgets.explorer import window_browser

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
    browser.state.value = state
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
    browser.state.value = "retracement"
    assert browser.row == row
    browser.state.value = "all"
    assert browser.row == row
    assert browser.slider.value == row + 1


def test_a_filter_that_matches_nothing_says_so_and_can_be_left(browser, labelled):
    browser.state.value = "none"
    assert browser.message.value == "No window has the state none."
    assert browser.window_id is None and browser.figure is None
    assert browser.next.disabled and browser.previous.disabled and browser.slider.disabled
    browser.next.click()
    assert browser.window_id is None
    browser.state.value = "all"
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
    browser.state.value = "consolidation"
    assert names(browser.figure) == ["bars", "labelled 40–50", "predicted 41–52"]
    browser.state.value = "none"
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
