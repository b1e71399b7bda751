"""What a run was fed: files by content, folders by what lies in them, notebooks by their cells."""

import nbformat
from toy_project import build_project

from moola_lib.runs.inputs import describe_inputs, fingerprint_notebooks


def test_files_and_folders_that_parameters_name_are_described(tmp_path):
    bars = tmp_path / "bars.csv"
    bars.write_text("one")
    parameters = {"bars": str(bars), "table": str(tmp_path), "symbol": "NQ", "seed": 7, "absent": "/nowhere/at/all"}
    parameters["transfer"] = ["NQ", str(bars)]
    before = describe_inputs(parameters)
    assert set(before) == {"bars", "table", "transfer[1]"} and before["bars"]["bytes"] == before["table"]["bytes"] == 3
    assert describe_inputs(parameters) == before
    bars.write_text("other")
    after = describe_inputs(parameters)
    assert all(after[name]["fingerprint"] != before[name]["fingerprint"] for name in before)


def test_a_notebook_is_known_by_its_cells_and_not_by_what_they_showed(tmp_path):
    build_project(tmp_path)
    path = tmp_path / "notebooks" / "01_first.ipynb"
    before = fingerprint_notebooks(tmp_path, ["01_first"])
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[3].outputs = [nbformat.v4.new_output("stream", text="shown")]
    nbformat.write(notebook, path)
    assert fingerprint_notebooks(tmp_path, ["01_first"]) == before
    notebook.cells[3].source += "\n1 + 1"
    nbformat.write(notebook, path)
    assert fingerprint_notebooks(tmp_path, ["01_first"]) != before
