"""A whole campaign on disk: raw frames, calibrations, catalogues, ephemerides, truth."""

from __future__ import annotations

import json
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
from sims.rawfile import extension, split, write_raw

__all__ = ["simulate"]

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
        If the profile, a visit or a detector does not exist.
    """
    plan = _Plan.make(Path(root), profile, seed, visits, detectors)
    tell = progress or (lambda label, done, total: None)
    fresh = _write_plan(plan)
    calibration.write_camera(plan.root / "calib" / "camera", plan.profile.camera, seed)
    with _Pool(jobs) as pool:
        tasks = [partial(_make_catalogues, plan)] if fresh else []
        tasks += [
            partial(_make_calibrations, plan, d)
            for d in plan.detectors
            if fresh or not _bias(plan, d).is_file()
        ]
        tasks += [partial(_make_unit, plan, v, d) for d in plan.detectors for v in plan.visits]
        _run(pool, tasks, tell, "simulate")
    tell("assemble", 0, len(plan.visits))
    for i, visit in enumerate(plan.visits):
        _assemble_raw(plan, visit)
        tell("assemble", i + 1, len(plan.visits))
    _assemble_truth(plan)
    _write_exposures(plan)


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
    pool: ProcessPoolExecutor | None, tasks: list[partial[None]], tell: Progress, label: str
) -> None:
    tell(label, 0, len(tasks))
    for i, _ in enumerate(_done(pool, tasks)):
        tell(label, i + 1, len(tasks))


def _done(pool: ProcessPoolExecutor | None, tasks: list[partial[None]]) -> Iterator[None]:
    if pool is None:
        for task in tasks:
            yield task()
        return
    futures: list[Future[None]] = [pool.submit(task) for task in tasks]
    for future in as_completed(futures):
        yield future.result()


def _make_unit(plan: _Plan, visit: int, detector: int) -> None:
    camera = Camera.load(plan.profile.camera)
    told = calibration.believed_camera(plan.root / "calib" / "camera", camera.name)
    frame = make_frame(plan.profile, plan.seed, visit, detector)
    conditions = plan.profile.conditions(plan.seed, plan.profile.visit(visit))
    geometry = DetectorGeometry(camera, camera.detector(detector))
    hdu = extension(frame.raw, conditions, geometry, told.detector(detector))
    with atomic_path(plan.part("hdu", visit, detector)) as path:
        path.write_bytes(hdu)
    write_parquet(plan.part("parquet", visit, detector), frame.truth)
    _write_artefacts(plan, visit, detector, frame.artefacts)


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


def _bias(plan: _Plan, detector: int) -> Path:
    return plan.root / "calib" / f"bias_{detector:02d}.fits"


def _make_calibrations(plan: _Plan, detector: int) -> None:
    camera = Camera.load(plan.profile.camera)
    folder = plan.root / "calib"
    told = calibration.believed_camera(folder / "camera", camera.name).detector(detector)
    for band in sorted({v.band for v in plan.profile.visits}):
        path = folder / f"flat_{band}_{detector:02d}.fits"
        calibration.write_flat(path, plan.seed, band, camera, told)
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


def _assemble_raw(plan: _Plan, visit: int) -> None:
    """Join extensions made now with those already in the file."""
    path = plan.raw(visit)
    extensions = _present(path)
    for detector in plan.detectors:
        part = plan.part("hdu", visit, detector)
        extensions[detector] = part.read_bytes()
    profile = plan.profile
    conditions = profile.conditions(plan.seed, profile.visit(visit))
    write_raw(path, plan.seed, conditions, Camera.load(profile.camera), extensions)
    for detector in plan.detectors:
        plan.part("hdu", visit, detector).unlink()


def _present(path: Path) -> dict[int, bytes]:
    if not path.is_file():
        return {}
    from astropy.io import fits

    hdus = split(path.read_bytes())[1:]
    return {int(fits.Header.fromstring(h[: 2880 * 8])["CCDNUM"]): h for h in hdus}


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
    catalogues_exist = (plan.root / "ephemerides" / "ephemerides.parquet").is_file()
    if catalogues_exist and target.is_file() and target.read_text() == text:
        return False
    with atomic_path(target) as path:
        path.write_text(text)
    return True


def _write_exposures(plan: _Plan) -> None:
    import hashlib

    rows = []
    for visit in plan.profile.visits:
        path = plan.raw(visit.number)
        if not path.is_file():
            continue
        conditions = plan.profile.conditions(plan.seed, visit)
        rows.append(
            {
                "visit": visit.number,
                "band": visit.band,
                "field": visit.field,
                "exptime": visit.exptime,
                "startMjdUtc": visit.start_mjd_utc,
                "midpointMjdTai": visit.midpoint,
                "ra": visit.ra,
                "dec": visit.dec,
                "airmass": conditions.airmass,
                "role": visit.role,
                "camera": plan.profile.camera,
                "detectors": " ".join(str(d) for d in sorted(_present(path))),
                "kind": "raw",
                "file": str(path.relative_to(plan.root)),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        )
    write_parquet(plan.root / "raw" / "exposures.parquet", schema.EXPOSURE.from_rows(rows))
