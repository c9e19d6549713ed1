"""One study: planned, performed by an executor, resumed, and put together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.catalog import connect
from harness.execute import open_executor
from harness.execute.warm import compile_loops
from harness.plan import Selection, Unit
from harness.settings import Settings
from harness.study.design import StudyDesign
from harness.study.engine import Painting
from harness.study.export import as_ecsv
from harness.study.figures import figures
from harness.study.report import render_study
from harness.study.summary import efficiency_table, summarise
from harness.study.tables import DETECTION, PAINTING, RECOVERY
from harness.system.hashes import combine, file_hash
from harness.system.progress import ProgressDisplay, open_progress
from harness.workspace import Workspace, atomic, translate_os_errors
from pipeline import diasource, io, subtract, template
from pipeline.atomic import UNFINISHED
from pipeline.errors import ConfigError, UnitError
from pipeline.schema import INJECTION, INJECTION_OUTCOME
from pipeline.schema.columns import Table

__all__ = ["TABLES", "Study", "run_study"]

TABLES: dict[str, Table] = {
    t.name: t for t in (INJECTION, INJECTION_OUTCOME, RECOVERY, DETECTION, PAINTING)
}
"""Tables of a study, in Parquet and in its DuckDB file."""

_EVERYTHING = Selection()
_WHERE = ("visit", "detector", "realisation")


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


def run_study(
    root: Path,
    design: StudyDesign,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    config: Path | None = None,
    selection: Selection = _EVERYTHING,
    jobs: int | None = None,
    quiet: bool = False,
) -> Study:
    """Inject into every visit image of a workspace and find out what becomes of the sources.

    Parameters
    ----------
    root : Path
        The workspace; nothing in it but ``studies/`` changes.
    design : StudyDesign
        What is injected.
    name : str, optional
        Identifier of the study; by default one that follows from everything that it depends on.
    overrides : sequence of str
        ``section.key=value`` in place of the configuration's.
    config : Path, optional
        Configuration in place of the workspace's.
    selection : Selection
        Units meant.
    jobs : int, optional
        Worker processes.
    quiet : bool
        Whether to show no progress.

    Returns
    -------
    Study
        Finished.  One that was interrupted goes on where it stood.

    Raises
    ------
    InputError
        If the workspace or the design cannot be used.
    UnitError
        If an image could not even be painted.
    """
    space = Workspace.open(root)
    settings = Settings.load(config or space.config, overrides)
    units = _units(space, selection)
    _check(space, design, units)
    key = _key(space, design, settings, units)
    study = name or key
    folder = space.root / "studies" / study
    with translate_os_errors(folder):
        _begin(folder, key)
        if not (folder / "study.json").is_file():
            with open_progress(quiet=quiet) as display:
                _perform(_paintings(space, folder, units, settings, design, study), settings,
                         jobs, display)  # fmt: skip
            _finish(folder, study, key, design, settings, units)
    return Study.open(folder)


def _units(space: Workspace, selection: Selection) -> dict[Unit, str]:
    """Units with a difference, and the name of its template."""
    units: dict[Unit, str] = {}
    for path in sorted((space.root / "products" / "difference").glob("*.fits*")):
        with io.open_fits(path, expected="a difference image") as hdus:
            header = hdus[0].header
            visit, detector = (int(part) for part in path.name.split(".")[0].split("_"))
            units[visit, detector] = str(header["TMPLID"])
    chosen = {
        unit: name
        for unit, name in units.items()
        if (not selection.visits or unit[0] in selection.visits)
        and (not selection.detectors or unit[1] in selection.detectors)
    }
    if not chosen:
        raise ConfigError(
            "no difference image to inject into", path=space.root, hint="nightjar run first"
        )
    return chosen


def _check(space: Workspace, design: StudyDesign, units: dict[Unit, str]) -> None:
    """Refuse what cannot be done before anything runs."""
    if design.hosted > 0 and not space.objects.is_file():
        raise ConfigError(
            "no catalogue of hosts", path=space.objects, key="hosted",
            hint="use --hosted 0 or provide it",
        )  # fmt: skip
    first = next(iter(units))
    image, _ = io.read_plane(space.difference(*first), "MASK")
    design.check((int(image.shape[0]), int(image.shape[1])))


def _key(space: Workspace, design: StudyDesign, settings: Settings, units: dict[Unit, str]) -> str:
    """Hash everything that the result depends on."""
    files = [p for unit in units for p in (space.visit_image(*unit), space.difference(*unit))]
    files += [space.template(name) for name in sorted(set(units.values()))]
    files += [p for p in (space.objects,) if p.is_file()]
    versions = [str(m.VERSION) for m in (template, subtract, diasource)]
    sections = [settings.section_hash(s) for s in ("template", "subtract", "diasource", "alerts")]
    return combine([design.model_dump_json(), *versions, *sections, *map(file_hash, files)])[:12]


def _begin(folder: Path, key: str) -> None:
    """Make the folder, or go on with one that was begun with the same key."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "key"
    if mark.is_file() and mark.read_text("utf-8") != key:
        raise ConfigError(
            "holds another study: its design, configuration or images differ", path=folder,
            hint="choose another --name or remove it",
        )  # fmt: skip
    for path in folder.rglob(UNFINISHED):
        path.unlink(missing_ok=True)
    with atomic(mark) as partial:
        partial.write_text(key, encoding="utf-8")


