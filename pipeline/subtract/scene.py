"""What a static scene leaves in a difference, as noise of the score.

The null hypothesis of a detection is "nothing has changed", not "nothing is there".  A constant
star leaves the noise of its photons, which the source-free variance contains, and

* a dipole δ · ∇T, with T the score of the star itself: the images are not registered exactly, for
  turbulence, differential chromatic refraction and the WCS move stars by δ (Zackay, Ofek & Gal-Yam
  2016, ApJ 830, 27, eq. 25 to 33);
* a share s T of its flux, from errors of the PSF and of the matching kernel;
* rings r of its wings, where kernel and PSF end.

The covariance C of δ and the shares are measured from the constant stars of the image, the rings
round every bright star, all by order statistics and bounded.  They add to the variance of the
score,

    S_corr = S / √(1 + ∇Tᵀ C ∇T + (s T)² + r²),

and where the template shows nothing the score stays what it is, to the bit.  T comes from the
template alone: the light of a transient never adds to its own noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled, pixel
from pipeline.exposure import FloatArray, GridPsf, Image, Mask, Psf
from pipeline.masks import UNCLEAN, bits
from pipeline.statistics import MAD_TO_SIGMA, mad_std
from pipeline.subtract.score import score
from pipeline.subtract.stamps import resized
from pipeline.subtract.whitened import Whitened

__all__ = [
    "FAINTEST",
    "Filter",
    "Scene",
    "SceneNoise",
    "count_rings",
    "count_scene",
    "measure_scene",
]

FAINTEST = 10.0
"""Score of a scene below which it leaves too little to count."""

_STARS = (100.0, 5000.0)
"""Scores of the stars that tell how well the images match."""

_FEWEST = 10
_BISECTIONS = 40
_HALF = 3
_MOST_STARS = 4000
_MOST_SHIFT = 0.15
"""Largest registration error that is believed, standard deviation along any axis, pixel: 30 to
40 mas on pixels of 0.2 to 0.26 arcsec, as turbulence and refraction leave at high airmass."""

_MOST_SHARE = 0.01
_MOST_INEXACT = 0.03
"""Largest shares of the flux of a star that may be left, in general and with the PSF that the
template declares where some of its inputs are missing: photometry is no worse than that."""

_MOST_RING = 0.3
"""Largest share of the light of a star's wings that may be left in a ring: what varies by half and
outshines the wings three times is seen."""

_NEAR = 4
"""How far, in pixels, missing inputs make themselves felt."""

_REACH = 5
"""Half width, in pixels, of the filter of what shifts leave."""

_RING, _RINGS = 3.0, 16
"""Width of the rings, in pixels, and their number."""

_BEAM = 30.0
"""Pixels that share one independent value of the score."""

_MOST_RINGED = 500
_TAIL = 0.9
_SIGMAS_AT_TAIL = 1.6448536  # Φ⁻¹(0.95): 90 % of Gaussian deviates are nearer
_RING_TAIL = 0.8  # a variable covers less than a fifth of a ring
_SIGMAS_AT_RING_TAIL = 1.2815516  # Φ⁻¹(0.9)
_UNCLEAN = bits(*UNCLEAN)
_INEXACT = bits("INEXACT_PSF", "CLIPPED", "REJECTED")


class Filter(NamedTuple):
    """What is needed to filter the scene.

    Attributes
    ----------
    light, variance : ndarray, (ny, nx)
        Light of the scene and the source-free variance of the difference.
    usable : ndarray of uint8, (ny, nx)
        Pixels that count.
    stamp : ndarray, (side, side)
        Middle of the PSF of the difference, which has unit sum.
    ratio : float
        Score of a star over that of its image with the PSF of the scene.
    """

    light: Image
    variance: Image
    usable: npt.NDArray[np.uint8]
    stamp: npt.NDArray[np.float32]
    ratio: float

    @classmethod
    def of(
        cls, light: Image, variance: Image, usable: npt.NDArray[np.uint8], psfs: tuple[Psf, GridPsf]
    ) -> Filter:
        """Take the PSFs of scene and difference in the middle of the image.

        The scene is not whitened, which widens its stars a little; by `ratio` their peaks become
        right.
        """
        x, y = (light.shape[1] - 1) / 2, (light.shape[0] - 1) / 2
        stamp = psfs[1].stamps(x, y)[0] / psfs[1].stamps(x, y).sum()
        ours = resized(np.asarray(psfs[0].stamps(x, y), float), len(stamp))[0]
        ratio = float((stamp**2).sum() * ours.sum() / (stamp * ours).sum())
        middle = resized(stamp[None], 2 * _REACH + 1)[0].astype(np.float32)
        return cls(light, variance, usable, middle, ratio)


@dataclass(frozen=True, slots=True)
class SceneNoise:
    """How well constant stars vanish from a difference.

    Attributes
    ----------
    covariance : tuple of float, pixel²
        C of the registration: xx, yy, xy.
    share, inexact : float
        Shares of the flux that are left: of stars, and of stars where inputs of the template are
        missing.
    stars : int
        Stars that tell them.
    """

    covariance: tuple[float, float, float] = (0.0, 0.0, 0.0)
    share: float = 0.0
    inexact: float = 0.0
    stars: int = 0

    @property
    def metrics(self) -> dict[str, float]:
        """Numbers for the metrics of a difference; shifts in pixels along one axis."""
        xx, yy, _ = self.covariance
        return {
            "astrometricNoise": float(np.sqrt((xx + yy) / 2.0)),
            "astrometricNoiseX": float(np.sqrt(xx)),
            "astrometricNoiseY": float(np.sqrt(yy)),
            "residualFraction": self.share,
            "residualFractionInexact": self.inexact,
            "sceneStars": float(self.stars),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The static scene of a difference.

    Attributes
    ----------
    light : ndarray, (ny, nx)
        Light of the matched template above its sky, in the unit of the difference.
    usable : ndarray of uint8, (ny, nx)
        Pixels that count.
    stars : ndarray, (n, 2), pixel
        Centres x and y of the stars whose wings may show, the brightest first.
    """

    light: Image
    usable: npt.NDArray[np.uint8]
    stars: FloatArray

    def count(
        self, significance: Image, difference: Whitened, psf: Psf, tile: int
    ) -> tuple[Image, dict[str, float]]:
        """Divide a score by the noise of a constant scene, in place.

        Parameters
        ----------
        significance : ndarray, (ny, nx)
            The score.
        difference : Whitened
            What it is the score of.
        psf : Psf
            Of the science image.
        tile : int, pixel
            Size of the tiles of the score.

        Returns
        -------
        noise_scale : ndarray, (ny, nx)
            What the score was divided by.
        metrics : dict
            Of `SceneNoise`.
        """
        psfs = (psf, difference.psf)
        response = Filter.of(self.light, difference.null_variance, self.usable, psfs)
        scene = score(self.light, difference.null_variance, self.usable, difference.psf, tile)
        scene *= np.float32(response.ratio)
        noise = measure_scene(significance, scene, response, difference.mask)
        scale = count_scene(significance, scene, response, difference.mask, noise)
        count_rings(significance, scale, scene, self.usable, self.stars)
        return scale, noise.metrics


