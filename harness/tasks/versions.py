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
_OBJECTS_AT_A_TIME = 5000
_MARK = "g_fpFluxNdata"
"""Column that is NULL where the forced fluxes have changed since they were averaged."""

_KNOWN_AT = f"""WITH versions AS (
  SELECT diaObjectId, lastDiaSourceMjdTai AS last, min(nDiaSources) AS fewest,
    max(nDiaSources) AS most
  FROM (SELECT {_KEY}, lastDiaSourceMjdTai FROM DiaObject
    UNION ALL SELECT {_KEY}, lastDiaSourceMjdTai FROM DiaObjectHistory)
  SEMI JOIN {{batch}} USING (diaObjectId) GROUP BY ALL),
born AS (SELECT diaObjectId, arg_min(fewest, last) AS fewest FROM versions GROUP BY ALL),
known AS (SELECT item, mjd, a.diaObjectId, coalesce(v.most, born.fewest) AS nDiaSources
  FROM {{batch}} a ASOF LEFT JOIN versions v
    ON a.diaObjectId = v.diaObjectId AND a.mjd >= v.last
  JOIN born ON born.diaObjectId = a.diaObjectId)"""
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
    catalog: Catalog, asked: pa.Table, columns: Sequence[str], window: float = 0.0
) -> pa.Table:
    """Versions of objects at times: the latest with a source by then, else the first one.

    Parameters
    ----------
    catalog : Catalog
        With the object tables.
    asked : pyarrow.Table
        Columns ``item diaObjectId mjd``: for whom, of which object, and the time, d TAI.
    columns : sequence of str
        Columns of ``DiaObject``, ``diaObjectId`` among them.
    window : float, d
        Objects born later than this after the time are left out.

    Returns
    -------
    pyarrow.Table
        ``item`` and the columns, one row per object asked for, ordered by item and object.
    """
    names = ", ".join(f'o."{name}"' for name in columns)
    known = f"o JOIN known k USING ({_KEY}) WHERE o.firstDiaSourceMjdTai <= k.mjd + ?"
    return catalog.query_with(
        asked,
        f"""{_KNOWN_AT} SELECT k.item, {names} FROM DiaObject {known}
        UNION ALL SELECT k.item, {names} FROM DiaObjectHistory {known}
        ORDER BY item, diaObjectId""",
        [window, window],
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
