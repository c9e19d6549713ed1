"""HiTS 2015 as it is published: raw exposures with the calibrations, stars and defects beside them.

The files stay where they are.  Each is compared with the published checksums, every exposure gets
bias and flat of the nearest night, and the stars of the shards that it needs become the workspace's
reference catalogue: positions of Gaia, fluxes of Pan-STARRS1.  A file that cannot be used costs the
units that need it: they are registered with what is wrong, and fail with it.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from harness.ingest.camera import keep_camera
from harness.ingest.layout import Layout, survey
from harness.ingest.published import LDM533_DETECTORS, archive_log, ldm533, ldm533_visits, verified
from harness.ingest.registry import Candidate, IngestResult, Registry
from harness.ingest.run import campaign_settings, header_corners
from harness.plan import OPEN, SCIENCE, TEMPLATE
from harness.settings import Settings
from harness.workspace import Workspace, atomic, translate_os_errors
from pipeline import io
from pipeline.camera import Box, Camera
from pipeline.errors import FileFormatError, InputError
from pipeline.exposure import FloatArray, VisitInfo
from pipeline.io.defects import read_defects
from pipeline.io.shards import merge_shards, reaches
from pipeline.sphere import unit_vectors
from pipeline.timescales import mjd_tai_to_utc

__all__ = ["HitsResult", "ingest_hits"]

_RADIUS = 1.3  # deg, half the field of view with the errors of pointing
_MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)
_SYSTEM = "ps1-decam"


@dataclass(slots=True)
class HitsResult(IngestResult):
    """What was registered, and what there is of LDM-533.

    Attributes
    ----------
    units : list of dict
        Every unit of LDM-533: visit, detector, field, start and state, which is ``present``,
        ``damaged`` (a file that it needs cannot be used), ``pointer`` (not fetched), ``lost`` (its
        file lacks the detector) or ``absent``.
    """

    units: list[dict[str, object]] = field(default_factory=list)

    @property
    def present(self) -> int:
        """Units of LDM-533 that are there."""
        return sum(unit["state"] == "present" for unit in self.units)


@dataclass(slots=True)
class _Reader:
    """Registers exposures with the kind of each file, and what is wrong with it."""

    layout: Layout
    camera: Camera
    templates: frozenset[int]
    unverified: bool
    result: HitsResult
    sources: Counter[str] = field(default_factory=Counter)
    digests: dict[Path, str] = field(default_factory=dict)
    faults: dict[Path, str] = field(default_factory=dict)

    def checked(self, path: Path) -> str:
        """Return the SHA-256 of a file; it is at fault if it is of no published copy."""
        if path not in self.digests:
            found = verified(path)
            self.digests[path] = found.sha256
            self.sources[found.source] += 1
            if not found.source and not self.unverified:
                self.faults.setdefault(path, _unlike(path, found.sha256, found.expected))
        return self.digests[path]

    def frames(self, path: Path) -> list[Candidate]:
        """Return the frames of a raw exposure that are wanted."""
        try:
            headers = io.read_raw_headers(path, self.camera)
        except InputError as err:
            self.faults[path] = str(err)
            return self._promised(path)
        if not any(self._wants(info.visit) for info, _ in headers.values()):
            self.result.ignored += 1
            return []
        some = LDM533_DETECTORS if self.camera.name == "decam" else headers
        return [
            self._candidate(
                path, info, header_corners(header, self.camera.detector(number).raw_shape)
            )
            for number, (info, header) in headers.items()
            if number in some
        ]

    def _promised(self, path: Path) -> list[Candidate]:
        """Return the frames that a file which cannot be read should hold, by the archive's log."""
        exposure = archive_log().get(path.name)
        if exposure is None or not self._wants(exposure.visit):
            self.faults[path] += "; which exposure it is cannot be told: it is left out"
            return []
        numbers = LDM533_DETECTORS if self.camera.name == "decam" else self.camera.detectors
        infos = [exposure.info(number, self.camera.name) for number in numbers]
        return [
            self._candidate(path, info, ())
            for info in infos
            if not io.reason_to_skip(info.detector, self.camera, info.exptime)
        ]

    def _wants(self, visit: int) -> bool:
        return visit in self.templates or visit in ldm533_visits()

    def _candidate(self, path: Path, info: VisitInfo, corners: tuple[float, ...]) -> Candidate:
        sha256, bias, flat = self.checked(path), self._bias(info), self._flat(info)
        problem = next((self.faults[p] for p in (path, bias, flat) if p in self.faults), "")
        return Candidate(
            info, "raw", path, sha256, corners,
            role=self._role(info.visit), bias=bias, flat=flat, problem=problem,
        )  # fmt: skip

    def _role(self, visit: int) -> str:
        if not self.templates:
            return OPEN
        return TEMPLATE if visit in self.templates else SCIENCE

    def _bias(self, info: VisitInfo) -> Path | None:
        return self._calibration(self.layout.bias, info)

    def _flat(self, info: VisitInfo) -> Path | None:
        days = {day: path for (band, day), path in self.layout.flats.items() if band == info.band}
        return self._calibration(days, info)

    def _calibration(self, days: Mapping[date, Path], info: VisitInfo) -> Path | None:
        """Frame of the nearest day, the earlier of two."""
        if not days:
            return None
        night = _day(info)
        path = days[min(days, key=lambda day: (abs(day - night), day))]
        self.checked(path)
        return path


