"""Values measured on the frames of a simulated campaign beside their inputs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import erfa
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io import fits
from scipy.ndimage import binary_dilation, label
from scipy.stats import kstest, kstwo

from pipeline.camera import Camera, Detector
from pipeline.exposure import NJY_ZERO_POINT, FloatArray, Image
from pipeline.io import read_parquet, read_raw
from pipeline.schema import to_numpy
from sims.artefacts import COSMIC_RAYS_PER_SECOND, FULL_SIZE, Map, bit
from sims.calibration import true_flat
from sims.geometry import DetectorGeometry
from sims.profiles import Profile, profiles
from sims.schedule import Visit
from sims.sky import GALAXY_SLOPE, STAR_SLOPE
from sims.statistics.rows import Curve, Row, Statistics
from sims.statistics.stars import Measured, electrons, measure_stars, offsets_rows, width_of

__all__ = ["campaign"]

_SIGMAS = 4.0  # of counting statistics that a count may be off
_BINS = 0.5  # mag
_SEEING = 0.02  # relative
_RATE = 0.05  # relative; tracks cross and fall apart
_FLUXES = (2.0e4, 6.0e5)  # electrons of the stars that are measured
_FAINTER, _NEIGHBOUR = 0.01, 20.0  # relative flux and distance in pixels of what spoils a star
_STARS = 80  # per frame at most
_MILLISECOND = 1.0 / 86_400_000.0  # days


@dataclass(frozen=True, slots=True)
class _Campaign:
    """A workspace, what was simulated in it, and which frames of it exist."""

    root: Path
    profile: Profile
    seed: int
    frames: tuple[tuple[Visit, Detector], ...]

    @classmethod
    def open(cls, root: Path) -> _Campaign:
        plan = json.loads((root / "raw" / "plan.json").read_text())
        profile = profiles()[plan["profile"]]
        camera = Camera.load(profile.camera)
        table = read_parquet(root / "raw" / "exposures.parquet")
        frames = [
            (profile.visit(row["visit"]), camera.detector(int(number)))
            for row in table.select(["visit", "detectors"]).to_pylist()
            for number in row["detectors"].split()
        ]
        return cls(root, profile, int(plan["seed"]), tuple(frames))

    def some(self, most: int) -> _Campaign:
        """Return the same with at most so many of its frames."""
        if len(self.frames) <= most:
            return self
        rows = np.unique(np.linspace(0, len(self.frames) - 1, most).astype(int))
        return replace(self, frames=tuple(self.frames[k] for k in rows))

    @property
    def camera(self) -> Camera:
        return Camera.load(self.profile.camera)

    def artefacts(self, visit: Visit, detector: Detector) -> Map:
        path = self.root / "truth" / "artefacts" / f"{visit.number}_{detector.number:02d}.fits"
        return np.asarray(fits.getdata(path), np.uint32)

    def truth(self) -> pa.Table:
        """Return the sources of all frames with their class and mean brightness in g."""
        objects = read_parquet(self.root / "truth" / "objects.parquet")
        columns = objects.select(["truthId", "kind", "gFlux"])
        return read_parquet(self.root / "truth" / "visits.parquet").join(columns, "truthId")


def campaign(root: Path, *, most: int = 24) -> Statistics:
    """Measure the raw frames and artefact maps of a simulated workspace.

    Parameters
    ----------
    root : path-like
        A workspace written by `sims.simulate`, or some frames of one.
    most : int
        Frames whose pixels are looked at, spread evenly over the campaign.  Tables are compared
        as a whole.

    Returns
    -------
    Statistics
        Number counts of stars and galaxies, seeing, rate of cosmic rays, positions of stars, and
        the middle of each exposure.
    """
    made = _Campaign.open(Path(root))
    truth = made.truth()
    some = made.some(most)
    counts = [_number_counts(made, truth, kind) for kind in ("star", "galaxy")]
    return Statistics.join(
        [*counts, _stars(some, truth), _seeing_drawn(made), _cosmic_rays(some), _midpoints(made)]
    )


def _number_counts(made: _Campaign, truth: pa.Table, kind: str) -> Statistics:
    sky, star = made.profile.sky, kind == "star"
    density, limits, slope = (
        (sky.stars, sky.star_limits, STAR_SLOPE)
        if star
        else (sky.galaxies, sky.galaxy_limits, GALAXY_SLOPE)
    )
    first = {(v.field, d.number): (v, d) for v, d in reversed(made.frames)}
    area = sum(_area(made, v, d) for v, d in first.values())
    mags = np.concatenate([_magnitudes(truth, kind, v, d) for v, d in first.values()])
    edges = np.append(np.arange(limits[0], limits[1], _BINS), limits[1])
    growth = 10.0 ** (slope * (edges - limits[1]))
    expected = density * area * np.diff(growth) / (growth[-1] - growth[0])
    counts = np.histogram(mags, edges)[0].astype(float)
    total, n = float(expected.sum()), len(mags)
    enough = expected >= 5.0
    score = float(((counts - expected)[enough] ** 2 / expected[enough]).mean())
    width = _SIGMAS * float(np.sqrt(2.0 / enough.sum()))
    name = f"counts of {'stars' if star else 'galaxies'}"
    rows = (
        Row(name, "all", n / area, density, _SIGMAS / np.sqrt(total), "deg⁻²", n, relative=True),
        Row(f"{name}, χ² per bin", f"{enough.sum()} bins", score, 1.0, width, "", n),
    )
    middle = 0.5 * (edges[1:] + edges[:-1])
    return Statistics(rows, (Curve(name, "g, mag", "sources per bin", middle, counts, expected),))


def _magnitudes(truth: pa.Table, kind: str, visit: Visit, detector: Detector) -> FloatArray:
    mine = pc.and_(pc.equal(truth["visit"], visit.number), pc.equal(truth["kind"], kind))
    mine = pc.and_(mine, pc.equal(truth["detector"], detector.number))
    return np.asarray(NJY_ZERO_POINT - 2.5 * np.log10(to_numpy(truth.filter(mine), "gFlux")))


def _area(made: _Campaign, visit: Visit, detector: Detector) -> float:
    """Solid angle of a detector in square degrees, from the sky positions of a grid of pixels."""
    geometry = DetectorGeometry(made.camera, detector)
    ny, nx = detector.shape
    x, y = np.meshgrid(np.linspace(-0.5, nx - 0.5, 9), np.linspace(-0.5, ny - 0.5, 9))
    pointing = made.profile.conditions(made.seed, visit).pointing
    ra, dec = (a.reshape(9, 9) for a in geometry.to_sky(pointing, x.ravel(), y.ravel()))
    u = (ra - ra[0, 0]) * np.cos(np.radians(dec))
    along = np.stack([np.diff(a, axis=1)[:-1] for a in (u, dec)])
    across = np.stack([np.diff(a, axis=0)[:, :-1] for a in (u, dec)])
    return float(np.abs(along[0] * across[1] - along[1] * across[0]).sum())


def _stars(made: _Campaign, truth: pa.Table) -> Statistics:
    """Compare positions with the truth's, and the width of stars with the seeing of their visit."""
    by_visit: dict[int, list[Measured]] = {}
    for visit, detector in made.frames:
        by_visit.setdefault(visit.number, []).append(_measured(made, truth, visit, detector))
    rows, seeing = [], []
    for number, parts in by_visit.items():
        stars = Measured.join(parts)
        if len(stars) == 0:
            continue
        psf = made.profile.conditions(made.seed, made.profile.visit(number)).psf
        width, _ = width_of(stars, psf)
        seeing.append((psf.fwhm * psf.pixel_scale, width))
        rows.append(
            Row(
                "seeing", f"visit {number}", width, seeing[-1][0], _SEEING, "arcsec",
                len(stars), relative=True,
            )
        )  # fmt: skip
    everything = Measured.join(p for parts in by_visit.values() for p in parts)
    places = offsets_rows("truth", everything, made.camera.pixel_scale)
    # Neighbours that are too faint to be left out widen the scatter: it is judged without them.
    medians = tuple(r for r in places.rows if "scatter" not in r.name)
    true, found = np.array(sorted(seeing), float).reshape(-1, 2).T
    curve = Curve("seeing", "drawn, arcsec", "measured, arcsec", true, found, true)
    return Statistics((*medians, *rows), (*places.curves, curve))


