"""Registering frames from real telescopes: look at every file first, then write two small tables.

The files themselves stay where they are.  Every file is opened, its keywords read and its pixels
looked at; what is wrong with one is one line, and unless all are good nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.wcs import WCS

from harness.campaign.frames import frames_table
from harness.plan import OPEN
from harness.settings import Settings
from harness.system.hashes import file_hash
from harness.workspace import Workspace, translate_os_errors
from pipeline import io
from pipeline.camera import Camera
from pipeline.errors import ConfigError, FileFormatError, InputError
from pipeline.exposure import Exposure, VisitInfo
from pipeline.io.headers import Header
from pipeline.io.keywords import parse_keywords
from pipeline.io.planes import split_extension
from pipeline.schema import EXPOSURE
from pipeline.sphere import unit_vectors
from pipeline.timescales import mjd_tai_to_utc

__all__ = ["SUFFIXES", "IngestResult", "ingest_files"]

SUFFIXES = (".fits", ".fits.fz", ".fit", ".fits.gz", ".fits.bz2", ".fts")
"""Endings of the names of FITS files, compressed ones included."""
_USUAL = ("variance: from counts", "no mask", "saturation: no keyword")
_COMPANION = re.compile(r"_oo[dw]_|wtmap|dqmask")  # in the name; PRODTYPE cannot be relied on


@dataclass(slots=True)
class IngestResult:
    """What was registered.

    Attributes
    ----------
    visits, frames, known, ignored : int
        New visits and frames, frames that were registered before, companion files.
    problems : list of str
        One line per bad file; nothing is registered if there is any.
    notes : list of str
        What was assumed of good files, each kind once.
    """

    visits: int = 0
    frames: int = 0
    known: int = 0
    ignored: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Reading:
    """How plain FITS images are read."""

    camera: Camera
    ext: str | None
    keywords: Mapping[str, str]
    mask_bits: str | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One frame that a file holds."""

    info: VisitInfo
    kind: str
    path: Path
    sha256: str
    corners: tuple[float, ...]
    fills: tuple[str, ...] = ()

    @property
    def unit(self) -> tuple[int, int]:
        return self.info.visit, self.info.detector


def ingest_files(
    space: Workspace,
    files: Sequence[Path],
    *,
    camera: str | None = None,
    refcat: Path | None = None,
    objects: Path | None = None,
    fetch: str | None = None,
    dry_run: bool = False,
    ext: str | None = None,
    keywords: Mapping[str, str] | None = None,
    mask_bits: str | None = None,
    role: str = OPEN,
) -> IngestResult:
    """Register files in a workspace.

    Parameters
    ----------
    space : Workspace
        Where to.
    files : sequence of Path
        FITS files or folders of them.
    camera : str, optional
        Camera of the files, if not the workspace's.
    refcat, objects : Path, optional
        Catalogues to take along.
    fetch : str, optional
        Catalogue of reference stars to fetch from its archive, see `harness.ingest.archives`.
    dry_run : bool
        Whether only to look.
    ext : str, optional
        Extension to take of files with several images; all of them if not given.
    keywords : mapping of str to str, optional
        Header cards of plain images by item; kept in the workspace's configuration.
    mask_bits : str, optional
        Bits of the masks of plain images that count; kept likewise.
    role : str
        Role of new visits: ``template``, ``science``, or ``open`` where the campaign chooses.

    Returns
    -------
    IngestResult
        Counts and problems.

    Raises
    ------
    InputError
        If a folder, a catalogue or the workspace cannot be used, or nothing can be fetched.
    """
    settings = _with_reading(_settings(space, camera), keywords or {}, mask_bits)
    definition = Camera.load(space.camera(settings.campaign.camera))
    campaign = settings.campaign
    cards = parse_keywords(campaign.keywords.split())
    reading = _Reading(definition, ext, cards, campaign.mask_bits or None)
    registry = _Registry(space)
    result = IngestResult()
    catalogues = _catalogues(space, refcat, objects)
    found: list[_Candidate] = []
    for path in _expanded(files):
        try:
            frames = _look(path, reading, registry)
        except InputError as err:
            result.problems.append(str(err))
            continue
        result.ignored += not frames
        found += frames
    fresh = registry.check(found, result)
    result.notes = _notes(fresh)
    if not result.problems and not dry_run:
        if fetch is not None:
            catalogues.append((space.refcat, _fetched(space, fetch, found)))
        with translate_os_errors(space.root):
            settings.save(space.config)
            for target, table in catalogues:
                io.write_parquet(target, table)
            registry.write(fresh, definition.name, role)
    return result


