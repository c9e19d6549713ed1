"""Where the sky of an image is open: far from everything that was detected on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.verify.view import View, remember
from pipeline import wcs
from pipeline.exposure import Exposure
from pipeline.masks import bits

__all__ = ["open_sky", "pixel_scale"]

_SIDE = 4
_REACH = 5.0  # arcsec to which the wings of a star matter
_LIGHT = ("DETECTED", "SAT", "BLEED")


def pixel_scale(exposure: Exposure, otherwise: float = 0.0) -> float:
    """Return the side of a pixel in arcsec from the coordinates, or a given value without them.

    Parameters
    ----------
    exposure : Exposure
        The image.
    otherwise : float, arcsec
        Value for an image without coordinates.

    Returns
    -------
    float, arcsec
        Side of a pixel.
    """
    if exposure.wcs is None:
        return otherwise
    return 3600.0 * wcs.pixel_scale(exposure.wcs)


def open_sky(view: View) -> npt.NDArray[np.bool_]:
    """Unmasked pixels that no detected source reaches.

    What is not detected is not yet blank: the wings of a star go on below the threshold for some
    arcseconds, the halo of a galaxy in proportion to the galaxy.  A pixel is open when it is
    farther from every footprint than 5″ and the footprint's own radius.  In a field so crowded
    that light overlaps everywhere, or all over a galaxy, none is.

    Parameters
    ----------
    view : View
        The unit; the answer is kept with it.

    Returns
    -------
    ndarray of bool, (ny, nx)
    """
    return remember(view, "open sky", lambda: _open(view))


def _open(view: View) -> npt.NDArray[np.bool_]:
    from scipy import ndimage

    image: Exposure = view.visit_image
    lit = _binned((image.mask & bits(*_LIGHT)) != 0)
    labels, _ = ndimage.label(lit)
    area = np.bincount(labels.ravel())
    distance, (j, i) = ndimage.distance_transform_edt(~lit, return_indices=True)
    radius = np.sqrt(area[labels[j, i]] / np.pi) if lit.any() else np.zeros(lit.shape)
    margin = _REACH / (pixel_scale(image, view.camera.pixel_scale) or 0.3) / _SIDE
    far = distance > margin + radius if lit.any() else ~lit
    ny, nx = image.shape
    whole = np.repeat(np.repeat(far, _SIDE, axis=0), _SIDE, axis=1)[:ny, :nx]
    return np.asarray(whole & (image.mask == 0) & np.isfinite(image.image) & (image.variance > 0))


def _binned(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether any pixel of a square bin is flagged."""
    ny, nx = flags.shape
    padded = np.pad(flags, ((0, -ny % _SIDE), (0, -nx % _SIDE)))
    blocks = padded.reshape(padded.shape[0] // _SIDE, _SIDE, -1, _SIDE)
    return np.asarray(blocks.any(axis=(1, 3)))
