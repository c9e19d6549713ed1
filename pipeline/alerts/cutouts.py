"""Cut-outs as small FITS files.

Each is ``PRIMARY`` (the image, so that readers that only know the first HDU see it),
``UNCERT`` (variance), ``MASK`` (bits, with their names) and ``PSFIMAGE``.  The primary header
fits one block of 2880 bytes.  Headers are laid out once per image by astropy; what differs from
size to size and from source to source is written into its columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.alerts.avro import CUTOUTS
from pipeline.alerts.config import Config
from pipeline.exposure import NJY_ZERO_POINT, Exposure, FloatArray
from pipeline.masks import MASK_PLANES, bits
from pipeline.psfphot import SplinePsf, psf_box
from pipeline.schema import to_numpy
from pipeline.sphere import project

__all__ = ["Cutter", "cut_out", "local_wcs", "measured", "psf_images"]

_SCHEMA = pa.schema([("diaSourceId", pa.int64()), *((kind, pa.binary()) for kind in CUTOUTS)])

_BLOCK = 2880
_VARIABLE = ("CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2", "ROTPA")
_COUNTS = ("DIASRCID", "CUTMINX", "CUTMINY")
_SIDES = ("NAXIS1", "NAXIS2")
_MIDDLES = ("CRPIX1", "CRPIX2")
_SIZED = 3
"""HDUs as large as the cut-out; the PSF after them has its own size."""
_UNITS = {"nJy": ("nJy", "nJy2"), "electron": ("electron", "electron2"), "adu": ("adu", "adu2")}


def cut_out(
    sources: pa.Table,
    difference: Exposure,
    science: Exposure,
    template: Exposure,
    config: Config = Config(),  # noqa: B008
) -> pa.Table:
    """Cut out every source that may be announced, however reliable it is.

    Parameters
    ----------
    sources : pyarrow.Table
        `DIA_SOURCE` of the images.
    difference, science, template : Exposure
        Images on the same pixels, with coordinates and PSFs, as their files hold them.
    config : Config
        Sizes.

    Returns
    -------
    pyarrow.Table
        ``diaSourceId``, ascending, and one FITS file in each of ``difference``, ``science`` and
        ``template``.
    """
    chosen = sources.filter(pa.array(measured(sources))).sort_by("diaSourceId")
    ids = to_numpy(chosen, "diaSourceId")
    x, y = to_numpy(chosen, "x").astype(float), to_numpy(chosen, "y").astype(float)
    side = np.clip(to_numpy(chosen, "bboxSize"), config.cutout_min, config.cutout_max)
    images = zip(CUTOUTS, (difference, science, template), strict=True)
    files = {kind: Cutter(image, kind, config).cut(ids, x, y, side) for kind, image in images}
    return pa.table({"diaSourceId": ids, **files}, schema=_SCHEMA)


def measured(sources: pa.Table) -> npt.NDArray[np.bool_]:
    """Whether sources have what every announced one has, whatever the configuration asks.

    Parameters
    ----------
    sources : pyarrow.Table, n rows
        `DIA_SOURCE`.

    Returns
    -------
    ndarray, (n,), bool
        Above threshold, no parent of a blend, finite PSF and aperture fluxes.
    """
    fluxes = [to_numpy(sources, n) for n in ("psfFlux", "psfFluxErr", "apFlux", "apFluxErr")]
    unfit = to_numpy(sources, "isSubThreshold") | to_numpy(sources, "isDeblendParent")
    return np.asarray(np.all(np.isfinite(fluxes), axis=0) & ~unfit, bool)


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """Bytes of a file of one size, cut at its data; offsets of the values in the first header."""

    headers: tuple[bytes, ...]
    values: dict[str, int]
    pads: tuple[bytes, ...]

    def of_side(self, side: int) -> _Layout:
        """Return the layout of files with planes of another side, all of four bytes a pixel."""
        headers = list(self.headers)
        for k, header in enumerate(headers[:_SIZED]):
            for name in _SIDES:
                header = _with_value(header, name, b"%20d" % side)
            headers[k] = header
        for name in _MIDDLES:
            headers[0] = _with_value(headers[0], name, b"%20.1f" % (side // 2 + 1))
        pad = b"\0" * (-4 * side**2 % _BLOCK)
        return _Layout(tuple(headers), self.values, (*(pad,) * _SIZED, *self.pads[_SIZED:]))


def _place(header: bytes, name: str) -> int:
    """Where the twenty columns of a card's number begin."""
    return header.index(f"{name:<8}= ".encode()) + 10


def _with_value(header: bytes, name: str, value: bytes) -> bytes:
    at = _place(header, name)
    return header[:at] + value + header[at + len(value) :]