def _settings(space: Workspace, camera: str | None) -> Settings:
    settings = Settings.load(space.config)
    if settings.campaign.profile:
        raise ConfigError(
            "is a simulated campaign",
            path=space.root,
            hint="make another workspace without --profile",
        )
    if camera is None or camera == settings.campaign.camera:
        return settings
    if space.frames.is_file():
        raise ConfigError(
            f"holds frames of camera {settings.campaign.camera}", path=space.root,
            hint="one workspace holds one camera",
        )  # fmt: skip
    campaign = settings.campaign.model_copy(update={"camera": camera})
    return settings.model_copy(update={"campaign": campaign})


def _with_reading(
    settings: Settings, keywords: Mapping[str, str], mask_bits: str | None
) -> Settings:
    """Keep how plain images are read where the tasks will find it."""
    known = {**parse_keywords(settings.campaign.keywords.split()), **keywords}
    update = {"keywords": " ".join(f"{k}={v}" for k, v in known.items())}
    if mask_bits is not None:
        update["mask_bits"] = mask_bits
    campaign = settings.campaign.model_copy(update=update)
    return settings.model_copy(update={"campaign": campaign})


def _notes(frames: Sequence[_Candidate]) -> list[str]:
    """Collect what was assumed, each kind once with the first file and how many more."""
    kinds: dict[str, list[tuple[str, Path]]] = {}
    for frame in frames:
        for note in frame.fills:
            if not note.startswith(_USUAL):
                kinds.setdefault(re.split(r"\d", note)[0], []).append((note, frame.path))
    return [
        f"{of[0][1].name}: {of[0][0]}" + (f" (and {len(of) - 1} more like it)" if of[1:] else "")
        for of in kinds.values()
    ]


def _catalogues(
    space: Workspace, refcat: Path | None, objects: Path | None
) -> list[tuple[Path, pa.Table]]:
    tables = []
    if refcat is not None:
        tables.append((space.refcat, io.read_refcat(refcat)))
    if objects is not None:
        tables.append((space.objects, io.read_objects(objects)))
    return tables


def _fetched(space: Workspace, name: str, frames: Sequence[_Candidate]) -> pa.Table:
    """Stars round the frames, with those of earlier frames."""
    from harness.ingest.archives import fetch_refcat

    stars = fetch_refcat(name, [frame.corners for frame in frames])
    if not space.refcat.is_file():
        return stars
    before = io.read_parquet(space.refcat)
    known = pc.is_in(stars["objectId"], value_set=before["objectId"])
    return pa.concat_tables([before, stars.filter(pc.invert(known))])


def _expanded(files: Iterable[Path]) -> list[Path]:
    paths: list[Path] = []
    for path in files:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.name.lower().endswith(SUFFIXES))
            if not inside:
                raise FileFormatError("holds no FITS files", path=path)
            paths += inside
        else:
            paths.append(path)
    return list(dict.fromkeys(p.absolute() for p in paths))


def _look(path: Path, reading: _Reading, registry: _Registry) -> list[_Candidate]:
    """Return the frames of a file; none for a companion of another file."""
    camera = reading.camera
    if camera.name == "generic":
        return _generic(path, reading, registry.next_visit())
    with io.open_fits(path) as hdus:
        calibrated = str(hdus[0].header.get("PROCTYPE", "")).strip().lower() == "instcal"
    if calibrated and _COMPANION.search(path.name):
        return []
    if calibrated:
        return [
            _checked(io.read_instcal(path, number), path, "instcal")
            for number in io.list_instcal(path)
        ]
    return _raw(path, camera)


