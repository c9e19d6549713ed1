"""What checks read of a campaign: files, catalogue, expected units, people responsible."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa

from harness.campaign.frames import load_frames
from harness.catalog import GuardedCatalog
from harness.plan import Frame
from harness.settings import Settings
from harness.study.store import TABLES
from harness.system.hashes import file_hash
from harness.verify.paths import TESTCASES
from harness.workspace import Workspace
from pipeline.camera import Camera
from pipeline.diasource.reliability import model as classifier
from pipeline.errors import InputError

__all__ = ["Context", "Unit"]

_ELSEWHERE = re.compile(r"information_schema|duckdb_|pragma|sqlite_|now$|current_|today$|random")
"""Words of a query that asks for something else than the rows of tables."""


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One expected unit of work: a detector of a visit.

    Attributes
    ----------
    visit, detector : int
        Which.
    band, field, role : str
        Filter, field and whether it is a ``template`` or a ``science`` visit.
    """

    visit: int
    detector: int
    band: str = ""
    field: str = ""
    role: str = "science"

    @property
    def key(self) -> dict[str, int]:
        """The unit as a subject."""
        return {"visit": self.visit, "detector": self.detector}

    @property
    def caption(self) -> str:
        """The unit below its image on a contact sheet."""
        return f"visit {self.visit} detector {self.detector}"


