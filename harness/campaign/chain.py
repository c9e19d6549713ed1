"""The chain of run records: each holds the hash of the one before, so that none can be altered.

What enters the hash of a record is what stays as it is when the run is started again: which
software, configuration and specification, when first, and the hash of the record before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.catalog import Catalog

__all__ = ["CHAINED", "last_link", "link", "unchained"]

CHAINED = (
    "runId",
    "startedMjdTai",
    "softwareVersion",
    "configHash",
    "specHash",
    "seed",
    "previousHash",
)
"""Columns of the table ``run`` that enter the hash of a record."""


def link(record: Mapping[str, object]) -> str:
    """SHA-256 of a record of a run.

    Parameters
    ----------
    record : mapping
        A row of the table ``run`` with the columns `CHAINED`.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    text = json.dumps([record[name] for name in CHAINED])
    return hashlib.sha256(text.encode()).hexdigest()


def last_link(catalog: Catalog) -> str:
    """Return the hash of the newest record of a catalogue, empty where there is none.

    Parameters
    ----------
    catalog : Catalog
        Open catalogue.

    Returns
    -------
    str
        What the next record has to hold.
    """
    rows = catalog.rows("SELECT * FROM run ORDER BY startedMjdTai DESC, runId DESC LIMIT 1")
    return link(rows[0]) if rows else ""


def unchained(records: Sequence[Mapping[str, object]]) -> list[str]:
    """List the runs whose record does not hold the hash of the one before.

    Parameters
    ----------
    records : sequence of mapping
        All rows of the table ``run`` in the order of their start.  The first ones may hold none:
        they are older than the chain.

    Returns
    -------
    list of str
        Identifiers of the runs.
    """
    broken, before, begun = [], "", False
    for record in records:
        found = record["previousHash"]
        begun = begun or found is not None
        if begun and found != before:
            broken.append(str(record["runId"]))
        before = link(record)
    return broken
