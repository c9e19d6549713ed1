"""What a static scene leaves in a difference, as noise of the score.

The null hypothesis of a detection is "nothing has changed", not "nothing is there".  A constant
star leaves the noise of its photons, which the source-free variance contains, and

* dipoles δ · ∇T at its stars, with T the score of the scene itself: the images are not registered
  exactly, for turbulence, differential chromatic refraction and the WCS move stars by δ (Zackay,
  Ofek & Gal-Yam 2016, ApJ 830, 27, eq. 25 to 33);
* rings r of the wings of bright stars, where kernel and PSF end.

The covariance C of δ is measured from the constant stars of the image, the rings round every
bright star, both by order statistics and bounded.  They add to the variance of the score,

    S_corr = S / √(1 + ∇Tᵀ C ∇T + r²),

the first near those stars alone whose score a shift explains: what is left of S after the best δ
must not reach the threshold of detection or half of the highest S.  A star that varies, or has a
transient beside it, does not look shifted and keeps its score, as do galaxies, which are too smooth
for shifts to leave much, and all that shines where the template shows nothing, to the bit.  No
share of the flux of a star counts as noise, since it could not be told from a variable.  T comes
from the template alone: the light of a transient never adds to its own noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled, pixel
from pipeline.exposure import FloatArray, GridPsf, Image, Mask, Psf
from pipeline.masks import UNCLEAN, bits
from pipeline.psfphot import fwhm
from pipeline.statistics import mad_std
from pipeline.subtract.rings import count_rings
from pipeline.subtract.score import score
from pipeline.subtract.stamps import resized
from pipeline.subtract.whitened import Whitened

__all__ = [
    "FAINTEST",
    "Filter",
    "Scene",
    "SceneNoise",
    "count_scene",
    "measure_scene",
    "point_sources",
]

FAINTEST = 30.0
"""Score of a star below which it leaves too little to count."""

_SHARPEST_GALAXY = 0.9
"""Curvature of a peak over that of a star of the same score: what is broader is resolved, and
leaves less, since shifts act on its gradient and errors of the PSF on its sharpness."""

_NEAR_STAR = 2.5
"""How far from a star its residual is counted, in FWHM."""

_STARS = (100.0, 5000.0)
"""Scores of the stars by which the match of the images is measured."""

_FEWEST = 10
_BISECTIONS = 40
_HALF = 3
_MOST_SHIFT = 0.1
"""Largest registration error that is believed, standard deviation along any axis, pixel: 20 to
26 mas on pixels of 0.2 to 0.26 arcsec, as turbulence and refraction leave."""

_FARTHEST = 4.0
"""Largest shift of one star, in standard deviations of the registration."""

_TOLERANCE = 5.0, 0.5
"""What a shift may leave of the score near a star that explains it: the threshold of detection, and
a share of the highest score, for shifts are taken to first order and profiles from the template."""

_REACH = 5
"""Half width, in pixels, of the filter of what shifts leave."""

_TAIL = 0.9
_SIGMAS_AT_TAIL = 1.6448536  # Φ⁻¹(0.95): 90 % of Gaussian deviates are nearer
_UNCLEAN = bits(*UNCLEAN)


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
    sharpness : float, 1 / pixel²
        Least curvature of the score of a star over its peak.
    reach : float, pixel
        How far from a star its residual is counted.
    """

    light: Image
    variance: Image
    usable: npt.NDArray[np.uint8]
    stamp: npt.NDArray[np.float32]
    ratio: float
    sharpness: float
    reach: float

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
        steep = _SHARPEST_GALAXY * _sharpness(stamp)
        return cls(light, variance, usable, middle, ratio, steep, _NEAR_STAR * float(fwhm(stamp)))


