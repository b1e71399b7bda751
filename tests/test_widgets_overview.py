"""The overview, zoomed without a browser by setting its range, and once in a real JupyterLab."""

import re
import time

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from lab import open_lab, run_first_cell

from moola_lib.errors import UserError
from moola_lib.figures.candles import MARKS
from moola_lib.market import describe_segments
from moola_lib.widgets.overview import bar_overview


@pytest.fixture(scope="module")
def frame(market):
    return market.bars.frame


@pytest.fixture
def overview(frame):
    return bar_overview(frame, describe_segments(frame), title="six sessions")


def shown(figure):
    """The candles of a figure as a frame."""
    trace = figure.data[0]
    columns = {name: np.asarray(trace[name], float) for name in ("x", "open", "high", "low", "close")}
    return pd.DataFrame(columns)


def bands(figure, kind):
    """(x0, x1) of the marks of one kind, told by their look."""
    look = MARKS[kind]
    form = "rect" if "fillcolor" in look else "line"
    return [
        (shape.x0, shape.x1)
        for shape in figure.layout.shapes
        if shape.type == form and shape.fillcolor == look.get("fillcolor")
    ]


def assert_shows(figure, frame, first, last, most=1000):
    """The candles are a reduction of exactly the bars first..last."""
    candles, part = shown(figure), frame.iloc[first : last + 1]
    assert 1 <= len(candles) <= most
    assert candles["high"].max() == part["high"].max()
    assert candles["low"].min() == part["low"].min()
    assert candles["open"].iloc[0] == part["open"].iloc[0]
    assert candles["close"].iloc[-1] == part["close"].iloc[-1]
    low, high = figure.layout.yaxis.range
    assert low < part["low"].min() and part["high"].max() < high
    assert high - low <= 1.1 * (part["high"].max() - part["low"].min()) + 2.1


RANGES = [(-0.5, 8279.5), (100, 8000), (2000.3, 2500.7), (4000, 4012), (-900, 200), (8000, 99_999)]


@pytest.mark.parametrize("seen", RANGES)
@pytest.mark.parametrize("max_candles", [1000, 37])
def test_a_zoom_keeps_the_extremes_of_what_is_seen(frame, seen, max_candles):
    figure = bar_overview(frame, describe_segments(frame), title="t", max_candles=max_candles)
    figure.layout.xaxis.range = seen
    first, last = max(int(np.ceil(seen[0])), 0), min(int(np.floor(seen[1])), len(frame) - 1)
    assert_shows(figure, frame, first, last, most=max_candles)
    assert tuple(figure.layout.xaxis.range) == seen


@pytest.mark.parametrize("seen", [(-500.0, -400.0), (9000.0, 9100.0), (50.2, 50.4), (300.0, 200.0)])
def test_a_range_without_bars_or_turned_around_shows_what_is_nearest(overview, frame, seen):
    overview.layout.xaxis.range = seen
    assert len(shown(overview)) >= 1
    assert np.isfinite(overview.layout.yaxis.range).all()


@pytest.mark.parametrize(
    ("seen", "widened"),
    [
        ((4000.0, 4005.0), (3997.5, 4007.5)),
        ((50.2, 50.4), (45.5, 55.5)),
        ((7.0, 7.0), (2.5, 12.5)),
        ((-0.5, 0.1), (-0.5, 9.5)),
        ((8279.2, 8279.3), (8269.5, 8279.5)),
    ],
)
def test_never_fewer_than_ten_bars_are_shown(overview, frame, seen, widened):
    overview.layout.xaxis.range = seen
    assert overview.layout.xaxis.range == widened
    first = int(widened[0] + 0.5)
    assert shown(overview)["x"].tolist() == list(range(first, first + 10))
    assert_shows(overview, frame, first, first + 9)


def test_a_series_of_few_bars_is_shown_whole_at_every_zoom(frame):
    figure = bar_overview(frame.iloc[:4], describe_segments(frame.iloc[:4]), title="t")
    figure.layout.xaxis.range = (1.2, 1.3)
    assert figure.layout.xaxis.range == (-0.5, 3.5) and len(shown(figure)) == 4


