"""One study: planned, performed by an executor, resumed, and put together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from harness.catalog import connect
from harness.execute import open_executor
from harness.execute.compilation import compile_loops
from harness.plan import Selection, Unit
from harness.settings import Settings
from harness.study.design import StudyDesign
from harness.study.engine import Engine, Painting
from harness.study.export import as_ecsv
from harness.study.figures import figures
from harness.study.report import render_study
from harness.study.store import TABLES, Study
from harness.study.summary import efficiency_table, summarise
from harness.system.hashes import combine, file_hash
from harness.system.progress import ProgressDisplay, open_progress
from harness.workspace import Workspace, atomic, translate_os_errors
from pipeline import diasource, io, subtract, template
from pipeline.atomic import UNFINISHED
from pipeline.diasource.reliability import model as classifier
from pipeline.errors import ConfigError, UnitError

__all__ = ["run_study"]

VERSION = 4
"""Raised when the same design and images give other results."""

_EVERYTHING = Selection()
_WHERE = ("visit", "detector", "realisation")


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
    replace: bool = False,
    engine: Engine = "frame",
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
    replace : bool
        Whether another study of that name is removed.
    engine : str
        ``frame`` fits the kernel to every painted image; ``local`` keeps that of the image without
        sources.

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
    with space.reading("study"):
        images = _images(space, selection)
        _check(space, design, next(iter(images)))
        plan = _Plan(space, design, settings, engine, images, _hashes(space, images))
        study = name or plan.key
        folder = space.root / "studies" / study
        with translate_os_errors(folder):
            _begin(folder, plan.key, replace=replace)
            if not (folder / "study.json").is_file():
                with open_progress(quiet=quiet) as display:
                    _perform(plan.paintings(folder, study), settings, jobs, space.queue, display)
                _finish(folder, study, plan)
        return Study.open(folder)


class _Image(NamedTuple):
    """A difference to inject into: the name of its template and the MJD (TAI) of its visit."""

    template: str
    mjd: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is painted, and with what."""

    space: Workspace
    design: StudyDesign
    settings: Settings
    engine: Engine
    images: dict[Unit, _Image]
    hashes: dict[Path, str]

    @property
    def key(self) -> str:
        """Hash of everything that the result depends on."""
        versions = [str(m.VERSION) for m in (template, subtract, diasource)]
        sections = ("template", "subtract", "diasource", "alerts")
        configs = [self.settings.section_hash(s) for s in sections]
        versions += [classifier().version] if self.settings.diasource.classify else []
        design = self.design.model_dump_json()
        return combine(
            [str(VERSION), design, self.engine, *versions, *configs, *self.hashes.values()]
        )[:12]

    def paintings(self, folder: Path, study: str) -> list[Painting]:
        """Return every painting; those of one image follow each other if it is solved once."""
        jobs = [(unit, r) for r in range(self.design.realisations) for unit in self.images]
        paintings = [
            Painting(
                space=self.space, folder=folder, unit=unit, settings=self.settings,
                template_name=self.images[unit].template, design=self.design, study=study,
                difference_hash=self.hashes[self.space.difference(*unit)],
                realisation=realisation, first_id=k * self.design.sources,
                visits=self._visits(unit), engine=self.engine,
            )
            for k, (unit, realisation) in enumerate(jobs)
        ]  # fmt: skip
        return sorted(paintings, key=lambda p: p.unit) if self.engine == "local" else paintings

    def _visits(self, unit: Unit) -> tuple[tuple[Unit, float], ...]:
        """Return the images of the same detector and field in order of time."""
        same = [
            (other, image.mjd)
            for other, image in self.images.items()
            if other[1] == unit[1] and image.template == self.images[unit].template
        ]
        return tuple(sorted(same, key=lambda v: v[1]))


def _images(space: Workspace, selection: Selection) -> dict[Unit, _Image]:
    """Find the differences that are meant."""
    images: dict[Unit, _Image] = {}
    for path in sorted((space.root / "products" / "difference").glob("*.fits*")):
        with io.open_fits(path, expected="a difference image") as hdus:
            header = hdus[0].header
            visit, detector = (int(part) for part in path.name.split(".")[0].split("_"))
            images[visit, detector] = _Image(str(header["TMPLID"]), float(header["MJDMIDT"]))
    chosen = {
        unit: image
        for unit, image in images.items()
        if (not selection.visits or unit[0] in selection.visits)
        and (not selection.detectors or unit[1] in selection.detectors)
    }
    if not chosen:
        raise ConfigError(
            "no difference image to inject into", path=space.root, hint="nightjar run first"
        )
    return chosen


def _check(space: Workspace, design: StudyDesign, first: Unit) -> None:
    """Refuse what cannot be done before anything runs."""
    if design.hosted > 0 and not space.objects.is_file():
        raise ConfigError(
            "no catalogue of hosts", path=space.objects, key="hosted",
            hint="use --hosted 0 or provide it",
        )  # fmt: skip
    image, _ = io.read_plane(space.difference(*first), "MASK")
    design.check((int(image.shape[0]), int(image.shape[1])))


def _hashes(space: Workspace, images: dict[Unit, _Image]) -> dict[Path, str]:
    """SHA-256 of every file that the study rests on."""
    files = [p for unit in images for p in (space.visit_image(*unit), space.difference(*unit))]
    files += [space.template(name) for name in sorted({i.template for i in images.values()})]
    files += [p for p in (space.objects,) if p.is_file()]
    return {path: file_hash(path) for path in files}


def _begin(folder: Path, key: str, *, replace: bool = False) -> None:
    """Make the folder, or go on with one that was begun with the same key."""
    mark = folder / "key"
    if mark.is_file() and mark.read_text("utf-8") != key:
        if not replace:
            raise ConfigError(
                "holds another study: its design, configuration or images differ", path=folder,
                hint="use --replace to make it anew, or another --name",
            )  # fmt: skip
        _empty(folder, mark)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.rglob(UNFINISHED):
        path.unlink(missing_ok=True)
    with atomic(mark) as partial:
        partial.write_text(key, encoding="utf-8")


def _empty(folder: Path, mark: Path) -> None:
    """Remove a study, its mark last: one that was removed in part is never gone on with."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != mark:
            path.unlink()
    mark.unlink()


def _perform(
    paintings: list[Painting],
    settings: Settings,
    jobs: int | None,
    queue: Path,
    display: ProgressDisplay,
) -> None:
    compile_loops(display.say)
    workers = open_executor(settings.execution, jobs, queue, display.say)
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


def _finish(folder: Path, study: str, plan: _Plan) -> None:
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
        "key": plan.key,
        "engine": plan.engine,
        "design": plan.design.model_dump(mode="json"),
        "threshold": plan.settings.diasource.threshold,
        "reliabilityCut": plan.settings.diasource.reliability_cut,
        "units": [
            {"visit": v, "detector": d, "template": image.template}
            for (v, d), image in plan.images.items()
        ],
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
