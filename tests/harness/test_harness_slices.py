"""A campaign that is larger than the disk: every frame accounted for, nothing large left."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import sims
from harness.cli.main import execute
from harness.slices import plan_slices, summarise
from pipeline.errors import ConfigError


def record(**changes: object) -> dict[str, object]:
    stages = [
        {"stage": "isr", "n": 4, "cpuS": 8.0, "peakRssMiB": 100.0},
        {"stage": "subtract", "n": 1, "cpuS": 10.0, "peakRssMiB": 600.0},
        {"stage": "template", "n": 1, "cpuS": 5.0, "peakRssMiB": None},
    ]
    whole = {"promised": 4, "accounted": 4, "states": {"done": 4}, "stages": stages, "bytes": 10**9}
    return {**whole, "verdicts": {"AG-00-05": "pass"}, "exitCode": 0, **changes}


def test_the_slices_of_hits_hold_every_frame_once() -> None:
    parts = plan_slices("hits", size=8)
    units = Counter((u, part.field) for part in parts for u in part.units)
    frames = {(f.visit, f.detector) for f in sims.expected("hits")}

    assert {unit for unit, _ in units} == frames
    assert set(units.values()) == {1}
    assert len(parts) == 3 * 8
    assert len({part.name for part in parts}) == len(parts)


def test_one_field_with_four_visits_has_its_templates() -> None:
    parts = plan_slices("hits", size=2, fields=["Blind15A_40"], visits=4)
    roles = {visit.number: visit.role for visit in sims.profiles()["hits"].visits}
    (visits,) = {part.visits for part in parts}

    assert Counter(roles[v] for v in visits) == {"template": 5, "science": 4}
    assert sum(len(part.detectors) for part in parts) == 59


def test_what_a_profile_has_not_is_one_line() -> None:
    for wrong in ({"fields": ["Blind"]}, {"detectors": [2]}):
        with pytest.raises(ConfigError, match="the profile has no"):
            plan_slices("hits", size=2, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown profile 'huge'"):
        plan_slices("huge", size=2)


def test_the_whole_is_projected_from_the_cost_of_each_kind_of_work() -> None:
    second = record(accounted=3, states={"BAD_INPUT": 1, "done": 2}, verdicts={"AG-00-05": "fail"})
    found = summarise([record(), second], "hits")

    assert (found["promised"], found["accounted"]) == (8, 7)
    assert found["states"] == {"done": 6, "BAD_INPUT": 1}
    assert found["verdicts"] == {"AG-00-05": "fail"}
    whole = {row["stage"]: row["whole"] for row in found["stages"]}
    assert whole == {"isr": 99 * 59, "subtract": 84 * 59, "template": 3 * 59}
    hours = (99 * 59 * 2.0 + 84 * 59 * 10.0 + 3 * 59 * 5.0) / 3600.0
    assert found["cpuHours"] == pytest.approx(hours)


@pytest.mark.slow
def test_a_slice_is_judged_and_made_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["slices", str(tmp_path), "--profile", "tiny", "--visits", "1", "--size", "1"]
    words += ["--most", "1", "-j", "1", "--json"]
    assert execute(words) in (0, 1)  # a single visit does not pass every case
    found = json.loads(capsys.readouterr().out)

    assert (found["slices"], found["left"]) == (1, 1)
    assert found["promised"] == found["accounted"] == 4
    assert found["states"] == {"done": 4}
    assert found["verdicts"]["AG-00-05"] == "pass"
    root = tmp_path / "Blind15A_40_01-01"
    assert {"catalog.duckdb", "logs", "reports", "slice.json"} <= {p.name for p in root.iterdir()}
    assert not [p for p in root.rglob("*") if p.suffix in (".fits", ".fz", ".parquet", ".avro")]
    before = (root / "slice.json").stat().st_mtime_ns
    assert execute([*words, "--detector", "1"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["left"] == 0
    assert (root / "slice.json").stat().st_mtime_ns == before
    assert (tmp_path / "cost.svg").is_file()
    assert execute([*words, "--detector", "1", "--seed", "7"]) == 2
    assert "holds another slice" in capsys.readouterr().err
