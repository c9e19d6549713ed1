"""Pixel loops of the subtraction, compiled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, Mask

__all__ = [
    "below",
    "block_medians",
    "bright_ratios",
    "combine",
    "fill",
    "finish",
    "normalise",
    "region_sums",
    "residual",
    "weigh",
]


@compiled
def block_medians(
    plane: Image, bad: npt.NDArray[np.uint8], tiles_y: int, tiles_x: int, thin: int
) -> Image:
    """Medians of the good pixels of blocks, thinned in both axes; NaN below 30 of them.

    Parameters
    ----------
    plane : ndarray, (ny, nx)
        Values.
    bad : ndarray, (ny, nx)
        Non-zero pixels are left out.
    tiles_y, tiles_x : int
        Number of even blocks per axis.
    thin : int
        Every how manieth pixel is looked at.

    Returns
    -------
    ndarray, (tiles_y, tiles_x)
        The medians.
    """
    ny, nx = plane.shape
    out = np.full((tiles_y, tiles_x), np.float32(np.nan), np.float32)
    values = np.empty((ny // tiles_y + 2) * (nx // tiles_x + 2), np.float32)
    for j in range(tiles_y):
        for i in range(tiles_x):
            n = 0
            for y in range(j * ny // tiles_y, (j + 1) * ny // tiles_y, thin):
                for x in range(i * nx // tiles_x, (i + 1) * nx // tiles_x, thin):
                    if not bad[y, x]:
                        values[n] = plane[y, x]
                        n += 1
            if n >= 30:
                out[j, i] = np.median(values[:n])
    return out


@compiled
def fill(
    image: Image,
    variance: Image,
    bad: npt.NDArray[np.uint8],
    level: float,
    sky: Image,
    power: Image,
) -> None:
    """Subtract `level`, and replace bad pixels by their neighbours', in place.

    A bad pixel takes the mean of the good ones within 3 px, weighted by the inverse fourth power
    of the distance, or the sky where there are none.  Variances that are not positive numbers
    become those of the sky.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx)
        Changed in place.
    bad : ndarray, (ny, nx)
        Non-zero pixels are bad.
    level : float
        Subtracted from all pixels.
    sky, power : ndarray, (ty, tx)
        Coarse medians of the levelled image and of the variance.
    """
    ny, nx = image.shape
    ty, tx = sky.shape
    base = np.float32(level)
    for y in range(ny):
        for x in range(nx):
            image[y, x] -= base
    for y in range(ny):
        for x in range(nx):
            if not bad[y, x]:
                continue
            total, norm = 0.0, 0.0
            for v in range(max(0, y - 3), min(ny, y + 4)):
                for u in range(max(0, x - 3), min(nx, x + 4)):
                    if not bad[v, u]:
                        d2 = (v - y) * (v - y) + (u - x) * (u - x)
                        total += image[v, u] / (d2 * d2)
                        norm += 1.0 / (d2 * d2)
            j, i = min(y * ty // ny, ty - 1), min(x * tx // nx, tx - 1)
            image[y, x] = total / norm if norm > 0.0 else sky[j, i]
            if not (variance[y, x] > 0.0 and np.isfinite(variance[y, x])):
                variance[y, x] = power[j, i]


@compiled
def bright_ratios(
    image: Image,
    variance: Image,
    bad: npt.NDArray[np.uint8],
    sky: Image,
    power: Image,
    threshold: float,
    most: int,
) -> Image:
    """Excess variance per excess flux of pixels that many σ above the sky.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx)
        The planes.
    bad : ndarray, (ny, nx)
        Non-zero pixels are left out.
    sky, power : ndarray, (ty, tx)
        Coarse medians of both.
    threshold : float
        In units of the noise.
    most : int
        Largest number of pixels.

    Returns
    -------
    ndarray, (n,)
        The ratios.
    """
    ny, nx = image.shape
    ty, tx = sky.shape
    limit = sky + np.float32(threshold) * np.sqrt(power)
    out = np.empty(most, np.float32)
    n = 0
    for y in range(ny):
        j = min(y * ty // ny, ty - 1)
        for i in range(tx):
            for x in range(i * nx // tx, (i + 1) * nx // tx):
                if image[y, x] > limit[j, i] and not bad[y, x] and n < most:
                    out[n] = (variance[y, x] - power[j, i]) / (image[y, x] - sky[j, i])
                    n += 1
    return out[:n]


@compiled
def residual(
    target: Image,
    matched: Image,
    background: FloatArray,
    usable: npt.NDArray[np.uint8],
    sky: Image,
    power: Image,
    slope: float,
    science_target: bool,
    ratio: float,
    model: Image,
    raw: Image,
) -> None:
    """Target minus matched source, and the science variance that the static scene explains.

    Parameters
    ----------
    target : ndarray, (ny, nx)
        The image that is not convolved.
    matched : ndarray, (ny, nx)
        κ ⊗ source; becomes target − matched − background, where unusable zero.
    background : ndarray, (6,)
        Quadratic differential background.
    usable : ndarray, (ny, nx)
        Zero where a pixel must not leak into its surroundings.
    sky, power : ndarray, (ty, tx)
        Coarse sky and variance of the science image.
    slope : float
        Its increase of variance per flux.
    science_target : bool
        Whether the science image is the target; otherwise it was convolved.
    ratio : float
        Photometric ratio, to scale the target to the science image where it was convolved.
    model : ndarray, (ny, nx)
        Becomes the variance of the science image without what only it contains.
    raw : ndarray, (n,)
        Becomes the difference at the unusable pixels, row by row.
    """
    n = 0
    ny, nx = target.shape
    ty, tx = sky.shape
    for y in range(ny):
        v = 2.0 * y / max(ny - 1, 1) - 1.0
        b = min(max((y + 0.5) * ty / ny - 0.5, 0.0), ty - 1.0)
        j = min(int(b), max(ty - 2, 0))
        j1, t = min(j + 1, ty - 1), b - j
        for x in range(nx):
            u = 2.0 * x / max(nx - 1, 1) - 1.0
            level = background[0] + u * background[1] + v * background[2]
            level += u * u * background[3] + u * v * background[4] + v * v * background[5]
            expected = matched[y, x] + level
            difference = target[y, x] - expected
            a = min(max((x + 0.5) * tx / nx - 0.5, 0.0), tx - 1.0)
            i = min(int(a), max(tx - 2, 0))
            i1, s = min(i + 1, tx - 1), a - i
            dark = (1 - t) * ((1 - s) * sky[j, i] + s * sky[j, i1])
            dark += t * ((1 - s) * sky[j1, i] + s * sky[j1, i1])
            noise = (1 - t) * ((1 - s) * power[j, i] + s * power[j, i1])
            noise += t * ((1 - s) * power[j1, i] + s * power[j1, i1])
            scene = expected if science_target else (target[y, x] - level) / ratio
            model[y, x] = noise + slope * max(scene - dark, 0.0)
            if usable[y, x]:
                matched[y, x] = difference
            else:
                matched[y, x] = 0.0
                raw[n] = difference
                n += 1


@compiled
def finish(
    image: Image,
    null_variance: Image,
    variance: Image,
    science_variance: Image,
    raw: Image,
    usable: npt.NDArray[np.uint8],
    mask: Mask,
    no_data: np.uint32,
    gain: float,
    ratio: FloatArray,
) -> None:
    """Last touches, in place: scale, own noise of the science image, holes.

    Parameters
    ----------
    image, null_variance : ndarray, (ny, nx)
        Whitened difference in units of the target and its source-free variance; scaled to the
        science image, NaN where there are no data.
    variance : ndarray, (ny, nx)
        The part of the science image's variance that the static scene explains; becomes the
        variance of the difference with the science image's own counts.
    science_variance : ndarray, (ny, nx)
        Variance plane of the science image.
    raw : ndarray, (n,)
        Differences of the unusable pixels, row by row.
    usable : ndarray, (ny, nx)
        Zero where the image takes its raw value.
    mask : ndarray, (ny, nx)
        Mask of the difference.
    no_data : numpy.uint32
        Bit of missing pixels.
    gain : float
        Share of the science image's variance in the difference's.
    ratio : ndarray, (6,)
        Quadratic that divides the difference; its constant is one if nothing is to be done.
    """
    ny, nx = image.shape
    nan, n = np.float32(np.nan), 0
    for y in range(ny):
        v = 2.0 * y / max(ny - 1, 1) - 1.0
        for x in range(nx):
            value = image[y, x]
            if not usable[y, x]:
                value = raw[n]
                n += 1
            if mask[y, x] & no_data:
                image[y, x], null_variance[y, x], variance[y, x] = nan, nan, nan
                continue
            u = 2.0 * x / max(nx - 1, 1) - 1.0
            scale = ratio[0] + u * ratio[1] + v * ratio[2]
            scale += u * u * ratio[3] + u * v * ratio[4] + v * v * ratio[5]
            image[y, x] = value / scale
            base = null_variance[y, x]
            total = base + gain * (science_variance[y, x] - variance[y, x])
            null_variance[y, x] = base / (scale * scale)
            variance[y, x] = max(total, 0.25 * base) / (scale * scale)


@compiled
def region_sums(
    image: Image,
    variance: Image,
    usable: npt.NDArray[np.uint8],
    tiles_y: int,
    tiles_x: int,
) -> FloatArray:
    """Sum pulls and their products with neighbours over regions of an image.

    Parameters
    ----------
    image, variance : ndarray, (ny, nx)
        The planes.
    usable : ndarray, (ny, nx)
        Non-zero pixels count.
    tiles_y, tiles_x : int
        Number of regions per axis.

    Returns
    -------
    ndarray, (tiles_y, tiles_x, 5)
        n, Σz, Σz², number of neighbouring pairs, Σ z z' over them, z clipped at 5.
    """
    ny, nx = image.shape
    out = np.zeros((tiles_y, tiles_x, 5))
    for j in range(tiles_y):
        for i in range(tiles_x):
            total = np.zeros(5)
            for y in range(j * ny // tiles_y, (j + 1) * ny // tiles_y):
                left, first = 0.0, True
                for x in range(i * nx // tiles_x, (i + 1) * nx // tiles_x):
                    if not usable[y, x]:
                        first = True
                        continue
                    z = min(max(image[y, x] / np.sqrt(variance[y, x]), -5.0), 5.0)
                    total[0] += 1.0
                    total[1] += z
                    total[2] += z * z
                    if not first:
                        total[3] += 1.0
                        total[4] += z * left
                    if y > 0 and usable[y - 1, x]:
                        up = min(max(image[y - 1, x] / np.sqrt(variance[y - 1, x]), -5.0), 5.0)
                        total[3] += 1.0
                        total[4] += z * up
                    left, first = z, False
            out[j, i] = total
    return out


@compiled
def below(image: Image, limit: Image, usable: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Mark usable pixels below a coarse limit.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Values.
    limit : ndarray, (ty, tx)
        Limits of even blocks.
    usable : ndarray, (ny, nx)
        Non-zero pixels count.

    Returns
    -------
    ndarray of uint8, (ny, nx)
        One where usable and below.
    """
    ny, nx = image.shape
    ty, tx = limit.shape
    out = np.zeros((ny, nx), np.uint8)
    for y in range(ny):
        j = min(y * ty // ny, ty - 1)
        for i in range(tx):
            for x in range(i * nx // tx, (i + 1) * nx // tx):
                out[y, x] = usable[y, x] and image[y, x] < limit[j, i]
    return out


@compiled
def combine(
    pieces: Image,
    rim: int,
    order: int,
    first_row: int,
    first_column: int,
    out: Image,
    shape: tuple[int, int],
) -> None:
    """Sum images times polynomials of the position.

    Parameters
    ----------
    pieces : ndarray, (n_terms, rows, columns)
        One image per term of `pipeline.exposure.polynomial_terms`.
    rim : int, pixel
        Where the tile begins in `pieces`, along both axes.
    order : int
        Degree of the polynomial, at most 2.
    first_row, first_column : int
        Position of the tile in the whole image.
    out : ndarray
        The tile.
    shape : tuple of int, (ny, nx)
        Size of the whole image, over which positions are scaled.
    """
    rows, columns = out.shape
    for j in range(rows):
        v = np.float32(2.0 * (first_row + j) / max(shape[0] - 1, 1) - 1.0)
        for i in range(columns):
            u = np.float32(2.0 * (first_column + i) / max(shape[1] - 1, 1) - 1.0)
            y, x = j + rim, i + rim
            total = pieces[0, y, x]
            if order > 0:
                total += u * pieces[1, y, x] + v * pieces[2, y, x]
            if order > 1:
                total += u * u * pieces[3, y, x] + u * v * pieces[4, y, x]
                total += v * v * pieces[5, y, x]
            out[j, i] = total


@compiled
def weigh(flux: Image, variance: Image, usable: npt.NDArray[np.uint8], planes: Image) -> np.float32:
    """Inverse variances of usable pixels, and fluxes times them.

    Parameters
    ----------
    flux, variance : ndarray, (rows, columns)
        A tile with its rim.
    usable : ndarray, (rows, columns)
        Zero where a pixel does not count.
    planes : ndarray, (2, rows, columns)
        Becomes weighted flux and weight, both relative to the largest weight.

    Returns
    -------
    numpy.float32
        The largest weight; zero if nothing is usable.
    """
    rows, columns = flux.shape
    least = np.float32(np.inf)
    for j in range(rows):
        for i in range(columns):
            if usable[j, i]:
                least = min(least, variance[j, i])
    for j in range(rows):
        for i in range(columns):
            w = least / variance[j, i] if usable[j, i] else np.float32(0.0)
            planes[1, j, i] = w
            planes[0, j, i] = w * flux[j, i] if usable[j, i] else np.float32(0.0)
    return np.float32(1.0) / least


@compiled
def normalise(sums: Image, rim: int, least: float, scale: float, out: Image) -> None:
    """Turn weighted sums into a score.

    Parameters
    ----------
    sums : ndarray, (2, rows, columns)
        Σ w P D and Σ w P², with the rim of the tile.
    rim : int, pixel
        Width of the rim.
    least : float
        Smallest second sum that is enough.
    scale : float
        What the weights are relative to.
    out : ndarray
        The tile of the score; zero where there is too little.
    """
    rows, columns = out.shape
    root = np.sqrt(np.float32(scale))
    for j in range(rows):
        for i in range(columns):
            norm = sums[1, j + rim, i + rim]
            value = sums[0, j + rim, i + rim]
            out[j, i] = value / np.sqrt(norm) * root if norm > least else np.float32(0.0)
