"""Two sets of alerts compared: which only one has, and what the others differ in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from harness.alerts.entries import read_alerts
from harness.system.hashes import is_volatile
from pipeline.errors import FileFormatError

__all__ = ["alert_differences"]

_T = TypeVar("_T")
_RUN = ("runId", "softwareVersion")


def alert_differences(
    before: Sequence[Path], after: Sequence[Path], *, everything: bool = False
) -> Iterator[dict[str, object]]:
    """Compare alerts by the number of their source; NaN equals NaN.

    Parameters
    ----------
    before, after : sequence of Path
        Alert files.
    everything : bool
        Whether times of processing and names of runs count as well.

    Yields
    ------
    dict
        ``diaSourceId``, ``field``, ``before`` and ``after``: one row per field that differs, and
        one with the field ``alert`` for an alert that only one side has.

    Raises
    ------
    FileFormatError
        If a file cannot be read, or has one alert twice.
    """
    digest = [_collect(files, lambda w: _digest(w, everything)) for files in (before, after)]
    differing = {
        n for n in digest[0].keys() | digest[1].keys() if len({d.get(n) for d in digest}) > 1
    }
    words = [_collect(files, dict, differing) for files in (before, after)]
    for number in sorted(differing):
        old, new = (side.get(number) for side in words)
        if old is None or new is None:
            yield _row(number, "alert", *("absent" if w is None else "present" for w in (old, new)))
            continue
        for field in dict.fromkeys([*old, *new]):
            a, b = old.get(field, "absent"), new.get(field, "absent")
            if a != b and (everything or not _passing(field)):
                yield _row(number, field, a, b)


def _row(number: int, field: str, before: str, after: str) -> dict[str, object]:
    return {"diaSourceId": number, "field": field, "before": before, "after": after}


def _collect(
    files: Sequence[Path],
    make: Callable[[Mapping[str, str]], _T],
    wanted: set[int] | None = None,
) -> dict[int, _T]:
    """Make something of the words of each alert, by its number; packets are not kept."""
    found: dict[int, _T] = {}
    for path in files:
        for packet in read_alerts([path]):
            number = int(packet["diaSourceId"])
            if wanted is not None and number not in wanted:
                continue
            if number in found:
                raise FileFormatError(f"holds alert {number} a second time", path=path)
            found[number] = make(dict(_words(packet, "")))
    return found


def _words(value: object, name: str) -> Iterator[tuple[str, str]]:
    """Name and word of every field; bytes are told by their hash."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _words(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield f"{name}.length", str(len(value))
        for i, inner in enumerate(value):
            yield from _words(inner, f"{name}[{i}]")
    elif isinstance(value, bytes):
        yield name, f"{len(value)} bytes, SHA-256 {hashlib.sha256(value).hexdigest()[:16]}"
    else:
        yield name, repr(value)


def _digest(words: Mapping[str, str], everything: bool) -> bytes:
    digest = hashlib.sha256()
    for field, word in words.items():
        if everything or not _passing(field):
            digest.update(f"{field}={word}\n".encode())
    return digest.digest()


def _passing(field: str) -> bool:
    """Whether a field says when and by which run the alert was made."""
    last = field.rpartition(".")[2]
    return is_volatile(last) or last in _RUN
