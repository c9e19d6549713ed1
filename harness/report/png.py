"""Images as PNG: a grey stretch, missing pixels in a colour of their own."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.statistics import mad_std

__all__ = ["beside", "binned", "encode", "grey"]

_MISSING = np.array([70, 110, 180], np.uint8)
_MASKED = np.array([230, 150, 60], np.uint8)
Rgb = npt.NDArray[np.uint8]


def encode(pixels: Rgb) -> bytes:
    """Encode an image.

    Parameters
    ----------
    pixels : ndarray, (ny, nx, 3), uint8
        Rows from the top down.
    """
    height, width, _ = pixels.shape
    rows = np.concatenate(
        [np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 3)], axis=1
    )
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def binned(image: npt.NDArray[Any], factor: int) -> npt.NDArray[np.float64]:
    """Mean over squares of pixels, NaN only where all of them are."""
    ny, nx = (n // factor * factor for n in image.shape)
    blocks = image[:ny, :nx].astype(np.float32).reshape(ny // factor, factor, nx // factor, factor)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0.0).sum(axis=(1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def grey(
    image: npt.NDArray[Any],
    *,
    symmetric: bool = False,
    masked: npt.NDArray[np.bool_] | None = None,
    scale: float | None = None,
) -> Rgb:
    """Stretch an image to grey, north (the last row) up.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        NaN is drawn blue.
    symmetric : bool
        Whether zero is the middle grey: for differences.
    masked : ndarray, (ny, nx), optional
        Pixels to be tinted orange.
    scale : float, optional
        Noise in units of the image; by default from the pixels themselves.
    """
    values = np.asarray(image, float)
    known = np.isfinite(values)
    if not known.any():
        return np.broadcast_to(_MISSING, (*values.shape, 3)).copy()
    middle = 0.0 if symmetric else float(np.median(values[known]))
    noise = scale or mad_std(values[known]) or 1.0
    shifted = np.where(known, (values - middle) / noise, 0.0)
    level = np.arcsinh(shifted / 2.0)
    low, high = (-3.0, 3.0) if symmetric else (-1.5, 4.5)
    tone = np.clip((level - low) / (high - low) * 255.0, 0, 255).astype(np.uint8)
    pixels = np.repeat(tone[:, :, None], 3, axis=2)
    if masked is not None:
        pixels[masked] = (0.5 * pixels[masked] + 0.5 * _MASKED).astype(np.uint8)
    pixels[~known] = _MISSING
    return np.ascontiguousarray(pixels[::-1])


def beside(*panels: Rgb, gap: int = 4) -> Rgb:
    """Put panels of the same height side by side on white."""
    height = max(p.shape[0] for p in panels)
    parts: list[Rgb] = []
    for panel in panels:
        padded = np.full((height, panel.shape[1], 3), 255, np.uint8)
        padded[: panel.shape[0]] = panel
        parts += [padded, np.full((height, gap, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)