def _paintings(
    space: Workspace,
    folder: Path,
    units: dict[Unit, str],
    settings: Settings,
    design: StudyDesign,
    study: str,
) -> list[Painting]:
    jobs = [(unit, r) for r in range(design.realisations) for unit in units]
    return [
        Painting(
            space=space, folder=folder, unit=unit, template_name=units[unit], settings=settings,
            design=design, study=study, realisation=realisation,
            first_id=k * design.sources,
        )
        for k, (unit, realisation) in enumerate(jobs)
    ]  # fmt: skip


def _perform(
    paintings: list[Painting], settings: Settings, jobs: int | None, display: ProgressDisplay
) -> None:
    compile_loops(display.say)
    workers = open_executor(settings.execution, jobs)
    display.start("study", len(paintings))
    for painting in paintings:
        if painting.done:
            display.advance("cached")
    troubles = []
    with workers as executor:
        for result in executor.map(p for p in paintings if not p.done):
            display.advance(result.status, result.message)
            troubles += [result.message] if result.status == "failed" else []
    display.finish()
    missing = [p.name for p in paintings if not p.done]
    if missing:
        raise UnitError(f"{len(missing)} images could not be painted: {troubles[0]}")


def _tables(folder: Path, name: str) -> Iterator[pa.Table]:
    for path in sorted((folder / "units" / name).glob("*.parquet")):
        yield io.read_parquet(path)


def _finish(
    folder: Path,
    study: str,
    key: str,
    design: StudyDesign,
    settings: Settings,
    units: dict[Unit, str],
) -> None:
    """Put the tables together; the description comes last and says that all is there."""
    joined = {}
    for name, declared in TABLES.items():
        table = pa.concat_tables(_tables(folder, name)).cast(declared.arrow_schema)
        keys = _WHERE if "realisation" in declared and name != "recovery" else ("injectionId",)
        joined[name] = table.sort_by([(key, "ascending") for key in keys])
        io.write_parquet(folder / f"{name}.parquet", joined[name])
    with atomic(folder / "study.duckdb") as partial:
        _write_database(partial, joined)
    about = {
        "studyId": study,
        "key": key,
        "design": design.model_dump(mode="json"),
        "threshold": settings.diasource.threshold,
        "reliabilityCut": settings.diasource.reliability_cut,
        "units": [{"visit": v, "detector": d, "template": t} for (v, d), t in units.items()],
        "versions": {"subtract": subtract.VERSION, "diasource": diasource.VERSION},
    }
    _write_answers(Study(folder), about)
    _write_text(folder / "study.json", json.dumps(about, indent=2) + "\n")


def _write_answers(result: Study, about: dict[str, Any]) -> None:
    """Write the numbers, the page and the table of efficiencies."""
    rows, detections = result.rows(), result.table("detection")
    numbers = summarise(rows, detections, result.table("painting"), about["studyId"])
    _write_text(result.folder / "summary.json", json.dumps(numbers, indent=2) + "\n")
    page = render_study(about, numbers, figures(rows, numbers))
    _write_text(result.folder / "report.html", page)
    efficiency = efficiency_table(rows)
    io.write_parquet(result.folder / "efficiency.parquet", efficiency)
    _write_text(result.folder / "efficiency.ecsv", as_ecsv(efficiency))


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _write_database(path: Path, tables: dict[str, pa.Table]) -> None:
    connection = connect(path)
    try:
        for name, rows in tables.items():
            connection.execute(TABLES[name].ddl())
            connection.register("rows", rows)
            connection.execute(f'INSERT INTO "{name}" BY NAME SELECT * FROM rows')
            connection.unregister("rows")
    finally:
        connection.close()
