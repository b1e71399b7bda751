"""Take the README's pictures of the label studio, by day and by night, in a real JupyterLab.

Needs Debian's Chromium: `.venv/bin/python reports/gallery/take_label_studio.py`.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # the browser that the tests drive

from lab import open_lab  # noqa: E402
from test_widgets_studio_browser import CANVAS, choose_theme, drag, open_cell, press  # noqa: E402

from moola_lib.market import save_bars, simulate_bars  # noqa: E402
from moola_lib.runs.labelling import open_studio  # noqa: E402


def take(folder):
    """Write both pictures beside this script."""
    save_bars(simulate_bars(n_sessions=6, seed=5).bars, folder / "bars.parquet")
    open_studio(folder / "labels.parquet", bars=folder / "bars.parquet", annotator="ann", launch=lambda command: 0)
    with open_lab(folder, "labels.ipynb") as (tab, _, _):
        tab.set_viewport_size({"width": 1280, "height": 1000})
        open_cell(tab)
        drag(tab, 48, 53)
        press(tab, "2", *["ArrowRight"] * 3, "?", "b")
        tab.locator(".moola-studio .message").click()  # away from the candles
        for name, is_dark in [("label_studio", False), ("label_studio_dark", True)]:
            if is_dark:
                choose_theme(tab, "JupyterLab Dark")
            tab.locator(CANVAS).blur()
            tab.wait_for_timeout(1000)
            tab.locator(".moola-studio").screenshot(path=Path(__file__).parent / f"{name}.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        take(Path(folder))
