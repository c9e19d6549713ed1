"""Decorrelation: filters that whiten a difference, with its variance and its PSF.

The matched template carries correlated noise.  A filter ψ with

    ψ̂² = (s + t K²) / (s P_s + t P_t |κ̂|²)

makes the noise of ψ ⊗ (N − κ ⊗ R) white and keeps the flux of a source (ψ̂(0) = 1).  s and t are
variances per pixel on large scales, P_s and P_t the noise power of the two images normalised to
P(0) = 1.  See Reiss & Lupton, DMTN-021, for white inputs; the spectra P and the variation of the
filter over the image are ours.

Where the science image N is convolved instead, κ carries its sources to the places of the
template.  A phase of ψ̂ carries them back; it leaves the noise power as it is, but at the highest
frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import fft

from pipeline.exposure import FloatArray, GridPsf, Image, MatchingKernel, Psf
from pipeline.subtract.convolve import centres, fft_size, frequencies, inner, tiles, transform
from pipeline.subtract.excess import NoiseExcess
from pipeline.subtract.pixels import cut
from pipeline.subtract.separable import Separable, correlate

__all__ = [
    "Filters",
    "apply",
    "at_positions",
    "centred",
    "design",
    "mean_power",
    "noise_power",
    "spectra",
]

_GRID = 64
_HALF = 16
_FLOOR = 0.01
"""Least noise power, as a share of that on large scales, that a filter is asked to lift."""


@dataclass(frozen=True, slots=True, eq=False)
class Filters:
    """What every tile of the difference is filtered with.

    Attributes
    ----------
    psi : ndarray, (n, 33, 33)
        Whitening filters, in the order of `tiles`.
    spread : ndarray, (n, 33, 33)
        Squares of ψ ⊗ κ, corrected for correlated noise: kernels for the variance of the
        convolved image.
    target : ndarray, (n,)
        Factor for the variance of the other image.
    x, y : ndarray, (nx,) and (ny,), pixel
        Centres of the tiles.
    """

    psi: FloatArray
    spread: FloatArray
    target: FloatArray
    x: FloatArray
    y: FloatArray

    def psf(self, psf: Psf, kernel: MatchingKernel) -> GridPsf:
        """Point spread function of the difference at the centres of the tiles.

        A source of the science image keeps its flux, but not what of it lies near, see `scaled`.
        """
        x, y = (a.ravel() for a in np.meshgrid(self.x, self.y))
        stamps = psf.stamps(x, y)
        side = max(stamps.shape[-1], 2 * _HALF + 1)
        size = (fft.next_fast_len(side + 2 * _HALF, real=True),) * 2
        product = spectra(stamps, size) * spectra(self.psi, size)
        if kernel.convolved == "science":
            kernels = np.array([kernel.at(u, v) for u, v in zip(x, y, strict=True)])
            product *= spectra(kernels / kernels.sum((1, 2))[:, None, None], size)
        cube = centred(fft.irfft2(product, size), side // 2)
        return GridPsf(cube.reshape(len(self.y), len(self.x), *cube.shape[1:]), self.x, self.y)

    def in_place(self, psf: Psf, kernel: MatchingKernel) -> Filters:
        """Carry the sources of the science image back from where the kernel has moved them.

        The highest frequencies lose some of their noise, at an offset of 0.1 pixel nothing that
        could be measured, at 0.36 pixel 1.6 %; the score does not contain them.
        """
        if kernel.convolved == "template":
            return self
        stars = self.psf(psf, kernel).cube
        stars = stars.reshape(-1, *stars.shape[-2:])
        size = (fft.next_fast_len(stars.shape[-1], real=True),) * 2
        x, y = _offsets(spectra(stars, size), size)
        size = (_GRID, _GRID)
        v, u = frequencies(size)
        back = np.exp(1j * (x[:, None, None] * u + y[:, None, None] * v))
        return replace(self, psi=centred(fft.irfft2(spectra(self.psi, size) * back, size), _HALF))

    def scaled(self, psf: GridPsf) -> tuple[Filters, GridPsf]:
        """Give the PSF unit flux where fluxes are tied, which the filters moved across the edge."""
        k = np.arange(psf.side) - psf.side // 2
        inside = np.hypot(k[:, None], k) <= psf.FLUX_RADIUS
        flux = psf.cube[..., inside].sum(-1)
        one = flux.reshape(-1, 1, 1)
        filters = replace(
            self,
            psi=self.psi / one,
            spread=self.spread / one**2,
            target=self.target / flux.ravel() ** 2,
        )
        return filters, replace(psf, cube=psf.cube / flux[..., None, None])


def design(
    kernel: MatchingKernel,
    powers: dict[str, Image],
    correlations: dict[str, FloatArray | None],
    core: int,
    *,
    whiten: bool = True,
    excess: NoiseExcess | None = None,
) -> Filters:
    """Design the filters of every tile.

    Parameters
    ----------
    kernel : MatchingKernel
        Matching kernel.
    powers : dict
        Coarse median variances, (ty, tx), of ``science`` and ``template``, in the units of their
        variance planes.
    correlations : dict
        Their noise autocovariances, or None for white noise.
    core : int, pixel
        Size of the tiles.
    whiten : bool
        False leaves the noise as it is, ψ = δ.
    excess : NoiseExcess, optional
        Noise beyond that of the two images, to be whitened as well; ψ̂(0) = 1 without it.

    Returns
    -------
    Filters
        One filter per tile.
    """
    shape = kernel.shape
    x, y = centres(shape, core)
    kernels = np.array([kernel.at(u, v) for u, v in zip(x, y, strict=True)])
    source = kernel.convolved
    target = "science" if source == "template" else "template"
    size = (_GRID, _GRID)
    response = np.abs(spectra(kernels, size)) ** 2
    noise = {
        name: at_positions(powers[name], x, y, shape)[:, None, None]
        * noise_power(correlations[name], x, y, shape, size)
        for name in (source, target)
    }
    total = noise[target] + noise[source] * response
    psi, added = _whitening(total, excess) if whiten else (np.ones_like(total), 1.0)
    middle = _GRID // 2 - 1
    matched = centred(fft.irfft2(psi * spectra(kernels, size), size), middle)
    share = mean_power(psi**2 * noise[source] * response, size)
    spread = (matched**2)[
        :, middle - _HALF : middle + _HALF + 1, middle - _HALF : middle + _HALF + 1
    ]
    spread *= (share / at_positions(powers[source], x, y, shape) / spread.sum((1, 2)))[
        :, None, None
    ]
    target_share = mean_power(psi**2 * noise[target], size) / at_positions(
        powers[target], x, y, shape
    )
    return Filters(
        psi=centred(fft.irfft2(psi, size), _HALF),
        spread=spread * np.reshape(added, (-1, 1, 1)),
        target=target_share * added,
        x=np.unique(x),
        y=np.unique(y),
    )


def _whitening(
    total: FloatArray, excess: NoiseExcess | None
) -> tuple[FloatArray, FloatArray | float]:
    """Return filters ψ̂ that whiten a noise power, and by what the excess raises the variance."""
    size = (_GRID, _GRID)
    level = total[:, :1, :1]
    psi = np.sqrt(level / np.maximum(total, _FLOOR * level))
    if excess is None:
        return psi, 1.0
    lifted = 1.0 + excess.power(size)
    power = psi**2 * total
    added = mean_power(power, size) / mean_power(power / lifted, size)
    return psi / np.sqrt(lifted), added


def _offsets(
    stars: npt.NDArray[np.complex128], size: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Offsets of stars from the middle by the slope of the phases of their transforms.

    Least squares over all frequencies, weighted with the power; wings hardly count.

    Parameters
    ----------
    stars : ndarray, (n, ny, nx // 2 + 1)
        Half planes of real transforms; the offsets are a small part of a pixel.
    size : tuple of int, (ny, nx)
        Size of the transforms.

    Returns
    -------
    x, y : ndarray, (n,), pixel
        The offsets.
    """
    v, u = frequencies(size)
    power, phase = np.abs(stars) ** 2, np.angle(stars)
    uu, uv, vv, up, vp = (
        mean_power(power * term, size) for term in (u * u, u * v, v * v, u * phase, v * phase)
    )
    determinant = uu * vv - uv * uv
    return (uv * vp - vv * up) / determinant, (uv * up - uu * vp) / determinant


