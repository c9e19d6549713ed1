"""Pixel loops of the subtraction, compiled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, Image, Mask

__all__ = [
    "add_term",
    "below",
    "cut",
    "finish",
    "normalise",
    "pull_sums",
    "region_sums",
    "residual",
    "standing_out",
    "weigh",
]


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
    light: Image,
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
    light : ndarray, (ny, nx)
        Becomes the light of the template above the sky, matched to the science image.
    raw : ndarray, (n,)
        Becomes the difference at the unusable pixels, row by row.
    """
    n = 0
    ny, nx = target.shape
    one, two, zero = np.float32(1.0), np.float32(2.0), np.float32(0.0)
    gain, inverse = np.float32(slope), np.float32(1.0 / ratio)
    terms, scale = background.astype(np.float32), two / np.float32(max(nx - 1, 1))
    dark, noise = np.empty(nx, np.float32), np.empty(nx, np.float32)
    for y in range(ny):
        v = np.float32(2.0 * y / max(ny - 1, 1) - 1.0)
        constant = terms[0] + v * terms[2] + v * v * terms[5]
        linear = terms[1] + v * terms[4]
        _bilinear_row(sky, y, ny, dark)
        _bilinear_row(power, y, ny, noise)
        row, convolved, scene, above = target[y], matched[y], model[y], light[y]
        for x in range(nx):  # no branches: this becomes vectors
            u = scale * np.float32(x) - one
            level = constant + u * (linear + u * terms[3])
            expected = convolved[x] + level
            convolved[x] = row[x] - expected
            scene[x] = expected if science_target else (row[x] - level) * inverse
        for x in range(nx):
            above[x] = scene[x] - dark[x]
            scene[x] = noise[x] + gain * max(above[x], zero)
        for x in range(nx):
            if not usable[y, x]:
                raw[n] = convolved[x]
                convolved[x] = zero
                n += 1


