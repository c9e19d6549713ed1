"""Versions of objects: what was known of each at a given time.

``DiaObject`` holds the current version of every object, ``DiaObjectHistory`` the former ones.  What
forced photometry and alerts see of an object is the version that was current at their visit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from harness.catalog import Catalog
from pipeline import diaobject
from pipeline.schema import DIA_OBJECT, to_numpy

__all__ = ["as_of", "forced_means_missing", "refresh_forced_means"]

_KEY = "diaObjectId, lastDiaSourceMjdTai"
_PLACE = f"{_KEY}, firstDiaSourceMjdTai, ra, dec"
_OBJECTS_AT_A_TIME = 2000
_RANKED = """WITH versions AS (
  SELECT * FROM DiaObject WHERE diaObjectId BETWEEN ? AND ? UNION ALL BY NAME
  SELECT * FROM DiaObjectHistory WHERE diaObjectId BETWEEN ? AND ?),
ranked AS (SELECT *,
  row_number() OVER (ORDER BY diaObjectId, lastDiaSourceMjdTai) AS version,
  coalesce(lead(lastDiaSourceMjdTai) OVER (
    PARTITION BY diaObjectId ORDER BY lastDiaSourceMjdTai), 'infinity'::DOUBLE) AS until
  FROM versions)"""
_KNOWN = """SELECT version AS diaObjectId, band, psfFlux, psfFluxErr
FROM ranked JOIN DiaForcedSource forced
  ON forced.diaObjectId = ranked.diaObjectId AND forced.midpointMjdTai < ranked.until
ORDER BY version, diaForcedSourceId"""


def as_of(
    catalog: Catalog,
    mjd: float,
    columns: str,
    condition: str,
    values: Sequence[float],
    window: float = 0.0,
) -> pa.Table:
    """Version of each object at a time: the latest with a source by then, else the first one.

    Parameters
    ----------
    catalog : Catalog
        With the object tables.
    mjd : float, d
        The time, TAI.
    columns : str
        Columns of ``DiaObject``, or ``*``.
    condition : str
        Objects of which a version fulfils this SQL condition on id and place are meant.
    values : sequence
        Values of its ``?``.
    window : float, d
        Objects born later than this after the time are left out.

    Returns
    -------
    pyarrow.Table
        One row per object, ordered by ``diaObjectId``.
    """
    return catalog.query(
        f"""WITH versions AS (
          SELECT {_PLACE} FROM DiaObject UNION ALL SELECT {_PLACE} FROM DiaObjectHistory),
        known AS (SELECT * FROM (
          SELECT * FROM versions
          WHERE diaObjectId IN (SELECT diaObjectId FROM versions WHERE {condition})
          QUALIFY row_number() OVER (PARTITION BY diaObjectId ORDER BY
            lastDiaSourceMjdTai <= ? DESC, abs(lastDiaSourceMjdTai - ?)) = 1)
          WHERE firstDiaSourceMjdTai <= ?)
        SELECT {columns} FROM DiaObject SEMI JOIN known USING ({_KEY})
        UNION ALL BY NAME SELECT {columns} FROM DiaObjectHistory SEMI JOIN known USING ({_KEY})
        ORDER BY diaObjectId""",
        [*values, mjd, mjd, mjd + window],
    )


def forced_means_missing(catalog: Catalog) -> bool:
    """Whether an object has been associated since the forced fluxes were averaged.

    Parameters
    ----------
    catalog : Catalog
        The catalogue.

    Returns
    -------
    bool
        True when `refresh_forced_means` has something to do.
    """
    missing = "SELECT count(*) FROM DiaObject WHERE g_fpFluxNdata IS NULL"
    return bool(catalog.value(missing))


def refresh_forced_means(catalog: Catalog) -> None:
    """Recompute the columns of forced fluxes in every version of every object.

    The current version knows all forced fluxes, a former one those before the source that
    superseded it.  A limited number of objects is held at a time.

    Parameters
    ----------
    catalog : Catalog
        The catalogue, open for writing.
    """
    with catalog.transaction():
        for span in _spans(catalog):
            versions = catalog.query(f"{_RANKED} SELECT * FROM ranked ORDER BY version", span * 2)
            known = catalog.query(f"{_RANKED} {_KNOWN}", span * 2)
            updated = _with_forced(versions, known)
            current = np.isinf(to_numpy(versions, "until"))
            for table, rows in (("DiaObject", current), ("DiaObjectHistory", ~current)):
                catalog.replace_keys(table, updated.filter(pa.array(rows)), "diaObjectId")


def _with_forced(versions: pa.Table, known: pa.Table) -> pa.Table:
    """Average by version: its number takes the place of the object's."""
    objects = versions.select(DIA_OBJECT.names).cast(DIA_OBJECT.arrow_schema)
    place = DIA_OBJECT.names.index("diaObjectId")
    numbered = objects.set_column(place, "diaObjectId", versions["version"])
    averaged = diaobject.with_forced(numbered, known)
    return averaged.set_column(place, objects.schema.field(place), objects["diaObjectId"])


def _spans(catalog: Catalog) -> Iterator[list[int]]:
    """First and last id of successive groups of objects."""
    last = -1
    while last is not None:
        first, last = (
            catalog.query(
                f"""SELECT min(diaObjectId) AS first, max(diaObjectId) AS last FROM (
              SELECT diaObjectId FROM DiaObject WHERE diaObjectId > ?
              ORDER BY diaObjectId LIMIT {_OBJECTS_AT_A_TIME})""",
                [last],
            )
            .to_pylist()[0]
            .values()
        )
        if last is not None:
            yield [first, last]
