"""A whole campaign on disk: raw frames, calibrations, catalogues, ephemerides, truth."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import schema
from pipeline.camera import Camera
from pipeline.errors import ConfigError
from pipeline.io import atomic_path, read_parquet, write_parquet
from pipeline.io.hdus import cards, compressed_hdu, primary_hdu
from sims import calibration, catalogues, minorplanets
from sims.artefacts import ARTEFACTS, Map
from sims.frame import make_frame
from sims.geometry import DetectorGeometry
from sims.profiles import Profile, profiles
from sims.rawfile import PROGRAM, Piece, extension, pieces, write_raw
from sims.schedule import Visit

__all__ = ["simulate"]

_LOGGER = logging.getLogger(__name__)
_Task = Callable[[], str | None]

Progress = Callable[[str, int, int], None]
_Key = tuple[int, int]


def simulate(
    root: Path,
    profile: str,
    *,
    seed: int = 1,
    jobs: int = 1,
    visits: Iterable[int] | None = None,
    detectors: Iterable[int] | None = None,
    progress: Progress | None = None,
) -> None:
    """Simulate a campaign, or some frames of it, into a workspace.

    Every frame depends on the profile, the seed, its visit and its detector only: any subset made
    in any order by any number of processes has the same bytes, and frames made later join the
    files of those made before.

    Parameters
    ----------
    root : path-like
        The workspace; gets ``raw/``, ``calib/``, ``refcat/``, ``ephemerides/`` and ``truth/``.
    profile : str
        One of `profiles`.
    seed : int
        Seed of the campaign.
    jobs : int
        Processes; 1 works in this one.
    visits, detectors : iterable of int, optional
        Make only these.
    progress : callable, optional
        Called with a label, the units done and their number.

    Raises
    ------
    ConfigError
        If the profile, a visit or a detector does not exist, or the workspace holds frames of
        another profile or seed.
    """
    plan = _Plan.make(Path(root), profile, seed, visits, detectors)
    _LOGGER.info(
        "profile %s, seed %d: %d visits, %d detectors", profile, seed, len(plan.visits),
        len(plan.detectors),
    )  # fmt: skip
    notify = progress or (lambda label, done, total: None)
    fresh = _write_plan(plan)
    if fresh or not _camera_file(plan).is_file():
        calibration.write_camera(_camera_file(plan).parent, plan.profile.camera, seed)
    with _Pool(jobs) as pool:
        tasks: list[_Task] = [partial(_make_catalogues, plan)] if fresh else []
        tasks += [
            partial(_make_calibrations, plan, d)
            for d in plan.detectors
            if fresh or not _bias(plan, d).is_file()
        ]
        tasks += [partial(_make_unit, plan, v, d) for d in plan.detectors for v in plan.visits]
        _run(pool, tasks, notify, "simulate")
    if not fresh:
        _LOGGER.info("catalogues and calibration frames that were there are kept")
    notify("assemble", 0, len(plan.visits))
    for i, visit in enumerate(plan.visits):
        _assemble_raw(plan, visit)
        notify("assemble", i + 1, len(plan.visits))
    _assemble_truth(plan)
    _write_exposures(plan, known={} if fresh else _known_exposures(plan))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one call makes."""

    root: Path
    profile: Profile
    seed: int
    visits: tuple[int, ...]
    detectors: tuple[int, ...]

    @classmethod
    def make(
        cls,
        root: Path,
        name: str,
        seed: int,
        visits: Iterable[int] | None,
        detectors: Iterable[int] | None,
    ) -> _Plan:
        known = profiles()
        if name not in known:
            raise ConfigError(f"unknown profile {name!r}", expected=", ".join(known))
        profile = known[name]
        return cls(
            root,
            profile,
            seed,
            _subset("visit", [v.number for v in profile.visits], visits),
            _subset("detector", list(profile.detectors), detectors),
        )

    def part(self, kind: str, visit: int, detector: int) -> Path:
        """File that holds one unit's share until the shares are joined."""
        return self.root / "raw" / ".parts" / f"{visit}_{detector:02d}.{kind}"

    def raw(self, visit: int) -> Path:
        return self.root / "raw" / f"{visit}.fits.fz"


