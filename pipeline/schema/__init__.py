"""Every table and every column, declared once.

Writers, DuckDB statements, Avro packets and the documentation all derive from here.  The science
tables carry all columns of Rubin's APDB 10.0 under their names, and ours behind them
(`Column.added`).

>>> from pipeline.schema import DIA_SOURCE
>>> DIA_SOURCE["psfFlux"].unit
'nJy'
"""

from __future__ import annotations

from pipeline.schema.campaign import (
    ALERT,
    ALERT_DELIVERY,
    CANDIDATE,
    CATALOG_VERSION,
    INJECTION,
    INJECTION_OUTCOME,
    METRIC,
    RUN,
    UNIT,
)
from pipeline.schema.catalogues import OBJECT, REFCAT, TRUTH_OBJECT, TRUTH_VISIT
from pipeline.schema.columns import BANDS, Column, Table, parse, to_numpy
from pipeline.schema.document import document as _document
from pipeline.schema.objects import (
    DIA_OBJECT,
    DIA_OBJECT_HISTORY,
    DIA_OBJECT_LAST,
    DIA_OBJECT_TO_OBJECT_MATCH,
)
from pipeline.schema.products import (
    DIFFERENCE_IMAGE,
    EXPOSURE,
    TEMPLATE,
    TEMPLATE_INPUT,
    VISIT_IMAGE,
)
from pipeline.schema.solarsystem import MPC_ORBITS, SS_EPHEMERIS, SS_OBJECT, SS_SOURCE
from pipeline.schema.sources import DIA_FORCED_SOURCE, DIA_SOURCE

__all__ = [
    "ALERT",
    "ALERT_DELIVERY",
    "BANDS",
    "CANDIDATE",
    "CATALOG_VERSION",
    "DIA_FORCED_SOURCE",
    "DIA_OBJECT",
    "DIA_OBJECT_HISTORY",
    "DIA_OBJECT_LAST",
    "DIA_OBJECT_TO_OBJECT_MATCH",
    "DIA_SOURCE",
    "DIFFERENCE_IMAGE",
    "EXPOSURE",
    "INJECTION",
    "INJECTION_OUTCOME",
    "METRIC",
    "MPC_ORBITS",
    "OBJECT",
    "REFCAT",
    "RUN",
    "SCHEMA_DIGEST",
    "SCHEMA_VERSION",
    "SS_EPHEMERIS",
    "SS_OBJECT",
    "SS_SOURCE",
    "TABLES",
    "TEMPLATE",
    "TEMPLATE_INPUT",
    "TRUTH_OBJECT",
    "TRUTH_VISIT",
    "UNIT",
    "VISIT_IMAGE",
    "Column",
    "Table",
    "document",
    "parse",
    "to_numpy",
]

SCHEMA_VERSION = 9
"""Version of these tables: one more with every change of a column, a type or a key."""

SCHEMA_DIGEST = "36a30a48a4f932e3"
"""Hash of the tables of that version; a test says what it has to be."""

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        DIA_SOURCE,
        DIA_OBJECT,
        DIA_OBJECT_HISTORY,
        DIA_OBJECT_LAST,
        DIA_FORCED_SOURCE,
        SS_OBJECT,
        SS_SOURCE,
        MPC_ORBITS,
        DIA_OBJECT_TO_OBJECT_MATCH,
        SS_EPHEMERIS,
        EXPOSURE,
        VISIT_IMAGE,
        TEMPLATE,
        TEMPLATE_INPUT,
        DIFFERENCE_IMAGE,
        CANDIDATE,
        UNIT,
        RUN,
        CATALOG_VERSION,
        METRIC,
        ALERT,
        ALERT_DELIVERY,
        INJECTION,
        INJECTION_OUTCOME,
        REFCAT,
        OBJECT,
        TRUTH_OBJECT,
        TRUTH_VISIT,
    )
}
"""All tables by name."""


def document() -> str:
    """Return Markdown that describes every column of every table (``docs/columns.md``)."""
    return _document(TABLES.values())
