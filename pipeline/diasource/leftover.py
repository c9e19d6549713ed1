"""What constant stars leave of their flux in a difference, as an error of fluxes on top of them."""

from __future__ import annotations

import numpy as np

from pipeline.diasource.planes import Planes
from pipeline.exposure import Exposure, FloatArray
from pipeline.psfphot import SplinePsf, forced_flux
from pipeline.statistics import excess_scatter

__all__ = ["flux_share"]

_FEWEST = 10
_BRIGHT = 50.0
"""Signal to noise of the stars that tell."""

_MOST = 0.1


def flux_share(
    planes: Planes, psf: SplinePsf, template: Exposure, at: FloatArray, default: float
) -> float:
    """Measure which share of its flux a constant star leaves, standard deviation.

    It is what the residual fluxes of stars scatter by beyond their noise, from the median of their
    absolute values, which the stars that vary do not move.

    Parameters
    ----------
    planes : Planes
        Whitened difference and its noise.
    psf : SplinePsf
        Matched to the planes.
    template : Exposure
        The template on the same pixels.
    at : ndarray, (n, 2), pixel
        x and y of stars.
    default : float
        Returned where fewer than ten stars tell.

    Returns
    -------
    float
        Share of the flux, at most a tenth.
    """
    assert template.psf is not None
    if len(at) < _FEWEST:
        return default
    left = planes.forced_flux(psf, at)
    star = forced_flux(
        template.image, template.variance, None, template.mask, template.psf, *at.T, bad=planes.bad
    )
    good = ~(left.flag | star.flag) & (star.flux > _BRIGHT * left.flux_err)
    if np.count_nonzero(good) < _FEWEST:
        return default
    share, noise = (v[good] / star.flux[good] for v in (left.flux, left.flux_err))

    return min(excess_scatter(share, noise**2), _MOST)