@dataclass
class Context:
    """One campaign under judgement.

    Attributes
    ----------
    space : Workspace
        Its folder.
    testcases : Path
        The folder of the specification, where stored expectations and answers lie.
    evidence_folder : Path, optional
        Records of earlier commands (unit tests, container); ``campaigns/evidence`` by default.
    jobs : int
        Processes for the measurement of images.
    now : datetime
        The time of the judgement, for waivers that expire.
    store : Path, optional
        Folder for failing rows and other evidence; nothing is kept when None.
    memory : dict
        Whatever checks compute once and share.
    endings : list of callable
        End what was begun and may still be under way: processes and commands.
    foreign : bool
        Whether the products were made elsewhere: what they lack is then no fault.
    """

    foreign: ClassVar[bool] = False

    space: Workspace
    testcases: Path = TESTCASES
    evidence_folder: Path = Path("campaigns/evidence")
    jobs: int = 2
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    store: Path | None = None
    memory: dict[Any, Any] = field(default_factory=dict)
    endings: list[Callable[[], None]] = field(default_factory=list)

    @cached_property
    def settings(self) -> Settings:
        """The campaign's own configuration."""
        return Settings.load(self.space.config)

    @property
    def profile(self) -> str:
        """Name of the simulation profile, empty for real frames."""
        return self.settings.campaign.profile

    @property
    def camera_name(self) -> str:
        """Name of the camera."""
        return self.settings.campaign.camera

    @cached_property
    def catalog(self) -> GuardedCatalog:
        """The catalogue, read-only, with the truth, the catalogues and the study beside it.

        Raises
        ------
        InputError
            If there is none yet.
        """
        if not self.space.catalog.is_file():
            raise InputError(
                "there is no catalogue", path=self.space.catalog, hint="run the pipeline first"
            )
        promised = [[getattr(u, n) for u in self.units] for n in ("visit", "detector", "role")]
        tables = {
            "promised": pa.table(promised, names=["visit", "detector", "role"]),
            "classifier": pa.table({"version": pa.array([_classifier_version()], pa.string())}),
        }
        return GuardedCatalog(self.space.catalog, files=self._outside, tables=tables)

    def close(self) -> None:
        """End what is still under way and close the catalogue."""
        while self.endings:
            self.endings.pop()()
        if "catalog" in vars(self):
            self.catalog.close()

    @cached_property
    def today(self) -> date:
        """The day by which waivers expire: of the clock, or of the newest file if that is later.

        A clock that was set back does not revive what has expired.
        """
        folders = ("logs", "products", "alerts", "staging")
        files = [self.space.catalog]
        files += [p for f in folders for p in (self.space.root / f).rglob("*") if p.is_file()]
        newest = max((p.stat().st_mtime for p in files if p.is_file()), default=0.0)
        return max(self.now, datetime.fromtimestamp(newest, UTC)).date()

    @property
    def _outside(self) -> dict[str, Path]:
        """Tables that lie beside the catalogue, and the names under which SQL checks see them."""
        root = self.space.root
        return {
            "truth_object": root / "truth" / "objects.parquet",
            "truth_visit": root / "truth" / "visits.parquet",
            "refcat": self.space.refcat,
            "object": self.space.objects,
            **{name: self.study_folder / f"{name}.parquet" for name in TABLES},
        }

    @property
    def study_folder(self) -> Path:
        """Where the study lies that is judged; its tables stand before those of the catalogue."""
        return self.space.root / "studies" / "verification"

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Run one SELECT on the catalogue and return all rows."""
        return self.catalog.query(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query as dictionaries."""
        return self.catalog.rows(sql, parameters)

    def fetch(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query as tuples."""
        return self.catalog.fetch(sql, parameters)

    def scalar(self, sql: str) -> Any:
        """Return the first value of the first row, None when there is none."""
        rows = self.fetch(sql)
        return rows[0][0] if rows else None

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """Columns of every table and view of the catalogue."""
        rows = self.fetch(
            "select table_name, column_name from information_schema.columns "
            "order by ordinal_position"
        )
        tables: dict[str, list[str]] = {}
        for table, column in rows:
            tables.setdefault(table, []).append(column)
        return tables

    def tables_of(self, *queries: str) -> frozenset[str] | None:
        """Return the tables and views that occur in queries, and maybe some more.

        Parameters
        ----------
        *queries : str
            SQL.

        Returns
        -------
        frozenset of str, optional
            Every table that a word of the queries names; None where they ask for the time or for
            how the catalogue is made.
        """
        words = {word.lower() for sql in queries for word in re.findall(r"\w+", sql)}
        if any(_ELSEWHERE.match(word) for word in words):
            return None
        return frozenset(name for name in self.columns if name.lower() in words)

    def content(self, table: str) -> str:
        """Identify the columns and rows of a table or view, whatever their order, once.

        Parameters
        ----------
        table : str
            Its name.

        Returns
        -------
        str
            Equal for equal content.
        """
        known: dict[str, str] = self.memory.setdefault("contents", {})
        if table not in known:
            types = [row[:2] for row in self.fetch(f'describe "{table}"')]
            rows = self.fetch(f'select count(*), sum(hash(t)) from "{table}" t')
            known[table] = repr((types, rows))
        return known[table]

    @cached_property
    def runs(self) -> list[dict[str, Any]]:
        """Records of the runs, oldest first."""
        return self.rows("select * from run order by startedMjdTai, runId")

    @cached_property
    def frames(self) -> dict[tuple[int, int], Frame]:
        """Frames of the campaign, with their files, by visit and detector."""
        camera = Camera.load(self.space.camera(self.camera_name))
        return {frame.unit: frame for frame in load_frames(self.space, camera)[0]}

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Every unit the campaign promised, from its pinned list of frames."""
        frames = self.frames.values()
        return tuple(
            sorted(Unit(f.visit, f.detector, f.band, f.field_name, f.role) for f in frames)
        )

    def expected(self, product: str) -> tuple[Unit, ...]:
        """Units for which a product is promised: differences only of science visits."""
        if product == "visit_image":
            return self.units
        return tuple(u for u in self.units if (u.visit, u.detector) not in self._set_aside)

    @cached_property
    def _set_aside(self) -> frozenset[tuple[int, int]]:
        """Frames that serve as template inputs only.

        Simulated exposures say so; of real ones it is known only which were set aside: inputs
        of a template that were never to be subtracted.
        """
        declared = {(u.visit, u.detector) for u in self.units if u.role == "template"}
        if all(u.role != "open" for u in self.units) or "template_input" not in self.columns:
            return frozenset(declared)
        rows = self.fetch(
            "select visit, detector from template_input except "
            "select visit, detector from unit where stage = 'subtract'"
        )
        return frozenset(declared | {(int(v), int(d)) for v, d in rows})

    def product(self, product: str, unit: Unit) -> Path:
        """Where a unit's product lies."""
        places = {
            "visit_image": self.space.visit_image,
            "difference": self.space.difference,
            "alerts": self.space.alerts,
        }
        if product.startswith("staging/"):
            return self.space.staging(product.removeprefix("staging/"), unit.visit, unit.detector)
        return places[product](unit.visit, unit.detector)

    def excluded(self, kind: str, parameters: Mapping[str, object]) -> str:
        """Say why a check has no meaning for this campaign, nothing where it has.

        Parameters
        ----------
        kind : str
            Name of the kind of the check.
        parameters : mapping
            What it asks for.
        """
        return ""

    def unanswerable(self, err: duckdb.Error) -> str:
        """Say why the catalogue need not answer a query, nothing where it should have.

        Parameters
        ----------
        err : duckdb.Error
            What became of the query.
        """
        return ""

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file, computed once per state of the file."""
        stat = path.stat()
        known: dict[Any, str] = self.memory.setdefault("sha256", {})
        key = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key not in known:
            known[key] = file_hash(path)
        return known[key]

    @cached_property
    def causes(self) -> dict[tuple[int, int], dict[str, str]]:
        """Cause and message of every failed or skipped unit, by visit and detector.

        Of a unit's stages it is the one that failed, not those that were blocked by it.
        """
        if "unit" not in self.columns:
            return {}
        rows = self.rows(
            "select visit, detector, stage, status, cause, message from unit "
            "where status <> 'done' order by visit, detector, status <> 'blocked'"
        )
        return {(int(r["visit"]), int(r["detector"])): r for r in rows}

    @cached_property
    def evidence(self) -> dict[str, dict[str, Any]]:
        """Records of earlier commands by their kind."""
        found = {}
        for path in sorted(self.evidence_folder.glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(record, dict) and "kind" in record:
                found[str(record["kind"])] = record
        return found


def _classifier_version() -> str | None:
    """Version of the model that comes with the software; None where it fits other features.

    That is so while examples for a new training are collected; no reliability has that version.
    """
    try:
        return classifier().version
    except InputError:
        return None
