"""Calibration frames: ours, one detector a file, and an observatory's master frames of all.

The DECam Community Pipeline writes master bias and flat as one file with an extension for each CCD,
found by CCDNUM.  Its flats are in counts: the ratio of the gains of the amplifiers is in them, that
a flat which divides electrons must not have.  Whether a given file has it is seen at the edge
between two amplifiers.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.camera import Amplifier, Camera, Detector
from pipeline.errors import FileFormatError
from pipeline.exposure import Image
from pipeline.io.files import open_fits
from pipeline.io.hdus import read_pixels

__all__ = ["read_bias", "read_flat"]

_EDGE = 16  # columns on each side of the border between two amplifiers


def read_bias(path: str | Path, camera: Camera, detector: int) -> Image:
    """Read the master bias of a detector.

    Parameters
    ----------
    path : path-like
        The file.
    camera : Camera
        Its camera.
    detector : int
        CCD number.

    Returns
    -------
    ndarray, (ny, nx), float32, ADU
        What a frame without light holds above its overscan, trimmed.

    Raises
    ------
    FileFormatError
        If the file has no such detector or the wrong size.
    """
    return _read(path, camera, detector)[0]


def read_flat(path: str | Path, camera: Camera, detector: int) -> Image:
    """Read the flat of a detector.

    Parameters
    ----------
    path : path-like
        The file.
    camera : Camera
        Its camera.
    detector : int
        CCD number.

    Returns
    -------
    ndarray, (ny, nx), float32
        Relative response to light, trimmed.  That of a master frame has mean one over the usable
        pixels, and the ratio of the gains is taken out where it was in.

    Raises
    ------
    FileFormatError
        If the file has no such detector or the wrong size, or no pixel of it is positive.
    """
    flat, master = _read(path, camera, detector)
    if not master:
        return flat
    amplifiers = camera.detector(detector).amplifiers
    if _in_counts(flat, amplifiers):
        for amp in amplifiers:
            flat[amp.trimmed.slices] *= np.float32(amp.gain)
    usable = np.isfinite(flat) & (flat > 0)
    if not usable.any():
        raise FileFormatError(
            f"the flat of detector {detector} has no positive pixel", path=path, expected="a flat"
        )
    flat /= np.float32(flat[usable].mean(dtype=float))
    return flat


def _read(path: str | Path, camera: Camera, number: int) -> tuple[Image, bool]:
    """Trimmed pixels, and whether the file is a master frame of all detectors."""
    detector = camera.detector(number)
    key = camera.keywords["detector"]
    with open_fits(path, expected="a calibration frame", scaled=False) as hdus:
        images = [h for h in hdus if h.header["NAXIS"] == 2]
        ours = next((h for h in images if h.name == "IMAGE"), None)
        found = ours or next((h for h in images if h.header.get(key) == number), None)
        if found is None:
            raise FileFormatError(f"no detector {number}", path=path, expected=f"{key} {number}")
        pixels = np.ascontiguousarray(read_pixels(found), np.float32)
    if pixels.shape == detector.raw_shape:
        pixels = _trimmed(pixels, detector)
    if pixels.shape != detector.shape:
        raise FileFormatError(
            "calibration frame of {} rows x {} columns".format(*pixels.shape), path=path,
            expected="{} x {}".format(*detector.shape), hint=f"is this {camera.name}?",
        )  # fmt: skip
    return pixels, ours is None


def _trimmed(raw: Image, detector: Detector) -> Image:
    trimmed = np.empty(detector.shape, np.float32)
    for amp in detector.amplifiers:
        trimmed[amp.trimmed.slices] = raw[amp.data.slices]
    return trimmed


def _in_counts(flat: Image, amplifiers: tuple[Amplifier, ...]) -> bool:
    """Whether the steps between neighbouring amplifiers are smaller in electrons than in counts."""
    counts = electrons = 0.0
    for left, right in itertools.permutations(amplifiers, 2):
        a, b = left.trimmed, right.trimmed
        if a.x1 != b.x0 or (a.y0, a.y1) != (b.y0, b.y1):
            continue
        rows, here, there = slice(a.y0, a.y1), slice(a.x1 - _EDGE, a.x1), slice(b.x0, b.x0 + _EDGE)
        step = np.log(_level(flat[rows, there]) / _level(flat[rows, here]))
        counts += abs(step)
        electrons += abs(step + np.log(right.gain / left.gain))
    return electrons < counts


def _level(pixels: npt.NDArray[np.float32]) -> float:
    usable = pixels[np.isfinite(pixels) & (pixels > 0)]
    return float(np.median(usable)) if usable.size else float("nan")
