"""The check of the clock by known bodies: it finds five seconds, and names TAI - UTC."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import yaml

from harness.verify.bounds import Bound, judge
from harness.verify.verdict import Verdict

CASE = Path(__file__).parents[2] / "testcases" / "ag-00-20.yaml"


@lru_cache(maxsize=1)
def check() -> dict[str, Any]:
    """The check as it is written."""
    items = yaml.safe_load(CASE.read_text(encoding="utf-8"))["items"]
    (found,) = [c for item in items for c in item["checks"] if c["id"] == "clock"]
    return dict(found)


def found(seed: int, slip: float, n: int = 30, *, ephemeris: float = 0.0) -> dict[str, Any]:
    """Ask about n main-belt bodies of SNR about 30, whose clock is wrong by so many seconds."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(25, 45, n) / 150  # arcsec/h in deg/d
    offset = rate / 24 * slip + rng.normal(0, 0.02, n) + rng.normal(0, 1, n) * ephemeris
    offset[0] += 1.5  # one of them is something else
    ss = pa.table({"diaSourceId": np.arange(n), "ephRate": rate, "ephOffsetAlongTrack": offset})
    error = np.full(n, 0.02 / 3600)
    sources = pa.table({"diaSourceId": np.arange(n), "raErr": error, "decErr": error,
                        "midpointMjdTai": np.full(n, 57070.0)})  # fmt: skip
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("SSSource", ss)
        connection.register("DiaSource", sources)
        (row,) = connection.sql(check()["sql"]["value"]).to_arrow_table().to_pylist()
    return dict(row)


def verdict(row: dict[str, Any]) -> Verdict:
    """What the check makes of it."""
    asked = check()
    limit, room = Bound.parse(asked["bound"]), float(asked["tolerance"])
    return judge(row["excess_s"], limit, stderr=row["error_s"], tolerance=room)[0]


@pytest.mark.parametrize("slip", [5.0, -5.0])
def test_five_seconds_are_found_on_thirty_bodies(slip: float) -> None:
    for seed in range(20):
        row = found(seed, slip)
        assert row["slip_s"] == pytest.approx(slip, abs=4 * row["error_s"])
        assert row["reading"] == "not TAI - UTC"
        assert row["bodies"] == 29
        assert verdict(row) is Verdict.FAIL


def test_a_good_clock_is_left_alone() -> None:
    for seed in range(10):
        row = found(seed, 0.0)
        assert row["reading"] == "right"
        assert verdict(row) is Verdict.PASS
        assert verdict(found(seed, 0.0, ephemeris=0.2)) in (Verdict.PASS, Verdict.NOT_RUN)


def test_bodies_that_cannot_tell_five_seconds_prove_nothing() -> None:
    """Of those samples that are judged at all, 95 % find five seconds."""
    rows = [found(seed, 5.0, n=n) for seed in range(10) for n in (6, 14, 20)]
    verdicts = [verdict(row) for row in rows]
    told = [v for v, row in zip(verdicts, rows, strict=True) if 3 * row["error_s"] <= 2.6]

    assert {verdict(found(seed, 0.0, n=3)) for seed in range(4)} == {Verdict.NOT_RUN}
    assert len(told) > 15
    assert told.count(Verdict.FAIL) / len(told) > 0.95
    assert Verdict.PASS not in verdicts


@pytest.mark.parametrize(
    ("slip", "reading"), [(35.0, "UTC taken for TAI"), (-35.0, "TAI - UTC added twice")]
)
def test_tai_and_utc_are_named(slip: float, reading: str) -> None:
    row = found(1, slip)
    assert row["reading"] == reading
    assert verdict(row) is Verdict.FAIL
