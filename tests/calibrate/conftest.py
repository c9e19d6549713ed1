"""Synthetic frames with known answers, drawn with plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from astropy.wcs import WCS

from pipeline.exposure import Exposure, VisitInfo
from pipeline.masks import bits

Array = npt.NDArray[np.float64]
EPOCH = 57071.2
ZERO_POINT = 31.5  # AB magnitude of one electron of the exposure
SCALE = 0.2626


@dataclass(frozen=True)
class Moffat:
    """PSF with β = 3.3 whose size and shear vary over the image; pixel response included."""

    fwhm: float = 4.2
    shape: tuple[int, int] = (512, 512)
    curved: bool = False
    varying: bool = True

    def local(self, x: float, y: float) -> tuple[float, float, float]:
        u, v = 2 * x / (self.shape[1] - 1) - 1, 2 * y / (self.shape[0] - 1) - 1
        if not self.varying:
            return self.fwhm, 0.02, -0.015
        if self.curved:
            size = 1 + 0.05 * (u * u + v * v - 0.7) + 0.02 * u
            return self.fwhm * size, 0.02 + 0.02 * u * v, -0.015 + 0.02 * (u * u - 0.3)
        return self.fwhm * (1 + 0.03 * u + 0.04 * v), 0.02 + 0.02 * u, -0.015 + 0.02 * v

    def stamp(self, x: float, y: float, dx: float = 0.0, dy: float = 0.0, half: int = 28) -> Array:
        """Stamp of unit flux within 12 pixels, of a star off the middle by (dx, dy)."""
        fwhm, g1, g2 = self.local(x, y)
        profile = self._profile(fwhm, g1, g2, dx, dy, half)
        centred = self._profile(fwhm, g1, g2, 0.0, 0.0, 28)
        k = np.arange(-28, 29)
        return profile / centred[np.hypot(k[:, None], k) <= 12.0].sum()

    @staticmethod
    def _profile(fwhm: float, g1: float, g2: float, dx: float, dy: float, half: int) -> Array:
        k = np.arange(-half, half + 1.0)
        u, v = k[None, :] - dx, k[:, None] - dy
        norm = 1.0 - g1 * g1 - g2 * g2
        a = ((1 - g1) * u - g2 * v) ** 2 + (-g2 * u + (1 + g1) * v) ** 2
        radius = fwhm / (2.0 * np.sqrt(2.0 ** (1 / 3.3) - 1.0))
        return np.asarray((1.0 + a / norm / radius**2) ** -3.3)


@dataclass(frozen=True)
class Scene:
    """An exposure in electrons, and what is in it."""

    exposure: Exposure
    refcat: pa.Table
    wcs: WCS
    psf: Moffat
    x: Array
    y: Array
    flux: Array


def make_wcs(shape: tuple[int, int], kind: str = "TPV", scale: float = SCALE) -> WCS:
    """TAN or DECam-like TPV coordinates, image 0.4 deg from the point of tangency."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{kind}", f"DEC--{kind}"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [150.3, -3.2]
    off = 5500.0 if kind == "TPV" else 0.0
    wcs.wcs.crpix = [shape[1] / 2 - off, shape[0] / 2 + 0.6 * off]
    wcs.wcs.cd = [[-1e-7, scale / 3600], [-scale / 3600, -1e-7]]
    wcs.wcs.radesys = "ICRS"
    if kind == "TPV":
        east = {
            0: -0.002,
            1: 1.0095,
            2: -1e-4,
            4: 0.0078,
            5: -1.4e-4,
            7: -0.003,
            8: 3e-5,
            9: -0.0025,
        }
        north = {
            0: 1e-4,
            1: 1.006,
            2: 3e-4,
            4: -0.0018,
            5: 0.0024,
            7: -0.0075,
            8: -0.0014,
            9: -1e-3,
        }
        wcs.wcs.set_pv([(1, k, v) for k, v in east.items()] + [(2, k, v) for k, v in north.items()])
    wcs.wcs.set()
    return wcs


