"""The label studio, asked as the browser asks it, without a browser; and the browser's edits held against Python's."""

import base64
import os
import random
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from chromium import ARGUMENTS, CHROMIUM

from moola_lib.errors import UserError
from moola_lib.labels import CLASSES, load_labels, propose_labels, save_labels
from moola_lib.labels.drafts import Draft, edit
from moola_lib.market.segments import segment_starts
from moola_lib.widgets import studio as module
from moola_lib.widgets.studio import find_places, label_studio
from moola_lib.windows import place_labels


@pytest.fixture(scope="module")
def frame(market):
    return market.bars.frame


@pytest.fixture(scope="module")
def proposals(frame):
    return propose_labels(frame, n_windows=20)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.parquet"


@pytest.fixture
def studio(path, frame, proposals):
    return label_studio(path, frame, proposals, annotator="ann", order="time", repeat_share=0.0, is_headless=False)


class Browser:
    """What a view says, and what it is told."""

    def __init__(self, studio):
        self.studio, self.n = studio, 0

    def send(self, action, token=None, **arguments):
        self.n += 1
        token = token or self.studio.state["token"]
        content = {"view": "me", "n": self.n, "token": token, "action": action, "arguments": arguments}
        self.studio._hear(self.studio, content, [])
        return self.studio.state

    def label(self, start=50, end=57, label="consolidation"):
        self.send("start", at=start)
        self.send("end", at=end)
        self.send("label", label=label)
        return self.send("save")


@pytest.fixture
def browser(studio):
    return Browser(studio)


def test_the_window_at_hand_and_the_next_one_are_there_with_their_bars(studio, frame, proposals):
    state = studio.state
    assert list(studio.windows) == [state["window"], state["next"]["window"]] == proposals["window_id"].tolist()[:2]
    candles = studio.windows[state["window"]]
    place = int(frame.index.get_loc(proposals["window_start"][0]))
    part = frame.iloc[place + candles["first"] : place + 105]
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(candles[name], part[name])
    assert -45 <= candles["first"] <= 0 and len(candles["minute"]) == 105 - candles["first"]
    local = part.index.tz_convert("America/New_York")
    assert candles["minute"] == (local.hour * 60 + local.minute).tolist()
    assert f"{local[-105]:%a %Y-%m-%d}" in candles["title"] and f"{local[-1]:%H:%M} New York" in candles["title"]


def test_bars_before_the_window_end_where_its_segment_begins(path, tiny):
    first = tiny.hole + 3
    stamp = tiny.frame.index[first]
    row = {"window_id": "w", "symbol": "NQH4", "window_start": stamp, "expansion_start": 50, "expansion_end": 55}
    studio = label_studio(path, tiny.frame, pd.DataFrame([{**row, "label": "retracement"}]), is_headless=False)
    assert studio.windows["w"]["first"] == -3


def test_an_action_is_answered_with_what_holds(browser):
    state = browser.send("start", at=50)
    assert state["draft"]["spans"][0]["start"] == 50 and (state["view"], state["n"]) == ("me", 1)
    assert browser.send("undo")["draft"]["spans"] == []
    state = browser.send("save")
    assert "not saved: mark an expansion" in state["message"] and not state["is_error"]


def test_an_answer_is_in_the_table_and_the_window_after_the_next_is_fetched(browser, studio, path, proposals):
    ids = proposals["window_id"].tolist()
    state = browser.label()
    assert state["window"] == ids[1] and list(studio.windows) == ids[1:3]
    assert state["progress"]["n_done"] == 1
    assert load_labels(path).table["window_id"].tolist() == ids[:1]


def test_what_was_meant_for_another_window_is_not_done(browser):
    token = browser.studio.state["token"]
    window = browser.label()["window"]
    state = browser.send("start", token=token, at=12)
    assert "meant for another window" in state["message"]
    assert state["window"] == window and state["draft"]["spans"] == []


@pytest.mark.parametrize(
    "content", [{}, {"action": "start"}, {"action": "start", "arguments": {"at": None}}, {"action": "__init__"}]
)
def test_nonsense_from_the_browser_changes_nothing(browser, content):
    studio, before = browser.studio, browser.studio.state["draft"]
    studio._hear(studio, {"view": "me", "n": 1, "token": studio.state["token"], **content}, [])
    assert studio.state["is_error"] and studio.state["draft"] == before


def test_the_browser_is_told_nothing_of_repeats(path, frame, proposals):
    studio = label_studio(path, frame, proposals, order="time", repeat_share=1.0, is_headless=False)
    browser = Browser(studio)
    for _ in range(12):
        browser.label()
    assert studio.session.visit.is_repeat
    assert "repeat" not in str(studio.state) and not studio.state["is_saved"]


def test_blind_tells_the_browser_nothing_of_others(browser):
    assert browser.studio.state["others"] == []
    (other,) = browser.send("blind", is_on=False)["others"]
    assert other["by"] == "rule"


def test_a_table_that_cannot_be_written_is_said_once_the_answer_is_safe(browser, monkeypatch, path):
    from moola_lib.labels import journal

    def refuse(*_):
        raise UserError("cannot write: No space left on device")

    monkeypatch.setattr(journal, "save_labels", refuse)
    state = browser.label()
    assert state["is_error"] and "labels are safe in the journals" in state["message"]
    monkeypatch.undo()
    browser.label()
    assert load_labels(path).n_windows == 2


