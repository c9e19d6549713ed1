"""A study on disk: its tables and its numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.study.tables import DETECTION, PAINTING, RECOVERY
from pipeline import io
from pipeline.errors import ConfigError
from pipeline.schema import INJECTION, INJECTION_OUTCOME
from pipeline.schema.columns import Table

__all__ = ["TABLES", "Study"]

TABLES: dict[str, Table] = {
    t.name: t for t in (INJECTION, INJECTION_OUTCOME, RECOVERY, DETECTION, PAINTING)
}
"""Tables of a study, in Parquet and in its DuckDB file."""


@dataclass(frozen=True, slots=True)
class Study:
    """A study on disk.

    Attributes
    ----------
    folder : Path
        ``WORKSPACE/studies/ID``.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Study:
        """Return a finished study.

        Raises
        ------
        ConfigError
            If the folder holds none, or one that was not finished.
        """
        if not (folder / "study.json").is_file():
            raise ConfigError("is no finished study", path=folder, hint="nightjar study WORKSPACE")
        return cls(folder)

    @property
    def about(self) -> dict[str, Any]:
        """Identifier, design, units and versions."""
        about: dict[str, Any] = json.loads((self.folder / "study.json").read_text("utf-8"))
        return about

    def table(self, name: str) -> pa.Table:
        """Return one of `TABLES`."""
        return io.read_parquet(self.folder / f"{name}.parquet")

    @property
    def summary(self) -> dict[str, Any]:
        """Numbers of `harness.study.summary.summarise`."""
        numbers: dict[str, Any] = json.loads((self.folder / "summary.json").read_text("utf-8"))
        return numbers

    def rows(self) -> pa.Table:
        """Return injections, outcomes and measurements side by side, in the order of their ids."""
        injections = self.table("injection")
        for name in ("injection_outcome", "recovery"):
            other = self.table(name)
            for column in other.column_names:
                if column not in injections.column_names:
                    injections = injections.append_column(other.schema.field(column), other[column])
        return injections
