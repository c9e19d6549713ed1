"""The patch of sky that a template covers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.wcs import WCS

from pipeline.errors import TemplateError
from pipeline.exposure import Exposure, FloatArray
from pipeline.template.config import Config
from pipeline.wcs import canonical

__all__ = ["patch"]


def patch(inputs: Sequence[Exposure], config: Config | None = None) -> tuple[WCS, tuple[int, int]]:
    """Choose a tangential grid that covers the inputs with a margin.

    It has the pixel scale, the orientation and the parity of the input with the lowest visit and
    detector number, and does not depend on the order of the inputs.

    Parameters
    ----------
    inputs : sequence of Exposure
        Exposures with sky coordinates.
    config : Config, optional
        The margin.

    Returns
    -------
    wcs : astropy.wcs.WCS
        Sky coordinates of the patch.
    shape : tuple of int, (ny, nx)
        Its size.

    Raises
    ------
    TemplateError
        If no input has sky coordinates.
    """
    config = config or Config()
    usable = sorted(
        (e for e in inputs if e.wcs is not None), key=lambda e: (e.info.visit, e.info.detector)
    )
    if not usable:
        raise TemplateError("no template input has sky coordinates", inputs=len(inputs))
    wcs = _tangential(usable[0])
    rim = np.concatenate([_rim(e, wcs) for e in usable])
    low = np.floor(rim.min(0)) - config.margin
    high = np.ceil(rim.max(0)) + config.margin
    wcs.wcs.crpix = wcs.wcs.crpix - low
    size = (high - low).astype(int) + 1
    return canonical(wcs), (int(size[1]), int(size[0]))


def _tangential(exposure: Exposure) -> WCS:
    """Tangential coordinates that touch the sky in the middle of an exposure."""
    source = exposure.wcs
    assert source is not None
    ny, nx = exposure.shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    ra, dec = (float(v) for v in source.all_pix2world(x, y, 0))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [round(ra, 9), round(dec, 9)]
    wcs.wcs.crpix = [1.0, 1.0]
    wcs.wcs.cd = np.identity(2)
    h = 0.25 * min(ny, nx)
    corners = np.array([[x + h, y], [x - h, y], [x, y + h], [x, y - h]])
    plane = wcs.all_world2pix(source.all_pix2world(corners, 0), 0)
    cd = np.stack([plane[0] - plane[1], plane[2] - plane[3]], axis=1) / (2 * h)
    wcs.wcs.cd = np.array([[float(f"{v:.12e}") for v in row] for row in cd])
    wcs.wcs.set()
    return wcs


def _rim(exposure: Exposure, wcs: WCS) -> FloatArray:
    """Pixel coordinates in `wcs` of points along the edge of an exposure."""
    assert exposure.wcs is not None
    ny, nx = exposure.shape
    x, y = np.linspace(0, nx - 1, 9), np.linspace(0, ny - 1, 9)
    edge = [(u, v) for u in x for v in (0, ny - 1)] + [(u, v) for v in y for u in (0, nx - 1)]
    sky = exposure.wcs.all_pix2world(np.array(edge, float), 0)
    return np.asarray(wcs.all_world2pix(sky, 0))
