"""Files that only the stand-alone subtraction writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from pipeline.exposure import GridPsf, Psf
from pipeline.io import atomic_path

__all__ = ["write_psf_grid"]


def write_psf_grid(path: Path, psf: Psf, shape: tuple[int, int]) -> None:
    """Write the PSF of a difference as a grid of stamps.

    Parameters
    ----------
    path : path
        The file: HDU 0 holds the stamps ``(ny, nx, h, w)``, odd-sized, centred, with unit sum;
        HDU 1 the x and HDU 2 the y of the grid, 0-based pixels.
    psf : Psf
        Evaluated on its own grid, or on 5 × 9 nodes if it has none.
    shape : tuple of int, (ny, nx)
        Size of the image.
    """
    if isinstance(psf, GridPsf):
        cube, x, y = psf.cube, psf.x, psf.y
    else:
        x, y = np.linspace(0, shape[1] - 1, 5), np.linspace(0, shape[0] - 1, 9)
        u, v = (a.ravel() for a in np.meshgrid(x, y))
        cube = psf.stamps(u, v).reshape(len(y), len(x), psf.side, psf.side)
    cube = cube / cube.sum((2, 3), keepdims=True)
    hdus = fits.HDUList([fits.PrimaryHDU(cube), fits.ImageHDU(x), fits.ImageHDU(y)])
    with atomic_path(path) as partial:
        hdus.writeto(partial, overwrite=True)
