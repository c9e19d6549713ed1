"""The documentation is in step with the code, and the check of it notices when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import docs
from pipeline import schema


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "columns.md").write_text(schema.document(), encoding="utf-8")
    (tmp_path / "Makefile").write_text("verify: env\n\ttrue\n", encoding="utf-8")
    return tmp_path


def test_nothing_is_wrong_with_ours() -> None:
    assert docs.faults() == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("see [there](docs/nowhere.md)", "no such file docs/nowhere.md"),
        ("    make verify PROFILE=ci\n    make coffee", "no target coffee"),
        ("    nightjar simulate W", "no command simulate"),
        ("    nightjar report W", "no command W"),
        ("    nightjar run W --job 2", "no option --job"),
    ],
)
def test_what_does_not_exist_is_named(pages: Path, text: str, fault: str) -> None:
    (pages / "README.md").write_text(text, encoding="utf-8")
    (found,) = docs.faults(pages)
    assert found.startswith("README.md: ")
    assert fault in found


def test_what_exists_is_no_fault(pages: Path) -> None:
    text = "[c](docs/columns.md) [w](https://example.org)\n\n    nightjar run W -j 2  # two\n"
    (pages / "README.md").write_text(text, encoding="utf-8")
    assert docs.faults(pages) == []


def test_columns_out_of_step_are_told(pages: Path) -> None:
    (pages / "docs" / "columns.md").write_text("old", encoding="utf-8")
    (found,) = docs.faults(pages)
    assert "--write" in found