@compiled
def _bilinear_row(coarse: Image, y: int, ny: int, row: Image) -> None:
    """Interpolate a coarse plane to one row of pixels."""
    (ty, tx), nx = coarse.shape, len(row)
    b = min(max((y + 0.5) * ty / ny - 0.5, 0.0), ty - 1.0)
    j = min(int(b), max(ty - 2, 0))
    t = np.float32(b - j)
    nodes = (np.float32(1.0) - t) * coarse[j] + t * coarse[min(j + 1, ty - 1)]
    scale = tx / nx
    for i in range(tx):
        low = 0 if i == 0 else min(nx, int(np.ceil((i + 0.5) / scale - 0.5)))
        high = nx if i == tx - 1 else min(nx, int(np.ceil((i + 1.5) / scale - 0.5)))
        step = np.float32(nodes[min(i + 1, tx - 1)] - nodes[i])
        start = np.float32(0.5 * scale - 0.5 - i)
        for x in range(low, high):
            share = min(max(np.float32(x) * np.float32(scale) + start, np.float32(0.0)),
                        np.float32(1.0))  # fmt: skip
            row[x] = nodes[i] + share * step


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
    nan, n, one = np.float32(np.nan), 0, np.float32(1.0)
    share, terms, least = np.float32(gain), ratio.astype(np.float32), np.float32(0.25)
    for y in range(ny):
        v = np.float32(2.0 * y / max(ny - 1, 1) - 1.0)
        constant = terms[0] + v * terms[2] + v * v * terms[5]
        linear = terms[1] + v * terms[4]
        for x in range(nx):
            value = image[y, x]
            if not usable[y, x]:
                value = raw[n]
                n += 1
            if mask[y, x] & no_data:
                image[y, x], null_variance[y, x], variance[y, x] = nan, nan, nan
                continue
            u = np.float32(2.0) * np.float32(x) / np.float32(max(nx - 1, 1)) - one
            scale = one / (constant + u * (linear + u * terms[3]))
            image[y, x] = value * scale
            base = null_variance[y, x]
            total = base + share * (science_variance[y, x] - variance[y, x])
            null_variance[y, x] = base * (scale * scale)
            variance[y, x] = max(total, least * base) * (scale * scale)


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
    ndarray, (tiles_y, tiles_x, 7)
        n, Σz, Σz², number of neighbouring pairs, Σ z z' over them, z clipped at 5; the last two for
        pairs in a row alone.
    """
    ny, nx = image.shape
    out = np.zeros((tiles_y, tiles_x, 7))
    pulls, above = np.full(nx, np.nan, np.float32), np.full(nx, np.nan, np.float32)
    for j in range(tiles_y):
        for y in range(j * ny // tiles_y, (j + 1) * ny // tiles_y):
            pulls, above = above, pulls
            _pulls(image[y], variance[y], usable[y], pulls)
            for i in range(tiles_x):
                first = i * nx // tiles_x
                left = np.float32(np.nan)
                count, total, square, pairs, product = 0, 0.0, 0.0, 0, 0.0
                in_row, along = 0, 0.0
                for x in range(first, (i + 1) * nx // tiles_x):
                    z = pulls[x]
                    if not np.isnan(z):
                        count += 1
                        total += z
                        square += z * z
                        if not np.isnan(left):
                            pairs += 1
                            in_row += 1
                            product += z * left
                            along += z * left
                        if not np.isnan(above[x]):
                            pairs += 1
                            product += z * above[x]
                    left = z
                out[j, i] += np.array([count, total, square, pairs, product, in_row, along])
    return out


@compiled
def pull_sums(
    image: Image,
    variance: Image,
    usable: npt.NDArray[np.uint8],
    tiles_y: int,
    tiles_x: int,
) -> FloatArray:
    """Count and add up pulls over regions of an image: the first two of `region_sums`.

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
    ndarray, (tiles_y, tiles_x, 2)
        n, Σz, z clipped at 5.
    """
    ny, nx = image.shape
    out, pulls = np.zeros((tiles_y, tiles_x, 2)), np.empty(nx, np.float32)
    for j in range(tiles_y):
        for y in range(j * ny // tiles_y, (j + 1) * ny // tiles_y):
            _pulls(image[y], variance[y], usable[y], pulls)
            for i in range(tiles_x):
                count, total = 0, 0.0
                for z in pulls[i * nx // tiles_x : (i + 1) * nx // tiles_x]:
                    good = not np.isnan(z)
                    count += good
                    total += z if good else 0.0
                out[j, i, 0] += count
                out[j, i, 1] += total
    return out


@compiled
def _pulls(image: Image, variance: Image, usable: npt.NDArray[np.uint8], out: Image) -> None:
    """Compute the pulls of a row, clipped at 5; NaN where a pixel does not count."""
    five, nan = np.float32(5.0), np.float32(np.nan)
    for x in range(len(out)):
        z = image[x] / np.sqrt(variance[x])
        out[x] = min(max(z, -five), five) if usable[x] else nan


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
            part = slice(i * nx // tx, (i + 1) * nx // tx)
            row, here, to, most = image[y, part], usable[y, part], out[y, part], limit[j, i]
            for x in range(len(row)):
                to[x] = (here[x] != 0) & (row[x] < most)
    return out


@compiled
def standing_out(
    ys: npt.NDArray[np.int64],
    xs: npt.NDArray[np.int64],
    left: Image,
    usable: npt.NDArray[np.uint8],
    first: Image,
    second: Image,
    power: float,
    limits: tuple[float, float],
) -> npt.NDArray[np.bool_]:
    """Tell round which usable pixels a residual is more than noise.

    Parameters
    ----------
    ys, xs : ndarray, (n,)
        The pixels.
    left : ndarray, (ny, nx)
        The residual.
    usable : ndarray, (ny, nx)
        Zero where it says nothing.
    first, second : ndarray, (ny, nx)
        Variances of the image that was not convolved and of the one that was.
    power : float
        Sum of the squares of the kernel.
    limits : tuple of float
        Largest mean square and largest value of the pulls in 5 × 5 pixels.

    Returns
    -------
    ndarray of bool, (n,)
        True where a limit is exceeded.
    """
    ny, nx = left.shape
    out = np.zeros(len(ys), np.bool_)
    mean, peak = limits[0], limits[1] ** 2
    for k in range(len(ys)):
        if not usable[ys[k], xs[k]]:
            continue
        total, number, most = 0.0, 0, 0.0
        for y in range(max(0, ys[k] - 2), min(ny, ys[k] + 3)):
            for x in range(max(0, xs[k] - 2), min(nx, xs[k] + 3)):
                if usable[y, x]:
                    square = left[y, x] ** 2 / (first[y, x] + power * second[y, x])
                    total += square
                    number += 1
                    most = max(most, square)
        out[k] = total > mean * number or most > peak
    return out


@compiled
def cut(image: Image, first_row: int, first_column: int, rim: int, out: Image) -> None:
    """Copy a tile with its rim, mirrored at the edges of the image.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        The whole image.
    first_row, first_column : int
        Where the tile begins.
    rim : int, pixel
        Width of the rim before the tile.
    out : ndarray
        Filled from the rim on.
    """
    ny, nx = image.shape
    before, after = _inside(first_column - rim, out.shape[1], nx)
    for j in range(out.shape[0]):
        row, to = image[_mirrored(first_row - rim + j, ny)], out[j]
        start = first_column - rim
        to[before:after] = row[start + before : start + after]
        for i in range(before):
            to[i] = row[_mirrored(start + i, nx)]
        for i in range(after, len(to)):
            to[i] = row[_mirrored(start + i, nx)]


@compiled
def _inside(start: int, number: int, size: int) -> tuple[int, int]:
    """First and last, exclusive, of some places in a row from `start` on that are on an axis."""
    before = min(max(0, -start), number)
    return before, max(before, min(number, size - start))


@compiled
def _mirrored(k: int, size: int) -> int:
    k = abs(k)
    if k >= size:
        k = 2 * size - 2 - k
    return min(max(k, 0), size - 1)


@compiled
def add_term(
    piece: Image, term: int, rim: int, tile: tuple[int, int, int, int], out: Image
) -> None:
    """Add a tile times one monomial of the position to an image.

    Parameters
    ----------
    piece : ndarray
        The tile with a rim before it.
    term : int
        Which of `pipeline.exposure.polynomial_terms`, up to the second degree; the first one
        overwrites.
    rim : int, pixel
        Width of the rim.
    tile : tuple of int
        First and last row, first and last column of the tile in the image, ends excluded.
    out : ndarray, (ny, nx)
        The sum.
    """
    one, two = np.float32(1.0), np.float32(2.0)
    ny, nx = out.shape
    scale, power = two / np.float32(max(nx - 1, 1)), 2 if term == 3 else int(term in (1, 4))
    for y in range(tile[0], tile[1]):
        v = two * np.float32(y) / np.float32(max(ny - 1, 1)) - one
        factor = v * v if term == 5 else v if term == 2 or term == 4 else one
        row = piece[rim + y - tile[0], rim : rim + tile[3] - tile[2]]
        to = out[y, tile[2] : tile[3]]
        start = np.float32(tile[2])
        if term == 0:
            to[:] = row
        elif power == 0:
            for i in range(len(row)):
                to[i] += factor * row[i]
        elif power == 1:
            for i in range(len(row)):
                to[i] += factor * (scale * (start + np.float32(i)) - one) * row[i]
        else:
            for i in range(len(row)):
                u = scale * (start + np.float32(i)) - one
                to[i] += factor * (u * u) * row[i]


@compiled
def weigh(
    flux: Image,
    variance: Image,
    usable: npt.NDArray[np.uint8],
    first_row: int,
    first_column: int,
    rim: int,
    planes: Image,
) -> np.float32:
    """Inverse variances of usable pixels of a tile, and fluxes times them.

    Parameters
    ----------
    flux, variance : ndarray, (ny, nx)
        The whole images, mirrored at their edges.
    usable : ndarray, (ny, nx)
        Zero where a pixel does not count.
    first_row, first_column : int
        Where the tile begins.
    rim : int, pixel
        Width of the rim before the tile.
    planes : ndarray, (2, rows, columns)
        Becomes weighted flux and weight, both relative to the largest weight.

    Returns
    -------
    numpy.float32
        The largest weight; zero if nothing is usable.
    """
    ny, nx = flux.shape
    rows, columns = planes.shape[1:]
    start, highest = first_column - rim, np.zeros(columns, np.float32)
    before, after = _inside(start, columns, nx)
    for j in range(rows):
        y = _mirrored(first_row - rim + j, ny)
        whole, part = slice(start + before, start + after), slice(before, after)
        _weigh_row(flux[y, whole], variance[y, whole], usable[y, whole], planes[:, j, part])
        for k in range(before + columns - after):
            i = k if k < before else after + k - before
            x = _mirrored(start + i, nx)
            one = slice(x, x + 1)
            _weigh_row(flux[y, one], variance[y, one], usable[y, one], planes[:, j, i : i + 1])
        _raise(highest, planes[1, j])
    largest = max(highest)
    if largest > 0.0:
        scale = np.float32(1.0) / largest
        for j in range(rows):
            for i in range(columns):
                planes[0, j, i] *= scale
                planes[1, j, i] *= scale
    return largest


@compiled
def _weigh_row(flux: Image, variance: Image, usable: npt.NDArray[np.uint8], planes: Image) -> None:
    """Weighted fluxes and weights, (2, n), of pixels of a row."""
    zero, one = np.float32(0.0), np.float32(1.0)
    weighted, weights = planes[0], planes[1]
    for i in range(len(flux)):  # no branches: this becomes vectors
        good = usable[i] != 0
        w = one / variance[i]
        weights[i] = w if good else zero
        weighted[i] = w * flux[i] if good else zero


@compiled
def _raise(highest: Image, row: Image) -> None:
    """Put the larger one of each pair in place."""
    for i in range(len(highest)):
        highest[i] = row[i] if row[i] > highest[i] else highest[i]


@compiled
def normalise(
    sums: Image,
    norms: Image,
    weights: Image,
    rim: int,
    share: float,
    typical: float,
    scale: float,
    first_row: int,
    first_column: int,
    out: Image,
) -> None:
    """Turn weighted sums of a tile into a score.

    Parameters
    ----------
    sums : ndarray, (>= rows, >= columns)
        Σ w P D, the tile at the origin.
    norms : ndarray, (rows, columns)
        Σ w P².
    weights : ndarray
        w with a rim before the tile; zero where a pixel does not count.
    rim : int, pixel
        Width of the rim.
    share : float
        Part of Σ P² that has to be there: with the weight of the pixel itself, for on a bright
        star all weights are small, and with no more than the typical one.
    typical : float
        Typical weight.
    scale : float
        What the weights are relative to.
    first_row, first_column : int
        Where the tile begins.
    out : ndarray, (ny, nx)
        Becomes the score there; zero where there is too little.
    """
    rows, columns = norms.shape
    root, part, most = np.sqrt(np.float32(scale)), np.float32(share), np.float32(typical)
    zero = np.float32(0.0)
    for j in range(rows):
        sum_row, norm_row = sums[j, :columns], norms[j]
        weight_row = weights[rim + j, rim : rim + columns]
        to = out[first_row + j, first_column : first_column + columns]
        for i in range(columns):
            w = weight_row[i]
            limit = part * (min(w, most) if w > zero else most)
            value = sum_row[i] / np.sqrt(max(norm_row[i], limit)) * root
            to[i] = value if norm_row[i] > limit else zero