def refcat_of(wcs: WCS, x: Array, y: Array, flux: Array, rng: np.random.Generator) -> pa.Table:
    """Reference stars with Gaia-like errors and proper motions, epoch eleven years earlier."""
    n = len(x)
    ra, dec = wcs.all_pix2world(x, y, 0)
    err = rng.uniform(0.1, 1.0, n)
    pm = rng.normal(0.0, 8.0, (2, n))
    years = 1.2
    back = -pm * years + rng.normal(0.0, 1.0, (2, n)) * err
    njy = flux * 10 ** (0.4 * (31.4 - ZERO_POINT))
    noise = 0.005 * njy
    return pa.table(
        {
            "objectId": np.arange(n, dtype=np.int64) + 1000,
            "ra": ra + back[0] / 3.6e6 / np.cos(np.radians(dec)),
            "dec": dec + back[1] / 3.6e6,
            "raErr": err,
            "decErr": err,
            "pmRa": pm[0],
            "pmDec": pm[1],
            "parallax": np.zeros(n),
            "epochMjdTai": np.full(n, EPOCH - years * 365.25),
            "gFlux": njy + rng.normal(0.0, 1.0, n) * noise,
            "gFluxErr": noise,
        }
    )


def make_scene(
    seed: int = 1,
    *,
    shape: tuple[int, int] = (512, 512),
    n_stars: int = 60,
    n_faint: int = 60,
    fwhm: float = 4.2,
    curved: bool = False,
    varying: bool = True,
    sky: float = 1200.0,
    read_noise: float = 7.0,
    kind: str = "TPV",
    turbulence: float = 8.0,
    snr: tuple[float, float] = (50.0, 500.0),
    isolated: bool = False,
) -> Scene:
    """Draw stars on a tilted sky; positions scatter by the turbulence (mas)."""
    rng = np.random.default_rng(seed)
    psf = Moffat(fwhm, shape, curved, varying)
    x, y = _positions(rng, n_stars + n_faint, shape, 40.0 if isolated else 0.0)
    signal = 10 ** rng.uniform(np.log10(snr[0]), np.log10(snr[1]), n_stars)
    signal = np.concatenate([signal, rng.uniform(6.0, 30.0, len(x) - n_stars)])
    area = 4 * np.pi * (fwhm / 2.355) ** 2
    flux = signal**2 / 2 + np.sqrt(signal**4 / 4 + signal**2 * area * (sky + read_noise**2))
    wcs = make_wcs(shape, kind)
    shift = rng.normal(0.0, turbulence / 1000.0 / SCALE, (2, len(x)))
    clean = np.zeros(shape)
    for i in range(len(x)):
        _add(clean, psf, x[i] + shift[0, i], y[i] + shift[1, i], flux[i])
    v, u = np.mgrid[: shape[0], : shape[1]]
    level = sky * (1.0 + 0.01 * u / shape[1] - 0.006 * v / shape[0])
    image = rng.poisson(clean + level) + rng.normal(0.0, read_noise, shape)
    exposure = Exposure(
        image=image.astype(np.float32),
        variance=(clean + level + read_noise**2).astype(np.float32),
        mask=np.where(image > 200000.0, bits("SAT"), np.uint32(0)),
        info=VisitInfo(
            411420,
            5,
            "g",
            86.0,
            EPOCH,
            150.3,
            -3.2,
            1.2,
            "decam",
            "Blind15A_40",
            saturation=200000.0,
        ),
        wcs=wcs,
        unit="electron",
    )
    return Scene(exposure, refcat_of(wcs, x, y, flux, rng), wcs, psf, x, y, flux)


def _positions(
    rng: np.random.Generator, n: int, shape: tuple[int, int], apart: float
) -> tuple[Array, Array]:
    points: list[tuple[float, float]] = []
    for _ in range(200 * n):
        x, y = rng.uniform(25, shape[1] - 26), rng.uniform(25, shape[0] - 26)
        if all((x - p) ** 2 + (y - q) ** 2 > apart**2 for p, q in points):
            points.append((x, y))
        if len(points) == n:
            break
    both = np.array(points)
    return both[:, 0], both[:, 1]


def _add(image: Array, psf: Moffat, x: float, y: float, flux: float, half: int = 28) -> None:
    ix, iy = round(x), round(y)
    stamp = flux * psf.stamp(x, y, x - ix, y - iy, half)
    y0, y1 = max(iy - half, 0), min(iy + half + 1, image.shape[0])
    x0, x1 = max(ix - half, 0), min(ix + half + 1, image.shape[1])
    image[y0:y1, x0:x1] += stamp[y0 - iy + half : y1 - iy + half, x0 - ix + half : x1 - ix + half]


@pytest.fixture(scope="session")
def scene() -> Callable[..., Scene]:
    """Return the maker of synthetic frames."""
    return make_scene


@pytest.fixture(scope="session")
def sky_wcs() -> Callable[..., WCS]:
    """Return the maker of world coordinates."""
    return make_wcs
