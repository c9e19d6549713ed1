"""Mean positions, proper motions and parallaxes of many objects at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy import units
from astropy.coordinates import get_body_barycentric
from astropy.time import Time

from pipeline.compiled import compiled
from pipeline.diaobject.config import Config
from pipeline.diaobject.groups import Groups
from pipeline.exposure import FloatArray
from pipeline.schema import to_numpy
from pipeline.sphere import ARCSEC, basis, displaced, unit_vectors

__all__ = ["Positions", "barycentric", "mean_position", "predicted_place", "proper_motion"]

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


@compiled
def _normal_equations(
    index: npt.NDArray[np.int64],
    time: FloatArray,
    factor: FloatArray,
    place: FloatArray,
    covariance: FloatArray,
    floor: float,
    normal: FloatArray,
    right: FloatArray,
    square: FloatArray,
    logs: FloatArray,
) -> None:
    """Add every source to the normal equations of its group.

    The parameters are place (2), motion (2) and parallax, or the first of them: `normal` is
    (m, p, p), `right` (m, p).  `square` and `logs` (m,) become Σ dᵀC⁻¹d and Σ ln((2π)² det C);
    the variance `floor` is added to each C.
    """
    n_par = right.shape[1]
    row = np.zeros((2, n_par))
    for i in range(len(index)):
        g = index[i]
        a, b = covariance[i, 0, 0] + floor, covariance[i, 1, 1] + floor
        c = covariance[i, 0, 1]
        determinant = a * b - c * c
        xx, xy, yy = b / determinant, -c / determinant, a / determinant
        row[0, 0] = row[1, 1] = 1.0
        if n_par > 2:
            row[0, 2] = row[1, 3] = time[i]
        if n_par > 4:
            row[0, 4], row[1, 4] = factor[i, 0], factor[i, 1]
        u = xx * place[i, 0] + xy * place[i, 1]
        v = xy * place[i, 0] + yy * place[i, 1]
        square[g] += u * place[i, 0] + v * place[i, 1]
        logs[g] += np.log(4.0 * np.pi * np.pi * determinant)
        for k in range(n_par):
            p, q = row[0, k], row[1, k]
            right[g, k] += p * u + q * v
            s, t = p * xx + q * xy, p * xy + q * yy
            for j in range(n_par):
                normal[g, k, j] += s * row[0, j] + t * row[1, j]


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """Weighted least squares of m groups with p parameters."""

    values: FloatArray
    covariance: FloatArray
    chi2: FloatArray
    logs: FloatArray


def _fitted(
    groups: Groups,
    place: FloatArray,
    covariance: FloatArray,
    floor: float,
    n_par: int,
    years: FloatArray | None = None,
    factor: FloatArray | None = None,
    prior: float = 0.0,
) -> _Fit:
    """Fit place, motion and parallax; `prior` is the inverse variance of a motion round zero."""
    n, m = len(groups.index), len(groups)
    normal, right = np.zeros((m, n_par, n_par)), np.zeros((m, n_par))
    square, logs = np.zeros(m), np.zeros(m)
    _normal_equations(
        groups.index,
        np.zeros(n) if years is None else years,
        np.zeros((n, 2)) if factor is None else factor,
        np.ascontiguousarray(place),
        np.ascontiguousarray(covariance),
        float(floor),
        normal,
        right,
        square,
        logs,
    )
    if n_par > 2:
        normal[:, (2, 3), (2, 3)] += prior
    inverse = np.asarray(np.linalg.inv(normal), float)
    values = np.einsum("mij,mj->mi", inverse, right)
    chi2 = np.maximum(square - np.einsum("mi,mi->m", values, right), 0.0)
    return _Fit(values, inverse, chi2, logs)


def _from_first(groups: Groups, positions: Positions) -> FloatArray:
    """Displacements, ``(n, 2)`` in arcsec, from the first source of each group."""
    ra0, dec0 = positions.ra[groups.starts], positions.dec[groups.starts]
    step = unit_vectors(positions.ra, positions.dec) - unit_vectors(ra0, dec0)[groups.index]
    axes = (axis[groups.index] for axis in basis(ra0, dec0))
    return np.stack([np.sum(step * axis, axis=-1) / ARCSEC for axis in axes], axis=-1)


def predicted_place(
    groups: Groups, positions: Positions, time: float, config: Config
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Where objects are at an instant, by place and motion of their sources so far.

    Motions are distributed round zero with `Config.motion_prior` before anything is known, so an
    object of few sources stays where it is and becomes uncertain with time.

    Parameters
    ----------
    groups : Groups
        Sources of one object, in order of time.
    positions : Positions, (n,)
        Measured positions.
    time : float, d
        The instant, MJD TAI.
    config : Config
        Prior and floor.

    Returns
    -------
    ra, dec : ndarray, (m,), deg
        Predictions.
    covariance : ndarray, (m, 2, 2), arcsec²
        Of ra cos(dec) and dec, times χ²/dof where that exceeds one.
    """
    floor, prior = config.visit_floor * _MAS, config.motion_prior * _MAS
    fit = _fitted(
        groups,
        _from_first(groups, positions),
        positions.covariance,
        floor**2,
        4,
        years=(positions.time - time) / DAYS_PER_YEAR,
        prior=prior**-2,
    )
    inflated = np.maximum(1.0, fit.chi2 / np.maximum(2.0 * groups.count - 4.0, 1.0))
    inflated = np.where(groups.count > 2, inflated, 1.0)
    place = fit.values
    ra, dec = displaced(
        positions.ra[groups.starts], positions.dec[groups.starts], place[:, 0], place[:, 1]
    )
    return ra, dec, fit.covariance[:, :2, :2] * inflated[:, None, None]


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
    fit = _fitted(
        groups, _from_first(groups, positions), positions.covariance, (floor * _MAS) ** 2, 2
    )
    inflated = np.maximum(1.0, fit.chi2 / np.maximum(2.0 * (groups.count - 1), 1.0))
    covariance = fit.covariance * inflated[:, None, None] / 3600.0**2
    ra, dec = displaced(positions.ra[groups.starts], positions.dec[groups.starts], *fit.values.T)
    a, b, c = (positions.covariance[:, i, j] for i, j in ((0, 0), (1, 1), (0, 1)))
    a, b = a + (floor * _MAS) ** 2, b + (floor * _MAS) ** 2
    trace = (a + b) / (a * b - c * c)
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
    years = (positions.time - groups.spread(epoch)) / DAYS_PER_YEAR
    factor = _parallax_factors(groups, positions) if n_par == 5 else None
    found = _fitted(
        groups, _from_first(groups, positions) / _MAS, positions.covariance / _MAS**2, floor**2,
        n_par, years=years, factor=factor,
    )  # fmt: skip
    fit, inverse = found.values, found.covariance
    columns = {name: fit[:, k] for k, name in enumerate(_NAMES[:n_par]) if k >= 2}
    columns |= {
        f"{name}Err": np.sqrt(inverse[:, k, k]) for k, name in enumerate(_NAMES[:n_par]) if k >= 2
    }
    for name, (i, j) in _covariance_names(n_par).items():
        columns[name] = inverse[:, i, j] * (_MAS / 3600.0 if i < 2 else 1.0)
    return columns | {
        "pmParallaxLnL": -0.5 * (found.chi2 + found.logs),
        "pmParallaxChi2": found.chi2,
        "pmParallaxNdata": groups.count.astype(float),
    }


def _parallax_factors(groups: Groups, positions: Positions) -> FloatArray:
    """Displacement, ``(n, 2)``, by a parallax of one: opposite to the observer's."""
    first = groups.spread(groups.starts).astype(int)
    observer = barycentric("earth", positions.time)
    axes = basis(positions.ra[first], positions.dec[first])
    return np.stack([-np.sum(observer * axis, axis=-1) for axis in axes], axis=-1)
