"""Whole stages given what no healthy exposure holds: a result, or one error with its cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from harness.execute import compilation
from pipeline import calibrate, diaobject, diasource, subtract, template
from pipeline.errors import UnitError
from pipeline.exposure import Difference, Exposure
from pipeline.masks import bits
from pipeline.schema import DIA_OBJECT, DIA_SOURCE, to_numpy

from .conftest import gaussian

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SIDE = 256
Damage = Callable[[Exposure], Exposure]


def _sky(seed: int) -> Exposure:
    return _cut(_visit(seed), SIDE, SIDE)


@lru_cache(maxsize=3)
def _visit(seed: int) -> Exposure:
    stars = compilation._stars(np.random.default_rng(3), (512, 512), 90)
    return compilation._visit(stars, 1.9, seed, np.random.default_rng(seed))


def _cut(exposure: Exposure, ny: int, nx: int) -> Exposure:
    part = np.s_[:ny, :nx]
    return exposure.replace(
        image=exposure.image[part].copy(),
        variance=exposure.variance[part].copy(),
        mask=exposure.mask[part].copy(),
        background=np.full((ny, nx), 400.0, np.float32),
    )


def _pixels(value: float, share: float = 0.3) -> Damage:
    def damage(exposure: Exposure) -> Exposure:
        image = exposure.image.copy()
        image[np.random.default_rng(4).random(image.shape) < share] = value
        return exposure.replace(image=image)

    return damage


def _variance(value: float, share: float = 0.3) -> Damage:
    def damage(exposure: Exposure) -> Exposure:
        variance = exposure.variance.copy()
        variance[np.random.default_rng(5).random(variance.shape) < share] = value
        return exposure.replace(variance=variance)

    return damage


def _scaled(factor: float) -> Damage:
    def damage(exposure: Exposure) -> Exposure:
        image, variance = exposure.image * factor, exposure.variance * factor**2
        return exposure.replace(
            image=image.astype(np.float32), variance=variance.astype(np.float32)
        )

    return damage


DAMAGES: dict[str, Damage] = {
    "nan": _pixels(np.nan),
    "inf": _pixels(np.inf),
    "huge": _pixels(1e30),
    "negative": _pixels(-1e30),
    "all_nan": _pixels(np.nan, 2.0),
    "all_zero": _pixels(0.0, 2.0),
    "one_huge": _pixels(3e38, 1e-4),
    "variance_nan": _variance(np.nan),
    "variance_zero": _variance(0.0, 2.0),
    "variance_negative": _variance(-5.0),
    "variance_inf": _variance(np.inf, 2.0),
    "variance_tiny": _variance(1e-30, 2.0),
    "scaled_up": _scaled(1e12),
    "scaled_down": _scaled(1e-12),
    "masked": lambda e: e.replace(mask=np.full_like(e.mask, bits("BAD"))),
    "absent": lambda e: e.replace(mask=np.full_like(e.mask, bits("NO_DATA"))),
    "pixel": lambda e: _cut(e, 1, 1),
    "row": lambda e: _cut(e, 1, SIDE),
    "column": lambda e: _cut(e, SIDE, 1),
    "small": lambda e: _cut(e, 30, 30),
    "psf_nan": lambda e: e.replace(
        psf=replace(gaussian(), coefficients=np.full((1, 41, 41), np.nan))
    ),
    "psf_negative": lambda e: e.replace(psf=gaussian(wing=0.03)),
    "psf_small": lambda e: e.replace(psf=gaussian(0.5, side=3)),
}


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> Damage:
    return DAMAGES[request.param]


def test_calibrate(damage: Damage) -> None:
    exposure = damage(_sky(1)).replace(unit="electron")
    try:
        result = calibrate.run(exposure, None)
    except UnitError:
        return

    x, y = to_numpy(result.sources, "x"), to_numpy(result.sources, "y")
    ny, nx = exposure.shape
    assert ((x > -2) & (x < nx + 1) & (y > -2) & (y < ny + 1)).all()


def test_template(damage: Damage) -> None:
    inputs = [_sky(1), damage(_sky(2)), _sky(3)]
    try:
        made = template.run(inputs, inputs[0].wcs, (SIDE, SIDE)).template
    except UnitError:
        return

    missing = (made.mask & bits("NO_DATA")) != 0
    assert missing[~np.isfinite(made.image)].all()


def test_warp(damage: Damage) -> None:
    exposure = damage(_sky(1))
    try:
        made = template.warp(exposure, exposure.wcs, (SIDE + 40, SIDE))
    except UnitError:
        return

    assert ((made.mask & bits("NO_DATA")) != 0)[~np.isfinite(made.image)].all()


@pytest.mark.parametrize("where", ["science", "template"])
def test_subtract(damage: Damage, where: str) -> None:
    science, before = _sky(1), _sky(2)
    if where == "science":
        science = damage(science)
        before = _cut(before, *science.shape)
    else:
        before = damage(before)
        science = _cut(science, *before.shape)
    try:
        made = subtract.run(science, before)
    except UnitError:
        return

    image, mask = made.exposure.image, made.exposure.mask
    assert ((mask & bits("NO_DATA")) != 0)[~np.isfinite(image)].all()


@pytest.mark.parametrize("where", ["science", "template", "difference"])
def test_diasource(damage: Damage, where: str) -> None:
    science, before = _sky(1), _sky(2)
    science.image[100:107, 100:107] += 900
    if where == "science":
        science = damage(science)
        before = _cut(before, *science.shape)
    if where == "template":
        before = damage(before)
        science = _cut(science, *before.shape)
    made = _difference(science, before)
    if where == "difference":
        wrong = damage(made.exposure)
        if wrong.shape != made.exposure.shape:
            pytest.skip("no difference is of another shape than its images")
        made = replace(made, exposure=wrong)
    try:
        found = diasource.run(made, science, before, now_mjd_tai=57070.0)
    except UnitError:
        return

    x = to_numpy(found.sources, "x")
    assert ((x > -2) & (x < science.shape[1] + 1)).all()
    nothing = DIA_OBJECT.arrow_schema.empty_table(), DIA_SOURCE.arrow_schema.empty_table()
    result = diaobject.run(found.sources, *nothing, processed_mjd_tai=57070.0)
    diaobject.force(result.objects, made, science, processed_mjd_tai=57070.0)


def test_vignetted_frame_with_spurious_sources() -> None:
    # The stars lie in the middle; corners that were divided by a tiny flat are full of structure
    # that the variance knows nothing of.
    rng = np.random.default_rng(6)
    v, u = np.mgrid[:512, :512] - 255.5
    x, y = np.mgrid[130:390:34, 130:390:34].reshape(2, -1) + rng.uniform(-4, 4, (2, 64))
    flux = 10 ** rng.uniform(3.8, 5.2, 64)
    sky = compilation._visit((x, y, flux), 1.8, 1, rng)
    structure = gaussian_filter(rng.normal(size=(512, 512)), 1.2)
    structure *= 600.0 / structure.std() * np.clip((np.hypot(u, v) - 190.0) / 30.0, 0.0, 1.0)
    exposure = sky.replace(image=sky.image + structure.astype(np.float32), unit="electron")

    sources = calibrate.run(exposure, None).sources

    at = np.column_stack([to_numpy(sources, "x"), to_numpy(sources, "y")])
    measured = to_numpy(sources, "psfFlux")
    assert len(at) > 300
    assert ((at > -2.0) & (at < 513.0)).all()
    assert np.nanmax(np.abs(measured)) < 5 * flux.max()
    bright = np.flatnonzero(flux > 5e4)
    apart = [np.hypot(*(at - [x[k], y[k]]).T) for k in bright]
    ratio = [measured[a.argmin()] / flux[k] for a, k in zip(apart, bright, strict=True)]
    assert max(a.min() for a in apart) < 0.5
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)


def _difference(science: Exposure, before: Exposure) -> Difference:
    whole = compilation._difference(_grown(science), _grown(before))
    ny, nx = science.shape
    part = np.s_[:ny, :nx]
    return replace(
        whole,
        exposure=_cut(whole.exposure, ny, nx),
        score=whole.score[part].copy(),
        null_variance=whole.null_variance[part].copy(),
    )


def _grown(exposure: Exposure) -> Exposure:
    """Padded with zeros to the size that `compilation` works with."""
    ny, nx = exposure.shape
    pad = ((0, 512 - ny), (0, 512 - nx))
    return exposure.replace(
        image=np.pad(exposure.image, pad),
        variance=np.pad(exposure.variance, pad, constant_values=400.0),
        mask=np.pad(exposure.mask, pad),
        background=None,
    )
