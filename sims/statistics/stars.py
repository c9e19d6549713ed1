"""Stars in raw frames: where they are, how bright and how wide, by a fit to their pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from pipeline.camera import Camera, Detector
from pipeline.exposure import FloatArray
from pipeline.io.hdus import cards
from pipeline.statistics import MAD_TO_SIGMA
from sims.artefacts import Map
from sims.calibration import true_flat
from sims.conditions import Conditions
from sims.electronics import linearised
from sims.frame import make_frame
from sims.geometry import DetectorGeometry, tpv_cards
from sims.optics import PsfField
from sims.profiles import Profile
from sims.render import Light, render
from sims.statistics.rows import Curve, Row, Statistics

__all__ = [
    "Measured",
    "astrometry",
    "electrons",
    "measure_stars",
    "offsets_rows",
    "quiet",
    "width_of",
]

_HALF = 10  # pixels from the middle of a stamp to its edge
_APART = 25.0  # pixels to the nearest other star
_SHIFT, _WIDEN = 0.02, 0.01  # steps of the derivatives: pixels, relative width
_SOFTENING = 36.0  # electrons², the read noise of a pixel
_OUTLIER = 5.0  # errors from which a star counts as spoilt
_OFFSET, _WIDTH = 2.0, 0.10  # mas, relative


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Stars of one frame.

    Attributes
    ----------
    offset, error : ndarray, (n, 2), pixel
        Measured minus expected position, and its standard error.
    width, width_error : ndarray, (n,)
        Measured over expected width minus one, and its standard error.
    """

    offset: FloatArray
    error: FloatArray
    width: FloatArray
    width_error: FloatArray

    def __len__(self) -> int:
        """Return the number of stars."""
        return len(self.width)

    @classmethod
    def join(cls, parts: Iterable[Measured]) -> Measured:
        """Return the stars of several frames."""
        every = list(parts)
        return cls(*(np.concatenate([getattr(p, n) for p in every]) for n in cls.__slots__))


def electrons(raw: npt.NDArray[np.uint16], detector: Detector) -> FloatArray:
    """Trimmed image, electron, of a raw frame: overscan, linearity and gain as they truly are.

    Parameters
    ----------
    raw : ndarray, raw_shape, uint16, ADU
        The frame.
    detector : Detector
        The detector as it truly is.

    Returns
    -------
    ndarray, (ny, nx), electron
        Not flat-fielded.
    """
    out = np.empty(detector.shape)
    for amp in detector.amplifiers:
        rows = slice(amp.data.y0, amp.data.y1)
        level = np.median(raw[rows, amp.overscan.x0 : amp.overscan.x1], axis=1)[:, None]
        out[amp.trimmed.slices] = amp.gain * linearised(amp, raw[amp.data.slices] - level)
    return out


def measure_stars(
    image: FloatArray,
    artefacts: Map,
    conditions: Conditions,
    geometry: DetectorGeometry,
    stars: tuple[FloatArray, FloatArray, FloatArray],
) -> Measured:
    """Fit position, flux, width and sky of isolated stars, linearly about what is expected.

    Parameters
    ----------
    image : ndarray, (ny, nx), electron
        Flat-fielded image.
    artefacts : ndarray, (ny, nx), uint32
        Stars with any artefact in their stamp are left out.
    conditions : Conditions
        Of the visit; its PSF is the model.
    geometry : DetectorGeometry
        The detector.
    stars : tuple of ndarray
        Expected x and y, pixels, and flux, electron.

    Returns
    -------
    Measured
        Offsets from what is expected, with their errors.
    """
    x, y, flux = stars
    ny, nx = image.shape
    apart = np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(apart, np.inf)
    alone = apart.min(axis=1) > _APART if len(x) > 1 else np.ones(len(x), bool)
    inner = (x > 16) & (x < nx - 17) & (y > 16) & (y < ny - 17)
    found = []
    for k in np.flatnonzero(alone & inner):
        column, row = round(x[k]), round(y[k])
        box = np.s_[row - _HALF : row + _HALF + 1, column - _HALF : column + _HALF + 1]
        if not artefacts[box].any():
            found.append(_fit(image[box], conditions, geometry, x[k], y[k], flux[k]))
    table = np.array(found).reshape(-1, 6)
    return Measured(table[:, 0:2], table[:, 2:4], table[:, 4], table[:, 5])


def _fit(
    stamp: FloatArray,
    conditions: Conditions,
    geometry: DetectorGeometry,
    x: float,
    y: float,
    flux: float,
) -> list[float]:
    """Offsets along x and y, their errors, relative width and its error."""
    plane = geometry.to_plane(np.atleast_1d(x), np.atleast_1d(y))
    place = np.array([x - round(x), y - round(y)]) + _HALF

    def model(dx: float, dy: float, wider: float = 0.0) -> FloatArray:
        psf = replace(conditions.psf, fwhm=conditions.psf.fwhm * (1.0 + wider))
        light = Light.points(place[0] + dx, place[1] + dy, flux)
        return render(light, psf, plane, (stamp.shape[0], stamp.shape[1]))

    middle = model(0.0, 0.0)
    columns = [
        middle,
        (model(_SHIFT, 0.0) - model(-_SHIFT, 0.0)) / (2 * _SHIFT),
        (model(0.0, _SHIFT) - model(0.0, -_SHIFT)) / (2 * _SHIFT),
        (model(0.0, 0.0, _WIDEN) - model(0.0, 0.0, -_WIDEN)) / (2 * _WIDEN),
        np.ones(stamp.shape),
    ]
    design = np.stack([c.ravel() for c in columns], axis=1)
    weight = 1.0 / (middle.ravel() + conditions.sky + _SOFTENING)
    covariance = np.linalg.inv(design.T @ (weight[:, None] * design))
    solution = covariance @ (design.T @ (weight * stamp.ravel()))
    error = np.sqrt(np.diag(covariance))
    # Shifts and widths were fitted together with the flux they multiply.
    scale = 1.0 / solution[0]
    values = [*solution[1:3] * scale, *error[1:3] * scale, solution[3] * scale, error[3] * scale]
    return [float(v) for v in values]


