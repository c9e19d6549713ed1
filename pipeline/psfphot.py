"""PSF photometry: the core that every measurement at a given place shares.

A flux is the weighted least-squares amplitude of the point spread function,

    f = Σ w P D / Σ w P²,

over a disk of pixels, with weights w = 1/V_s from a *smooth, source-free* variance.  Weights from
observed counts would pull fluxes low (−4 % at a signal-to-noise ratio of 6).  The error is the
sandwich Σ w² P² V / (Σ w P²)² with the total variance V, the source's own noise included; noise
that is correlated between pixels, as in a resampled template, enters through its autocovariance.

The PSF is shifted to the sub-pixel position with B-splines.  Its stamps are prefiltered once,
so that a shifted stamp and its two derivatives cost one separable pass of a few taps
(Unser 1999, IEEE Signal Processing Magazine 16, 22).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import spline_filter1d

from pipeline.compiled import compiled, pixel
from pipeline.exposure import FloatArray, GridPsf, Image, Mask, PolynomialPsf, Psf
from pipeline.masks import NO_FLUX, bits
from pipeline.statistics import GAUSS_FWHM

__all__ = [
    "ForcedFlux",
    "SplinePsf",
    "effective_area",
    "flux_noise",
    "forced_flux",
    "fwhm",
    "hollow",
    "middle_fwhm",
    "psf_box",
    "psf_part",
]

_NO_FLUX = bits(*NO_FLUX)
_PAD = 4
_SHARP = 3.5
_CHUNK = 64
_WHITE = np.ones((1, 1, 1, 1))
_EVEN = np.ones((0, 0), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ForcedFlux:
    """Fluxes at given positions, one entry per position.

    Attributes
    ----------
    flux, flux_err : ndarray, (n,), image unit
        PSF flux and its error; NaN where no pixel could be used.
    chi2 : ndarray, (n,)
        Σ (D − f P)² / V.
    ln_likelihood : ndarray, (n,)
        −½ Σ [(D − f P)² / V + ln 2πV].
    ndata : ndarray, (n,), int32
        Pixels used.
    mean, mean_err : ndarray, (n,), image unit per pixel
        Mean pixel value weighted with the PSF, Σ P D / Σ P: the surface brightness at the place.
    good : ndarray, (n,)
        Part of Σ P² that fell on usable pixels, 0 to 1.
    edge : ndarray, (n,), bool
        The disk reached over the edge of the image.
    no_good_pixels : ndarray, (n,), bool
        Less than `MIN_GOOD` of Σ P² was usable.
    """

    flux: FloatArray
    flux_err: FloatArray
    chi2: FloatArray
    ln_likelihood: FloatArray
    ndata: npt.NDArray[np.int32]
    mean: FloatArray
    mean_err: FloatArray
    good: FloatArray
    edge: npt.NDArray[np.bool_]
    no_good_pixels: npt.NDArray[np.bool_]

    MIN_GOOD = 0.1

    def take(self, keep: npt.NDArray[np.bool_ | np.integer]) -> ForcedFlux:
        """Return the entries of a Boolean or integer index."""
        return ForcedFlux(**{name: getattr(self, name)[keep] for name in self.__slots__})

    @property
    def flag(self) -> npt.NDArray[np.bool_]:
        """Any reason for doubt: no flux, over the edge, or too few good pixels."""
        return np.asarray(self.edge | self.no_good_pixels | ~np.isfinite(self.flux))


@dataclass(frozen=True, slots=True, eq=False)
class SplinePsf:
    """A PSF whose stamps have been turned into B-spline coefficients.

    Attributes
    ----------
    psf : Psf
        Returns coefficients instead of pixels where `filtered`, padded by four pixels of zeros.
    order : int
        3, or 5 where the PSF is so sharp that a cubic spline would show.
    filtered : bool
        Whether the prefilter could be applied to the model itself; otherwise each stamp is
        filtered as it is asked for.
    """

    psf: Psf
    order: int
    filtered: bool

    @classmethod
    def of(cls, psf: Psf, order: int | None = None) -> SplinePsf:
        """Prefilter a PSF.

        Parameters
        ----------
        psf : Psf
            Any point spread function; one that is linear in stamps is filtered once for good.
        order : int, optional
            Order of the spline, 3 or 5; by default 5 below a FWHM of 3.5 pixels.

        Returns
        -------
        SplinePsf
            Ready to be evaluated anywhere.
        """
        if isinstance(psf, GridPsf):
            order = order or _order(psf.cube.reshape(-1, psf.side, psf.side))
            return cls(replace(psf, cube=_prefilter(psf.cube, order)), order, True)
        if isinstance(psf, PolynomialPsf):
            middle = psf.stamps([psf.shape[1] / 2], [psf.shape[0] / 2])
            order = order or _order(middle)
            return cls(replace(psf, coefficients=_prefilter(psf.coefficients, order)), order, True)
        return cls(psf, order or _order(psf.stamps([0.0], [0.0])), False)

    def within(self, radius: float) -> SplinePsf:
        """Leave out what no pixel within a radius of a source reads.

        Parameters
        ----------
        radius : float, pixel
            Largest distance from a source, along either axis, of the pixels that are asked for.

        Returns
        -------
        SplinePsf
            The same values there; coefficients of fewer pixels.
        """
        half = int(np.ceil(radius)) + self.order + 1
        cut = self.psf.side // 2 - half
        if cut <= 0 or not self.filtered:
            return self
        inner = np.s_[..., cut:-cut, cut:-cut]
        if isinstance(self.psf, GridPsf):
            return replace(self, psf=replace(self.psf, cube=self.psf.cube[inner]))
        assert isinstance(self.psf, PolynomialPsf)
        coefficients = np.ascontiguousarray(self.psf.coefficients[inner])
        return replace(self, psf=replace(self.psf, coefficients=coefficients))

    def coefficients(self, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
        """Return the coefficients at positions, ``(n, side + 8, side + 8)``, for `psf_box`."""
        stamps = self.psf.stamps(x, y)
        return np.ascontiguousarray(stamps if self.filtered else _prefilter(stamps, self.order))


def _order(stamps: FloatArray) -> int:
    return 5 if float(fwhm(stamps).min()) < _SHARP else 3


def _prefilter(stamps: FloatArray, order: int) -> FloatArray:
    """B-spline coefficients of the last two axes, padded with zeros so that splines die out."""
    width = [(0, 0)] * (stamps.ndim - 2) + [(_PAD, _PAD)] * 2
    padded = np.pad(np.asarray(stamps, float), width)
    for axis in (-1, -2):
        padded = spline_filter1d(padded, order=order, axis=axis, mode="mirror")
    return np.ascontiguousarray(padded)


def fwhm(stamps: FloatArray) -> FloatArray:
    """Full width at half maximum of Gaussians with the noise-equivalent area of the stamps' cores.

    What is negative is no part of a core: a whitened difference has a trough there, where noise on
    large scales was taken out.

    Parameters
    ----------
    stamps : ndarray, (..., side, side)
        Point spread functions.

    Returns
    -------
    ndarray, (...), pixel
        2.355 √(A / 4π) with the area A of `effective_area` of what is positive.
    """
    return np.asarray(GAUSS_FWHM * np.sqrt(effective_area(np.maximum(stamps, 0.0)) / (4.0 * np.pi)))


def effective_area(stamps: FloatArray) -> FloatArray:
    """Noise-equivalent area of point spread functions (King 1983, PASP 95, 163).

    Parameters
    ----------
    stamps : ndarray, (..., side, side)
        Point spread functions.

    Returns
    -------
    ndarray, (...), pixel²
        (Σ P)² / Σ P².
    """
    return np.asarray(stamps.sum(axis=(-2, -1)) ** 2 / (stamps**2).sum(axis=(-2, -1)))


def hollow(stamp: FloatArray) -> bool:
    """Tell a star that is dark in its middle, as far out of focus.

    Parameters
    ----------
    stamp : ndarray, (side, side)
        Its image, an odd number of pixels wide.

    Returns
    -------
    bool
        Whether the mean of the central 3 × 3 pixels is below half of the brightest ring.
    """
    half = stamp.shape[-1] // 2
    ring = np.rint(np.hypot(*(np.mgrid[: len(stamp), : len(stamp)] - half))).astype(int).ravel()
    profile = np.bincount(ring, stamp.ravel()) / np.bincount(ring)
    core = stamp[half - 1 : half + 2, half - 1 : half + 2].mean()
    return bool(core < 0.5 * profile[1 : half + 1].max())


def middle_fwhm(psf: Psf | None, shape: tuple[int, int]) -> float:
    """Full width at half maximum, see `fwhm`, in the middle of an image.

    Parameters
    ----------
    psf : Psf, optional
        Point spread function of the image.
    shape : tuple of int, (ny, nx)
        Size of the image.

    Returns
    -------
    float, pixel
        NaN without a PSF.
    """
    if psf is None:
        return float("nan")
    return float(fwhm(psf.at((shape[1] - 1) / 2, (shape[0] - 1) / 2)))


def flux_noise(psf: Psf, variance: Image, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
    """Noise of the PSF flux of a point source, from the variance of the pixels alone.

    Parameters
    ----------
    psf : Psf
        Point spread function P of the image.
    variance : ndarray, (ny, nx), unit²
        Variance V; the source-free one, `Difference.null_variance`, gives the σ_null in which a
        score is expressed.  Pixels without one count as the median of the others.
    x, y : array-like, (n,), pixel
        Positions, on the image.

    Returns
    -------
    ndarray, (n,), unit
        1 / √(Σ P² / V); NaN where no pixel has a variance.
    """
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    chunks = (slice(start, start + _CHUNK) for start in range(0, len(x), _CHUNK))
    information = [_information(psf.stamps(x[s], y[s]), variance, x[s], y[s]) for s in chunks]
    total = np.concatenate([np.zeros(0), *information])
    return 1.0 / np.sqrt(np.where(total > 0, total, np.nan))


def _information(stamps: FloatArray, variance: Image, x: FloatArray, y: FloatArray) -> FloatArray:
    """Σ P² / V of stamps, with the variance of the border beyond it."""
    half = stamps.shape[-1] // 2
    reach = np.arange(-half, half + 1)
    rows = np.clip(np.rint(y).astype(int)[:, None] + reach, 0, variance.shape[0] - 1)
    columns = np.clip(np.rint(x).astype(int)[:, None] + reach, 0, variance.shape[1] - 1)
    values = variance[rows[:, :, None], columns[:, None, :]].astype(float)
    good = np.isfinite(values) & (values > 0)
    weight = np.where(good, 1.0 / np.where(good, values, 1.0), np.nan)
    known = np.nanmedian(np.where(good.any(axis=(1, 2), keepdims=True), weight, 0.0), axis=(1, 2))
    weight = np.where(good, weight, known[:, None, None])
    return np.asarray((stamps**2 * weight).sum(axis=(1, 2)))


@compiled
def _taps(t: float, order: int, w: FloatArray, d: FloatArray) -> None:
    """B-spline weights and their derivatives at a fraction t beyond a knot (de Boor)."""
    w[0] = 1.0
    for j in range(1, order + 1):
        if j == order:
            d[0] = -w[0]
            for r in range(1, order):
                d[r] = w[r - 1] - w[r]
            d[order] = w[order - 1]
        saved = 0.0
        for r in range(j):
            term = w[r] / j
            w[r] = saved + (r + 1.0 - t) * term
            saved = (t + (j - r - 1.0)) * term
        w[j] = saved


@compiled
def _along(to: FloatArray, coef: FloatArray, y: int, x: int, w: FloatArray, order: int) -> None:
    """Filter rows of a stamp, from (y, x) on, with the taps of a spline of order 3 or 5."""
    w0, w1, w2, w3, w4, w5 = w[0], w[1], w[2], w[3], w[4], w[5]
    width = to.shape[1]
    for j in range(to.shape[0]):
        row, line = to[j], coef[y + j, x : x + width + order]
        for i in range(width):
            row[i] = w0 * line[i] + w1 * line[i + 1] + w2 * line[i + 2] + w3 * line[i + 3]
        if order == 5:
            for i in range(width):
                row[i] = row[i] + w4 * line[i + 4] + w5 * line[i + 5]


@compiled
def _across(to: FloatArray, y: int, x: int, lines: FloatArray, w: FloatArray, order: int) -> None:
    """Filter columns in the same way into a box, from (y, x) on."""
    w0, w1, w2, w3, w4, w5 = w[0], w[1], w[2], w[3], w[4], w[5]
    width = lines.shape[1]
    for j in range(lines.shape[0] - order):
        row = to[y + j, x : x + width]
        one, two, three, four = lines[j], lines[j + 1], lines[j + 2], lines[j + 3]
        for i in range(width):
            row[i] = w0 * one[i] + w1 * two[i] + w2 * three[i] + w3 * four[i]
        if order == 5:
            five, six = lines[j + 4], lines[j + 5]
            for i in range(width):
                row[i] = row[i] + w4 * five[i] + w5 * six[i]


@compiled
def psf_box(
    coef: FloatArray,
    dx: float,
    dy: float,
    order: int,
    p: FloatArray,
    px: FloatArray,
    py: FloatArray,
) -> None:
    """Evaluate a PSF and its derivatives on a box of pixels.

    Parameters
    ----------
    coef : ndarray, (side, side)
        One stamp of `SplinePsf.coefficients`.
    dx, dy : float, pixel
        Position of the source from the middle pixel of the box.
    order : int
        Order of the spline, 3 or 5.
    p, px, py : ndarray, (2 r + 1, 2 r + 1)
        Filled with P and its derivatives along x and y of the *pixel*; the derivatives to the
        source's position are their negatives.  Zero where the stamp does not reach, NaN for a
        position that is not a number.
    """
    p[:] = px[:] = py[:] = 0.0 * (dx - dx) * (dy - dy)
    psf_part(coef, dx, dy, order, p, px, py)


@compiled
def psf_part(
    coef: FloatArray,
    dx: float,
    dy: float,
    order: int,
    p: FloatArray,
    px: FloatArray,
    py: FloatArray,
) -> tuple[int, int, int, int]:
    """Evaluate a PSF as `psf_box` does, but leave pixels alone that its stamp does not reach.

    Parameters
    ----------
    coef, dx, dy, order
        As of `psf_box`.
    p, px, py : ndarray, (2 r + 1, 2 r + 1)
        Filled where the stamp reaches.

    Returns
    -------
    bottom, top, left, right : int
        The pixels that were filled, ``[bottom:top, left:right]``; none for a position that is not
        a number.
    """
    n = p.shape[0]
    r = n // 2
    side = coef.shape[0]
    if not (abs(dx) < side + n and abs(dy) < side + n):
        return 0, 0, 0, 0
    fx, fy = int(np.floor(-dx)), int(np.floor(-dy))
    wx, ux, wy, uy = np.zeros(6), np.zeros(6), np.zeros(6), np.zeros(6)
    _taps(-dx - fx, order, wx, ux)
    _taps(-dy - fy, order, wy, uy)
    # first tap of the first pixel of the box, in the coordinates of the stamp
    x0 = side // 2 - r + fx - (order - 1) // 2
    y0 = side // 2 - r + fy - (order - 1) // 2
    left, bottom = max(0, -x0), max(0, -y0 - order)
    right, top = max(left, min(n, side - order - x0)), max(bottom, min(n, side - y0))
    shape = (top - bottom + order, right - left)
    rows, slopes = np.zeros(shape), np.zeros(shape)  # beyond the stamp there is nothing
    low, high = max(0, -y0), min(n + order, side - y0)
    if low < high:
        part = slice(low - bottom, high - bottom)
        _along(rows[part], coef, y0 + low, x0 + left, wx, order)
        _along(slopes[part], coef, y0 + low, x0 + left, ux, order)
    _across(p, bottom, left, rows, wy, order)
    _across(px, bottom, left, slopes, wy, order)
    _across(py, bottom, left, rows, uy, order)
    return bottom, top, left, right


# Columns of `_forced`; _LOGS is Σ ln 2πV, _GOOD the usable share of Σ P².
_FLUX, _VARIANCE, _CHI2, _LOGS, _COUNT, _MEAN, _MEAN_VARIANCE, _GOOD, _EDGE = range(9)


@compiled
def _forced(
    image: Image,
    variance: Image,
    null: Image,
    mask: Mask,
    bad: np.uint32,
    coef: FloatArray,
    order: int,
    rho: FloatArray,
    x: FloatArray,
    y: FloatArray,
    radius: float,
    out: FloatArray,
) -> None:
    """Fill a row of `out`, see above, for every source."""
    ny, nx = image.shape
    weighted = null.shape == image.shape
    r = int(np.ceil(radius))
    n = 2 * r + 1
    p, px, py = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    q, g = np.empty((n, n)), np.empty((n, n))
    for s in range(x.shape[0]):
        out[s] = np.nan
        if not (-0.5 <= x[s] < nx - 0.5 and -0.5 <= y[s] < ny - 0.5):
            out[s, _COUNT], out[s, _GOOD], out[s, _EDGE] = 0.0, 0.0, 1.0
            continue
        ix, iy = pixel(np.floor(x[s] + 0.5)), pixel(np.floor(y[s] + 0.5))
        psf_box(coef[s], x[s] - ix, y[s] - iy, order, p, px, py)
        a, b, total, used, sum_p, sum_pd, edge, count = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0
        q[:] = 0.0
        g[:] = 0.0
        for j in range(n):
            for i in range(n):
                if (i - r) ** 2 + (j - r) ** 2 > radius * radius:
                    continue
                u, v = ix + i - r, iy + j - r
                total += p[j, i] ** 2
                if u < 0 or v < 0 or u >= nx or v >= ny:
                    edge = 1.0
                    continue
                d, t = image[v, u], variance[v, u]
                w = null[v, u] if weighted else np.float32(1.0)
                if (mask[v, u] & bad) != 0 or not (np.isfinite(d) and t > 0.0 and w > 0.0):
                    continue
                a += p[j, i] ** 2 / w
                b += p[j, i] * d / w
                q[j, i] = p[j, i] * np.sqrt(t) / w
                g[j, i] = p[j, i] * np.sqrt(t)
                sum_p += p[j, i]
                sum_pd += p[j, i] * d
                used += p[j, i] ** 2
                count += 1
        out[s, _COUNT], out[s, _GOOD], out[s, _EDGE] = count, used / total, edge
        if not a > 0.0:
            continue
        flux = b / a
        ty = min(int(max(y[s], 0.0) * rho.shape[0] / ny), rho.shape[0] - 1)
        tx = min(int(max(x[s], 0.0) * rho.shape[1] / nx), rho.shape[1] - 1)
        chi2, logs = 0.0, 0.0
        for j in range(n):
            for i in range(n):
                if g[j, i] != 0.0:
                    t = variance[iy + j - r, ix + i - r]
                    chi2 += (image[iy + j - r, ix + i - r] - flux * p[j, i]) ** 2 / t
                    logs += np.log(2.0 * np.pi * t)
        out[s, _FLUX] = flux
        out[s, _VARIANCE] = _quadratic(q, rho[ty, tx]) / (a * a)
        out[s, _CHI2] = chi2
        out[s, _LOGS] = logs
        out[s, _MEAN] = sum_pd / sum_p
        out[s, _MEAN_VARIANCE] = _quadratic(g, rho[ty, tx]) / (sum_p * sum_p)


@compiled
def _quadratic(q: FloatArray, rho: FloatArray) -> float:
    """Σ_lag ρ(lag) Σ_i q_i q_(i+lag): the variance of a weighted sum of correlated pixels."""
    n, k = q.shape[0], rho.shape[0]
    h = k // 2
    total = 0.0
    for b in range(-h, k - h):
        for a in range(-h, k - h):
            product = 0.0
            for j in range(max(0, -b), min(n, n - b)):
                for i in range(max(0, -a), min(n, n - a)):
                    product += q[j, i] * q[j + b, i + a]
            total += rho[b + h, a + h] * product
    return total


def forced_flux(
    image: Image,
    variance: Image,
    null_variance: Image | None,
    mask: Mask,
    psf: Psf | SplinePsf,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    bad: np.uint32 = _NO_FLUX,
    radius: float = 8.0,
    correlation: FloatArray | None = None,
) -> ForcedFlux:
    """PSF fluxes at given positions.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx), unit and unit²
        Pixels and their total variance, the sources' own noise included.
    null_variance : ndarray, (ny, nx), optional
        Smooth variance without sources, for the weights; by default one value for the disk.
    mask : ndarray, (ny, nx)
        Mask planes.
    psf : Psf or SplinePsf
        Point spread function of this image; prefilter it once when calling often.
    x, y : array-like, (n,), pixel
        Positions, anywhere; outside of the image the flux is NaN and `edge` is set.
    bad : numpy.uint32
        Planes whose pixels are left out.
    radius : float, pixel
        Radius of the disk of pixels.
    correlation : ndarray, (ty, tx, k, k), optional
        `Exposure.noise_correlation` of the image.

    Returns
    -------
    ForcedFlux
        Fluxes with errors, χ² and flags.
    """
    image, variance = _plane(image), _plane(variance)
    null = _EVEN if null_variance is None else _plane(null_variance)
    spline = (psf if isinstance(psf, SplinePsf) else SplinePsf.of(psf)).within(radius)
    rho = _WHITE if correlation is None else np.ascontiguousarray(correlation, float)
    x = np.atleast_1d(np.asarray(x, float))
    y = np.atleast_1d(np.asarray(y, float))
    pixels = np.ascontiguousarray(mask, np.uint32)
    out = np.empty((len(x), _EDGE + 1))
    for start in range(0, len(x), _CHUNK):
        s = slice(start, start + _CHUNK)
        coef = spline.coefficients(x[s], y[s])
        _forced(
            image, variance, null, pixels, np.uint32(bad), coef, spline.order, rho,
            np.ascontiguousarray(x[s]), np.ascontiguousarray(y[s]), float(radius), out[s],
        )  # fmt: skip
    return _result(out)


def _plane(image: Image) -> Image:
    return np.ascontiguousarray(image, np.float32)


def _result(out: FloatArray) -> ForcedFlux:
    return ForcedFlux(
        flux=out[:, _FLUX],
        flux_err=np.sqrt(out[:, _VARIANCE]),
        chi2=out[:, _CHI2],
        ln_likelihood=-0.5 * (out[:, _CHI2] + out[:, _LOGS]),
        ndata=out[:, _COUNT].astype(np.int32),
        mean=out[:, _MEAN],
        mean_err=np.sqrt(out[:, _MEAN_VARIANCE]),
        good=out[:, _GOOD],
        edge=out[:, _EDGE] > 0,
        no_good_pixels=out[:, _GOOD] < ForcedFlux.MIN_GOOD,
    )
