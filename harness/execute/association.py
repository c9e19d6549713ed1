"""Association in the order of time, and what the object-wise stages need to know.

Each visit's key contains that of the visit before, so a change anywhere makes everything after it
stale; then the catalogue-level tables are emptied and made again from the staged sources.
What forced photometry and alerts see of an object is the version that was current at their
visit: nothing of the future leaks into them, except for the precovery that an object gets when
it is born.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.execute.book import Book
from harness.execute.keys import difference_of, stage_key
from harness.execute.orders import AlertOrder, ForcedOrder, StageKey
from harness.hashes import combine, table_hash
from harness.ledger import DONE, Measure, StageRecord, measuring, now_mjd_tai
from harness.plan import Frame, TemplatePlan, Unit
from pipeline import diaobject, io
from pipeline.diaobject.neighbours import nearest_objects
from pipeline.schema import DIA_OBJECT, DIA_OBJECT_LAST, DIA_SOURCE, to_numpy

__all__ = ["Association"]

_TABLES = (
    "DiaSource",
    "DiaObject",
    "DiaObjectHistory",
    "DiaObjectLast",
    "DiaObject_To_Object_Match",
    "SSSource",
)
_MARGIN_DEG = 0.01


class Association:
    """The object tables of a campaign.

    Parameters
    ----------
    book : Book
        Catalogue, settings and folder.
    frames : mapping of Unit to Frame
        Frames of the campaign.
    plans : sequence of TemplatePlan
        Templates of the science units.
    cards : mapping
        Provenance of the run.
    """

    def __init__(
        self,
        book: Book,
        frames: Mapping[Unit, Frame],
        plans: Sequence[TemplatePlan],
        cards: Mapping[str, str],
    ) -> None:
        self.book, self.cards = book, cards
        self.templates = {unit: plan.name for plan in plans for unit in plan.serves}
        self.frames = frames
        self.units: dict[int, list[Unit]] = defaultdict(list)
        for unit in sorted(self.templates, key=lambda u: (frames[u].mjd, u)):
            if book.status(*unit, "diasource") == DONE:
                self.units[unit[0]].append(unit)
        self.visits = list(self.units)
        self._keys = self._chain()
        self._ephemeris = _optional(book.space.ephemerides)
        self._objects = _optional(book.space.objects)

    def _chain(self) -> dict[int, StageKey]:
        """Key of every visit; each contains the one before."""
        of, space = self.book.hashes.of, self.book.space
        previous = combine([of(space.ephemerides), of(space.objects)])
        keys = {}
        for visit, units in self.units.items():
            staged = [of(space.staging("DiaSource", *unit)) for unit in units]
            previous = combine([previous, *staged])
            keys[visit] = stage_key(self.book.settings, "diaobject", previous)
        return keys

    def pending(self) -> list[tuple[int, str]]:
        """Visits to associate, in order, each with the reason."""
        for i, visit in enumerate(self.visits):
            reason = self._stale(visit)
            if reason:
                later = [(v, "follows a visit that is done again") for v in self.visits[i + 1 :]]
                return [(visit, reason), *later]
        return []

    def _stale(self, visit: int) -> str:
        for unit in self.units[visit]:
            row = self.book.recorded(*unit, "diaobject")
            if row is None:
                return "new"
            stale = difference_of(self._keys[visit], row, self.book.memory, self.book.settings)
            if stale or row["status"] != DONE:
                return stale or "failed before"
        return ""

    def reset(self, pending: Collection[int]) -> None:
        """Empty the tables if they hold a visit that is pending or no longer part of the plan."""
        seen = self.book.catalog.rows("SELECT DISTINCT visit FROM unit WHERE stage = 'diaobject'")
        if {row["visit"] for row in seen} <= set(self.visits) - set(pending):
            return
        with self.book.catalog.transaction():
            for table in _TABLES:
                self.book.catalog.delete(table)
            self.book.forget("diaobject")

    def associate(self, visit: int) -> list[StageRecord]:
        """Associate one visit and write what changes, in one transaction.

        Returns
        -------
        list of StageRecord
            One per detector; the time is that of the visit divided among them.
        """
        units, catalog = self.units[visit], self.book.catalog
        sources = pa.concat_tables(
            [io.read_parquet(self.book.space.staging("DiaSource", *u)) for u in units]
        ).cast(DIA_SOURCE.arrow_schema)
        with measuring() as measure:
            objects, history = self._region(sources)
            result = diaobject.run(
                sources,
                objects,
                history,
                self._ephemeris,
                self._objects,
                self.book.settings.diaobject,
                processed_mjd_tai=now_mjd_tai(),
            )
        records = [self._record(unit, measure, len(units)) for unit in units]
        with catalog.transaction():
            self._write(visit, result)
            self.book.put_within(records)
        return records

    def _record(self, unit: Unit, measure: Measure, share: int) -> StageRecord:
        key = self._keys[unit[0]]
        return StageRecord(
            *unit,
            "diaobject",
            DONE,
            wall_s=measure.wall_s / share,
            cpu_s=measure.cpu_s / share,
            peak_rss_mib=measure.peak_rss_mib,
            input_hash=key.input_hash,
            config_hash=key.config_hash,
            stage_version=key.version,
            started_mjd_tai=measure.started_mjd_tai,
        )

    def _region(self, sources: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Return the current objects round the sources, and all their sources so far."""
        if not sources.num_rows:
            return DIA_OBJECT.empty(), DIA_SOURCE.empty()
        condition, values = _box(to_numpy(sources, "ra"), to_numpy(sources, "dec"))
        objects = self.book.catalog.table("DiaObject", f"{condition} ORDER BY diaObjectId", values)
        history = self.book.catalog.table(
            "DiaSource",
            f"diaObjectId IN (SELECT diaObjectId FROM DiaObject WHERE {condition}) "
            "ORDER BY diaSourceId",
            values,
        )
        return objects, history

    def _write(self, visit: int, result: diaobject.Result) -> None:
        catalog = self.book.catalog
        catalog.replace("DiaSource", result.sources, visit=visit)
        catalog.replace_keys("DiaObject", result.objects, "diaObjectId")
        catalog.replace_keys(
            "DiaObjectLast", result.objects.select(DIA_OBJECT_LAST.names), "diaObjectId"
        )
        catalog.insert("DiaObjectHistory", result.superseded)
        catalog.delete_keys("DiaObject_To_Object_Match", result.objects, "diaObjectId")
        catalog.insert("DiaObject_To_Object_Match", result.matches)
        catalog.insert("SSSource", result.ss_sources)
        metrics = [
            {"visit": visit, "stage": "diaobject", "name": name, "value": value,
             "runId": self.cards.get("RUNID")}
            for name, value in result.metrics.items()
        ]  # fmt: skip
        catalog.delete("metric", visit=visit, stage="diaobject")
        catalog.insert_rows("metric", metrics)

    # -- what the object-wise stages see -----------------------------------------------------

    def forced_orders(self) -> list[ForcedOrder]:
        """Orders for forced photometry at every object that a unit may know."""
        versions = self._versions("diaObjectId, ra, dec, firstDiaSourceMjdTai, lastDiaSourceMjdTai")
        window = self.book.settings.diaobject.precovery_window
        orders = []
        for unit in self._all_units():
            frame = self.frames[unit]
            known = _as_of(versions, frame.mjd, window)
            objects = known.filter(self._inside(unit, known))
            difference = self.book.space.difference(*unit)
            key = combine([self.book.hashes.of(difference), table_hash(objects)])
            orders.append(
                ForcedOrder(
                    visit=unit[0],
                    detector=unit[1],
                    keys=(stage_key(self.book.settings, "forced", key),),
                    products=(self.book.space.staging("DiaForcedSource", *unit),),
                    space=self.book.space,
                    settings=self.book.settings,
                    cards=self.cards,
                    objects=objects,
                )
            )
        return orders

    def refresh_forced_means(self) -> None:
        """Recompute the columns of forced fluxes in every version of every object.

        The current version knows all forced fluxes, a former one those before the source
        that superseded it.
        """
        catalog = self.book.catalog
        forced = catalog.table("DiaForcedSource")
        current = diaobject.with_forced(
            catalog.table("DiaObject", "true ORDER BY diaObjectId"), forced
        )
        with catalog.transaction():
            catalog.replace("DiaObject", current)
            history = self._history_with_forced(forced)
            catalog.replace("DiaObjectHistory", history)

    def _history_with_forced(self, forced: pa.Table) -> pa.Table:
        """Former versions, one rank after the other, each with what was known in its time."""
        catalog = self.book.catalog
        ranked = catalog.query(
            """SELECT diaObjectId, validityStartMjdTai, rank, until FROM (
              SELECT diaObjectId, validityStartMjdTai, validityEndMjdTai,
                row_number() OVER w AS rank, lead(lastDiaSourceMjdTai) OVER w AS until
              FROM (SELECT * FROM DiaObject UNION ALL BY NAME SELECT * FROM DiaObjectHistory)
              WINDOW w AS (PARTITION BY diaObjectId ORDER BY lastDiaSourceMjdTai))
            WHERE until IS NOT NULL ORDER BY diaObjectId, rank"""
        )
        history = catalog.table(
            "DiaObjectHistory", "true ORDER BY diaObjectId, lastDiaSourceMjdTai"
        )
        rank, until = to_numpy(ranked, "rank"), to_numpy(ranked, "until")
        parts = [history.slice(0, 0)]
        for r in np.unique(rank):
            rows = np.flatnonzero(rank == r)
            limits = dict(zip(to_numpy(ranked, "diaObjectId")[rows], until[rows], strict=True))
            ids, times = to_numpy(forced, "diaObjectId"), to_numpy(forced, "midpointMjdTai")
            known = np.array(
                [t < limits.get(i, -np.inf) for i, t in zip(ids, times, strict=True)], bool
            )
            version = history.take(rows)
            parts.append(diaobject.with_forced(version, forced.filter(pa.array(known))))
        return pa.concat_tables(parts)

    def alert_orders(self) -> list[AlertOrder]:
        """Orders for the alerts of every unit, each with what was known at its visit."""
        versions = self._versions("*")
        orders = []
        for unit in self._all_units():
            tables = self._alert_tables(unit, versions)
            space = self.book.space
            files = [
                space.difference(*unit),
                space.visit_image(*unit),
                space.template(self.templates[unit]),
            ]
            content = [self.book.hashes.of(p) for p in files]
            content += [f"{name} {table_hash(table)}" for name, table in sorted(tables.items())]
            orders.append(
                AlertOrder(
                    visit=unit[0],
                    detector=unit[1],
                    keys=(stage_key(self.book.settings, "alerts", combine(content)),),
                    products=(space.alerts(*unit),),
                    space=space,
                    settings=self.book.settings,
                    cards=self.cards,
                    template_name=self.templates[unit],
                    tables=tables,
                )
            )
        return orders

    def _alert_tables(self, unit: Unit, versions: pa.Table) -> dict[str, pa.Table]:
        """Everything that may stand in the alerts of a unit, as known at its visit."""
        table, mjd = self.book.catalog.table, self.frames[unit].mjd
        sources = table("DiaSource", "visit = ? AND detector = ? ORDER BY diaSourceId", unit)
        ids = [int(i) for i in np.unique(to_numpy(sources, "diaObjectId")) if i >= 0]
        bodies = [int(i) for i in np.unique(to_numpy(sources, "ssObjectId")) if i >= 0]
        objects = _as_of(versions, mjd, 0.0)
        objects = objects.filter(pa.array(np.isin(to_numpy(objects, "diaObjectId"), ids)))
        history = table(
            "DiaSource",
            "(list_contains(?, diaObjectId) OR list_contains(?, ssObjectId)) "
            "AND midpointMjdTai < ? ORDER BY diaSourceId",
            [ids, bodies, mjd],
        )
        forced = table(
            "DiaForcedSource",
            "list_contains(?, diaObjectId) AND midpointMjdTai <= ? ORDER BY diaForcedSourceId",
            [ids, mjd],
        )
        current = diaobject.with_forced(objects.cast(DIA_OBJECT.arrow_schema), forced)
        tables = {
            "sources": sources,
            "objects": current,
            "history": history,
            "forced": forced,
            "ss_sources": self._ss_sources(to_numpy(sources, "diaSourceId")),
            "ss_history": self._ss_sources(to_numpy(history, "diaSourceId")),
        }
        if self._objects is not None:
            config = self.book.settings.diaobject
            tables["matches"] = nearest_objects(current, self._objects, config)
        return tables

    def _ss_sources(self, ids: npt.NDArray[np.int64]) -> pa.Table:
        wanted = [int(i) for i in ids]
        return self.book.catalog.table(
            "SSSource", "list_contains(?, diaSourceId) ORDER BY diaSourceId", [wanted]
        )

    def _all_units(self) -> list[Unit]:
        return [unit for units in self.units.values() for unit in units]

    def _versions(self, columns: str) -> pa.Table:
        """All versions of all objects, oldest first; named columns or ``*``."""
        return self.book.catalog.query(
            f"SELECT {columns} FROM (SELECT * FROM DiaObject UNION ALL BY NAME "
            "SELECT * FROM DiaObjectHistory) ORDER BY diaObjectId, lastDiaSourceMjdTai"
        )

    def _inside(self, unit: Unit, objects: pa.Table) -> pa.Array:
        """Which objects may lie on a unit's image: those within its circumscribed circle."""
        row = self.book.catalog.rows(
            "SELECT ra, dec, llcra, llcdec FROM visit_image WHERE visit = ? AND detector = ?", unit
        )[0]
        centre = _vector(row["ra"], row["dec"])
        reach = np.arccos(np.clip(centre @ _vector(row["llcra"], row["llcdec"]), -1, 1)) * 1.05
        vectors = _vector(to_numpy(objects, "ra"), to_numpy(objects, "dec"))
        return pa.array(np.tensordot(vectors, centre, axes=(0, 0)) >= np.cos(reach))


