"""The stage: from a raw frame to electrons."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline import wcs as world
from pipeline.camera import Amplifier, Detector
from pipeline.errors import PixelError
from pipeline.exposure import Exposure, Image, Mask, RawFrame
from pipeline.fill import fill_holes
from pipeline.isr import overscan
from pipeline.isr.columns import find_columns
from pipeline.isr.config import Config
from pipeline.isr.correct import correct
from pipeline.isr.crosstalk import ghosts
from pipeline.isr.flags import flag_bleeds, flag_defects, flag_edges, grow_saturation, has_any
from pipeline.isr.overscan import Levels
from pipeline.masks import NO_SKY, bits
from pipeline.statistics import mad_std

__all__ = ["Calibs", "Result", "run"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Calibs:
    """Calibration frames of one detector, trimmed.

    Attributes
    ----------
    bias : ndarray, (ny, nx), float32, ADU, optional
        What a frame without light holds above its overscan.
    flat : ndarray, (ny, nx), float32, optional
        Relative response, mean one; the ratio of the gains of the amplifiers is not in it.
    """

    bias: Image | None = None
    flat: Image | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What the stage returns.

    Attributes
    ----------
    exposure : Exposure
        In electrons, with variance, mask and the header's coordinates.
    metrics : mapping
        Numbers by name; per amplifier with its name appended after an underscore.
    notes : tuple of str
        What was not done, and why.
    """

    exposure: Exposure
    metrics: dict[str, float]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Work:
    """The planes on their way through the stage."""

    image: Image
    variance: Image
    mask: Mask
    metrics: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def run(
    raw: RawFrame,
    detector: Detector,
    calibs: Calibs | None = None,
    config: Config | None = None,
    partners: Mapping[int, RawFrame] | None = None,
) -> Result:
    """Remove the signature of the instrument.

    Parameters
    ----------
    raw : RawFrame
        One detector as it was read.
    detector : Detector
        Its geometry, electronics and defects.
    calibs : Calibs, optional
        Bias and flat; what is missing is noted.
    config : Config, optional
        Switches and thresholds.
    partners : mapping of int to RawFrame, optional
        Frames of the same exposure from ``detector.partners``; those absent are noted.

    Returns
    -------
    Result
        Electrons, variance and mask.

    Raises
    ------
    ValueError
        If frame, calibration frames and detector differ in shape.
    PixelError
        If no pixel is usable.
    """
    config = config or Config()
    calibs = calibs or Calibs()
    _check_shapes(raw, detector, calibs)
    work = _Work(
        np.zeros(detector.shape, np.float32),
        np.zeros(detector.shape, np.float32),
        np.zeros(detector.shape, np.uint32),
    )
    _assemble(work, raw, detector, calibs, config, dict(partners or {}))
    _flag(work, detector, config)
    _fill(work, config)
    _judge(work, detector)
    for note in work.notes:
        _LOGGER.info("%s", note)
    numbers = work.metrics
    _LOGGER.info(
        "instrument signature removed: %.4f of the pixels usable, %d saturated, %d in bleeds,"
        " %d columns bad that no list names",
        numbers["usableFraction"], numbers["saturatedPixels"], numbers["bleedPixels"],
        numbers["unlistedColumns"],
    )  # fmt: skip
    return Result(_exposure(work, raw, detector), work.metrics, tuple(work.notes))


def _check_shapes(raw: RawFrame, detector: Detector, calibs: Calibs) -> None:
    if raw.data.shape != detector.raw_shape:
        raise ValueError(f"raw frame is {raw.data.shape}, detector {detector.raw_shape}")
    for name in ("bias", "flat"):
        frame = getattr(calibs, name)
        if frame is not None and frame.shape != detector.shape:
            raise ValueError(f"{name} is {frame.shape}, detector {detector.shape}")


def _assemble(
    work: _Work,
    raw: RawFrame,
    detector: Detector,
    calibs: Calibs,
    config: Config,
    partners: dict[int, RawFrame],
) -> None:
    """Fill the trimmed planes, amplifier by amplifier."""
    used = set(detector.partners) & set(partners) if config.crosstalk else set()
    frames = {n: np.ascontiguousarray(partners[n].data, np.uint16) for n in used}
    frames[detector.number] = np.ascontiguousarray(raw.data, np.uint16)
    levels = _levels(frames, detector, config)
    bias = _frame(work, calibs.bias, 0.0, "bias not subtracted: no frame given")
    flat = _frame(work, calibs.flat, 1.0, "flat not applied: no frame given")
    _note_crosstalk(work, detector, frames, config)
    for amp in detector.amplifiers:
        suspect = config.crosstalk_suspect * amp.read_noise / amp.gain
        ghost, flagged, largest = ghosts(
            detector if config.crosstalk else detector.replace(crosstalk=()),
            amp,
            frames,
            levels,
            suspect,
        )
        own = levels[detector.number, amp.name]
        planes = (work.image, work.variance, work.mask)
        correct(frames[detector.number], amp, own, ghost, bias, flat, planes, config)
        _flag_amplifier(work.mask, amp, own, flagged)
        work.metrics |= {
            f"overscanLevel_{amp.name}": float(np.median(own.rows)),
            f"overscanScatter_{amp.name}": own.scatter,
            f"overscanRejected_{amp.name}": float(own.corrupted.sum()),
            f"crosstalkLargest_{amp.name}": largest,
        }


