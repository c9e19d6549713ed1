"""Rows that are lost from the catalogue come back with the next run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.catalog import Catalog
from harness.cli.main import execute
from harness.tasks import association

pytestmark = pytest.mark.slow

Contents = Callable[[Path], dict[str, str]]


def lose(root: Path, table: str, condition: str) -> int:
    """Delete rows behind the back of the program; return how many."""
    with Catalog(root / "catalog.duckdb") as catalog:
        before = catalog.value(f'SELECT count(*) FROM "{table}"')
        catalog.fetch(f'DELETE FROM "{table}" WHERE {condition}')
        return int(before - catalog.value(f'SELECT count(*) FROM "{table}"'))


@pytest.mark.parametrize(
    "tables",
    [
        ("metric", "template", "template_input", "visit_image"),
        ("difference_image", "candidate", "DiaForcedSource", "alert"),
        *((name,) for name in association._TABLES),
    ],
    ids=lambda tables: tables[0],
)
def test_a_row_of_any_table_can_be_lost(
    tables: Sequence[str], campaign: Path, tmp_path: Path, contents: Contents
) -> None:
    root = Path(shutil.copytree(campaign, tmp_path / "tiny"))
    for table in tables:
        row = f'(SELECT median(rowid)::BIGINT FROM "{table}")'
        assert lose(root, table, f"rowid = {row}") == 1

    assert execute(["run", str(root), "-q", "-j", "1"]) == 0
    assert contents(root) == contents(campaign)