class Cutter:
    """Makes the cut-outs of one image.

    Parameters
    ----------
    exposure : Exposure
        Image with coordinates and PSF.
    kind : str
        ``difference``, ``science`` or ``template``; written into the header.
    config : Config
        Sizes.
    """

    def __init__(self, exposure: Exposure, kind: str, config: Config) -> None:
        if exposure.wcs is None or exposure.psf is None:
            raise ValueError(f"the {kind} image has no coordinates or no PSF")
        self._exposure, self._kind, self._config = exposure, kind, config
        self._psf = SplinePsf.of(exposure.psf)
        self._psf_side = min(config.psf_side, exposure.psf.side) | 1
        self._layouts: dict[int, _Layout] = {}

    def cut(
        self, ids: npt.NDArray[np.int64], x: FloatArray, y: FloatArray, side: npt.NDArray[np.int64]
    ) -> list[bytes]:
        """Cut out many sources.

        Parameters
        ----------
        ids : ndarray, (n,)
            ``diaSourceId``, for the header.
        x, y : ndarray, (n,), pixel
            Positions.
        side : ndarray, (n,), pixel
            Sides of the cut-outs; the pixel nearest to the source is number ``side // 2``,
            counted from zero.

        Returns
        -------
        list of bytes
            One FITS file each.
        """
        exposure = self._exposure
        column, row = np.rint(x).astype(int), np.rint(y).astype(int)
        assert exposure.wcs is not None
        sky, matrix = local_wcs(exposure.wcs, column.astype(float), row.astype(float))
        psf = psf_images(self._psf, x, y, self._psf_side)
        files = []
        for k in range(len(ids)):
            n = int(side[k])
            left, low = int(column[k]) - n // 2, int(row[k]) - n // 2
            turn = np.degrees(np.arctan2(matrix[k, 0, 1], matrix[k, 1, 1]))
            values = (*sky[k], *matrix[k].ravel(), turn)
            files.append(self._file(int(ids[k]), n, left, low, values, psf[k]))
        return files

    def _file(
        self,
        number: int,
        side: int,
        left: int,
        low: int,
        values: tuple[float, ...],
        psf: FloatArray,
    ) -> bytes:
        if side not in self._layouts:
            first = next(iter(self._layouts.values()), None)
            self._layouts[side] = first.of_side(side) if first else self._layout(side)
        layout = self._layouts[side]
        header = bytearray(layout.headers[0])
        for name, value in zip(_VARIABLE, values, strict=True):
            at = layout.values[name]
            header[at : at + 20] = b"%20.13E" % value
        for name, count in zip(_COUNTS, (number, left, low), strict=True):
            at = layout.values[name]
            header[at : at + 20] = b"%20d" % count
        exposure, mask_fill = self._exposure, bits("NO_DATA")
        planes = (
            _window(exposure.image, left, low, side, np.float32(np.nan)).astype(">f4"),
            _window(exposure.variance, left, low, side, np.float32(np.nan)).astype(">f4"),
            _window(exposure.mask, left, low, side, mask_fill).astype(">i4"),
            psf.astype(">f4"),
        )
        pieces: list[bytes] = []
        for k, plane in enumerate(planes):
            pieces += [bytes(header) if k == 0 else layout.headers[k], plane.tobytes()]
            pieces.append(layout.pads[k])
        return b"".join(pieces)

    def _layout(self, side: int) -> _Layout:
        """Write one file with astropy and take its headers and paddings."""
        hdus, stream = self._hdus(side), BytesIO()
        hdus.writeto(stream)
        headers = tuple(hdu.header.tostring().encode() for hdu in hdus)
        pads = tuple(b"\0" * (-hdu.data.nbytes % _BLOCK) for hdu in hdus)
        assert stream.tell() == sum(
            len(head) + hdu.data.nbytes + len(pad)
            for head, hdu, pad in zip(headers, hdus, pads, strict=True)
        )
        names = (*_VARIABLE, *_COUNTS)
        values = {name: _place(headers[0], name) for name in names}
        return _Layout(headers, values, pads)

    def _hdus(self, side: int) -> fits.HDUList:
        unit, squared = _UNITS.get(self._exposure.unit, ("", ""))
        plane = np.zeros((side, side), np.float32)
        primary = fits.PrimaryHDU(plane, self._primary_header(side, unit))
        uncertainty = fits.ImageHDU(plane, name="UNCERT")
        uncertainty.header["UTYPE"] = ("VarianceUncertainty", "expected variance of each pixel")
        uncertainty.header["BUNIT"] = squared
        mask = fits.ImageHDU(plane.astype(np.int32), self._mask_header(), name="MASK")
        psf = fits.ImageHDU(np.zeros((self._psf_side,) * 2, np.float32), name="PSFIMAGE")
        return fits.HDUList([primary, uncertainty, mask, psf])

    def _primary_header(self, side: int, unit: str) -> fits.Header:
        info, middle = self._exposure.info, side // 2 + 1.0
        header = fits.Header()
        header["CUTOUT"] = (self._kind, "which image")
        header["BUNIT"] = (unit, "unit of the pixels")
        header["MAGZERO"] = (NJY_ZERO_POINT, "AB magnitude of 1 nJy")
        header["WCSAXES"] = 2
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
        header["CUNIT1"], header["CUNIT2"] = "deg", "deg"
        header["CRPIX1"], header["CRPIX2"] = middle, middle
        for name in _VARIABLE:
            header[name] = 0.0
        header["RADESYS"] = "ICRS"
        header.comments["ROTPA"] = "[deg] position angle of the columns"
        header["DIASRCID"] = 0
        header["CUTMINX"] = (0, "column of the first pixel in the image")
        header["CUTMINY"] = (0, "row of the first pixel in the image")
        header["VISIT"], header["DETECTOR"] = info.visit, info.detector
        header["BAND"] = info.band
        header["EXPTIME"] = (info.exptime, "s")
        header["MJD-MID"] = (info.midpoint_mjd_tai, "middle of the exposure, TAI")
        header["TIMESYS"] = "TAI"
        return header

    def _mask_header(self) -> fits.Header:
        header = fits.Header()
        for bit, (name, meaning) in enumerate(MASK_PLANES.items()):
            # names of more than eight characters become HIERARCH cards
            key = f"MP_{name}"
            card = fits.Card(key if len(key) <= 8 else f"HIERARCH {key}", bit, meaning[:30])
            header.append(card)
        for key, value in self._exposure.provenance.items():
            if len(key) <= 8 and key not in header:
                header[key] = value
        return header