@dataclass(frozen=True, slots=True)
class SceneNoise:
    """How well constant stars vanish from a difference.

    Attributes
    ----------
    covariance : tuple of float, pixel²
        C of the registration: xx, yy, xy.
    stars : int
        Stars that tell it.
    shifts : ndarray, (n, 5), pixel
        Of all stars that were measured, see `pipeline.exposure.Difference.star_shifts`.
    """

    covariance: tuple[float, float, float] = (0.0, 0.0, 0.0)
    stars: int = 0
    shifts: FloatArray = field(default_factory=lambda: np.empty((0, 5)), compare=False)

    @property
    def metrics(self) -> dict[str, float]:
        """Numbers for the metrics of a difference; shifts in pixels along one axis."""
        xx, yy, _ = self.covariance
        return {
            "astrometricNoise": float(np.sqrt((xx + yy) / 2.0)),
            "astrometricNoiseX": float(np.sqrt(xx)),
            "astrometricNoiseY": float(np.sqrt(yy)),
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

    @property
    def _saturated(self) -> npt.NDArray[np.bool_]:
        """Whether the pixel at the centre of a star is not usable."""
        x, y = np.rint(self.stars).astype(int).reshape(-1, 2).T
        ny, nx = self.usable.shape
        return np.asarray(self.usable[np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)] == 0)

    def count(
        self, significance: Image, difference: Whitened, psf: Psf, tile: int
    ) -> tuple[Image, SceneNoise]:
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
        noise : SceneNoise
            How well constant stars vanish.
        """
        psfs = (psf, difference.psf)
        response = Filter.of(self.light, difference.null_variance, self.usable, psfs)
        scene = score(self.light, difference.null_variance, self.usable, difference.psf, tile)
        scene *= np.float32(response.ratio)
        stars = point_sources(scene, response)
        noise = measure_scene(significance, scene, response, difference.mask, stars)
        scale = count_scene(significance, scene, response, stars, noise)
        count_rings(significance, scale, scene, self.usable, self.stars, self._saturated)
        return scale, noise


def _sharpness(stamp: FloatArray) -> float:
    """Curvature of the autocorrelation of a PSF over its peak, mean of the axes, per pixel²."""
    beside = (stamp[1:] * stamp[:-1]).sum() + (stamp[:, 1:] * stamp[:, :-1]).sum()
    return float(2.0 - beside / (stamp**2).sum())


def point_sources(scene: Image, response: Filter) -> npt.NDArray[np.int64]:
    """Find the stars of a scene: peaks that fall off as steeply as the PSF makes them.

    Parameters
    ----------
    scene : ndarray, (ny, nx)
        T, the score that the scene would have if the template were empty.
    response : Filter
        Filter of the scene.

    Returns
    -------
    ndarray, (n, 2), pixel
        Rows and columns of their peaks.
    """
    return _point_sources(scene, FAINTEST, response.sharpness, _HALF)


def measure_scene(
    significance: Image,
    scene: Image,
    response: Filter,
    mask: Mask,
    stars: npt.NDArray[np.int64],
) -> SceneNoise:
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
    stars : ndarray, (n, 2), pixel
        Of `point_sources`.

    Returns
    -------
    SceneNoise
        Zero where too few stars tell.
    """
    table = _shifts(significance, scene, response, mask, stars, _STARS, _UNCLEAN, _HALF)
    if len(table) < _FEWEST:
        return SceneNoise(shifts=table)
    return SceneNoise(_covariance(*table[:, 2:].T), len(table), table)


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
    significance: Image,
    scene: Image,
    response: Filter,
    stars: npt.NDArray[np.int64],
    noise: SceneNoise,
) -> npt.NDArray[np.float32]:
    """Divide a score by its noise with what stars leave near them, in place.

    Parameters
    ----------
    significance, scene, response, stars
        As in `measure_scene`.
    noise : SceneNoise
        What constant stars leave.

    Returns
    -------
    ndarray, (ny, nx)
        What the score was divided by: one where no star is near that looks shifted.
    """
    return _count(significance, scene, response, stars, noise.covariance, _TOLERANCE)


@compiled
def _shifted(response: Filter, y: int, x: int) -> tuple[float, float]:
    """Score that shifts of the scene by a pixel along x and y leave in a pixel."""
    light, variance, usable, stamp, ratio = response[:5]
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
def _point_sources(
    scene: Image, faintest: float, sharpness: float, half: int
) -> npt.NDArray[np.int64]:
    """Pixels (n, 2), y and x, of the peaks of a scene that fall off as steeply as stars."""
    ny, nx = scene.shape
    found = [np.int64(0) for _ in range(0)]
    for y in range(half, ny - half):
        for x in range(half, nx - half):
            peak = scene[y, x]
            if not peak > faintest or _curvature(scene, y, x) < sharpness * peak:
                continue
            highest = True
            for j in range(y - half, y + half + 1):
                for i in range(x - half, x + half + 1):
                    highest &= scene[j, i] <= peak
            if highest:
                found.append(np.int64(y * nx + x))
    out = np.empty((len(found), 2), np.int64)
    for k in range(len(found)):
        out[k] = found[k] // nx, found[k] % nx
    return out


@compiled
def _curvature(scene: Image, y: int, x: int) -> float:
    """Mean second derivative of a scene along the axes, with the sign of a peak, per pixel²."""
    around = scene[y, x - 1] + scene[y, x + 1] + scene[y - 1, x] + scene[y + 1, x]
    return float(2.0 * scene[y, x] - 0.5 * around)


