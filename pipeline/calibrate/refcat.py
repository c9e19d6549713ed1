"""Reference stars at the epoch of an exposure, and catalogues made from other exposures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.exposure import FloatArray
from pipeline.schema import to_numpy
from pipeline.sphere import separation, turned

__all__ = ["ReferenceStars", "earth_position", "reference_stars"]

_YEAR = 365.25
_MAS = 1.0 / 3.6e6
_J2000 = 51544.5
_DEFAULT_ERR = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceStars:
    """Reference stars near an image, brightest first.

    Attributes
    ----------
    ids : ndarray of int64, (n,)
        Their numbers in the catalogue.
    ra, dec : ndarray, (n,), deg
        ICRS at the epoch of the exposure.
    err : ndarray, (n,), mas
        Positional error per axis, proper-motion error grown to the epoch included.
    flux, flux_err : ndarray, (n,), nJy
        In the band of the exposure; NaN where unknown.
    fluxes : mapping of str to ndarray
        Fluxes of all bands, for colour terms.
    """

    ids: npt.NDArray[np.int64]
    ra: FloatArray
    dec: FloatArray
    err: FloatArray
    flux: FloatArray
    flux_err: FloatArray
    fluxes: dict[str, FloatArray]

    def __len__(self) -> int:
        return len(self.ids)

    def colour(self, pairs: Iterable[tuple[str, str]], least: int = 0) -> FloatArray | None:
        """Return the first colour that enough of the stars have.

        Parameters
        ----------
        pairs : iterable of (str, str)
            Bluer and redder band.
        least : int
            How many stars must have it.

        Returns
        -------
        ndarray, (n,), mag, optional
            NaN where a flux is unknown; None if there is no such colour.
        """
        for blue, red in pairs:
            if blue in self.fluxes and red in self.fluxes:
                with np.errstate(divide="ignore", invalid="ignore"):
                    colour = -2.5 * np.log10(self.fluxes[blue] / self.fluxes[red])
                if np.isfinite(colour).sum() >= least:
                    return np.where(np.isfinite(colour), colour, np.nan)
        return None

    def take(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> ReferenceStars:
        """Return the stars at an index or where a mask is true."""
        return ReferenceStars(
            self.ids[index],
            self.ra[index],
            self.dec[index],
            self.err[index],
            self.flux[index],
            self.flux_err[index],
            {band: flux[index] for band, flux in self.fluxes.items()},
        )


def reference_stars(
    table: pa.Table, band: str, mjd_tai: float, centre: tuple[float, float], radius: float
) -> ReferenceStars:
    """Select reference stars round a position and carry them to the epoch of an exposure.

    Parameters
    ----------
    table : pyarrow.Table
        Columns ``ra dec`` (deg) are needed.  Used where present: ``objectId``, ``raErr decErr``
        (mas), ``pmRa pmDec`` (mas/yr, pmRa times cos dec) with their errors, ``parallax`` (mas),
        ``epochMjdTai`` (d), ``{band}Flux {band}FluxErr`` (nJy).
    band : str
        Band of the exposure.
    mjd_tai : float, d
        Epoch to carry the positions to.
    centre : tuple of float, (ra, dec), deg
        Middle of the image.
    radius : float, deg
        Stars farther away are left out.

    Returns
    -------
    ReferenceStars
        Sorted by flux in the band, or in the first band there is, then by number.

    Raises
    ------
    InputError
        If the positions are missing.
    """
    for name in ("ra", "dec"):
        if name not in table.column_names:
            raise InputError("reference catalogue lacks a column", key=name, expected="degrees")
    ra, dec = _column(table, "ra"), _column(table, "dec")
    near = separation(*centre, ra, dec) < radius
    table = table.filter(pa.array(near))
    ra, dec, err = _propagated(table, ra[near], dec[near], mjd_tai)
    fluxes = _fluxes(table)
    nothing = np.full(len(ra), np.nan)
    ids = (
        to_numpy(table, "objectId").astype(np.int64)
        if "objectId" in table.column_names
        else np.flatnonzero(near).astype(np.int64)
    )
    flux = fluxes.get(band, nothing)
    brightness = flux if np.isfinite(flux).any() else next(iter(fluxes.values()), nothing)
    stars = ReferenceStars(
        ids, ra, dec, err, flux, _column(table, f"{band}FluxErr", np.nan), fluxes
    )
    return stars.take(np.lexsort((ids, -np.nan_to_num(brightness, nan=-np.inf))))


def _column(table: pa.Table, name: str, default: float = np.nan) -> FloatArray:
    if name not in table.column_names:
        return np.full(len(table), default)
    return to_numpy(table, name).astype(float)


def _fluxes(table: pa.Table) -> dict[str, FloatArray]:
    return {b: _column(table, f"{b}Flux") for b in "grizyu" if f"{b}Flux" in table.column_names}


def _propagated(
    table: pa.Table, ra: FloatArray, dec: FloatArray, mjd_tai: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Positions at an epoch and their errors, proper motion and parallax applied."""
    years = np.nan_to_num((mjd_tai - _column(table, "epochMjdTai")) / _YEAR)
    east = np.nan_to_num(_column(table, "pmRa")) * years
    north = np.nan_to_num(_column(table, "pmDec")) * years
    parallax = np.nan_to_num(_column(table, "parallax"))
    a, d = np.radians(ra), np.radians(dec)
    earth = earth_position(mjd_tai)
    east += parallax * (earth[0] * np.sin(a) - earth[1] * np.cos(a))
    north += parallax * (
        earth[0] * np.cos(a) * np.sin(d) + earth[1] * np.sin(a) * np.sin(d) - earth[2] * np.cos(d)
    )
    err = np.sqrt(0.5 * (_errors(table, "ra", years) + _errors(table, "dec", years)))
    return turned(ra + east * _MAS / np.cos(d)), dec + north * _MAS, err


def _errors(table: pa.Table, axis: str, years: FloatArray) -> FloatArray:
    """Squared error of one coordinate at the epoch, mas²."""
    position = np.nan_to_num(_column(table, f"{axis}Err"), nan=_DEFAULT_ERR)
    motion = np.nan_to_num(_column(table, f"pm{axis.capitalize()}Err"))
    return np.asarray(position**2 + (motion * years) ** 2)


def earth_position(mjd_tai: float) -> tuple[float, float, float]:
    """Position of the Earth from the Sun in equatorial coordinates.

    Parameters
    ----------
    mjd_tai : float, d
        Date.

    Returns
    -------
    tuple of float, (x, y, z), au
        Good to 3·10⁻⁴ au; the Sun stands within 0.01 au of the barycentre, one per cent of a
        parallax (Astronomical Almanac, low-precision formulas for the Sun).
    """
    n = mjd_tai - _J2000
    g = np.radians(357.528 + 0.9856003 * n)
    longitude = np.radians(280.460 + 0.9856474 * n + 1.915 * np.sin(g) + 0.020 * np.sin(2 * g))
    # The mean longitude counts from the equinox of date; 50.29″ a year lead back to J2000.
    longitude -= np.radians(50.29 / 3600.0 * n / _YEAR)
    r = 1.00014 - 0.01671 * np.cos(g) - 0.00014 * np.cos(2 * g)
    tilt = np.radians(23.4393)
    return (
        float(-r * np.cos(longitude)),
        float(-r * np.sin(longitude) * np.cos(tilt)),
        float(-r * np.sin(longitude) * np.sin(tilt)),
    )