def _measured(made: _Campaign, truth: pa.Table, visit: Visit, detector: Detector) -> Measured:
    mine = pc.and_(
        pc.equal(truth["visit"], visit.number), pc.equal(truth["detector"], detector.number)
    )
    table = truth.filter(mine)
    x, y, flux = (to_numpy(table, c) for c in ("x", "y", "fluxElectrons"))
    star = np.array(table["kind"].to_pylist()) == "star"
    good = star & (flux > _FLUXES[0]) & (flux < _FLUXES[1])
    alone = np.array([k for k in np.flatnonzero(good) if not _is_blended(int(k), x, y, flux)], int)
    alone = alone[:_STARS]
    raw = read_raw(made.root / "raw" / f"{visit.number}.fits.fz", made.camera, detector.number)
    image = electrons(raw.data, detector) / true_flat(made.seed, visit.band, made.camera, detector)
    return measure_stars(
        image,
        made.artefacts(visit, detector),
        made.profile.conditions(made.seed, visit),
        DetectorGeometry(made.camera, detector),
        (x[alone], y[alone], flux[alone]),
    )


@lru_cache(maxsize=2)
def _flat(camera: str, seed: int, band: str, number: int) -> Image:
    loaded = Camera.load(camera)
    return true_flat(seed, band, loaded, loaded.detector(number))


