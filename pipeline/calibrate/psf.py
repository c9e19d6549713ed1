"""The point spread function: recentred stars, modes, and ridged pixel polynomials.

A stamp of 1,681 pixels with a polynomial of six terms each has far more freedom than forty stars
can fix.  Nearly all true variation over a detector, however, is a change of size and ellipticity.
The model is therefore

    PSF(x, y) = P + Σ_m q_m(x, y) D_m + R(x, y),

P the mean profile, D_m its derivatives to dilation, two shears and two shifts, q_m polynomials of
the position fitted to all stars and pixels together, and R what remains, a polynomial per pixel
held small by a ridge.  Every term but P carries no flux within `Psf.FLUX_RADIUS`, so that the
model has unit flux there at *every* position and not on average: without this, PSF fluxes scatter
by one per cent over the chip although χ² looks right.

Weights come from a source-free sky and the median star.  A star's own counts never weight it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from pipeline.calibrate.kaiser import HALF_WIDTH, noise_power, resample
from pipeline.errors import PsfError
from pipeline.exposure import (
    FloatArray,
    Image,
    PolynomialPsf,
    Psf,
    polynomial_terms,
)
from pipeline.statistics import mad_std

__all__ = ["PsfFit", "PsfStars", "cut_stamps", "fit_psf", "flux_error", "held_out", "order_for"]

SIDE = 41
_RADIUS = np.hypot(*(np.mgrid[:SIDE, :SIDE] - SIDE // 2)).ravel()
_INNER = np.flatnonzero(_RADIUS <= Psf.FLUX_RADIUS)
_CORE = _RADIUS[_INNER] <= 9.0
_RINGS = np.rint(_RADIUS).astype(int)
_CLIP = 4.0
_RIDGE = (np.inf, 0.03, 0.01)
_LEAKAGE = 0.02
_WORST_STAR = 3.0
_FEWEST_FOR_PEDESTAL = 8
_LARGEST_WING = 1e-4  # of the flux per pixel, beyond the flux radius
_FEWEST_TO_SPARE, _FEWEST_FOR_SHAPE, _ENOUGH_TO_SPARE = 7, 30, 90
_JUDGED_SNR, _FEWEST_JUDGED, _FOLDS = (50.0, 500.0), 5, 6


@dataclass(frozen=True, slots=True, eq=False)
class PsfStars:
    """Stamps of candidate stars, recentred and normalised.

    Attributes
    ----------
    x, y : ndarray, (n,), pixel
        Centroids.
    stamps : ndarray, (n, side²)
        Pixels divided by `flux`.
    variance : ndarray, (n,)
        Variance of a sky pixel divided by `flux` squared.
    flux : ndarray, (n,), image unit
        Estimate of the flux within `Psf.FLUX_RADIUS`.
    use : ndarray of bool, (n, side²)
        Usable pixels.
    power : ndarray, (n,)
        Variance of a pixel after recentring, relative to that before.
    """

    x: FloatArray
    y: FloatArray
    stamps: FloatArray
    variance: FloatArray
    flux: FloatArray
    use: npt.NDArray[np.bool_]
    power: FloatArray

    def __len__(self) -> int:
        return len(self.x)

    def select(self, keep: npt.NDArray[np.bool_]) -> PsfStars:
        """Return the stars where `keep` is true."""
        return PsfStars(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})

    def plus(self, psf: PolynomialPsf, flux: FloatArray) -> PsfStars:
        """Put a model of each star, with the flux given, back into stamps it was taken from."""
        model = psf.stamps(self.x, self.y).reshape(len(self), -1)
        return replace(self, stamps=self.stamps + model * (flux / self.flux)[:, None])

    def inner(self) -> PsfStars:
        """Return the stars with their pixels within `Psf.FLUX_RADIUS` only."""
        return replace(self, stamps=self.stamps[:, _INNER], use=self.use[:, _INNER])

    def rescaled(self, amplitude: FloatArray) -> PsfStars:
        """Return the stars with fluxes multiplied by amplitudes, ``(n,)``."""
        return replace(
            self,
            stamps=self.stamps / amplitude[:, None],
            variance=self.variance / amplitude**2,
            flux=self.flux * amplitude,
        )


@dataclass(frozen=True, slots=True, eq=False)
class PsfFit:
    """A fitted PSF.

    Attributes
    ----------
    psf : PolynomialPsf
        Unit flux within 12 pixels at every position.
    kept : ndarray of bool, (n,)
        Candidate stars that were used in the end.
    chi2 : float
        Mean χ² per pixel of those stars within nine pixels.
    sky_err : float
        Relative error of the flux within `Psf.FLUX_RADIUS` that the residual sky leaves.
    """

    psf: PolynomialPsf
    kept: npt.NDArray[np.bool_]
    chi2: float
    sky_err: float = 0.0

    @property
    def n_stars(self) -> int:
        """Stars used."""
        return int(self.kept.sum())


def order_for(n_stars: int) -> int:
    """Spatial order that a number of stars can carry: 2 from 40, 1 from 8, else 0.

    Parameters
    ----------
    n_stars : int
        Number of stars.

    Returns
    -------
    int
        Order of the polynomial in x and y.
    """
    return 2 if n_stars >= 40 else 1 if n_stars >= 8 else 0


def cut_stamps(
    image: Image,
    bad: npt.NDArray[np.bool_],
    noise: Image,
    x: FloatArray,
    y: FloatArray,
    flux: FloatArray,
) -> PsfStars:
    """Cut stars out and recentre them.

    Parameters
    ----------
    image : ndarray, (ny, nx)
        Without sky.
    bad : ndarray of bool, (ny, nx)
        Pixels not to use.
    noise : ndarray, (ny, nx), image unit squared
        Source-free variance.
    x, y : ndarray, (n,), pixel
        Centroids.
    flux : ndarray, (n,), image unit
        First estimates of the flux.

    Returns
    -------
    PsfStars
        Pixels outside the image, or to which bad ones contribute, are marked unusable.
    """
    half = SIDE // 2 + HALF_WIDTH
    ix, iy = np.rint(x).astype(int), np.rint(y).astype(int)
    k = np.arange(-half, half + 1)
    rows, columns = iy[:, None, None] + k[None, :, None], ix[:, None, None] + k[None, None, :]
    inside = (rows >= 0) & (rows < image.shape[0]) & (columns >= 0) & (columns < image.shape[1])
    rows, columns = rows.clip(0, image.shape[0] - 1), columns.clip(0, image.shape[1] - 1)
    raw = image[rows, columns].astype(float)
    poor = ~inside | bad[rows, columns] | ~np.isfinite(raw)
    raw[~np.isfinite(raw)] = 0.0
    stamps = resample(raw, x - ix, y - iy, SIDE).reshape(len(x), SIDE * SIDE)
    use = np.ones((len(x), SIDE * SIDE), bool)
    affected = poor.any(axis=(1, 2))
    if affected.any():
        leak = resample(poor[affected].astype(float), (x - ix)[affected], (y - iy)[affected], SIDE)
        use[affected] = (np.abs(leak) < _LEAKAGE).reshape(-1, SIDE * SIDE)
    sky = noise[iy.clip(0, image.shape[0] - 1), ix.clip(0, image.shape[1] - 1)].astype(float)
    power = noise_power(x - ix, y - iy)
    return PsfStars(x, y, stamps / flux[:, None], sky / flux**2, flux, use, power)


def fit_psf(
    stars: PsfStars, shape: tuple[int, int], *, max_order: int = 2, min_stars: int = 1
) -> PsfFit:
    """Fit the PSF to recentred stars.

    Parameters
    ----------
    stars : PsfStars
        Candidates; blends and galaxies among them are clipped.
    shape : tuple of int, (ny, nx)
        Size of the image.
    max_order : int
        Highest spatial order; the number of stars may lower it, and so may fewer than 40 stars
        that a constant PSF predicts as well.
    min_stars : int
        Fewest stars to work with.

    Returns
    -------
    PsfFit

    Raises
    ------
    PsfError
        If fewer than `min_stars` remain.
    """
    stars, sky_err = _levelled(stars)
    kept = stars.use[:, _INNER[_CORE]].mean(axis=1) > 0.9
    for _ in range(4):
        _require(int(kept.sum()), min_stars, len(stars))
        order = min(order_for(int(kept.sum())), max_order)
        chosen = stars.select(kept)
        coefficients, chi2 = _solve(chosen, shape, order)
        outlying = _outliers(chi2)
        if not outlying.any() or int((~outlying).sum()) < max(min_stars, 3):
            break
        kept[np.flatnonzero(kept)[outlying]] = False
    if order == 1 and not _gradient_tells(chosen, shape):
        order, (coefficients, chi2) = 0, _solve(chosen, shape, 0)
    psf = PolynomialPsf(coefficients.reshape(-1, SIDE, SIDE), order, shape)
    return PsfFit(psf, kept, float(np.mean(chi2)), sky_err)


def _gradient_tells(kept: PsfStars, shape: tuple[int, int]) -> bool:
    """Whether stars that are left out in turn are met better with a gradient than without.

    A few galaxies among few stars make one that is none, by several per cent of a flux from corner
    to corner.  The mean of ln χ² keeps those that no PSF meets from deciding.
    """
    if len(kept) < _FEWEST_TO_SPARE:
        return True
    parts = [np.arange(len(kept)) % 6 == fold for fold in range(6)]
    without, with_it = (
        np.concatenate([_judged(kept, out, shape, order)[0] for out in parts]) for order in (0, 1)
    )
    return float(np.mean(np.log(with_it))) < float(np.mean(np.log(without)))


def _levelled(stars: PsfStars) -> tuple[PsfStars, float]:
    """Take out what the sky model left under the stars.

    One electron per pixel is 450 within the flux radius, two mmag of a bright star.  Beyond that
    radius a star's mean is its wing, in proportion to its flux, plus the same pedestal for all:
    in stamps divided by the flux, a straight line in 1/flux.  The second value is the relative
    error of the stars' common flux that remains.
    """
    ring = (_RADIUS > Psf.FLUX_RADIUS + 1.0) & (_RADIUS <= SIDE // 2)
    n = stars.use[:, ring].sum(axis=1)
    keep = n > 0.5 * ring.sum()
    means = (stars.stamps * stars.use)[:, ring].sum(axis=1) / np.maximum(n, 1)
    root = np.sqrt(n / stars.variance)
    if int(keep.sum()) < _FEWEST_FOR_PEDESTAL:
        return _without_excess(stars, means, keep & (means * root > 3.0)), 0.0
    design = np.column_stack([np.ones(len(stars)), 1.0 / stars.flux])
    line = np.zeros(2)
    for _ in range(4):
        weighted = (design * root[:, None])[keep]
        scale = np.abs(weighted).max(axis=0)
        line = np.linalg.lstsq(weighted / scale, (means * root)[keep], rcond=None)[0] / scale
        pulls = np.abs(means - design @ line) * root
        keep = (n > 0.5 * ring.sum()) & (pulls < 3.0 * max(1.0, mad_std(pulls, 0.0)))
        if int(keep.sum()) < _FEWEST_FOR_PEDESTAL:
            return stars, 0.0
    slope = design[:, 1] - np.average(design[:, 1], weights=root**2)
    pedestal_err = float(np.sum((slope * root)[keep] ** 2)) ** -0.5
    share = np.average(design[:, 1], weights=1.0 / (stars.variance * len(_INNER) + design[:, 1]))
    levelled = replace(stars, stamps=stars.stamps - (line[1] / stars.flux)[:, None])
    return levelled, pedestal_err * len(_INNER) * float(share)


def _without_excess(stars: PsfStars, means: FloatArray, bright: npt.NDArray[np.bool_]) -> PsfStars:
    """Level stars, too few for a line, whose rings are brighter than any star's wing.

    The wing of turbulence is 0.024 w^(5/3) r^(-11/3) of the flux per pixel for a width w (Racine
    1996, PASP 108, 699): 1e-5 for w = 4.5 and r = 16 pixels.  Ten times that is sky or neighbours.
    """
    excess = np.where(bright & (means > _LARGEST_WING), means, 0.0)
    return replace(stars, stamps=stars.stamps - excess[:, None])


def held_out(
    stars: PsfStars,
    fit: PsfFit,
    shape: tuple[int, int],
    alone: npt.NDArray[np.bool_] | None = None,
) -> dict[str, float | None]:
    """Judge the PSF on stars that did not make it.

    A third of the stars, of fewer than ninety all in turn a sixth, is left out of a second fit, for
    which the others must suffice.

    Parameters
    ----------
    stars : PsfStars
        Candidates.
    fit : PsfFit
        The fit with all of them.
    shape : tuple of int, (ny, nx)
        Size of the image.
    alone : ndarray of bool, (n,), optional
        Candidates without a neighbour: the light of others says nothing of the PSF.

    Returns
    -------
    dict
        ``psfChi2``, the median of χ² per pixel over isolated stars of SNR 50 to 500, None where
        there are not five of them, or fewer than seven stars in all; ``psfSizeResidual``
        (relative, of T), ``psfE1Residual`` and ``psfE2Residual`` (star minus model), means over
        the stars left out, None with fewer than 30 stars.
    """
    names = ("psfChi2", "psfSizeResidual", "psfE1Residual", "psfE2Residual")
    if fit.n_stars < _FEWEST_TO_SPARE:
        return dict.fromkeys(names)
    kept = _levelled(stars)[0].select(fit.kept)
    every, folds = (3, (1,)) if fit.n_stars >= _ENOUGH_TO_SPARE else (6, range(6))
    parts = [np.arange(len(kept)) % every == fold for fold in folds]
    judged = [_judged(kept, out, shape, fit.psf.order) for out in parts]
    chi2, snr = (np.concatenate([part[i] for part in judged]) for i in (0, 1))
    single = np.ones(len(stars), bool) if alone is None else alone
    typical = (snr > _JUDGED_SNR[0]) & (snr < _JUDGED_SNR[1])
    typical &= np.concatenate([single[fit.kept][out] for out in parts])
    residual: list[float | None] = [None] * 3
    if fit.n_stars >= _FEWEST_FOR_SHAPE:
        residual = [2.0 * float(r) for r in np.mean([part[2] for part in judged], axis=0)]
    enough = int(typical.sum()) >= _FEWEST_JUDGED
    middle = float(np.median(chi2[typical])) if enough else None
    return dict(zip(names, [middle, *residual], strict=True))


def flux_error(stars: PsfStars, fit: PsfFit, shape: tuple[int, int]) -> float:
    """Relative error of PSF fluxes that the choice of stars and the sky under them leave.

    A sixth of the stars is left out in turn: where some have a galaxy in their rim, the share of
    light in the core, by which a PSF flux is judged, depends on which are used.

    Parameters
    ----------
    stars : PsfStars
        Candidates.
    fit : PsfFit
        The fit with all of them.
    shape : tuple of int, (ny, nx)
        Size of the image.

    Returns
    -------
    float
        Jackknife error (Efron 1982, eq. 3.1) of the flux that the PSF in the middle of the stars
        finds, together with `PsfFit.sky_err`; not-a-number with fewer than seven stars.
    """
    if fit.n_stars < _FEWEST_TO_SPARE:
        return float("nan")
    kept = _levelled(stars)[0].select(fit.kept)
    mean = polynomial_terms(kept.x, kept.y, shape, fit.psf.order).mean(axis=0)
    middle = mean @ fit.psf.coefficients.reshape(len(mean), -1)[:, _INNER]
    fold, found = np.arange(len(kept)) % _FOLDS, np.empty(_FOLDS)
    for k in range(_FOLDS):
        profile = mean @ _solve(kept.select(fold != k), shape, fit.psf.order)[0][:, _INNER]
        found[k] = (profile @ middle) / (profile @ profile)
    return float(np.hypot(np.sqrt((_FOLDS - 1) * np.var(found)), fit.sky_err))


def _judged(
    kept: PsfStars, out: npt.NDArray[np.bool_], shape: tuple[int, int], order: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """χ² and SNR of the stars left out of a fit; strength of dilation and shears in all of them."""
    coefficients, _ = _solve(kept.select(~out), shape, order)
    test, terms = kept.select(out).inner(), polynomial_terms(kept.x, kept.y, shape, order)
    model = terms[out] @ coefficients[:, _INNER]
    mean = terms.mean(axis=0) @ coefficients
    test = _with_fitted_flux(test, model, mean[_INNER])
    weights, modes = _weights(test, mean[_INNER]), _modes(mean)
    strength = _fit_modes(test, weights, np.ones((len(test), 1)), model, modes)[0]
    area = 1.0 / (mean[_INNER] ** 2).sum()
    return _chi2(test, weights, model), 1.0 / np.sqrt(test.variance * area), strength[:3]


def _require(n: int, least: int, candidates: int) -> None:
    if n < max(least, 1):
        raise PsfError(
            "too few stars for a point spread function", stars=n, required=max(least, 1),
            candidates=candidates,
        )  # fmt: skip


def _outliers(chi2: FloatArray) -> npt.NDArray[np.bool_]:
    """Stars that fit far worse than the others: blends, galaxies."""
    typical = float(np.median(chi2))
    spread = mad_std(chi2, typical)
    return np.asarray(chi2 > max(_WORST_STAR * typical, typical + 5.0 * spread, 1.3))


def _solve(stars: PsfStars, shape: tuple[int, int], order: int) -> tuple[FloatArray, FloatArray]:
    """Coefficients ``(n_terms, side²)`` of unit flux everywhere, and χ² per pixel of each star."""
    terms = polynomial_terms(stars.x, stars.y, shape, order)
    inner = stars.inner()
    mean = _unit(_robust_mean(inner))
    for _ in range(2):
        inner = _with_fitted_flux(inner, mean[None], mean)
    wings = _wings(stars.rescaled(inner.flux / stars.flux))
    weights = _clipped(inner, _weights(inner, mean), terms, mean)
    coefficients = _padded(mean[None], terms.shape[1])
    for _ in range(2):
        mean = terms.mean(axis=0) @ coefficients
        modes = _modes(_whole(mean[None], wings)[0])
        q = _fit_modes(inner, weights, terms, mean[None], modes)
        smooth = _padded(mean[None], terms.shape[1]) + q @ modes
        rest = _fit_pixels(inner.stamps - terms @ smooth, weights, terms, mean)
        coefficients = _unit_everywhere(smooth + rest)
        inner = _with_fitted_flux(inner, terms @ coefficients, mean)
    return _whole(coefficients, wings), _chi2(inner, weights, terms @ coefficients)


def _unit(profile: FloatArray) -> FloatArray:
    return np.asarray(profile / profile.sum())


def _unit_everywhere(coefficients: FloatArray) -> FloatArray:
    """Scale the constant term to unit flux and take the flux out of all others."""
    flux = coefficients.sum(axis=1)
    base = coefficients[0] / flux[0]
    scaled = (coefficients - flux[:, None] * base) / flux[0]
    scaled[0] = base
    return np.asarray(scaled)


def _padded(coefficients: FloatArray, n_terms: int) -> FloatArray:
    out = np.zeros((n_terms, coefficients.shape[1]))
    out[: len(coefficients)] = coefficients
    return out


def _whole(inner: FloatArray, wings: FloatArray) -> FloatArray:
    """Whole stamps from coefficients of the inner pixels and the wings of the constant term."""
    out = np.zeros((len(inner), SIDE * SIDE))
    out[0] = wings
    out[:, _INNER] = inner
    return out


def _robust_mean(stars: PsfStars) -> FloatArray:
    """Median of the brighter half of the stars, pixel by pixel."""
    bright = np.argsort(stars.variance, kind="stable")[: max(3, (len(stars) + 1) // 2)]
    stamps = np.where(stars.use[bright], stars.stamps[bright], np.nan)
    stamps[:, ~np.isfinite(stamps).any(axis=0)] = 0.0
    return np.asarray(np.nanmedian(stamps, axis=0))


def _wings(stars: PsfStars) -> FloatArray:
    """Azimuthal means beyond the flux radius, where single pixels are all noise."""
    profile = np.zeros(SIDE * SIDE)
    for ring in range(int(Psf.FLUX_RADIUS), SIDE // 2 + 1):
        at = np.flatnonzero((ring == _RINGS) & (_RADIUS > Psf.FLUX_RADIUS))
        n = stars.use[:, at].sum(axis=1)
        good = n > 0.5 * len(at)
        if len(at) and good.any():
            means = (stars.stamps * stars.use)[good][:, at].sum(axis=1) / n[good]
            profile[at] = _clipped_mean(means, n[good] / stars.variance[good])
    return profile


def _clipped_mean(values: FloatArray, weights: FloatArray) -> float:
    """Weighted mean without what lies 3σ off the median: rings with a neighbour in them."""
    middle = float(np.median(values))
    sigma = np.maximum(mad_std(values, middle), 1.0 / np.sqrt(weights))
    keep = np.abs(values - middle) <= 3.0 * sigma
    return float(np.average(values[keep], weights=weights[keep])) if keep.any() else middle


def _with_fitted_flux(stars: PsfStars, model: FloatArray, mean: FloatArray) -> PsfStars:
    """Fit every star's flux to its model; weights from the sky and the mean star."""
    weights = _weights(stars, mean) * _CORE
    amplitude = (weights * model * stars.stamps).sum(axis=1) / (weights * model**2).sum(axis=1)
    return stars.rescaled(np.clip(amplitude, 0.2, 5.0))


