"""Files and tables of two workspaces, compared by what they say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

import pyarrow as pa

from harness.catalog import Catalog
from harness.rerun.product import compare_fits
from harness.system.hashes import file_hash, is_volatile, table_hash
from harness.workspace import Workspace
from pipeline import alerts, io
from pipeline.errors import FileFormatError
from pipeline.schema import TABLES

__all__ = ["compare_catalogues", "compare_files", "link_inputs"]

_INPUTS = ("raw", "calib", "refcat", "ephemerides", "truth")
_OF_THE_RUN = ("unit", "run", "catalog_version", "injection", "injection_outcome")
_OF_THE_PLACE = ("runId", "file", "softwareVersion")


def link_inputs(space: Workspace, into: Workspace) -> None:
    """Let the inputs of a workspace be those of another one.

    Parameters
    ----------
    space, into : Workspace
        Where they are, and where they shall be seen.
    """
    for name in _INPUTS:
        there, here = space.root.resolve() / name, into.root / name
        if there.is_dir():
            if here.is_dir():
                here.rmdir()
            here.symlink_to(there)


def compare_files(old: Workspace, new: Workspace, files: Iterable[Path]) -> Iterator[str]:
    """Compare files, FITS, Parquet and alerts by their contents and others byte by byte.

    What says when a row was made does not count.

    Parameters
    ----------
    old, new : Workspace
        Both places.
    files : iterable of Path
        Files of the new one.

    Yields
    ------
    str
        One line per difference.
    """
    for path in files:
        name = path.relative_to(new.root)
        before = old.root / name
        if not before.is_file() or not path.is_file():
            yield f"{name}: is not in both"
        elif file_hash(before) != file_hash(path):
            try:
                yield from (f"{name}: {line}" for line in _contents_differ(before, path))
            except (FileFormatError, OSError, ValueError) as error:
                yield f"{name}: bytes differ, and it cannot be read: {error}"


def _contents_differ(before: Path, path: Path) -> Iterator[str]:
    """Compare two files of unequal bytes by their contents."""
    if path.suffix == ".fits":
        yield from compare_fits(before, path)
    elif path.suffix == ".parquet":
        if table_hash(io.read_parquet(before)) != table_hash(io.read_parquet(path)):
            yield "rows differ"
    elif path.suffix == ".avro":
        pairs = zip_longest(alerts.read(before), alerts.read(path))
        if any(_lasting(a) != _lasting(b) for a, b in pairs):
            yield "alerts differ"
    else:
        yield "bytes differ"


def _lasting(value: object) -> object:
    """Contents of a record as words, without the times of processing; NaN equals NaN."""
    if isinstance(value, dict):
        return {n: _lasting(v) for n, v in value.items() if not is_volatile(n)}
    if isinstance(value, list):
        return [_lasting(v) for v in value]
    return repr(value)


def compare_catalogues(old: Catalog, new: Catalog) -> Iterator[str]:
    """Compare every table, apart from what says which run made a row, and when.

    Parameters
    ----------
    old, new : Catalog
        Both catalogues.

    Yields
    ------
    str
        One line per table that differs.
    """
    for name in TABLES:
        if name not in _OF_THE_RUN:
            before, now = _rows(old, name), _rows(new, name)
            if table_hash(before) != table_hash(now):
                yield f"table {name}: {before.num_rows} rows became {now.num_rows} or differ"


def _rows(catalog: Catalog, name: str) -> pa.Table:
    table = catalog.table(name, "true ORDER BY ALL")
    kept = [c for c in table.column_names if c not in _OF_THE_PLACE and not is_volatile(c)]
    return table.select(kept).sort_by([(c, "ascending") for c in kept])
