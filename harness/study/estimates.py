"""Numbers about a sample of injections with their errors; the report and the checks share them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.study.completeness import CompletenessFit, fit, interval, ratio_to_ideal
from harness.study.sample import Sample
from pipeline.exposure import FloatArray
from pipeline.statistics import mad_std, median_error

__all__ = [
    "BRIGHT",
    "Estimate",
    "depth_gap",
    "fit_excess",
    "flux_bias",
    "flux_bias_beyond_fit",
    "flux_pull_width",
    "flux_response",
    "found_over_ideal",
    "half_found",
    "ideal_fit",
    "position_bias",
    "position_excess",
    "position_pull_width",
    "position_scatter",
    "purity",
    "scene_score",
    "try_fit",
]

BRIGHT = 7.0
"""True SNR from which fluxes and positions are judged: below, only lucky ones are found."""

_FAINT = 20.0
"""True SNR up to which curves are fitted: above, a source is lost for other reasons than noise."""
_LEAST = 20
_PAINTED = ("visit", "detector", "realisation")
_SIGMA_PER_FWHM = 1.0 / np.sqrt(8.0 * np.log(2.0))
_CHANGED = 5.0  # score of what has changed itself
_WIDTH_ERROR = 1.17  # of a width by the median absolute deviation, times √n
_ONE_SIGMA = 0.6827
_TWO_SIDED = 1.96


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard error and 95 % interval; NaN where it cannot be told.

    Attributes
    ----------
    value, error, low, high : float
        In the unit that the function states.
    n : int
        Sources that it rests on.
    """

    value: float
    error: float
    low: float
    high: float
    n: int

    @classmethod
    def gaussian(cls, value: float, error: float, n: int) -> Estimate:
        """Return one whose interval is 1.96 standard errors to both sides."""
        half = _TWO_SIDED * error
        return cls(value, error, value - half, value + half, n)


def found_over_ideal(sample: Sample, stage: str = "detected") -> Estimate:
    """Found fraction over the one that the noise alone would leave.

    Parameters
    ----------
    sample : Sample
        Point sources.
    stage : str
        ``detected``, ``reliable`` or ``alerted``.

    Returns
    -------
    Estimate
        A pure number; the interval is Jeffreys'.
    """
    flags, ideal = sample.flags(stage), sample.numbers("idealFraction")
    value, low, high = ratio_to_ideal(flags, ideal)
    _, one_low, one_high = ratio_to_ideal(flags, ideal, level=_ONE_SIGMA)
    return Estimate(value, 0.5 * (one_high - one_low), low, high, len(flags))


def half_found(sample: Sample, stage: str = "detected") -> Estimate:
    """Return the true SNR of which half are found.

    Parameters
    ----------
    sample : Sample
        Point sources.
    stage : str
        ``detected``, ``reliable`` or ``alerted``.

    Returns
    -------
    Estimate
        Of the maximum-likelihood curve below a true SNR of 20.
    """
    faint = sample.between(0.0, _FAINT)
    curve = try_fit(faint.snr, faint.flags(stage))
    value, error = curve.at(0.5) if curve is not None else (np.nan, np.nan)
    return Estimate.gaussian(value, error, len(faint))


def depth_gap(sample: Sample, share: float = 0.5, stage: str = "detected") -> Estimate:
    """Return how much brighter sources must be than the noise demands, to find a share of them.

    Parameters
    ----------
    sample : Sample
        Point sources.
    share : float
        Which share, 0 to 1.
    stage : str
        ``detected``, ``reliable`` or ``alerted``.

    Returns
    -------
    Estimate
        Magnitudes: 2.5 log₁₀ of the ratio of the two true SNRs, so that images of different depth
        count alike.  Its error knows that both curves rest on the same sources.
    """
    faint = sample.between(0.0, _FAINT)
    snr, found, ideal = faint.snr, faint.flags(stage), faint.numbers("idealFraction")
    curve, limit = try_fit(snr, found), try_fit(snr, ideal)
    if curve is None or limit is None:
        return Estimate.gaussian(np.nan, np.nan, len(faint))
    at, ideal_at = curve.at(share)[0], limit.at(share)[0]
    moved = curve.influence_at(share, snr, found) / at
    moved -= limit.influence_at(share, snr, ideal) / ideal_at
    scale = 2.5 / np.log(10.0)
    error = scale * float(np.sqrt(np.sum(moved**2)))
    return Estimate.gaussian(scale * float(np.log(at / ideal_at)), error, len(faint))


def ideal_fit(sample: Sample, x: FloatArray, *, falling: bool = False) -> CompletenessFit | None:
    """Fit the same curve to the chances that the noise leaves; None where there is none.

    Parameters
    ----------
    sample : Sample
        Point sources.
    x : ndarray, (n,)
        What the curve is a function of: true SNR or magnitude.
    falling : bool
        Whether it falls with x.

    Returns
    -------
    CompletenessFit or None
        The curve.
    """
    return try_fit(x, sample.numbers("idealFraction"), falling=falling)


