"""The check of the clock by known bodies: it finds five seconds, and names TAI - UTC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import yaml

CASE = Path(__file__).parents[2] / "testcases" / "ag-00-20.yaml"


def question() -> str:
    """The query of the check."""
    items = yaml.safe_load(CASE.read_text(encoding="utf-8"))["items"]
    (check,) = [c for item in items for c in item["checks"] if c["id"] == "clock-offset"]
    return str(check["sql"]["rows"])


def found(seed: int, slip: float, n: int = 30, *, ephemeris: float = 0.0) -> list[dict[str, Any]]:
    """Ask about n main-belt bodies of SNR about 30, whose clock is wrong by so many seconds."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(25, 45, n) / 150  # arcsec/h in deg/d
    offset = rate / 24 * slip + rng.normal(0, 0.02, n) + rng.normal(0, 1, n) * ephemeris
    offset[0] += 1.5  # one of them is something else
    ss = pa.table({"diaSourceId": np.arange(n), "ephRate": rate, "ephOffsetAlongTrack": offset})
    error = np.full(n, 0.02 / 3600)
    sources = pa.table({"diaSourceId": np.arange(n), "raErr": error, "decErr": error,
                        "midpointMjdTai": np.full(n, 57070.0)})  # fmt: skip
    with duckdb.connect() as connection:
        connection.register("SSSource", ss)
        connection.register("DiaSource", sources)
        rows: list[dict[str, Any]] = connection.sql(question()).to_arrow_table().to_pylist()
    return rows


@pytest.mark.parametrize("slip", [5.0, -5.0])
def test_five_seconds_are_found_on_thirty_bodies(slip: float) -> None:
    for seed in range(20):
        (row,) = found(seed, slip)
        assert row["slip_s"] == pytest.approx(slip, abs=4 * row["error_s"])
        assert row["reading"] == "not TAI - UTC"
        assert row["bodies"] == 29


def test_a_good_clock_is_left_alone() -> None:
    assert not any(found(seed, 0.0) for seed in range(40))
    assert not any(found(seed, 0.0, ephemeris=0.2) for seed in range(40))


@pytest.mark.parametrize(
    ("slip", "reading"), [(35.0, "UTC taken for TAI"), (-35.0, "TAI - UTC added twice")]
)
def test_tai_and_utc_are_named(slip: float, reading: str) -> None:
    assert found(1, slip)[0]["reading"] == reading