def test_windows_without_bars_are_left_out_and_counted(path, frame, proposals):
    part = frame.iloc[: len(frame) // 2]
    studio = label_studio(path, part, proposals, is_headless=False)
    n = int((find_places(proposals, part, segment_starts(part)) < 0).sum())
    assert 0 < n < 20 and studio.state["message"] == f"{n} windows without bars left out"
    with pytest.raises(UserError, match="none of the 20 windows lies in the bars"):
        label_studio(path, frame, proposals.assign(symbol="ES"), is_headless=False)


def test_places_are_those_of_the_training_windows(tiny):
    frame, starts = tiny.frame, segment_starts(tiny.frame)
    stamps = frame.index.union([frame.index[0] - pd.Timedelta(minutes=1)])
    windows = pd.DataFrame(
        {"window_id": [f"w{k}" for k in range(len(stamps))], "symbol": "NQH4", "window_start": stamps}
    )
    found = find_places(windows, frame, starts)
    labels = windows.assign(expansion_start=50, expansion_end=55, label="retracement")
    placed, _ = place_labels(labels, frame, starts)
    assert found[found >= 0].tolist() == placed.place.tolist() and 0 < len(placed) < len(frame) - 104


def test_proposals_of_a_file_are_asked_by_their_exact_confidence(path, frame, proposals, tmp_path):
    confidence = np.linspace(0.9, 0.4901, len(proposals))
    proposals.assign(confidence=confidence, state_probability=0.99).to_parquet(tmp_path / "found.parquet")
    studio = label_studio(path, frame, tmp_path / "found.parquet", is_headless=False)
    assert studio.state["order"] == "uncertain"
    assert studio.state["window"] == proposals["window_id"].iloc[np.abs(confidence - 0.5).argmin()]


def test_without_proposals_the_rule_proposes(path, market):
    studio = label_studio(path, market.bars, is_headless=False)
    assert studio.state["order"] == "random" and studio.state["progress"]["n_total"] > 10


def test_where_nobody_can_click_it_is_a_figure_and_a_sentence(path, frame, proposals, monkeypatch):
    figure = label_studio(path, frame, proposals, order="time")  # a test is no kernel
    assert isinstance(figure, go.Figure)
    assert "0 of 20 windows are labelled; open this in JupyterLab to label" in figure.layout.title.text
    assert list(path.parent.iterdir()) == []  # a report writes nothing
    monkeypatch.setenv("MOOLA_HEADLESS", "1")
    monkeypatch.setattr(module, "get_ipython", lambda: type("Shell", (), {"kernel": None})())
    assert isinstance(label_studio(path, frame, proposals), go.Figure)
    monkeypatch.delenv("MOOLA_HEADLESS")
    assert "open this notebook in JupyterLab" in repr(label_studio(path, frame, proposals))


def test_what_cannot_be_labelled_is_refused(path, frame, tmp_path):
    with pytest.raises(UserError, match="does not exist; give the proposals of moola predict"):
        label_studio(path, frame, tmp_path / "no.parquet")
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        label_studio(path, frame, tmp_path / "bad.parquet")
    with pytest.raises(UserError, match="there is no order 'best'"):
        label_studio(path, frame, order="best", is_headless=False)


def test_a_table_that_exists_is_gone_on_with(path, frame, proposals):
    save_labels(proposals.iloc[:3].assign(annotator="carol", source="by hand"), path)
    studio = label_studio(path, frame, proposals, order="time", is_headless=False)
    assert studio.state["window"] == proposals["window_id"][3] and studio.state["progress"]["n_done"] == 3


def draw_actions(rng, n):
    """Random actions as both sides take them: name and arguments."""

    def bar():
        return rng.randrange(-10, 115)

    makers = [
        lambda: ("start", {"at": bar()}), lambda: ("end", {"at": bar()}), lambda: ("unsure", {"at": bar()}),
        lambda: ("span", {"start": bar(), "end": bar()}), lambda: ("nudge", {"by": rng.randrange(-9, 10)}),
        lambda: ("label", {"label": rng.choice(CLASSES)}), lambda: ("none", {}), lambda: ("edge", {}),
        lambda: ("add", {}), lambda: ("choose", {}), lambda: ("remove", {}),
        lambda: (rng.choice(["start", "end"]), {"at": bar(), "index": rng.randrange(3)}),
    ]  # fmt: skip
    return [rng.choice(makers)() for _ in range(n)]


@pytest.mark.browser
def test_the_browser_edits_as_python_does():
    """Two hundred random histories, every draft on the way the same."""
    if not CHROMIUM.exists() and not os.environ.get("CI"):
        pytest.skip(f"{CHROMIUM} is missing")
    from playwright.sync_api import sync_playwright

    rng = random.Random(17)
    histories = [draw_actions(rng, 30) for _ in range(200)]
    source = base64.b64encode(Path(module.__file__).with_name("studio_drafts.js").read_bytes()).decode()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        tab = chromium.new_page()
        drawn = tab.evaluate(
            """async ([source, histories]) => {
              const { edits } = await import(`data:text/javascript;base64,${source}`);
              const empty = { spans: [], active: 0, edge: "start", is_none: false };
              return histories.map((history) => {
                let draft = empty;
                return history.map(([name, args]) => (draft = edits[name](draft, args)));
              });
            }""",
            [source, histories],
        )
        chromium.close()
    for history, drafts in zip(histories, drawn, strict=True):
        draft = Draft()
        for (name, arguments), found in zip(history, drafts, strict=True):
            draft = edit(draft, name, **arguments)
            assert found == draft.as_dict(), (history, name)