def test_prices_keep_their_quarter_points():
    # what plotly's number format makes of it is d3's: up to two decimals, without trailing zeros
    from moola_lib.figures.candles import overview_figure

    candles = pd.DataFrame({"open": [3704.25], "high": [3704.75], "low": [3704.0], "close": [3704.5]})
    assert overview_figure(candles).layout.yaxis.tickformat == ",.2~f"


def test_a_close_look_shows_the_bars_themselves(overview, frame):
    overview.layout.xaxis.range = (1000, 1200)
    candles = shown(overview)
    np.testing.assert_array_equal(candles["x"], np.arange(1000, 1201))
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(candles[name], frame[name].iloc[1000:1201])
    assert "201 bars, each a candle" in overview.layout.xaxis.title.text
    local = frame.index[1000].tz_convert("America/New_York")
    assert f"{local:%Y-%m-%d %H:%M}" in overview.data[0].text[0]
    assert f"{local:%Y-%m-%d %H:%M}" in overview.layout.xaxis.title.text


def test_panning_moves_candles_without_reshaping_them(overview):
    overview.layout.xaxis.range = (1000, 5000)
    before = shown(overview).set_index("x").iloc[1:-1]
    overview.layout.xaxis.range = (1777, 5777)
    after = shown(overview).set_index("x").iloc[1:-1]
    both = before.index.intersection(after.index)
    assert len(both) > 300
    pd.testing.assert_frame_equal(before.loc[both], after.loc[both])


def test_zooming_out_again_gives_the_first_picture(overview):
    layout, candles = go.Layout(overview.layout), shown(overview)
    overview.layout.xaxis.range = (1000, 1100)
    assert overview.layout != layout and len(shown(overview)) == 101
    overview.layout.xaxis.range = layout.xaxis.range
    assert overview.layout == layout
    pd.testing.assert_frame_equal(shown(overview), candles)


def test_regular_hours_are_shaded_where_sessions_can_be_told_apart(overview, frame):
    spans = bands(overview, "regular hours")
    assert len(spans) == 6
    local = frame.index.tz_convert("America/New_York")
    minute = (local.hour * 60 + local.minute).to_numpy()
    is_shaded = np.zeros(len(frame), bool)
    for x0, x1 in spans:
        is_shaded[int(x0 + 0.5) : int(x1 + 0.5)] = True
    np.testing.assert_array_equal(is_shaded, (minute >= 570) & (minute < 960))


def test_too_many_sessions_are_not_shaded():
    from moola_lib.market import simulate_bars

    frame = simulate_bars(n_sessions=60, seed=3).bars.frame
    figure = bar_overview(frame, describe_segments(frame), title="t")
    assert bands(figure, "regular hours") == []
    figure.layout.xaxis.range = (0, 20 * 1380)
    assert len(bands(figure, "regular hours")) == 20


def test_gaps_and_rolls_stand_before_the_bars_that_follow_them(tiny):
    figure = bar_overview(tiny.frame, describe_segments(tiny.frame), title="t")
    for (x0, x1), place in zip(sorted(bands(figure, "gap")), (tiny.hole, tiny.half_day), strict=True):
        assert x0 < place - 0.5 < x1 < x0 + 0.02 * len(tiny.frame)
    assert bands(figure, "roll") == [(tiny.roll - 0.5, tiny.roll - 0.5)]
    assert {note.text for note in figure.layout.annotations} == {"31 min", "19 h"}
    names = {trace.name: trace.visible for trace in figure.data[1:]}
    assert names["gap"] and names["roll"]
    figure.layout.xaxis.range = (0, 100)
    assert bands(figure, "gap") == bands(figure, "roll") == [] and figure.layout.annotations == ()
    assert not any(trace.visible for trace in figure.data[1:] if trace.name != "regular hours")


def test_rolls_and_gaps_can_be_given(tiny):
    index = tiny.frame.index
    gaps = pd.DataFrame({"start": [index[50]], "gap_minutes": [240.0]})
    figure = bar_overview(tiny.frame, describe_segments(tiny.frame), [index[77]], gaps, title="t")
    assert [round((x0 + x1) / 2 + 0.5) for x0, x1 in bands(figure, "gap")] == [50]
    assert bands(figure, "roll") == [(76.5, 76.5)]  # named in the legend
    assert {note.text for note in figure.layout.annotations} == {"4 h"}