def _subset(what: str, all_: list[int], wanted: Iterable[int] | None) -> tuple[int, ...]:
    if wanted is None:
        return tuple(all_)
    chosen = set(wanted)
    if missing := sorted(chosen - set(all_)):
        raise ConfigError(
            f"the profile has no {what} {missing[0]}", expected=", ".join(map(str, all_))
        )
    return tuple(n for n in all_ if n in chosen)


class _Pool:
    """A pool of fresh processes, or none for a single job."""

    def __init__(self, jobs: int) -> None:
        self.executor: ProcessPoolExecutor | None = None
        if jobs > 1:
            context = multiprocessing.get_context("spawn")
            self.executor = ProcessPoolExecutor(jobs, mp_context=context)

    def __enter__(self) -> ProcessPoolExecutor | None:
        return self.executor

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if self.executor is not None:
            self.executor.shutdown(cancel_futures=kind is not None)


def _run(
    pool: ProcessPoolExecutor | None, tasks: list[_Task], notify: Progress, label: str
) -> None:
    notify(label, 0, len(tasks))
    for i, report in enumerate(_done(pool, tasks)):
        if report:
            _LOGGER.info("%s", report)
        notify(label, i + 1, len(tasks))


def _done(pool: ProcessPoolExecutor | None, tasks: list[_Task]) -> Iterator[str | None]:
    if pool is None:
        for task in tasks:
            yield task()
        return
    futures: list[Future[str | None]] = [pool.submit(task) for task in tasks]
    for future in as_completed(futures):
        yield future.result()


def _make_unit(plan: _Plan, visit: int, detector: int) -> str:
    camera = Camera.load(plan.profile.camera)
    nominal = calibration.nominal_camera(plan.root / "calib" / "camera", camera.name)
    frame = make_frame(plan.profile, plan.seed, visit, detector)
    conditions = plan.profile.conditions(plan.seed, plan.profile.visit(visit))
    geometry = DetectorGeometry(camera, camera.detector(detector))
    hdu = extension(frame.raw, conditions, geometry, nominal.detector(detector))
    with atomic_path(plan.part("hdu", visit, detector)) as path:
        path.write_bytes(hdu)
    write_parquet(plan.part("parquet", visit, detector), frame.truth)
    _write_artefacts(plan, visit, detector, frame.artefacts)
    width = conditions.psf.fwhm * conditions.psf.pixel_scale
    return f"{visit} {detector}: {frame.truth.num_rows} sources, FWHM {width:.2f} arcsec"


def _write_artefacts(plan: _Plan, visit: int, detector: int, artefacts: Map) -> None:
    header = cards(
        [
            ("EXPNUM", visit, "exposure number"),
            ("CCDNUM", detector, "detector"),
            *((f"MP_{name}", i, text) for i, (name, text) in enumerate(ARTEFACTS.items())),
        ]
    )
    with atomic_path(plan.root / "truth" / "artefacts" / f"{visit}_{detector:02d}.fits") as path:
        path.write_bytes(primary_hdu(header) + compressed_hdu("ARTEFACTS", artefacts, header))


def _camera_file(plan: _Plan) -> Path:
    return plan.root / "calib" / "camera" / f"{plan.profile.camera}.toml"


def _bias(plan: _Plan, detector: int) -> Path:
    return plan.root / "calib" / f"bias_{detector:02d}.fits"


def _make_calibrations(plan: _Plan, detector: int) -> None:
    camera = Camera.load(plan.profile.camera)
    folder = plan.root / "calib"
    nominal = calibration.nominal_camera(folder / "camera", camera.name).detector(detector)
    for band in sorted({v.band for v in plan.profile.visits}):
        path = folder / f"flat_{band}_{detector:02d}.fits"
        calibration.write_flat(path, plan.seed, band, camera, nominal)
    # Last: where there is a bias, there are the flats.
    calibration.write_bias(_bias(plan, detector), plan.seed, camera.detector(detector))


def _make_catalogues(plan: _Plan) -> None:
    root, profile, seed = plan.root, plan.profile, plan.seed
    write_parquet(root / "refcat" / "refcat.parquet", catalogues.reference(profile, seed))
    write_parquet(root / "refcat" / "objects.parquet", catalogues.objects(profile, seed))
    write_parquet(root / "truth" / "objects.parquet", catalogues.truth(profile, seed))
    write_parquet(
        root / "ephemerides" / "ephemerides.parquet", minorplanets.ephemerides(profile, seed)
    )
    write_parquet(root / "ephemerides" / "mpc_orbits.parquet", minorplanets.orbits(profile, seed))


