"""Reading TOML files: every mistake is one line with file, line and column."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

__all__ = ["at", "read"]

_SAID = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_HEADER = re.compile(r"\s*\[\[?\s*([^\]]*?)\s*\]")


def read(path: Path) -> tuple[dict[str, Any], str]:
    """Read a TOML file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    values : dict
        Its content.
    text : str
        As it is written.

    Raises
    ------
    ConfigError
        In one line with file, line and column.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise ConfigError(f"cannot be read: {err.strerror}", path=path) from err
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        before = data[: err.start].decode("utf-8", "replace")
        raise ConfigError("is not valid TOML: not UTF-8", path=_end(path, before)) from err
    try:
        return tomllib.loads(text), text
    except RecursionError as err:
        raise ConfigError("is not valid TOML: nested too deeply", path=f"{path}:1:1") from err
    except ValueError as err:  # a TOML error, or a number too long for Python
        said = _SAID.search(str(err))
        message = f"is not valid TOML: {_SAID.sub('', str(err))}"
        place = f"{path}:{said[1]}:{said[2]}" if said and said[1] else _end(path, text)
        raise ConfigError(message, path=place) from err


def _end(path: Path, text: str) -> str:
    return f"{path}:{text.count(chr(10)) + 1}:{len(text) - text.rfind(chr(10))}"


def at(path: Path, text: str, keys: Sequence[str]) -> str:
    """Name the place of a key in a TOML file as ``file:line:column``.

    Parameters
    ----------
    path : Path
        The file.
    text : str
        Its content.
    keys : sequence of str
        Tables from the outside in, and the key.

    Returns
    -------
    str
        The place of the key or of the innermost table that is there; the file alone if none is.
    """
    best, depth, table = "", 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = header[1].replace('"', "").replace(" ", "")
            names = table.split(".")
        else:
            key = line.partition("=")[0].strip().replace('"', "")
            names = [*filter(None, table.split(".")), *key.split(".")] if "=" in line else []
        shared = _shared(names, keys)
        if shared == len(names) and shared > depth:
            best, depth = f":{number}:{len(line) - len(line.lstrip()) + 1}", shared
    return f"{path}{best}"


def _shared(names: Sequence[str], keys: Sequence[str]) -> int:
    """Count the names with which two paths begin alike."""
    n = 0
    while n < min(len(names), len(keys)) and names[n] == keys[n]:
        n += 1
    return n
