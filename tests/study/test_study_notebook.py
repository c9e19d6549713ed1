"""The example notebook runs, cell by cell, and its numbers are those of the study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.workspace import Workspace

NOTEBOOK = Path(__file__).parents[2] / "examples" / "completeness.ipynb"


def cells() -> list[str]:
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]


def test_notebook_runs_and_says_what_the_study_found(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTJAR_WORKSPACE", str(space.root))
    names: dict[str, Any] = {}
    for source in cells():
        exec(compile(source, NOTEBOOK.name, "exec"), names)
    said = capsys.readouterr().out
    assert f"true SNR of {names['middle']:.2f}" in said
    assert 4.3 < names["middle"] < 5.4
    efficiency = names["table"].to_pylist()
    inside = (names["points"].snr >= 3) & (names["points"].snr < 50)
    assert sum(row["n"] for row in efficiency) == inside.sum()
    assert names["rows"].num_rows == 2 * 2 * names["design"].sources
