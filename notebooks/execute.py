"""Execute the notebooks in place at quick scale, in order, and strip what belongs to one machine.

They are committed executed, so that a reader on the web sees tables and
sentences and nbval has something to compare. Run it with `make notebooks`.
"""

import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
os.environ["MOOLA_HEADLESS"] = "1"  # figures in the place of widgets
KEPT_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path):
    """Run one notebook and write it back, clean."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(KEPT_METADATA)
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = shown_text(output.text)
    nbformat.write(notebook, path)


def shown_text(text):
    """Return what a terminal would show: a carriage return overwrites its line."""
    return re.sub(r"[^\n]*\r", "", text.replace("\r\n", "\n"))


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("[0-9]*.ipynb")):
        print(path.name, flush=True)
        execute(path)
