"""The label studio in a real JupyterLab: keys, mouse and touch, a kernel killed in the middle, themes and sizes."""

import os
import signal
from pathlib import Path

import pytest
from lab import complaints_of_axe, open_lab

from moola_lib.labels import load_labels, read_journals
from moola_lib.market import save_bars
from moola_lib.runs.labelling import open_studio

pytestmark = [pytest.mark.slow, pytest.mark.browser]
CANVAS = ".moola-studio canvas"
SHOTS = os.environ.get("MOOLA_SHOTS")  # a folder for pictures to look at


@pytest.fixture
def folder(tmp_path, market):
    """A folder with bars, and the notebook of `moola label` without its text."""
    save_bars(market.bars, tmp_path / "bars.parquet")
    table = tmp_path / "labels.parquet"
    open_studio(table, bars=tmp_path / "bars.parquet", annotator="ann", launch=lambda command: 0)
    return tmp_path


def open_cell(tab, labelled=0):
    """Run the notebook's code cell until the studio answers with so many windows labelled."""
    prompt = tab.locator(".jp-CodeCell .jp-InputPrompt").first
    is_there = f"document.querySelector('.moola-studio .pace')?.textContent.startsWith('{labelled} of')"
    is_there += " && !document.querySelector('.moola-studio .alarm')"
    accept = tab.locator(".jp-Dialog .jp-mod-accept")
    for _ in range(30):  # keys pressed before the kernel is connected are lost
        if accept.count():
            print(tab.locator(".jp-Dialog").inner_text())
            accept.first.click()
        tab.locator(".jp-CodeCell .cm-content").first.click()
        tab.keyboard.press("Control+Enter")
        for _ in range(10):
            tab.wait_for_timeout(500)
            if prompt.inner_text().strip() not in ("[ ]:", "[*]:") and tab.evaluate(is_there):
                return tab.locator(CANVAS).focus()
    raise AssertionError("the studio did not open")


def picture(tab, name):
    if SHOTS:
        tab.wait_for_timeout(700)
        tab.screenshot(path=Path(SHOTS) / f"{name}.png")


def title(tab):
    return tab.locator(".moola-studio .title").inner_text()


def spoken(tab):
    return tab.locator(".moola-studio .spoken").inner_text()


def press(tab, *keys):
    for key in keys:
        tab.keyboard.press(key)


def at(tab, bar, height=0.5):
    """The point of a bar on the canvas."""
    box = tab.locator(CANVAS).bounding_box()
    first = tab.evaluate("Number(document.querySelector('.moola-studio canvas').dataset.first)")
    step = (box["width"] - 6 - 66) / (105 - first)
    return box["x"] + 6 + (bar - first + 0.5) * step, box["y"] + height * box["height"]


def drag(tab, start, end):
    tab.mouse.move(*at(tab, start))
    tab.mouse.down()
    tab.mouse.move(*at(tab, (start + end) / 2))
    tab.mouse.move(*at(tab, end))
    tab.mouse.up()


def n_labelled(tab):
    return int(tab.locator(".moola-studio .pace").inner_text().split()[0])


def save(tab):
    """Press Enter and wait until the kernel has answered; return how many are labelled."""
    count = n_labelled(tab) + 1
    press(tab, "Enter")
    tab.wait_for_function(f"document.querySelector('.moola-studio .pace').textContent.startsWith('{count} of')")
    return n_labelled(tab)


def saved(folder):
    """What the parquet holds: spans and states, in the order of labelling."""
    table = load_labels(folder / "labels.parquet").table.sort_values(["labelled_at", "expansion_start"])
    spans = table[["expansion_start", "expansion_end"]].astype(object).where(table["expansion_start"].notna(), None)
    return [(*span, label) for span, label in zip(spans.to_numpy().tolist(), table["label"], strict=True)]


def kill_kernel(tab):
    """Kill the kernel as the machine would: by SIGKILL, with its children."""
    children = Path("/proc/self/task").glob("*/children")
    labs = [int(pid) for each in children for pid in each.read_text().split()]
    killed = 0
    for lab in labs:
        for each in Path(f"/proc/{lab}/task").glob("*/children"):
            for pid in map(int, each.read_text().split()):
                if b"ipykernel" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    assert killed == 1