def _weights(stars: PsfStars, mean: FloatArray) -> FloatArray:
    photons = np.clip(mean, 0.0, None)[None] / stars.flux[:, None]
    return np.asarray(stars.use / (stars.variance[:, None] + photons))


def _clipped(
    stars: PsfStars, weights: FloatArray, terms: FloatArray, mean: FloatArray
) -> FloatArray:
    """Drop pixels more than 4σ off a polynomial fit of all stars: neighbours, leftovers."""
    clipped = weights
    for _ in range(2):
        fit = _fit_pixels(stars.stamps - mean, clipped, terms, mean)
        pulls = (stars.stamps - mean - terms @ fit) ** 2 * weights
        # The misfit of this preliminary model itself must clip nothing.
        used = np.maximum((clipped[:, _CORE] > 0).sum(axis=1), 1)
        spread = np.maximum(1.0, (pulls * (clipped > 0))[:, _CORE].sum(axis=1) / used)
        clipped = np.where(pulls > _CLIP**2 * spread[:, None], 0.0, weights)
    return clipped


def _fit_pixels(
    residual: FloatArray, weights: FloatArray, terms: FloatArray, mean: FloatArray
) -> FloatArray:
    """Weighted polynomial of the position in every pixel, its higher terms held small.

    The ridge is a Gaussian prior: coefficients of order 1 and 2 are 0 ± 3 and ± 1 per cent of
    the mean profile, with a floor of 10⁻⁵ in the wings.
    """
    n, t = terms.shape
    products = (terms[:, :, None] * terms[:, None, :]).reshape(n, t * t)
    normal = (products.T @ weights).T.reshape(-1, t, t)
    right = (terms.T @ (weights * residual)).T
    scale = np.maximum(np.abs(mean), 1e-5)
    degree = [d for d in range(3) for _ in range(d + 1)]
    for i in range(t):
        normal[:, i, i] += 1.0 / (_RIDGE[degree[i]] * scale) ** 2 + 1e-12 * normal[:, 0, 0] + 1e-30
    return np.asarray(np.linalg.solve(normal, right[:, :, None])[:, :, 0].T)


