"""How bright a source is at a time: supernovae, flares, pulsating and eclipsing stars, AGN.

Every law is a pure function of time and of a handful of numbers drawn with the source, so that a
visit needs no other visit.  Variable stars and AGN are described by a magnitude change of their
mean flux, transients by a shape that multiplies their peak flux.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.exposure import FloatArray
from sims.streams import stream

__all__ = ["BANDS", "KINDS", "N_PARAMETERS", "TRANSIENTS", "Sources", "fluxes"]

Sources = npt.NDArray[np.void]
"""Rows of `sims.sky.SOURCE`."""

BANDS = "ugrizy"

KINDS = (
    "star",
    "galaxy",
    "sn_ia",
    "sn_ii",
    "sn_ibc",
    "flare",
    "agn",
    "rr_lyrae",
    "eclipsing",
    "long_period",
    "asteroid",
    "neo",
)
"""Labels of the source classes; sources hold the position in this tuple."""

TRANSIENTS = ("sn_ia", "sn_ii", "sn_ibc", "flare")

N_PARAMETERS = 5

_AGN_MODES = 48
# Amplitude of each class relative to g: pulsations and AGN are bluer when brighter.
_BAND_AMPLITUDE = np.array([1.2, 1.0, 0.75, 0.62, 0.55, 0.5])


def fluxes(sources: Sources, band: str, mjd: float) -> FloatArray:
    """Evaluate the true fluxes of sources at one time.

    Parameters
    ----------
    sources : structured ndarray, (n,)
        Rows of `sims.sky.SOURCE`.
    band : str
        One of `BANDS`.
    mjd : float
        TAI, modified Julian date.

    Returns
    -------
    ndarray, (n,), nJy
        Fluxes.
    """
    b = BANDS.index(band)
    out = sources["flux"][:, b].astype(float)
    for kind, law in _TRANSIENT_LAWS.items():
        rows = np.flatnonzero(sources["kind"] == KINDS.index(kind))
        out[rows] *= law(sources["law"][rows], mjd)
    for kind, change in _VARIABLE_LAWS.items():
        rows = np.flatnonzero(sources["kind"] == KINDS.index(kind))
        delta = change(sources[rows], mjd) * _BAND_AMPLITUDE[b]
        out[rows] *= 10.0 ** (-0.4 * delta)
    return out


def _supernova(law: FloatArray, mjd: float) -> FloatArray:
    # Explosion t0, rise and decline times (d); Bazin et al. 2009 with a hard start, peak one.
    t0, rise, fall = law[:, 0], law[:, 1], law[:, 2]
    age = np.maximum(mjd - t0, 0.0)
    peak_age = rise * np.log1p(fall / rise)
    return _rise_and_fall(age, rise, fall) / _rise_and_fall(peak_age, rise, fall)


def _rise_and_fall(age: FloatArray, rise: FloatArray, fall: FloatArray) -> FloatArray:
    return np.asarray((1.0 - np.exp(-age / rise)) * np.exp(-age / fall))


def _flare(law: FloatArray, mjd: float) -> FloatArray:
    # Peak time (d) and decay (d); two exponentials as in Davenport et al. 2014.
    age = (mjd - law[:, 0]) / law[:, 1]
    shape = 0.7 * np.exp(-1.6 * np.maximum(age, 0)) + 0.3 * np.exp(-0.28 * np.maximum(age, 0))
    return np.where(age < 0, np.exp(8.0 * np.clip(age, -50.0, 0.0)), shape)


def _rr_lyrae(sources: Sources, mjd: float) -> FloatArray:
    # Period, amplitude, phase: a fast rise and a slow decline from three harmonics.
    period, amplitude, phase = (sources["law"][:, i] for i in range(3))
    t = 2 * np.pi * ((mjd - 57000.0) / period + phase)
    wave = np.sin(t) + 0.45 * np.sin(2 * t) + 0.2 * np.sin(3 * t)
    return np.asarray(0.37 * amplitude * wave)


def _eclipsing(sources: Sources, mjd: float) -> FloatArray:
    # Period, depth, phase, width of the eclipse in phase, depth of the secondary.
    period, depth, phase, width, second = (sources["law"][:, i] for i in range(5))
    t = ((mjd - 57000.0) / period + phase) % 1.0
    primary = np.exp(-0.5 * (np.minimum(t, 1.0 - t) / width) ** 4)
    secondary = np.exp(-0.5 * ((t - 0.5) / width) ** 4)
    return np.asarray(depth * primary + second * secondary)


def _long_period(sources: Sources, mjd: float) -> FloatArray:
    period, amplitude, phase = (sources["law"][:, i] for i in range(3))
    return np.asarray(0.5 * amplitude * np.sin(2 * np.pi * ((mjd - 57000.0) / period + phase)))


def _agn(sources: Sources, mjd: float) -> FloatArray:
    # Damped random walk (Kelly et al. 2009) as a sum of waves whose frequencies follow its
    # Lorentzian spectrum: covariance σ² exp(-|Δt| / τ), and no need to know the other epochs.
    out = np.zeros(len(sources))
    for i, row in enumerate(sources):
        tau, sigma = row["law"][0], row["law"][1]
        rng = stream(int(row["law"][2]), 0, 0, "damped random walk")
        frequency = np.tan(np.pi * (rng.random(_AGN_MODES) - 0.5)) / tau
        phase = rng.uniform(0, 2 * np.pi, _AGN_MODES)
        waves = np.cos(frequency * (mjd - 57000.0) + phase)
        out[i] = sigma * np.sqrt(2.0 / _AGN_MODES) * waves.sum()
    return out


_TRANSIENT_LAWS: dict[str, Callable[[FloatArray, float], FloatArray]] = {
    "sn_ia": _supernova,
    "sn_ii": _supernova,
    "sn_ibc": _supernova,
    "flare": _flare,
}
_VARIABLE_LAWS: dict[str, Callable[[npt.NDArray[Any], float], FloatArray]] = {
    "agn": _agn,
    "rr_lyrae": _rr_lyrae,
    "eclipsing": _eclipsing,
    "long_period": _long_period,
}
