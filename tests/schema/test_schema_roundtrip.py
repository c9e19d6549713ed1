"""Values through Arrow, Parquet, DuckDB and Avro; rules that hold for every declared column."""

from __future__ import annotations

import datetime
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import numpy as np
import pytest
from astropy import units
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import schema
from pipeline.alerts.avro import encode
from pipeline.io import read_parquet, write_parquet
from pipeline.schema import Column, Table, to_numpy

COLUMNS = [(table, column) for table in schema.TABLES.values() for column in table.columns]
TABLES = pytest.mark.parametrize("table", schema.TABLES.values(), ids=lambda t: t.name)

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "i64": st.integers(-(2**63), 2**63 - 1),
    "i32": st.integers(-(2**31), 2**31 - 1),
    "i16": st.integers(-(2**15), 2**15 - 1),
    "f64": st.floats(allow_nan=False, allow_infinity=False),
    "f32": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "bool": st.booleans(),
    "str": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    "time": st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2100, 1, 1)),
}
EVERY = Table("every", tuple(Column(f"{kind}_", kind) for kind in _VALUES), ("i64_",))
ROWS = st.lists(
    st.fixed_dictionaries({f"{kind}_": st.none() | values for kind, values in _VALUES.items()}),
    min_size=1,
    max_size=6,
)


@given(ROWS)
@settings(max_examples=60)
def test_every_value_and_every_null_survives_arrow(rows: list[dict[str, Any]]) -> None:
    table = EVERY.from_rows(rows)

    assert table.schema == EVERY.arrow_schema
    assert table.to_pylist() == rows


@given(ROWS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_and_parquet(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    table = EVERY.from_rows(rows)
    write_parquet(tmp_path / "t.parquet", table)

    assert read_parquet(tmp_path / "t.parquet").to_pylist() == rows


@given(ROWS)
@settings(max_examples=20)
def test_and_duckdb(rows: list[dict[str, Any]]) -> None:
    table = EVERY.from_rows(rows)
    with duckdb.connect() as connection:
        connection.execute(EVERY.ddl(primary_key=False))
        connection.register("rows", table)
        connection.execute("INSERT INTO every SELECT * FROM rows")
        back = connection.sql("SELECT * FROM every").to_arrow_table()

    assert back.to_pylist() == rows


@given(ROWS)
@settings(max_examples=40)
def test_and_avro(rows: list[dict[str, Any]]) -> None:
    kinds = {"i64": "long", "i32": "int", "i16": "int", "f64": "double", "f32": "float",
             "bool": "boolean", "str": "string",
             "time": {"type": "long", "logicalType": "timestamp-micros"}}  # fmt: skip
    fields = [{"name": c.name, "type": ["null", kinds[c.dtype]]} for c in EVERY.columns]
    reader = fastavro.parse_schema({"type": "record", "name": "row", "fields": fields})
    data = BytesIO(encode(EVERY.from_rows(rows), EVERY.columns).data)

    back: list[Any] = [fastavro.schemaless_reader(data, reader, None) for _ in rows]

    for row in back:
        if row["time_"] is not None:
            row["time_"] = row["time_"].replace(tzinfo=None)
    assert back == rows


@given(ROWS)
@settings(max_examples=40)
def test_arrays_tell_null_from_every_number(rows: list[dict[str, Any]]) -> None:
    table = EVERY.from_rows(rows)

    for kind in ("f64", "f32"):
        missing = [row[f"{kind}_"] is None for row in rows]
        assert np.isnan(to_numpy(table, f"{kind}_")).tolist() == missing
    assert to_numpy(table, "bool_").tolist() == [bool(row["bool_"]) for row in rows]
    assert to_numpy(table, "i32_").tolist() == [
        -1 if row["i32_"] is None else row["i32_"] for row in rows
    ]


@pytest.mark.parametrize("kind", ["f64", "f32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None])
def test_what_is_no_number_is_null(kind: str, value: float | None) -> None:
    assert Column("x", kind).to_arrow([1.0, value], 2).to_pylist() == [1.0, None]
    assert Column("x", kind).to_arrow(value, 1).to_pylist() == [None]


def test_a_number_too_large_for_its_type_is_null_or_refused() -> None:
    assert Column("x", "f32").to_arrow(np.array([1e300]), 1).null_count == 1
    with pytest.raises(ValueError, match="column x"):
        Column("x", "i32").to_arrow(np.array([2**31]), 1)


@TABLES
def test_an_empty_table_goes_round(table: Table, tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", table.empty())
    back = read_parquet(tmp_path / "t.parquet")

    assert back.schema.equals(table.arrow_schema, check_metadata=False)
    assert [back.schema.field(c.name).metadata[b"unit"].decode() for c in table.columns] == [
        c.unit for c in table.columns
    ]


@TABLES
def test_keys_are_never_null(table: Table) -> None:
    assert not [k for k in table.key if table[k].nullable]


@TABLES
def test_duckdb_refuses_a_null_in_a_column_that_must_have_a_value(table: Table) -> None:
    required = [c for c in table.columns if not c.nullable]
    with duckdb.connect() as connection:
        connection.execute(table.ddl())
        described = connection.execute(f"PRAGMA table_info('{table.name}')").fetchall()

    assert [row[1] for row in described if row[3]] == [c.name for c in required]


def _pairs(suffix: str) -> list[tuple[Table, Column, Column]]:
    return [
        (table, table[column.name.removesuffix(suffix)], column)
        for table, column in COLUMNS
        if column.name.endswith(suffix) and column.name.removesuffix(suffix) in table
    ]


def test_an_error_has_the_unit_of_its_value() -> None:
    pairs = _pairs("Err")
    # Errors of angles may be smaller units, of the angle on the sky.
    wrong = [
        (table.name, error.name, value.unit, error.unit)
        for table, value, error in pairs
        if not units.Unit(error.unit).is_equivalent(units.Unit(value.unit))
    ]

    assert len(pairs) > 100
    assert not wrong


def test_a_covariance_has_the_unit_of_a_product() -> None:
    seen = 0
    for table, column in COLUMNS:
        found = re.fullmatch(r"(.+)_Cov", column.name)
        if found is None:
            continue
        names = [(found[1][:i], found[1][i + 1 :]) for i, c in enumerate(found[1]) if c == "_"]
        known = [(a, b) for a, b in names if a in table and b in table]
        for a, b in known:
            seen += 1
            product = units.Unit(table[a].unit) * units.Unit(table[b].unit)
            assert units.Unit(column.unit).is_equivalent(product), (table.name, column.name)
    assert seen > 40


def test_every_angle_and_time_says_which() -> None:
    for table, column in COLUMNS:
        if re.search(r"MjdTai$", column.name):
            assert (column.unit, column.dtype) == ("d", "f64"), (table.name, column.name)
        if column.name in ("ra", "dec"):
            assert (column.unit, column.dtype) == ("deg", "f64"), (table.name, column.name)


def test_one_name_is_one_kind_of_quantity() -> None:
    declared: dict[str, str] = {}
    for table, column in COLUMNS:
        known = declared.setdefault(column.name, column.unit)
        assert units.Unit(column.unit).is_equivalent(known), (table.name, column.name)