def _generic(path: Path, reading: _Reading, visit: int) -> list[_Candidate]:
    path, own = split_extension(path)
    return [
        _checked(
            io.read_generic(
                path,
                visit,
                detector=number,
                keywords=reading.keywords,
                mask_bits=reading.mask_bits,
            ),
            path,
            "generic",
        )
        for number in io.list_generic(path, own or reading.ext)
    ]


def _checked(exposure: Exposure, path: Path, kind: str) -> _Candidate:
    if not np.isfinite(exposure.image).any():
        raise FileFormatError(
            "every pixel is NaN", path=path, expected="an image", hint="leave this file out"
        )
    fills = tuple(str(v) for k, v in exposure.provenance.items() if k.startswith("FILL"))
    corners = _corners(exposure, path)
    return _Candidate(exposure.info, kind, path, file_hash(path), corners, fills)


def _raw(path: Path, camera: Camera) -> list[_Candidate]:
    contents = io.survey_raw(path, camera)
    sha256 = file_hash(path)
    frames = []
    for number in contents.detectors:
        raw = io.read_raw(path, camera, number)
        corners = _header_corners(raw.header, raw.data.shape)
        frames.append(_Candidate(raw.info, "raw", path, sha256, corners))
    return frames


def _header_corners(header: Header, shape: tuple[int, ...]) -> tuple[float, ...]:
    from pipeline import wcs as world

    coordinates = world.from_header(header)
    return () if coordinates is None else _sky_corners(coordinates, shape)


def _corners(exposure: Exposure, path: Path) -> tuple[float, ...]:
    if exposure.wcs is None:
        raise FileFormatError(
            "has no world coordinates", path=path, key="CTYPE1", expected="a WCS",
            hint="solve its astrometry first",
        )  # fmt: skip
    return _sky_corners(exposure.wcs, exposure.shape)


def _sky_corners(coordinates: WCS, shape: tuple[int, ...]) -> tuple[float, ...]:
    ny, nx = shape
    ra, dec = coordinates.all_pix2world([0, nx - 1, nx - 1, 0], [0, 0, ny - 1, ny - 1], 0)
    return tuple(float(v) for pair in zip(ra, dec, strict=True) for v in pair)