def marked_gaps(figure):
    """The bars at which gaps are marked, in order."""
    return [round((x0 + x1) / 2 + 0.5) for x0, x1 in sorted(bands(figure, "gap"))]


def test_ten_gaps_are_marked_at_most_each_with_its_length(frame):
    places = np.arange(250, 8000, 250)  # 31, farther apart than a label is wide
    gaps = pd.DataFrame({"start": frame.index[places], "gap_minutes": np.arange(31) + 60.0})
    figure = bar_overview(frame, describe_segments(frame), [], gaps, title="t")
    assert marked_gaps(figure) == list(places[-10:])
    assert [note.text for note in figure.layout.annotations] == [f"{minutes} min" for minutes in range(81, 91)]
    assert "; 21 shorter gaps" in figure.layout.xaxis.title.text


def test_where_gaps_are_crowded_the_longest_is_marked(frame):
    """A hole of a month keeps its mark and its length among the many short ones that follow it."""
    places = np.arange(4000, 5000, 20)
    gaps = pd.DataFrame({"start": frame.index[places], "gap_minutes": 400.0})
    gaps.loc[7, "gap_minutes"] = 30 * 1440.0
    figure = bar_overview(frame, describe_segments(frame), [], gaps, title="t")
    marked = marked_gaps(figure)
    assert places[7] in marked and 3 <= len(marked) <= 7
    assert min(np.diff(marked)) >= 0.02 * len(frame)
    assert sorted(note.text for note in figure.layout.annotations) == ["30 d"] + ["7 h"] * (len(marked) - 1)
    assert f"; {50 - len(marked)} shorter gaps" in figure.layout.xaxis.title.text
    figure.layout.xaxis.range = (places[6] - 10, places[8] + 10)  # a closer look tells them apart
    assert marked_gaps(figure) == list(places[6:9])
    assert "shorter" not in figure.layout.xaxis.title.text


def test_gaps_shorter_than_a_candle_are_counted_only(frame):
    gaps = pd.DataFrame({"start": frame.index[[200, 600]], "gap_minutes": [1.0, 30.0]})
    figure = bar_overview(frame, describe_segments(frame), [], gaps, title="t")
    assert marked_gaps(figure) == [600] and figure.layout.xaxis.title.text.endswith("; 1 shorter gap")


@pytest.mark.parametrize("width", [8279, 3000, 900, 300, 60, 12, 3])
def test_labels_are_few_in_order_and_say_what_the_bar_says(overview, frame, width):
    overview.layout.xaxis.range = (1500, 1500 + width) if width < 8279 else (0, 8279)
    places, text = np.asarray(overview.layout.xaxis.tickvals), overview.layout.xaxis.ticktext
    assert 1 <= len(places) <= 8 and len(places) == len(text)
    assert (np.diff(places) > 0).all()
    local = frame.index[places.astype(int)].tz_convert("America/New_York")
    for stamp, label in zip(local, text, strict=True):
        clock = label.split("<br>")[0]
        trade_date = stamp + pd.Timedelta(hours=6)
        assert clock in (f"{stamp:%H:%M}", f"{trade_date.day} {trade_date:%b}")


def test_headless_is_the_same_picture_without_a_widget(frame, overview):
    figure = bar_overview(frame, describe_segments(frame), title="six sessions", is_headless=True)
    assert type(figure) is go.Figure
    pd.testing.assert_frame_equal(shown(figure), shown(overview))
    assert figure.layout.shapes == overview.layout.shapes
    assert figure.layout.xaxis.title == overview.layout.xaxis.title
    assert figure.layout.xaxis.fixedrange and figure.layout.yaxis.fixedrange  # nothing would bin a closer look
    assert not overview.layout.xaxis.fixedrange


