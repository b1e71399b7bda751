"""A throwaway project of two small notebooks without any science, for the tests of `runs`."""

from typing import Literal

import nbformat
from pydantic import BaseModel, ConfigDict, Field


class First(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: int = Field(7, ge=0)
    n_epochs: int = Field(2, ge=1, le=50)


class Second(First):
    mode: Literal["ok", "raise", "user", "kill", "crash", "leak", "sleep", "stubborn"] = "ok"
    upstream_run: str | None = None


MODELS = {"01_first": First, "02_second": Second}

SETUP = """import os, time
from IPython.display import display
from moola_lib.errors import UserError
from moola_lib.runs.notebook import start_notebook
from toy_project import MODELS
run = start_notebook({stem!r}, globals(), model=MODELS[{stem!r}])"""

FIGURE = {
    "data": [{"type": "scatter", "x": [1, 2, 3], "y": [2, 1, 3], "name": "</script><b>line"}],
    "layout": {"title": {"text": "A figure"}, "width": 2000},
}

DANGER = """# the cell that fails
if mode == "raise":
    raise ValueError("a \\x1b[31mred\\x1b[0m <b>mistake</b>")
if mode == "user":
    raise UserError("bars.parquet does not exist")
if mode == "kill":
    os._exit(3)
if mode == "crash":
    print("the last line before the crash", flush=True)
    time.sleep(0.5)
    os.kill(os.getpid(), 11)
if mode == "leak":
    print("connecting with", os.environ["TOY_TOKEN"])
for epoch in range(1, n_epochs + 1):
    run.progress({"epoch": epoch, "n_epochs": n_epochs, "train_loss": 1 / epoch})
if mode == "stubborn":
    try:
        time.sleep(90)
    finally:
        run.folder.joinpath("stopping").write_text("x")
        time.sleep(90)
if mode == "sleep":
    try:
        time.sleep(60)
    finally:
        run.folder.joinpath("cleaned_up").write_text("x")"""

FINISH = """gates = [{"name": "finite", "kind": "health", "value": 1.0, "low": 0.9, "high": 1.1,
          "target": "1", "baseline": None, "verdict": VERDICT}]
run.finish(gates, ["All is well."], {"fingerprint": "abcdef0123456789", "is_simulated": True})"""


def notebook(*cells):
    """Return a notebook: text starting with '#' and a space is markdown, the rest code."""
    made = []
    for source in cells:
        if source.startswith(("# The", "## ")):
            made.append(nbformat.v4.new_markdown_cell(source))
        else:
            made.append(nbformat.v4.new_code_cell(source))
        if source.startswith("seed ="):
            made[-1].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel})


def build_project(root):
    """Write the project below `root`."""
    folder = root / "notebooks"
    folder.mkdir(parents=True)
    first = notebook(
        "# The first question",
        "seed = 7\nn_epochs = 2",
        SETUP.format(stem="01_first"),
        "run.folder.joinpath('table').write_text('x')",
        FINISH.replace("VERDICT", "'PASS'"),
    )
    figure = {"application/vnd.plotly.v1+json": FIGURE}
    second = notebook(
        "# The second question",
        "seed = 7\nn_epochs = 2\nmode = 'ok'\nupstream_run = None",
        SETUP.format(stem="02_second"),
        "(run.upstream('01_first') / 'table').read_text()",
        "## A figure & its sense",
        f"display({figure!r}, raw=True)",
        DANGER,
        FINISH.replace("VERDICT", "'FAIL'"),
    )
    nbformat.write(first, folder / "01_first.ipynb")
    nbformat.write(second, folder / "02_second.ipynb")
