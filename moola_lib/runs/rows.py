"""`metrics.jsonl`: the rows that a notebook logged, whatever a kernel that was killed left between them."""

import json


def read_rows(path):
    """Return the rows of a JSON-lines file; none where it is not there.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of dict
        Lines that are no JSON object are left out: half a line of a killed kernel.
    """
    return parse_rows(path.read_bytes()) if path.exists() else []


def parse_rows(content):
    """Return the rows in the bytes of a JSON-lines file, list of dict."""
    rows = []
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