def _window(
    plane: npt.NDArray[np.generic], left: int, low: int, side: int, fill: np.generic
) -> npt.NDArray[np.generic]:
    """Return a square of a plane; what lies off the plane is `fill`."""
    ny, nx = plane.shape
    if left >= 0 and low >= 0 and left + side <= nx and low + side <= ny:
        return plane[low : low + side, left : left + side]
    window = np.full((side, side), fill, plane.dtype)
    y0, y1 = max(low, 0), min(low + side, ny)
    x0, x1 = max(left, 0), min(left + side, nx)
    if y1 > y0 and x1 > x0:
        window[y0 - low : y1 - low, x0 - left : x1 - left] = plane[y0:y1, x0:x1]
    return window


def local_wcs(wcs: WCS, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gnomonic coordinates that touch an image's own at given pixels.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Coordinates of the image.
    x, y : ndarray, (n,), pixel
        Reference pixels, counted from zero.

    Returns
    -------
    centre : ndarray, (n, 2), deg
        Sky position of the reference pixels.
    matrix : ndarray, (n, 2, 2), deg per pixel
        ``CDi_j``: standard coordinates (east, north) by pixel (x, y).
    """
    step_x = np.array([0.0, 1.0, -1.0, 0.0, 0.0])[:, None]
    step_y = np.array([0.0, 0.0, 0.0, 1.0, -1.0])[:, None]
    ra, dec = wcs.all_pix2world((x + step_x).ravel(), (y + step_y).ravel(), 0)
    ra, dec = np.reshape(ra, (5, -1)), np.reshape(dec, (5, -1))
    plane = project(ra, dec, (ra[0], dec[0]))
    slopes = np.stack([0.5 * (plane[1] - plane[2]), 0.5 * (plane[3] - plane[4])], axis=-1)
    return np.stack([ra[0], dec[0]], axis=-1), slopes


def psf_images(psf: SplinePsf, x: FloatArray, y: FloatArray, side: int) -> FloatArray:
    """PSFs at the sub-pixel positions of sources, normalised as their fluxes are.

    The flux of a source is Σ P D / Σ P² of these pixels.  Their sum is one within twelve pixels,
    the aperture that fluxes are tied to, and more where a wide PSF goes on beyond.

    Parameters
    ----------
    psf : SplinePsf
        Prefiltered model.
    x, y : ndarray, (n,), pixel
        Positions.
    side : int
        Odd side of the images; the pixel nearest to the source is the middle one.

    Returns
    -------
    ndarray, (n, side, side)
    """
    images = np.empty((len(x), side, side))
    slope_x, slope_y = np.empty((side, side)), np.empty((side, side))
    if len(x):
        coefficients = psf.coefficients(x, y)
    for k in range(len(x)):
        dx, dy = float(x[k] - np.rint(x[k])), float(y[k] - np.rint(y[k]))
        psf_box(coefficients[k], dx, dy, psf.order, images[k], slope_x, slope_y)
    return images