def try_fit(
    x: FloatArray,
    found: npt.ArrayLike,
    *,
    falling: bool = False,
    start: CompletenessFit | None = None,
) -> CompletenessFit | None:
    """Fit a curve as `harness.study.completeness.fit`; None where too few sources tell it.

    Parameters
    ----------
    x : ndarray, (n,)
        What the curve is a function of.
    found : array_like, (n,)
        Whether each source was found, or the chance that it is.
    falling : bool
        Whether the curve falls with x.
    start : CompletenessFit, optional
        Where to start.

    Returns
    -------
    CompletenessFit or None
        The curve.
    """
    if len(x) < _LEAST:
        return None
    try:
        return fit(x, found, falling=falling, start=start)
    except ValueError:
        return None


def flux_bias(sample: Sample) -> Estimate:
    """Median of measured over true flux minus one, of those detected above a true SNR of 7, %.

    Parameters
    ----------
    sample : Sample
        Point sources.

    Returns
    -------
    Estimate
        Per cent, what a free position costs included (see `fit_excess`); the error is that of a
        median.
    """
    return _median_estimate(100.0 * (_flux_ratio(_bright(sample)) - 1.0))


def flux_bias_beyond_fit(sample: Sample) -> Estimate:
    """As `flux_bias`, less what any fit with a free position must find, %.

    Parameters
    ----------
    sample : Sample
        Point sources.

    Returns
    -------
    Estimate
        Per cent; the error is that of a median.
    """
    part = _bright(sample)
    return _median_estimate(100.0 * (_flux_ratio(part) / (1.0 + fit_excess(part)) - 1.0))


def fit_excess(sample: Sample) -> FloatArray:
    """Return by how much a maximum-likelihood flux with a free position is too bright.

    The maximum over two coordinates takes half of χ² with two degrees of freedom from the noise:
    F̂ / F - 1 = (σ_F / F)² on average, 2 % at an SNR of 7, 0.25 % at 20 (as of every such fit).

    Parameters
    ----------
    sample : Sample
        Point sources.

    Returns
    -------
    ndarray, (n,)
        A pure number, from the errors of the fluxes and the true fluxes.
    """
    return np.asarray((sample.numbers("psfFluxErr") / sample.numbers("flux")) ** 2)


def flux_response(sample: Sample) -> Estimate:
    """As `flux_bias`, with what the difference shows there without the source taken off, %.

    Noise and whatever the subtraction leaves of a host cancel; what remains is the measurement's.

    Parameters
    ----------
    sample : Sample
        Point sources.

    Returns
    -------
    Estimate
        Per cent; the error is that of a median.
    """
    part = _bright(sample)
    left = part.numbers("nullScore") * part.numbers("sigmaNull")
    ratio = (part.numbers("psfFlux") - left) / part.numbers("flux")
    return _median_estimate(100.0 * (ratio - 1.0))


def scene_score(sample: Sample) -> Estimate:
    """Mean score of the difference where the sources are, without them: zero if nothing is left.

    Parameters
    ----------
    sample : Sample
        Point sources.

    Returns
    -------
    Estimate
        In σ; scores beyond 5 have changed themselves and do not count.
    """
    score = _finite(sample.numbers("nullScore"))
    score = score[np.abs(score) < _CHANGED]
    mean, error = (
        (float(score.mean()), float(score.std() / len(score) ** 0.5))
        if len(score)
        else (np.nan, np.nan)
    )
    return Estimate.gaussian(mean, error, len(score))


def flux_pull_width(sample: Sample) -> Estimate:
    """Width of (measured − true flux) / error, of those detected above a true SNR of 7.

    Parameters
    ----------
    sample : Sample
        Point sources.

    Returns
    -------
    Estimate
        A pure number, from the median absolute deviation.
    """
    part = _bright(sample)
    pull = (part.numbers("psfFlux") - part.numbers("flux")) / part.numbers("psfFluxErr")
    return _width(_finite(pull))


def position_scatter(sample: Sample, scale: float, least: float = 20.0) -> Estimate:
    """Scatter of measured about true positions per axis.

    Parameters
    ----------
    sample : Sample
        Point sources.
    scale : float
        Side of a pixel, mas.
    least : float
        Least true SNR.

    Returns
    -------
    Estimate
        From the median absolute deviation, mas.
    """
    return _width(scale * _finite(_offsets(_bright(sample, least))))


