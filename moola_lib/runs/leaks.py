"""Keys and passwords that have leaked into what a run wrote: where, and of what kind; never the value itself."""

import html
import json
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from moola_lib.errors import UserError

# Environment variables that hold a secret, by their name.
SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?(?:_|$)", re.IGNORECASE)
LEAST_LENGTH = 8  # a shorter value stands in too many texts by chance
WITHHELD = "[withheld]"

# Keys that show by their shape. None can stand inside a longer word, or plotly's base64.
SHAPES = {
    "an AWS access key": rb"(?:AKIA|ASIA)[0-9A-Z]{16}",
    "a GitHub token": rb"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": rb"glpat-[A-Za-z0-9_-]{20,}",
    "a Hugging Face token": rb"hf_[A-Za-z]{30,}",
    "a Databento key": rb"db-[A-Za-z0-9]{29}",
    "an OpenAI or Anthropic key": rb"sk-(?=[A-Za-z_-]*[0-9])(?=[0-9a-z_-]*[A-Z])[A-Za-z0-9_-]{32,}",
    "a Google key": rb"AIza[0-9A-Za-z_-]{35}",
    "a Slack token": rb"xox[abprs]-[0-9A-Za-z-]{10,}",
    "a RunPod key": rb"rpa_[A-Z0-9]{40,}",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
    "a signed web token": rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
}  # fmt: skip
_SHAPES = {
    kind: re.compile(rb"(?<![A-Za-z0-9+/_-])(?:" + shape + rb")(?![A-Za-z0-9+/_])") for kind, shape in SHAPES.items()
}


@dataclass(frozen=True)
class Leak:
    """One kind of key in one file; `line` counts from 1, None in a binary file."""

    path: Path
    line: int | None
    kind: str

    def __str__(self):
        place = f"{self.path}, line {self.line}" if self.line else str(self.path)
        return f"{place}: {self.kind}"


def find_leaks(paths, environment=None):
    """Look for keys in files.

    Parameters
    ----------
    paths : iterable of Path
        Files, and folders with all that is below them.
    environment : dict, optional
        Whose values are looked for where the name says they are secret; default
        the process's.

    Returns
    -------
    list of Leak
        At most one a file and kind.
    """
    values = secret_values(environment)
    leaks = []
    for path in _files(paths):
        try:
            if path.stat().st_size == 0:
                continue
            with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                leaks += _search(path, content, values)
        except FileNotFoundError:
            continue  # a temporary file, gone meanwhile
    return leaks


def refuse_leaks(paths, advice):
    """Refuse files that hold a key.

    Parameters
    ----------
    paths : iterable of Path
        As of `find_leaks`.
    advice : str
        What to do, the end of the sentence.

    Raises
    ------
    UserError
        Naming the files and the kinds of key.
    """
    leaks = find_leaks(paths)
    if leaks:
        raise UserError(f"a key or password stands in {'; '.join(map(str, leaks))}; {advice}")


def secret_values(environment=None):
    """Return the values of the environment that are secret by their name: name to value."""
    environment = os.environ if environment is None else environment
    return {
        name: value
        for name, value in environment.items()
        if SECRET_NAME.search(name) and len(value) >= LEAST_LENGTH and not _is_harmless(value)
    }


def redact(content, environment=None):
    """Return text, or lists and dicts of it, without the environment's secret values and what looks like a key."""
    values = sorted(secret_values(environment).values(), key=len, reverse=True)

    def clean(item):
        if isinstance(item, dict):
            return {key: clean(value) for key, value in item.items()}
        if isinstance(item, list):
            return [clean(value) for value in item]
        if not isinstance(item, str):
            return item
        for value in values:
            item = item.replace(value, WITHHELD)
        text = item.encode("utf-8", "surrogateescape")
        for shape in _SHAPES.values():
            text = shape.sub(WITHHELD.encode(), text)
        return text.decode("utf-8", "surrogateescape")

    return clean(content)


def refuse_secret_parameters(parameters_by_stem):
    """Refuse parameters that hold a key: they would stand in the notebook, the record and the report.

    Raises
    ------
    UserError
        Naming the parameter and the kind of key, not its value.
    """
    for stem, parameters in parameters_by_stem.items():
        for name, value in parameters.items():
            if redact(plain := json.loads(json.dumps(value, default=str))) != plain:
                raise UserError(
                    f"parameter {name} of {stem} holds a key or password, which would be written into notebook and "
                    "report; leave it in the environment and read it there"
                )


def _files(paths):
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.is_file() and not each.is_symlink())
        elif path.is_file():
            yield path


def _search(path, content, values):
    """Yield the leaks in one file's bytes."""
    is_text = content.find(b"\0", 0, 8192) < 0
    for name, value in values.items():
        places = [place for spelling in _spellings(value) if (place := content.find(spelling)) >= 0]
        if places:
            yield Leak(path, _line(content, min(places)) if is_text else None, f"the value of ${name}")
    for kind, shape in _SHAPES.items() if is_text else ():
        if match := shape.search(content):
            yield Leak(path, _line(content, match.start()), kind)


def _spellings(value):
    """Return a value's bytes as they stand in text, JSON, HTML and an address."""
    texts = {value, json.dumps(value)[1:-1], html.escape(value), quote(value, safe="")}
    return {text.encode("utf-8", "surrogateescape") for text in texts}


def _line(content, place):
    return content[:place].count(b"\n") + 1


def _is_harmless(value):
    """Tell what a variable of such a name may hold besides a secret: a path, or hardly a letter."""
    return len(set(value)) < 4 or os.path.exists(value)  # noqa: PTH110 (Path.exists raises where a value is long)