def _modes(mean: FloatArray) -> FloatArray:
    """Differentiate the profile to dilation, two shears and two shifts, without flux.

    Derivatives are taken in Fourier space, exact for a profile that dies out within the stamp.
    """
    p = mean.reshape(SIDE, SIDE)
    k = 2j * np.pi * np.fft.fftfreq(SIDE)
    transform = np.fft.fft2(p)
    px = np.fft.ifft2(transform * k[None, :]).real
    py = np.fft.ifft2(transform * k[:, None]).real
    v, u = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    fields = [-(2 * p + u * px + v * py), v * py - u * px, -(v * px + u * py), -px, -py]
    modes = np.stack([f.ravel()[_INNER] for f in fields])
    return np.asarray(modes - modes.sum(axis=1)[:, None] * _unit(mean[_INNER]))


def _fit_modes(
    stars: PsfStars, weights: FloatArray, terms: FloatArray, model: FloatArray, modes: FloatArray
) -> FloatArray:
    """Polynomials ``(n_terms, n_modes)`` of the modes' strengths, each star's flux left free.

    `model` is the profile so far, one for all stars or one each.
    """
    w = weights[:, _CORE]
    p, d = model[:, _CORE], modes[:, _CORE]
    wp = w * p
    norm = (wp * p).sum(axis=1)
    along = (wp @ d.T) / norm[:, None]
    products = (d[:, None, :] * d[None, :, :]).reshape(-1, d.shape[1])
    gram = (w @ products.T).reshape(len(w), len(d), len(d))
    gram -= norm[:, None, None] * along[:, :, None] * along[:, None, :]
    residual = stars.stamps[:, _CORE] - p
    right = (w * residual) @ d.T - along * (wp * residual).sum(axis=1)[:, None]
    t, m = terms.shape[1], len(modes)
    normal = np.einsum("it,iu,iml->tmul", terms, terms, gram, optimize=True).reshape(t * m, t * m)
    vector = (terms.T @ right).ravel()
    normal[np.diag_indices(t * m)] *= 1.0 + 1e-9
    return np.asarray(np.linalg.solve(normal, vector).reshape(t, m))


def _chi2(stars: PsfStars, weights: FloatArray, model: FloatArray) -> FloatArray:
    """χ² per pixel of the core of each star."""
    used = (weights > 0) & _CORE
    pulls = np.where(used, (stars.stamps - model) ** 2 * weights, 0.0)
    return np.asarray(pulls.sum(axis=1) / np.maximum(used.sum(axis=1), 1) / stars.power)
