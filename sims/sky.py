"""The sky: stars, galaxies, supernovae, variable stars and nuclei.

The sky is drawn cell by cell (a tenth of a degree wide); a cell is a pure function of the seed and
of the densities, so that any detector of any visit can be made alone and sees the same sky.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.exposure import NJY_ZERO_POINT, FloatArray
from pipeline.sphere import turned
from sims.galaxies import sersic_indices
from sims.lightcurves import BANDS, KINDS, N_PARAMETERS, Sources
from sims.streams import stream

__all__ = ["EPOCH", "GALAXY_SLOPE", "SOURCE", "STAR_SLOPE", "Sky", "at_epoch", "cells_of"]

EPOCH = 57388.5
"""Epoch of the catalogue positions, MJD TAI: J2016.0, that of Gaia DR3."""

STAR_SLOPE, GALAXY_SLOPE = 0.15, 0.40
"""Logarithmic slopes of the number counts per magnitude in g."""

SOURCE = np.dtype(
    [
        ("truthId", "i8"),
        ("hostId", "i8"),
        ("kind", "i8"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("pmRa", "f8"),
        ("pmDec", "f8"),
        ("parallax", "f8"),
        ("flux", "f8", (len(BANDS),)),
        ("radius", "f8"),
        ("sersic", "i8"),
        ("shear", "f8"),
        ("pa", "f8"),
        ("law", "f8", (N_PARAMETERS,)),
    ]
)
"""One source: degrees (`pmRa` times cos δ, mas/yr), mas, nJy (mean or, for transients, peak),
arcsec (half-light radius, 0 for points), `sims.galaxies.sersic_indices`, shear and position angle
(deg) of a galaxy, and the numbers of its light curve (`sims.lightcurves`)."""

_CELL = 0.1
_PER_CELL = 1 << 20
_ENOUGH_HOSTS = 10
_LEAD = 4.0  # days between explosion and the visit that is meant to see it, at most
_YEAR = 365.25


@dataclass(frozen=True, slots=True)
class Sky:
    """Densities of a simulated sky.

    Attributes
    ----------
    seed : int
        Seed of the campaign.
    stars, galaxies : float, deg⁻²
        Static sources.
    supernovae, flares : float, deg⁻²
        Transients that are seen at one of the dates `visible`.
    variables, agn : float, deg⁻²
        Variable stars and active nuclei.
    visible : tuple of float, MJD
        Each supernova explodes in the days, each flare peaks in the hour before one of these
        dates.
    star_limits, galaxy_limits : tuple of float, mag
        Bright and faint end in g.
    """

    seed: int
    stars: float = 16_000.0
    galaxies: float = 100_000.0
    supernovae: float = 700.0
    flares: float = 120.0
    variables: float = 400.0
    agn: float = 250.0
    visible: tuple[float, ...] = ()
    star_limits: tuple[float, float] = (11.0, 25.0)
    galaxy_limits: tuple[float, float] = (16.0, 25.0)

    def cell(self, number: int) -> Sources:
        """Return all sources of a cell as an array of `SOURCE`."""
        return _cell(self, number)

    def sources(self, cells: tuple[int, ...]) -> Sources:
        """Return the sources of several cells in the order of their numbers."""
        return np.concatenate([np.empty(0, SOURCE), *(self.cell(c) for c in sorted(cells))])


def cells_of(ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[int, ...]:
    """Numbers of the cells that hold positions in degrees, ascending.

    Parameters
    ----------
    ra, dec : array-like, (n,), deg
        Positions.

    Returns
    -------
    tuple of int
        Numbers of cells, each once.
    """
    rings = np.floor((np.atleast_1d(dec) + 90.0) / _CELL).astype(int)
    found = set()
    for ring, a in zip(rings.tolist(), np.atleast_1d(ra).tolist(), strict=True):
        per_ring = _cells_in_ring(ring)
        found.add(ring * 4096 + int(a % 360.0 / 360.0 * per_ring))
    return tuple(sorted(found))


def at_epoch(sources: Sources, mjd: float) -> tuple[FloatArray, FloatArray]:
    """Positions in degrees moved from `EPOCH` by proper motion; parallax is left out.

    Parameters
    ----------
    sources : structured ndarray, (n,)
        Rows of `SOURCE`.
    mjd : float, TAI
        The date.

    Returns
    -------
    ra, dec : ndarray, (n,), deg
        Positions at the date.
    """
    years = (mjd - EPOCH) / _YEAR
    dec = sources["dec"] + sources["pmDec"] * years / 3.6e6
    ra = sources["ra"] + sources["pmRa"] * years / 3.6e6 / np.cos(np.radians(sources["dec"]))
    return turned(ra), np.asarray(dec)


def _cells_in_ring(ring: int) -> int:
    middle = (ring + 0.5) * _CELL - 90.0
    return max(1, math.floor(360.0 / _CELL * math.cos(math.radians(middle))))


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cell being drawn: where it lies and which random numbers it uses."""

    sky: Sky
    number: int

    @property
    def ring(self) -> int:
        return self.number // 4096

    @property
    def area(self) -> float:
        """Area in square degrees."""
        dec = math.radians((self.ring + 0.5) * _CELL - 90.0)
        return 360.0 / _cells_in_ring(self.ring) * _CELL * math.cos(dec)

    def draw(self, what: str, density: float) -> tuple[np.random.Generator, int]:
        """Return the stream of a class and the number of its members."""
        rng = stream(self.sky.seed, self.number, 0, what)
        return rng, int(rng.poisson(density * self.area))

    def scatter(self, rng: np.random.Generator, rows: Sources) -> None:
        """Put sources anywhere in the cell."""
        column = self.number % 4096
        width = 360.0 / _cells_in_ring(self.ring)
        rows["ra"] = (column + rng.random(len(rows))) * width
        rows["dec"] = (self.ring + rng.random(len(rows))) * _CELL - 90.0


