"""The point spread function against the truth, by number of stars and kind of variation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.calibrate.kaiser import resample
from pipeline.calibrate.psf import cut_stamps, fit_psf, held_out, order_for
from pipeline.errors import PsfError

SHAPE = (900, 900)
Maker = Callable[..., Any]


def _fit(frame: Any, keep: slice = slice(None)) -> Any:
    """Fit at the true positions, sky known: what is left is the model's own error."""
    ny, nx = frame.exposure.shape
    v, u = np.mgrid[:ny, :nx]
    image = frame.exposure.image - 1200.0 * (1.0 + 0.01 * u / nx - 0.006 * v / ny)
    noise = np.full((ny, nx), 1249.0, np.float32)
    bad = np.zeros((ny, nx), bool)
    x, y, flux = frame.x[keep], frame.y[keep], frame.flux[keep]
    stars = cut_stamps(image.astype(np.float32), bad, noise, x, y, flux)
    return stars, fit_psf(stars, SHAPE)


def _errors(frame: Any, fit: Any) -> tuple[Any, Any, Any]:
    """Relative size, ellipticity and PSF-flux errors over the image."""
    x, y = (a.ravel() for a in np.mgrid[30:870:7j, 30:870:7j])
    model = fit.psf.stamps(x, y)
    true = np.array([frame.psf.stamp(a, b, half=20) for a, b in zip(x, y, strict=True)])
    k = np.arange(-20, 21)
    w = np.exp(-0.5 * (k[:, None] ** 2 + k[None] ** 2) / 9.0)

    def shape(p: Any) -> tuple[Any, Any]:
        norm = (w * p).sum(axis=(1, 2))
        xx = (w * p * k[None] ** 2).sum(axis=(1, 2)) / norm
        yy = (w * p * k[:, None] ** 2).sum(axis=(1, 2)) / norm
        return xx + yy, (xx - yy) / (xx + yy)

    size, e = shape(model)
    true_size, true_e = shape(true)
    flux = (true * model).sum(axis=(1, 2)) / (model**2).sum(axis=(1, 2))
    return size / true_size - 1.0, e - true_e, flux - 1.0


@pytest.mark.parametrize("curved", [False, True])
def test_hundred_stars_meet_the_bounds(scene: Maker, curved: bool) -> None:
    frame = scene(31, shape=SHAPE, n_stars=130, n_faint=0, curved=curved, isolated=True,
                  turbulence=0.0)  # fmt: skip
    stars, fit = _fit(frame)
    size, e, flux = _errors(frame, fit)

    assert fit.psf.order == 2
    assert abs(size.mean()) < 0.002
    assert size.std() < 0.006
    assert abs(e.mean()) < 0.0015
    assert e.std() < 0.004
    assert flux.std() < 0.003
    chi2 = held_out(stars, fit, SHAPE)["psfChi2"]
    assert chi2 is not None
    assert chi2 < 1.05


@pytest.mark.parametrize(("n", "order"), [(30, 1), (12, 1), (6, 0)])
def test_few_stars_make_a_simpler_model(scene: Maker, n: int, order: int) -> None:
    frame = scene(32, shape=SHAPE, n_stars=n, n_faint=0, isolated=True, turbulence=0.0,
                  varying=order > 0)  # fmt: skip
    _, fit = _fit(frame)
    size, _, _ = _errors(frame, fit)

    assert fit.psf.order == order == order_for(n)
    assert abs(size.mean()) < 0.01


def test_flux_is_one_everywhere_and_not_on_average(scene: Maker) -> None:
    frame = scene(33, shape=SHAPE, n_stars=60, n_faint=0, curved=True, isolated=True)
    _, fit = _fit(frame)
    x, y = (a.ravel() for a in np.mgrid[0:899:9j, 0:899:9j])
    k = np.arange(-20, 21)
    within = np.hypot(k[:, None], k[None]) <= 12.0

    assert fit.psf.stamps(x, y)[:, within].sum(axis=1) == pytest.approx(np.ones(81), abs=1e-10)


def test_a_blend_and_a_galaxy_are_left_out(scene: Maker) -> None:
    frame = scene(34, shape=SHAPE, n_stars=50, n_faint=0, isolated=True, turbulence=0.0,
                  snr=(150.0, 300.0))  # fmt: skip
    stars, clean = _fit(frame)
    blended = stars.stamps.copy()
    blended[7] += 0.3 * np.roll(blended[7].reshape(41, 41), (3, 3), (0, 1)).ravel()
    broken = type(stars)(stars.x, stars.y, blended, stars.variance, stars.flux, stars.use)

    fit = fit_psf(broken, SHAPE)

    assert not fit.kept[7]
    assert fit.n_stars >= 45
    assert np.abs(fit.psf.at(450, 450) - clean.psf.at(450, 450)).max() < 0.001


def test_too_few_stars_fail_with_numbers(scene: Maker) -> None:
    frame = scene(35, n_stars=3, n_faint=0, isolated=True)

    with pytest.raises(PsfError, match="too few stars") as caught:
        fit_psf(_fit(frame)[0], SHAPE, min_stars=5)
    assert caught.value.numbers == {"stars": 3, "required": 5, "candidates": 3}


def test_recentring_keeps_the_moments(scene: Maker) -> None:
    """The windowed sinc moves a star by half a pixel and keeps its size to 3·10⁻⁴."""
    psf = scene(36, n_stars=2, n_faint=0).psf
    off = psf.stamp(200, 200, 0.5, -0.37, half=27)[None]

    centred = resample(off, np.array([0.5]), np.array([-0.37]), 41)[0]
    true = psf.stamp(200, 200, half=20)

    k = np.arange(-20, 21)
    w = np.exp(-0.5 * (k[:, None] ** 2 + k[None] ** 2) / 16.0)
    size = [
        (p * w * (k[:, None] ** 2 + k[None] ** 2)).sum() / (p * w).sum() for p in (centred, true)
    ]
    assert size[0] == pytest.approx(size[1], rel=3e-4)
    assert np.abs(centred - true).max() < 1e-3 * true.max()