def ingest_hits(
    space: Workspace,
    folder: Path,
    *,
    camera: str | None = None,
    templates: Collection[int] = (),
    refcat: Path | None = None,
    unverified: bool = False,
    dry_run: bool = False,
) -> HitsResult:
    """Register what a folder holds of HiTS 2015.

    Parameters
    ----------
    space : Workspace
        Where to.
    folder : Path
        A clone of ap_verify_hits2015 or ap_verify_ci_hits2015, or files from the NOIRLab archive.
    camera : str, optional
        Camera of the files, if not the workspace's.
    templates : collection of int
        Visits of which templates are made, and nothing else.  Without any, the campaign takes the
        sharpest.
    refcat : Path, optional
        Reference catalogue in the camera's own system, instead of the shards.
    unverified : bool
        Whether files are taken that are no published copies: other compressions, simulations.
    dry_run : bool
        Whether only to look.

    Returns
    -------
    HitsResult
        Counts, problems, and the units of LDM-533.

    Raises
    ------
    InputError
        If folder or workspace cannot be used.
    """
    settings = campaign_settings(space, camera)
    definition = Camera.load(space.camera(settings.campaign.camera))
    layout = survey(folder)
    result = HitsResult()
    reader = _Reader(
        layout, definition, frozenset(templates), unverified, result, faults=dict(layout.faults)
    )
    found = _readable_first([frame for path in layout.raw for frame in reader.frames(path)])
    stars = _stars(reader, found) if refcat is None else io.read_refcat(refcat)
    defects = _defects(reader, found)
    found = [_with_stars_and_defects(frame, reader) for frame in found]
    registry = Registry(space)
    fresh = registry.check(found, result)
    result.units = _units(layout, found)
    result.problems += _absent(templates, registry, found)
    result.faults = list(reader.faults.values())
    result.notes = _notes(reader, found, defects is not None)
    result.problems = list(dict.fromkeys(result.problems))
    if not result.problems and not dry_run and (fresh or found):
        with translate_os_errors(space.root):
            kept = keep_camera(space, space.camera(settings.campaign.camera), defects)
            _adapted(settings, kept, definition, shards=stars is not None and refcat is None).save(
                space.config
            )
            if stars is not None:
                io.write_parquet(space.refcat, stars)
            registry.write(found, definition.name)
            _write_units(space, result.units)
    return result


def _readable_first(frames: Sequence[Candidate]) -> list[Candidate]:
    """Leave out frames of files that cannot be used where another file holds the same ones."""
    good = {frame.unit for frame in frames if not frame.problem}
    return [frame for frame in frames if not frame.problem or frame.unit not in good]


def _with_stars_and_defects(frame: Candidate, reader: _Reader) -> Candidate:
    """Say of a frame what is wrong with the shards and the list of defects that it needs."""
    centre = unit_vectors(np.array([frame.info.ra]), np.array([frame.info.dec]))
    name = reader.camera.detector(frame.info.detector).name.upper()
    needed = [lists[name] for lists in reader.layout.defects.values() if name in lists]
    for shards in (reader.layout.positions, reader.layout.fluxes):
        needed += _shards(shards, centre) if shards else []
    faults = (reader.faults[path] for path in needed if path in reader.faults)
    return replace(frame, problem=frame.problem or next(faults, ""))


def _unlike(path: Path, sha256: str, expected: str) -> str:
    known = FileFormatError(
        f"is not the published file: its sha256 is {sha256}", path=path, expected=expected,
        hint="fetch it again, or give --unverified",
    )  # fmt: skip
    unknown = FileFormatError(
        "is no file that was published", path=path, expected="a name of HiTS 2015",
        hint="give --unverified to take it all the same",
    )  # fmt: skip
    return str(known if expected else unknown)


def _day(info: VisitInfo) -> date:
    """Day of the night, by the UTC of its end."""
    start = mjd_tai_to_utc(info.midpoint_mjd_tai)
    return (_MJD_ZERO + timedelta(days=start)).date()


def _absent(templates: Collection[int], registry: Registry, found: list[Candidate]) -> list[str]:
    here = set(registry.visits) | {frame.info.visit for frame in found}
    return [
        f"template visit {visit} is not there: give one of {', '.join(map(str, sorted(here)))}"
        for visit in sorted(set(templates) - here)
    ]


