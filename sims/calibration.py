"""Calibration products: what the observatory believes about its camera, never quite the truth."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

import pipeline.camera
from pipeline.camera import Camera, Detector
from pipeline.exposure import Image
from pipeline.io import atomic_path
from pipeline.io.hdus import array_hdu, cards, primary_hdu
from sims.electronics import Pedestal
from sims.geometry import DetectorGeometry
from sims.streams import stream

__all__ = ["believed_camera", "true_flat", "write_bias", "write_camera", "write_flat"]

_GAIN_ERROR = 0.002
_READ_NOISE_ERROR = 0.01
_LINEARITY_ERROR = 0.01
_ROWS = 256
_BIAS_FRAMES, _FLAT_FRAMES, _FLAT_ELECTRONS = 25, 20, 80_000.0
_Row = dict[str, str]


def write_camera(folder: Path, name: str, seed: int) -> Path:
    """Write a copy of a camera definition with the errors a calibration has.

    Gains and read noises scatter by 0.2 % and 1 %, crosstalk coefficients by their published
    errors, linearity corrections by 1 % per channel; saturation levels are understated by up to
    1.5 %.  Geometry and listed defects are exact; unlisted bad columns are not in the list.

    Parameters
    ----------
    folder : path-like
        Gets ``{name}.toml`` and ``data/*.csv``.
    name : str
        A bundled camera.
    seed : int
        Seed of the campaign.

    Returns
    -------
    Path
        The TOML file.
    """
    home = Path(pipeline.camera.__file__).parent
    target = folder / f"{name}.toml"
    for path in sorted((home / "data").glob(f"{name}_*.csv")):
        kind = path.stem.removeprefix(f"{name}_")
        with path.open(newline="") as f:
            rows = list(csv.DictReader(f))
        rng = stream(seed, 0, 0, f"perturb {kind}")
        if kind in _PERTURB:
            rows = [_PERTURB[kind](rng, row) for row in rows]
        with (
            atomic_path(folder / "data" / path.name) as partial,
            partial.open("w", newline="") as f,
        ):
            writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    with atomic_path(target) as partial:
        partial.write_text((home / f"{name}.toml").read_text())
    return target


def believed_camera(folder: Path, name: str) -> Camera:
    """Load the copy written by `write_camera`.

    Parameters
    ----------
    folder : Path
        Folder of the campaign's calibration files.
    name : str
        Name of the camera.

    Returns
    -------
    Camera
        With the gains and levels as the observatory knows them.
    """
    return Camera.load(folder / f"{name}.toml")


def _amplifier(rng: np.random.Generator, row: _Row) -> _Row:
    gain = float(row["gain"]) * (1 + rng.normal(0.0, _GAIN_ERROR))
    noise = float(row["read_noise"]) * (1 + rng.normal(0.0, _READ_NOISE_ERROR))
    level = float(row["saturation"]) * rng.uniform(0.985, 1.0)
    return row | {
        "gain": f"{gain:.4f}",
        "read_noise": f"{noise:.4f}",
        "saturation": f"{level:.0f}",
    }


def _crosstalk(rng: np.random.Generator, row: _Row) -> _Row:
    value = rng.normal(float(row["coefficient"]), float(row["coefficient_err"]))
    return row | {"coefficient": f"{value:.4e}"}


def _linearity(rng: np.random.Generator, row: _Row) -> _Row:
    factor = 1 + rng.normal(0.0, _LINEARITY_ERROR)
    return {k: f"{float(v) * factor:.3f}" if k.isdigit() else v for k, v in row.items()}


_PERTURB: dict[str, Callable[[np.random.Generator, _Row], _Row]] = {
    "amplifiers": _amplifier,
    "crosstalk": _crosstalk,
    "linearity": _linearity,
}


def true_flat(seed: int, band: str, camera: Camera, detector: Detector) -> Image:
    """Relative response to light of every pixel, mean one over the detector.

    Vignetting falls with the distance from the optical axis, dust throws out-of-focus rings,
    quantum efficiency differs from pixel to pixel by half a percent.

    Parameters
    ----------
    seed : int
        Seed of the campaign.
    band : str
        One letter of ``ugrizy``.
    camera : Camera
        Its optical axis is the centre of the vignetting.
    detector : Detector
        The detector.

    Returns
    -------
    ndarray, (ny, nx), float32
        Relative response.
    """
    ny, nx = detector.shape
    rng = stream(seed, 0, detector.number, f"flat {band}")
    flat = np.empty((ny, nx), np.float32)
    geometry = DetectorGeometry(camera, detector)
    for y in range(0, ny, _ROWS):
        rows = np.arange(y, min(y + _ROWS, ny))[:, None]
        x_mm, y_mm = geometry.to_plane(np.arange(nx)[None, :], rows)
        square = (x_mm**2 + y_mm**2) / 225.0**2
        flat[rows[:, 0]] = 1.0 - 0.06 * square - 0.08 * square**3
    for _ in range(1 + int(rng.poisson(1.5e-6 * nx * ny))):
        _dust(rng, flat)
    for y in range(0, ny, _ROWS):
        part = flat[y : y + _ROWS]
        part *= 1.0 + np.float32(0.005) * rng.standard_normal(part.shape, dtype=np.float32)
    flat /= np.float32(flat.mean(dtype=float))
    return flat


def _dust(rng: np.random.Generator, flat: Image) -> None:
    ny, nx = flat.shape
    cx, cy, size = rng.uniform(0, nx), rng.uniform(0, ny), rng.uniform(8.0, 40.0)
    x0, x1 = max(0, int(cx - 2 * size)), min(nx, int(cx + 2 * size))
    y0, y1 = max(0, int(cy - 2 * size)), min(ny, int(cy + 2 * size))
    y, x = np.mgrid[y0:y1, x0:x1]
    r = np.hypot(x - cx, y - cy) / size
    depth = rng.uniform(0.005, 0.04)
    flat[y0:y1, x0:x1] *= 1.0 - depth * np.exp(-(((r - 0.6) / 0.35) ** 2))


def write_bias(path: Path, seed: int, detector: Detector) -> None:
    """Write the bias image: true structure and the noise of 25 frames; ADU, trimmed.

    Parameters
    ----------
    path : Path
        File to write.
    seed : int
        Seed of the campaign.
    detector : Detector
        The detector.
    """
    rng = stream(seed, 0, detector.number, "bias product")
    bias = Pedestal.draw(seed, 0, detector).structure.copy()
    for amp in detector.amplifiers:
        noise = amp.read_noise / amp.gain / np.sqrt(_BIAS_FRAMES)
        bias[amp.trimmed.slices] += noise * rng.standard_normal(amp.trimmed.shape, np.float32)
    _write_image(path, bias, detector, "bias", "adu", _BIAS_FRAMES)


def write_flat(path: Path, seed: int, band: str, camera: Camera, believed: Detector) -> None:
    """Write the flat: true response times the ratio of believed to true gain, with its noise.

    A flat measured with an image that was multiplied by the believed gain has taken up the error
    of that gain; dividing by it therefore leaves no step between the channels.

    Parameters
    ----------
    path : Path
        File to write.
    seed : int
        Seed of the campaign.
    band : str
        One letter of ``ugrizy``.
    camera : Camera
        The camera as it truly is.
    believed : Detector
        The detector as the observatory knows it.
    """
    detector = camera.detector(believed.number)
    rng = stream(seed, 0, detector.number, f"flat product {band}")
    flat = true_flat(seed, band, camera, detector)
    for amp in detector.amplifiers:
        flat[amp.trimmed.slices] *= believed.amplifier(amp.name).gain / amp.gain
    noise = np.float32(1.0 / np.sqrt(_FLAT_FRAMES * _FLAT_ELECTRONS))
    for y in range(0, len(flat), _ROWS):
        part = flat[y : y + _ROWS]
        part *= 1.0 + noise * rng.standard_normal(part.shape, dtype=np.float32)
    flat /= np.float32(flat.mean(dtype=float))
    _write_image(path, flat, detector, "flat", "", _FLAT_FRAMES)


def _write_image(
    path: Path, image: Image, detector: Detector, kind: str, unit: str, n: int
) -> None:
    header = cards(
        [
            ("OBSTYPE", kind, "kind of calibration"),
            ("CCDNUM", detector.number, "detector"),
            ("DETPOS", detector.name, "its position"),
            ("NCOMBINE", n, "frames that went in"),
            ("BUNIT", unit, "unit of the pixels"),
        ]
    )
    with atomic_path(path) as partial:
        partial.write_bytes(b"".join([primary_hdu(header), *array_hdu("IMAGE", image, header)]))