def measure_scene(significance: Image, scene: Image, response: Filter, mask: Mask) -> SceneNoise:
    """Measure what constant stars leave.

    Parameters
    ----------
    significance : ndarray, (ny, nx)
        Score of the difference.
    scene : ndarray, (ny, nx)
        T, the score that the scene would have if the template were empty.
    response : Filter
        Filter of the scene.
    mask : ndarray, (ny, nx), uint32
        Mask of the difference.

    Returns
    -------
    SceneNoise
        Zero where too few stars tell.
    """
    table = _stars(
        significance, scene, response, mask, _STARS, (_UNCLEAN, _INEXACT), _HALF, _MOST_STARS
    )
    inexact = table[:, 5] > 0
    clean = table[~inexact]
    if len(clean) < _FEWEST:
        return SceneNoise()
    share, lost = (
        float(np.sqrt(_excess(stars[:, 1], stars[:, 0] ** -2.0)))
        for stars in (clean, table[inexact])
    )
    return SceneNoise(
        _covariance(clean[:, 2], clean[:, 3], clean[:, 4]),
        share=min(share, _MOST_SHARE),
        inexact=min(max(lost, share), _MOST_INEXACT),
        stars=len(table),
    )


def _width(values: FloatArray) -> float:
    """Return a standard deviation about zero, of the core or of nine values of ten if wider."""
    tail = float(np.quantile(np.abs(values), _TAIL)) / _SIGMAS_AT_TAIL
    return max(mad_std(values, 0.0), tail)


