"""Mean positions, proper motions and parallaxes of many objects at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy import units
from astropy.coordinates import get_body_barycentric
from astropy.time import Time

from pipeline.diaobject.config import Config
from pipeline.diaobject.groups import Groups
from pipeline.exposure import FloatArray
from pipeline.schema import to_numpy
from pipeline.sphere import basis, displaced, offsets

__all__ = ["Positions", "barycentric", "mean_position", "proper_motion"]

DAYS_PER_YEAR = 365.25
_TT_MINUS_TAI_D = 32.184 / 86400.0
_MAS = 1e-3
_NAMES = ("ra", "dec", "pmRa", "pmDec", "parallax")


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Measured positions of sources with their covariances.

    Attributes
    ----------
    time : ndarray, (n,), d
        Epochs, MJD TAI.
    ra, dec : ndarray, (n,), deg
        Positions.
    covariance : ndarray, (n, 2, 2), arcsec²
        Of ra cos(dec) and dec.
    """

    time: FloatArray
    ra: FloatArray
    dec: FloatArray
    covariance: FloatArray

    @classmethod
    def read(
        cls, table: pa.Table, default: float, *, prefix: str = "", time: str = "midpointMjdTai"
    ) -> Positions:
        """Take positions out of a table in degrees.

        Parameters
        ----------
        table : pyarrow.Table
            Columns ``ra raErr dec decErr ra_dec_Cov``, errors times cos(dec).
        default : float, arcsec
            Error of positions without one.
        prefix : str
            For columns such as ``scienceRa``.
        time : str
            Column of the epochs.
        """
        ra, dec = (f"{prefix}Ra", f"{prefix}Dec") if prefix else ("ra", "dec")
        a = to_numpy(table, f"{ra}Err") * 3600.0
        b = to_numpy(table, f"{dec}Err") * 3600.0
        c = to_numpy(table, f"{ra}_{dec}_Cov") * 3600.0**2
        good = (a > 0) & (b > 0) & np.isfinite(a) & np.isfinite(b)
        a, b = np.where(good, a, default), np.where(good, b, default)
        c = np.where(good & (np.abs(c) < a * b), c, 0.0)
        rows = np.stack([np.stack([a * a, c], -1), np.stack([c, b * b], -1)], -2)
        return cls(to_numpy(table, time), to_numpy(table, ra), to_numpy(table, dec), rows)

    def take(self, rows: npt.NDArray[np.generic]) -> Positions:
        """Select rows by index or by a boolean array."""
        return Positions(self.time[rows], self.ra[rows], self.dec[rows], self.covariance[rows])


def mean_position(groups: Groups, positions: Positions, floor: float) -> dict[str, FloatArray]:
    """Inverse-variance mean position of each group.

    The covariance is that of the mean, (Σ C⁻¹)⁻¹, times χ²/dof where that exceeds one; each C
    contains the floor, without which one bright source would decide alone.

    Parameters
    ----------
    groups : Groups
        Sources of one object, in order of time.
    positions : Positions, (n,)
        Measured positions.
    floor : float, mas
        Systematic error of one visit along each axis.

    Returns
    -------
    dict of str to ndarray, (m,)
        ``ra dec raErr decErr ra_dec_Cov radecMjdTai`` as columns of DiaObject, and ``inflated``,
        the factor on the covariance.
    """
    first = groups.spread(groups.starts).astype(int)
    ra0, dec0 = positions.ra[first], positions.dec[first]
    d = np.stack(offsets(ra0, dec0, positions.ra, positions.dec), axis=-1)
    weight = np.linalg.inv(positions.covariance + (floor * _MAS) ** 2 * np.eye(2))
    total = groups.sum(weight)
    covariance = np.linalg.inv(total)
    mean = np.einsum("mij,mj->mi", covariance, groups.sum(np.einsum("nij,nj->ni", weight, d)))
    residual = d - groups.spread(mean)
    chi2 = groups.sum(np.einsum("ni,nij,nj->n", residual, weight, residual))
    inflated = np.maximum(1.0, chi2 / np.maximum(2.0 * (groups.count - 1), 1.0))
    covariance = covariance * inflated[:, None, None] / 3600.0**2
    ra, dec = displaced(
        positions.ra[groups.starts], positions.dec[groups.starts], mean[:, 0], mean[:, 1]
    )
    trace = weight[:, 0, 0] + weight[:, 1, 1]
    return {
        "ra": ra,
        "dec": dec,
        "raErr": np.sqrt(covariance[:, 0, 0]),
        "decErr": np.sqrt(covariance[:, 1, 1]),
        "ra_dec_Cov": covariance[:, 0, 1],
        "radecMjdTai": groups.sum(trace * positions.time) / groups.sum(trace),
        "inflated": inflated,
    }


def barycentric(body: str, time: FloatArray) -> FloatArray:
    """Barycentric position of ``earth`` or ``sun``, ``(n, 3)`` in AU, ICRS axes, at MJD TAI.

    Parameters
    ----------
    body : str
        ``earth`` or ``sun``.
    time : ndarray, (n,), d
        Dates, MJD TAI.

    Returns
    -------
    ndarray, (n, 3), AU
        ICRS axes.
    """
    days, place = np.unique(time, return_inverse=True)
    epochs = Time(days + _TT_MINUS_TAI_D, format="mjd", scale="tdb")
    xyz = get_body_barycentric(body, epochs, ephemeris="builtin").get_xyz(xyz_axis=-1)
    return np.asarray(xyz.to_value(units.AU))[place]