@compiled
def _shifts(
    significance: Image,
    scene: Image,
    response: Filter,
    mask: Mask,
    places: npt.NDArray[np.int64],
    peaks: tuple[float, float],
    unclean: np.uint32,
    half: int,
) -> FloatArray:
    """Fit what is left of stars by their own score and its gradient.

    Returns
    -------
    ndarray, (n, 5)
        Places, shifts along x and y in pixels and their variance by noise; without the stars that
        tell nothing.
    """
    ny, nx = scene.shape
    out = np.empty((len(places), 5))
    n, rim = 0, half + 2
    for k in range(len(places)):
        y, x = places[k]
        peak, flags = scene[y, x], np.uint32(0)
        if not (peaks[0] < peak < peaks[1] and rim <= y < ny - rim and rim <= x < nx - rim):
            continue
        for j in range(y - half, y + half + 1):
            for i in range(x - half, x + half + 1):
                flags |= mask[j, i]
        if flags & unclean:
            continue
        out[n, 0], out[n, 1] = x, y
        # what lies farther along x leaves minus the gradient along x
        out[n, 2:4] = -_fit(significance, scene, response, y, x, half)[1:]
        out[n, 4] = 1.0 / (peak * _curvature(scene, y, x))
        n += 1
    return out[:n]


@compiled
def _fit(
    significance: Image, scene: Image, response: Filter, y: int, x: int, half: int
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
def _count(
    significance: Image,
    scene: Image,
    response: Filter,
    places: npt.NDArray[np.int64],
    covariance: tuple[float, float, float],
    tolerance: tuple[float, float],
) -> npt.NDArray[np.float32]:
    """Noise of a score with what stars leave in the pixels near them; divides the score by it."""
    ny, nx = scene.shape
    xx, yy, xy = covariance
    out, n = np.ones((ny, nx), np.float32), pixel(response.reach)
    slopes = np.empty((2, 2 * n + 1, 2 * n + 1))
    for k in range(len(places)):
        v, u = places[k]
        _slopes(scene, response, v, u, slopes)
        if not _looks_shifted(significance, v, u, slopes, covariance, tolerance):
            continue
        for y in range(max(0, v - n), min(ny, v + n + 1)):
            for x in range(max(0, u - n), min(nx, u + n + 1)):
                dx, dy = slopes[0, y - v + n, x - u + n], slopes[1, y - v + n, x - u + n]
                noise = np.sqrt(1.0 + xx * dx * dx + yy * dy * dy + 2.0 * xy * dx * dy)
                out[y, x] = max(out[y, x], noise)
    significance /= out
    return out


@compiled
def _slopes(scene: Image, response: Filter, v: int, u: int, out: FloatArray) -> None:
    """Fill in what shifts along x and y leave near a star; zero beyond its reach."""
    out[:] = 0.0
    n = out.shape[1] // 2
    for y in range(max(0, v - n), min(scene.shape[0], v + n + 1)):
        for x in range(max(0, u - n), min(scene.shape[1], u + n + 1)):
            if (y - v) ** 2 + (x - u) ** 2 <= response.reach**2:
                out[:, y - v + n, x - u + n] = _shifted(response, y, x)


@compiled
def _looks_shifted(
    significance: Image,
    v: int,
    u: int,
    slopes: FloatArray,
    covariance: tuple[float, float, float],
    tolerance: tuple[float, float],
) -> bool:
    """Whether a shift of a star explains its score, but for `tolerance`: least, and a share."""
    n = slopes.shape[1] // 2
    dx, dy = _shift(significance, v, u, slopes)
    xx, yy, xy = covariance
    determinant = xx * yy - xy * xy
    if determinant <= 0.0:
        return False
    far = np.sqrt((yy * dx * dx + xx * dy * dy - 2.0 * xy * dx * dy) / determinant)
    if far > _FARTHEST:
        dx, dy = dx * _FARTHEST / far, dy * _FARTHEST / far
    highest, left = 0.0, 0.0
    for y in range(max(0, v - n), min(significance.shape[0], v + n + 1)):
        for x in range(max(0, u - n), min(significance.shape[1], u + n + 1)):
            gx, gy = slopes[0, y - v + n, x - u + n], slopes[1, y - v + n, x - u + n]
            if gx != 0.0 or gy != 0.0:
                highest = max(highest, abs(significance[y, x]))
                left = max(left, abs(significance[y, x] - dx * gx - dy * gy))
    return left <= max(tolerance[0], tolerance[1] * highest)


@compiled
def _shift(significance: Image, v: int, u: int, slopes: FloatArray) -> tuple[float, float]:
    """Least squares of the score near a star by what shifts leave."""
    n = slopes.shape[1] // 2
    xx, yy, xy, x0, y0 = 0.0, 0.0, 0.0, 0.0, 0.0
    for y in range(max(0, v - n), min(significance.shape[0], v + n + 1)):
        for x in range(max(0, u - n), min(significance.shape[1], u + n + 1)):
            gx, gy, s = (
                slopes[0, y - v + n, x - u + n],
                slopes[1, y - v + n, x - u + n],
                significance[y, x],
            )
            xx, yy, xy = xx + gx * gx, yy + gy * gy, xy + gx * gy
            x0, y0 = x0 + gx * s, y0 + gy * s
    determinant = xx * yy - xy * xy
    if determinant <= 0.0:
        return 0.0, 0.0
    return (yy * x0 - xy * y0) / determinant, (xx * y0 - xy * x0) / determinant
