"""Versions of objects: what was known of each at a given time.

``DiaObject`` holds the current version of every object, ``DiaObjectHistory`` the former ones.  What
forced photometry and alerts see of an object is the version that was current at their visit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from harness.catalog import Catalog
from harness.ledger import Target
from pipeline import diaobject
from pipeline.schema import to_numpy

__all__ = ["as_of", "forget_forced_means", "refresh_forced_means"]

_KEY = "diaObjectId, nDiaSources"
_PLACE = f"{_KEY}, firstDiaSourceMjdTai, lastDiaSourceMjdTai, ra, dec"
_OBJECTS_AT_A_TIME = 5000
_MARK = "g_fpFluxNdata"
"""Column that is NULL where the forced fluxes have changed since they were averaged."""

_RANKED = f"""WITH versions AS (
  SELECT {_KEY}, lastDiaSourceMjdTai FROM DiaObject SEMI JOIN {{batch}} USING (diaObjectId)
  UNION ALL SELECT {_KEY}, lastDiaSourceMjdTai FROM DiaObjectHistory
    SEMI JOIN {{batch}} USING (diaObjectId)),
ranked AS (SELECT {_KEY}, row_number() OVER (ORDER BY {_KEY}) AS version,
  coalesce(lead(lastDiaSourceMjdTai) OVER (
    PARTITION BY diaObjectId ORDER BY nDiaSources), 'infinity'::DOUBLE) AS until
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
            lastDiaSourceMjdTai <= ? DESC, abs(lastDiaSourceMjdTai - ?),
            CASE WHEN lastDiaSourceMjdTai <= ? THEN -nDiaSources ELSE nDiaSources END) = 1)
          WHERE firstDiaSourceMjdTai <= ?)
        SELECT {columns} FROM DiaObject SEMI JOIN known USING ({_KEY})
        UNION ALL BY NAME SELECT {columns} FROM DiaObjectHistory SEMI JOIN known USING ({_KEY})
        ORDER BY diaObjectId""",
        [*values, mjd, mjd, mjd, mjd + window],
    )


def forget_forced_means(catalog: Catalog, target: Target) -> None:
    """Mark the objects with forced fluxes of a unit: their averages have to be made again.

    Parameters
    ----------
    catalog : Catalog
        The catalogue, within the transaction that changes these fluxes.
    target : Target
        Visit and detector.
    """
    catalog.fetch(
        f"""UPDATE DiaObject SET {_MARK} = NULL WHERE {_MARK} IS NOT NULL AND diaObjectId IN (
          SELECT diaObjectId FROM DiaForcedSource WHERE visit = ? AND detector = ?)""",
        target[:2],
    )


def refresh_forced_means(catalog: Catalog) -> None:
    """Recompute the columns of forced fluxes in every version of the objects that are marked.

    New versions are marked by lacking them.  The current version knows all forced fluxes, a
    former one those before the source that superseded it.  A limited number of objects is held at
    a time.

    Parameters
    ----------
    catalog : Catalog
        The catalogue, open for writing.
    """
    marked = f"SELECT diaObjectId FROM DiaObject WHERE {_MARK} IS NULL ORDER BY diaObjectId"
    objects = catalog.query(marked)
    if not objects.num_rows:
        return
    with catalog.transaction():
        for start in range(0, objects.num_rows, _OBJECTS_AT_A_TIME):
            some = objects.slice(start, _OBJECTS_AT_A_TIME)
            versions = catalog.query_with(some, f"{_RANKED} SELECT * FROM ranked ORDER BY version")
            known = catalog.query_with(some, f"{_RANKED} {_KNOWN}")
            means = _means(versions, known)
            current = np.isinf(to_numpy(versions, "until"))
            for table, rows in (("DiaObject", current), ("DiaObjectHistory", ~current)):
                catalog.update(table, means.filter(pa.array(rows)), "diaObjectId", "nDiaSources")


def _means(versions: pa.Table, known: pa.Table) -> pa.Table:
    """Averages by version, whose number takes the place of the object's."""
    means = diaobject.forced_means(to_numpy(versions, "version"), known)
    for name in ("diaObjectId", "nDiaSources"):
        means = means.append_column(name, versions[name])
    return means