def proper_motion(
    groups: Groups, positions: Positions, epoch: FloatArray, config: Config
) -> dict[str, FloatArray]:
    """Fit position, proper motion and, given a year, parallax.

    Weighted linear least squares with each visit's covariance and `Config.visit_floor`.

    Parameters
    ----------
    groups : Groups
        Sources of one object, in order of time.
    positions : Positions, (n,)
        Centroids that follow the object itself.
    epoch : ndarray, (m,), d
        Reference epoch of each object.
    config : Config
        Limits on epochs and time.

    Returns
    -------
    dict of str to ndarray, (m,)
        The columns of DiaObject from ``pmRa`` to ``pmParallaxNdata``; NaN where not allowed.
    """
    result = _blank(len(groups))
    span = (groups.max(positions.time) - groups.min(positions.time)) / DAYS_PER_YEAR
    epochs = groups.sum(np.r_[True, np.diff(positions.time) > 0][: len(positions.time)])
    moves = (epochs >= config.pm_min_epochs) & (span >= config.pm_min_span)
    for n_par, chosen in (
        (4, moves & (span < config.parallax_min_span)),
        (5, moves & (span >= config.parallax_min_span)),
    ):
        rows = chosen[groups.index]
        if rows.any():
            part = Groups.of(groups.index[rows])
            fitted = _joint_fit(
                part, positions.take(rows), epoch[chosen], n_par, config.visit_floor
            )
            for name, values in fitted.items():
                result[name][chosen] = values
    return result


def _blank(n: int) -> dict[str, FloatArray]:
    single = ("pmRa", "pmRaErr", "pmDec", "pmDecErr", "parallax", "parallaxErr")
    joint = ("pmParallaxLnL", "pmParallaxChi2", "pmParallaxNdata")
    return {name: np.full(n, np.nan) for name in (*single, *_covariance_names(5), *joint)}


def _covariance_names(n_par: int) -> dict[str, tuple[int, int]]:
    """Columns of the covariances, ra_dec_Cov apart, which belongs to the mean position."""
    return {
        f"{_NAMES[i]}_{_NAMES[j]}_Cov": (i, j)
        for i in range(n_par)
        for j in range(max(i + 1, 2), n_par)
    }


def _joint_fit(
    groups: Groups, positions: Positions, epoch: FloatArray, n_par: int, floor: float
) -> dict[str, FloatArray]:
    """Solve for (Δα cos δ, Δδ, μα, μδ[, π]) in mas and mas/yr."""
    first = groups.spread(groups.starts).astype(int)
    ra0, dec0 = positions.ra[first], positions.dec[first]
    d = np.stack(offsets(ra0, dec0, positions.ra, positions.dec), axis=-1) / _MAS
    covariance = positions.covariance / _MAS**2 + floor**2 * np.eye(2)
    weight = np.linalg.inv(covariance)
    design = _design(positions.time - groups.spread(epoch), ra0, dec0, positions.time, n_par)
    normal = groups.sum(np.einsum("nki,nkl,nlj->nij", design, weight, design))
    right = groups.sum(np.einsum("nki,nkl,nl->ni", design, weight, d))
    inverse = np.linalg.inv(normal)
    fit = np.einsum("mij,mj->mi", inverse, right)
    residual = d - np.einsum("nki,ni->nk", design, groups.spread(fit))
    chi2 = groups.sum(np.einsum("ni,nij,nj->n", residual, weight, residual))
    logs = groups.sum(np.log((2.0 * np.pi) ** 2 * np.linalg.det(covariance)))
    columns = {name: fit[:, k] for k, name in enumerate(_NAMES[:n_par]) if k >= 2}
    columns |= {
        f"{name}Err": np.sqrt(inverse[:, k, k]) for k, name in enumerate(_NAMES[:n_par]) if k >= 2
    }
    for name, (i, j) in _covariance_names(n_par).items():
        columns[name] = inverse[:, i, j] * (_MAS / 3600.0 if i < 2 else 1.0)
    return columns | {
        "pmParallaxLnL": -0.5 * (chi2 + logs),
        "pmParallaxChi2": chi2,
        "pmParallaxNdata": groups.count.astype(float),
    }


def _design(
    days: FloatArray, ra: FloatArray, dec: FloatArray, time: FloatArray, n_par: int
) -> FloatArray:
    """Partial derivatives, ``(n, 2, n_par)``, of (Δα cos δ, Δδ)."""
    years = days / DAYS_PER_YEAR
    design = np.zeros((len(days), 2, n_par))
    design[:, 0, 0] = design[:, 1, 1] = 1.0
    design[:, 0, 2] = design[:, 1, 3] = years
    if n_par == 5:
        # the star moves opposite to the observer, seen from the barycentre
        observer = barycentric("earth", time)
        for axis, direction in enumerate(basis(ra, dec)):
            design[:, axis, 4] = -np.sum(observer * direction, axis=-1)
    return design
