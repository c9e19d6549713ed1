"""What forced photometry and alerts may know of units, asked of the catalogue for many at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.catalog import Catalog
from harness.settings import Settings
from harness.system.hashes import Hashes
from harness.tasks import alerts, forced
from harness.tasks.fingerprints import KnownRows, fingerprint
from pipeline.schema import TABLES
from pipeline.sphere import separation

UNITS = [(visit, detector) for visit in range(1, 7) for detector in (1, 2)]
SIDE, CENTRES = 0.3, {1: 359.9, 2: 0.1}  # two detectors that overlap across 0 h


def row(table: str, **values: Any) -> dict[str, Any]:
    """One row of a table with everything that must not be missing."""
    zero = {"str": "", "bool": False}
    required = {c.name: zero.get(c.dtype, 0) for c in TABLES[table].columns if not c.nullable}
    return {**required, **values}


def mjd(visit: int) -> float:
    return 57000.0 + visit


def sources(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Sources of forty objects and of three bodies, of which a unit sees some."""
    return [
        row("DiaSource", diaSourceId=1000 * visit + 100 * detector + number, visit=visit,
            detector=detector, midpointMjdTai=mjd(visit),
            diaObjectId=number if number <= 40 else None,
            ssObjectId=number if number > 40 else None)
        for visit, detector in UNITS for number in range(1, 44) if rng.random() < 0.3
    ]  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Any]:
    """A campaign of six visits of two detectors, as far as planning asks for it."""
    rng = np.random.default_rng(3)
    seen = sources(rng)
    with Catalog(tmp_path / "planning.duckdb") as catalog:
        catalog.insert_rows("visit_image", [
            row("visit_image", visit=v, detector=d, visitImageId=f"{v}_{d}", ra=CENTRES[d],
                dec=-5.0, llcra=CENTRES[d] - SIDE / 2, llcdec=-5.0 - SIDE / 2) for v, d in UNITS
        ])  # fmt: skip
        for number in sorted({s["diaObjectId"] for s in seen if s["diaObjectId"]}):
            ra, dec = rng.uniform(-0.5, 0.5) % 360.0, rng.uniform(-5.4, -4.6)
            times = sorted({s["midpointMjdTai"] for s in seen if s["diaObjectId"] == number})
            versions = [
                row("DiaObject", diaObjectId=number, ra=ra, dec=dec + k * 1e-5, nDiaSources=k + 1,
                    firstDiaSourceMjdTai=times[0], lastDiaSourceMjdTai=time,
                    validityStartMjdTai=time)
                for k, time in enumerate(times)
            ]  # fmt: skip
            catalog.insert_rows("DiaObjectHistory", versions[:-1])
            catalog.insert_rows("DiaObject", versions[-1:])
        catalog.insert_rows("DiaSource", seen)
        catalog.insert_rows("SSSource", [
            row("SSSource", diaSourceId=s["diaSourceId"]) for s in seen if s["ssObjectId"]
        ])  # fmt: skip
        catalog.insert_rows("DiaForcedSource", [
            row("DiaForcedSource", diaForcedSourceId=100 * v + 50 * d + n, diaObjectId=n, visit=v,
                detector=d, midpointMjdTai=mjd(v)) for v, d in UNITS for n in range(1, 41)
        ])  # fmt: skip
        catalog.insert_rows("difference_image", [
            row("difference_image", visit=v, detector=d, depth5=24.0) for v, d in UNITS
        ])  # fmt: skip
        frames = {unit: SimpleNamespace(mjd=mjd(unit[0])) for unit in UNITS}
        state = SimpleNamespace(catalog=catalog, hashes=Hashes(tmp_path / "hashes.json"))
        cards = {"SOFTVER": "1"}
        yield SimpleNamespace(state=state, frames=frames, settings=Settings(), cards=cards)


def in_pieces(made: Any, context: Any, at_a_time: int) -> list[Any]:
    """What is made of all units, so many at a time."""
    starts = range(0, len(UNITS), at_a_time)
    return [one for start in starts for one in made(context, UNITS[start : start + at_a_time])]


@pytest.mark.parametrize("at_a_time", [1, 5, 12])
def test_each_unit_knows_the_objects_round_its_image_as_they_were(
    context: Any, at_a_time: int
) -> None:
    found = in_pieces(forced._known_objects, context, at_a_time)
    everything = context.state.catalog.rows(
        """SELECT diaObjectId, ra, dec, firstDiaSourceMjdTai AS first, lastDiaSourceMjdTai AS last
        FROM (SELECT * FROM DiaObject UNION ALL BY NAME SELECT * FROM DiaObjectHistory)"""
    )
    window, sizes = context.settings.diaobject.precovery_window, set()
    for (visit, detector), table in zip(UNITS, found, strict=True):
        expected = {}
        corner = CENTRES[detector] - SIDE / 2, -5.0 - SIDE / 2
        reach = 1.05 * float(separation(CENTRES[detector], -5.0, *corner))
        for number in {r["diaObjectId"] for r in everything}:
            own = sorted((r for r in everything if r["diaObjectId"] == number), key=last_of)
            known = [r for r in own if r["last"] <= mjd(visit)] or own[:1]
            inside = separation(CENTRES[detector], -5.0, known[-1]["ra"], known[-1]["dec"]) <= reach
            if inside and own[0]["first"] <= mjd(visit) + window:
                expected[number] = known[-1]["dec"]
        assert {r["diaObjectId"]: r["dec"] for r in table.to_pylist()} == expected
        sizes.add(len(expected))
    assert 0 < min(sizes) < max(sizes) < 40


