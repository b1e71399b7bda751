"""The page of a sweep: stub."""
from moola_lib.runs.sweeps.plan import sweep_folder
from moola_lib.files import write_text
def write_report(root, state):
    path = sweep_folder(root, state["name"]) / "index.html"
    write_text(path, "x")
    return path