def _levels(
    frames: Mapping[int, np.ndarray], detector: Detector, config: Config
) -> dict[tuple[int, str], Levels]:
    """Overscan of every amplifier that is needed: all of our own, of partners the sources."""
    sources = {(c.source, c.source_amp) for c in detector.crosstalk}
    return {
        (number, amp.name): overscan.measure(data, amp, detector.bias_step_row, config)
        for number, data in frames.items()
        for amp in detector.amplifiers
        if number == detector.number or (number, amp.name) in sources
    }


def _frame(work: _Work, frame: Image | None, default: float, note: str) -> Image:
    if frame is None:
        work.notes.append(note)
        return np.full(work.image.shape, default, np.float32)
    return np.ascontiguousarray(frame, np.float32)


def _note_crosstalk(
    work: _Work, detector: Detector, frames: Mapping[int, np.ndarray], config: Config
) -> None:
    if not config.crosstalk:
        work.notes.append("crosstalk not applied: switched off")
        return
    missing = [n for n in detector.partners if n not in frames]
    work.notes += [f"inter-CCD crosstalk from {n} not applied: frame absent" for n in missing]
    work.metrics["crosstalkPartnersMissing"] = float(len(missing))


def _flag_amplifier(mask: Mask, amp: Amplifier, levels: Levels, crosstalk: np.ndarray) -> None:
    part = mask[amp.trimmed.slices]
    part[levels.corrupted] |= bits("EDGEBLEED")
    part[crosstalk] |= bits("CROSSTALK")


def _flag(work: _Work, detector: Detector, config: Config) -> None:
    """Set every mask plane that needs the assembled image."""
    work.metrics["saturatedPixels"] = float(has_any(work.mask, bits("SAT")).sum())
    flag_defects(work.mask, detector.defects)
    bleeding = flag_bleeds(work.image, work.variance, work.mask, config)
    grow_saturation(work.mask, config.saturation_growth)
    unlisted = 0
    if config.find_columns:
        columns = find_columns(work.image, work.variance, work.mask, config)
        work.mask[columns] |= bits("BAD", "UNLISTED")
        unlisted = int(columns.any(axis=0).sum())
    flag_edges(work.mask, config.edge)
    work.metrics |= {"bleedPixels": float(bleeding), "unlistedColumns": float(unlisted)}


def _fill(work: _Work, config: Config) -> None:
    """Interpolate bad pixels."""
    if config.interpolate:
        holes = has_any(work.mask, bits("BAD"))  # everything that is not a number among them
        unusable = has_any(work.mask, bits("SAT", "BLEED", "EDGEBLEED"))
        filled = fill_holes(work.image, work.variance, holes, unusable, config.interpolate_reach)
        work.mask[filled] |= bits("INTRP")


def _judge(work: _Work, detector: Detector) -> None:
    """Measure sky and noise per amplifier, and refuse an image without usable pixels."""
    good = ~has_any(work.mask, bits(*NO_SKY, "INTRP"))
    work.metrics["usableFraction"] = float(good.mean())
    if not good.any():
        raise PixelError("no usable pixel", usableFraction=0.0)
    for amp in detector.amplifiers:
        where = amp.trimmed.slices
        level, ratio = _sky(work.image[where], work.variance[where], good[where])
        work.metrics |= {f"sky_{amp.name}": level, f"noiseRatio_{amp.name}": ratio}


def _sky(image: Image, variance: Image, good: np.ndarray) -> tuple[float, float]:
    """Median level, and noise from differences of neighbours over what the variance says."""
    rows = slice(None, None, 8)
    a, b = image[rows, :-1:4], image[rows, 1::4]
    n = min(a.shape[1], b.shape[1])
    a, b, keep = a[:, :n], b[:, :n], good[rows, :-1:4][:, :n] & good[rows, 1::4][:, :n]
    if keep.sum() < 100:
        return float("nan"), float("nan")
    step = np.abs(a - b)[keep]
    expected = float(np.median(variance[rows, :-1:4][:, :n][keep]))
    return float(np.median(a[keep])), mad_std(step, 0.0) / float(np.sqrt(2 * expected))


def _exposure(work: _Work, raw: RawFrame, detector: Detector) -> Exposure:
    amps = detector.amplifiers
    info = replace(
        raw.info,
        gain=1.0,
        read_noise=float(np.mean([a.read_noise for a in amps])),
        saturation=min(a.saturation * a.gain for a in amps),
    )
    x0, y0 = _origin(detector)
    return Exposure(
        image=work.image,
        variance=work.variance,
        mask=work.mask,
        info=info,
        wcs=world.from_header(raw.header, x0, y0),
        unit="electron",
    )


def _origin(detector: Detector) -> tuple[int, int]:
    """Raw pixel of the trimmed origin; where amplifiers are apart the header means trimmed ones."""
    offsets = {(a.data.x0 - a.trimmed.x0, a.data.y0 - a.trimmed.y0) for a in detector.amplifiers}
    return offsets.pop() if len(offsets) == 1 else (0, 0)
