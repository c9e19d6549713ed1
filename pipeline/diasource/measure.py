"""All measurements of a list of sources, as columns of `pipeline.schema.DIA_SOURCE`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from pipeline.diasource import moments as adaptive
from pipeline.diasource.aperture import BEYOND, FLUX, USABLE, VARIANCE, aperture_flux
from pipeline.diasource.config import Config
from pipeline.diasource.fits import Fits, fit_points, fit_trails
from pipeline.diasource.frame import Frame, propagate, segment
from pipeline.diasource.planes import Planes
from pipeline.diasource.trails import Trails
from pipeline.exposure import Exposure, FloatArray
from pipeline.psfphot import ForcedFlux, SplinePsf, forced_flux
from pipeline.statistics import GAUSS_FWHM

__all__ = [
    "Columns",
    "Scene",
    "covariance_columns",
    "fit_all_trails",
    "forced_columns",
    "moment_columns",
    "science_columns",
    "start_points",
    "trail_columns",
]

Columns = dict[str, npt.NDArray[Any]]

_PHI0 = 1.0 / np.sqrt(2.0 * np.pi)
_CURVED, _FAINTEST = 35.0, 0.04
"""Second order of the variances of a trail over the square of noise over signal, as 3,000 of SNR 10
to 50 and 2 to 5 FWHM scatter, and the largest of these squares, that of SNR 5."""

_SIZE_MARGIN = 0.10
_SIZE_FLOOR = 0.03


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Sources of one difference image and what is needed to measure them.

    Attributes
    ----------
    planes, apart : Planes
        Pixels of the difference; the same without the children of blends.
    psf : SplinePsf
        PSF of the difference.
    width : float, pixel
        Its FWHM.
    points : Fits
        Point-source fits.
    child : ndarray, (n,), bool
        Sources that were taken out of `apart`.
    room : ndarray, (n,), pixel
        Side of the square that holds the footprint.
    frame : Frame
        The sky at the fitted positions.
    config : Config
        Configuration.
    """

    planes: Planes
    apart: Planes
    psf: SplinePsf
    width: float
    points: Fits
    child: npt.NDArray[np.bool_]
    room: FloatArray
    frame: Frame
    config: Config

    def take(self, keep: npt.NDArray[np.bool_]) -> Scene:
        """Return the scene with some of the sources only."""
        return replace(
            self,
            points=self.points.take(keep),
            child=self.child[keep],
            room=self.room[keep],
            frame=self.frame.take(keep),
        )

    @property
    def added(self) -> FloatArray:
        """Flux to put back into the pixels, ``(n,)``: that of children, 0 for others."""
        return np.asarray(np.where(self.child, np.nan_to_num(self.points.theta[:, 0]), 0.0))

    def groups(self) -> Iterator[tuple[Planes, npt.NDArray[np.intp]]]:
        """Pixels with the sources to measure on them, at most 64 at a time."""
        for planes, chosen in ((self.planes, ~self.child), (self.apart, self.child)):
            index = np.flatnonzero(chosen)
            for start in range(0, max(len(index), 1), 64):
                yield planes, index[start : start + 64]

    def local(
        self, index: npt.NDArray[np.intp]
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """PSF coefficients, flux and position from the middle pixel, and middle pixels."""
        theta = self.points.theta[index]
        middle = np.rint(theta[:, 1:])
        own = np.ascontiguousarray(theta - np.column_stack([np.zeros(len(index)), middle]))
        x, y = np.ascontiguousarray(middle[:, 0]), np.ascontiguousarray(middle[:, 1])
        return self.psf.coefficients(x, y), own, x, y


def start_points(
    planes: Planes,
    psf: SplinePsf,
    at: FloatArray,
    children: npt.NDArray[np.intp],
    fixed: npt.NDArray[np.bool_],
    width: float,
    config: Config,
) -> tuple[Fits, Planes, ForcedFlux]:
    """Fit point sources at peaks; where that fails, or where `fixed`, keep the forced flux.

    A peak whose fit failed keeps its place with the error of a peak; a `fixed` place has none.

    Parameters
    ----------
    planes : Planes
        Whitened difference and its noise.
    psf : SplinePsf
        Matched to the planes.
    at : ndarray, (n, 2), pixel
        x and y of the peaks.
    children : ndarray of int
        Rows that belong to a blend.
    fixed : ndarray of bool, (n,)
        Rows whose place is given.
    width : float, pixel
        FWHM of the PSF.
    config : Config
        Choices of the fit.

    Returns
    -------
    fits : Fits
        Point-source fits, with peak positions and forced fluxes where they failed.
    apart : Planes
        Pixels without the children.
    forced : ForcedFlux
        Fluxes at the peaks.
    """
    forced = planes.forced_flux(psf, at, config.fit_radius)
    flux = np.nan_to_num(forced.flux)
    fits, apart = fit_points(planes, psf, at, flux, config.fit_radius, config.max_shift, children)
    # A fit that changed the sign has wandered off to something else; one alone whose flux is known
    # much worse than at the peak, on to masked pixels.
    alone = ~np.isin(np.arange(len(at)), children)
    worse = alone & (fits.cov[:, 0, 0] > 4.0 * forced.flux_err**2)
    lost = fixed | ~np.isfinite(fits.cov[:, 0, 0]) | (fits.theta[:, 0] * flux < 0.0) | worse
    theta, cov = fits.theta.copy(), fits.cov.copy()
    theta[lost] = np.column_stack([forced.flux, at])[lost]
    cov[lost] = np.nan
    cov[lost, 0, 0] = forced.flux_err[lost] ** 2
    peak = np.flatnonzero(lost & ~fixed & (flux != 0.0))
    error = _peak_error(np.abs(flux[peak]) / forced.flux_err[peak], width)
    spread = np.stack([forced.flux_err[peak], error, error], axis=-1)
    cov[peak] = spread[:, :, None] ** 2 * np.eye(3)
    return replace(fits, theta=theta, cov=cov, converged=fits.converged & ~lost), apart, forced


def _peak_error(snr: FloatArray, width: float) -> FloatArray:
    """Error of the position of a matched filter's peak along one axis, at most the FWHM.

    That of a whole pixel, and √2 σ / SNR for a Gaussian of width σ (King 1983, PASP 95, 163).
    """
    sigma = width / GAUSS_FWHM
    return np.asarray(np.minimum(np.hypot(12**-0.5, 2**0.5 * sigma / snr), width))


def covariance_columns(names: tuple[str, ...], cov: FloatArray) -> Columns:
    """Name the off-diagonal terms ``a_b_Cov`` in the order of the parameters.

    Parameters
    ----------
    names : tuple of str
        Names of the k parameters.
    cov : ndarray, (n, k, k)
        Covariances.

    Returns
    -------
    dict of ndarray, (n,)
        Columns by name.
    """
    return {
        f"{a}_{b}_Cov": cov[:, i, j]
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i < j
    }


def _sigma(cov: FloatArray, k: int) -> FloatArray:
    return np.asarray(np.sqrt(np.where(cov[:, k, k] > 0, cov[:, k, k], np.nan)))


def point_columns(scene: Scene, forced: ForcedFlux) -> Columns:
    """PSF flux with its position, likelihood and χ², and the aperture flux."""
    fits, frame = scene.points, scene.frame
    transform = np.zeros((len(fits.theta), 3, 3))
    transform[:, 0, 0] = 1.0
    transform[:, 1:, 1:] = frame.jacobian
    sky = propagate(transform, fits.cov)
    xerr, yerr = _sigma(fits.cov, 1), _sigma(fits.cov, 2)
    free = fits.converged
    return {
        "x": fits.theta[:, 1], "y": fits.theta[:, 2], "xErr": xerr, "yErr": yerr,
        "x_y_Cov": fits.cov[:, 1, 2],
        "ra": frame.ra, "dec": frame.dec,
        "raErr": _sigma(sky, 1), "decErr": _sigma(sky, 2), "ra_dec_Cov": sky[:, 1, 2],
        "centroid_flag": ~free,
        "psfFlux": fits.theta[:, 0], "psfFluxErr": _sigma(fits.cov, 0),
        "psfLnL": fits.ln_likelihood, "psfChi2": fits.chi2, "psfNdata": fits.ndata,
        "psfRa": np.where(free, frame.ra, np.nan), "psfDec": np.where(free, frame.dec, np.nan),
        "psfRaErr": np.where(free, _sigma(sky, 1), np.nan),
        "psfDecErr": np.where(free, _sigma(sky, 2), np.nan),
        **{
            name: np.where(free, values, np.nan)
            for name, values in covariance_columns(("psfFlux", "psfRa", "psfDec"), sky).items()
        },
        "psfFlux_flag": ~np.isfinite(fits.theta[:, 0]) | forced.flag,
        "psfFlux_flag_edge": forced.edge,
        "psfFlux_flag_noGoodPixels": forced.no_good_pixels,
        "psfFlux_flag_excursion": ~free & np.isfinite(fits.cov[:, 1, 1]),
        **_aperture(scene),
    }  # fmt: skip


def _aperture(scene: Scene) -> Columns:
    out = np.full((len(scene.child), 4), np.nan)
    for planes, index in scene.groups():
        coef, own, x, y = scene.local(index)
        rows = np.empty((len(index), 4))
        aperture_flux(
            planes, coef, scene.psf.order, own, x, y, scene.added[index],
            float(scene.config.aperture_radius), rows,
        )  # fmt: skip
        out[index] = rows
    truncated = out[:, BEYOND] > 0
    return {
        "apFlux": out[:, FLUX],
        "apFluxErr": np.sqrt(out[:, VARIANCE]),
        "apFlux_flag": truncated | (out[:, USABLE] < 0.5),
        "apFlux_flag_apertureTruncated": truncated,
    }


def forced_columns(scene: Scene, science: Exposure, template: Exposure) -> Columns:
    """PSF fluxes on visit image and template at the centroid, and the template's brightness.

    Parameters
    ----------
    scene : Scene
        Difference image with its noise and PSF, and n sources.
    science, template : Exposure
        The images that were subtracted.

    Returns
    -------
    dict of ndarray, (n,)
        Columns by name; nJy.
    """
    x, y = scene.points.theta[:, 1], scene.points.theta[:, 2]
    there = {}
    for name, exposure in (("science", science), ("template", template)):
        if exposure.psf is None:
            raise ValueError(f"the {name} exposure has no PSF")
        there[name] = forced_flux(
            exposure.image, exposure.variance, None, exposure.mask, exposure.psf, x, y,
            bad=scene.planes.bad, radius=scene.config.fit_radius,
            correlation=exposure.noise_correlation,
        )  # fmt: skip
    on_science, on_template = there["science"], there["template"]
    area = scene.frame.scale**2
    return {
        "scienceFlux": on_science.flux, "scienceFluxErr": on_science.flux_err,
        "templateFlux": on_template.flux, "templateFluxErr": on_template.flux_err,
        "forced_PsfFlux_flag": on_science.flag | on_template.flag,
        "forced_PsfFlux_flag_edge": on_science.edge | on_template.edge,
        "forced_PsfFlux_flag_noGoodPixels": on_science.no_good_pixels | on_template.no_good_pixels,
        "templateBackground": on_template.mean / area,
        "templateBackgroundErr": on_template.mean_err / area,
    }  # fmt: skip


def science_columns(scene: Scene, science: Exposure) -> Columns:
    """Centroid on the visit image, where the source stands out there.

    Parameters
    ----------
    scene : Scene
        Difference image with its noise and PSF, and n sources.
    science : Exposure
        The visit image.

    Returns
    -------
    dict of ndarray, (n,)
        Columns by name; missing where the source does not stand out.
    """
    assert science.psf is not None
    planes = Planes.of(science.image, science.variance, None, science.mask, scene.planes.bad)
    psf = SplinePsf.of(science.psf)
    at = scene.points.theta[:, 1:]
    start = forced_flux(
        planes.image, planes.variance, None, planes.mask, psf, at[:, 0], at[:, 1], bad=planes.bad
    ).flux
    radius, reach = scene.config.fit_radius, scene.config.max_shift
    nobody = np.empty(0, np.intp)
    fits, _ = fit_points(planes, psf, at, np.nan_to_num(start), radius, reach, nobody)
    good = fits.converged & (fits.theta[:, 0] > 5.0 * fits.errors[:, 0])
    shift = (scene.frame.jacobian @ (fits.theta[:, 1:] - at)[..., None])[..., 0]
    cov = propagate(scene.frame.jacobian, fits.cov[:, 1:, 1:])
    columns = {
        "scienceRa": scene.frame.ra + shift[:, 0] / np.cos(np.radians(scene.frame.dec)),
        "scienceDec": scene.frame.dec + shift[:, 1],
        "scienceRaErr": _sigma(cov, 0),
        "scienceDecErr": _sigma(cov, 1),
        "scienceRa_scienceDec_Cov": cov[:, 0, 1],
    }
    return {name: np.where(good, values, np.nan) for name, values in columns.items()}


def moment_columns(scene: Scene) -> Columns:
    """Adaptive moments with errors and covariances, those of the PSF, and the extendedness.

    Parameters
    ----------
    scene : Scene
        Difference image with its noise and PSF, and n sources.

    Returns
    -------
    dict of ndarray, (n,)
        Columns by name; arcsec².
    """
    n = len(scene.child)
    out = np.full((n, adaptive.N_COLUMNS), np.nan)
    snr = np.abs(scene.points.theta[:, 0]) / scene.points.errors[:, 0]
    radius = int(np.ceil(max(12.0, 3.0 * scene.width)))
    for planes, index in scene.groups():
        coef, own, x, y = scene.local(index)
        rows = np.empty((len(index), adaptive.N_COLUMNS))
        adaptive.measure_moments(
            planes, coef, scene.psf.order, own, x, y, radius, scene.added[index],
            np.nan_to_num(snr[index]), rows,
        )  # fmt: skip
        out[index] = rows
    area = scene.frame.scale**2
    m, var = out.T * area, out.T * area**2
    columns = {
        "ixx": m[adaptive.XX], "ixy": m[adaptive.XY], "iyy": m[adaptive.YY],
        "ixxPSF": m[adaptive.PSF_XX], "ixyPSF": m[adaptive.PSF_XY],
        "iyyPSF": m[adaptive.PSF_YY],
        "ixxErr": np.sqrt(var[adaptive.VAR_XX]), "ixyErr": np.sqrt(var[adaptive.VAR_XY]),
        "iyyErr": np.sqrt(var[adaptive.VAR_YY]), "ixx_ixy_Cov": var[adaptive.COV_XX_XY],
        "ixx_iyy_Cov": var[adaptive.COV_XX_YY], "iyy_ixy_Cov": var[adaptive.COV_XY_YY],
        "shape_flag": out[:, adaptive.STATE] != adaptive.GOOD,
        "shape_flag_no_pixels": ~(out[:, adaptive.COVERED] >= 0.3),
        "shape_flag_not_contained": out[:, adaptive.STATE] == adaptive.RAN_AWAY,
        "shape_flag_oneStep": out[:, adaptive.ONE_STEP] > 0,
    }  # fmt: skip
    return columns | _extendedness(columns)


def _extendedness(c: Columns) -> Columns:
    """Probability that the size T = ixx + iyy exceeds the PSF's by more than a tenth.

    A normal error with a floor of 3 % of the PSF's size; ½ says that the data cannot tell.
    """
    psf = c["ixxPSF"] + c["iyyPSF"]
    excess = (c["ixx"] + c["iyy"]) / psf - 1.0
    sigma = np.sqrt(c["ixxErr"] ** 2 + c["iyyErr"] ** 2 + 2.0 * c["ixx_iyy_Cov"]) / psf
    total = np.hypot(sigma, _SIZE_FLOOR)
    z = (excess - _SIZE_MARGIN) / total
    slope = _PHI0 * np.exp(-0.5 * z**2) / total
    return {"extendedness": ndtr(z), "extendednessErr": slope * sigma}


def trail_columns(scene: Scene, fits: Fits, detected: npt.NDArray[np.bool_]) -> Columns:
    """Trailed-source model: flux, position, length and bearing with their covariance.

    Only of sources that were detected: on what is not, a trail follows the noise, and takes the
    longer the less there is.  ``trailGain``, Δχ² against the point source, is no column of the
    table but a feature.

    Parameters
    ----------
    scene : Scene
        Difference image with its noise and PSF, and n sources.
    fits : Fits
        Of `fit_all_trails`.
    detected : ndarray of bool, (n,)
        Sources that stand above the threshold.

    Returns
    -------
    dict of ndarray, (n,)
        Columns by name; nJy, deg and arcsec.
    """
    theta = fits.theta
    frame = scene.frame
    shift = theta[:, 1:3] - scene.points.theta[:, 1:3]
    east, north = (frame.jacobian @ shift[..., None])[..., 0].T
    length, bearing, turn = segment(frame, theta[:, 3], theta[:, 4])
    transform = np.zeros((len(theta), 5, 5))
    transform[:, 0, 0] = 1.0
    transform[:, 1:3, 1:3] = frame.jacobian
    transform[:, 3:, 3:] = turn
    sky = propagate(transform, fits.cov)
    names = ("trailFlux", "trailRa", "trailDec", "trailLength", "trailAngle")
    edge = _reaches_edge(scene.planes, theta)
    values = {
        "trailFlux": theta[:, 0],
        "trailRa": frame.ra + east / np.cos(np.radians(frame.dec)),
        "trailDec": frame.dec + north,
        "trailLength": length,
        "trailAngle": (bearing + 90.0) % 180.0 - 90.0,
    }
    errors = {f"{name}Err": _sigma(sky, k) for k, name in enumerate(names)}
    good = fits.converged & np.isfinite(fits.cov[:, 4, 4])
    clean = {
        k: np.where(good, v, np.nan)
        for k, v in (values | errors | covariance_columns(names, sky)).items()
    }
    is_trailed = good & (fits.gain > scene.config.trail_gain)
    # a length of zero is a boundary: the point source is the best trail there is
    none = ~good & detected & scene.points.converged & ~(fits.gain > scene.config.trail_gain)
    clean |= {k: np.where(none, v, clean[k]) for k, v in _shortest(scene).items()}
    good |= none
    return clean | {
        "trailChi2": np.where(none, scene.points.chi2, np.where(good, fits.chi2, np.nan)),
        "trailLnL": np.where(
            none, scene.points.ln_likelihood, np.where(good, fits.ln_likelihood, np.nan)
        ),
        "trailNdata": np.where(none, scene.points.ndata, fits.ndata),
        "trailAlgorithm": np.full(len(theta), 3, np.int32),
        "trail_flag": ~good,
        "trail_flag_edge": edge,
        "isTrailed": is_trailed,
        "trailGain": fits.gain,
        "trail_flag_short": ~is_trailed,
    }


def _shortest(scene: Scene) -> Columns:
    """Return the point source as a trail of no length."""
    frame, fits = scene.frame, scene.points
    sky = propagate(frame.jacobian, fits.cov[:, 1:, 1:])
    return {
        "trailFlux": fits.theta[:, 0],
        "trailFluxErr": _sigma(fits.cov, 0),
        "trailRa": frame.ra,
        "trailRaErr": _sigma(sky, 0),
        "trailDec": frame.dec,
        "trailDecErr": _sigma(sky, 1),
        "trailRa_trailDec_Cov": sky[:, 0, 1],
        "trailLength": np.zeros(len(frame.ra)),
    }


def fit_all_trails(
    scene: Scene,
    moments: Columns,
    detected: npt.NDArray[np.bool_],
    long: Trails,
    peak: npt.NDArray[np.int64],
) -> Fits:
    """Fit trails to sources, starting at the length that the excess of their moments suggests.

    Parameters
    ----------
    scene : Scene
        Difference image with its noise and PSF, and n sources.
    moments : dict of ndarray
        Columns of `moment_columns`.
    detected : ndarray of bool, (n,)
        Sources that stand above the threshold; the others are not fitted.
    long : Trails
        Fits that are known already.
    peak : ndarray of int, (n,)
        Peaks of the sources.

    Returns
    -------
    Fits
        Parameters F, x, y, a, b.
    """
    rows, known = long.rows(peak)
    detected = detected & ~np.isin(np.arange(len(peak)), rows)
    area = scene.frame.scale**2
    xx, xy, yy = ((moments[k] - moments[k + "PSF"]) / area for k in ("ixx", "ixy", "iyy"))
    angle = 0.5 * np.arctan2(2.0 * xy, xx - yy)
    major = 0.5 * (xx + yy) + 0.5 * np.hypot(xx - yy, 2.0 * xy)
    length = np.sqrt(12.0 * np.clip(np.nan_to_num(major), 0.0, None))
    angle = np.nan_to_num(angle)
    extent = np.column_stack([length * np.cos(angle), length * np.sin(angle)])
    fits = Fits.none(len(extent), 5).replace_at(rows, long.fits.take(known))
    for planes, group in scene.groups():
        index = group[detected[group]]
        points = np.nan_to_num(scene.points.theta[index])
        added, room = scene.added[index], scene.room[index]
        found = fit_trails(planes, scene.psf, points, added, extent[index], room, scene.width)
        fits = fits.replace_at(index, found)
    return _second_order(fits)


def _second_order(fits: Fits) -> Fits:
    """Widen the errors of place, length and bearing of faint trails, whose χ² is no parabola.

    Their covariance is that of the linearised fit; the next order is by the square of noise over
    signal smaller.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = fits.cov[:, 0, 0] / fits.theta[:, 0] ** 2
    factor = np.ones((len(noise), 5))
    factor[:, 1:] = np.sqrt(1.0 + _CURVED * np.minimum(np.nan_to_num(noise), _FAINTEST))[:, None]
    return replace(fits, cov=fits.cov * factor[:, :, None] * factor[:, None, :])


def _reaches_edge(planes: Planes, theta: FloatArray) -> npt.NDArray[np.bool_]:
    ny, nx = planes.image.shape
    x = theta[:, 1, None] + np.array([-0.5, 0.5]) * theta[:, 3, None]
    y = theta[:, 2, None] + np.array([-0.5, 0.5]) * theta[:, 4, None]
    return np.asarray(((x < 0) | (y < 0) | (x > nx - 1) | (y > ny - 1)).any(axis=1))