def quiet(profile: Profile) -> Profile:
    """Return a campaign of single stars in air that neither trembles nor refracts.

    The telescope points where it believes to point, so that the header's WCS is exact.

    Parameters
    ----------
    profile : Profile
        The campaign to start from.

    Returns
    -------
    Profile
        A changed copy.
    """
    sky = replace(
        profile.sky, star_limits=(16.0, 20.5), galaxies=0.0, supernovae=0.0, flares=0.0,
        variables=0.0, agn=0.0,
    )  # fmt: skip
    return replace(profile, sky=sky, turbulence=0.0, trails=0.0, ideal=True)


def astrometry(profile: Profile, seed: int, units: Iterable[tuple[int, int]]) -> Statistics:
    """Simulate frames of `quiet` stars and compare them with the WCS of their headers.

    Parameters
    ----------
    profile : Profile
        Camera, visits and detectors.
    seed : int
        Seed of the campaign.
    units : iterable of (int, int)
        Visits and detectors to simulate.

    Returns
    -------
    Statistics
        Median offset per axis within 2 mas; scatter over the noise's within 10 % of one.
    """
    calm = quiet(profile)
    camera = Camera.load(calm.camera)
    parts = [_residuals(calm, seed, visit, camera.detector(n), camera) for visit, n in units]
    return offsets_rows("WCS", Measured.join(parts), camera.pixel_scale)


def _residuals(
    profile: Profile, seed: int, visit: int, detector: Detector, camera: Camera
) -> Measured:
    conditions = profile.conditions(seed, profile.visit(visit))
    geometry = DetectorGeometry(camera, detector)
    frame = make_frame(profile, seed, visit, detector.number)
    flat = true_flat(seed, conditions.visit.band, camera, detector)
    table = {name: frame.truth[name].to_numpy() for name in ("ra", "dec", "fluxElectrons")}
    at_rest = frame.truth["trailLength"].to_numpy(zero_copy_only=False) == 0.0
    wcs = WCS(cards((k, v, "") for k, v in tpv_cards(geometry, conditions.believed).items()))
    x, y = wcs.all_world2pix(table["ra"], table["dec"], 0)
    amp = detector.amplifiers[0]
    x, y = x - (amp.data.x0 - amp.trimmed.x0), y - (amp.data.y0 - amp.trimmed.y0)
    keep = at_rest & (table["fluxElectrons"] > 0)
    stars = x[keep], y[keep], table["fluxElectrons"][keep]
    image = electrons(frame.raw, detector) / flat
    return measure_stars(image, frame.artefacts, conditions, geometry, stars)


def offsets_rows(what: str, stars: Measured, scale: float) -> Statistics:
    """Compare the offsets of stars, ``scale`` arcsec per pixel, with none and with their errors.

    Parameters
    ----------
    what : str
        Name of the comparison.
    stars : Measured
        Offsets and errors, pixel.
    scale : float, arcsec / pixel
        Pixel scale.

    Returns
    -------
    Statistics
        One row per statistic.
    """
    mas = 1000.0 * scale
    rows: list[Row] = []
    n = len(stars)
    for axis, name in enumerate("xy"):
        offset, error = stars.offset[:, axis], stars.error[:, axis]
        middle = float(np.median(offset))
        pull = (offset - middle) / error
        width = float(pull[np.abs(pull) < _OUTLIER].std())
        rows += [
            Row(f"centroid on the {what}", name, middle * mas, 0.0, _OFFSET, "mas", n),
            Row(f"centroid scatter over noise, {what}", name, width, 1.0, _WIDTH, "", n),
        ]
    order = np.argsort(stars.error[:, 0])
    curve = Curve(
        f"centroids on the {what}", "expected error, mas", "|offset|, mas",
        mas * stars.error[order, 0], mas * np.abs(stars.offset[order, 0]),
        mas * stars.error[order, 0] / MAD_TO_SIGMA,
    )  # fmt: skip
    return Statistics(tuple(rows), (curve,))


def width_of(stars: Measured, psf: PsfField) -> tuple[float, float]:
    """Width of the PSF that stars show, arcsec, and its standard error.

    Parameters
    ----------
    stars : Measured
        Stars with their fitted widths.
    psf : PsfField
        The model that the widths are relative to.

    Returns
    -------
    width, error : float, arcsec
        Full width at half maximum, and its standard error.
    """
    weight = 1.0 / stars.width_error**2
    relative = float((weight * stars.width).sum() / weight.sum())
    fwhm = psf.fwhm * psf.pixel_scale
    return fwhm * (1.0 + relative), fwhm / float(np.sqrt(weight.sum()))