def _excess(values: FloatArray, noise: FloatArray) -> float:
    """Variance beyond that of the noise, by bisection; zero where noise explains the scatter."""
    if len(values) < _FEWEST or _width(values / np.sqrt(noise)) < 1.0 + 2.0 / np.sqrt(len(values)):
        return 0.0
    low, high = 0.0, float(np.max(values**2))
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if _width(values / np.sqrt(noise + middle)) > 1.0:
            low = middle
        else:
            high = middle
    return high


def _covariance(dx: FloatArray, dy: FloatArray, noise: FloatArray) -> tuple[float, float, float]:
    """Robust covariance of shifts beyond their noise, no wider than is believed."""
    xx, yy = _excess(dx, noise), _excess(dy, noise)
    xy = (_excess(dx + dy, 2.0 * noise) - _excess(dx - dy, 2.0 * noise)) / 4.0
    limit = 0.95 * float(np.sqrt(xx * yy))
    xy = min(max(xy, -limit), limit)
    widest = (xx + yy) / 2.0 + float(np.hypot((xx - yy) / 2.0, xy))
    scale = min(1.0, _MOST_SHIFT**2 / widest) if widest > 0.0 else 1.0
    return xx * scale, yy * scale, xy * scale


def count_scene(
    significance: Image, scene: Image, response: Filter, mask: Mask, noise: SceneNoise
) -> npt.NDArray[np.float32]:
    """Divide a score by its noise with what stars leave, in place.

    Parameters
    ----------
    significance, scene, response, mask
        As in `measure_scene`.
    noise : SceneNoise
        What constant stars leave.

    Returns
    -------
    ndarray, (ny, nx)
        What the score was divided by: one where the template shows nothing.
    """
    shares = (noise.share, noise.inexact)
    return _count(
        significance, scene, response, mask, FAINTEST, noise.covariance, shares, _INEXACT, _NEAR
    )


def count_rings(
    significance: Image,
    scale: npt.NDArray[np.float32],
    scene: Image,
    usable: npt.NDArray[np.uint8],
    stars: FloatArray,
) -> None:
    """Divide a score by its noise with what is left of the wings of bright stars, in place.

    Parameters
    ----------
    significance : ndarray, (ny, nx)
        Score of the difference, divided by `scale`.
    scale : ndarray, (ny, nx)
        What it was divided by; multiplied by what it is divided by here.
    scene : ndarray, (ny, nx)
        As in `measure_scene`.
    usable : ndarray of uint8, (ny, nx)
        Pixels that count.
    stars : ndarray, (n, 2), pixel
        Centres x and y, the brightest first.
    """
    ring = np.zeros(significance.shape, np.float32)
    for x, y in stars[:_MOST_RINGED]:
        _ring_noise(significance, scale, scene, usable, x, y, ring)
    _divide(significance, scale, ring)


