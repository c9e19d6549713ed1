"""Data types that all stages share: exposures, masks, point spread functions, differences.

Pixels are 0-based with the centre of the first one at (0, 0); arrays are indexed ``[y, x]``.
Images and variances are float32, masks uint32 with one statement per bit.  A missing pixel is NaN
*and* carries a mask bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.masks import NOT_IN_SCORE, bits, flagged

if TYPE_CHECKING:  # large, and most that use this module do without
    from astropy.wcs import WCS

__all__ = [
    "NJY_ZERO_POINT",
    "Difference",
    "Exposure",
    "FloatArray",
    "GridPsf",
    "Image",
    "Mask",
    "MatchingKernel",
    "PhotoCalib",
    "PolynomialPsf",
    "Psf",
    "RawFrame",
    "VisitInfo",
    "polynomial_terms",
]

_NOT_IN_SCORE = bits(*NOT_IN_SCORE)

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint32]
FloatArray = npt.NDArray[np.float64]

NJY_ZERO_POINT = 31.4
"""AB magnitude of a source of 1 nJy."""


@dataclass(frozen=True, slots=True)
class VisitInfo:
    """What is known of an exposure of one detector apart from its pixels.

    Attributes
    ----------
    visit, detector : int
        Exposure number and CCD number.
    band : str
        One letter of ``ugrizy``.
    exptime : float, s
        Open-shutter time.
    midpoint_mjd_tai : float, d
        Middle of the exposure, TAI.
    ra, dec : float, deg
        Pointing of the telescope (ICRS); NaN where unknown.
    airmass : float
        At the middle of the exposure; NaN where unknown.
    camera : str
        Name of the camera definition.
    field : str
        Name of the field; template and science are paired by field and band.
    reason : str
        Why the exposure was taken: the observing programme.
    gain : float, electron per image unit
        Mean gain of the pixels as they are; 1 for images in electrons.
    read_noise : float, electron
        Mean read noise.
    saturation : float, image unit
        Level above which a pixel counts as saturated; infinite where unknown.
    """

    visit: int
    detector: int
    band: str
    exptime: float
    midpoint_mjd_tai: float
    ra: float = float("nan")
    dec: float = float("nan")
    airmass: float = float("nan")
    camera: str = ""
    field: str = ""
    reason: str = ""
    gain: float = 1.0
    read_noise: float = 0.0
    saturation: float = float("inf")


@dataclass(frozen=True, slots=True)
class RawFrame:
    """One detector of one raw exposure, as read from the file.

    Attributes
    ----------
    data : ndarray, (ny, nx), ADU
        All pixels the controller sent, prescan and overscan included.
    header : mapping
        Keywords of the detector's HDU on top of those of the primary HDU.
    info : VisitInfo
        The same, parsed.
    path : str
        Where it came from.
    """

    data: npt.NDArray[Any]
    header: Mapping[str, Any]
    info: VisitInfo
    path: str = ""


@dataclass(frozen=True, slots=True)
class PhotoCalib:
    """Photometric calibration of an image.

    Attributes
    ----------
    zero_point : float, mag
        AB magnitude of one electron collected over the whole exposure; NaN when unknown.
    zero_point_err : float, mag
        Its standard error.
    scatter : float, mag
        Scatter of the standards round it.
    n_stars : int
        Standards used.
    njy_per_electron : float, nJy
        What the image was multiplied by; 1 when there is no zero point.
    """

    zero_point: float = float("nan")
    zero_point_err: float = float("nan")
    scatter: float = float("nan")
    n_stars: int = 0
    njy_per_electron: float = 1.0

    @property
    def calibrated(self) -> bool:
        """Whether there is a zero point at all."""
        return bool(np.isfinite(self.zero_point))


class Psf(ABC):
    """A point spread function that can be evaluated anywhere.

    Stamps are square with odd sides, centred on their middle pixel, and include the pixel's own
    response.  They are normalised to unit flux within `FLUX_RADIUS` pixels at every position, so
    that a PSF flux is the flux within that radius.
    """

    FLUX_RADIUS = 12.0

    @property
    @abstractmethod
    def side(self) -> int:
        """Side of the stamps in pixels, odd."""

    @abstractmethod
    def stamps(self, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
        """Evaluate at many positions.

        Parameters
        ----------
        x, y : array-like, (n,), pixel
            Positions.

        Returns
        -------
        ndarray, (n, side, side)
            Centred stamps.
        """

    def at(self, x: float, y: float) -> FloatArray:
        """One centred stamp, ``(side, side)``, at a position in pixels."""
        return np.asarray(self.stamps(np.array([x], float), np.array([y], float))[0])


@dataclass(frozen=True, slots=True, eq=False)
class PolynomialPsf(Psf):
    """Every pixel of the stamp is a polynomial of the position.

    Attributes
    ----------
    coefficients : ndarray, (n_terms, side, side)
        Terms in the order of `polynomial_terms`.
    order : int
        Total degree of the polynomial.
    shape : tuple of int, (ny, nx)
        Size of the image; positions are scaled to -1 ... 1 over it.
    """

    coefficients: FloatArray
    order: int
    shape: tuple[int, int]

    @property
    def side(self) -> int:  # noqa: D102
        return int(self.coefficients.shape[-1])

    def stamps(self, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:  # noqa: D102
        terms = polynomial_terms(x, y, self.shape, self.order)
        return np.asarray(np.tensordot(terms, self.coefficients, axes=(1, 0)))


@dataclass(frozen=True, slots=True, eq=False)
class GridPsf(Psf):
    """Stamps on a rectangular grid of positions, bilinear in between, constant outside.

    Attributes
    ----------
    cube : ndarray, (ny, nx, side, side)
        The stamps.
    x, y : ndarray, (nx,) and (ny,), pixel
        The grid, ascending.
    """

    cube: FloatArray
    x: FloatArray
    y: FloatArray

    @property
    def side(self) -> int:  # noqa: D102
        return int(self.cube.shape[-1])

    def stamps(self, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:  # noqa: D102
        i0, i1, t = _bracket(self.x, np.atleast_1d(np.asarray(x, float)))
        j0, j1, s = _bracket(self.y, np.atleast_1d(np.asarray(y, float)))
        t, s = t[:, None, None], s[:, None, None]
        low = (1 - t) * self.cube[j0, i0] + t * self.cube[j0, i1]
        high = (1 - t) * self.cube[j1, i0] + t * self.cube[j1, i1]
        return np.asarray((1 - s) * low + s * high)


def _bracket(
    nodes: FloatArray, values: FloatArray
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    if len(nodes) == 1:
        zero = np.zeros(len(values), np.intp)
        return zero, zero, np.zeros(len(values))
    low = np.clip(np.searchsorted(nodes, values) - 1, 0, len(nodes) - 2)
    t = np.clip((values - nodes[low]) / (nodes[low + 1] - nodes[low]), 0.0, 1.0)
    return low, low + 1, t


def polynomial_terms(
    x: npt.ArrayLike, y: npt.ArrayLike, shape: tuple[int, int], order: int
) -> FloatArray:
    """Monomials of the position scaled to -1 ... 1 over an image.

    Parameters
    ----------
    x, y : array-like, (n,), pixel
        Positions.
    shape : tuple of int, (ny, nx)
        Size of the image.
    order : int
        Total degree.

    Returns
    -------
    ndarray, (n, (order + 1)(order + 2)/2)
        ``1, u, v, u², uv, v² …`` with u along x and v along y.
    """
    u = 2.0 * np.atleast_1d(np.asarray(x, float)) / max(shape[1] - 1, 1) - 1.0
    v = 2.0 * np.atleast_1d(np.asarray(y, float)) / max(shape[0] - 1, 1) - 1.0
    columns = [u ** (d - k) * v**k for d in range(order + 1) for k in range(d + 1)]
    return np.stack(columns, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """An image of one detector and everything needed to interpret it.

    Attributes
    ----------
    image : ndarray, (ny, nx), `unit`
        Pixel values.
    variance : ndarray, (ny, nx), `unit` squared
        Expected variance of each pixel.
    mask : ndarray, (ny, nx), uint32
        Bits of `pipeline.masks.MASK_PLANES`.
    info : VisitInfo
        Which exposure it is.
    wcs : astropy.wcs.WCS, optional
        Pixel to sky.
    psf : Psf, optional
        Point spread function.
    photo_calib : PhotoCalib, optional
        Photometric calibration that was applied.
    background : ndarray, (ny, nx), `unit`, optional
        What was subtracted from the image.
    unit : str
        ``adu``, ``electron`` or ``nJy``.  Images without a zero point stay in electrons.
    noise_correlation : ndarray, (ty, tx, k, k), optional
        Autocovariance of the noise of warped images, in units of the variance plane, for tiles
        that divide the image evenly; lag (0, 0) in the middle.  None means white noise.
    provenance : mapping
        Cards for the primary header: what went in, with which software and configuration.
    """

    image: Image
    variance: Image
    mask: Mask
    info: VisitInfo
    wcs: WCS | None = None
    psf: Psf | None = None
    photo_calib: PhotoCalib | None = None
    background: Image | None = None
    unit: str = "electron"
    noise_correlation: FloatArray | None = None
    provenance: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse planes of different shapes, the most common wrong call."""
        shapes = {self.image.shape, self.variance.shape, self.mask.shape}
        if len(shapes) != 1 or self.image.ndim != 2:
            raise ValueError(f"image, variance and mask must be 2-D of one shape, got {shapes}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (int(self.image.shape[0]), int(self.image.shape[1]))

    def has(self, *planes: str) -> npt.NDArray[np.bool_]:
        """Return a boolean image, true where any of the mask planes is set."""
        return flagged(self.mask, bits(*planes))

    def replace(self, **changes: Any) -> Exposure:
        """Return a copy with some attributes exchanged."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True, eq=False)
class MatchingKernel:
    """A spatially varying convolution kernel, Σ_i Σ_t c_it T_t(x, y) B_i(u, v).

    Attributes
    ----------
    basis : ndarray, (n_basis, side, side)
        Kernel functions B.
    coefficients : ndarray, (n_basis, n_terms)
        c; terms in the order of `polynomial_terms`.
    order : int
        Spatial degree.
    shape : tuple of int, (ny, nx)
        Size of the image over which positions are scaled.
    background : ndarray, (n_background,)
        Polynomial of the differential background, same order of terms, `unit` of the science.
    condition : float
        Condition number of the normal equations.
    stamps : ndarray, (n_stamps, 4)
        x, y (pixel), reduced χ² and whether the stamp was used in the end (1) or clipped (0).
    convolved : str
        ``template`` or ``science``: the image that was convolved.
    before : ndarray, (k, k), optional
        Filter of unit sum with which the other image was convolved before it was matched.
    """

    basis: FloatArray
    coefficients: FloatArray
    order: int
    shape: tuple[int, int]
    background: FloatArray
    condition: float
    stamps: FloatArray
    convolved: str = "template"
    before: FloatArray | None = None

    @property
    def fitted_stamps(self) -> FloatArray:
        """The rows of `stamps`, ``(n, 4)``, that the kernel was fitted to in the end."""
        stamps = np.asarray(self.stamps, float).reshape(-1, 4)
        return stamps[stamps[:, 3] > 0]

    def at(self, x: float, y: float) -> FloatArray:
        """Return the kernel, ``(side, side)``, at a position in pixels."""
        terms = polynomial_terms(x, y, self.shape, self.order)[0]
        return np.asarray(np.tensordot(self.coefficients @ terms, self.basis, axes=1))

    def middle(self) -> FloatArray:
        """Return the kernel in the middle of the image."""
        return self.at((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2)

    def sum_at(self, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
        """Kernel sums, ``(n,)``: the photometric ratio science / template."""
        terms = polynomial_terms(x, y, self.shape, self.order)
        return np.asarray(terms @ (self.coefficients.T @ self.basis.sum(axis=(1, 2))))


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """A difference image with what detection and measurement need.

    Attributes
    ----------
    exposure : Exposure
        Decorrelated difference, its variance (sources included), mask and *own* PSF.
    score : ndarray, (ny, nx)
        Matched filter of the difference with that PSF in units of its noise where nothing has
        changed: σ_null (`pipeline.psfphot.flux_noise`) times `noise_scale`.
    null_variance : ndarray, (ny, nx), `unit` squared
        Variance of a pixel of the source-free difference.
    kernel : MatchingKernel
        The PSF-matching kernel.
    metrics : mapping
        Numbers about its quality, by name.
    excluded : numpy.uint32
        Bits of the planes that keep a pixel from detection; a subtraction leaves them out of the
        score, and detection adds those on which it starts no source.
    noise_scale : ndarray, (ny, nx), optional
        Noise of the matched filter with what a constant scene leaves, over σ_null: one where the
        template shows nothing.  None: one everywhere.
    """

    exposure: Exposure
    score: Image
    null_variance: Image
    kernel: MatchingKernel
    metrics: Mapping[str, float] = field(default_factory=dict)
    excluded: np.uint32 = _NOT_IN_SCORE
    noise_scale: Image | None = None
