"""Where sources are, and how well that is known."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS

from pipeline.camera import Passbands
from pipeline.diasource.config import Config
from pipeline.diasource.fits import Fits
from pipeline.diasource.frame import Frame, propagate
from pipeline.diasource.measure import Columns
from pipeline.exposure import FloatArray, VisitInfo
from pipeline.statistics import GAUSS_FWHM

__all__ = ["forced_errors", "sky_errors", "trail_positions"]

_FARTHEST = 0.25
"""Largest pull of a residual, arcsec: its lobes lie inside the star's image."""


def sky_errors(
    columns: Columns, info: VisitInfo, scale: FloatArray, config: Config, passbands: Passbands
) -> Columns:
    """Widen the errors of positions by what does not show in the difference's pixels.

    Three terms, alike in both axes: the floor of a visit's astrometry; refraction, which displaces
    a source whose colour is not that of the stars the coordinates are tied to; and the pull of the
    residual that a star or galaxy under the source leaves where the template lies wrong by ε,
    for its colour or for the error of the registration: it moves the centroid by ε times the
    flux ratio, but not out of the star.  The place on the detector, x and y, knows the pull only.

    Parameters
    ----------
    columns : dict of ndarray, (n,)
        With ``raErr``, ``decErr``, ``xErr`` and ``yErr``.
    info : VisitInfo
        Band and airmass of the visit.
    scale : ndarray, (n,), arcsec / pixel
        Pixel scale at the sources.
    config : Config
        Size of the three terms.
    passbands : Passbands
        Refraction by band.

    Returns
    -------
    dict of ndarray, (n,)
        The columns that change.
    """
    air = _displacement(info, config, passbands)
    ratio = np.nan_to_num(columns["templateFlux"] / columns["psfFlux"])
    pull = np.minimum(np.hypot(config.registration, air) * np.abs(ratio), _FARTHEST)
    on_sky = np.sqrt(config.sky_floor**2 + air**2 + pull**2) / 3600.0
    extra = {"raErr": on_sky, "decErr": on_sky, "xErr": pull / scale, "yErr": pull / scale}
    return {name: np.hypot(columns[name], more) for name, more in extra.items()}


def _displacement(info: VisitInfo, config: Config, passbands: Passbands) -> float:
    """Scatter along one axis of the refraction of sources of all colours, arcsec."""
    tan_z = np.sqrt(max(np.nan_to_num(info.airmass, nan=1.0) ** 2 - 1.0, 0.0))
    band = passbands.bands.get(info.band)
    refraction = band.refraction if band else 0.0
    return float(refraction * config.colours * tan_z / np.sqrt(2.0))


def forced_errors(columns: Columns, width: float) -> Columns:
    """Widen the errors of fluxes forced at a centroid by what they lose beside a star.

    A flux forced at distance r from a star of Gaussian width s is lower by r² / 4 s² of its own: on
    average by (σ_x² + σ_y²) / 4 s², which is 1 / SNR² of the change, and in the root mean square by
    √2 of that, since r² is distributed exponentially.

    Parameters
    ----------
    columns : dict of ndarray, (n,)
        With the fitted ``xErr`` and ``yErr``, ``scienceFlux`` and ``templateFlux``.
    width : float, pixel
        FWHM of the PSF.

    Returns
    -------
    dict of ndarray, (n,)
        The columns that change.
    """
    square = columns["xErr"] ** 2 + columns["yErr"] ** 2
    share = np.nan_to_num(square) / (np.sqrt(8.0) * (width / GAUSS_FWHM) ** 2)
    return {
        f"{name}Err": np.hypot(columns[f"{name}Err"], np.minimum(share, 1.0) * columns[name])
        for name in ("scienceFlux", "templateFlux")
    }


def trail_positions(columns: Columns, wcs: WCS, fits: Fits, width: float) -> Columns:
    """Return the positions of trailed sources: the middle of the trail.

    A point fitted to a trail slides along it.  Where no point could be fitted, only a trail twice
    as long as the PSF is believed; none where the template is brighter than the change: a star's
    residual beside a point looks like a short trail.

    Parameters
    ----------
    columns : dict of ndarray
        Columns of `point_columns` and `trail_columns`, ``(n,)`` each.
    wcs : WCS
        Of the image.
    fits : Fits
        Of `fit_all_trails`.
    width : float, pixel
        FWHM of the PSF.

    Returns
    -------
    dict of ndarray, (n,)
        The columns that change.
    """
    long = np.hypot(*fits.theta[:, 3:].T) > 2.0 * width
    use = columns["isTrailed"] & (long | ~columns["centroid_flag"])
    use &= ~(np.abs(columns["templateFlux"]) > np.abs(columns["psfFlux"]))
    frame = Frame.at(wcs, fits.theta[:, 1], fits.theta[:, 2])
    sky = propagate(frame.jacobian, fits.cov[:, 1:3, 1:3])
    errors = np.sqrt(np.abs(np.diagonal(sky, axis1=1, axis2=2)))
    values = {
        "x": fits.theta[:, 1], "y": fits.theta[:, 2],
        "xErr": fits.errors[:, 1], "yErr": fits.errors[:, 2], "x_y_Cov": fits.cov[:, 1, 2],
        "ra": frame.ra, "dec": frame.dec, "raErr": errors[:, 0], "decErr": errors[:, 1],
        "ra_dec_Cov": sky[:, 0, 1], "centroid_flag": np.zeros(len(use), bool),
    }  # fmt: skip
    return {name: np.where(use, value, columns[name]) for name, value in values.items()}
