"""A page opened from disk in Debian's Chromium, with the network cut and every request noted."""

import contextlib
import os
import re
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def open_page(path, *, width=390, scheme="light"):
    """Yield (tab, requests, errors) with every figure drawn; skip where Chromium is missing, except in CI."""
    if not CHROMIUM.exists() and not os.environ.get("CI"):
        pytest.skip(f"{CHROMIUM} is missing")
    from playwright.sync_api import sync_playwright

    requests, errors = [], []

    def refuse(route):
        requests.append(route.request.url)
        route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        context.route(re.compile("^(?!file:|data:|blob:)"), refuse)
        tab = context.new_page()
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(Path(path).as_uri())
        tab.wait_for_function("document.documentElement.dataset.figures === 'drawn'")
        yield tab, requests, errors
        browser.close()