def test_bars_are_left_alone(frame):
    before = frame.copy()
    figure = bar_overview(frame, describe_segments(frame), title="t")
    figure.layout.xaxis.range = (100, 900)
    pd.testing.assert_frame_equal(frame, before)


def test_one_bar_is_a_series_too(frame):
    part = frame.iloc[:1]
    figure = bar_overview(part, describe_segments(part), title="t")
    assert len(shown(figure)) == 1 and figure.layout.xaxis.title.text.endswith("<br>1 bar")


def test_what_cannot_be_shown_is_refused(frame):
    with pytest.raises(UserError, match="no bars"):
        bar_overview(frame.iloc[:0], describe_segments(frame), title="t")
    with pytest.raises(UserError, match="max_candles is 3"):
        bar_overview(frame, describe_segments(frame), title="t", max_candles=3)


CELL = """
from moola_lib.market import describe_segments, simulate_bars
from moola_lib.widgets.overview import bar_overview

frame = simulate_bars(n_sessions=300, seed=5).bars.frame
bar_overview(frame, describe_segments(frame), title="in the browser")
"""
PLOT = "document.querySelector('.js-plotly-plot')"


@pytest.mark.slow
@pytest.mark.browser
def test_it_answers_the_mouse_in_jupyterlab(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.strip())])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "overview.ipynb")
    with open_lab(tmp_path, "overview.ipynb") as (tab, requests, errors):
        run_first_cell(tab)
        tab.wait_for_selector(".js-plotly-plot .nsewdrag", timeout=60_000)
        # drawn again to fit its place: the drag area of plotly's own 700 pixels is 626 wide
        tab.wait_for_function(f"{PLOT}.querySelector('.nsewdrag').getBoundingClientRect().width > 650")

        def n_bars():
            """Return the number of bars the axis speaks of."""
            title = tab.evaluate(f"{PLOT}.querySelector('.xtitle').textContent")
            return int(re.search(r"New York([0-9,]+) bar", title)[1].replace(",", ""))

        def wait_for_bars(low, high, seconds=30):
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and not low <= n_bars() <= high:
                tab.wait_for_timeout(100)
            return low <= n_bars() <= high

        def drag(start, end):
            box = tab.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
            y = box["y"] + box["height"] / 2
            tab.mouse.move(box["x"] + start * box["width"], y)
            tab.mouse.down()
            tab.mouse.move(box["x"] + (start + end) / 2 * box["width"], y + 5)
            tab.mouse.move(box["x"] + end * box["width"], y + 5)
            tab.mouse.up()

        def zoom(start, end, low, high):
            """Drag until it is heard: a plot that is being drawn again loses the mouse."""
            before = n_bars()
            for _ in range(5):
                drag(start, end)
                if wait_for_bars(low, high, seconds=10):
                    return
                assert n_bars() == before
            raise AssertionError(f"the zoom was not heard: {before} bars are still in sight")

        assert wait_for_bars(414_000, 414_000)
        zoom(0.2, 0.3, 30_000, 60_000)
        zoom(0.4, 0.46, 1000, 6000)
        assert tab.evaluate(f"{PLOT}.data[0].x.length") <= 600
        assert tab.evaluate(f"{PLOT}.layout.shapes.length") >= 1  # regular hours
        tab.locator(".modebar-btn[data-val=pan]").first.click(force=True)
        before = tab.evaluate(f"{PLOT}.layout.xaxis.range[0]")
        drag(0.3, 0.6)
        tab.wait_for_function(f"{PLOT}.layout.xaxis.range[0] < {before} - 100")
        assert wait_for_bars(1000, 6000)
        tab.locator(".modebar-btn[data-val=zoom]").first.click(force=True)
        zoom(0.5, 0.52, 20, 130)
        zoom(0.5, 0.51, 10, 10)  # below one bar: ten are shown
        assert tab.evaluate(f"{PLOT}.data[0].x.length") == 10
        low, high = tab.evaluate(f"{PLOT}.layout.xaxis.range")
        assert high - low == 10
        box = tab.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
        tab.mouse.dblclick(box["x"] + 200, box["y"] + 100)
        assert wait_for_bars(414_000, 414_000)
    assert requests == [] and errors == []
