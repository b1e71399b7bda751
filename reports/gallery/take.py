"""Take the README's picture from the newest run's report of 04: one figure, the findings, the gates.

Needs Debian's Chromium: `.venv/bin/python reports/gallery/take.py`.
"""

import json
from pathlib import Path

from playwright.sync_api import sync_playwright

REPORTS = Path(__file__).parent.parent
STEM = "04_fine_tuning"
CHROMIUM = "/usr/bin/chromium"
# Keep one figure and two sections; everything else on the page is hidden.
KEEP = """() => {
  const figure = document.querySelectorAll('.figure')[1];
  const main = document.querySelector('main') || document.body;
  let section = '';
  for (const block of main.querySelectorAll(':scope *')) {
    if (block.tagName === 'H2') section = block.textContent.trim();
    const isWanted = section.startsWith('Findings') || section.startsWith('Gates');
    const isFigure = figure.contains(block) || block.contains(figure);
    const isShown = (isWanted || isFigure || block.querySelector('h2')) && !block.matches('details, nav, header');
    if (!isShown) block.style.display = 'none';
  }
}"""


def take():
    """Write the picture beside this script."""
    runs = [json.loads(path.read_text()) for path in REPORTS.glob("*/run.json")]
    newest = max((run for run in runs if STEM in run["timings"]), key=lambda run: run["started_at"])
    page_path = REPORTS / newest["run_id"] / f"{STEM}.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": 940, "height": 600}, device_scale_factor=1.25)
        tab.goto(page_path.as_uri())
        tab.wait_for_function("document.documentElement.dataset.figures === 'drawn'")
        tab.evaluate(KEEP)
        tab.screenshot(path=Path(__file__).parent / f"{STEM}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    take()
