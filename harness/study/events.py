"""Events: sources with a light curve at one place of the sky, seen by every visit at its time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.wcs import WCS

from harness.study.completeness import interval
from harness.study.design import StudyDesign
from harness.study.sample import Sample
from pipeline.exposure import FloatArray
from sims.streams import stream

__all__ = ["LIGHT_CURVES", "Events", "Window", "efficiency_of_events", "light_curve"]

LIGHT_CURVES = {"ia": (6.0, 25.0), "kilonova": (0.3, 1.5), "flare": (0.005, 0.05)}
"""Rise and e-folding decline, d: a type Ia supernova and a kilonova in g, a flare of an M dwarf."""

_ZERO_POINT = 31.4
_BEFORE = 2.0  # declines before the first visit from which on an event may begin
_BINS = 8


@dataclass(frozen=True, slots=True)
class Window:
    """Where and when events of one detector happen.

    Attributes
    ----------
    wcs : astropy.wcs.WCS
        Of the image in which places are drawn.
    shape : tuple of int, (ny, nx)
        Its size.
    begin, end : float, d
        MJD (TAI) of the first and the last visit.
    """

    wcs: WCS
    shape: tuple[int, int]
    begin: float
    end: float


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Events of one detector and realisation, the same for all its visits.

    Attributes
    ----------
    number : ndarray of int, (n,)
        Identifies them in the study.
    ra, dec : ndarray, (n,), deg
        Places.
    begin : ndarray, (n,), d
        MJD (TAI) at which they begin.
    peak : ndarray, (n,)
        AB magnitude at their peak.
    """

    number: npt.NDArray[np.int64]
    ra: FloatArray
    dec: FloatArray
    begin: FloatArray
    peak: FloatArray

    @classmethod
    def draw(cls, design: StudyDesign, window: Window, detector: int, realisation: int) -> Events:
        """Draw the events of a design.

        Parameters
        ----------
        design : StudyDesign
            How many, how bright, which light curve.
        window : Window
            Where and when.
        detector, realisation : int
            Which.

        Returns
        -------
        Events
            Even in place, time and peak magnitude.
        """
        n = design.n_events
        rng = stream(design.seed, 0, detector, f"events {realisation}")
        ny, nx = window.shape
        x, y = (rng.uniform(design.edge, side - 1 - design.edge, n) for side in (nx, ny))
        ra, dec = window.wcs.all_pix2world(x, y, 0)
        fall = LIGHT_CURVES[design.light_curve][1]
        begin = rng.uniform(window.begin - _BEFORE * fall, window.end, n)
        number = (1000 * realisation + detector) * 100_000 + np.arange(n)
        return cls(number, ra % 360.0, dec, begin, rng.uniform(*design.peak_magnitude, n))

    def flux(self, mjd: float, law: str) -> FloatArray:
        """Flux at a time, (n,), nJy."""
        peak = 10.0 ** (0.4 * (_ZERO_POINT - self.peak))
        return np.asarray(peak * light_curve(law, mjd - self.begin))


def light_curve(law: str, age: npt.ArrayLike) -> FloatArray:
    """Flux over that at the peak, (1 − exp(−t/rise)) exp(−t/fall), zero before it begins.

    Parameters
    ----------
    law : str
        One of `LIGHT_CURVES`.
    age : array-like, (n,), d
        Time since the beginning.

    Returns
    -------
    ndarray, (n,)
        0 to 1; the shape of Bazin et al. 2009 (A&A 499, 653) with a hard start.
    """
    rise, fall = LIGHT_CURVES[law]
    top = rise * np.log1p(fall / rise)

    def shape(t: FloatArray) -> FloatArray:
        return np.asarray(-np.expm1(-t / rise) * np.exp(-t / fall))

    return shape(np.maximum(np.asarray(age, float), 0.0)) / shape(np.array(top))


def efficiency_of_events(sample: Sample) -> pa.Table:
    """Share of the events that are detected in one visit, and in two, against peak magnitude.

    Parameters
    ----------
    sample : Sample
        Injections; those without an ``eventId`` play no part.

    Returns
    -------
    pyarrow.Table
        ``low high n once onceLow onceHigh twice twiceLow twiceHigh``; 95 % intervals (Jeffreys).
        An event counts where one of its visits could have shown it outside masks.
    """
    number = sample.numbers("eventId")
    seen = np.isfinite(number) & (number >= 0) & sample.placed()
    events, index = np.unique(number[seen], return_inverse=True)
    count = np.bincount(index, sample.flags("detected")[seen], minlength=len(events))
    peak = np.zeros(len(events))
    peak[index] = sample.numbers("peakMagnitude")[seen]
    if not len(events):
        return pa.table({name: pa.array([], pa.float64()) for name in _COLUMNS})
    edges = np.linspace(peak.min(), peak.max() + 1e-9, _BINS + 1)
    bins = np.digitize(peak, edges) - 1
    n = np.bincount(bins, minlength=_BINS)
    columns = {"low": edges[:-1], "high": edges[1:], "n": n}
    for name, least in (("once", 1), ("twice", 2)):
        k = np.bincount(bins[count >= least], minlength=_BINS)
        low, high = interval(k, n)
        columns |= {name: k / np.maximum(n, 1), f"{name}Low": low, f"{name}High": high}
    return pa.table(columns)


_COLUMNS = ("low", "high", "n", "once", "onceLow", "onceHigh", "twice", "twiceLow", "twiceHigh")
