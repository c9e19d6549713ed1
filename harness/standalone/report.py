"""One screen about a difference: numbers, what was assumed, and a verdict on the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Judgement", "summary_lines", "verdict"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict on a template.

    Attributes
    ----------
    word : str
        ``good``, ``usable`` or ``poor``.
    reasons : tuple of str
        What is wrong; empty if nothing is.
    """

    word: str
    reasons: tuple[str, ...]


_BOUNDS: tuple[tuple[str, float, float, float, float, str], ...] = (
    # metric, usable low, good low, good high, usable high, what it means
    ("pixelStd", 0.90, 0.97, 1.03, 1.10, "noise of D/√V is {:.3f}, not 1"),
    ("scoreStd", 0.90, 0.96, 1.06, 1.15, "noise of the score is {:.3f}, not 1"),
    ("starChi2Mean", 0.0, 0.0, 1.10, 1.50, "stars leave residuals: χ² per pixel {:.2f}"),
    ("lag1Excess", 0.0, 0.0, 0.03, 0.10, "noise is correlated: {:.3f} at lag one"),
    ("psfChi2", 0.0, 0.0, 1.25, 2.0, "the PSF misses its own stars: χ² per pixel {:.2f}"),
    ("psfSkyErr", 0.0, 0.0, 0.01, 0.05, "the sky under PSF stars is unsure: {:.1%} of a flux"),
    # Good promises mean fluxes to 2 %, three times the error that is allowed here.
    ("psfFluxErr", 0.0, 0.0, 0.0067, 0.05, "PSF stars are few or unlike: fluxes unsure by {:.1%}"),
    ("starFwhm", 0.0, 2.2, 1e9, 1e9, "stars of {:.1f} pixels are undersampled"),
    ("enclosed", 0.0, 0.6, 2.0, 2.0, "{:.0%} of the light within 12 pixels, the rest guessed"),
    ("nStampsUsed", 5, 20, 1e9, 1e9, "only {:.0f} sources define the kernel"),
    ("maskedFraction", 0.0, 0.0, 0.05, 0.30, "{:.1%} of the pixels are masked"),
    ("noiseRatio", 0.0, 0.0, 1.0, 1.6, "the template is {:.1f} times as noisy as the science"),
)


def verdict(metrics: Mapping[str, float]) -> Judgement:
    """Judge a template by the difference it made.

    Parameters
    ----------
    metrics : mapping
        `Difference.metrics`.

    Returns
    -------
    Judgement
        ``poor`` if a number lies outside its usable range, ``usable`` if outside its good one.
    """
    poor, fair = [], []
    for name, usable_low, good_low, good_high, usable_high, text in _BOUNDS:
        value = metrics.get(name)
        if value is None or value != value:
            continue
        if not usable_low <= value <= usable_high:
            poor.append(text.format(value))
        elif not good_low <= value <= good_high:
            fair.append(text.format(value))
    word = "poor" if poor else "usable" if fair else "good"
    return Judgement(word, (*poor, *fair))


def summary_lines(
    metrics: Mapping[str, float],
    judgement: Judgement,
    notes: Sequence[str],
    detections: Mapping[str, int] | None,
) -> list[str]:
    """Format the summary.

    Parameters
    ----------
    metrics : mapping
        `Difference.metrics`.
    judgement : Judgement
        From `verdict`.
    notes : sequence of str
        What was estimated or assumed.
    detections : mapping, optional
        Counts by name; None if nothing was looked for.

    Returns
    -------
    list of str
        Lines of at most some 90 characters.
    """
    m = metrics
    convolved = "science image" if m["convolvedScience"] else "template"
    filtered = ", the other image filtered before" if m.get("filteredBefore") else ""
    counts = "not looked for"
    if detections is not None:
        counts = ", ".join(f"{count} {name}" for name, count in detections.items())
    return [
        f"kernel      {convolved} convolved{filtered}; sum {m['kernelSum']:.4f}"
        f" (varies by {m['kernelSumScatter']:.4f}); order {m['kernelOrder']:.0f};"
        f" {m['nStampsUsed']:.0f} of {m['nStamps']:.0f} sources",
        f"noise       D/√V {m['pixelStd']:.3f}, score {m['scoreStd']:.3f} (both should be 1);"
        f" lag-1 correlation {m['lag1']:+.4f}, worst region {m['lag1Max']:.4f}"
        + ("; correlation of the inputs measured" if m.get("measuredColours") else ""),
        f"stars       χ² per pixel {m['starChi2Mean']:.2f} mean, {m['starChi2P90']:.2f} 90th"
        " percentile",
        f"masked      {m['maskedFraction']:.2%} of the pixels",
        f"detections  {counts}",
        *(f"note        {note}" for note in notes),
        f"template    {judgement.word.upper()}"
        + (f": {'; '.join(judgement.reasons)}" if judgement.reasons else ""),
    ]
