"""Reference stars from public archives, for those who have a network; never needed.

Both catalogues come from VizieR through astroquery, an extra of the installation.  Gaia DR3 has the
better positions and no fluxes in our bands: g, r and i follow from its colours with a scatter of
0.04 to 0.08 mag.  Pan-STARRS1 has the better fluxes, north of declination −30 degrees, and mean
positions without proper motions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import ConfigError, InputError
from pipeline.exposure import NJY_ZERO_POINT
from pipeline.io.catalogues import GAIA_TO_SDSS
from pipeline.schema import REFCAT
from pipeline.sphere import separation

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["CATALOGUES", "fetch_refcat"]

_Columns = dict[str, npt.NDArray[Any]]

_MARGIN = 0.05  # deg, so that dithered frames need one question
_J2016 = 57388.5
_MAG = 2.5 / float(np.log(10.0))
_POINTLIKE = 0.05  # mag by which the Kron flux of a star exceeds its PSF flux at most


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """A table of VizieR and how its rows become reference stars."""

    table: str
    columns: tuple[str, ...]
    stars: Callable[[_Columns], _Columns]


def fetch_refcat(name: str, corners: Iterable[Sequence[float]]) -> pa.Table:
    """Fetch reference stars round images.

    Parameters
    ----------
    name : str
        One of `CATALOGUES`.
    corners : iterable of sequence of float, deg
        Right ascension and declination of the corners of each image, alternating; images without
        are left out.

    Returns
    -------
    pyarrow.Table
        As `pipeline.schema.REFCAT`, every star once, in the order of its number.

    Raises
    ------
    ConfigError
        If there is no such catalogue, or astroquery is not installed.
    InputError
        If no image has coordinates, or the archive cannot be reached or has no star there.
    """
    if name not in CATALOGUES:
        raise ConfigError(f"no catalogue {name!r}", expected=" or ".join(CATALOGUES))
    catalogue = CATALOGUES[name]
    circles = _circles(corners)
    if not circles:
        raise InputError("no coordinates to fetch stars for", hint="give --refcat instead")
    parts = [catalogue.stars(rows) for rows in _ask(catalogue, circles) if rows]
    if not any(len(part["ra"]) for part in parts):
        raise InputError(f"{name} has no stars here", hint="give --refcat instead")
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    _, first = np.unique(joined["objectId"], return_index=True)
    return REFCAT.to_arrow({key: values[first] for key, values in joined.items()})


def _circles(corners: Iterable[Sequence[float]]) -> list[tuple[float, float, float]]:
    """Centre and radius of what is to be asked; images inside another's circle need none."""
    circles: list[tuple[float, float, float]] = []
    for image in corners:
        ra, dec = np.asarray(image[0::2], float), np.asarray(image[1::2], float)
        if not len(ra):
            continue
        shift = (ra - ra[0] + 180.0) % 360.0 - 180.0
        centre = float((ra[0] + shift.mean()) % 360.0), float(dec.mean())
        reach = float(separation(*centre, ra, dec).max())
        if all(separation(*centre, a, d) + reach > r for a, d, r in circles):
            circles.append((*centre, reach + _MARGIN))
    return circles


def _ask(
    catalogue: _Catalogue, circles: Sequence[tuple[float, float, float]]
) -> Iterable[_Columns]:
    """Rows of the archive round each centre; an empty mapping where there are none."""
    try:
        from astroquery.vizier import Vizier
    except ImportError as err:
        raise ConfigError(
            "fetching a catalogue needs astroquery", hint="pip install nightjar[fetch]"
        ) from err
    from astropy import units
    from astropy.coordinates import SkyCoord

    archive = Vizier(columns=list(catalogue.columns), row_limit=-1)
    for ra, dec, radius in circles:
        where = SkyCoord(ra, dec, unit="deg")
        try:
            tables = archive.query_region(where, radius=radius * units.deg, catalog=catalogue.table)
        except Exception as err:  # of whatever library stands between us and the network
            sentence = " ".join(str(err).split())[:120]
            raise InputError(
                f"{catalogue.table} could not be fetched: {type(err).__name__}: {sentence}",
                hint="without a network give --refcat",
            ) from err
        yield _plain(tables[0], catalogue.columns) if len(tables) else {}


def _plain(table: Table, names: Sequence[str]) -> _Columns:
    """Columns as plain arrays; what is masked is NaN, numbers of stars stay integers."""
    columns = {}
    for name in names:
        values = np.ma.asarray(table[name])
        whole = np.issubdtype(values.dtype, np.integer)
        columns[name] = np.asarray(values) if whole else np.ma.filled(values.astype(float), np.nan)
    return columns


def _gaia(rows: _Columns) -> _Columns:
    colour = rows["BPmag"] - rows["RPmag"]
    stars = {
        "objectId": rows["Source"], "ra": rows["RA_ICRS"], "dec": rows["DE_ICRS"],
        "raErr": rows["e_RA_ICRS"], "decErr": rows["e_DE_ICRS"], "pmRa": rows["pmRA"],
        "pmDec": rows["pmDE"], "parallax": rows["Plx"],
        "epochMjdTai": np.full(len(colour), _J2016),
    }  # fmt: skip
    for band, (polynomial, scatter, (blue, red)) in GAIA_TO_SDSS.items():
        known = (colour > blue) & (colour < red)
        magnitude = rows["Gmag"] - np.polynomial.polynomial.polyval(colour, polynomial)
        stars |= _fluxes(band, np.where(known, magnitude, np.nan), np.full(len(colour), scatter))
    return stars


def _panstarrs(rows: _Columns) -> _Columns:
    pointlike = np.abs(rows["imag"] - rows["iKmag"]) < _POINTLIKE
    rows = {name: values[pointlike] for name, values in rows.items()}
    stars = {
        "objectId": rows["objID"], "ra": rows["RAJ2000"], "dec": rows["DEJ2000"],
        "raErr": 1000.0 * rows["e_RAJ2000"], "decErr": 1000.0 * rows["e_DEJ2000"],
    }  # fmt: skip
    for band in "grizy":
        stars |= _fluxes(band, rows[f"{band}mag"], rows[f"e_{band}mag"])
    return stars


def _fluxes(
    band: str, magnitude: npt.NDArray[np.floating], error: npt.NDArray[np.floating]
) -> _Columns:
    flux = 10.0 ** (0.4 * (NJY_ZERO_POINT - magnitude))
    return {f"{band}Flux": flux, f"{band}FluxErr": flux * error / _MAG}


CATALOGUES = {
    "gaia": _Catalogue(
        "I/355/gaiadr3",
        ("Source", "RA_ICRS", "DE_ICRS", "e_RA_ICRS", "e_DE_ICRS", "pmRA", "pmDE", "Plx",
         "Gmag", "BPmag", "RPmag"),
        _gaia,
    ),
    "ps1": _Catalogue(
        "II/349/ps1",
        ("objID", "RAJ2000", "DEJ2000", "e_RAJ2000", "e_DEJ2000", "iKmag",
         *(f"{prefix}{band}mag" for band in "grizy" for prefix in ("", "e_"))),
        _panstarrs,
    ),
}  # fmt: skip
"""What `fetch_refcat` knows, by the word of the command line."""
