"""Accuracy and speed of detection and measurement on synthetic differences.

White noise of known variance, an exact PSF, sources of known truth with their own noise: what is
left is the error of the measurements themselves.  Prints one JSON document per line.

    python -m bench.bench_diasource science [forced positions …] [--n 2400] [--seed 1]
"""

from __future__ import annotations

import argparse
import time
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


def judge_pull(name: str, pull: FloatArray) -> None:
    """Print width and mean of pulls; the width must lie in 0.9 to 1.1, three errors included."""
    pull = pull[np.isfinite(pull)]
    n = len(pull)
    core = pull[np.abs(pull - np.median(pull)) < 5]
    width, error = core.std(), 1 / np.sqrt(2 * len(core))
    holds = 0.9 <= width <= 1.1 and 3 * error < 0.1 and n - len(core) <= max(1, 0.002 * n)
    report(f"{name} pull width", width, "", "0.9 to 1.1", n, holds=holds)
    report(f"{name} pull mean", core.mean(), "", 0.2, n, low=-0.2)


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
            pulls.append((got.flux - flux) / got.flux_err)
        judge_pull(f"forced flux SNR 3-500{label}", np.concatenate(pulls))


def positions(n: int, seed: int) -> None:
    """Fitted positions, SNR 10 to 100, and fluxes there."""
    pulls = {"x": [], "y": [], "psfRa": []}
    flux_pull = []
    for t, at, flux, _, world in trials(n, 10, 100, seed, signed=True):
        i, k = match(t, at)
        for axis, name in enumerate("xy"):
            pulls[name].append((column(t, name, k) - at[i, axis]) / column(t, f"{name}Err", k))
        ra, _ = world.difference.exposure.wcs.all_pix2world(*at[i].T, 0)
        east = (column(t, "ra", k) - ra) * np.cos(np.radians(column(t, "dec", k)))
        pulls["psfRa"].append(east / column(t, "psfRaErr", k))
        error = column(t, "psfFluxErr", k)
        flux_pull.append((np.abs(column(t, "psfFlux", k)) - np.abs(flux[i])) / error)
    for name, values in pulls.items():
        judge_pull(f"position {name} SNR 10-100", np.concatenate(values))
    judge_pull("flux at fitted position SNR 10-100", np.concatenate(flux_pull))


def moments(n: int, seed: int) -> None:
    """Adaptive moments, SNR 7 to 50 and 50 to 1000."""
    for low, high in ((7, 50), (50, 1000)):
        pulls = {name: [] for name in ("ixx", "iyy", "ixy")}
        failed = total = 0
        for t, at, _, _, _ in trials(n, low, high, seed, signed=True):
            _, k = match(t, at)
            failed += int(column(t, "shape_flag", k).sum())
            total += len(k)
            for name, values in pulls.items():
                excess = column(t, name, k) - column(t, f"{name}PSF", k)
                values.append(excess / column(t, f"{name}Err", k))
        for name, values in pulls.items():
            judge_pull(f"moment {name} SNR {low}-{high}", np.concatenate(values))
        report(f"moments failed SNR {low}-{high}", failed / total, "", 0.01, total)


