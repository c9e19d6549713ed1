"""Registering frames from real telescopes: look at every file first, then write two small tables.

The files themselves stay where they are.  Every file is opened, its keywords read and its pixels
looked at; what is wrong with one is one line, and unless all are good nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.wcs import WCS

from harness.ingest.cameras import adopt_camera
from harness.ingest.registry import Candidate, IngestResult, Registry
from harness.plan import OPEN
from harness.settings import Settings
from harness.system.hashes import file_hash
from harness.workspace import Workspace, translate_os_errors
from pipeline import io
from pipeline.camera import Camera
from pipeline.errors import ConfigError, FileFormatError, InputError
from pipeline.exposure import Exposure
from pipeline.io.headers import Header
from pipeline.io.keywords import parse_keywords
from pipeline.io.planes import split_extension

__all__ = ["SUFFIXES", "campaign_settings", "header_corners", "ingest_files"]

SUFFIXES = (".fits", ".fits.fz", ".fit", ".fits.gz", ".fits.bz2", ".fts")
"""Endings of the names of FITS files, compressed ones included."""
_USUAL = ("variance: from counts", "no mask", "saturation: no keyword")
_COMPANION = re.compile(r"_oo[dw]_|wtmap|dqmask")  # in the name; PRODTYPE cannot be relied on


@dataclass(frozen=True, slots=True)
class _Reading:
    """How plain FITS images are read."""

    camera: Camera
    ext: str | None
    keywords: Mapping[str, str]
    mask_bits: str | None


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
    base = campaign_settings(space, camera, keep=not dry_run)
    settings = _with_reading(base, keywords or {}, mask_bits)
    definition = Camera.load(space.camera(settings.campaign.camera))
    cards = parse_keywords(settings.campaign.keywords.split())
    reading = _Reading(definition, ext, cards, settings.campaign.mask_bits or None)
    registry = Registry(space)
    result = IngestResult()
    catalogues = _catalogues(space, refcat, objects)
    found = _found(files, reading, registry, result)
    fresh = registry.check(found, result)
    result.notes = _notes(fresh)
    if not result.problems and not dry_run:
        if fetch is not None:
            catalogues.append((space.refcat, _fetched(space, fetch, found)))
        with translate_os_errors(space.root):
            settings.save(space.config)
            for target, table in catalogues:
                io.write_parquet(target, table)
            registry.write(_with_role(fresh, registry, role), definition.name)
    return result


def _found(
    files: Iterable[Path], reading: _Reading, registry: Registry, result: IngestResult
) -> list[Candidate]:
    """Frames of the files that can be used; what is wrong with the others is noted in `result`."""
    found: list[Candidate] = []
    for path in _expanded(files):
        try:
            frames = _look(path, reading, registry)
        except InputError as err:
            result.problems.append(str(err))
            continue
        result.ignored += not frames
        found += frames
    return found


def _with_role(frames: Sequence[Candidate], registry: Registry, role: str) -> list[Candidate]:
    """Give frames their role; those of a visit that is known keep the visit's."""
    known = registry.visits
    return [
        replace(f, role=known[f.info.visit]["role"] if f.info.visit in known else role)
        for f in frames
    ]


def campaign_settings(space: Workspace, camera: str | None, *, keep: bool = True) -> Settings:
    """Read the settings of a workspace for real frames.

    Parameters
    ----------
    space : Workspace
        The workspace.
    camera : str, optional
        Camera of the frames, if not the workspace's.
    keep : bool
        Whether the workspace takes a definition from a file along.

    Returns
    -------
    Settings
        Those of the workspace, with that camera.

    Raises
    ------
    ConfigError
        If it is for a simulated campaign, or holds frames of another camera.
    """
    settings = Settings.load(space.config)
    if settings.campaign.profile:
        raise ConfigError(
            "is a simulated campaign",
            path=space.root,
            hint="make another workspace without --profile",
        )
    if camera is not None and keep:
        camera = adopt_camera(space, camera)
    if camera is None or camera == settings.campaign.camera:
        return settings
    if space.frames.is_file():
        if Camera.load(camera).name == settings.campaign.camera:  # its own copy counts
            return settings
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


def _notes(frames: Sequence[Candidate]) -> list[str]:
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


def _fetched(space: Workspace, name: str, frames: Sequence[Candidate]) -> pa.Table:
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


def _look(path: Path, reading: _Reading, registry: Registry) -> list[Candidate]:
    """Return the frames of a file; none for a companion of another file."""
    camera = reading.camera
    if camera.plain:
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


def _generic(path: Path, reading: _Reading, visit: int) -> list[Candidate]:
    path, own = split_extension(path)
    return [
        _checked(
            io.read_generic(
                path,
                visit,
                detector=number,
                camera=reading.camera,
                keywords=reading.keywords,
                mask_bits=reading.mask_bits,
            ),
            path,
            "generic",
        )
        for number in io.list_generic(path, own or reading.ext or reading.camera.extension or None)
    ]


def _checked(exposure: Exposure, path: Path, kind: str) -> Candidate:
    if not np.isfinite(exposure.image).any():
        raise FileFormatError(
            "every pixel is NaN", path=path, expected="an image", hint="leave this file out"
        )
    fills = tuple(str(v) for k, v in exposure.provenance.items() if k.startswith("FILL"))
    corners = _corners(exposure, path)
    return Candidate(exposure.info, kind, path, file_hash(path), corners, fills)


def _raw(path: Path, camera: Camera) -> list[Candidate]:
    contents = io.survey_raw(path, camera)
    sha256 = file_hash(path)
    frames = []
    for number in contents.detectors:
        raw = io.read_raw(path, camera, number)
        corners = header_corners(raw.header, raw.data.shape)
        frames.append(Candidate(raw.info, "raw", path, sha256, corners))
    return frames


def header_corners(header: Header, shape: tuple[int, ...]) -> tuple[float, ...]:
    """Corners of an image by the coordinates of its header.

    Parameters
    ----------
    header : mapping
        Its keywords.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    tuple of float, deg
        RA and Dec of the four corners in turn; empty without coordinates.
    """
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
