"""What a static scene leaves in a difference, as noise of the score.

The null hypothesis of a detection is "nothing has changed", not "nothing is there".  A constant
star leaves the noise of its photons, which the source-free variance contains, and

* a dipole δ · ∇T, with T the score of the star itself: the images are not registered exactly, for
  turbulence, differential chromatic refraction and the WCS move stars by δ (Zackay, Ofek & Gal-Yam
  2016, ApJ 830, 27, eq. 25 to 33);
* a share s T of its flux, from errors of the PSF and of the matching kernel.

The covariance C of δ and the shares are measured from the constant stars of the image, by order
statistics, and bounded.  They add to the variance of the score,

    S_corr = S / √(1 + ∇Tᵀ C ∇T + (s T)²),

and where the template shows nothing the score stays what it is, to the bit.  T comes from the
template alone: the light of a transient never adds to its own noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray, GridPsf, Image, Mask, Psf
from pipeline.masks import UNCLEAN, bits
from pipeline.statistics import mad_std
from pipeline.subtract.convolve import tiles
from pipeline.subtract.pixels import weigh
from pipeline.subtract.stamps import resized
from pipeline.subtract.whitened import Whitened

__all__ = [
    "FAINTEST",
    "Scene",
    "SceneNoise",
    "SceneScore",
    "count_scene",
    "measure_scene",
    "scene_score",
]

FAINTEST = 5.0
"""Score of a scene below which the template shows nothing but its noise."""

_STARS = (100.0, 5000.0)
"""Scores of the stars that tell how well the images match."""

_FEWEST = 10
_BISECTIONS = 40
_REACH = 8
_LEAST = 0.2
"""Half width of the filter of the scene, and share of its weight that good pixels must carry."""

_HALF = 3
_MOST_STARS = 4000
_MOST_SHIFT = 0.5
"""Largest registration error that is believed, standard deviation along any axis, pixel."""

_MOST_SHARE = 0.015
_MOST_INEXACT = 0.05
_MOST_HALO = 0.5
"""Largest shares of the flux of a star that may be left: with the PSF that the template declares,
where some of its inputs are missing, and in the halo of a saturated core."""

_NEAR = (4, 10)
"""How far, in pixels, missing inputs and saturated cores make themselves felt: the first by the
PSF, the second by PSF and kernel."""

_TAIL = 0.9
_SIGMAS_AT_TAIL = 1.6448536  # Φ⁻¹(0.95): 90 % of Gaussian deviates are nearer
_HALO_TAIL = 0.98  # every core fails in its own way
_SIGMAS_AT_HALO_TAIL = 2.3263479  # Φ⁻¹(0.99)
_UNCLEAN = bits(*UNCLEAN)
_INEXACT = bits("INEXACT_PSF", "CLIPPED", "REJECTED")
_SATURATED = bits("SAT", "SAT_TEMPLATE", "BLEED")


@dataclass(frozen=True, slots=True)
class SceneNoise:
    """How well constant stars vanish from a difference.

    Attributes
    ----------
    covariance : tuple of float, pixel²
        C of the registration: xx, yy, xy.
    share, inexact, halo : float
        Shares of the flux that are left: of stars, of stars where inputs of the template are
        missing, and near saturated cores.
    stars : int
        Stars that tell the first two.
    """

    covariance: tuple[float, float, float] = (0.0, 0.0, 0.0)
    share: float = 0.0
    inexact: float = 0.0
    halo: float = 0.0
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
            "residualFractionHalo": self.halo,
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
    """

    light: Image
    usable: npt.NDArray[np.uint8]

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
        scene = scene_score(self.light, difference.null_variance, self.usable, psfs, tile)
        noise = measure_scene(significance, scene, difference.mask)
        return count_scene(significance, scene, difference.mask, noise), noise.metrics


@dataclass(frozen=True, slots=True, eq=False)
class SceneScore:
    """Score of a static scene where it stands out.

    Attributes
    ----------
    entry : ndarray, (ny, nx), int32
        Which entry of `values` belongs to a pixel, 0 for none.
    values : ndarray, (n, 3)
        T, the score that the scene would have if the template were empty, and what a shift of the
        scene by a pixel along x and y leaves in the score.  The first entry is zero.
    """

    entry: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]