def trails(n: int, seed: int) -> None:
    """Trails, flux SNR 10 to 50 as a trail, length 2 to 5 FWHM."""
    star = Star()

    def parts(m: int, rng: np.random.Generator) -> tuple[Part, FloatArray]:
        length, angle = rng.uniform(2, 5, m) * star.width, rng.uniform(0, np.pi, m)
        truth = np.column_stack([length, angle])

        def shape(k: int) -> FloatArray:
            t = (np.arange(80) + 0.5) / 80 - 0.5
            x, y = t * length[k] * np.cos(angle[k]), t * length[k] * np.sin(angle[k])
            return np.column_stack([x, y, np.full(80, 1 / 80)])

        return shape, truth

    pulls: dict[str, list[FloatArray]] = {k: [] for k in ("length", "angle", "flux", "ra", "dec")}
    flagged = total = 0
    for t, at, flux, truth, world in trials(n, 10, 50, seed, step=96, parts=parts, trail=True):
        i, k = match(t, at, 12.0)
        snr = column(t, "trailFlux", k) / column(t, "trailFluxErr", k)
        good = np.isfinite(snr)
        flagged, total = flagged + int((~good).sum()), total + len(k)
        east, north = np.cos(truth[i, 1]), np.sin(truth[i, 1])
        cd = world.difference.exposure.wcs.wcs.cd
        bearing = np.degrees(
            np.arctan2(cd[0, 0] * east + cd[0, 1] * north, cd[1, 0] * east + cd[1, 1] * north)
        )
        turn = (column(t, "trailAngle", k) - bearing + 90) % 180 - 90
        pulls["angle"].append(turn / column(t, "trailAngleErr", k))
        pulls["length"].append(
            (column(t, "trailLength", k) - truth[i, 0] * SCALE) / column(t, "trailLengthErr", k)
        )
        pulls["flux"].append((column(t, "trailFlux", k) - flux[i]) / column(t, "trailFluxErr", k))
        ra, dec = world.difference.exposure.wcs.all_pix2world(*at[i].T, 0)
        pulls["ra"].append(
            (column(t, "trailRa", k) - ra) * np.cos(np.radians(dec)) / column(t, "trailRaErr", k)
        )
        pulls["dec"].append((column(t, "trailDec", k) - dec) / column(t, "trailDecErr", k))
    for name, values in pulls.items():
        judge_pull(f"trail {name} SNR 10-50", np.concatenate(values))
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

    names = ("moment", "length", "angle", "flux", "fluxDiff", "ra", "dec")
    pulls: dict[str, list[FloatArray]] = {k: [] for k in names}
    fitted = total = found = 0
    for t, at, flux, truth, world in trials(n, 20, 100, seed, step=64, parts=parts, pair=True):
        i, k = match(t, at, 10.0)
        total, found = total + len(at), found + len(i)
        mean, length = column(t, "dipoleMeanFlux", k), column(t, "dipoleLength", k)
        mean_err, length_err = column(t, "dipoleMeanFluxErr", k), column(t, "dipoleLengthErr", k)
        cov = column(t, "dipoleMeanFlux_dipoleLength_Cov", k)
        fitted += int(np.isfinite(mean).sum())
        true_length = truth[i, 0] * SCALE
        pulls["flux"].append((mean - flux[i]) / mean_err)
        pulls["length"].append((length - true_length) / length_err)
        product = np.sqrt(
            (mean * length_err) ** 2 + (length * mean_err) ** 2 + 2 * mean * length * cov
        )
        pulls["moment"].append((mean * length - flux[i] * true_length) / product)
        pulls["fluxDiff"].append(column(t, "dipoleFluxDiff", k) / column(t, "dipoleFluxDiffErr", k))
        c, s = np.cos(truth[i, 1]), np.sin(truth[i, 1])
        cd = world.difference.exposure.wcs.wcs.cd
        bearing = np.degrees(np.arctan2(cd[0, 0] * c + cd[0, 1] * s, cd[1, 0] * c + cd[1, 1] * s))
        turn = (column(t, "dipoleAngle", k) - bearing + 180) % 360 - 180
        pulls["angle"].append(turn / column(t, "dipoleAngleErr", k))
        ra, dec = world.difference.exposure.wcs.all_pix2world(*at[i].T, 0)
        pulls["ra"].append(
            (column(t, "dipoleRa", k) - ra) * np.cos(np.radians(dec)) / column(t, "dipoleRaErr", k)
        )
        pulls["dec"].append((column(t, "dipoleDec", k) - dec) / column(t, "dipoleDecErr", k))
    for name, values in pulls.items():
        judge_pull(f"dipole {name} SNR 20-100", np.concatenate(values))
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


def speed(n: int, seed: int) -> None:
    """CPU seconds of detection on a CCD and of measurement per source."""
    from pipeline.diasource.detect import find_peaks, flood

    rng = np.random.default_rng(seed)
    star = Star()
    image, variance = blank((4096, 2048), rng)
    at = grid(image.shape, 90, rng)
    add(image, variance, star, at, log_uniform(6, 200, len(at), rng) * star.sigma_flux(), rng)
    world = scene(image, variance, star, rng)
    diasource.run(world.difference, world.science, world.template)
    begin = time.process_time()
    x, y = find_peaks(world.difference.score, 3.0)
    flood(world.difference.score, x, y, 5.0)
    detection = time.process_time() - begin
    begin = time.process_time()
    rows = diasource.run(world.difference, world.science, world.template).sources.num_rows
    total = time.process_time() - begin
    report("detection on 2048x4096", detection, "s", 0.3, len(x))
    each = (total - detection) / rows * 1e3
    report("measurement per source", each, "ms", 3, rows)


SCIENCE = (forced, positions, moments, trails, dipoles, noise_peaks)


def main() -> None:
    """Run the measurements of a kind, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("speed", "science"))
    parser.add_argument("names", nargs="*", help="names of functions, all by default")
    parser.add_argument("--n", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=20150217)
    a = parser.parse_args()
    for task in (speed,) if a.kind == "speed" else SCIENCE:
        if not a.names or task.__name__ in a.names:
            task(400 if task is noise_peaks else a.n, a.seed)


if __name__ == "__main__":
    main()
