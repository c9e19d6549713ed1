"""Orbits given as a table of the Minor Planet Center."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import FileFormatError
from pipeline.io import read_orbits
from pipeline.schema import MPC_ORBITS


def written(path: Path, **changes: list[object] | None) -> Path:
    columns = {
        "id": [3, 5, 9, 11], "packed_primary_provisional_designation": ["K04J12Q", "b", "c", "d"],
        "unpacked_primary_provisional_designation": ["2004 JQ12", "b", "2015 AA", "2015 AA"],
        "a": [2.5, 2.6, None, 9.0], "numbered": ["1", "2", "3", "4"],
    } | changes  # fmt: skip
    pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), path)
    return path


def test_bodies_asked_for_come_once_in_the_declared_columns(tmp_path: Path) -> None:
    found = read_orbits(written(tmp_path / "o.parquet"), ["2015 AA", "2004 JQ12", "2099 ZZ"])
    assert found.schema == MPC_ORBITS.arrow_schema
    assert found["id"].to_pylist() == [3, 9]
    assert found["designation"].to_pylist() == ["2004 JQ12", "2015 AA"]
    assert found["a"].to_pylist() == [2.5, None]
    assert found["e"].null_count == 2


def test_a_column_of_designations_comes_before_others(tmp_path: Path) -> None:
    path = written(tmp_path / "o.parquet", designation=["w", "x", "y", "z"])
    assert read_orbits(path, ["x"])["id"].to_pylist() == [5]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": None}, "id: no such column"),
        ({"unpacked_primary_provisional_designation": None}, "no such column"),
        ({"a": ["wide", "b", "c", "d"]}, "column a"),
    ],
)
def test_what_is_no_table_of_orbits_is_one_line(
    tmp_path: Path, changes: dict[str, list[object] | None], said: str
) -> None:
    path = written(tmp_path / "o.parquet", **changes)
    with pytest.raises(FileFormatError) as caught:
        read_orbits(path, ["2004 JQ12"])
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    path.write_bytes(b"no table")
    with pytest.raises(FileFormatError, match=r"o\.parquet"):
        read_orbits(path, ["2004 JQ12"])