def _is_blended(k: int, x: FloatArray, y: FloatArray, flux: FloatArray) -> bool:
    near = np.hypot(x - x[k], y - y[k]) < _NEIGHBOUR
    near[k] = False
    return bool((flux[near] > _FAINTER * flux[k]).any())


def _seeing_drawn(made: _Campaign) -> Statistics:
    """Compare the seeing of all science visits with the even distribution it is drawn from."""
    low, high = made.profile.science_seeing
    science = [v for v in made.profile.visits if v.role == "science"]
    drawn = np.sort([made.profile.conditions(made.seed, v).seeing for v in science])
    distance = float(kstest(drawn, "uniform", args=(low, high - low)).statistic)
    critical = float(kstwo.ppf(0.999, len(drawn)))
    row = Row("distribution of the seeing", "science", distance, 0.0, critical, "", len(drawn))
    share = (np.arange(len(drawn)) + 0.5) / len(drawn)
    curve = Curve(
        "distribution of the seeing", "seeing, arcsec", "fraction below",
        drawn, share, np.clip((drawn - low) / (high - low), 0.0, 1.0),
    )  # fmt: skip
    return Statistics((row,), (curve,))


def _cosmic_rays(made: _Campaign) -> Statistics:
    counts, expected = [], []
    for visit, detector in made.frames:
        ny, nx = detector.shape
        expected.append(COSMIC_RAYS_PER_SECOND * visit.exptime * nx * ny / FULL_SIZE)
        counts.append(_tracks(made.artefacts(visit, detector)))
    found, true = np.array(counts, float), np.array(expected)
    seconds = true.sum() / COSMIC_RAYS_PER_SECOND
    bound = max(_RATE, _SIGMAS / float(np.sqrt(true.sum())))
    row = Row(
        "rate of cosmic rays", "all frames", float(found.sum() / seconds),
        COSMIC_RAYS_PER_SECOND, bound, "s⁻¹ per full-size CCD", int(found.sum()), relative=True,
    )  # fmt: skip
    frames = np.arange(1.0, len(found) + 1.0, dtype=float)
    curve = Curve("rate of cosmic rays", "frame", "tracks", frames, found, true)
    return Statistics((row,), (curve,))


def _tracks(artefacts: Map) -> int:
    # A faint track is marked with gaps.
    marked = binary_dilation((artefacts & bit("CR")) != 0, np.ones((3, 3)))
    return int(label(marked, np.ones((3, 3)))[1])


def _midpoints(made: _Campaign) -> Statistics:
    """Compare the middle of exposures from their headers, by ERFA, with that of the tables."""
    exposures = read_parquet(made.root / "raw" / "exposures.parquet").to_pylist()
    truth = read_parquet(made.root / "truth" / "visits.parquet")
    nominal = dict(zip(to_numpy(truth, "visit"), to_numpy(truth, "midpointMjdTai"), strict=True))
    rows = []
    for exposure in exposures:
        header = fits.getheader(made.root / exposure["file"])
        right = _midpoint(str(header["DATE-OBS"]), float(header["EXPTIME"]))
        for table, value in _tables(exposure, nominal):
            late = (value - right) / _MILLISECOND
            rows.append(
                Row(f"midpoint in {table}", str(exposure["visit"]), late, 0.0, 1.0, "ms", 1)
            )
    return Statistics(tuple(rows))


def _tables(exposure: dict[str, float], nominal: dict[float, float]) -> Iterable[tuple[str, float]]:
    yield "exposures", exposure["midpointMjdTai"]
    if exposure["visit"] in nominal:
        yield "truth", nominal[exposure["visit"]]


def _midpoint(start: str, seconds: float) -> float:
    date, clock = start.split("T")
    hours, minutes, rest = clock.split(":")
    utc = erfa.dtf2d(b"UTC", *map(int, date.split("-")), int(hours), int(minutes), float(rest))
    whole, fraction = erfa.utctai(*utc)
    return float(whole - 2400000.5 + (fraction + 0.5 * seconds / 86400.0))
