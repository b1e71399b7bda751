"""Files that are never half-written: atomic writes, fingerprints, folder locks."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import filelock

from moola_lib.errors import UserError


@contextlib.contextmanager
def replace_atomically(path):
    """Yield a temporary path beside `path`; rename it over `path` on success.

    Whatever happens inside the block, `path` holds either its old content or
    the complete new one.

    Parameters
    ----------
    path : str or Path
        Final place of the file. Its folder is created.

    Raises
    ------
    UserError
        The folder cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose a folder you may write to") from error
    temporary = Path(temporary)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        mode = 0o666 & ~_umask()
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_folder_atomically(path):
    """Yield a temporary folder beside `path`; rename it to `path` on success.

    Nobody sees a half-written folder. An existing one is moved aside for the
    moment between two renames: killed there, a process leaves it beside `path`
    as `.NAME.….old`, whole.

    Parameters
    ----------
    path : str or Path
        Final place of the folder. Its parent is created.

    Raises
    ------
    UserError
        The parent cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose a folder you may write to") from error
    aside = temporary.with_suffix(".old")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            path.rename(aside)
        temporary.rename(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if aside.exists() and not path.exists():
            aside.rename(path)  # the second rename failed: nothing is lost
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def _umask():
    """Return the process umask (reading it means setting it for a moment)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path, text):
    """Write `text` (UTF-8) to `path` atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    """Write `value` as indented JSON to `path` atomically.

    numpy scalars and arrays become plain numbers and lists; NaN and infinities
    become null, so that every reader can parse the file.
    """
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path):
    """Read a JSON file.

    Raises
    ------
    UserError
        The file is missing or is not valid JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); it may be truncated") from error


def plain(value):
    """Return `value` built only from JSON's types (dict, list, str, int, float, bool, None)."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalar or array, torch tensor
        return plain(value.tolist())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def fingerprint(*parts):
    """Return a 16-digit hexadecimal SHA-256 over bytes, strings and arrays.

    Parameters
    ----------
    *parts : bytes, str, Path or ndarray
        A Path stands for the content of that file; an array for its dtype,
        shape and bytes.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with open(part, "rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
        elif isinstance(part, str):
            digest.update(part.encode())
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(part.tobytes())
    return digest.hexdigest()[:16]


def check_writable(folder):
    """Make `folder` and see that a file can be written there.

    Raises
    ------
    UserError
        It cannot.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; choose a folder you may write to"
        ) from error


@contextlib.contextmanager
def lock_folder(folder):
    """Hold an exclusive lock on `folder` while the block runs.

    Raises
    ------
    UserError
        Another process holds it.
    """
    folder = Path(folder)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(f"{folder} is in use by another process; wait for it, or write somewhere else") from error
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        # While it is held, so that nobody else's is taken away; what stays in a folder that has become read-only
        # is a file that nobody holds.
        with contextlib.suppress(OSError):
            (folder / ".lock").unlink(missing_ok=True)
        lock.release()
