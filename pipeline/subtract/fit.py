"""The matching kernel by least squares over stamps (Alard & Lupton 1998, Alard 2000).

Every stamp contributes a small matrix of its own pixels; the spatially varying solution needs
only their sums with the polynomials of the stamps' positions.  Stamps that fit badly are dropped
and the rest is solved again.

The convolved image is noisy itself.  Its noise adds to the power that a kernel function seems to
find in it and makes the kernel too soft: cores of stars stay positive by some per cent of their
peak when both images are equally deep.  The expected noise is therefore taken off the normal
equations (Fuller 1987, Measurement Error Models, section 2.2), as far as they stay well posed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import SubtractionError
from pipeline.exposure import FloatArray, Image, MatchingKernel, polynomial_terms
from pipeline.statistics import MAD_TO_SIGMA, MEDIAN_ERROR, mad_std
from pipeline.subtract.basis import Basis
from pipeline.subtract.config import Config
from pipeline.subtract.stamps import Stamps

__all__ = ["Fit", "Roles", "fit_kernel"]

_TERMS = {0: 1, 1: 3, 2: 6}
_ROUNDS = 6
_MOST_NOISE = 0.7
"""Largest share of noise in the power of a combination of functions that is corrected for."""

_NEAR, _FEW = 7, 8
"""How far from its middle something of a star is looked for, and in how many stars at least."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Which image is convolved to match which.

    Attributes
    ----------
    convolved : str
        ``template`` or ``science``.
    source, target : ndarray, (n, wide, wide)
        Stamps of the convolved image and of the one it has to match.
    source_variance, target_variance : ndarray, (n, side, side)
        Their variances.
    """

    convolved: str
    source: FloatArray
    target: FloatArray
    source_variance: FloatArray
    target_variance: FloatArray

    @classmethod
    def of(cls, stamps: Stamps, convolved: str) -> Roles:
        """Assign the roles."""
        science = (stamps.science, stamps.science_variance)
        template = (stamps.template, stamps.template_variance)
        source, target = (template, science) if convolved == "template" else (science, template)
        return cls(convolved, source[0], target[0], source[1], target[1])


@dataclass(frozen=True, slots=True)
class Fit:
    """A kernel and how it was found.

    Attributes
    ----------
    kernel : MatchingKernel
        The kernel, background relative to the images' levels.
    ratio_order : int
        Spatial degree of the photometric ratio.
    gain : float
        Decrease of the held-out χ² per degree of freedom by the chosen degree, in units of its
        error; zero when the ratio is constant.
    residual_share : float
        Share of their peak that bright stamps surely keep: the largest pixel of their median,
        less three standard errors.
    """

    kernel: MatchingKernel
    ratio_order: int
    gain: float
    residual_share: float


@dataclass(slots=True, eq=False)
class _System:
    """Normal equations of every stamp, and the polynomials of their positions."""

    design: Image  # (n, columns, pixels), background last
    target: FloatArray  # (n, pixels)
    weight: FloatArray  # (n, pixels)
    matrices: FloatArray  # (n, columns, columns)
    vectors: FloatArray  # (n, columns)
    terms: FloatArray  # (n, 6)
    noise: FloatArray  # (n,), variance of the source summed with the weights
    gram: FloatArray  # (columns, columns), what the functions make of noise of unit variance
    ridge: float

    @classmethod
    def build(
        cls,
        design: Image,
        target: FloatArray,
        weight: FloatArray,
        terms: FloatArray,
        noise: FloatArray,
        gram: FloatArray,
        ridge: float,
    ) -> _System:
        n, columns = design.shape[:2]
        matrices, vectors = np.empty((n, columns, columns)), np.empty((n, columns))
        for k in range(n):
            own = design[k].astype(float)  # sums of a thousand products need the precision
            weighted = own * weight[k]
            matrices[k], vectors[k] = weighted @ own.T, weighted @ target[k]
        return cls(design, target, weight, matrices, vectors, terms, noise, gram, ridge)

    def solve(self, use: npt.NDArray[np.bool_], orders: tuple[int, int, int]) -> _Solution:
        """Solve for spatial degrees (ratio, kernel, background) with some of the stamps."""
        n = self.matrices.shape[1]
        counts = [_TERMS[orders[0]], *[_TERMS[orders[1]]] * (n - 2), _TERMS[orders[2]]]
        column = np.repeat(np.arange(n), counts)
        term = np.concatenate([np.arange(c) for c in counts])
        sums, vectors, noises = self._sums(use)
        matrix = sums[column[:, None], column, term[:, None], term]
        noise = self.gram[column[:, None], column] * noises[term[:, None], term]
        scale = 1.0 / np.sqrt(np.diag(matrix))
        scaled, noise = (m * scale[:, None] * scale for m in (matrix, noise))
        scaled[np.diag_indices_from(scaled)] += self.ridge
        coefficients = np.zeros((n, max(_TERMS[o] for o in orders)))
        coefficients[column, term] = scale * _solve(scaled, noise, scale * vectors[column, term])
        return _Solution(coefficients, scaled)

    def _sums(self, use: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Sum matrices, vectors and noise of the stamps times polynomials of their positions."""
        n, terms = self.matrices.shape[1], self.terms[use]
        products = terms[:, :, None] * terms[:, None, :]
        matrix = self.matrices[use].reshape(len(terms), -1).T @ products.reshape(len(terms), -1)
        size = terms.shape[1]
        noise = np.tensordot(self.noise[use], products, axes=1)
        return matrix.reshape(n, n, size, size), self.vectors[use].T @ terms, noise

    def residuals(self, solution: _Solution) -> FloatArray:
        """Pixels minus model, (n, pixels)."""
        own = self.terms[:, : solution.coefficients.shape[1]] @ solution.coefficients.T
        model = np.matmul(own[:, None, :].astype(np.float32), self.design)[:, 0]
        return np.asarray(self.target - model)

    def chi2(self, solution: _Solution) -> FloatArray:
        """Reduced χ² of every stamp."""
        r = self.residuals(solution)
        count = np.maximum((self.weight > 0).sum(1), 1)
        return np.asarray((self.weight * r * r).sum(1) / count)

    def residual_share(self, solution: _Solution, use: npt.NDArray[np.bool_]) -> float:
        """Share of their peak that the brighter half of some stamps surely keeps."""
        side = round(self.target.shape[1] ** 0.5)
        peak = self.target[:, side**2 // 2]
        bright = use & (peak >= np.median(peak[use]))
        number = np.count_nonzero(bright)
        if number < _FEW:
            return 0.0
        middle = slice(max(0, side // 2 - _NEAR), side // 2 + _NEAR + 1)
        kept = (self.residuals(solution) / peak[:, None]).reshape(-1, side, side)
        kept = kept[bright, middle, middle]
        typical = np.median(kept, axis=0)
        error = (
            MEDIAN_ERROR
            * MAD_TO_SIGMA
            * np.median(np.abs(kept - typical), axis=0)
            / np.sqrt(number)
        )
        return float((np.abs(typical) - 3.0 * error).max())


@dataclass(frozen=True, slots=True)
class _Solution:
    coefficients: FloatArray  # (columns, terms)
    scaled: FloatArray  # normal equations with a unit diagonal

    @property
    def condition(self) -> float:
        """Condition number of the scaled normal equations."""
        return float(np.linalg.cond(self.scaled))


def _solve(matrix: FloatArray, noise: FloatArray, vector: FloatArray) -> FloatArray:
    """Solve with the noise taken off, along the directions that have enough besides.

    In the basis with xᵀ M x = 1 and xᵀ N x = ν the solution is x (x · v) / (1 − ν).
    """
    root = np.linalg.inv(np.linalg.cholesky(matrix))
    share, vectors = np.linalg.eigh(root @ noise @ root.T)
    basis = root.T @ vectors
    share = np.clip(share, 0.0, _MOST_NOISE)
    return np.asarray(basis @ ((basis.T @ vector) / (1.0 - share)))


def fit_kernel(
    stamps: Stamps,
    convolved: str,
    shape: tuple[int, int],
    config: Config,
    correlation: FloatArray | None = None,
) -> Fit:
    """Fit the matching kernel.

    Parameters
    ----------
    stamps : Stamps
        Sources in both images.
    convolved : str
        ``template`` or ``science``.
    shape : tuple of int, (ny, nx)
        Size of the images.
    config : Config
        Basis, spatial degrees, clipping.
    correlation : ndarray, (k, k), optional
        Autocovariance of the noise of the convolved image, one in the middle; None if white.

    Returns
    -------
    Fit
        The kernel and its history.

    Raises
    ------
    SubtractionError
        If fewer than three stamps survive the clipping, or the equations cannot be solved.
    """
    roles = Roles.of(stamps, convolved)
    basis = Basis.build(config.sigmas, config.degrees, config.kernel_half)
    system = _system(stamps, roles, basis, shape, config, correlation)
    use, orders = _clip(system, np.ones(len(stamps), bool), config)
    ratio_order, gain = _ratio_order(system, use, orders, config)
    solution = system.solve(use, (ratio_order, orders[1], orders[2]))
    return Fit(
        _kernel(solution, system, use, stamps, basis, orders, shape, convolved),
        ratio_order,
        gain,
        system.residual_share(solution, use),
    )


def _orders(n: int, config: Config) -> tuple[int, int, int]:
    """Spatial degrees (ratio, kernel, background) that a number of stamps supports."""
    largest = 2 if n >= config.stamps_order_2 else 1 if n >= config.stamps_order_1 else 0
    return 0, min(config.order, largest), min(config.background_order, largest)


def _system(
    stamps: Stamps,
    roles: Roles,
    basis: Basis,
    shape: tuple[int, int],
    config: Config,
    correlation: FloatArray | None,
) -> _System:
    """Set up the normal equations of all stamps."""
    n, half = len(stamps), config.kernel_half
    target = roles.target[:, half:-half, half:-half]
    design = np.ones((n, basis.size + 1, *target.shape[1:]), np.float32)
    basis.convolve(roles.source, design[:, :-1])
    design, target = design.reshape(n, basis.size + 1, -1), target.reshape(n, -1)
    good = stamps.good.reshape(n, -1)
    terms = polynomial_terms(stamps.x, stamps.y, shape, 2)
    ratio = stamps.ratio if roles.convolved == "template" else 1.0 / stamps.ratio
    variance = (roles.target_variance + ratio**2 * roles.source_variance).reshape(n, -1)
    signal = np.maximum(target, 0.0)
    weight = good / (variance + (config.model_error * signal) ** 2)
    noise = (weight * roles.source_variance.reshape(n, -1)).sum(1)
    gram = np.pad(_gram(basis.functions, correlation), (0, 1))
    return _System.build(design, target, weight, terms, noise, gram, config.ridge)


def _gram(functions: FloatArray, correlation: FloatArray | None) -> FloatArray:
    """Covariance of noise of unit variance convolved with the kernel functions."""
    flat = functions.reshape(len(functions), -1)
    if correlation is None:
        return np.asarray(flat @ flat.T)
    side, lags = functions.shape[-1], correlation.shape[-1]
    size = (side + lags - 1,) * 2
    spectrum = np.fft.rfft2(functions, size) * np.fft.rfft2(correlation, size)
    middle = slice(lags // 2, lags // 2 + side)
    smooth = np.fft.irfft2(spectrum, size)[:, middle, middle]
    return np.asarray(flat @ smooth.reshape(flat.shape).T)


def _clip(
    system: _System, use: npt.NDArray[np.bool_], config: Config
) -> tuple[npt.NDArray[np.bool_], tuple[int, int, int]]:
    """Drop badly fitting stamps until none is left."""
    for _ in range(_ROUNDS):
        orders = _orders(int(use.sum()), config)
        chi2 = system.chi2(system.solve(use, orders))
        middle = float(np.median(chi2[use]))
        width = mad_std(chi2[use], middle)
        width = max(width, np.sqrt(2.0 / system.target.shape[1]))
        keep = chi2 < middle + config.clip_sigma * width
        if keep.sum() < 3:
            raise SubtractionError(
                "too few stamps agree on a kernel", stamps=len(use), kept=int(keep.sum()), needed=3
            )
        if np.array_equal(keep, use):
            break
        use = keep
    return use, _orders(int(use.sum()), config)


def _ratio_order(
    system: _System,
    use: npt.NDArray[np.bool_],
    orders: tuple[int, int, int],
    config: Config,
) -> tuple[int, float]:
    """Let the photometric ratio vary only if stamps that were held out fit better."""
    best, gain = 0, 0.0
    largest = min(config.ratio_order, orders[1])
    if largest == 0:
        return best, gain
    held = {order: _held_out(system, use, (order, *orders[1:])) for order in range(largest + 1)}
    for order in range(1, largest + 1):
        better = held[best] - held[order]
        error = better.std() / np.sqrt(len(better))
        if better.mean() > 3.0 * error:
            best, gain = order, float(better.mean() / max(error, 1e-30))
    return best, gain


def _held_out(
    system: _System, use: npt.NDArray[np.bool_], orders: tuple[int, int, int]
) -> FloatArray:
    """χ² of every used stamp predicted by the other half of them."""
    index = np.flatnonzero(use)
    out = np.empty(len(index))
    for fold in (0, 1):
        train = use.copy()
        train[index[fold::2]] = False
        out[fold::2] = system.chi2(system.solve(train, orders))[index[fold::2]]
    return out


def _kernel(
    solution: _Solution,
    system: _System,
    use: npt.NDArray[np.bool_],
    stamps: Stamps,
    basis: Basis,
    orders: tuple[int, int, int],
    shape: tuple[int, int],
    convolved: str,
) -> MatchingKernel:
    chi2 = system.chi2(solution)
    coefficients = solution.coefficients
    order = {1: 0, 3: 1, 6: 2}[coefficients.shape[1]]
    return MatchingKernel(
        basis=basis.functions,
        coefficients=coefficients[:-1],
        order=order,
        shape=shape,
        background=coefficients[-1, : _TERMS[orders[2]]],
        condition=solution.condition,
        stamps=np.column_stack([stamps.x, stamps.y, chi2, use.astype(float)]),
        convolved=convolved,
    )
