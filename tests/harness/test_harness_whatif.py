"""What if a setting were another: the copy is made again, the workspace is not touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli.main import execute
from harness.verify.paths import TESTCASES

CASE = """schema: 1
id: AG-00-05
title: A case
version: 1.0.0
derived_from: {document: d, version: "1", section: s}
purpose: p
items:
  - id: alerts
    text: Something is announced.
    requirements: [DMS-REQ-0002]
    checks:
      - id: emitted
        text: Alerts that were emitted.
        sql:
          population: select diaSourceId from alert
          value: select count(*) from alert where emitted
          measured_in: alerts
        bound: ">= 1 alerts"
"""
REQUIREMENTS = (
    'schema: 1\nrequirements:\n  - {id: DMS-REQ-0002, title: t, source: LSE-61, priority: "2", '
    "text: x}\n"
)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """One case of one check."""
    folder = tmp_path / "cases"
    shutil.copytree(TESTCASES, folder, ignore=shutil.ignore_patterns("ag-*.yaml"))
    (folder / "ag-00-05.yaml").write_text(CASE)
    (folder / "requirements.yaml").write_text(REQUIREMENTS)
    return folder


def test_what_a_setting_does_to_the_verdicts(
    campaign: Path,
    cases: Path,
    tmp_path: Path,
    contents: Callable[[Path], dict[str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(campaign, root, ignore=shutil.ignore_patterns("reports"))
    words = ["verify", str(root), "--testcases", str(cases), "-j", "1"]
    asked = ["--set", "alerts.reliability_min=1.0", "--compare"]

    assert execute([*words, *asked]) == 2
    assert "nightjar verify" in capsys.readouterr().err
    assert execute(words) == 0
    before = contents(root)
    capsys.readouterr()
    assert execute([*words, *asked, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)

    assert found["verdicts"] == [{"case": "AG-00-05", "before": "pass", "after": "fail"}]
    (flip,) = found["flips"]
    assert flip["path"] == "AG-00-05/alerts/emitted"
    assert flip["values"][0] > flip["values"][1] == 0
    assert set(found["made"]) == {"alerts"}
    assert found["troubles"] == []
    assert contents(root) == before
    assert len(list((root / "reports").glob("tiny-*"))) == 1
    assert execute([*words, "--compare"]) == 2
    assert execute([*words, *asked[:2]]) == 2