def _as_of(versions: pa.Table, mjd: float, window: float) -> pa.Table:
    """Version of each object at a time: the latest with a source by then, else the first one.

    Objects born more than ``window`` days later are left out.
    """
    ids = to_numpy(versions, "diaObjectId")
    if not len(ids):
        return versions
    known = to_numpy(versions, "lastDiaSourceMjdTai") <= mjd
    start = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    count = np.add.reduceat(known.astype(np.int64), start)
    rows = start + np.maximum(count - 1, 0)
    born = to_numpy(versions, "firstDiaSourceMjdTai")[rows]
    return versions.take(rows[born <= mjd + window])


def _vector(ra: npt.ArrayLike, dec: npt.ArrayLike) -> npt.NDArray[np.float64]:
    a, d = np.deg2rad(np.asarray(ra, float)), np.deg2rad(np.asarray(dec, float))
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])


def _box(ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64]) -> tuple[str, list[Any]]:
    """Write the SQL condition for the neighbourhood of sources; no limit in RA across 0 h."""
    low, high = float(dec.min()) - _MARGIN_DEG, float(dec.max()) + _MARGIN_DEG
    condition, values = "dec BETWEEN ? AND ?", [low, high]
    margin = _MARGIN_DEG / max(float(np.cos(np.deg2rad(max(abs(low), abs(high))))), 1e-6)
    if ra.max() - ra.min() < 180.0 and margin < 90.0:
        condition += " AND ra BETWEEN ? AND ?"
        values += [float(ra.min()) - margin, float(ra.max()) + margin]
    return condition, values


def _optional(path: Path) -> pa.Table | None:
    return io.read_parquet(path) if path.is_file() else None