def test_five_windows_by_key_and_mouse_and_a_kernel_killed_in_the_middle(folder, capsys):
    with open_lab(folder, "labels.ipynb") as (tab, requests, errors):
        open_cell(tab)
        picture(tab, "empty")

        tab.mouse.move(*at(tab, 50))
        press(tab, "s", *["ArrowRight"] * 6, "e", "2")
        assert spoken(tab) == "retracement, start 50, end 56"
        press(tab, "Shift+ArrowRight", "u", "u", "r")
        assert save(tab) == 1  # 50..56: the nudge and the state were undone, the state was done again

        drag(tab, 60, 40)
        press(tab, "1")
        assert spoken(tab) == "consolidation, start 40, end 60"
        drag(tab, 60.5, 65.5)  # its edge, which lies between two bars
        assert spoken(tab) == "consolidation, start 40, end 65"
        press(tab, "u")
        assert save(tab) == 2

        press(tab, "x")
        assert spoken(tab) == "No expansion"
        assert save(tab) == 3

        tab.mouse.move(*at(tab, 33))
        press(tab, "s", "ArrowRight", "ArrowRight", "e", "1", "ArrowRight", "?", "m")
        drag(tab, 70, 74)
        press(tab, "2")
        assert spoken(tab) == "consolidation, start 33, end 35 (35 to 36); retracement, start 70, end 74"
        picture(tab, "two")

        kill_kernel(tab)  # nothing of the last window is saved but its journal
        press(tab, "t")
        tab.wait_for_function(
            "document.querySelector('.moola-studio .message').classList.contains('alarm')", timeout=20_000
        )
        picture(tab, "killed")
        assert load_labels(folder / "labels.parquet").n_windows == 3
        tab.locator(".jp-Dialog .jp-mod-accept").click()  # "the kernel appears to have died, it will restart"
        open_cell(tab, labelled=3)
        assert spoken(tab) == "consolidation, start 33, end 35 (35 to 36); retracement, start 70, end 74"
        assert save(tab) == 4

        tab.mouse.move(*at(tab, 104))
        press(tab, "e")
        tab.mouse.move(*at(tab, 0))
        press(tab, "s", "1")
        assert spoken(tab) == "consolidation, start 0, end 104"
        assert save(tab) == 5
        press(tab, "Backspace")
        tab.wait_for_function("document.querySelector('.moola-studio .title').textContent.endsWith('· saved')")
        picture(tab, "back")
        assert tab.locator(".jp-Notebook .jp-Cell").count() == 2  # X cut no cell, M made no markdown
        spent = tab.evaluate("performance.getEntriesByType('measure').map(each => [each.name, each.duration])")
    rows = saved(folder)
    assert rows == [
        (50, 56, "retracement"), (40, 60, "consolidation"), (None, None, "none"), (33, 35, "consolidation"),
        (70, 74, "retracement"), (0, 104, "consolidation"),
    ]  # fmt: skip
    table = load_labels(folder / "labels.parquet").table
    assert table["window_id"].nunique() == 5 and table["window_id"].duplicated().sum() == 1
    assert set(table["annotator"]) == {"ann"} and set(table["mode"]) == {"blind"} and (table["seconds"] > 0).all()
    assert len({event["pid"] for event in read_journals(folder / "labels.parquet") if event["action"] == "open"}) == 2
    assert requests == [] and [each for each in errors if not is_labs_own(each)] == []
    with capsys.disabled():
        for name in sorted({name for name, _ in spent if name.startswith("studio")}):
            times = sorted(duration for each, duration in spent if each == name)
            print(
                f"\n{name}: median {times[len(times) // 2]:.0f} ms, worst {times[-1]:.0f} ms of {len(times)}", end=" "
            )


def is_labs_own(text):
    """Whether an error of the console is JupyterLab's own, about a kernel that was killed or a tab that was closed."""
    return any(word in text for word in ("Kernel", "kernel", "comm", "Canceled", "WebSocket"))


