"""What is sent to a pod as code."""

import shutil
import subprocess

import pytest

from moola_lib.runs.pods.sync import list_code

FILES = {
    "moola_lib/a.py": True, "notebooks/01_a.ipynb": True, "params/quick/01_a.yaml": True, "pyproject.toml": True,
    "constraints.txt": True, "moola_lib/__pycache__/a.pyc": False, "tests/test_a.py": False, "reports/r/x.json": False,
    "data/raw/nq.parquet": False, ".env": False, "params/.secret.yaml": False, ".venv/bin/python": False,
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """A project of all kinds of files."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_text("/data/\n/reports/\n.venv/\n__pycache__/\n")
    return tmp_path


def sent():
    return sorted(name for name, is_sent in FILES.items() if is_sent)


def test_code_is_what_git_would_take_without_tests_and_anything_hidden(root):
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run(["git", "-C", str(root), "add", "moola_lib"], check=True)
    assert list_code(root) == sent()


def test_without_git_code_is_what_the_project_is_made_of(root, monkeypatch):
    assert list_code(root) == sent()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert list_code(root) == sent()


def test_a_file_that_was_deleted_and_is_still_known_to_git_is_not_sent(root):
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run(["git", "-C", str(root), "add", "moola_lib"], check=True)
    (root / "moola_lib/a.py").unlink()
    assert "moola_lib/a.py" not in list_code(root)