def position_excess(sample: Sample, paintings: pa.Table, least: float = 20.0) -> Estimate:
    """Scatter of positions per axis beyond what the noise alone leaves, √2 σ / SNR, in quadrature.

    σ is the width of a Gaussian PSF of the same FWHM on an empty sky (King 1983, PASP 95, 163); the
    photons of the source itself count as excess.

    Parameters
    ----------
    sample : Sample
        Point sources.
    paintings : pyarrow.Table
        Rows of `harness.study.tables.PAINTING`, for seeing and scale.
    least : float
        Least true SNR.

    Returns
    -------
    Estimate
        mas; zero where noise explains the scatter.
    """
    part = _bright(sample, least)
    scale, seeing = (_of_painting(part, paintings, name) for name in ("pixelScale", "fwhm"))
    noise = np.sqrt(2.0) * _SIGMA_PER_FWHM * seeing / part.snr
    scatter = _width(1000.0 * _finite(np.tile(scale, 2) * _offsets(part)))
    ratio = _width(_finite(_offsets(part) / np.tile(noise, 2)))
    if not ratio.value > 1.0:
        return Estimate.gaussian(0.0 * ratio.value, scatter.error, scatter.n)
    excess = scatter.value * float(np.sqrt(1.0 - ratio.value**-2))
    error = scatter.value**2 * ratio.error / (ratio.value**3 * excess)
    return Estimate.gaussian(excess, error, scatter.n)


def position_bias(sample: Sample, scale: float, least: float = 20.0) -> Estimate:
    """Return the larger median offset of the two axes.

    Parameters
    ----------
    sample : Sample
        Point sources.
    scale : float
        Side of a pixel, mas.
    least : float
        Least true SNR.

    Returns
    -------
    Estimate
        mas.
    """
    part = _bright(sample, least)
    axes = [scale * part.numbers(name) for name in ("dx", "dy")]
    return max(
        (_median_estimate(a) for a in axes),
        key=lambda e: abs(e.value),
    )


def position_pull_width(sample: Sample) -> Estimate:
    """Width of (measured − true position) / error of both axes, above a true SNR of 7.

    Parameters
    ----------
    sample : Sample
        Point sources.

    Returns
    -------
    Estimate
        A pure number, from the median absolute deviation.
    """
    part = _bright(sample)
    errors = np.concatenate([part.numbers("dxErr"), part.numbers("dyErr")])
    return _width(_finite(_offsets(part) / errors))


def purity(
    snr: FloatArray,
    injected: npt.NDArray[np.bool_],
    reliable: npt.NDArray[np.bool_],
    *,
    bogus_ratio: float,
) -> Estimate:
    """Share of real ones among the reliable, where there are so many false to one real detection.

    Parameters
    ----------
    snr : ndarray, (n,)
        Measured score of detections with its sign.
    injected, reliable : ndarray of bool, (n,)
        Whether an injection owns it, and whether it passes the reliability cut.  False ones are
        the negative detections that no injection owns: positive ones hold what really varies.
    bogus_ratio : float
        False detections to one real one before the cut.

    Returns
    -------
    Estimate
        A pure number.
    """
    false = ~injected & (snr < 0)
    kept = [(int(reliable[part].sum()), int(part.sum())) for part in (injected, false)]
    if not all(n for _, n in kept):
        return Estimate.gaussian(np.nan, np.nan, int(injected.sum()))
    real, bogus = (k / n for k, n in kept)
    ends = [interval(k, n, level=_ONE_SIGMA) for k, n in kept]
    errors = [0.5 * float(high - low) for low, high in ends]
    total = real + bogus_ratio * bogus
    value = real / total if total else np.nan
    error = (
        bogus_ratio * np.hypot(bogus * errors[0], real * errors[1]) / total**2 if total else np.nan
    )
    return Estimate.gaussian(value, error, sum(n for _, n in kept))


def _bright(sample: Sample, least: float = BRIGHT) -> Sample:
    return sample.where(sample.flags("detected") & (sample.snr >= least))


def _of_painting(sample: Sample, paintings: pa.Table, name: str) -> FloatArray:
    """Value of the painting that each source belongs to, (n,)."""
    keys = zip(*(paintings[k].to_pylist() for k in _PAINTED), strict=True)
    values = dict(zip(keys, paintings[name].to_pylist(), strict=True))
    mine = zip(*(sample.table[k].to_pylist() for k in _PAINTED), strict=True)
    return np.array([values[key] for key in mine], float)


def _offsets(sample: Sample) -> FloatArray:
    return np.concatenate([sample.numbers("dx"), sample.numbers("dy")])


def _width(values: FloatArray) -> Estimate:
    width = mad_std(values)
    return Estimate.gaussian(width, _WIDTH_ERROR * width / max(len(values), 1) ** 0.5, len(values))


def _flux_ratio(sample: Sample) -> FloatArray:
    return np.asarray(sample.numbers("psfFlux") / sample.numbers("flux"))


def _median_estimate(values: FloatArray) -> Estimate:
    good = _finite(values)
    return Estimate.gaussian(_median(good), median_error(good), len(good))


def _median(values: FloatArray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _finite(values: FloatArray) -> FloatArray:
    return np.asarray(values[np.isfinite(values)])