@lru_cache(maxsize=64)  # a detector and one that leaks into it see about forty
def _cell(sky: Sky, number: int) -> Sources:
    cell = _Cell(sky, number)
    groups = [_stars(cell), _galaxies(cell)]
    galaxies = groups[1]
    galaxies["truthId"] = number * _PER_CELL + 1 + len(groups[0]) + np.arange(len(galaxies))
    groups += [_supernovae(cell, galaxies), _flares(cell), _variables(cell), _agn(cell, galaxies)]
    everything = np.concatenate(groups)
    everything["truthId"] = number * _PER_CELL + 1 + np.arange(len(everything))
    return everything


def _new(kind: str, n: int) -> Sources:
    rows = np.zeros(n, SOURCE)
    rows["kind"] = KINDS.index(kind)
    return rows


def _power_law(
    rng: np.random.Generator, n: int, limits: tuple[float, float], slope: float
) -> FloatArray:
    """Magnitudes with counts growing as 10^(slope m)."""
    lo, hi = (10.0 ** (slope * (m - limits[1])) for m in limits)
    return np.asarray(limits[1] + np.log10(lo + (hi - lo) * rng.random(n)) / slope)


def _njy(mag: FloatArray) -> FloatArray:
    return np.asarray(10.0 ** (-0.4 * (mag - NJY_ZERO_POINT)))


def _set_flux(rows: Sources, g: FloatArray, gr: FloatArray) -> None:
    # The stellar locus as straight lines in g - r (fitted by eye to Covey et al. 2007).
    ri = np.where(gr < 1.2, 0.45 * gr - 0.05, 0.49 + 2.2 * (gr - 1.2))
    ug = np.where(gr < 1.2, 0.9 + 1.2 * gr, 2.4 + 0.3 * (gr - 1.2))
    offsets = [ug, 0 * gr, -gr, -gr - ri, -gr - 1.5 * ri, -gr - 1.7 * ri]
    for b, offset in enumerate(offsets):
        rows["flux"][:, b] = _njy(g + offset)


def _star_colours(rng: np.random.Generator, g: FloatArray) -> FloatArray:
    red = rng.random(len(g)) < np.clip(0.15 + 0.1 * (g - 16.0), 0.15, 0.7)
    colour = np.where(red, rng.normal(1.35, 0.1, len(g)), rng.normal(0.5, 0.15, len(g)))
    return np.asarray(colour)


def _stars(cell: _Cell) -> Sources:
    rng, n = cell.draw("stars", cell.sky.stars)
    rows = _new("star", n)
    cell.scatter(rng, rows)
    g = _power_law(rng, n, cell.sky.star_limits, STAR_SLOPE)
    _set_flux(rows, g, _star_colours(rng, g))
    spread = 12.0 * 10.0 ** (-0.08 * (g - 18.0))
    rows["pmRa"], rows["pmDec"] = rng.normal(-3.0, spread), rng.normal(-4.0, spread)
    rows["parallax"] = np.abs(rng.normal(0.0, 0.06 * spread))
    return rows


def _galaxies(cell: _Cell) -> Sources:
    rng, n = cell.draw("galaxies", cell.sky.galaxies)
    rows = _new("galaxy", n)
    cell.scatter(rng, rows)
    g = _power_law(rng, n, cell.sky.galaxy_limits, GALAXY_SLOPE)
    _set_flux(rows, g, rng.normal(0.75, 0.25, n) - 0.05 * (g - 21.0))
    radius = 0.55 * 10.0 ** (-0.11 * (g - 22.5)) * np.exp(rng.normal(0.0, 0.35, n))
    rows["radius"] = np.clip(radius, 0.12, 8.0)
    rows["sersic"] = rng.choice(len(sersic_indices()), n, p=[0.6, 0.2, 0.2])
    rows["shear"] = np.clip(np.abs(rng.normal(0.0, 0.22, n)), 0.0, 0.65)
    rows["pa"] = rng.uniform(0.0, 180.0, n)
    return rows


