"""Accuracy and speed of detection and measurement on synthetic differences.

White noise of known variance, an exact PSF, sources of known truth with their own noise: what is
left is the error of the measurements themselves.  Prints one JSON document per line.

    python -m bench.bench_diasource science [forced positions …] [--n 8000] [--seed 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs import WCS
from scipy.ndimage import maximum_filter
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree
from scipy.special import erf

from bench.report import reporter
from bench.timing import cpu
from pipeline import diasource
from pipeline.exposure import (
    Difference,
    Exposure,
    FloatArray,
    GridPsf,
    MatchingKernel,
    PhotoCalib,
    VisitInfo,
)
from pipeline.psfphot import forced_flux

SKY = 100.0
GAIN = 4.0
SIDE = 31
SCALE = 0.2637
report = reporter("diasource")


@dataclass(frozen=True)
class Star:
    """An analytic PSF that includes the pixel; width is the FWHM in pixels."""

    width: float = 4.2
    kind: str = "gauss"

    def stamp(self, x: float, y: float, side: int = SIDE) -> FloatArray:
        """Unit-flux image centred on the middle pixel plus (x, y)."""
        k = np.arange(side) - side // 2
        if self.kind == "gauss":
            s = self.width / 2.3548 * np.sqrt(2.0)
            fx, fy = (0.5 * (erf((k + 0.5 - c) / s) - erf((k - 0.5 - c) / s)) for c in (x, y))
            return np.outer(fy, fx)
        nodes, weights = np.polynomial.legendre.leggauss(5)
        fine = (k[:, None] + nodes / 2).ravel()
        w = np.tile(weights / 2, side)
        beta = 3.5
        r0 = self.width / 2 / np.sqrt(2 ** (1 / beta) - 1)
        r2 = (fine - x) ** 2 + (fine[:, None] - y) ** 2
        f = (beta - 1) / np.pi / r0**2 * (1 + r2 / r0**2) ** -beta * w * w[:, None]
        return f.reshape(side, 5, side, 5).sum(axis=(1, 3))

    def psf(self) -> GridPsf:
        """The same as the pipeline knows it, of unit sum within 12 pixels."""
        return GridPsf(self.stamp(0, 0)[None, None] / self.norm(), np.zeros(1), np.zeros(1))

    def norm(self) -> float:
        """Flux within 12 pixels."""
        k = np.arange(SIDE) - SIDE // 2
        return float(self.stamp(0, 0)[np.hypot(*np.meshgrid(k, k)) <= 12].sum())

    def sigma_flux(self) -> float:
        """Error of the flux of a faint source."""
        return float(np.sqrt(SKY / ((self.stamp(0, 0) / self.norm()) ** 2).sum()))


def wcs() -> WCS:
    """A rotated tangent plane."""
    w = WCS(naxis=2)
    w.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    w.wcs.crval = [150.0, -20.0]
    w.wcs.crpix = [500.0, 400.0]
    c, s = np.cos(0.3) * SCALE / 3600, np.sin(0.3) * SCALE / 3600
    w.wcs.cd = [[-c, s], [s, c]]
    return w


def grid(shape: tuple[int, int], step: int, rng: np.random.Generator) -> FloatArray:
    """Well separated positions with random sub-pixel phases, ``(n, 2)``."""
    ys, xs = np.mgrid[
        step // 2 : shape[0] - step // 2 : step, step // 2 : shape[1] - step // 2 : step
    ]
    at = np.column_stack([xs.ravel(), ys.ravel()]).astype(float)
    return at + rng.uniform(-0.5, 0.5, at.shape)


def add(
    image: FloatArray, variance: FloatArray, star: Star, at: FloatArray, flux: FloatArray,
    rng: np.random.Generator, shape: Callable[[int], FloatArray] | None = None,
) -> None:  # fmt: skip
    """Add sources and their noise; `shape(k)` may give offsets (m, 3: dx, dy, weight) of parts."""
    for k, ((x, y), f) in enumerate(zip(at, flux, strict=True)):
        ix, iy = round(x), round(y)
        parts = np.array([[0.0, 0.0, 1.0]]) if shape is None else shape(k)
        side = SIDE + 2 * int(np.ceil(np.abs(parts[:, :2]).max()))
        side += 1 - side % 2
        stamp = sum(
            w * star.stamp(x - ix + dx, y - iy + dy, side) for dx, dy, w in parts
        ) * (f / star.norm())  # fmt: skip
        h = side // 2
        box = np.s_[iy - h : iy + h + 1, ix - h : ix + h + 1]
        noise = np.abs(stamp) / GAIN
        variance[box] += noise
        image[box] += stamp + rng.normal(0, 1, stamp.shape) * np.sqrt(noise)


def exposure(image: FloatArray, variance: FloatArray, star: Star, visit: int = 1) -> Exposure:
    """Wrap arrays into an exposure."""
    return Exposure(
        image.astype(np.float32), variance.astype(np.float32), np.zeros(image.shape, np.uint32),
        VisitInfo(visit, 1, "g", 90.0, 57070.0), wcs(), star.psf(), PhotoCalib(31.4, 0.0, 0.0, 9),
        unit="nJy",
    )  # fmt: skip


def difference(image: FloatArray, variance: FloatArray, star: Star, visit: int = 1) -> Difference:
    """Wrap arrays into a difference with its matched-filter score."""
    p = star.psf().cube[0, 0]
    score = fftconvolve(image, p[::-1, ::-1], mode="same") / np.sqrt(SKY * (p**2).sum())
    one, none = np.ones((1, 1, 1)), np.zeros((0, 4))
    kernel = MatchingKernel(one, one[0], 0, image.shape, np.zeros(1), 1.0, none)
    null = np.full(image.shape, SKY, np.float32)
    return Difference(
        exposure(image, variance, star, visit), score.astype(np.float32), null, kernel
    )


@dataclass(frozen=True)
class Scene:
    """A synthetic difference, with the science and template images behind it."""

    difference: Difference
    science: Exposure
    template: Exposure


def blank(shape: tuple[int, int], rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Noise and its variance."""
    return rng.normal(0, np.sqrt(SKY), shape), np.full(shape, SKY)


