"""Versions of objects: what was known of each at a given time.

``DiaObject`` holds the current version of every object, ``DiaObjectHistory`` the former ones.  What
forced photometry and alerts see of an object is the version that was current at their visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from harness.catalog import Catalog
from harness.ledger import Target
from pipeline import diaobject
from pipeline.schema import BANDS, to_numpy

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
_VERSIONS = f"""WITH versions AS (
  SELECT {_KEY}, lastDiaSourceMjdTai, true AS current, place FROM {{batch}}
  UNION ALL SELECT {_KEY}, lastDiaSourceMjdTai, false, rowid
    FROM DiaObjectHistory SEMI JOIN {{batch}} USING (diaObjectId))
SELECT row_number() OVER (ORDER BY {_KEY}) AS version, diaObjectId, current, place AS rowid,
  coalesce(lead(lastDiaSourceMjdTai) OVER (
    PARTITION BY diaObjectId ORDER BY nDiaSources), 'infinity'::DOUBLE) AS until
FROM versions ORDER BY version"""
_FLUXES = """SELECT version AS diaObjectId, band, psfFlux, psfFluxErr
FROM {batch} v JOIN DiaForcedSource f
  ON f.diaObjectId = v.diaObjectId AND f.midpointMjdTai < v.until
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
    marked = f"""SELECT {_KEY}, lastDiaSourceMjdTai, rowid AS place FROM DiaObject
      WHERE {_MARK} IS NULL ORDER BY diaObjectId"""
    with catalog.transaction():
        objects = catalog.query(marked)
        for start in range(0, objects.num_rows, _OBJECTS_AT_A_TIME):
            some = objects.slice(start, _OBJECTS_AT_A_TIME)
            versions = catalog.query_with(some, _VERSIONS)
            means = _means(versions, catalog.query_with(versions, _FLUXES))
            for table, current in (("DiaObject", True), ("DiaObjectHistory", False)):
                _update(catalog, table, means.filter(pc.equal(versions["current"], current)))


def _means(versions: pa.Table, fluxes: pa.Table) -> pa.Table:
    """Averages by version, whose number takes the place of the object's, and its row."""
    means = diaobject.forced_means(to_numpy(versions, "version"), fluxes)
    return means.append_column("rowid", versions["rowid"])


def _update(catalog: Catalog, table: str, means: pa.Table) -> None:
    """Store the averages of each band in the rows where one of them differs from what is there."""
    if not means.num_rows:
        return
    means = means.sort_by("rowid")
    names = [name for name in means.column_names if name != "rowid"]
    columns = ", ".join(f'"{name}"' for name in names)
    former = catalog.query_with(
        means.select(["rowid"]),
        f'SELECT {columns} FROM "{table}" WHERE rowid IN (FROM {{batch}}) ORDER BY rowid',
    )
    for band in BANDS:
        own = [name for name in names if name.startswith(f"{band}_")]
        changed = reduce(pc.or_, (_distinct(means[name], former[name]) for name in own))
        catalog.update(table, means.select([*own, "rowid"]).filter(changed), "rowid")


def _distinct(a: pa.ChunkedArray, b: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether values differ, NULL from a value as well."""
    return pc.fill_null(pc.not_equal(a, b), pc.xor(pc.is_null(a), pc.is_null(b)))