def _stars(reader: _Reader, found: Sequence[Candidate]) -> pa.Table | None:
    """Read the stars of the shards that the exposures need; None where there are no shards."""
    layout = reader.layout
    if not (layout.positions and layout.fluxes and found):
        return None
    pointings = sorted({(frame.info.ra, frame.info.dec) for frame in found})
    centres = unit_vectors(*np.array(pointings).T)
    positions, fluxes = (_shards(c, centres) for c in (layout.positions, layout.fluxes))
    for path in (*positions, *fluxes):
        reader.checked(path)
    return _merged(reader, positions, fluxes, centres)


def _merged(
    reader: _Reader, positions: Sequence[Path], fluxes: Sequence[Path], centres: FloatArray
) -> pa.Table | None:
    """Join the shards that are not at fault; one that cannot be read is, and left out."""
    while True:
        place, light = ([p for p in some if p not in reader.faults] for some in (positions, fluxes))
        try:
            if not (place and light):
                raise FileFormatError("has no shard for these pointings", path=reader.layout.folder)
            return merge_shards(place, light, centres, _RADIUS)
        except InputError as err:
            at = Path(str(err.path))
            if at not in {*place, *light}:
                reader.result.problems.append(str(err))
                return None
            reader.faults[at] = str(err)


def _shards(catalogues: Mapping[str, Mapping[int, Path]], centres: FloatArray) -> list[Path]:
    """Shards of the newest catalogue that reach the exposures."""
    shards = catalogues[max(catalogues)]
    return [path for n, path in sorted(shards.items()) if reaches(n, centres, _RADIUS)]


def _defects(reader: _Reader, found: Sequence[Candidate]) -> dict[int, tuple[Box, ...]] | None:
    """Defects by detector, of the last list that holds at the first exposure; None without."""
    first = min((_day(frame.info) for frame in found), default=None)
    days = [day for day in reader.layout.defects if first is not None and day <= first]
    if not days:
        return None
    detectors = reader.camera.detectors
    numbers = {detector.name.upper(): n for n, detector in detectors.items()}
    lists = {number: detector.defects for number, detector in detectors.items()}
    for name, path in reader.layout.defects[max(days)].items():
        try:
            lists |= {numbers[name]: read_defects(path)} if name in numbers else {}
        except InputError as err:
            reader.faults[path] = str(err)
    return lists


def _notes(reader: _Reader, found: Sequence[Candidate], listed: bool) -> list[str]:
    layout, notes = reader.layout, []
    if layout.pointers:
        notes.append(
            f"{len(layout.pointers)} files are Git LFS pointers, not the files themselves: run "
            f"`git lfs pull` in {layout.folder}"
        )
    for source, number in sorted(reader.sources.items()):
        notes.append(f"{number} files are those of {source or 'no published copy'}")
    if reader.result.ignored:
        notes.append(f"{reader.result.ignored} exposures are not of LDM-533 and left out")
    if any(frame.bias is None or frame.flat is None for frame in found):
        notes.append("some exposures have no bias or no flat: they are not corrected for it")
    if layout.fringe:
        notes.append(f"{len(layout.fringe)} fringe frames are not used: g has no fringes")
    if layout.coadds:
        notes.append(f"{len(layout.coadds)} coadds are not used: templates are made of visits")
    if not listed:
        notes.append("no list of defects: that of 2015-01-05 is used, which comes with Nightjar")
    if not (layout.positions and layout.fluxes):
        notes.append("no shards of a reference catalogue in the folder")
    return notes


def _units(layout: Layout, found: Sequence[Candidate]) -> list[dict[str, object]]:
    """State of every unit of LDM-533."""
    here = {frame.unit: "damaged" if frame.problem else "present" for frame in found}
    visits = {visit for visit, _ in here}
    log = archive_log()
    pointers = {log[path.name].visit for path in layout.pointers if path.name in log}

    def state(visit: int, detector: int) -> str:
        if (visit, detector) in here:
            return here[visit, detector]
        if visit in visits:
            return "lost"
        return "pointer" if visit in pointers else "absent"

    return [
        {"visit": p.visit, "detector": p.detector, "field": p.field, "start": p.start,
         "state": state(p.visit, p.detector)}
        for p in ldm533()
    ]  # fmt: skip


def _write_units(space: Workspace, units: Sequence[Mapping[str, object]]) -> None:
    with (
        atomic(space.root / "raw" / "ldm533.csv") as partial,
        partial.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, list(units[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(units)


def _adapted(settings: Settings, camera: str, definition: Camera, *, shards: bool) -> Settings:
    """Set the camera that is kept, and that reference fluxes are those of Pan-STARRS1."""
    campaign = settings.campaign.model_copy(update={"camera": camera})
    update: dict[str, object] = {"campaign": campaign}
    if shards and _SYSTEM in definition.passbands.colour_terms:
        update["calibrate"] = settings.calibrate.model_copy(update={"photometric_system": _SYSTEM})
    return settings.model_copy(update=update)