def test_it_can_be_used_without_colours_and_without_a_mouse(folder):
    """axe-core finds nothing, in both themes and with the keys shown; focus goes through every control."""

    def complaints():
        return complaints_of_axe(tab, ".moola-studio")

    with open_lab(folder, "labels.ipynb") as (tab, requests, errors):
        open_cell(tab)
        press(tab, "s", *["ArrowRight"] * 6, "e", "2", "b")
        tab.wait_for_timeout(500)
        picture(tab, "light")
        assert complaints() == []
        press(tab, "h")
        assert tab.locator(".moola-studio .help li").count() > 20
        picture(tab, "keys")
        assert complaints() == []
        press(tab, "Escape")

        seen = []
        tab.locator(".moola-studio select").first.focus()
        for _ in range(40):
            name = tab.evaluate(
                "document.activeElement.closest('.moola-studio') && document.activeElement.outerHTML.slice(0, 60)"
            )
            if name is None:
                break
            seen.append(name)
            press(tab, "Tab")
        assert len(seen) == len(set(seen)) == 2 + 3 + 1 + 16  # queue, hours; blind, replay, help; candles; buttons

        choose_theme(tab, "JupyterLab Dark")
        tab.locator(CANVAS).focus()
        picture(tab, "dark")
        assert complaints() == []
    assert requests == [] and errors == []


def choose_theme(tab, name):
    tab.locator(".lm-MenuBar-item", has_text="Settings").click()
    tab.locator(".lm-Menu-item", has_text="Theme").first.hover()
    tab.locator(".lm-Menu-item", has_text=name).first.click()
    tab.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    tab.wait_for_timeout(1000)


def test_a_finger_marks_and_a_tablet_shows_all_of_it(folder):
    with open_lab(folder, "labels.ipynb") as (tab, requests, errors):
        tab.set_viewport_size({"width": 820, "height": 1180})
        open_cell(tab)
        touch = tab.context.new_cdp_session(tab)

        def move(kind, *points):
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

        move("touchStart", at(tab, 45))
        for bar in (46, 48, 52, 55):
            move("touchMove", at(tab, bar))
        move("touchEnd")
        assert spoken(tab).startswith("state not set, start 45, end 5")
        tab.locator(".moola-studio button", has_text="Consolidation").click()
        tab.locator(".moola-studio button", has_text="Save, next").click()
        tab.wait_for_function("document.querySelector('.moola-studio .pace').textContent.startsWith('1 of')")
        box = tab.locator(".moola-studio").bounding_box()
        inner = [each.bounding_box() for each in tab.locator(".moola-studio button, .moola-studio select").all()]
        assert all(box["x"] <= each["x"] and each["x"] + each["width"] <= box["x"] + box["width"] for each in inner)
        tab.locator(".jp-SideBar .lm-TabBar-tab").first.click()  # the file browser gives way to the candles
        picture(tab, "tablet")
    assert saved(folder)[0][0] == 45 and requests == [] and errors == []


def test_replay_hides_the_future_and_fast_keys_and_a_closed_tab_lose_nothing(folder):
    with open_lab(folder, "labels.ipynb") as (tab, requests, errors):
        open_cell(tab)
        press(tab, "y")
        tab.wait_for_function(
            "document.querySelector('.moola-studio .bar button[title^=\"hide the bars\"]').ariaPressed === 'true'"
        )
        assert n_drawn(tab) == n_drawn(tab)
        before = n_drawn(tab)
        press(tab, *["ArrowRight"] * 10)
        assert tab.locator(".moola-studio .readout").inner_text().startswith("bar 39 ")
        assert n_drawn(tab) > before
        picture(tab, "replay")
        press(tab, "s", "ArrowRight", "ArrowRight", "e", "1", "Enter", "s", "2")  # as fast as the machine types
        press(tab, "ArrowRight", "e", "Enter", "x", "Enter")
        tab.wait_for_function("document.querySelector('.moola-studio .pace').textContent.startsWith('3 of')")
        press(tab, "s", "ArrowRight")  # the window that the tab is closed on
        tab.wait_for_timeout(500)
        told = spoken(tab)
        assert errors == []
        tab.on("dialog", lambda dialog: dialog.accept())
        tab.reload()
        tab.wait_for_selector(".jp-CodeCell .cm-content")
        open_cell(tab, labelled=3)
        assert spoken(tab) == told != "Nothing marked"
    rows = saved(folder)
    assert [row[2] for row in rows] == ["consolidation", "retracement", "none"] and rows[0][:2] == (39, 41)
    assert requests == [] and [each for each in errors if not is_labs_own(each)] == []


def n_drawn(tab):
    """How many columns of the canvas show something blue: rising candles."""
    return tab.evaluate(
        """() => {
          const canvas = document.querySelector('.moola-studio canvas');
          const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          const columns = new Set();
          for (let k = 0; k < data.length; k += 4)
            if (data[k] < 10 && data[k + 1] === 114 && data[k + 2] === 178) columns.add((k / 4) % width);
          return columns.size;
        }"""
    )
