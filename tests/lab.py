"""A notebook opened in a real JupyterLab in Chromium, with every other address refused and noted."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chromium import ARGUMENTS, CHROMIUM

TOKEN = "test"
START_SECONDS = 60


@contextlib.contextmanager
def open_lab(folder, name):
    """Yield (tab, requests, errors) with `folder/name` open in JupyterLab; skip where Chromium is missing."""
    if not CHROMIUM.exists() and not os.environ.get("CI"):
        pytest.skip(f"{CHROMIUM} is missing")
    from playwright.sync_api import sync_playwright

    requests, errors = [], []
    with serve_lab(folder) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.set_default_timeout(1000 * START_SECONDS)  # a busy machine is slow, not wrong

        def refuse(route):
            requests.append(route.request.url)
            route.abort()

        context.route(re.compile(rf"^(?!http://127\.0\.0\.1:{port}/|data:|blob:)"), refuse)
        tab = context.new_page()
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        # asked where the server is slow to tell its kernels, and in the way of whatever comes next
        kernels = tab.locator(".jp-Dialog:has-text('Select Kernel') .jp-mod-accept")
        tab.add_locator_handler(kernels, lambda accept: accept.click())
        tab.goto(f"http://127.0.0.1:{port}/lab/tree/{name}?token={TOKEN}")
        tab.wait_for_selector(".jp-Notebook .jp-Cell", timeout=1000 * START_SECONDS)
        yield tab, requests, errors
        browser.close()


def run_first_cell(tab):
    """Run the first cell; keys pressed before the kernel is connected are lost, so press until its prompt changes."""
    prompt = tab.locator(".jp-Notebook .jp-InputPrompt").first
    deadline = time.monotonic() + START_SECONDS
    while prompt.inner_text().strip() in ("", "[ ]:") and time.monotonic() < deadline:
        tab.locator(".jp-Notebook .cm-content").first.click()
        tab.keyboard.press("Control+Enter")
        tab.wait_for_timeout(1000)


def complaints_of_axe(tab, context):
    """Return what axe-core says of a part of the page: (rule, the nodes that break it)."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab, context=context).response["violations"]
    return [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]


@contextlib.contextmanager
def serve_lab(folder):
    """Yield the port of a JupyterLab that keeps all of its own files in `folder`."""
    own = folder / ".jupyter"
    settings = own / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    news = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(news))
    places = {
        "JUPYTER_CONFIG_DIR": own / "config",
        "JUPYTER_DATA_DIR": own / "data",
        "JUPYTER_RUNTIME_DIR": own / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": own / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": own / "workspaces",
        "IPYTHONDIR": own / "ipython",
        "PYTHONPATH": Path(__file__).parents[1],
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--notebook-dir={folder}"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
    with open(folder / "lab.log", "w") as log:
        lab = subprocess.Popen(
            command, env={**os.environ, **{k: str(v) for k, v in places.items()}}, stdout=log, stderr=log
        )
        try:
            _wait_until_open(port, lab)
            yield port
        finally:
            lab.send_signal(signal.SIGTERM)
            lab.wait(timeout=30)


def _wait_until_open(port, process):
    """Return when something listens at the port; fail when the process ends first."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise AssertionError("JupyterLab did not start; see lab.log in the test's folder")