@compiled
def _ring_noise(
    significance: Image,
    scale: npt.NDArray[np.float32],
    scene: Image,
    usable: npt.NDArray[np.uint8],
    x: float,
    y: float,
    out: npt.NDArray[np.float32],
) -> None:
    """Noise of the score in the rings round a star; where rings of stars meet, the larger one."""
    (ny, nx), reach = scene.shape, _RING * _RINGS
    y0, y1 = max(0, pixel(y - reach)), min(ny, pixel(y + reach) + 2)
    x0, x1 = max(0, pixel(x - reach)), min(nx, pixel(x + reach) + 2)
    size = max(0, y1 - y0) * max(0, x1 - x0)
    ring, count = np.full(size, -1), np.zeros(_RINGS, np.int64)
    values = np.empty((_RINGS, 3, int(8.0 * _RING * reach)))
    for k in range(size):
        j, i = y0 + k // (x1 - x0), x0 + k % (x1 - x0)
        n = int(np.sqrt((i - x) ** 2 + (j - y) ** 2) / _RING)
        if n >= _RINGS:
            continue
        ring[k] = n
        if usable[j, i]:
            values[n, :, count[n]] = abs(significance[j, i]), scale[j, i], scene[j, i]
            count[n] += 1
    level = np.zeros(_RINGS)
    for n in range(1, _RINGS):  # the star itself may vary
        if count[n] > 0:
            level[n] = _ring_level(values[n, :, : count[n]])
    for k in range(size):
        j, i = y0 + k // (x1 - x0), x0 + k % (x1 - x0)
        if ring[k] >= 0:
            out[j, i] = max(out[j, i], level[ring[k]])


@compiled
def _ring_level(values: FloatArray) -> float:
    """Noise that explains the scores of a ring (3, n: |score|, scale, light), within the bound."""
    core, tail = np.median(values[0]) * MAD_TO_SIGMA, np.quantile(values[0], _RING_TAIL)
    width = max(core, tail / _SIGMAS_AT_RING_TAIL)
    if width < 1.0 + 2.0 / np.sqrt(values.shape[1] / _BEAM):
        return 0.0
    noise = np.sqrt(width * width - 1.0) * np.median(values[1])
    return float(max(0.0, min(noise, _MOST_RING * np.median(values[2]))))


@compiled
def _divide(significance: Image, scale: npt.NDArray[np.float32], ring: Image) -> None:
    """Add the noise of rings to that of the score."""
    one = np.float32(1.0)
    for y in range(ring.shape[0]):
        for x in range(ring.shape[1]):
            if ring[y, x] > 0.0:
                factor = np.sqrt(one + (ring[y, x] / scale[y, x]) ** 2)
                significance[y, x] /= factor
                scale[y, x] *= factor


@compiled
def _shifted(response: Filter, y: int, x: int) -> tuple[float, float]:
    """Score that shifts of the scene by a pixel along x and y leave in a pixel."""
    light, variance, usable, stamp, ratio = response
    along_x, along_y, norm = 0.0, 0.0, 0.0
    rows = range(max(1, y - _REACH), min(light.shape[0] - 1, y + _REACH + 1))
    columns = range(max(1, x - _REACH), min(light.shape[1] - 1, x + _REACH + 1))
    for j in rows:
        for i in columns:
            if usable[j, i]:
                p = stamp[j - y + _REACH, i - x + _REACH]
                w = p / variance[j, i]
                along_x += w * (light[j, i + 1] - light[j, i - 1])
                along_y += w * (light[j + 1, i] - light[j - 1, i])
                norm += p * w
    if norm <= 0.0:
        return 0.0, 0.0
    factor = 0.5 * ratio / np.sqrt(norm)
    return factor * along_x, factor * along_y


