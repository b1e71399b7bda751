"""Stored feature tables, for tests: what is in a folder, what its checks say, and how to spoil it."""

import json

import numpy as np

from moola_lib.runs.tables_check import verify_table


def content(folder):
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def verdicts(folder, **options):
    frame = verify_table(folder, **options)
    return dict(zip(frame["check"], frame["verdict"], strict=True))


def spoil_array(folder, name, change):
    array = np.array(np.load(folder / f"{name}.npy"))
    array = change(array)
    np.save(folder / f"{name}.npy", array)


def spoil_json(folder, name, change):
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))


def put(place, value):
    def change(array):
        array[place] = value
        return array

    return change
