"""What benchmarks print, and the table that is made of it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from bench.__main__ import table
from bench.report import KEYS, reporter

FOLDER = Path(__file__).parents[2] / "bench"


@pytest.fixture
def told(capsys):
    def measure(*measured, **options):
        reporter("isr")(*measured, **options)
        return json.loads(capsys.readouterr().out)

    return measure


CASES = (
    ((1.0, 1.0), {}, True),
    ((1.1, 1.0), {}, False),
    ((0.9, 1.0), {"least": True}, False),
    ((-1.1, 1.0), {}, True),
    ((-1.1, 1.0), {"low": -1.0}, False),
    ((0.5, 1.0), {"low": -1.0, "stderr": 0.34}, False),
    ((0.5, 1.0), {"low": -1.0, "stderr": 0.33}, True),
    ((120.0, 100.0), {"least": True, "stderr": 7.0}, False),
    ((math.nan, 1.0), {}, False),
    ((1.0, None), {}, None),
    ((1.0, "within 3 errors"), {"holds": False}, False),
    ((None, None), {}, None),
)


@pytest.mark.parametrize(("measured", "options", "holds"), CASES)
def test_a_measurement_holds_within_its_bounds(told, measured, options, holds):
    value, bound = measured

    row = told("a", value, "s", bound, 7, **options)

    assert row["holds"] is holds
    assert set(KEYS) <= set(row)
    table([row])


def test_a_stage_may_be_another_and_more_may_stand_beside(told):
    row = told("a", 1.0, "s", 2, "all of them", stage="io", goal=1, ours=3.0)

    assert row["stage"] == "io"
    assert (row["population"], row["goal"], row["ours"]) == ("all of them", 1, 3)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("bench_*.py")), ids=lambda p: p.stem)
def test_every_benchmark_reports_in_this_way(path):
    text = path.read_text(encoding="utf-8")

    assert re.search(r"\breport\b", text)
    assert '"holds":' not in text
