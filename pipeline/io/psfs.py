"""Point spread functions of others: PSFEx models, grids of stamps, single stamps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.ndimage import map_coordinates

from pipeline.errors import FileFormatError
from pipeline.exposure import FloatArray, GridPsf
from pipeline.io.files import open_fits
from pipeline.io.headers import number, plain_header

__all__ = ["read_psf"]

_SIDE = 41
_NODES = 9
_OFF_CENTRE = 0.05
_EXPECTED = "a PSFEx model (table PSF_DATA), a grid of stamps (as --psf-grid writes) or one stamp"


def read_psf(path: str | Path, shape: tuple[int, int]) -> GridPsf:
    """Read a point spread function.

    Parameters
    ----------
    path : path-like
        A FITS file: a model of PSFEx (Bertin 2011, ASP Conf. 442, 435), a polynomial of X and Y in
        pixels; stamps ``(ny, nx, h, w)`` with the x and y of the grid, 0-based, in HDUs 1 and 2; or
        a single stamp.
    shape : tuple of int, (ny, nx)
        Size of the image.

    Returns
    -------
    GridPsf
        Stamps of 41 x 41 pixels whose whole light, outside the stamp included, is 1.

    Raises
    ------
    FileFormatError
        If the file is none of these, or a stamp has no light.
    """
    path = Path(path)
    with open_fits(path, expected=_EXPECTED) as hdus:
        table = next((h for h in hdus if h.name.upper() == "PSF_DATA"), None)
        if isinstance(table, fits.BinTableHDU):
            cube, x, y, step = _psfex(table, path, shape)
        else:
            cube, x, y = _stamps(hdus, path)
            step = 1.0
    flat = cube.reshape(-1, *cube.shape[-2:])
    total = flat.sum(axis=(1, 2))
    if not (np.isfinite(flat).all() and (total > 0).all()):
        raise FileFormatError("a stamp has no light", path=path, expected=_EXPECTED)
    stamps = np.stack([_sampled(s / t, step) for s, t in zip(flat, total, strict=True)])
    return GridPsf(stamps.reshape(len(y), len(x), _SIDE, _SIDE), x, y)


def _psfex(
    table: fits.BinTableHDU, path: Path, shape: tuple[int, int]
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Evaluate a model of PSFEx on a grid; its stamps are sampled in steps of PSF_SAMP pixels."""
    header = table.header
    names = [str(header.get(f"POLNAME{i}", "")).upper() for i in (1, 2)]
    n_axes, degree = (int(_value(header, key, 0, path)) for key in ("POLNAXIS", "POLDEG1"))
    if n_axes and (n_axes != 2 or not (names[0].startswith("X") and names[1].startswith("Y"))):
        raise FileFormatError(
            f"varies with {', '.join(names)}", path=path, hdu="PSF_DATA", key="POLNAME1",
            expected="X_IMAGE and Y_IMAGE",
        )  # fmt: skip
    planes = np.asarray(table.data["PSF_MASK"][0], float)
    planes = planes.reshape(-1, *planes.shape[-2:])
    x, y = (np.linspace(0, n - 1, _NODES if degree else 1) for n in shape[::-1])
    u, v = np.meshgrid(
        *(
            (a + 1 - _value(header, f"POLZERO{i}", 0.0, path))
            / _value(header, f"POLSCAL{i}", 1.0, path)
            for i, a in ((1, x), (2, y))
        )
    )
    terms = [u**i * v**j for j in range(degree + 1) for i in range(degree + 1 - j)]
    if len(terms) != len(planes):
        raise FileFormatError(
            f"{len(planes)} planes", path=path, hdu="PSF_DATA", key="POLDEG1",
            expected=f"{len(terms)} for degree {degree}",
        )  # fmt: skip
    cube = np.tensordot(np.stack(terms, axis=-1), planes, axes=(2, 0))
    return cube, x, y, _value(header, "PSF_SAMP", 1.0, path)


def _value(header: fits.Header, key: str, usual: float, path: Path) -> float:
    """Return a number of the header, or the usual one where there is no such card."""
    if key not in header:
        return usual
    found = number(plain_header(header), (key,))
    unusable = found is None or (found[1] <= 0 and key.startswith(("PSF_SAMP", "POLSCAL")))
    if found is None or unusable:
        raise FileFormatError("not a usable number", path=path, hdu="PSF_DATA", key=key)
    return found[1]


def _stamps(hdus: fits.HDUList, path: Path) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Read a grid of stamps, or a single one that holds everywhere."""
    images = [h.data for h in hdus if h.is_image and h.data is not None]
    if images and images[0].ndim == 2:
        return np.asarray(images[0], float)[None, None], np.zeros(1), np.zeros(1)
    if len(images) >= 3 and images[0].ndim == 4:
        x, y = (np.asarray(a, float).ravel() for a in images[1:3])
        if images[0].shape[:2] == (len(y), len(x)):
            return np.asarray(images[0], float), x, y
    raise FileFormatError("holds no point spread function", path=path, expected=_EXPECTED)


def _sampled(stamp: FloatArray, step: float) -> FloatArray:
    """Stamp of unit sum on 41 x 41 pixels about its middle."""
    weight = np.clip(stamp, 0.0, None) ** 2  # smooth, and blind to the noise in the wings
    centre = np.array([(a * weight).sum() for a in np.indices(stamp.shape)]) / weight.sum()
    middle = np.array([(n - 1) / 2 for n in stamp.shape])
    if (np.abs(centre - middle) < _OFF_CENTRE).all() and stamp.shape[0] % 2:
        centre = middle
    at = np.arange(_SIDE) - _SIDE // 2
    rows, columns = np.meshgrid(*(c + at / step for c in centre), indexing="ij")
    # A spline through the stamp; density per pixel of the image is that per step over its area.
    return np.asarray(map_coordinates(stamp, [rows, columns], order=3, cval=0.0) / step**2)
