"""Tables with positions as regions of SAOImage DS9."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.system.text import one_line
from pipeline.errors import ConfigError

__all__ = ["CORNERS", "write_regions"]

_HEAD = "# Region file format: DS9 version 4.1\nglobal color=green\nicrs\n"
CORNERS = tuple(
    f"{corner}{axis}" for corner in ("llc", "lrc", "urc", "ulc") for axis in ("ra", "dec")
)
"""Columns of images: right ascension and declination of their corners in turn."""

_RADIUS = 2.0  # arcsec
_NAMES = ("diaSourceId", "diaObjectId", "objectId", "visit", "templateId")


def write_regions(table: pa.Table, path: Path) -> None:
    """Write a circle of 2 arcsec round every position, or the outline of every image.

    Rows without a position are left out.

    Parameters
    ----------
    table : pyarrow.Table
        With ``ra`` and ``dec`` in degrees, or with the corners of images.
    path : Path
        File to write.

    Raises
    ------
    ConfigError
        If the table has neither.
    """
    columns = CORNERS if set(CORNERS) <= set(table.column_names) else ("ra", "dec")
    if not set(columns) <= set(table.column_names):
        raise ConfigError(
            "has no positions for regions", path=path, expected="the columns ra and dec"
        )
    name = next((n for n in _NAMES if n in table.column_names), None)
    kept = table.select(dict.fromkeys([*columns, *([name] if name else [])]))
    with path.open("w", encoding="utf-8") as stream:
        stream.write(_HEAD)
        stream.writelines(_regions(kept, columns, name))


def _regions(table: pa.Table, columns: tuple[str, ...], name: str | None) -> Iterator[str]:
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            if all(row[c] is not None for c in columns):
                yield _region(row, columns, name)


def _region(row: Mapping[str, Any], columns: tuple[str, ...], name: str | None) -> str:
    numbers = ",".join(f"{row[c]:.7f}" for c in columns)
    shape = f"polygon({numbers})" if len(columns) > 2 else f'circle({numbers},{_RADIUS:g}")'
    words = one_line("" if name is None else row[name]).translate(str.maketrans("{}", "()"))
    return f"{shape} # text={{{words}}}\n"
