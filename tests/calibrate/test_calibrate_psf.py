"""The point spread function against the truth, by number of stars and kind of variation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.calibrate.kaiser import noise_power, resample
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
    assert 0.95 < chi2 < 1.05


@pytest.mark.parametrize(("n", "order"), [(30, 1), (12, 1), (6, 0)])
def test_few_stars_make_a_simpler_model(scene: Maker, n: int, order: int) -> None:
    frame = scene(32, shape=SHAPE, n_stars=n, n_faint=0, isolated=True, turbulence=0.0,
                  varying=order > 0)  # fmt: skip
    _, fit = _fit(frame)
    size, _, _ = _errors(frame, fit)

    assert fit.psf.order == order == order_for(n)
    assert abs(size.mean()) < 0.01


def test_few_stars_with_a_galaxy_make_no_gradient(scene: Maker) -> None:
    """Two slightly extended ones at one side; the PSF itself is the same everywhere."""
    frame = scene(36, shape=SHAPE, n_stars=16, n_faint=0, isolated=True, turbulence=0.0,
                  varying=False, snr=(60.0, 200.0))  # fmt: skip
    stars, _ = _fit(frame)
    k = np.arange(-20, 21)
    wide = np.exp(-0.5 * (k[:, None] ** 2 + k**2) / 9.0).ravel() / (2.0 * np.pi * 9.0)
    for star in np.argsort(stars.x)[:2]:
        stars.stamps[star] = 0.8 * stars.stamps[star] + 0.2 * wide
    fit = fit_psf(stars, SHAPE)
    _, _, flux = _errors(frame, fit)

    assert fit.n_stars >= 14
    assert fit.psf.order == 0
    assert flux.std() < 0.001


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
    broken = replace(stars, stamps=blended)

    fit = fit_psf(broken, SHAPE)

    assert not fit.kept[7]
    assert fit.n_stars >= 45
    assert np.abs(fit.psf.at(450, 450) - clean.psf.at(450, 450)).max() < 0.001


def test_too_few_stars_fail_with_numbers(scene: Maker) -> None:
    frame = scene(35, n_stars=3, n_faint=0, isolated=True)

    with pytest.raises(PsfError, match="too few stars") as caught:
        fit_psf(_fit(frame)[0], SHAPE, min_stars=5)
    assert caught.value.numbers == {"stars": 3, "required": 5, "candidates": 3}


def _recentred(stamp: Callable[..., Any]) -> tuple[float, float]:
    """Relative errors of size and peak of a star that is moved back by half a pixel."""
    off = stamp(0.5, -0.37, 28)[None]
    centred, true = resample(off, np.array([0.5]), np.array([-0.37]), 41)[0], stamp(0.0, 0.0, 20)
    k = np.arange(-20, 21)
    r2 = k[:, None] ** 2 + k[None] ** 2
    w = np.exp(-r2 / 32.0)
    size = [(p * w * r2).sum() / (p * w).sum() for p in (centred, true)]
    return abs(size[0] / size[1] - 1.0), float(np.abs(centred - true).max() / true.max())


def test_recentring_keeps_a_star(scene: Maker) -> None:
    """What it costs the peak is what the pixels of such a profile alias, see below."""
    psf = scene(36, n_stars=2, n_faint=0).psf

    size, peak = _recentred(lambda dx, dy, half: psf.stamp(200, 200, dx, dy, half=half))

    assert size < 1e-4
    assert peak < 5e-4


def test_recentring_is_exact_where_pixels_alias_nothing() -> None:
    def gaussian(dx: float, dy: float, half: int) -> Any:
        k = np.arange(-half, half + 1.0)
        return np.exp(-0.5 * ((k - dx)[None] ** 2 + (k - dy)[:, None] ** 2) / 1.8**2)

    size, peak = _recentred(gaussian)

    assert size < 1e-4
    assert peak < 1e-4


def test_noise_after_recentring_is_as_stated() -> None:
    rng = np.random.default_rng(37)
    dx, dy = np.array([0.0, 0.3, 0.5]), np.array([0.0, -0.2, 0.5])
    noise = rng.normal(size=(400, 3, 57, 57))

    seen = [resample(n, dx, dy, 41).var(axis=(1, 2)) for n in noise]

    assert np.mean(seen, axis=0) == pytest.approx(noise_power(dx, dy), rel=0.01)
    assert noise_power(dx, dy)[0] == pytest.approx(1.0, abs=1e-12)


def test_only_lone_stars_judge_the_psf(scene: Maker) -> None:
    """A neighbour under half of the stars spoils their χ², not the verdict on the PSF."""
    frame = scene(36, shape=SHAPE, n_stars=60, n_faint=0, isolated=True, turbulence=0.0,
                  snr=(100.0, 300.0))  # fmt: skip
    stars, _ = _fit(frame)
    spoilt = np.arange(len(stars)) % 2 == 0
    ghost = np.roll(stars.stamps.reshape(-1, 41, 41), (5, 4), (1, 2)).reshape(len(stars), -1)
    dirty = replace(stars, stamps=stars.stamps + 0.03 * ghost * spoilt[:, None])
    fit = fit_psf(dirty, SHAPE)

    everything = held_out(dirty, fit, SHAPE)["psfChi2"]
    lone = held_out(dirty, fit, SHAPE, ~spoilt)["psfChi2"]

    assert lone is not None
    assert everything is not None
    assert 0.9 < lone < 1.15
    assert everything > lone
    assert held_out(dirty, fit, SHAPE, np.zeros(len(stars), bool))["psfChi2"] is None


def test_six_stars_leave_none_to_spare(scene: Maker) -> None:
    frame = scene(37, shape=SHAPE, n_stars=6, n_faint=0, isolated=True, turbulence=0.0)
    stars, fit = _fit(frame)

    assert set(held_out(stars, fit, SHAPE).values()) == {None}


def test_three_stars_on_a_pedestal_have_no_wing_of_it(scene: Maker) -> None:
    frame = scene(38, shape=SHAPE, n_stars=3, n_faint=0, isolated=True, turbulence=0.0)
    stars, clean = _fit(frame)
    lifted = fit_psf(replace(stars, stamps=stars.stamps + 9e-4), SHAPE)
    peak = clean.psf.at(450, 450).max()

    assert fit_psf(stars, SHAPE).psf.at(450, 450).max() == peak
    assert lifted.psf.at(450, 450).max() == pytest.approx(peak, rel=0.02)
    assert lifted.psf.at(450, 450).sum() == pytest.approx(clean.psf.at(450, 450).sum(), abs=0.02)
