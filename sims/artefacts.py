"""What is in a raw frame and is no light of the sky: cosmic rays, defects, bleeds, ghosts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.camera import Box, Detector
from pipeline.compiled import compiled, pixel
from pipeline.exposure import FloatArray, Image
from sims.streams import stream

__all__ = [
    "ARTEFACTS",
    "COSMIC_RAYS_PER_SECOND",
    "FULL_SIZE",
    "Defects",
    "Map",
    "bit",
    "bleed",
    "cosmic_rays",
    "defects",
]

Map = npt.NDArray[np.uint32]

ARTEFACTS: dict[str, str] = {
    "CR": "a cosmic ray left more charge than one sigma of the pixel's noise",
    "HOT": "listed defect with charge of its own",
    "DEAD": "listed defect with a reduced response",
    "BLEED": "received charge that bled along the column",
    "SATURATED": "full well reached",
    "CROSSTALK": "ghost of another channel beyond half a sigma of the sky",
    "SATELLITE": "trail of a satellite or an aeroplane",
    "UNLISTED": "bad column that no list knows",
    "DEFECT": "inside a listed defect, whatever it does",
    "EDGEBLEED": "row whose overscan a bleed into the serial register corrupted",
}
"""Bits of an artefact map and what each says; the order is the bit number."""

COSMIC_RAYS_PER_SECOND = 2.9
"""Tracks per second in a detector of `FULL_SIZE` pixels."""

FULL_SIZE = 2048 * 4096
"""Pixels of a full-size detector."""

_THICKNESS_UM = 250.0
_PIXEL_UM = 15.0
_CHARGE_PER_UM = 75.0
_PACKET = 12.0  # electrons that diffuse together
_DIFFUSION_PX = 0.45  # at the far side of the silicon


def bit(name: str) -> int:
    """Return the bit of an artefact.

    Parameters
    ----------
    name : str
        Name of an artefact, one of `ARTEFACTS`.

    Returns
    -------
    int
        A power of two.
    """
    return 1 << list(ARTEFACTS).index(name)


def cosmic_rays(
    rng: np.random.Generator,
    image: Image,
    seconds: float,
    rate: float = COSMIC_RAYS_PER_SECOND,
) -> None:
    """Add the charge left by cosmic rays.

    Muons cross the thick silicon on straight lines, steep ones leaving long tracks; electrons from
    Compton scattering curl.  The charge of every step diffuses on its way to the gates, the wider
    the deeper it was set free.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the numbers.
    image : ndarray, (ny, nx), float32, electron
        Changed in place.
    seconds : float, s
        Time during which charge is collected.
    rate : float, 1/s
        Events per second in `FULL_SIZE` pixels.
    """
    shape = image.shape
    n = int(rng.poisson(rate * seconds * shape[0] * shape[1] / FULL_SIZE))
    for _ in range(n):
        x, y, depth, charge = _worm(rng) if rng.random() < 0.35 else _muon(rng)
        x0, y0 = rng.uniform(-0.5, shape[1] - 0.5), rng.uniform(-0.5, shape[0] - 0.5)
        _deposit(rng, image, x + x0, y + y0, depth, charge)


def _muon(rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    cosine = rng.random() ** (1.0 / 3.0)  # flux through a plane, cos² θ times projection
    across = _THICKNESS_UM * np.sqrt(1.0 / cosine**2 - 1.0) / _PIXEL_UM
    across = min(float(across), 400.0)
    length = np.hypot(across * _PIXEL_UM, _THICKNESS_UM)
    steps = max(8, int(across * 5))
    t = (np.arange(steps) + 0.5) / steps
    angle = rng.uniform(0, 2 * np.pi)
    loss = _CHARGE_PER_UM * length / steps * np.exp(rng.normal(0.0, 0.35))
    charge = loss * rng.gamma(1.5, 1.0 / 1.5, steps)
    return across * t * np.cos(angle), across * t * np.sin(angle), t, charge


def _worm(rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    steps = int(rng.integers(8, 120))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0.0, 0.35, steps))
    depth = np.clip(rng.random() + np.cumsum(rng.normal(0.0, 0.02, steps)), 0.0, 1.0)
    charge = rng.gamma(1.2, 200.0 / 1.2, steps)
    return 0.2 * np.cumsum(np.cos(heading)), 0.2 * np.cumsum(np.sin(heading)), depth, charge


def _deposit(
    rng: np.random.Generator,
    image: Image,
    x: FloatArray,
    y: FloatArray,
    depth: FloatArray,
    charge: FloatArray,
) -> None:
    packets = np.maximum(np.rint(charge / _PACKET), 1.0).astype(np.int64)
    scatter = rng.standard_normal((2, int(packets.sum())))
    _drop(image, x, y, _DIFFUSION_PX * np.sqrt(depth), charge, packets, scatter)


@compiled
def _drop(
    image: Image,
    x: FloatArray,
    y: FloatArray,
    spread: FloatArray,
    charge: FloatArray,
    packets: npt.NDArray[np.int64],
    scatter: FloatArray,
) -> None:
    ny, nx = image.shape
    k = 0
    for i in range(len(x)):
        part = np.float32(charge[i] / packets[i])
        for _ in range(packets[i]):
            px = pixel(np.floor(x[i] + spread[i] * scatter[0, k] + 0.5))
            py = pixel(np.floor(y[i] + spread[i] * scatter[1, k] + 0.5))
            k += 1
            if 0 <= px < nx and 0 <= py < ny:
                image[py, px] += part


@dataclass(frozen=True, slots=True, eq=False)
class Defects:
    """Bad pixels of one detector; the same in every visit.

    Attributes
    ----------
    response : ndarray, (ny, nx)
        Fraction of the light that is collected.
    charge : ndarray, (ny, nx), electron / s
        Charge that appears without light.
    artefacts : ndarray, (ny, nx), uint32
        Their bits.
    """

    response: Image
    charge: Image
    artefacts: Map


def defects(seed: int, detector: Detector, unlisted: int) -> Defects:
    """Decide what each defect of a detector does, and add columns that are on no list.

    Parameters
    ----------
    seed : int
        Seed of the campaign.
    detector : Detector
        The detector with its listed defects.
    unlisted : int
        Number of further bad columns.

    Returns
    -------
    Defects
        Response, charge and bits of the bad pixels.
    """
    rng = stream(seed, 0, detector.number, "defects")
    out = Defects(
        np.ones(detector.shape, np.float32),
        np.zeros(detector.shape, np.float32),
        np.zeros(detector.shape, np.uint32),
    )
    for box in detector.defects:
        _listed(rng, out, box)
    for k in range(unlisted):
        _unlisted(rng, out, hot=k % 2 == 0)
    return out


def _listed(rng: np.random.Generator, out: Defects, box: Box) -> None:
    where = slice(box.y0, box.y0 + box.height), slice(box.x0, box.x0 + box.width)
    narrow = min(box.width, box.height) <= 4
    hot = rng.random() < 0.5
    if narrow and hot:
        out.charge[where] = 10.0 ** rng.uniform(0.3, 2.3)
    elif narrow:
        out.response[where] = rng.uniform(0.0, 0.6)
    else:  # the glowing edges and large blemishes: a mild loss, not the same everywhere
        out.response[where] *= rng.uniform(0.85, 0.97)
        hot = False
    out.artefacts[where] |= np.uint32(bit("HOT" if hot else "DEAD") | bit("DEFECT"))


def _unlisted(rng: np.random.Generator, out: Defects, *, hot: bool) -> None:
    ny, _nx = out.response.shape
    good = np.flatnonzero((out.artefacts == 0).mean(axis=0) > 0.9)
    column = int(rng.choice(good))
    start = int(rng.integers(0, ny // 2))
    rows = slice(start, ny) if rng.random() < 0.5 else slice(0, ny - start)
    if hot:
        out.charge[rows, column] = 10.0 ** rng.uniform(0.0, 1.3)
    else:
        out.response[rows, column] = rng.uniform(0.1, 0.75)
    out.artefacts[rows, column] |= np.uint32(bit("UNLISTED"))


@compiled
def bleed(
    charge: Image,
    full_well: Image,
    artefacts: Map,
    bleed_bit: int,
    saturated_bit: int,
) -> FloatArray:
    """Let charge beyond the full well spill up and down its column, half each way.

    Parameters
    ----------
    charge : ndarray, (ny, nx), float32, electron
        Changed in place.
    full_well : ndarray, (nx,), float32, electron
        Capacity of the pixels of each column.
    artefacts : ndarray, (ny, nx), uint32
        Gets the two bits.
    bleed_bit, saturated_bit : int
        The bits.

    Returns
    -------
    ndarray, (2, nx), electron
        Charge that ran over the first and over the last row; with it the sum is kept.
    """
    ny, nx = charge.shape
    over = np.zeros((2, nx))
    full = np.zeros(nx, np.bool_)
    for y in range(ny):
        for x in range(nx):
            full[x] |= charge[y, x] > full_well[x]
    for x in range(nx):
        if not full[x]:
            continue
        well = full_well[x]
        for y in range(ny):
            excess = charge[y, x] - well
            if excess <= 0.0:
                continue
            charge[y, x] = well
            artefacts[y, x] |= np.uint32(saturated_bit)
            for way in range(2):
                left = np.float32(0.5) * excess
                j = y + 2 * way - 1
                while left > 0.0 and 0 <= j < ny:
                    room = well - charge[j, x]
                    # A pixel that is over-full itself takes nothing now and spills later.
                    if room > 0.0:
                        taken = min(room, left)
                        charge[j, x] += taken
                        left -= taken
                        artefacts[j, x] |= np.uint32(bleed_bit)
                        if taken == room:
                            artefacts[j, x] |= np.uint32(saturated_bit)
                    j += 2 * way - 1
                over[way, x] += left
    return over
