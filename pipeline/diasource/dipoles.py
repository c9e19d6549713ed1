"""Dipoles: pairs of a positive and a negative lobe left by a shift between two images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from pipeline.diasource.config import Config
from pipeline.diasource.fits import Fits, fit_dipoles
from pipeline.diasource.frame import Frame, propagate, segment
from pipeline.diasource.measure import Columns, Scene, covariance_columns
from pipeline.diasource.rows import Targets
from pipeline.diasource.select import Peaks
from pipeline.exposure import Exposure, FloatArray
from pipeline.psfphot import forced_flux

__all__ = ["find_partners", "fit_pairs", "spread", "weaker_lobes"]

_FAINTEST_PARTNER = 0.25
_UNRESOLVED = 0.5
_NAMES = (
    "dipoleMeanFlux", "dipoleFluxDiff", "dipoleRa", "dipoleDec", "dipoleLength", "dipoleAngle",
)  # fmt: skip


def find_partners(
    targets: Targets, peaks: Peaks, width: float, config: Config
) -> npt.NDArray[np.int64]:
    """Strongest peak of the other sign near each detection, ``(n,)``, -1 for none.

    It must lie within ``dipole_range`` FWHM (`width`, pixel) and reach a quarter of the score.

    Parameters
    ----------
    targets : Targets
        n detections.
    peaks : Peaks
        All peaks of the score image, of both signs.
    width : float, pixel
        FWHM of the PSF.
    config : Config
        ``dipole_range``.

    Returns
    -------
    ndarray of int, (n,)
        Index into the peaks.
    """
    partner = np.full(len(targets.at), -1, np.int64)
    rows = np.flatnonzero((targets.selection == 0) & ~targets.is_parent)
    if len(rows) == 0:
        return partner
    tree = cKDTree(np.column_stack([peaks.x, peaks.y]))
    near = tree.query_ball_point(targets.at[rows], config.dipole_range * width)
    for row, found in zip(rows, near, strict=True):
        other = np.sort(np.array(found, np.int64))
        opposite = peaks.score[other] * targets.score[row] < 0
        strong = np.abs(peaks.score[other]) >= _FAINTEST_PARTNER * abs(targets.score[row])
        other = other[opposite & strong]
        if len(other):
            partner[row] = other[np.argmax(np.abs(peaks.score[other]))]
    return partner


def fit_pairs(
    scene: Scene,
    targets: Targets,
    peaks: Peaks,
    partner: npt.NDArray[np.int64],
    science: Exposure,
    template: Exposure,
) -> Columns:
    """Fit a dipole to every detection that has a partner.

    Parameters
    ----------
    scene : Scene
        Difference image with its noise and PSF.
    targets : Targets
        n detections.
    peaks : Peaks
        All peaks.
    partner : ndarray of int, (n,)
        Peak of the other lobe, -1 for none.
    science, template : Exposure
        The images that were subtracted.

    Returns
    -------
    dict
        The ``dipole…`` columns for all targets, missing where no dipole was fitted.
    """
    rows = np.flatnonzero(partner >= 0)
    here = scene.points.theta[rows]
    there = np.column_stack([peaks.x[partner[rows]], peaks.y[partner[rows]]]).astype(float)
    positive = (targets.score[rows] > 0)[:, None]
    plus = np.where(positive, here[:, 1:], there)
    minus = np.where(positive, there, here[:, 1:])
    known = _star_flux(scene, science, template, (plus + minus) / 2.0)
    radius = scene.config.fit_radius
    fits = fit_dipoles(scene.planes, scene.psf, plus, minus, here, known, radius)
    # a lobe of the wrong sign is no dipole, whatever its χ²
    measured = _on_sky(scene.frame.take(rows), here, fits)
    finite = np.all([np.isfinite(measured[f"{name}Err"]) for name in _NAMES], axis=0)
    sound = fits.converged & (fits.theta[:, 0] > 0) & finite
    sound &= np.abs(fits.theta[:, 1]) < 2.0 * fits.theta[:, 0]
    n = len(targets.at)
    columns: Columns = {
        name: spread(np.where(sound, value, np.nan), rows, n) for name, value in measured.items()
    }
    separation = np.hypot(*fits.theta[:, 4:].T)
    flags = {
        "isDipole": sound
        & _is_dipole(scene.config, fits.theta, fits.gain, separation, scene.width),
        "dipole_flag": ~sound,
        "dipole_flag_unresolved": separation < _UNRESOLVED * scene.width,
        "dipoleFitAttempted": np.ones(len(rows), bool),
    }
    columns |= {name: spread(v, rows, n, False) for name, v in flags.items()}
    return columns | {"dipoleNdata": spread(fits.ndata, rows, n, 0)}


def _on_sky(frame: Frame, here: FloatArray, fits: Fits) -> Columns:
    """Parameters of the fits on the sky with errors and covariance, and their likelihood."""
    shift = (frame.jacobian @ (fits.theta[:, 2:4] - here[:, 1:])[..., None])[..., 0]
    length, bearing, turn = segment(frame, fits.theta[:, 4], fits.theta[:, 5])
    transform = np.zeros((len(here), 6, 6))
    transform[:, 0, 0] = transform[:, 1, 1] = 1.0
    transform[:, 2:4, 2:4] = frame.jacobian
    transform[:, 4:, 4:] = turn
    cov = propagate(transform, fits.cov)
    diagonal = np.diagonal(cov, axis1=1, axis2=2)
    errors = np.sqrt(np.where(diagonal > 0, diagonal, np.nan))
    values = (
        fits.theta[:, 0], fits.theta[:, 1],
        frame.ra + shift[:, 0] / np.cos(np.radians(frame.dec)), frame.dec + shift[:, 1],
        length, bearing,
    )  # fmt: skip
    measured: Columns = dict(zip(_NAMES, values, strict=True))
    measured |= {f"{name}Err": errors[:, k] for k, name in enumerate(_NAMES)}
    measured |= covariance_columns(_NAMES, cov)
    return measured | {"dipoleChi2": fits.chi2, "dipoleLnL": fits.ln_likelihood}


def _star_flux(scene: Scene, science: Exposure, template: Exposure, at: FloatArray) -> FloatArray:
    """Mean of the fluxes on science image and template where both stand out, else NaN."""
    total = np.zeros(len(at))
    for exposure in (science, template):
        assert exposure.psf is not None
        got = forced_flux(
            exposure.image, exposure.variance, None, exposure.mask, exposure.psf, *at.T,
            bad=scene.planes.bad, correlation=exposure.noise_correlation,
        )  # fmt: skip
        total += np.where(got.flux > 5.0 * got.flux_err, got.flux, np.nan)
    return total / 2.0


def _is_dipole(
    config: Config,
    theta: npt.NDArray[np.float64],
    gain: npt.NDArray[np.float64],
    separation: npt.NDArray[np.float64],
    width: float,
) -> npt.NDArray[np.bool_]:
    largest_lobe = 0.5 + np.abs(theta[:, 1]) / (4.0 * np.maximum(theta[:, 0], 1e-300))
    balanced = largest_lobe <= config.dipole_balance
    near = separation < config.dipole_range * width
    return np.asarray(balanced & near & (gain > config.dipole_gain))


def spread(
    values: npt.NDArray[np.generic],
    rows: npt.NDArray[np.intp],
    n: int,
    missing: float | bool = float("nan"),
) -> npt.NDArray[np.generic]:
    """Put values of some rows into a column of all.

    Parameters
    ----------
    values : ndarray, (m,)
        The values.
    rows : ndarray of int, (m,)
        Where they belong.
    n : int
        Length of the column.
    missing : float or bool
        What stands elsewhere.

    Returns
    -------
    ndarray, (n,)
        The column.
    """
    out = np.full(n, missing, values.dtype if missing == missing else float)
    out[rows] = values
    return out


def weaker_lobes(
    columns: Columns, targets: Targets, peaks: Peaks, partner: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Rows that are the weaker lobe of a dipole found from the stronger one.

    One dipole is one source: the weaker lobe is recorded in the ledger as ``dipoleLobe``, with
    the scores of both lobes.

    Parameters
    ----------
    columns : dict of ndarray
        Columns of the dipole fits, ``(n,)`` each.
    targets : Targets
        n detections.
    peaks : Peaks
        All peaks; the weaker lobes are recorded in it.
    partner : ndarray of int, (n,)
        Peak of the other lobe, -1 for none.

    Returns
    -------
    ndarray of bool, (n,)
        True for a row that is left out.
    """
    row_of = {int(p): k for k, p in enumerate(targets.peak) if p >= 0}
    lobes = np.zeros(len(targets.at), bool)
    for k in np.flatnonzero(columns["isDipole"]):
        other = row_of.get(int(partner[k]), -1)
        alone = other >= 0 and targets.parent[other] < 0 and targets.selection[other] == 0
        if lobes[k] or not alone or abs(targets.score[other]) > abs(targets.score[k]):
            continue
        lobes[other] = True
        bound = float(abs(targets.score[k]))
        peaks.stop(targets.peak[[other]], "dipoleLobe", abs(targets.score[other]), bound)
        peaks.belongs_to[targets.peak[other]] = targets.peak[k]
    return lobes
