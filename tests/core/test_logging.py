"""What a stage decides can be read in the log, and a normal run warns of nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRIES = [
    "pipeline/isr/run.py",
    "pipeline/calibrate/run.py",
    "pipeline/template/run.py",
    "pipeline/diasource/run.py",
    "pipeline/diaobject/run.py",
    "pipeline/diaobject/force.py",
    "pipeline/alerts/run.py",
    "sims/campaign.py",
]


def _calls(path: Path) -> list[str]:
    return [
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "_LOGGER"
    ]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_stage_logs(entry: str) -> None:
    assert "info" in _calls(ROOT / entry)


def test_a_simulation_says_what_it_makes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import sims

    caplog.set_level("INFO", logger="sims")
    sims.simulate(tmp_path, "tiny", seed=1, visits=[410985], detectors=[1])
    text = caplog.text

    assert "profile tiny, seed 1: 1 visits, 1 detectors" in text
    assert "410985 1:" in text
    assert not [r for r in caplog.records if r.levelname != "INFO"]