@compiled
def _stars(
    significance: Image,
    scene: Image,
    response: Filter,
    mask: Mask,
    peaks: tuple[float, float],
    planes: tuple[np.uint32, np.uint32],
    half: int,
    most: int,
) -> FloatArray:
    """Fit what is left of stars by their own score and its gradient.

    Returns
    -------
    ndarray, (n, 6)
        Peak T, share a, shifts along x and y in pixels, the variance of the shifts by noise, and
        whether inputs are missing.
    """
    ny, nx = scene.shape
    out = np.empty((most, 6))
    n, rim = 0, half + 2
    for y in range(rim, ny - rim):
        for x in range(rim, nx - rim):
            peak = scene[y, x]
            if not (peaks[0] < peak < peaks[1]) or n == most:
                continue
            flags, highest = np.uint32(0), True
            for j in range(y - half, y + half + 1):
                for i in range(x - half, x + half + 1):
                    flags |= mask[j, i]
                    highest &= scene[j, i] <= peak
            if not highest or flags & planes[0]:
                continue
            around = scene[y, x - 1] + scene[y, x + 1] + scene[y - 1, x] + scene[y + 1, x]
            curvature = 2.0 * peak - 0.5 * around
            if curvature <= 0.0:
                continue
            fit = _fit(significance, scene, response, x, y, half)
            out[n, 0], out[n, 1:4], out[n, 4] = peak, fit, 1.0 / (peak * curvature)
            out[n, 5] = 1.0 if flags & planes[1] else 0.0
            n += 1
    return out[:n]


@compiled
def _fit(
    significance: Image, scene: Image, response: Filter, x: int, y: int, half: int
) -> FloatArray:
    """Least squares of a score by the scene's and what shifts of it leave, in a box."""
    matrix, vector, term = np.zeros((3, 3)), np.zeros(3), np.empty(3)
    for j in range(y - half, y + half + 1):
        for i in range(x - half, x + half + 1):
            term[0] = scene[j, i]
            term[1:] = _shifted(response, j, i)
            for a in range(3):
                vector[a] += term[a] * significance[j, i]
                for b in range(3):
                    matrix[a, b] += term[a] * term[b]
    vector[:] = np.linalg.solve(matrix, vector)
    return vector


@compiled
def _blocks(mask: Mask) -> Mask:
    """Bits of blocks of 16 × 16 pixels."""
    ny, nx = mask.shape
    out = np.zeros(((ny + 15) // 16, (nx + 15) // 16), np.uint32)
    for y in range(ny):
        for x in range(nx):
            out[y // 16, x // 16] |= mask[y, x]
    return out


@compiled
def _near(mask: Mask, blocks: Mask, x: int, y: int, wanted: np.uint32, reach: int) -> bool:
    """Whether a pixel within a box round another has one of some bits; blocks spare the search."""
    ny, nx = mask.shape
    some = np.uint32(0)
    for j in range(max(0, y - reach) // 16, min(ny - 1, y + reach) // 16 + 1):
        for i in range(max(0, x - reach) // 16, min(nx - 1, x + reach) // 16 + 1):
            some |= blocks[j, i]
    if not some & wanted:
        return False
    for j in range(max(0, y - reach), min(ny, y + reach + 1)):
        for i in range(max(0, x - reach), min(nx, x + reach + 1)):
            if mask[j, i] & wanted:
                return True
    return False


@compiled
def _count(
    significance: Image,
    scene: Image,
    response: Filter,
    mask: Mask,
    faintest: float,
    covariance: tuple[float, float, float],
    shares: tuple[float, float],
    inexact: np.uint32,
    reach: int,
) -> npt.NDArray[np.float32]:
    """Noise of a score with that of the scene; divides the score by it."""
    ny, nx = scene.shape
    xx, yy, xy = covariance
    out, blocks = np.ones((ny, nx), np.float32), _blocks(mask)
    for y in range(ny):
        for x in range(nx):
            t = np.float64(scene[y, x])
            if not t > faintest:
                continue
            dx, dy = _shifted(response, y, x)
            share = shares[1] if _near(mask, blocks, x, y, inexact, reach) else shares[0]
            shifted = xx * dx * dx + yy * dy * dy + 2.0 * xy * dx * dy
            out[y, x] = np.sqrt(1.0 + shifted + (share * t) ** 2)
            significance[y, x] /= out[y, x]
    return out