def _assemble_raw(plan: _Plan, visit: int) -> None:
    """Join extensions made now with those already in the file."""
    path = plan.raw(visit)
    extensions = pieces(path) if path.is_file() else {}
    for detector in plan.detectors:
        part = plan.part("hdu", visit, detector)
        extensions[detector] = Piece(part, 0, part.stat().st_size)
    profile = plan.profile
    conditions = profile.conditions(plan.seed, profile.visit(visit))
    write_raw(path, plan.seed, conditions, Camera.load(profile.camera), extensions)
    for detector in plan.detectors:
        plan.part("hdu", visit, detector).unlink()


def _assemble_truth(plan: _Plan) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    path = plan.root / "truth" / "visits.parquet"
    made = [(v, d) for v in plan.visits for d in plan.detectors]
    tables = [read_parquet(plan.part("parquet", v, d)) for v, d in made]
    if path.is_file():
        before = read_parquet(path)
        codes = pc.add(pc.multiply(before["visit"], 1000), pc.cast(before["detector"], "int64"))
        new = pa.array([v * 1000 + d for v, d in made], pa.int64())
        tables.append(before.filter(pc.invert(pc.is_in(codes, value_set=new))))
    order = [("visit", "ascending"), ("detector", "ascending"), ("truthId", "ascending")]
    write_parquet(path, pa.concat_tables(tables).sort_by(order))
    for v, d in made:
        plan.part("parquet", v, d).unlink()
    _remove_if_empty(plan.part("hdu", 0, 0).parent)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _write_plan(plan: _Plan) -> bool:
    """Write the pinned list of frames; return whether there was another or none before."""
    profile = plan.profile
    document = {
        "profile": profile.name,
        "camera": profile.camera,
        "seed": plan.seed,
        "numpy": np.__version__,
        "detectors": list(profile.detectors),
        "visits": [
            {"visit": v.number, "field": v.field, "band": v.band, "role": v.role}
            for v in profile.visits
        ],
    }
    target, text = plan.root / "raw" / "plan.json", json.dumps(document, indent=1) + "\n"
    same = target.is_file() and target.read_text() == text
    if same and (plan.root / "ephemerides" / "ephemerides.parquet").is_file():
        return False
    if not same and any(target.parent.glob("*.fits.fz")):
        raise ConfigError(
            f"{plan.root} holds frames of another campaign",
            expected="an empty workspace, or the profile, seed and numpy of raw/plan.json",
        )
    with atomic_path(target) as path:
        path.write_text(text)
    return True


def _known_exposures(plan: _Plan) -> dict[int, dict[str, object]]:
    """Rows of the visits whose files were made before and are not touched now."""
    path = _exposures_file(plan)
    rows = read_parquet(path).to_pylist() if path.is_file() else []
    return {row["visit"]: row for row in rows if row["visit"] not in plan.visits}


def _write_exposures(plan: _Plan, known: dict[int, dict[str, object]]) -> None:
    made = [v for v in plan.profile.visits if plan.raw(v.number).is_file()]
    rows = [known.get(v.number) or _exposure(plan, v) for v in made]
    write_parquet(_exposures_file(plan), schema.EXPOSURE.from_rows(rows))


def _exposures_file(plan: _Plan) -> Path:
    return plan.root / "raw" / "exposures.parquet"


def _exposure(plan: _Plan, visit: Visit) -> dict[str, object]:
    path = plan.raw(visit.number)
    with path.open("rb") as f:
        checksum = hashlib.file_digest(f, "sha256").hexdigest()
    return {
        "visit": visit.number,
        "band": visit.band,
        "field": visit.field,
        "observationReason": PROGRAM,
        "exptime": visit.exptime,
        "startMjdUtc": visit.start_mjd_utc,
        "midpointMjdTai": visit.midpoint,
        "ra": visit.ra,
        "dec": visit.dec,
        "airmass": plan.profile.conditions(plan.seed, visit).airmass,
        "role": visit.role,
        "camera": plan.profile.camera,
        "detectors": " ".join(str(d) for d in sorted(pieces(path))),
        "kind": "raw",
        "file": str(path.relative_to(plan.root)),
        "sha256": checksum,
    }