def apply(
    filters: Filters, difference: Image, source_variance: Image, target_variance: Image, core: int
) -> tuple[Image, Image]:
    """Whiten a difference.

    Parameters
    ----------
    filters : Filters
        From `design`.
    difference : ndarray, (ny, nx)
        Target minus matched source, zero where it is unusable.
    source_variance, target_variance : ndarray, (ny, nx)
        Variances of the convolved and of the other image.
    core : int, pixel
        Size of the tiles.

    Returns
    -------
    image, variance : ndarray, (ny, nx)
        Whitened difference and its variance.
    """
    shape = (int(difference.shape[0]), int(difference.shape[1]))
    size = fft_size(shape, core, _HALF)
    image, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    padded = np.empty(size, np.float32)
    # What a convolution needs the other way round, a correlation takes as it is.
    spread = Separable.of(filters.spread[:, ::-1, ::-1])
    for k, tile in enumerate(tiles(shape, core)):
        place = (tile[0].start, tile[1].start)
        cut(difference, *place, _HALF, padded)
        spectrum = fft.rfft2(padded)
        spectrum *= transform(filters.psi[k], size)
        image[tile] = inner(fft.irfft2(spectrum, size), tile, 2 * _HALF)
        cut(source_variance, *place, _HALF, padded)
        matched = correlate(
            padded, _HALF - spread.half, spread.columns[k], spread.rows[k], variance[tile].shape
        )
        variance[tile] = matched + np.float32(filters.target[k]) * target_variance[tile]
    return image, variance


