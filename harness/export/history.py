"""What a campaign knew at a date of the survey, whenever it was processed.

An object's version holds from its latest source to the first one that it does not have: times of
exposures, not of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.catalog import Catalog
from harness.tasks.versions import as_of
from pipeline import diaobject
from pipeline.schema import DIA_OBJECT

__all__ = ["Known", "known_at", "versions_of"]

_COUNTS = {
    "visits": "SELECT count(DISTINCT visit) FROM visit_image WHERE midpointMjdTai <= $1",
    "differences": "SELECT count(*) FROM difference_image SEMI JOIN (SELECT visit, detector "
    "FROM visit_image WHERE midpointMjdTai <= $1) USING (visit, detector)",
    "sources": "SELECT count(*) FROM DiaSource WHERE midpointMjdTai <= $1 "
    "AND NOT coalesce(isSubThreshold, false)",
    "bodies": "SELECT count(DISTINCT ssObjectId) FROM DiaSource WHERE midpointMjdTai <= $1",
    "alerts": "SELECT count(*) FROM alert WHERE emitted AND midpointMjdTai <= $1",
}
_VERSIONS = """SELECT nDiaSources, lastDiaSourceMjdTai AS knownFromMjdTai,
  lead(lastDiaSourceMjdTai) OVER (ORDER BY nDiaSources) AS knownUntilMjdTai,
  ra, raErr, dec, decErr, pmRa, pmDec, parallax, validityStartMjdTai AS processedMjdTai
FROM (FROM DiaObject UNION ALL BY NAME FROM DiaObjectHistory) WHERE diaObjectId = ?
ORDER BY nDiaSources"""


@dataclass(frozen=True, slots=True)
class Known:
    """The state of a campaign at a date.

    Attributes
    ----------
    counts : mapping of str to int
        Rows of each kind.
    objects : pyarrow.Table
        `DIA_OBJECT`: each object as it was then, its forced fluxes of the time included.
    """

    counts: Mapping[str, int]
    objects: pa.Table


def known_at(catalog: Catalog, mjd: float) -> Known:
    """Tell what was known once the exposures up to a date had been processed.

    Parameters
    ----------
    catalog : Catalog
        The catalogue.
    mjd : float, d
        The date, MJD TAI.

    Returns
    -------
    Known
        Counts and objects.
    """
    counts = {name: int(catalog.fetch(sql, [mjd])[0][0]) for name, sql in _COUNTS.items()}
    everything = "SELECT 0 AS item, diaObjectId, ? AS mjd FROM DiaObject"
    objects = as_of(catalog, catalog.query(everything, [mjd]), DIA_OBJECT.names)
    objects = objects.drop_columns(["item"]).cast(DIA_OBJECT.arrow_schema)
    forced = catalog.table(
        "DiaForcedSource", "midpointMjdTai <= ? ORDER BY diaForcedSourceId", [mjd]
    )
    of_known = pc.is_in(forced["diaObjectId"], value_set=objects["diaObjectId"])
    counts |= {"forced sources": pc.sum(of_known).as_py() or 0, "objects": objects.num_rows}
    return Known(counts, diaobject.with_forced(objects, forced))


def versions_of(catalog: Catalog, number: int) -> list[dict[str, Any]]:
    """List the versions of an object with the time of the survey in which each held.

    Parameters
    ----------
    catalog : Catalog
        The catalogue.
    number : int
        ``diaObjectId``.

    Returns
    -------
    list of dict
        One row per version, the first one first; ``knownUntilMjdTai`` of the last is None.
    """
    return catalog.rows(_VERSIONS, [number])
