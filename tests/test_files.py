"""Files are never half-written, and JSON never crashes on numpy."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from moola_lib.errors import UserError
from moola_lib.files import (
    check_writable,
    fingerprint,
    lock_folder,
    plain,
    read_json,
    replace_atomically,
    replace_folder_atomically,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_content_and_no_debris(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replace_atomically(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_content_appears_only_when_complete(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with replace_atomically(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o400


def test_an_unwritable_place_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"), replace_atomically(tmp_path / "file" / "a.txt"):
        pass


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "deep" / "table"
    with replace_folder_atomically(folder) as temporary:
        (temporary / "a.txt").write_text("old")
        assert not folder.exists()
    assert (folder / "a.txt").read_text() == "old"
    with pytest.raises(RuntimeError), replace_folder_atomically(folder) as temporary:
        (temporary / "a.txt").write_text("half of the ne")
        raise RuntimeError
    assert (folder / "a.txt").read_text() == "old"
    with replace_folder_atomically(folder) as temporary:
        (temporary / "b.txt").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["b.txt"]
    assert list(folder.parent.iterdir()) == [folder]
    assert folder.stat().st_mode & 0o555 == folder.parent.stat().st_mode & 0o555


def test_a_folder_that_cannot_be_replaced_is_kept(tmp_path, monkeypatch):
    folder = tmp_path / "table"
    with replace_folder_atomically(folder) as temporary:
        (temporary / "a.txt").write_text("old")
    rename = Path.rename

    def fail_for_the_new(self, target):
        if self.suffix == ".partial":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(UserError, match="Input/output error"), replace_folder_atomically(folder):
        pass
    assert (folder / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_in_an_unwritable_place_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"), replace_folder_atomically(tmp_path / "file" / "table"):
        pass


def test_json_takes_numpy_and_turns_nan_to_null(tmp_path):
    value = {
        "f": np.float32(0.5),
        "i": np.int64(3),
        "b": np.bool_(True),
        "a": np.array([1.0, np.nan, np.inf]),
        "t": datetime(2024, 1, 2, tzinfo=UTC),
        "p": Path("x"),
        5: (1, {2}),
    }
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == {
        "f": 0.5,
        "i": 3,
        "b": True,
        "a": [1.0, None, None],
        "t": "2024-01-02T00:00:00+00:00",
        "p": "x",
        "5": [1, [2]],
    }


def test_plain_is_idempotent():
    value = plain({"a": np.arange(3), "b": None, "c": float("nan")})
    assert plain(value) == value == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "does not exist"), ("{", "not valid JSON"), ("", "truncated")]
)
def test_unreadable_json_is_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=sentence) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_fingerprint_sees_values_dtype_shape_and_file_content(tmp_path):
    array = np.arange(6, dtype=np.int32)
    prints = {
        fingerprint(array),
        fingerprint(array + 1),
        fingerprint(array.astype(np.int64)),
        fingerprint(array.reshape(2, 3)),
        fingerprint("a"),
    }
    assert len(prints) == 5
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in prints)
    path = tmp_path / "a"
    path.write_bytes(b"a")
    assert fingerprint(path) == fingerprint("a") == fingerprint(b"a")
    path.write_bytes(b"b")
    assert fingerprint(path) != fingerprint("a")


def test_a_folder_is_locked_once(tmp_path):
    with lock_folder(tmp_path / "run"), pytest.raises(UserError, match="in use"), lock_folder(tmp_path / "run"):
        pass
    with lock_folder(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(UserError, match=r"cannot write .*data/artifacts"):
        check_writable(tmp_path / "data" / "artifacts")
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
