"""A copy of a workspace by links, in which files can be replaced without harm to the original."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa

from harness.catalog import connect
from harness.verify.context import Unit
from harness.workspace import Workspace
from pipeline import io
from pipeline.exposure import Difference, Exposure

__all__ = ["Copy"]

_OWN = (".duckdb", ".toml", ".jsonl", ".lock", "plan.json")


@dataclass(frozen=True, slots=True)
class Copy:
    """A workspace to be spoilt.

    Attributes
    ----------
    space : Workspace
        The copy.
    units : tuple of Unit
        Units with a visit image, in order.
    science : tuple of Unit
        Units with a difference.
    """

    space: Workspace
    units: tuple[Unit, ...]
    science: tuple[Unit, ...]

    @classmethod
    def of(
        cls, origin: Workspace, root: Path, units: tuple[Unit, ...], science: tuple[Unit, ...]
    ) -> Copy:
        """Link every file of a workspace into a new folder; what is edited in place is copied."""
        for folder, _, names in os.walk(origin.root):
            inner = Path(folder).relative_to(origin.root)
            if "reports" in inner.parts:
                continue
            target = root / inner
            target.mkdir(parents=True, exist_ok=True)
            for name in names:
                _place(Path(folder) / name, target / name)
        return cls(Workspace(root), units, science)

    def sql(self, *statements: str) -> None:
        """Change the catalogue."""
        with connect(self.space.catalog) as connection:
            for statement in statements:
                connection.execute(statement).fetchall()

    def everywhere(self, table: str, change: str, where: str = "true") -> None:
        """Change rows of a table in the catalogue and in the staging files it was filled from."""
        statement = f'update "{table}" set {change} where {where}'
        self.sql(statement)
        for unit in self.science:
            path = self.space.staging(table, unit.visit, unit.detector)
            if path.is_file():
                rows = io.read_parquet(path)
                with connect(Path(":memory:")) as connection:
                    connection.register("given", rows)
                    connection.execute(f'create table "{table}" as select * from given')
                    connection.execute(statement)
                    changed = connection.sql(f'select * from "{table}"').to_arrow_table()
                io.write_parquet(path, changed.cast(rows.schema))

    def text(self, path: Path, change: Callable[[str], str]) -> None:
        """Replace a text file."""
        content = change(path.read_text(encoding="utf-8"))
        path.unlink()  # the file may be a link to that of the original
        path.write_text(content, encoding="utf-8")

    def images(self, change: Callable[[Exposure], Exposure]) -> None:
        """Replace all visit images."""
        for index in range(len(self.units)):
            self.image(change, index)

    def differences(self, change: Callable[[Difference], Difference]) -> None:
        """Replace all differences."""
        for index in range(len(self.science)):
            self.difference(change, index)

    def free(self, table: str) -> None:
        """Give a table up to any content: its key and constraints are dropped."""
        self.sql(
            f'create table spoilt as select * from "{table}"',
            f'drop table "{table}" cascade',
            f'alter table spoilt rename to "{table}"',
        )

    def image(self, change: Callable[[Exposure], Exposure], index: int = 0) -> None:
        """Replace a visit image."""
        unit = self.units[index]
        path = self.space.visit_image(unit.visit, unit.detector)
        io.write_exposure(path, change(io.read_exposure(path)))

    def difference(self, change: Callable[[Difference], Difference], index: int = 0) -> None:
        """Replace a difference."""
        unit = self.science[index]
        path = self.space.difference(unit.visit, unit.detector)
        io.write_difference(path, change(io.read_difference(path)))

    def staged(self, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Replace the staging tables of all science units."""
        for unit in self.science:
            path = self.space.staging(name, unit.visit, unit.detector)
            io.write_parquet(path, change(io.read_parquet(path)))

    def study(self, table: str, *statements: str) -> None:
        """Change a table of the study that is judged, by SQL that calls it by its name."""
        path = self.space.root / "studies" / "verification" / f"{table}.parquet"
        rows = io.read_parquet(path)
        with connect(Path(":memory:")) as connection:
            connection.register("given", rows)
            connection.execute(f'create table "{table}" as select * from given')
            for statement in statements:
                connection.execute(statement)
            changed = connection.sql(f'select * from "{table}"').to_arrow_table()
        io.write_parquet(path, changed.cast(rows.schema))

    def alerts(
        self, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], index: int = 0
    ) -> None:
        """Replace an alert container."""
        unit = self.science[index]
        path = self.space.alerts(unit.visit, unit.detector)
        with path.open("rb") as stream:
            reader = fastavro.reader(stream)
            schema, packets = reader.writer_schema, list(reader)
        path.unlink()
        with path.open("wb") as stream:
            fastavro.writer(stream, schema, change(packets))

    def forget_studies(self) -> None:
        """Remove the studies: they are of products that have been made again."""
        shutil.rmtree(self.space.root / "studies", ignore_errors=True)

    def close(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.space.root)


def _place(source: Path, target: Path) -> None:
    if target.name.endswith(_OWN):
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