class _Registry:
    """The frames and visits that a workspace has, and those that are to come."""

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.members = _rows(space.frames)
        self.visits = {row["visit"]: row for row in _rows(space.exposures)}
        self._given = 0

    def next_visit(self) -> int:
        """Return a provisional number; `check` numbers in the order of time."""
        self._given += 1
        return max(self.visits, default=0) + self._given

    def check(self, found: Sequence[_Candidate], result: IngestResult) -> list[_Candidate]:
        """Sort out what is known, and complain of what occurs twice."""
        self._forget_replaced(found)
        known = {(space_path(self.space, m["file"]), m["detector"]) for m in self.members}
        fresh = [c for c in found if (str(c.path), c.info.detector) not in known]
        result.known = len(found) - len(fresh)
        fresh = _numbered(fresh, max(self.visits, default=0))
        seen = {(m["visit"], m["detector"]): Path(m["file"]) for m in self.members}
        starts = self._starts()
        for frame in fresh:
            twin = seen.get(frame.unit)
            if frame.kind == "generic":
                at = starts.setdefault((_start(frame.info), frame.info.band), [])
                twin = next(
                    (p for p, c in at if p != frame.path and _overlap(c, frame.corners)), None
                )
                at.append((frame.path, frame.corners))
            if twin is not None:
                result.problems.append(_twice(frame, twin))
            seen[frame.unit] = frame.path
        result.frames = len(fresh)
        result.visits = len({f.info.visit for f in fresh} - set(self.visits))
        return fresh

    def _starts(self) -> dict[tuple[float, str], list[tuple[Path, tuple[float, ...]]]]:
        """Files and corners of what is registered, by the start of the exposure and band."""
        found: dict[tuple[float, str], list[tuple[Path, tuple[float, ...]]]] = {}
        for member in self.members:
            visit = self.visits[member["visit"]]
            key = (visit["startMjdUtc"], visit["band"])
            found.setdefault(key, []).append((Path(member["file"]), tuple(member["corners"] or ())))
        return found

    def _forget_replaced(self, found: Sequence[_Candidate]) -> None:
        """Forget the registered files whose content has changed since."""
        now = {str(c.path): c.sha256 for c in found}
        files = {space_path(self.space, m["file"]): m["sha256"] for m in self.members}
        replaced = {path for path, sha256 in files.items() if now.get(path, sha256) != sha256}
        self.members = [
            m for m in self.members if space_path(self.space, m["file"]) not in replaced
        ]
        left = {m["visit"] for m in self.members}
        self.visits = {visit: row for visit, row in self.visits.items() if visit in left}

    def write(self, fresh: Sequence[_Candidate], camera: str, role: str) -> None:
        """Write both tables; the frames first, since a frame without its visit is ignored."""
        members = self.members + [
            {
                "visit": f.info.visit,
                "detector": f.info.detector,
                "kind": f.kind,
                "file": str(f.path),
                "sha256": f.sha256,
                "corners": list(f.corners),
            }
            for f in fresh
        ]
        for frame in fresh:
            former = self.visits.get(frame.info.visit, {"role": role})
            self.visits[frame.info.visit] = self._visit_row(frame, members, camera, former["role"])
        io.write_parquet(self.space.frames, frames_table(members))
        rows = [self.visits[v] for v in sorted(self.visits)]
        io.write_parquet(self.space.exposures, EXPOSURE.from_rows(rows))

    def _visit_row(
        self, frame: _Candidate, members: Sequence[dict[str, Any]], camera: str, role: str
    ) -> dict[str, object]:
        info = frame.info
        numbers = sorted(m["detector"] for m in members if m["visit"] == info.visit)
        return {
            "visit": info.visit,
            "band": info.band,
            "field": info.field or None,
            "exptime": info.exptime,
            "startMjdUtc": _start(info),
            "midpointMjdTai": info.midpoint_mjd_tai,
            "ra": info.ra,
            "dec": info.dec,
            "airmass": info.airmass,
            "role": role,
            "camera": camera,
            "detectors": " ".join(str(n) for n in numbers),
            "kind": frame.kind,
            "file": str(frame.path),
            "sha256": frame.sha256,
        }


def space_path(space: Workspace, stored: str) -> str:
    """Return a stored path as it was given."""
    return str(space.resolve(stored))


def _numbered(frames: Sequence[_Candidate], last: int) -> list[_Candidate]:
    """Give frames of cameras without exposure numbers one, in the order of time."""
    generic = sorted(
        (f for f in frames if f.kind == "generic"), key=lambda f: (f.info.midpoint_mjd_tai, f.path)
    )
    paths = list(dict.fromkeys(f.path for f in generic))
    numbers = {path: last + i for i, path in enumerate(paths, start=1)}
    return [
        replace(f, info=replace(f.info, visit=numbers[f.path])) if f.kind == "generic" else f
        for f in frames
    ]


def _twice(frame: _Candidate, twin: Path | str) -> str:
    what = f"visit {frame.info.visit} detector {frame.info.detector}"
    if frame.kind == "generic":
        what = f"an exposure of the same start and band ({frame.info.band})"
    return str(
        FileFormatError(f"{what} is also in {twin}", path=frame.path, hint="give one of the two")
    )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Tell two images of one sky from two chips of one exposure: the centre lies in the other."""
    if not a or not b:
        return True
    first, second = (unit_vectors(np.array(c[::2]), np.array(c[1::2])) for c in (a, b))
    centres = [v.mean(axis=0) / np.linalg.norm(v.mean(axis=0)) for v in (first, second)]
    reach = np.linalg.norm(first - centres[0], axis=1).max() / np.sqrt(2.0)
    return bool(np.linalg.norm(centres[0] - centres[1]) < reach)


def _start(info: VisitInfo) -> float:
    start_tai = info.midpoint_mjd_tai - 0.5 * info.exptime / 86400.0
    return mjd_tai_to_utc(start_tai)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = io.read_parquet(path).to_pylist() if path.is_file() else []
    return rows
