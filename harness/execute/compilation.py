"""Compile every pixel loop once, before the first unit of work is timed.

The loops of `pipeline` are compiled at their first call, half a minute to a minute of processor
time in all, and kept on disk.  Left to the workers, each of them would compile the same loops at
the same time and the first units would look slow.  Here two processes run the stages on
small artificial frames, one from raw pixels to a difference, one from a difference to sources and
objects: as much work in each, and little that both need.  A marker beside the compiled code says
that it is done for these sources and libraries.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

import pipeline
from harness.system.hashes import combine, file_hash
from harness.system.processes import server
from pipeline import calibrate, diaobject, diasource, io, isr, masks, subtract, template
from pipeline.camera import Camera
from pipeline.diasource.reliability import model as classifier
from pipeline.errors import InputError
from pipeline.exposure import (
    Difference,
    Exposure,
    FloatArray,
    MatchingKernel,
    PolynomialPsf,
    RawFrame,
    VisitInfo,
)
from pipeline.schema import DIA_OBJECT, DIA_SOURCE, REFCAT

__all__ = ["compile_loops"]

_LOGGER = logging.getLogger(__name__)
_SCALE = 0.2626 / 3600.0
_MJD = 57070.0
_SKY = 400.0
_SATURATION = 2e4
_SHAPE = (512, 512)
_Stars = tuple[FloatArray, FloatArray, FloatArray]


def compile_loops(say: Callable[[str], None] = lambda _: None) -> None:
    """Compile what is not compiled yet; a second call returns at once.

    Parameters
    ----------
    say : callable
        Called with a line of text when there is something to wait for.
    """
    marker = _marker()
    if marker.is_file():
        return
    say("compiling the pixel loops, once: about half a minute")
    context = server()
    parts = [context.Process(target=part, daemon=True) for part in (_sources, _images)]
    for process in parts:
        process.start()
    for process in parts:
        process.join()
    if any(process.exitcode for process in parts):
        # No harm but time: what is missing is compiled when it is first called.
        _LOGGER.info("not every pixel loop was compiled in advance")
        return
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _marker() -> Path:
    """Where the compiled code lies, under a name that changes with sources and libraries."""
    package = Path(pipeline.__file__).parent
    sources = combine(file_hash(path) for path in sorted(package.rglob("*.py")))
    checked = os.environ.get("NUMBA_BOUNDSCHECK", "")
    name = combine([sources, numba.__version__, np.__version__, checked])[:16]
    folder = os.environ.get("NUMBA_CACHE_DIR")
    return (Path(folder) if folder else package / "__pycache__") / f"compiled-{name}"


def _images() -> None:
    # Visit images last: what they share with `_sources` has been compiled there by then.
    _templates()
    _visit_images()


def _visit_images() -> None:
    """Raw pixels to a visit image, and the files of both."""
    camera = Camera.load("testcam")
    rng = np.random.default_rng(1)
    stars = _stars(rng, _SHAPE, 70)
    frames = {n: _raw(camera, n, stars, rng) for n in (1, 2)}
    detector = camera.detector(1)
    flat = np.ones(detector.shape, np.float32)
    calibs = isr.Calibs(bias=flat - 1, flat=flat)
    exposure = isr.run(frames[1], detector, calibs, isr.Config(), {2: frames[2]}).exposure
    result = calibrate.run(
        exposure,
        _catalogue(stars),
        psf_fwhm_min=camera.psf_fwhm_min,
        amplifiers=[amp.trimmed for amp in detector.amplifiers],
    )
    _through_files(result.visit_image)


def _templates() -> None:
    """Visit images to a template and a difference, and their files."""
    rng = np.random.default_rng(2)
    stars = _stars(rng, _SHAPE, 90)
    inputs = [_visit(stars, 1.7 + 0.1 * i, i, rng) for i in range(3)]
    science = _visit(stars, 2.0, 9, rng)
    wcs, shape = template.patch(inputs)
    coadd = template.run(inputs, wcs, shape).template
    difference = subtract.run(science, template.warp(coadd, science.wcs, science.shape))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "difference.fits"
        io.write_difference(path, difference)
        io.read_difference(path)


def _sources() -> None:
    """Make sources of a difference, then objects and forced fluxes."""
    rng = np.random.default_rng(3)
    x, y, flux = _stars(rng, _SHAPE, 12)
    trail = np.linspace(200.0, 240.0, 20), np.full(20, 300.0), np.full(20, 4e3)
    with_trail = np.append(x, trail[0]), np.append(y, trail[1]), np.append(flux, trail[2])
    science = _visit(with_trail, 2.0, 9, rng)
    before = _visit(_stars(rng, _SHAPE, 12), 2.0, 9, rng)
    difference = _difference(science, before)
    plain = diasource.Config(classify=False)  # what trains a classifier needs none
    found = diasource.run(difference, science, before, plain, now_mjd_tai=_MJD)
    with suppress(InputError):
        classifier().predict(found.features)
    nothing = DIA_OBJECT.arrow_schema.empty_table(), DIA_SOURCE.arrow_schema.empty_table()
    result = diaobject.run(found.sources, *nothing, processed_mjd_tai=_MJD)
    diaobject.force(result.objects, difference, science, processed_mjd_tai=_MJD)


def _difference(science: Exposure, before: Exposure) -> Difference:
    """Difference of two images of one width, with its matched filter."""
    image = science.image - before.image
    variance = science.variance + before.variance
    null = np.full(_SHAPE, 2 * _SKY, np.float32)
    score = gaussian_filter(image, 2.0) * np.float32(2.0 * np.sqrt(4 * np.pi / (2 * _SKY)))
    one = np.ones((1, 1))
    kernel = MatchingKernel(one[None], one, 0, _SHAPE, np.zeros(1), 1.0, np.zeros((0, 4)))
    return Difference(science.replace(image=image, variance=variance), score, null, kernel)


def _through_files(exposure: Exposure) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exposure.fits"
        io.write_exposure(path, exposure)
        io.read_exposure(path)


def _stars(rng: np.random.Generator, shape: tuple[int, int], n: int) -> _Stars:
    x, y = rng.uniform(12, shape[1] - 12, n), rng.uniform(12, shape[0] - 12, n)
    flux = 10 ** rng.uniform(3.6, 5.2, n)
    flux[0] = 3e6  # one that saturates
    return x, y, flux


def _draw(stars: _Stars, sigma: float, shape: tuple[int, int]) -> FloatArray:
    """Stars as Gaussians."""
    x, y, flux = stars
    along_y = np.exp(-0.5 * ((np.arange(shape[0])[:, None] - y) / sigma) ** 2)
    along_x = np.exp(-0.5 * ((np.arange(shape[1])[:, None] - x) / sigma) ** 2)
    return np.asarray((along_y * (flux / (2 * np.pi * sigma**2))) @ along_x.T)


def _cards() -> dict[str, str | float]:
    return {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0,
        "CRPIX1": 256.5, "CRPIX2": 256.5, "CUNIT1": "deg", "CUNIT2": "deg",
        "CD1_1": -_SCALE, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": _SCALE,
    }  # fmt: skip


def _wcs() -> WCS:
    return WCS(_cards())


def _info(visit: int, detector: int) -> VisitInfo:
    return VisitInfo(visit, detector, "g", 86.0, _MJD + visit, 150.0, 2.0, 1.2, "testcam", "warm")


def _raw(camera: Camera, number: int, stars: _Stars, rng: np.random.Generator) -> RawFrame:
    detector = camera.detector(number)
    scene = rng.poisson(_draw(stars, 1.8, detector.shape) + _SKY)
    counts = np.full(detector.raw_shape, 1200.0)
    for amp in detector.amplifiers:
        counts[amp.data.slices] += scene[amp.trimmed.slices] / amp.gain
    counts += rng.normal(0.0, 1.5, counts.shape)
    counts[150:153, 200:230] += 900.0  # something sharp, for the cosmic rays
    data = np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
    return RawFrame(data, _cards(), _info(1, number))


def _visit(stars: _Stars, sigma: float, visit: int, rng: np.random.Generator) -> Exposure:
    signal = _draw(stars, sigma, _SHAPE)
    variance = signal + _SKY
    image = signal + rng.normal(size=_SHAPE) * np.sqrt(variance)
    mask = np.zeros(_SHAPE, np.uint32)
    mask[40:44, 300:310] = masks.bits("BAD")
    mask[signal > _SATURATION] |= masks.bits("SAT")
    return Exposure(
        image=image.astype(np.float32),
        variance=variance.astype(np.float32),
        mask=mask,
        info=_info(visit, 1),
        wcs=_wcs(),
        psf=_psf(sigma),
        background=np.full(_SHAPE, _SKY, np.float32),
        unit="nJy",
    )


def _psf(sigma: float) -> PolynomialPsf:
    offset = np.arange(-20, 21)
    line = np.exp(-0.5 * (offset / sigma) ** 2)
    stamp: npt.NDArray[np.float64] = np.outer(line, line)
    coefficients = np.zeros((3, 41, 41))
    coefficients[0] = stamp / stamp.sum()
    return PolynomialPsf(coefficients, 1, _SHAPE)


def _catalogue(stars: _Stars) -> pa.Table:
    """Make a reference catalogue of the stars themselves."""
    ra, dec = _wcs().pixel_to_world_values(stars[0], stars[1])
    flux = stars[2]
    return REFCAT.to_arrow(
        {
            "objectId": np.arange(len(flux)), "ra": ra, "dec": dec, "gFlux": flux,
            "gFluxErr": 0.01 * flux, "rFlux": flux, "rFluxErr": 0.01 * flux,
            "raErr": np.full(len(flux), 1.0), "decErr": np.full(len(flux), 1.0),
            "epochMjdTai": np.full(len(flux), _MJD),
        }
    )  # fmt: skip