def spectra(kernels: FloatArray, size: tuple[int, int]) -> npt.NDArray[np.complex128]:
    """Transform centred kernels with their middle at the origin, double precision.

    Parameters
    ----------
    kernels : ndarray, (n, side, side)
        Kernels, side odd.
    size : tuple of int, (ny, nx)
        Size of the transforms.

    Returns
    -------
    ndarray, (n, ny, nx // 2 + 1), complex128
        Half planes of real transforms.
    """
    side = kernels.shape[-1]
    wide = np.zeros((*kernels.shape[:-2], *size))
    wide[..., :side, :side] = kernels
    return np.asarray(fft.rfft2(np.roll(wide, (-(side // 2), -(side // 2)), axis=(-2, -1))))


def centred(kernels: FloatArray, half: int) -> FloatArray:
    """Cut the middle out of kernels whose origin is the first pixel.

    Parameters
    ----------
    kernels : ndarray, (n, ny, nx)
        Periodic kernels.
    half : int, pixel
        Half size of what is cut out.

    Returns
    -------
    ndarray, (n, 2 half + 1, 2 half + 1)
        Origin in the middle.
    """
    rolled = np.roll(kernels, (half, half), axis=(-2, -1))
    return np.ascontiguousarray(rolled[..., : 2 * half + 1, : 2 * half + 1])


def mean_power(half_plane: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Mean over all frequencies of a real spectrum given on the half plane of a real transform.

    Parameters
    ----------
    half_plane : ndarray, (n, ny, nx // 2 + 1)
        Spectra.
    size : tuple of int, (ny, nx)
        Size of the transforms.

    Returns
    -------
    ndarray, (n,)
        Means.
    """
    weight = np.full(half_plane.shape[-1], 2.0)
    weight[0] = 1.0
    if size[1] % 2 == 0:
        weight[-1] = 1.0
    return np.asarray((half_plane * weight).sum((-2, -1)) / (size[0] * size[1]))


def noise_power(
    correlation: FloatArray | None,
    x: FloatArray,
    y: FloatArray,
    shape: tuple[int, int],
    size: tuple[int, int],
) -> FloatArray:
    """Noise power in units of the variance plane.

    Parameters
    ----------
    correlation : ndarray, optional
        Autocorrelation of the noise of the image; None for white noise.
    x, y : ndarray, (n,), pixel
        Positions.
    shape : tuple of int, (ny, nx)
        Size of the image.
    size : tuple of int, (ny, nx)
        Size of the transforms.

    Returns
    -------
    ndarray, (n, ny, nx // 2 + 1)
        One for white noise.
    """
    if correlation is None:
        return np.ones((len(x), size[0], size[1] // 2 + 1))
    row, column = tile_of(np.asarray(correlation).shape, x, y, shape)
    power = spectra(np.asarray(correlation)[row, column], size).real
    return np.maximum(power, 0.0)


def tile_of(
    tiles_shape: tuple[int, ...], x: FloatArray, y: FloatArray, shape: tuple[int, int]
) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Find the tiles of a coarse plane that positions lie in.

    Parameters
    ----------
    tiles_shape : tuple of int, (ty, tx, ...)
        Shape of the coarse plane.
    x, y : ndarray, (n,), pixel
        Positions.
    shape : tuple of int, (ny, nx)
        Size of the image.

    Returns
    -------
    row, column : ndarray of int, (n,)
        Of the tiles.
    """
    row = np.minimum((y * tiles_shape[0] / shape[0]).astype(int), tiles_shape[0] - 1)
    column = np.minimum((x * tiles_shape[1] / shape[1]).astype(int), tiles_shape[1] - 1)
    return row, column


def at_positions(coarse: Image, x: FloatArray, y: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Look up a coarse plane, (ty, tx), at positions in an image of a shape.

    Parameters
    ----------
    coarse : ndarray, (ty, tx), float32
        One value per tile.
    x, y : ndarray, (n,), pixel
        Positions.
    shape : tuple of int, (ny, nx)
        Size of the image.

    Returns
    -------
    ndarray, (n,)
        Values of the tiles that hold the positions.
    """
    row, column = tile_of(coarse.shape, x, y, shape)
    return np.asarray(coarse[row, column], float)