def scene(image: FloatArray, variance: FloatArray, star: Star, rng: np.random.Generator) -> Scene:
    """Science of which the difference is half the variance, and an empty template."""
    empty, v = blank(image.shape, rng)
    return Scene(
        difference(image, variance, star),
        exposure(image, variance, star),
        exposure(empty, v, star),
    )


def log_uniform(low: float, high: float, n: int, rng: np.random.Generator) -> FloatArray:
    """Numbers whose logarithm is uniform."""
    return np.exp(rng.uniform(np.log(low), np.log(high), n))


def match(table: Any, at: FloatArray, radius: float = 3.0) -> tuple[Any, Any]:
    """Indices of truths and of the rows that detect them (above threshold, nearest)."""
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    usable = ~(table["isSubThreshold"].to_numpy() | table["isDeblendParent"].to_numpy())
    rows = np.flatnonzero(usable)
    d, k = cKDTree(np.column_stack([x, y])[rows]).query(at)
    found = np.flatnonzero(d < radius)
    return found, rows[k[found]]


Sample = tuple[FloatArray, FloatArray]
"""Pulls and the true signal-to-noise ratios of their sources."""


def judge_pull(name: str, samples: list[Sample]) -> None:
    """Print width and mean of pulls, 0.95 to 1.05, and the worst width of a tenth by SNR."""
    pull, snr = (np.concatenate(values) for values in zip(*samples, strict=True))
    known = np.isfinite(pull)
    pull, snr = pull[known], snr[known]
    core = np.abs(pull - np.median(pull)) < 5
    outside = np.count_nonzero(~core)
    n, width = len(pull), pull[core].std()
    holds = 0.95 <= width <= 1.05 and n >= 2000 and outside <= max(1, 0.002 * n)
    report(f"{name} pull width", width, "", "0.95 to 1.05", n, holds=holds)
    report(f"{name} pull mean", pull[core].mean(), "", 0.2, n, low=-0.2)
    tenth = np.searchsorted(np.quantile(snr, np.arange(1, 10) / 10), snr)
    widths = np.array([pull[core & (tenth == k)].std() for k in range(10)])
    worst = widths[np.argmax(np.abs(widths - 1))]
    report(f"{name} pull width, worst tenth by SNR", worst, "", 1.1, n // 10, low=0.9)


def pull_of(table: Any, name: str, truth: FloatArray | float, rows: Any) -> FloatArray:
    """Deviation of a column from the truth in units of its error."""
    return np.asarray((column(table, name, rows) - truth) / column(table, f"{name}Err", rows))


Part = Callable[[int], FloatArray]
Parts = Callable[[int, np.random.Generator], tuple[Part, FloatArray]]


def widening(star: Star, parts: FloatArray) -> float:
    """Error of the flux of a Gaussian spread over parts, over that of a point."""
    s2 = (star.width / 2.3548) ** 2
    d2 = (parts[:, None, 0] - parts[:, 0]) ** 2 + (parts[:, None, 1] - parts[:, 1]) ** 2
    return float(np.mean(np.exp(-d2 / (4 * s2))) ** -0.5)


def trials(
    n: int, low: float, high: float, seed: int, *, step: int = 48, star: Star | None = None,
    signed: bool = False, parts: Parts | None = None,
    size: int = 1024, trail: bool = False, pair: bool = False,
) -> Iterator[tuple[Any, FloatArray, FloatArray, FloatArray, Scene]]:  # fmt: skip
    """Yield (sources, positions, fluxes, truth of the shape, scene) of images until n sources."""
    star = star or Star()
    rng = np.random.default_rng(seed)
    done = 0
    while done < n:
        image, variance = blank((size, size), rng)
        at = grid(image.shape, step, rng)[: n - done]
        flux = log_uniform(low, high, len(at), rng) * star.sigma_flux()
        if signed:
            flux *= np.where(rng.random(len(at)) < 0.5, -1, 1)
        shape, truth = (None, np.zeros((len(at), 0))) if parts is None else parts(len(at), rng)
        if trail:
            assert shape is not None
            flux *= [widening(star, shape(k)) for k in range(len(at))]
        if pair:
            assert shape is not None
            world = lobes(star, at, flux, rng, shape, size)
        else:
            add(image, variance, star, at, flux, rng, shape)
            world = scene(image, variance, star, rng)
        sources = diasource.run(world.difference, world.science, world.template).sources
        done += len(at)
        yield sources, at, flux, truth, world


def lobes(
    star: Star, at: FloatArray, flux: FloatArray, rng: np.random.Generator, shape: Part, size: int
) -> Scene:
    """Stars at one place on the science image and at another on the template."""
    images = []
    for share, lobe in ((0.8, 0), (0.2, 1)):
        image, variance = blank((size, size), rng)
        image, variance = image * np.sqrt(share), variance * share
        place = at + np.array([shape(k)[lobe, :2] for k in range(len(at))])
        add(image, variance, star, place, flux, rng)
        images.append((image, variance))
    (s, vs), (t, vt) = images
    return Scene(difference(s - t, vs + vt, star), exposure(s, vs, star), exposure(t, vt, star))


def column(table: Any, name: str, rows: Any) -> FloatArray:
    """A column as numbers, NULL as NaN."""
    return table[name].to_numpy()[rows].astype(float)


def forced(n: int, seed: int) -> None:
    """Fluxes forced at true positions, SNR 3 to 500, cubic and quintic splines."""
    for label, star in (
        ("", Star()),
        (" (Moffat)", Star(4.0, "moffat")),
        (" (FWHM 3 px)", Star(3.0)),
    ):
        pulls = []
        for _, at, flux, _, world in trials(n, 3, 500, seed, star=star, signed=True):
            e = world.difference.exposure
            got = forced_flux(
                e.image, e.variance, world.difference.null_variance, e.mask, e.psf, *at.T
            )
            pulls.append(((got.flux - flux) / got.flux_err, np.abs(flux) / star.sigma_flux()))
        judge_pull(f"forced flux SNR 3-500{label}", pulls)


def positions(n: int, seed: int) -> None:
    """Fitted positions, SNR 10 to 100, and fluxes there; the floor of the astrometry is drawn."""
    rng = np.random.default_rng(seed + 1)
    floor = diasource.Config().sky_floor / 3600
    pulls: dict[str, list[Sample]] = {}
    for t, at, flux, _, world in trials(n, 10, 100, seed, signed=True):
        i, k = match(t, at)
        snr = np.abs(flux[i]) / Star().sigma_flux()
        ra, dec = world.difference.exposure.wcs.all_pix2world(*at[i].T, 0)
        shift = rng.normal(0, floor, (2, len(i)))
        stretch = np.cos(np.radians(dec))
        values = {
            "x": pull_of(t, "x", at[i, 0], k), "y": pull_of(t, "y", at[i, 1], k),
            "psfRa": stretch * pull_of(t, "psfRa", ra, k), "psfDec": pull_of(t, "psfDec", dec, k),
            "ra": stretch * pull_of(t, "ra", ra + shift[0] / stretch, k),
            "dec": pull_of(t, "dec", dec + shift[1], k),
            "psfFlux": np.sign(flux[i]) * pull_of(t, "psfFlux", flux[i], k),
            "apFlux": pull_of(t, "apFlux", flux[i], k),
            "scienceFlux": np.sign(flux[i]) * pull_of(t, "scienceFlux", flux[i], k),
            "templateFlux": pull_of(t, "templateFlux", 0.0, k),
            "templateBackground": pull_of(t, "templateBackground", 0.0, k),
        }  # fmt: skip
        for name, pull in values.items():
            pulls.setdefault(name, []).append((pull, snr))
    for name, samples in pulls.items():
        judge_pull(f"{name} SNR 10-100", samples)


def moments(n: int, seed: int) -> None:
    """Adaptive moments, SNR 7 to 50 and 50 to 1000."""
    for low, high in ((7, 50), (50, 1000)):
        pulls: dict[str, list[Sample]] = {name: [] for name in ("ixx", "iyy", "ixy")}
        failed = total = 0
        for t, at, flux, _, _ in trials(n, low, high, seed, signed=True):
            i, k = match(t, at)
            snr = np.abs(flux[i]) / Star().sigma_flux()
            failed += int(column(t, "shape_flag", k).sum())
            total += len(k)
            for name, values in pulls.items():
                excess = column(t, name, k) - column(t, f"{name}PSF", k)
                values.append((excess / column(t, f"{name}Err", k), snr))
        for name, values in pulls.items():
            judge_pull(f"moment {name} SNR {low}-{high}", values)
        report(f"moments failed SNR {low}-{high}", failed / total, "", 0.01, total)


def line(length: float, angle: float) -> FloatArray:
    """Parts of a trail of a length in pixels at an angle from x, ``(80, 3)``."""
    t = ((np.arange(80) + 0.5) / 80 - 0.5) * length
    return np.column_stack([t * np.cos(angle), t * np.sin(angle), np.full(80, 1 / 80)])


def bearings(world: Scene, angle: FloatArray) -> FloatArray:
    """Bearings, degrees, of directions at angles from x on an image."""
    cd = world.difference.exposure.wcs.wcs.cd
    east, north = cd @ np.stack([np.cos(angle), np.sin(angle)])
    return np.degrees(np.arctan2(east, north))


def trails(n: int, seed: int) -> None:
    """Trails, flux SNR 10 to 50 as a trail, length 2 to 5 FWHM."""
    star = Star()

    def parts(m: int, rng: np.random.Generator) -> tuple[Part, FloatArray]:
        length, angle = rng.uniform(2, 5, m) * star.width, rng.uniform(0, np.pi, m)
        truth = np.column_stack([length, angle])

        return (lambda k: line(*truth[k])), truth

    pulls: dict[str, list[Sample]] = {}
    flagged = total = 0
    for t, at, flux, truth, world in trials(n, 10, 50, seed, step=96, parts=parts, trail=True):
        i, k = match(t, at, 12.0)
        fitted = np.isfinite(column(t, "trailFlux", k) / column(t, "trailFluxErr", k))
        flagged, total = flagged + int((~fitted).sum()), total + len(k)
        turn = (column(t, "trailAngle", k) - bearings(world, truth[i, 1]) + 90) % 180 - 90
        ra, dec = world.difference.exposure.wcs.all_pix2world(*at[i].T, 0)
        values = {
            "angle": turn / column(t, "trailAngleErr", k),
            "length": pull_of(t, "trailLength", truth[i, 0] * SCALE, k),
            "flux": pull_of(t, "trailFlux", flux[i], k),
            "ra": np.cos(np.radians(dec)) * pull_of(t, "trailRa", ra, k),
            "dec": pull_of(t, "trailDec", dec, k),
        }
        ratio = flux[i] / star.sigma_flux()
        snr = np.array([r / widening(star, line(*s)) for r, s in zip(ratio, truth[i], strict=True)])
        for name, pull in values.items():
            pulls.setdefault(name, []).append((pull, snr))
    for name, samples in pulls.items():
        judge_pull(f"trail {name} SNR 10-50", samples)
    report("trails without a fit", flagged / total, "", 0.02, total)


def dipoles(n: int, seed: int) -> None:
    """Dipoles, SNR of a lobe 20 to 100, separation 0.5 to 2 FWHM."""
    star = Star()

    def parts(m: int, rng: np.random.Generator) -> tuple[Part, FloatArray]:
        length, angle = rng.uniform(0.5, 2, m) * star.width, rng.uniform(0, 2 * np.pi, m)

        def shape(k: int) -> FloatArray:
            x, y = length[k] * np.cos(angle[k]) / 2, length[k] * np.sin(angle[k]) / 2
            return np.array([[x, y, 1.0], [-x, -y, -1.0]])

        return shape, np.column_stack([length, angle])

    pulls: dict[str, list[Sample]] = {}
    fitted = total = 0
    for t, at, flux, truth, world in trials(n, 20, 100, seed, step=64, parts=parts, pair=True):
        i, k = match(t, at, 10.0)
        total += len(at)
        mean, length = column(t, "dipoleMeanFlux", k), column(t, "dipoleLength", k)
        fitted += int(np.isfinite(mean).sum())
        true_length = truth[i, 0] * SCALE
        product = np.sqrt(
            (mean * column(t, "dipoleLengthErr", k)) ** 2
            + (length * column(t, "dipoleMeanFluxErr", k)) ** 2
            + 2 * mean * length * column(t, "dipoleMeanFlux_dipoleLength_Cov", k)
        )
        turn = (column(t, "dipoleAngle", k) - bearings(world, truth[i, 1]) + 180) % 360 - 180
        ra, dec = world.difference.exposure.wcs.all_pix2world(*at[i].T, 0)
        values = {
            "moment": (mean * length - flux[i] * true_length) / product,
            "length": pull_of(t, "dipoleLength", true_length, k),
            "angle": turn / column(t, "dipoleAngleErr", k),
            "flux": pull_of(t, "dipoleMeanFlux", flux[i], k),
            "fluxDiff": pull_of(t, "dipoleFluxDiff", 0.0, k),
            "ra": np.cos(np.radians(dec)) * pull_of(t, "dipoleRa", ra, k),
            "dec": pull_of(t, "dipoleDec", dec, k),
        }
        for name, pull in values.items():
            pulls.setdefault(name, []).append((pull, flux[i] / star.sigma_flux()))
    for name, samples in pulls.items():
        judge_pull(f"dipole {name} SNR 20-100", samples)
    report("dipoles detected and fitted", fitted / total, "", 0.98, total, least=True)


def noise_peaks(n: int, seed: int) -> None:
    """Peaks above 4 of pure noise against an independent count of smoothed noise."""
    rng = np.random.default_rng(seed)
    star = Star()
    size, seen, expected, images = 1024, 0, 0, 0
    p = star.psf().cube[0, 0]
    while min(seen, expected) < n:
        image, variance = blank((size, size), rng)
        world = scene(image, variance, star, rng)
        config = diasource.Config(threshold=4.0, sky_sources=0, sub_random=0)
        ledger = diasource.run(world.difference, world.science, world.template, config).candidates
        inside = ledger.filter((np.abs(ledger["snr"].to_numpy()) > 4).tolist())
        x, y = inside["x"].to_numpy(), inside["y"].to_numpy()
        seen += int(((x > 16) & (y > 16) & (x < size - 17) & (y < size - 17)).sum())
        other = fftconvolve(rng.normal(size=(size, size)), p, mode="same") / np.sqrt((p**2).sum())
        for field in (other, -other):
            peak = (maximum_filter(field, 3) == field) & (field > 4)
            expected += int(peak[17:-17, 17:-17].sum())
        images += 1
    ratio, error = seen / expected, np.sqrt(1 / seen + 1 / expected) * seen / expected
    report("noise peaks above 4 over Monte Carlo", ratio, "", "1 within 3 errors", seen,
           holds=abs(ratio - 1) < 3 * error)  # fmt: skip


def field(n: int, rng: np.random.Generator) -> Scene:
    """A CCD of 2048 × 4096 pixels with n sources of SNR 6 to 200."""
    image, variance = blank((4096, 2048), rng)
    at = rng.permutation(grid(image.shape, 50, rng))[:n]
    add(image, variance, Star(), at, log_uniform(6, 200, n, rng) * Star().sigma_flux(), rng)
    return scene(image, variance, Star(), rng)


def speed(n: int, seed: int) -> None:
    """CPU seconds of detection and measurement on a CCD, and how they grow with the sources."""
    from pipeline.diasource.detect import find_peaks, flood

    rng = np.random.default_rng(seed)
    few, many = field(300, rng), field(3000, rng)

    def detected() -> None:
        x, y = find_peaks(few.difference.score, 3.0)
        flood(few.difference.score, x, y, 5.0)

    detection = cpu(detected)
    report("detection on 2048x4096", detection, "s", 0.3, 300)
    total, larger = (
        cpu(lambda w=w: diasource.run(w.difference, w.science, w.template), 3) for w in (few, many)
    )
    report("detection and measurement of 300 sources", total, "s", 0.8, 300)
    report("measurement per source", (larger - total) / 2700 * 1e3, "ms", 3, 3000)
    growth = np.log10(larger / total)
    report("growth with sources, 300 to 3000, exponent", growth, "", 1.0, 3000)


SCIENCE = (forced, positions, moments, trails, dipoles, noise_peaks)


def main() -> None:
    """Run the measurements of a kind, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("speed", "science"))
    parser.add_argument("names", nargs="*", help="names of functions, all by default")
    parser.add_argument("--n", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=20150217)
    a = parser.parse_args()
    for task in (speed,) if a.kind == "speed" else SCIENCE:
        if not a.names or task.__name__ in a.names:
            task(400 if task is noise_peaks else a.n, a.seed)


if __name__ == "__main__":
    main()
