"""Make this gallery from one finished run: its pages, and the README's picture of one.

Needs Debian's Chromium: `.venv/bin/python reports/gallery/take.py RUN`.
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from moola_lib.runs.reporting import report_run

GALLERY = Path(__file__).parent
STEM = "04_fine_tuning"
CHROMIUM = "/usr/bin/chromium"
# The picture ends below the first gate that failed.
LOWEST = "document.querySelector('.answer td[data-verdict=FAIL]').getBoundingClientRect().bottom"


def take_pages(run_id):
    """Write the run's pages and the script they share beside this script."""
    return report_run(run_id, output=GALLERY)


def take_picture():
    """Take the top of a page: the question, the findings, the gates."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.goto((GALLERY / f"{STEM}.html").as_uri())
        tab.wait_for_function("document.documentElement.dataset.figures === 'drawn'")
        height = tab.evaluate(f"Math.ceil({LOWEST}) + 120")
        tab.set_viewport_size({"width": 1280, "height": height})
        tab.screenshot(path=GALLERY / f"{STEM}.png")
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: take.py RUN")
    take_pages(sys.argv[1])
    take_picture()