def scene_score(
    scene: Image,
    null_variance: Image,
    usable: npt.NDArray[np.uint8],
    psfs: tuple[Psf, GridPsf],
    tile: int,
) -> SceneScore:
    """Score that the static scene would have if the template were empty.

    Parameters
    ----------
    scene : ndarray, (ny, nx)
        Light of the matched template above its sky, in the unit of the difference.
    null_variance, usable
        As in `score`.
    psfs : tuple of Psf, GridPsf
        Of the science image, which is that of the scene, and of the difference.
    tile : int, pixel
        As in `score`.

    Returns
    -------
    SceneScore
        Where a pixel of the scene stands out of the noise.  The scene is not whitened, which
        widens its stars a little; their peaks are right.
    """
    shape = (int(scene.shape[0]), int(scene.shape[1]))
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    filters = _cut(psfs[1].cube.reshape(-1, psfs[1].side, psfs[1].side))
    middle = _cut(psfs[1].stamps(x, y))[0]
    ours = resized(np.asarray(_cut(psfs[0].stamps(x, y)), float), len(middle))[0]
    peak = float((middle**2).sum() / (middle * ours).sum())
    size = [
        max(t.stop - t.start for t in axis) + 2 * _REACH
        for axis in zip(*tiles(shape, tile), strict=True)
    ]
    planes = np.empty((2, *size), np.float32)
    entry, count = _candidates(scene, null_variance)
    values = np.zeros((count + 1, 3), np.float32)
    for k, (rows, columns) in enumerate(tiles(shape, tile)):
        scale = weigh(scene, null_variance, usable, rows.start, columns.start, _REACH, planes)
        if scale > 0.0:
            ends = (rows.start, rows.stop, columns.start, columns.stop)
            factor = np.float32(peak * np.sqrt(scale))
            _filter(scene, entry, planes, filters[k], ends, factor, values)
    return SceneScore(entry, values)


