"""Photometry of everything detected on the visit image, and the table of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS

from pipeline.calibrate.deblend import Separated
from pipeline.calibrate.detect import Detections
from pipeline.calibrate.measure import Moments, aperture_flux
from pipeline.exposure import Exposure, FloatArray, Image, Mask, Psf, VisitInfo
from pipeline.ids import pack
from pipeline.masks import bits
from pipeline.psfphot import SplinePsf, forced_flux

__all__ = ["Photometry", "photometry", "source_table"]

_COLUMNS: dict[str, tuple[pa.DataType, str, str]] = {
    "sourceId": (pa.int64(), "", "number of the source"),
    "visit": (pa.int64(), "", "exposure number"),
    "detector": (pa.int16(), "", "CCD number"),
    "x": (pa.float64(), "pixel", "column of the centroid"),
    "y": (pa.float64(), "pixel", "row of the centroid"),
    "xErr": (pa.float32(), "pixel", "error of the centroid along either axis"),
    "ra": (pa.float64(), "deg", "right ascension"),
    "dec": (pa.float64(), "deg", "declination"),
    "snr": (pa.float32(), "", "score of the detection over the source-free noise"),
    "psfFlux": (pa.float64(), "{unit}", "flux of the fitted point spread function"),
    "psfFluxErr": (pa.float64(), "{unit}", "its error"),
    "psfChi2": (pa.float32(), "", "chi-square of that fit"),
    "psfNdata": (pa.int32(), "", "pixels in that fit"),
    "apFlux": (pa.float64(), "{unit}", "flux within 12 pixels"),
    "ixx": (pa.float32(), "pixel**2", "second moment along x"),
    "iyy": (pa.float32(), "pixel**2", "second moment along y"),
    "ixy": (pa.float32(), "pixel**2", "mixed second moment"),
    "footprintArea": (pa.int32(), "pixel", "size of the footprint"),
    "isPsfStar": (pa.bool_(), "", "was used for the point spread function"),
    "isAstrometryStar": (pa.bool_(), "", "was used for the world coordinates"),
    "isPhotometryStar": (pa.bool_(), "", "was used for the zero point"),
    "refObjectId": (pa.int64(), "", "reference star that it was paired with"),
    "saturated": (pa.bool_(), "", "a saturated pixel near the middle"),
    "flag": (pa.bool_(), "", "measurement is doubtful: edge, bad pixels or no centroid"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Photometry:
    """Fluxes of all detections, image unit.

    Attributes
    ----------
    x, y : ndarray, (n,), pixel
        Positions they were measured at.
    flux, flux_err, sky_err : ndarray, (n,)
        PSF flux, its error, and the error of a vanishing source at the same place.
    chi2, ndata : ndarray, (n,)
        Of the PSF fit.
    aperture : ndarray, (n,)
        Within 12 pixels.
    flag : ndarray of bool, (n,)
        Doubtful.
    """

    x: FloatArray
    y: FloatArray
    flux: FloatArray
    flux_err: FloatArray
    sky_err: FloatArray
    chi2: FloatArray
    ndata: npt.NDArray[np.int32]
    aperture: FloatArray
    flag: npt.NDArray[np.bool_]

    def centroid_err(self, sigma: float) -> FloatArray:
        """Error of the centroids in pixels for a Gaussian width of the PSF (King 1983)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = self.flux / self.flux_err
            return np.where(snr > 0, 1.15 * sigma / snr, np.nan)


def photometry(
    exposure: Exposure, noise: Image, apart: Separated, centred: npt.NDArray[np.bool_]
) -> Photometry:
    """Measure PSF and aperture fluxes of all sources.

    A flux is that of the model plus what the residual still holds at the place, so that neighbours
    which were fitted do not count.

    Parameters
    ----------
    exposure : Exposure
        Without sky, with its PSF.
    noise : ndarray, (ny, nx)
        Source-free variance.
    apart : Separated
        Positions, and the model of the sources that were fitted together.
    centred : ndarray of bool, (n,)
        Whether a source has a centroid.

    Returns
    -------
    Photometry
    """
    assert exposure.psf is not None
    spline, x, y = SplinePsf.of(exposure.psf), apart.x, apart.y
    mask = exposure.mask
    rest = forced_flux(apart.residual, exposure.variance, noise, mask, spline, x, y)
    blank = forced_flux(apart.residual, noise, noise, mask, spline, x, y)
    return Photometry(
        x,
        y,
        rest.flux + apart.flux,
        rest.flux_err,
        blank.flux_err,
        rest.chi2,
        rest.ndata,
        aperture_flux(apart.residual, x, y, Psf.FLUX_RADIUS) + apart.flux,
        rest.flag | ~centred | (rest.good < 0.9),
    )


def source_table(
    info: VisitInfo,
    detections: Detections,
    moments: Moments,
    fluxes: Photometry,
    wcs: WCS | None,
    *,
    scale: float,
    unit: str,
    sigma: float,
    flags: dict[str, npt.NDArray[np.bool_]],
    reference: npt.NDArray[np.int64],
) -> pa.Table:
    """Put the measurements of a visit image into a table, brightest first.

    Parameters
    ----------
    info : VisitInfo
        Which exposure.
    detections, moments, fluxes : Detections, Moments, Photometry
        One entry per source.
    wcs : astropy.wcs.WCS, optional
        For the positions on the sky, NULL without.
    scale : float
        What fluxes are multiplied by.
    unit : str
        Their unit afterwards.
    sigma : float, pixel
        Gaussian width of the PSF.
    flags : dict of str to ndarray of bool
        ``isPsfStar`` and the like.
    reference : ndarray of int64, (n,)
        Reference star of each source, -1 for none.

    Returns
    -------
    pyarrow.Table
        With units and descriptions in the metadata of its fields.
    """
    n = len(detections)
    nothing = np.full(n, np.nan)
    ra, dec = (nothing, nothing) if wcs is None else wcs.all_pix2world(fluxes.x, fluxes.y, 0)
    first = pack(info.visit, info.detector)
    values = {
        "sourceId": first + np.arange(n, dtype=np.int64),
        "visit": np.full(n, info.visit),
        "detector": np.full(n, info.detector),
        "x": fluxes.x,
        "y": fluxes.y,
        "xErr": fluxes.centroid_err(sigma),
        "ra": ra,
        "dec": dec,
        "snr": detections.snr,
        "psfFlux": fluxes.flux * scale,
        "psfFluxErr": fluxes.flux_err * scale,
        "psfChi2": fluxes.chi2,
        "psfNdata": fluxes.ndata,
        "apFlux": fluxes.aperture * scale,
        "ixx": moments.xx,
        "iyy": moments.yy,
        "ixy": moments.xy,
        "footprintArea": detections.area,
        "refObjectId": pa.array(reference, mask=reference < 0),
        "saturated": _any(moments.flags, "SAT", "BLEED"),
        "flag": fluxes.flag,
        **flags,
    }
    return pa.Table.from_arrays(
        [_array(values[name], kind) for name, (kind, _, _) in _COLUMNS.items()],
        schema=_schema(unit),
    )


def _any(flags: Mask, *planes: str) -> npt.NDArray[np.bool_]:
    return np.asarray((flags & bits(*planes)) != 0)


def _array(values: npt.NDArray[np.generic] | pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values.cast(kind)
    return pa.array(values, from_pandas=True).cast(kind)


def _schema(unit: str) -> pa.Schema:
    return pa.schema(
        pa.field(name, kind, metadata={"unit": u.format(unit=unit), "description": text})
        for name, (kind, u, text) in _COLUMNS.items()
    )