def last_of(version: dict[str, Any]) -> float:
    return float(version["last"])


@pytest.mark.parametrize("at_a_time", [1, 5, 12])
def test_alerts_of_a_unit_hold_what_was_known_of_its_own_objects(
    context: Any, at_a_time: int
) -> None:
    found = in_pieces(alerts._tables, context, at_a_time)
    everything = context.state.catalog.rows("SELECT * FROM DiaSource ORDER BY diaSourceId")
    for unit, tables in zip(UNITS, found, strict=True):
        own = [s for s in everything if (s["visit"], s["detector"]) == unit]
        objects = {s["diaObjectId"] for s in own} - {None}
        bodies = {s["ssObjectId"] for s in own} - {None}
        earlier = [
            s for s in everything
            if (s["diaObjectId"] in objects or s["ssObjectId"] in bodies)
            and s["midpointMjdTai"] <= mjd(unit[0]) and s not in own
        ]  # fmt: skip
        assert ids(tables["sources"]) == [s["diaSourceId"] for s in own]
        assert ids(tables["history"]) == [s["diaSourceId"] for s in earlier]
        assert ids(tables["objects"], "diaObjectId") == sorted(objects)
        assert ids(tables["ss_sources"]) == [s["diaSourceId"] for s in own if s["ssObjectId"]]
        assert ids(tables["ss_history"]) == [s["diaSourceId"] for s in earlier if s["ssObjectId"]]
        assert set(ids(tables["forced"], "diaObjectId")) == objects
        assert max(tables["forced"]["midpointMjdTai"].to_pylist()) == mjd(unit[0])
        for table, name in (("sources", "DiaSource"), ("objects", "DiaObject")):
            assert tables[table].schema.equals(TABLES[name].arrow_schema)
        rows = tables["objects"].select(["diaObjectId", "nDiaSources"]).to_pylist()
        for version in rows:
            times = {s["midpointMjdTai"] for s in everything
                     if s["diaObjectId"] == version["diaObjectId"]}  # fmt: skip
            assert version["nDiaSources"] == sum(time <= mjd(unit[0]) for time in times)


def ids(table: Any, name: str = "diaSourceId") -> list[int]:
    return [int(value) for value in table[name].to_pylist()]


OTHER = {"str": "'x'", "bool": "NOT coalesce({0}, false)"}
"""Another value of a column, by its type; numbers grow by one."""


def test_every_value_of_a_table_counts_in_its_fingerprint(context: Any) -> None:
    catalog = context.state.catalog
    for table in alerts._READ:
        columns = TABLES[table].columns[::13]  # all of them take a minute
        found = {fingerprint(catalog, {table: ()})}
        for column in columns:
            other = OTHER.get(column.dtype, "coalesce({0}, 0) + 1").format(f'"{column.name}"')
            catalog.fetch(
                f'UPDATE "{table}" SET "{column.name}" = {other} '
                f'WHERE rowid = (SELECT max(rowid) FROM "{table}")'
            )
            found.add(fingerprint(catalog, {table: ()}))
        assert len(found) == len(columns) + 1


@pytest.mark.parametrize("task", [alerts, forced])
def test_what_is_known_of_units_is_forgotten_when_a_row_changes_comes_or_goes(
    context: Any, task: Any, tmp_path: Path
) -> None:
    def known() -> str | None:
        return KnownRows(context, "task", task._READ, ("alerts", "diaobject")).of(UNITS[0])

    def keep() -> None:
        KnownRows(context, "task", task._READ, ("alerts", "diaobject")).keep(UNITS[0], "hash")
        context.state.hashes.save()
        context.state.hashes = Hashes(tmp_path / "hashes.json")

    assert known() is None
    for table, columns in task._READ.items():
        key = columns[0] if columns else TABLES[table].columns[0].name
        new = ", ".join(f'-7 AS "{name}"' for name in {key, *TABLES[table].key})
        row = f'rowid = (SELECT max(rowid) FROM "{table}")'
        for change in (
            f'UPDATE "{table}" SET "{key}" = 77 WHERE {row}',
            f'DELETE FROM "{table}" WHERE {row}',
            f'INSERT INTO "{table}" SELECT * REPLACE ({new}) FROM "{table}" LIMIT 1',
        ):
            keep()
            assert known() == "hash"
            context.state.catalog.fetch(change)
            assert known() is None, change
    keep()
    context.frames[UNITS[0]] = SimpleNamespace(mjd=1.0)
    assert known() is None
    context.cards["SOFTVER"] = "2"
    assert known() is None