def _cut(stamps: FloatArray) -> npt.NDArray[np.float32]:
    """Middles of PSFs, with unit sum."""
    trim = max(0, stamps.shape[-1] // 2 - _REACH)
    cube = stamps[:, trim : stamps.shape[1] - trim, trim : stamps.shape[2] - trim]
    return np.asarray(cube / cube.sum((1, 2))[:, None, None], np.float32)


def measure_scene(significance: Image, scene: SceneScore, mask: Mask) -> SceneNoise:
    """Measure what constant stars leave.

    Parameters
    ----------
    significance : ndarray, (ny, nx)
        Score of the difference.
    scene : SceneScore
        Score of the scene.
    mask : ndarray, (ny, nx), uint32
        Mask of the difference.

    Returns
    -------
    SceneNoise
        Zero where too few stars tell.
    """
    table = _stars(
        significance,
        scene.entry,
        scene.values,
        mask,
        *_STARS,
        _UNCLEAN,
        _INEXACT,
        _HALF,
        _MOST_STARS,
    )
    inexact = table[:, 5] > 0
    clean = table[~inexact]
    if len(clean) < _FEWEST:
        return SceneNoise()
    floor, lost = (
        float(np.sqrt(_excess(stars[:, 1], stars[:, 0] ** -2.0)))
        for stars in (clean, table[inexact])
    )
    halo = _halo_shares(
        significance, scene.entry, scene.values, mask, 4.0 * FAINTEST, _SATURATED, _NEAR[1]
    )
    ring = (
        float(np.sqrt(np.quantile(halo, _HALO_TAIL))) / _SIGMAS_AT_HALO_TAIL
        if len(halo) > 100
        else 0.0
    )
    return SceneNoise(
        _covariance(clean[:, 2], clean[:, 3], clean[:, 4]),
        share=min(floor, _MOST_SHARE),
        inexact=min(max(lost, floor), _MOST_INEXACT),
        halo=min(max(ring, lost, floor), _MOST_HALO),
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
    significance: Image, scene: SceneScore, mask: Mask, noise: SceneNoise
) -> npt.NDArray[np.float32]:
    """Divide a score by its noise with the scene's, in place.

    Parameters
    ----------
    significance, scene, mask
        As in `measure_scene`.
    noise : SceneNoise
        What constant stars leave.

    Returns
    -------
    ndarray, (ny, nx)
        What the score was divided by: one where the template shows nothing.
    """
    shares = (noise.share, noise.inexact, noise.halo)
    return _count(
        significance, scene.entry, scene.values, mask, FAINTEST, noise.covariance, shares,
        (_INEXACT, _SATURATED), _NEAR,
    )  # fmt: skip


@compiled
def _candidates(scene: Image, variance: Image) -> tuple[npt.NDArray[np.int32], int]:
    """Give numbers to the pixels in which the scene exceeds the noise."""
    ny, nx = scene.shape
    entry, n = np.zeros((ny, nx), np.int32), 0
    for y in range(ny):
        for x in range(nx):
            light = scene[y, x]
            if light > 0.0 and light * light > variance[y, x]:
                n += 1
                entry[y, x] = n
    return entry, n


@compiled
def _filter(
    scene: Image,
    entry: npt.NDArray[np.int32],
    planes: Image,
    stamp: npt.NDArray[np.float32],
    ends: tuple[int, int, int, int],
    scale: np.float32,
    values: npt.NDArray[np.float32],
) -> None:
    """Filter the numbered pixels of one tile, and the slopes of the scene beside them."""
    (ny, nx), side = scene.shape, len(stamp)
    half = side // 2
    rim = _REACH - half
    least = np.float32(_LEAST * (stamp * stamp).sum())
    for y in range(ends[0], ends[1]):
        for x in range(ends[2], ends[3]):
            if entry[y, x] == 0:
                continue
            total, norm = np.float32(0.0), np.float32(0.0)
            along_x, along_y = np.float32(0.0), np.float32(0.0)
            v, u = y - ends[0], x - ends[2]
            whole = half < x < nx - half - 1
            for j in range(side):
                flux = planes[0, v + rim + j, u + rim : u + rim + side]
                weight = planes[1, v + rim + j, u + rim : u + rim + side]
                row = min(max(y - half + j, 1), ny - 2)
                left = x - half if whole else half + 1
                here = scene[row, left - 1 : left + side + 1]
                above, below = (
                    scene[row + 1, left : left + side],
                    scene[row - 1, left : left + side],
                )
                for i in range(side):
                    p = stamp[j, i]
                    w = p * weight[i]
                    total += p * flux[i]
                    norm += p * w
                    along_x += w * (here[i + 2] - here[i])
                    along_y += w * (above[i] - below[i])
            if norm > least * planes[1, v + _REACH, u + _REACH] and norm > 0.0:
                factor = scale / np.sqrt(norm)
                values[entry[y, x], 0] = factor * total
                if whole:
                    values[entry[y, x], 1] = np.float32(0.5) * factor * along_x
                    values[entry[y, x], 2] = np.float32(0.5) * factor * along_y


@compiled
def _stars(
    significance: Image,
    entry: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    mask: Mask,
    faintest: float,
    brightest: float,
    unclean: np.uint32,
    inexact: np.uint32,
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
    ny, nx = entry.shape
    out = np.empty((most, 6))
    n, rim = 0, half + 2
    for y in range(rim, ny - rim):
        for x in range(rim, nx - rim):
            peak = values[entry[y, x], 0]
            if not (faintest < peak < brightest) or n == most:
                continue
            flags, highest = np.uint32(0), True
            for j in range(y - half, y + half + 1):
                for i in range(x - half, x + half + 1):
                    flags |= mask[j, i]
                    highest &= values[entry[j, i], 0] <= peak
            if not highest or flags & unclean:
                continue
            around = values[entry[y, x - 1], 0] + values[entry[y, x + 1], 0]
            around += values[entry[y - 1, x], 0] + values[entry[y + 1, x], 0]
            curvature = 2.0 * peak - 0.5 * around
            if curvature <= 0.0:
                continue
            fit = _fit(significance, entry, values, x, y, half)
            out[n, 0], out[n, 1:4], out[n, 4] = peak, fit, 1.0 / (peak * curvature)
            out[n, 5] = 1.0 if flags & inexact else 0.0
            n += 1
    return out[:n]


@compiled
def _fit(
    significance: Image,
    entry: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    x: int,
    y: int,
    half: int,
) -> FloatArray:
    """Least squares of a score by the scene's and what shifts of it leave, in a box."""
    matrix, vector = np.zeros((3, 3)), np.zeros(3)
    for j in range(y - half, y + half + 1):
        for i in range(x - half, x + half + 1):
            term = values[entry[j, i]]
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
def _halo_shares(
    significance: Image,
    entry: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    mask: Mask,
    faintest: float,
    saturated: np.uint32,
    reach: int,
) -> FloatArray:
    """Squared shares of the scene left near saturated cores, beyond noise, thinned to a third."""
    ny, nx = entry.shape
    out = np.empty(ny * nx // 300 + 1)
    blocks, n = _blocks(mask), 0
    for y in range(0, ny, 3):
        for x in range(nx):
            t = values[entry[y, x], 0]
            if t > faintest and n < len(out) and _near(mask, blocks, x, y, saturated, reach):
                out[n] = max(significance[y, x] ** 2 - 1.0, 0.0) / (t * t)
                n += 1
    return out[:n]


@compiled
def _count(
    significance: Image,
    entry: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    mask: Mask,
    faintest: float,
    covariance: tuple[float, float, float],
    shares: tuple[float, float, float],
    planes: tuple[np.uint32, np.uint32],
    reach: tuple[int, int],
) -> npt.NDArray[np.float32]:
    """Noise of a score with that of the scene; divides the score by it."""
    ny, nx = entry.shape
    xx, yy, xy = covariance
    out, blocks = np.ones((ny, nx), np.float32), _blocks(mask)
    for y in range(ny):
        for x in range(nx):
            t, dx, dy = values[entry[y, x]]
            if not t > faintest:
                continue
            share = shares[0]
            if _near(mask, blocks, x, y, planes[0], reach[0]):
                share = shares[1]
            if _near(mask, blocks, x, y, planes[1], reach[1]):
                share = shares[2]
            shifted = xx * dx * dx + yy * dy * dy + 2.0 * xy * dx * dy
            out[y, x] = np.sqrt(1.0 + shifted + (share * t) ** 2)
            significance[y, x] /= out[y, x]
    return out
