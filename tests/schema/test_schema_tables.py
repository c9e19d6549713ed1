"""Tables: counts of the APDB, conversion to Arrow, DuckDB statements."""

from __future__ import annotations

import hashlib
import re

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from astropy import units
from astropy.io.votable.ucd import parse_ucd

from pipeline import schema
from pipeline.schema import Column, Table, parse

APDB_COLUMNS = {
    "DiaSource": 103,
    "DiaObject": 83,
    "DiaForcedSource": 14,
    "SSObject": 80,
    "SSSource": 39,
    "mpc_orbits": 53,
    "DiaObject_To_Object_Match": 4,
    "DiaObjectLast": 10,
}


@pytest.mark.parametrize(("name", "count"), APDB_COLUMNS.items())
def test_apdb_tables_have_every_column(name: str, count: int) -> None:
    assert sum(not c.added for c in schema.TABLES[name].columns) == count


@pytest.mark.parametrize("table", schema.TABLES.values(), ids=lambda t: t.name)
def test_every_table_becomes_sql_and_arrow(table: Table) -> None:
    connection = duckdb.connect()
    connection.execute(table.ddl())
    described = connection.execute(f'SELECT * FROM "{table.name}"').description
    assert [column[0] for column in described] == list(table.names)
    assert table.empty().schema == table.arrow_schema
    assert all(c.description and not c.description.endswith(".") for c in table.columns)


def test_units_travel_in_the_metadata() -> None:
    field = schema.DIA_SOURCE.arrow_schema.field("psfFlux")
    assert field.metadata[b"unit"] == b"nJy"


SMALL = Table(
    "small", parse("a* | i64 | | | | key\nb | f32 | mag | | 0269 | value\nc | str | | | | text")
)


def test_missing_is_null_and_never_nan() -> None:
    table = SMALL.to_arrow({"a": [1, 2, 3], "b": np.array([1.5, np.nan, np.inf])}, c="x")
    assert table["b"].to_pylist() == [1.5, None, None]
    assert table["c"].to_pylist() == ["x"] * 3
    assert table["b"].type == pa.float32()
    assert SMALL.to_arrow({"a": [1]})["b"].null_count == 1


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"a": [1], "z": [1]}, "unknown"),
        ({"b": [1.0]}, "required"),
        ({"a": [1, 2], "b": [1.0]}, "lengths"),
        ({"a": [1.0, np.nan]}, "NULLs"),
        ({"a": np.array([2.0**60])}, "exact"),
        ({"a": [1.5]}, "exact"),
        ({"a": ["one"]}, "column a"),
    ],
)
def test_wrong_values_are_refused(columns: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SMALL.to_arrow(columns)


def test_large_identifiers_survive() -> None:
    value = 2**62 + 1
    assert SMALL.to_arrow({"a": np.array([value])})["a"].to_pylist() == [value]


def test_integers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="range"):
        Column("d", "i16").to_arrow(np.array([40000]), 1)


def test_rows_without_a_key_are_null_there() -> None:
    table = SMALL.from_rows([{"a": 1, "c": "x"}, {"a": 2, "b": float("nan")}])
    assert table.to_pylist() == [{"a": 1, "b": None, "c": "x"}, {"a": 2, "b": None, "c": None}]


def test_bands_are_unfolded_together() -> None:
    columns = parse("{b}_x | f32 | | | | x in {b}\n{b}_y | f32 | | | | y in {b}\nz | f32 | | | | z")
    assert [c.name for c in columns][:4] == ["u_x", "u_y", "g_x", "g_y"]
    assert columns[-1].name == "z"
    assert columns[2].description == "x in g"


def test_a_table_refuses_a_column_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        Table("t", parse("a | i64 | | | | x\na | i64 | | | | y"))


COLUMNS = [column for table in schema.TABLES.values() for column in table.columns]


def test_every_ucd_is_in_the_controlled_vocabulary() -> None:
    for ucd in {c.ucd for c in COLUMNS}:
        parse_ucd(ucd, check_controlled_vocabulary=True)


def test_every_unit_is_a_vounit() -> None:
    for unit in {c.unit for c in COLUMNS} - {"electron"}:  # which the standard does not know
        units.Unit(unit, format="vounit")


def test_fluxes_are_in_nanojansky() -> None:
    fluxes = [c for c in COLUMNS if re.search(r"Flux(Err|Mean|MeanErr|Min|Max)?$", c.name)]
    assert len(fluxes) > 100
    assert {c.unit for c in fluxes} == {"nJy"}


def test_a_changed_schema_has_a_new_version() -> None:
    lines = [
        f"{t.name} {t.key} {[(c.name, c.dtype, c.nullable) for c in t.columns]}"
        for t in sorted(schema.TABLES.values(), key=lambda t: t.name)
    ]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    known = {2: "e1537ed2759c09e1", 3: "409135f914c76cf4"}
    assert known.get(schema.SCHEMA_VERSION) == digest, (
        "columns, types or keys have changed: add one to SCHEMA_VERSION and its digest here"
    )