def _supernovae(cell: _Cell, galaxies: Sources) -> Sources:
    rng, n = cell.draw("supernovae", cell.sky.supernovae if cell.sky.visible else 0.0)
    rows = _new("sn_ia", n if len(galaxies) > _ENOUGH_HOSTS else 0)
    n = len(rows)
    which = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    rows["kind"] = np.array([KINDS.index(k) for k in ("sn_ia", "sn_ii", "sn_ibc")])[which]
    _set_flux(rows, rng.uniform(20.0, 24.6, n), rng.normal(0.1, 0.2, n))
    seen = rng.choice(np.array(cell.sky.visible), n)
    rows["law"][:, 0] = seen - rng.uniform(0.2, _LEAD, n)
    rows["law"][:, 1] = np.array([5.0, 2.0, 3.5])[which] * np.exp(rng.normal(0, 0.3, n))
    rows["law"][:, 2] = np.array([18.0, 60.0, 14.0])[which] * np.exp(rng.normal(0, 0.2, n))
    _put_into_hosts(rng, rows, galaxies, 1.2)
    return rows


def _put_into_hosts(
    rng: np.random.Generator, rows: Sources, galaxies: Sources, spread: float
) -> None:
    # Brighter than g = 24 and likelier the brighter: stellar mass makes supernovae.
    n = len(rows)
    if n == 0:
        return
    weight = np.sqrt(galaxies["flux"][:, 1]) * (galaxies["flux"][:, 1] > _njy(np.array(24.0)))
    host = galaxies[rng.choice(len(galaxies), n, p=weight / weight.sum())]
    away: FloatArray = host["radius"] * rng.gamma(2.0, 0.5 * spread, n) if spread else np.zeros(n)
    angle = rng.uniform(0, 2 * np.pi, n)
    rows["hostId"] = host["truthId"]
    rows["dec"] = host["dec"] + away * np.cos(angle) / 3600.0
    rows["ra"] = host["ra"] + away * np.sin(angle) / 3600.0 / np.cos(np.radians(host["dec"]))


def _flares(cell: _Cell) -> Sources:
    times = cell.sky.visible
    rng, n = cell.draw("flares", cell.sky.flares if times else 0.0)
    rows = _new("flare", n)
    cell.scatter(rng, rows)
    _set_flux(rows, rng.uniform(19.5, 24.0, n), rng.normal(-0.2, 0.1, n))
    decay = 0.02 * np.exp(rng.normal(0.0, 0.5, n))
    peak = rng.choice(np.array(times or (0.0,)), n)
    rows["law"][:, 0] = peak - decay * rng.uniform(0.0, 1.5, n)
    rows["law"][:, 1] = decay
    return rows


def _variables(cell: _Cell) -> Sources:
    rng, n = cell.draw("variables", cell.sky.variables)
    which = rng.choice(3, n, p=[0.35, 0.4, 0.25])
    rows = _new("rr_lyrae", n)
    cell.scatter(rng, rows)
    rows["kind"] = np.array([KINDS.index(k) for k in ("rr_lyrae", "eclipsing", "long_period")])[
        which
    ]
    _set_flux(rows, rng.uniform(16.5, 23.0, n), rng.normal(0.45, 0.2, n))
    rr, eb = which == 0, which == 1
    law = rows["law"]
    law[:, 0] = np.where(rr, rng.uniform(0.3, 0.8, n), rng.uniform(0.25, 5.0, n))
    law[:, 0] = np.where(rr | eb, law[:, 0], rng.uniform(40.0, 400.0, n))
    law[:, 1] = np.where(rr, rng.uniform(0.3, 1.2, n), rng.uniform(0.1, 0.8, n))
    law[:, 2] = rng.random(n)
    law[:, 3] = np.where(eb, rng.uniform(0.02, 0.08, n), 1.0)
    law[:, 4] = np.where(eb, rng.uniform(0.0, 0.6, n) * law[:, 1], 0.0)
    rows["pmRa"], rows["pmDec"] = rng.normal(-3.0, 6.0, n), rng.normal(-4.0, 6.0, n)
    return rows


def _agn(cell: _Cell, galaxies: Sources) -> Sources:
    rng, n = cell.draw("agn", cell.sky.agn)
    rows = _new("agn", n if len(galaxies) > _ENOUGH_HOSTS else 0)
    n = len(rows)
    _set_flux(rows, rng.uniform(18.5, 23.0, n), rng.normal(0.2, 0.15, n))
    rows["law"][:, 0] = 10.0 ** rng.uniform(1.2, 2.6, n)
    rows["law"][:, 1] = rng.uniform(0.08, 0.35, n)
    rows["law"][:, 2] = rng.integers(1 << 40, size=n)
    _put_into_hosts(rng, rows, galaxies, 0.0)
    return rows
